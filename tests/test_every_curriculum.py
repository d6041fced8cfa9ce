"""What every curriculum must keep to.  Curricula are found by walking the package."""

from __future__ import annotations

import dataclasses
import json
from random import Random
from typing import Any

import pytest

from posttrain.core import Arm, Curriculum, EpisodeCurriculum, Outcome, ProblemCurriculum, State, catalog, method_files
from posttrain.core.errors import UserError

NAMES = sorted(method_files.curricula())
PROMPTS, SAMPLES, STEPS = 6, 4, 12
SMALL: dict[str, dict[str, Any]] = {  # what makes an option tell within so few steps
    "qwenlong-l1": {"phase_lengths": (20.0, 60.0), "phase_steps": 4},
    "dump": {"learnability_window": 8},
    "knapsack-rl": {"most_answers": 6},
    "mmr1-vas": {"diversity_weight": 0.5},
}
OTHER: dict[str, Any] = {"phase_lengths": (30.0, 60.0), "part_weights": "1,2,3", "weigh_by": "return"}
ELSEWHERE = {"pool", "seed_runs"}  # `ByCurriculum` reads the one, a file's own test covers the other

pytestmark = pytest.mark.parametrize("name", NAMES)


def make(name: str, **changes: Any) -> Curriculum:
    return catalog.make_curriculum(name, **SMALL.get(name, {}) | changes)


def arms_of(curriculum: Curriculum) -> list[Arm]:
    if isinstance(curriculum, ProblemCurriculum):
        return [Arm(str(i), length=5 + 5 * i) for i in range(12)]
    if isinstance(curriculum, EpisodeCurriculum):
        return [Arm(str(i), 3 + i % 4, 0.1 * (i * i % 7), (0.1 * i, float(i % 3))) for i in range(12)]
    return [Arm(name) for name in ("sums", "stories", "proofs")]


def answered(drawn: list[Arm], budgets: list[int], rng: Random) -> list[Outcome]:
    """Made-up answers: some arms are easy, some hard, some in between."""
    found = []
    for arm, samples in zip(drawn, budgets, strict=True):
        ease = (len(arm.name) + sum(map(ord, arm.name))) % 5 / 4
        rewards = tuple(float(rng.random() < ease) for _ in range(samples))
        mean = sum(rewards) / samples
        texts = tuple(" ".join(rng.choices("abcd", k=5)) for _ in rewards)
        found.append(Outcome(arm, rewards, tuple(abs(r - mean) for r in rewards), texts))
    return found


def walk(curriculum: Curriculum, steps: int = STEPS, state: State | None = None, first: int = 0
         ) -> tuple[list[Any], State]:
    """Steps from a state: what each drew with which budgets and chances, and the state at the end."""
    arms = arms_of(curriculum)
    state = curriculum.initial_state(arms) if state is None else state
    seen: list[Any] = []
    for step in range(first, first + steps):
        chances = curriculum.probabilities(state, arms)
        drawn = curriculum.draw(state, arms, PROMPTS, Random(step))
        budgets = curriculum.budgets(state, drawn, SAMPLES)
        seen.append((chances, drawn, budgets))
        curriculum.learn(state, answered(drawn, budgets, Random(f"answers {step}")))
    return seen, state


def test_chances_sum_to_one_and_budgets_to_the_samples(name: str) -> None:
    curriculum = make(name)
    seen, _ = walk(curriculum)
    for chances, drawn, budgets in seen:
        assert len(chances) == len(arms_of(curriculum))
        assert sum(chances) == pytest.approx(1, abs=1e-12)
        assert min(chances) >= 0
        assert len(drawn) == len(budgets) == PROMPTS
        assert sum(budgets) == PROMPTS * SAMPLES
        assert min(budgets) >= 1
        assert all(chances[arms_of(curriculum).index(arm)] > 0 for arm in drawn)


def test_draws_follow_the_chances(name: str) -> None:
    """10,000 prompts after a few steps: no arm is off by more than 5 standard deviations of an independent draw."""
    curriculum = make(name)
    _, state = walk(curriculum)
    arms, rng = arms_of(curriculum), Random(0)
    drawn = [arm for _ in range(1000) for arm in curriculum.draw(state, arms, 10, rng)]
    for arm, chance in zip(arms, curriculum.probabilities(state, arms), strict=True):
        assert abs(drawn.count(arm) / len(drawn) - chance) <= 5 * (chance * (1 - chance) / len(drawn)) ** 0.5


def test_the_state_is_plain_data_and_resumes_exactly(name: str) -> None:
    curriculum = make(name)
    whole, end = walk(curriculum)
    half, state = walk(curriculum, STEPS // 2)
    rest, resumed = walk(curriculum, STEPS - STEPS // 2, json.loads(json.dumps(state)), STEPS // 2)
    assert half + rest == whole
    assert resumed == json.loads(json.dumps(end))


def test_a_prompt_without_scored_answers_teaches_nothing(name: str) -> None:
    """The verifier failed on all of a prompt's answers."""
    curriculum = make(name)
    _, state = walk(curriculum)
    arms = arms_of(curriculum)
    before = curriculum.probabilities(state, arms)
    curriculum.learn(state, [Outcome(arms[0], (), (), ())])
    assert curriculum.probabilities(state, arms) == before


def test_every_hyperparameter_is_used(name: str) -> None:
    plain = walk(make(name))
    for field in catalog.find_curriculum(name).fields:
        if field.name in ELSEWHERE:
            continue
        value = getattr(make(name), field.name)
        changed = OTHER[field.name] if field.name in OTHER else value + 1 if isinstance(value, int) else value / 3
        assert walk(make(name, **{field.name: changed})) != plain, f"{field.name} changes nothing"


def test_the_file_says_what_it_is(name: str) -> None:
    found = catalog.find_curriculum(name)
    assert found.shelf == "curriculum"
    told = found.explanation
    assert told.summary
    assert told.equation
    assert told.new
    assert told.deviations
    assert found.citation.arxiv
    assert found.citation.cite
    for field in found.fields:
        assert field.comment, f"{field.name} has no comment on its line"
        assert field.hint is not None
    read = {f.name: f.default for f in found.fields}
    assert read == {f.name: f.default for f in dataclasses.fields(catalog.make_curriculum(name))}
    assert found.code_lines <= 75


def test_ranges_are_held(name: str) -> None:
    for field in catalog.find_curriculum(name).fields:
        if field.allowed.startswith(("whole number ≥", "number ≥", "number >")):
            with pytest.raises(UserError, match=f"{field.name} = -1: must be"):
                catalog.make_curriculum(name, **{field.name: -1})
