"""Every way a score can fail, through the real worker processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from misbehaving import Misbehaving, Stepwise, Unimportable

from posttrain.core.errors import PosttrainError, UserError
from posttrain.rewards.grade import LONGEST_FAILURE, grade, one_line
from posttrain.rewards.scoring import Scored, Scorer
from posttrain.tasks.task import Problem

YES = Problem("say yes", "yes")
BAD_VALUES = [("nan", "nan"), ("inf", "inf"), ("none", "None"), ("text", "'1'"), ("two", "2"),
              ("minus", "-0.1"), ("list", "[1]")]
HOSTILE = ["", "\0", "\ud800", "\udcff\ud83d", "\u202e\u2028\x1b[2J", "a" * 1_000_000, "[" * 100_000,
           "9" * 100_000, "\U0010ffff", "e\u0301" * 1000]


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    with Scorer(Misbehaving(trusted=False), timeout=1.0) as made:
        yield made


def score_one(scorer: Scorer, completion: str) -> Scored:
    [scored] = scorer([YES], [completion])
    return scored


@pytest.mark.parametrize(("completion", "shown"), BAD_VALUES)
@pytest.mark.parametrize("trusted", [True, False])
def test_a_value_that_is_no_score_is_a_failure_that_names_it(
        scorer: Scorer, completion: str, shown: str, trusted: bool) -> None:
    used = Scorer(Misbehaving(trusted=True)) if trusted else scorer
    assert score_one(used, completion) == Scored(failure=f"returned {shown}, must be a number in [0, 1]")


def test_an_exception_is_a_failure_on_one_line(scorer: Scorer) -> None:
    assert score_one(scorer, "raise") == Scored(failure="ValueError: no such \\x00 thing \\ud800")
    assert score_one(scorer, "exit") == Scored(failure="SystemExit: 3")


def test_a_bool_and_a_numpy_number_are_scores(scorer: Scorer) -> None:
    class Returns(Misbehaving):
        def score(self, problem: Problem, completion: str) -> float:
            return problem.answer  # type: ignore[no-any-return]

    assert score_one(scorer, "true") == Scored(value=1.0)
    for number in (np.float32(0.5), np.bool_(True), np.array(1)):
        assert grade(Returns(trusted=True), Problem("", number), "") == Scored(value=float(number))


@pytest.mark.parametrize("completion", ["hang", "hang in C"])
def test_a_hanging_call_fails_alone_and_in_time(completion: str) -> None:
    with Scorer(Misbehaving(trusted=False), timeout=0.3) as scorer:
        scorer([YES], ["yes"])
        start = time.monotonic()
        results = scorer([YES] * 4, ["yes", completion, "no", "half"])
        assert time.monotonic() - start < 10
    assert results == [Scored(1.0), Scored(failure="timed out after 0.3 s"), Scored(0.0), Scored(0.5)]


def test_a_dying_worker_is_replaced(scorer: Scorer) -> None:
    results = scorer([YES] * 4, ["die", "yes", "die and leave a child", "yes"])
    died = Scored(failure="the scoring worker died (exit code 7)")
    assert results == [died, Scored(1.0), died, Scored(1.0)]


def test_order_and_results_do_not_depend_on_the_number_of_workers() -> None:
    completions = ["yes", "no", "half", "raise", "true", "nan"] * 5
    with Scorer(Misbehaving(trusted=False)) as one, Scorer(Misbehaving(trusted=False), workers=3) as three:
        expected = [grade(Misbehaving(trusted=True), YES, completion) for completion in completions]
        assert one([YES] * 30, completions) == three([YES] * 30, completions) == expected


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:6]))
def test_hostile_text_is_scored(scorer: Scorer, text: str) -> None:
    assert score_one(scorer, text) == Scored(0.0)
    assert scorer([Problem("", text)], [text]) == [Scored(1.0)]


def test_many_short_calls_are_quick(scorer: Scorer) -> None:
    score_one(scorer, "yes")
    start = time.monotonic()
    scorer([YES] * 64, ["yes"] * 64)
    assert time.monotonic() - start < 0.5  # 10 ms where the machine is free


def test_a_worker_imports_no_torch_and_keeps_standard_output_clean(
        scorer: Scorer, capfd: pytest.CaptureFixture[str]) -> None:
    assert score_one(scorer, "modules") == Scored(0.0)
    assert score_one(scorer, "print") == Scored(0.0)
    assert capfd.readouterr().out == ""


def run_script(tmp_path: Path, call: str) -> subprocess.Popen[str]:
    """Start a program, without a main guard, that scores one completion."""
    script = tmp_path / "script.py"
    script.write_text(
        "from misbehaving import Misbehaving\n"
        "from posttrain.rewards.scoring import Scorer\n"
        "from posttrain.tasks.task import Problem\n"
        "print('once', flush=True)\n"
        f"with Scorer(Misbehaving(False), timeout=0.5) as s:\n    {call}\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True)


def test_a_script_without_a_main_guard_can_score(tmp_path: Path) -> None:
    script = run_script(tmp_path, "print(s([Problem('', 'yes')], ['yes'])[0].value)")
    assert script.communicate(timeout=60)[0] == "once\n1.0\n"


@pytest.mark.slow
def test_a_hanging_worker_ends_though_its_parent_was_killed(tmp_path: Path) -> None:
    script = run_script(tmp_path, "s._begin(0, Problem('', ''), 'hang in C'); [job] = s._busy.values(); "
                                  "print(job.worker._process.pid, flush=True); input()")
    assert script.stdout is not None
    script.stdout.readline()
    pid = int(script.stdout.readline())
    script.kill()
    script.communicate(timeout=10)
    deadline = time.monotonic() + 20  # 0.5 s and 5 s of grace
    while os.path.exists(f"/proc/{pid}") and _state(pid) != "Z" and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not os.path.exists(f"/proc/{pid}") or _state(pid) == "Z"


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_closing_leaves_no_process_and_the_scorer_usable() -> None:
    scorer = Scorer(Misbehaving(trusted=False))
    scorer([YES], ["yes"])
    [worker] = scorer._idle
    scorer.close()
    assert not worker.alive()
    assert scorer([YES], ["yes"]) == [Scored(1.0)]
    scorer.close()


def test_an_idle_worker_that_was_killed_costs_no_score(scorer: Scorer) -> None:
    score_one(scorer, "yes")
    os.kill(scorer._idle[0]._process.pid, 9)
    scorer._idle[0]._process.wait(timeout=5)
    assert score_one(scorer, "yes") == Scored(1.0)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises, also where a shell started these tests in the background, and with that told them to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_call_leaves_no_reply_for_the_next() -> None:
    with Scorer(Misbehaving(trusted=False), timeout=30) as scorer:
        scorer([YES], ["yes"])
        pid = os.getpid()
        timer = threading.Timer(0.5, lambda: os.kill(pid, 2))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            scorer([YES] * 2, ["half", "hang"])
        timer.join(timeout=5)
        assert scorer([YES], ["yes"]) == [Scored(1.0)]


def test_a_task_that_cannot_start_is_one_error() -> None:
    with Scorer(Unimportable(trusted=False)) as scorer, pytest.raises(PosttrainError) as caught:
        scorer([YES], ["yes"])
    assert str(caught.value) == (
        "the scoring worker of task 'misbehaving' did not start: RuntimeError: no weights here")


def test_a_task_that_cannot_be_sent_is_one_error() -> None:
    class Local(Misbehaving):
        pass

    with Scorer(Local(trusted=False)) as scorer, pytest.raises(PosttrainError, match="cannot be sent"):
        scorer([YES], ["yes"])


def test_wrong_use() -> None:
    with pytest.raises(UserError, match=r"timeout = 0: must be > 0 seconds"):
        Scorer(Misbehaving(trusted=True), timeout=0)
    with pytest.raises(UserError, match=r"workers = 0: must be ≥ 1"):
        Scorer(Misbehaving(trusted=True), workers=0)
    with pytest.raises(ValueError, match="shorter"):
        Scorer(Misbehaving(trusted=True))([YES], [])


def test_a_failure_is_printable_and_short() -> None:
    assert one_line("a\n\tb\x1b[2J") == "a b\\x1b[2J"
    assert len(one_line("x" * 10**6)) == LONGEST_FAILURE
    assert all(one_line(text).isprintable() for text in HOSTILE)


@pytest.mark.parametrize("trusted", [True, False])
def test_a_task_may_score_steps_too(trusted: bool) -> None:
    with Scorer(Stepwise(trusted=trusted), timeout=5.0) as scorer:
        results = scorer([YES] * 4, ["half half", "no yes", "half nan", "half raise"])
    assert results == [Scored(1.0, process=0.5), Scored(0.0, process=1.0),
                       Scored(failure="returned nan, must be a number in [0, 1]"),
                       Scored(failure="ValueError: no such \\x00 thing \\ud800")]
