"""The source of fresh groups: what a step learns from, and what it does when a verifier fails."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_folder import write_tiny_folder
from torch.testing import assert_close
from toy import sequences

from posttrain.core.errors import PosttrainError
from posttrain.data.problems import InOrder
from posttrain.policies.load import LanguageModel, load_language_model
from posttrain.rewards.scoring import Scorer
from posttrain.rollout.engine import Sampling
from posttrain.rollout.groups import GroupSource, answer_ids
from posttrain.tasks.addition import Addition
from posttrain.tasks.task import Problem

TASK = Addition("addition", 20)


class Picky(Addition):
    """The worth of a completion is its length mod 2; one that begins with a low byte breaks the verifier."""

    def score(self, problem: Problem, completion: str) -> float:
        if completion[:1] < "a":
            raise RuntimeError("cannot read this")
        return len(completion) % 2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_language_model(write_tiny_folder(tmp_path_factory.mktemp("policy")), max_new_tokens=8,
                               precision="fp32")


def source(model: LanguageModel, task: Addition = TASK, on_failure: str = "drop", seed: int = 0) -> GroupSource:
    sampling = Sampling(max_new_tokens=8, stop_tokens=tuple(range(60, 100)))
    return GroupSource(InOrder(task, 3, 4, seed), Scorer(task), model.engine, model.prompter, sampling, seed,
                       on_failure)


def test_a_step_s_batch(model: LanguageModel) -> None:
    rollout = source(model).next(5)
    batch = rollout.batch
    assert batch.unit.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert batch.version.shape == batch.mask.shape
    assert (batch.version == 5).all()
    assert torch.equal(batch.mask.sum(1), sequences(batch).lengths)
    assert batch.mask.shape[1] == int(sequences(batch).lengths.max())  # no wider than the longest
    assert (batch.logp_behaviour[batch.mask] < 0).all()
    assert rollout.dropped == 0
    problems = [TASK.train(15 + i, 0) for i in range(3)]  # three a step: numbers 15, 16 and 17
    assert rollout.prompts == [p.prompt for p in problems for _ in range(4)]
    for i, text in enumerate(rollout.completions):
        row = sequences(batch).tokens[i, : int(sequences(batch).lengths[i])]
        assert text == model.prompter.decode(row.tolist())
        assert float(batch.reward[i]) == TASK.score(problems[i // 4], text)


def test_a_step_depends_on_its_number_and_seed_alone(model: LanguageModel) -> None:
    made = source(model)
    made.next(0)
    second, alone = made.next(1), source(model).next(1)
    assert second.completions == alone.completions
    assert second.prompts == alone.prompts
    assert torch.equal(second.batch.logp_behaviour, alone.batch.logp_behaviour)
    assert source(model, seed=1).next(1).completions != alone.completions
    assert source(model).next(2).completions != alone.completions


def test_what_truncation_kept_is_passed_on(model: LanguageModel) -> None:
    """All tokens but the three likeliest are cut: q = p / m in that set, whose mass m the training pass knows too."""
    plain, made = source(model), source(model)
    made.sampling = replace(made.sampling, top_k=3)
    assert "log_kept" not in plain.next(0).batch.extra
    batch = made.next(0).batch
    predicted = model.policy.predict(batch)(torch.arange(int(batch.mask.sum())))  # [decisions, V]
    kept = predicted.exp().topk(3).values.sum(1).log()
    assert_close(batch.extra["log_kept"][batch.mask], kept, rtol=0, atol=1e-5)
    assert (batch.extra["log_kept"][~batch.mask] == 0).all()


def test_failed_rows_are_dropped_and_counted(model: LanguageModel) -> None:
    picky = Picky("picky", 20)
    rollout, full = source(model, picky).next(0), source(model).next(0)
    good = [i for i, text in enumerate(full.completions) if not text[:1] < "a"]
    assert 0 < len(good) < 12
    assert rollout.dropped == 12 - len(good) == len(rollout.failures)
    assert rollout.failures[0] == "RuntimeError: cannot read this"
    assert rollout.completions == [full.completions[i] for i in good]
    assert rollout.batch.unit.tolist() == [i // 4 for i in good]
    assert torch.equal(sequences(rollout.batch).tokens, sequences(full.batch).tokens[good])
    assert rollout.batch.reward.tolist() == [len(text) % 2 for text in rollout.completions]


def test_failed_rows_may_count_as_zero(model: LanguageModel) -> None:
    rollout = source(model, Picky("picky", 20), "zero").next(0)
    assert len(rollout.batch) == 12
    assert rollout.dropped == 0
    assert rollout.failures
    assert all(float(r) == 0 for r, text in zip(rollout.batch.reward, rollout.completions, strict=True)
               if text[:1] < "a")


def test_a_failure_may_stop_the_run(model: LanguageModel) -> None:
    with pytest.raises(PosttrainError, match=r"^step 1: the verifier failed on \d+ of 12 completions, first: Runtime"):
        source(model, Picky("picky", 20), "stop").next(0)


def test_top_p_does_not_move_recorded_log_probabilities(model: LanguageModel) -> None:
    """They are those of the whole distribution, which the training pass computes too."""
    made = source(model)
    made.sampling = replace(made.sampling, top_p=0.5)
    batch = made.next(0).batch
    with torch.no_grad():
        gap = (model.policy.log_prob(batch) - batch.logp_behaviour).abs().max()
    assert gap < 1e-5


def test_answers_are_numbered_within_their_group() -> None:
    # Group 0: 1200.5 in three spellings, then −3 and 3 (the sign of "5-3" is a minus between two numbers).
    # Group 1: no digits, so the text itself counts; numbering starts anew.
    texts = ["2, so 1,200.50", "1200.5", "x = 1200.500", "it is -3", "5-3", " blue ", "blue", "3"]
    group = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1])
    assert answer_ids(texts, group).tolist() == [0, 0, 0, 1, 2, 0, 0, 1]
