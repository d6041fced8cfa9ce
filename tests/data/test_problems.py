"""Which problems a step gets: in order, or as a curriculum says, and the same again from a saved state."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from posttrain.core import Arm, Curriculum, Outcome, ProblemCurriculum, State
from posttrain.data.problems import ByCurriculum, InOrder
from posttrain.tasks import load_task
from posttrain.tasks.task import Problem

ADDITION, MIXED = load_task("addition"), load_task("addition,char-addition")


@dataclass(frozen=True, kw_only=True)
class Even(Curriculum):
    """Every part alike; the state counts the steps."""

    def probabilities(self, state: State, arms: Sequence[Arm]) -> list[float]:
        return [1 / len(arms)] * len(arms)

    def learn(self, state: State, outcomes: Sequence[Outcome]) -> None:
        state["steps"] = state.get("steps", 0) + 1


@dataclass(frozen=True, kw_only=True)
class Longest(ProblemCurriculum):
    """Only the longest prompts, the first of a step twice as often asked as the rest."""

    reads_lengths = True

    def probabilities(self, state: State, arms: Sequence[Arm]) -> list[float]:
        chosen = [arm.length == max(a.length for a in arms) for arm in arms]
        return [c / sum(chosen) for c in chosen]

    def budgets(self, state: State, drawn: Sequence[Arm], samples: int) -> list[int]:
        return [2 * samples, *[samples] * (len(drawn) - 1)]


def length(problem: Problem) -> int:
    return len(str(problem.prompt))


def test_in_order() -> None:
    problems = InOrder(ADDITION, 3, 4, 7)
    expected = [ADDITION.train(i, 7) for i in range(12)]
    assert [pick.problem for pick in problems.take(1)] == expected[3:6]
    assert [pick.problem for pick in problems.take(1, 1)] == expected[6:9]  # the step needed more
    assert [pick.problem for pick in problems.take(2)] == expected[9:]  # and the next goes on from there
    assert {pick.samples for pick in problems.take(3)} == {4}


def test_parts_go_through_their_own_problems_in_order() -> None:
    problems = ByCurriculum(MIXED, Even(), 20, 4, 7, length)
    picks = [*problems.take(0), *problems.take(1)]
    for name in ("addition", "char-addition"):
        mine = [pick.problem for pick in picks if pick.arm.name == name]
        assert [p.prompt for p in mine] == [load_task(name).train(i, 7).prompt for i in range(len(mine))]
        assert 5 < len(mine) < 35
        assert {p.part for p in mine} == {name}
    drawn = problems.learn([Outcome(pick.arm, (), (), ()) for pick in picks[:20]])
    assert drawn == {f"drawn/{arm.name}": sum(p.arm == arm for p in picks[:20]) / 20 for arm in problems.arms}


def test_single_problems_and_their_budgets() -> None:
    problems = ByCurriculum(ADDITION, Longest(pool=16), 4, 3, 7, length)
    pool = [ADDITION.train(i, 7) for i in range(16)]
    longest = max(map(length, pool))
    picks = problems.take(0)
    assert all(pick.problem in pool and length(pick.problem) == longest for pick in picks)
    assert [pick.samples for pick in picks] == [6, 3, 3, 3]
    assert problems.learn([]) == {}


def test_a_file_is_a_pool_of_its_own_size(tmp_path: Path) -> None:
    (tmp_path / "my.jsonl").write_text("".join(json.dumps({"prompt": str(i), "answer": "1"}) + "\n" for i in range(30)))
    task = load_task(str(tmp_path / "my.jsonl"), "exact")
    problems = ByCurriculum(task, Longest(pool=2), 4, 3, 7, length)
    assert len(problems.arms) == 30 - len(task.heldout(30))
    assert len({problems._problem(arm).prompt for arm in problems.arms}) == len(problems.arms)


def test_parts_of_a_file(tmp_path: Path) -> None:
    lines = [{"prompt": str(i), "answer": "1", "part": "ab"[i % 2]} for i in range(30)]
    (tmp_path / "my.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    problems = ByCurriculum(load_task(str(tmp_path / "my.jsonl"), "exact"), Even(), 40, 3, 7, length)
    picks = problems.take(0)
    assert all(int(str(pick.problem.prompt)) % 2 == "ab".index(pick.arm.name) for pick in picks)
    assert {pick.arm.name for pick in picks} == {"a", "b"}


def test_goes_on_from_a_saved_state() -> None:
    whole = ByCurriculum(MIXED, Even(), 5, 4, 7, length)
    steps = []
    for step in range(4):
        steps.append(whole.take(step) + whole.take(step, 1))
        whole.learn([Outcome(pick.arm, (1.0,), (0.5,), ("x",)) for pick in steps[-1]])
        if step == 1:
            saved = json.dumps(whole.state)
    resumed = ByCurriculum(MIXED, Even(), 5, 4, 7, length)
    resumed.state = json.loads(saved)
    assert resumed.state["own"] == {"steps": 2}
    for step in (2, 3):
        assert resumed.take(step) + resumed.take(step, 1) == steps[step]
        resumed.learn([Outcome(pick.arm, (1.0,), (0.5,), ("x",)) for pick in steps[step]])
    assert resumed.state == whole.state
    assert ByCurriculum(MIXED, Even(), 5, 4, 8, length).take(0) != steps[0]


def test_one_part_is_no_choice() -> None:
    with pytest.raises(ValueError, match="chooses among the parts of a task, and 'addition' has one; name several"):
        ByCurriculum(ADDITION, Even(), 5, 4, 7, length)
