"""QwenLong-L1: phases by length, and what comes back from the first, worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.core import Arm, Outcome
from posttrain.data.curriculum.qwenlong_l1 import QwenLongL1

ARMS = [Arm("a", 10), Arm("b", 20), Arm("c", 21), Arm("d", 40), Arm("e", 5)]  # a, b and e are short
PHASES: dict[str, Any] = {"phase_lengths": (20, 40), "phase_steps": 2}


def outcome(arm: Arm, *rewards: float) -> Outcome:
    return Outcome(arm, rewards, (0.0,) * len(rewards), ("",) * len(rewards))


def test_two_phases() -> None:
    # Phase 1 draws a, b and e evenly for 2 steps.  Then half of the chance is even over c and d, and half goes to what
    # was drawn before, by 1 / mean reward: a has 1 → 1, b has ¼ → 4; e was never drawn.
    curriculum = QwenLongL1(**PHASES)
    state = curriculum.initial_state(ARMS)
    assert curriculum.probabilities(state, ARMS) == pytest.approx([1 / 3, 1 / 3, 0, 0, 1 / 3])
    curriculum.learn(state, [outcome(ARMS[0], 0, 1), outcome(ARMS[1], 0, 1, 0, 0)])
    assert curriculum.probabilities(state, ARMS)[2] == 0
    curriculum.learn(state, [outcome(ARMS[0], 1, 1)])
    assert curriculum.probabilities(state, ARMS) == pytest.approx([0.1, 0.4, 0.25, 0.25, 0])


def test_never_solved_prompts_do_not_take_all() -> None:
    curriculum = QwenLongL1(**PHASES, least_reward=0.5, retrospective_share=1)
    state = curriculum.initial_state(ARMS) | {"steps": 2, "reward": {"a": 0.0, "b": 1.0}}
    assert curriculum.probabilities(state, ARMS) == pytest.approx([2 / 3, 1 / 3, 0, 0, 0])


def test_nothing_to_come_back() -> None:
    curriculum = QwenLongL1(**PHASES)
    assert curriculum.probabilities({"steps": 5, "reward": {}}, ARMS) == [0, 0, 0.5, 0.5, 0]


@pytest.mark.parametrize("lengths", [(40, 20), (20, 39), (4, 40), (40, 50)])
def test_phases_that_do_not_fit_the_task(lengths: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"phase_lengths = \d+,\d+: prompts have 5 to 40 tokens, and each phase must"):
        QwenLongL1(phase_lengths=lengths).initial_state(ARMS)
