"""Score completions without trusting them, or the scorer: every call is bounded and every failure is told."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any, Self

from posttrain.core.errors import UserError
from posttrain.rewards.grade import Scored, Scores, grade
from posttrain.rewards.worker import Worker, WorkerDied

__all__ = ["Scored", "Scorer"]


@dataclass(frozen=True)
class _Job:
    worker: Worker
    index: int          # of the pair in its batch
    deadline: float     # time.monotonic() seconds


class Scorer:
    """Scores batches for one task.  Use as a context manager, so that its processes end.

    A trusted task is scored in this process.  Any other runs in up to `workers` processes, which start
    when first needed and are replaced when they die or hang.  `timeout` (seconds) bounds each completion by
    itself: one that hangs fails alone.  A batch of n hanging calls takes n · timeout / workers.
    """

    def __init__(self, task: Scores, timeout: float = 10.0, workers: int = 1) -> None:
        if not timeout > 0:
            raise UserError(f"timeout = {timeout!r}: must be > 0 seconds")
        if workers < 1:
            raise UserError(f"workers = {workers!r}: must be ≥ 1")
        self._task, self._timeout, self._workers = task, timeout, workers
        self._idle: list[Worker] = []
        self._busy: dict[Any, _Job] = {}  # keyed by connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End every worker.  The scorer may be used again; it then starts new ones."""
        for worker in [*self._idle, *(job.worker for job in self._busy.values())]:
            worker.stop()
        self._idle.clear()
        self._busy.clear()

    def __call__(self, problems: Sequence[Any], completions: Sequence[str]) -> list[Scored]:
        """One result for each pair, in order.

        Raises:
            ValueError: the two sequences differ in length.
            PosttrainError: no worker can be started.
        """
        pairs = list(zip(problems, completions, strict=True))
        if self._task.trusted:
            return [grade(self._task, problem, completion) for problem, completion in pairs]
        try:
            return self._score_in_workers(pairs)
        except BaseException:
            self.close()  # a reply still under way must never be taken for a later call's
            raise

    def _score_in_workers(self, pairs: list[tuple[Any, str]]) -> list[Scored]:
        results: list[Scored | None] = [None] * len(pairs)
        waiting = deque(range(len(pairs)))
        while waiting or self._busy:
            while waiting and len(self._busy) < self._workers:
                index = waiting.popleft()
                results[index] = self._begin(index, *pairs[index])
            for index, scored in self._collect():
                results[index] = scored
        return [scored for scored in results if scored is not None]

    def _begin(self, index: int, problem: Any, completion: str) -> Scored | None:
        """Hand one job to a worker; a result at once only where that failed."""
        worker = self._take()
        try:
            worker.ask(problem, completion)
        except WorkerDied as death:
            worker.stop()
            return Scored(failure=str(death))
        self._busy[worker.connection] = _Job(worker, index, time.monotonic() + self._timeout)
        return None

    def _take(self) -> Worker:
        while self._idle:
            worker = self._idle.pop()
            if worker.alive():
                return worker
            worker.stop()
        worker = Worker(self._task, self._timeout)
        worker.wait_ready()
        return worker

    def _collect(self) -> list[tuple[int, Scored]]:
        """Wait for the next reply or the next deadline, and return what has come to its end."""
        if not self._busy:
            return []
        first = min(job.deadline for job in self._busy.values())
        answered = wait(list(self._busy), timeout=max(0.0, first - time.monotonic()))
        done = [self._finish(self._busy.pop(key)) for key in answered]
        now = time.monotonic()
        for key in [key for key, job in self._busy.items() if job.deadline <= now]:
            job = self._busy.pop(key)
            job.worker.stop()
            done.append((job.index, Scored(failure=f"timed out after {self._timeout:g} s")))
        return done

    def _finish(self, job: _Job) -> tuple[int, Scored]:
        try:
            scored = job.worker.reply()
        except WorkerDied as death:
            job.worker.stop()
            return job.index, Scored(failure=str(death))
        self._idle.append(job.worker)
        return job.index, scored
