"""A process that scores completions and may be killed at any moment.

Why not multiprocessing's own start methods: spawn and forkserver run the user's main script again in every
worker, which breaks scripts that have no `__main__` guard and imports torch where it is not wanted; fork
copies torch's threads half-alive.  Here a fresh interpreter is given the parent's import path and one
socket.  Requests are pickles from parent to child; replies are JSON, so nothing that ran beside hostile
text is unpickled.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

from posttrain.core.errors import PosttrainError
from posttrain.rewards.grade import Scored, Scores, grade, one_line

START_TIMEOUT = 120.0      # seconds for a worker to import what its task needs
_READY = b"ready"
_REPLY_LIMIT = 1 << 16     # bytes
_GRACE = 5.0               # seconds after which a worker whose parent is gone ends itself


class WorkerDied(Exception):
    """The worker is gone; the message says how it ended."""


class Worker:
    """The parent's end of one scoring process.  `ask` sends one job; its reply comes on `connection`."""

    def __init__(self, task: Scores, timeout: float) -> None:
        self._task_name = task.name
        self.connection, theirs = multiprocessing.Pipe()
        command = f"from posttrain.rewards.worker import serve; serve({theirs.fileno()})"
        self._process = subprocess.Popen(
            [sys.executable, "-c", command], pass_fds=[theirs.fileno()], env=_environment(),
            stdin=subprocess.DEVNULL, stdout=2,  # what a verifier prints belongs with the messages
            start_new_session=True,  # so that it can be killed with all it started, and ^C passes it by
        )
        theirs.close()
        try:
            self.connection.send((task, timeout))
        except OSError:
            pass  # it died at once; wait_ready says so
        except Exception as error:
            self.stop()
            raise PosttrainError(f"task {task.name!r} cannot be sent to a scoring worker: {error}") from error

    def wait_ready(self) -> None:
        """Wait until the worker has imported its task.

        Raises:
            PosttrainError: it failed to, or took longer than `START_TIMEOUT`.
        """
        try:
            late = not self.connection.poll(START_TIMEOUT)
            answer = b"" if late else self.connection.recv_bytes(_REPLY_LIMIT)
        except (EOFError, OSError):
            late, answer = False, self._ending().encode()
        if answer != _READY:
            self.stop()
            reason = f"not ready after {START_TIMEOUT:g} s" if late else answer.decode()
            raise PosttrainError(f"the scoring worker of task {self._task_name!r} did not start: {reason}")

    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, problem: Any, completion: str) -> None:
        """Send one job.

        Raises:
            WorkerDied: there is nobody to take it.
        """
        try:
            self.connection.send((problem, completion))
        except OSError as error:
            raise WorkerDied(self._ending()) from error

    def reply(self) -> Scored:
        """The result of the job sent last; call when `connection` is readable.

        Raises:
            WorkerDied: it ended instead of answering, or what it sent is no answer.
        """
        try:
            return Scored(**json.loads(self.connection.recv_bytes(_REPLY_LIMIT)))
        except (EOFError, OSError, ValueError, TypeError) as error:
            raise WorkerDied(self._ending()) from error

    def stop(self) -> None:
        """Kill the worker and whatever it started; an idle worker has nothing to lose."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=10)
        self.connection.close()

    def _ending(self) -> str:
        try:
            code = self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            return "the scoring worker closed its connection"
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"the scoring worker died ({how})"


def serve(descriptor: int) -> None:
    """The child's whole life: receive the task, then one (problem, completion) after another."""
    os.set_inheritable(descriptor, False)  # a process that outlives us must not keep the socket open
    connection: Connection[Any, Any] = Connection(descriptor)
    try:
        task, timeout = connection.recv()
    except Exception as error:
        connection.send_bytes(one_line(f"{type(error).__name__}: {error}").encode())
        return
    connection.send_bytes(_READY)
    # The parent kills a late worker.  Should the parent be gone, this timer ends it: with the default action
    # the kernel does, whatever Python is busy with.  A verifier that sets alarms itself gives that up.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            problem, completion = connection.recv()
            signal.setitimer(signal.ITIMER_REAL, timeout + _GRACE)
            scored = grade(task, problem, completion)
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send_bytes(json.dumps(asdict(scored)).encode())


def _environment() -> dict[str, str]:
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": path}
