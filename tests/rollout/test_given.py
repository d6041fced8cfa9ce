"""Given answers as rows, beside samples or alone, and groups drawn until they tell something."""

from __future__ import annotations

import pytest
import torch
from tiny_folder import write_tiny_folder
from toy import sequences

from posttrain.core import Groups
from posttrain.core.errors import UserError
from posttrain.data.problems import InOrder
from posttrain.policies.load import LanguageModel, load_language_model
from posttrain.rewards.scoring import Scorer
from posttrain.rollout.engine import Sampling
from posttrain.rollout.given import BothSource, GivenSource, answer_tokens, given_answers
from posttrain.rollout.groups import GroupSource, outcomes
from posttrain.tasks.addition import Addition
from posttrain.tasks.task import Given, Problem

END = 256  # of the tiny tokenizer


class Answered(Addition):
    """Each sum with a right answer and a wrong one."""

    def train(self, index: int, seed: int) -> Problem:
        problem = super().train(index, seed)
        pair = Given(str(problem.answer), 1.0, 0.75), Given("none", 0.25, 0.5)
        return Problem(problem.prompt, problem.answer, problem.data, pair)


class Odd(Addition):
    """A prompt whose number is even has groups of equal rewards; otherwise the worth is the length mod 2."""

    def train(self, index: int, seed: int) -> Problem:
        problem = super().train(index, seed)
        return Problem(problem.prompt, index, problem.data)

    def score(self, problem: Problem, completion: str) -> float:
        return float(problem.answer % 2 and len(completion.encode()) % 2)


TASK = Answered("answered", 20)
SAMPLING = Sampling(max_new_tokens=8, stop_tokens=(END, *range(60, 100)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_language_model(write_tiny_folder(tmp_path_factory.mktemp("policy")), max_new_tokens=8,
                               precision="fp32")


def sampled(model: LanguageModel, task: Addition, most: int = 1, seed: int = 0) -> GroupSource:
    return GroupSource(InOrder(task, 3, 4, seed), Scorer(task), model.engine, model.prompter, SAMPLING, seed, "drop",
                       most)


def given(model: LanguageModel) -> GivenSource:
    return GivenSource(TASK, InOrder(TASK, 3, 4, 0), model.prompter, Sampling(max_new_tokens=8, stop_tokens=(END,)))


def test_rows_of_given_answers(model: LanguageModel) -> None:
    rollout = given(model).next(5)
    batch = rollout.batch
    problems = [TASK.train(15 + i, 0) for i in range(3)]
    assert rollout.completions == [text for p in problems for text in (str(p.answer), "none")]
    assert batch.unit.tolist() == [0, 0, 1, 1, 2, 2]
    assert batch.reward.tolist() == [1, 0.25] * 3
    assert batch.extra["process"].tolist() == [0.75, 0.5] * 3
    assert batch.extra["given"].all()
    assert batch.finished.all()
    assert (batch.version == -1).all()
    assert batch.logp_behaviour[batch.mask].isnan().all()
    assert not batch.logp_behaviour[~batch.mask].isnan().any()
    for row, text in enumerate(rollout.completions):
        tokens = sequences(batch).tokens[row, batch.mask[row]].tolist()
        assert tokens[-1] == END
        assert model.prompter.decode(tokens[:-1]) == text


def test_the_policy_scores_given_answers_as_it_would_its_own(model: LanguageModel) -> None:
    """Against transformers, on prompt and answer in one sequence."""
    from transformers import AutoModelForCausalLM

    batch = given(model).next(0).batch
    with torch.no_grad():
        found = model.policy.log_prob(batch)
    hf = AutoModelForCausalLM.from_pretrained(model.folder).eval()
    payload = sequences(batch)
    for row in range(len(batch)):
        prompt = payload.prompts[int(payload.prompt[row])]
        ids = torch.tensor([[*prompt, *payload.tokens[row, : payload.lengths[row]].tolist()]])
        logp = hf(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        expected = logp.gather(1, ids[0, len(prompt):, None])[:, 0]
        torch.testing.assert_close(found[row, : len(expected)], expected, atol=1e-5, rtol=0)


def test_without_given_answers_the_gold_one_is_the_demonstration() -> None:
    task = Addition("addition", 20)
    problem = task.train(0, 0)
    assert given_answers(task, problem) == (Given(str(problem.answer), 1.0),)
    with pytest.raises(UserError, match="task = 'addition': a problem has neither an answer nor given ones: 'hello'"):
        given_answers(task, Problem("hello", None))


def test_both_stand_in_one_group(model: LanguageModel) -> None:
    alone = sampled(model, TASK).next(2)
    both = BothSource(sampled(model, TASK), given(model)).next(2)
    own = ~both.batch.extra["given"]
    assert both.batch.unit.tolist() == [g for g in range(3) for _ in range(6)]
    assert own.tolist() == ([True] * 4 + [False] * 2) * 3
    assert [text for text, mine in zip(both.completions, own, strict=True) if mine] == alone.completions
    width = alone.batch.mask.shape[1]
    assert torch.equal(both.batch.logp_behaviour[own, :width], alone.batch.logp_behaviour)
    assert (both.batch.version[own] == 2).all()
    assert both.batch.reward[~own].tolist() == [1, 0.25] * 3
    assert "process" not in both.batch.extra  # the samples have none


@pytest.mark.parametrize(("text", "message"), [
    ("12345678", r"max_new_tokens = 8: the given answer '12345678' has 9 tokens with its end"),
    ("a<eos>b", r"given answer 'a<eos>b': holds the token that ends an answer"),
])
def test_answers_that_no_policy_could_have_written(model: LanguageModel, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        answer_tokens(model.prompter, text, Sampling(max_new_tokens=8, stop_tokens=(END,)))
    assert answer_tokens(model.prompter, "1234567", Sampling(max_new_tokens=8, stop_tokens=(3, END)))[-1] == END


def telling(batch: Groups) -> list[bool]:
    return [bool(batch.reward[batch.unit == u].unique().numel() > 1) for u in batch.unit.unique()]


def test_dynamic_sampling_fills_the_batch(model: LanguageModel) -> None:
    task = Odd("odd", 20)
    plain, source = sampled(model, task).next(0), sampled(model, task, most=4)
    assert not all(telling(plain.batch))  # prompts 0 and 2
    rollout = source.next(0)
    assert len(rollout.batch) == 12
    assert all(telling(rollout.batch))
    drawn, dropped = rollout.counts["prompts_drawn"], rollout.counts["groups_dropped"]
    assert drawn == len(rollout.outcomes) == 3 + source.problems.state["extra"] > 3
    assert dropped == drawn - 3
    problems = [task.train(i, 0) for i in range(int(drawn))]
    assert rollout.prompts == [problems[u].prompt for u in rollout.batch.unit.tolist()]
    assert all(problems[u].answer % 2 for u in rollout.batch.unit.tolist())
    assert len(rollout.completions) == 12
    # The first batch is what it would have been, and what is left out is told as without advantage.
    assert [o.rewards for o in rollout.outcomes[:3]] == [o.rewards for o in outcomes(plain, plain.batch)]
    told = outcomes(rollout, rollout.batch)
    assert [any(o.advantages) for o in told] == [u in rollout.batch.unit for u in range(int(drawn))]


def test_dynamic_sampling_gives_up_after_so_many_batches(model: LanguageModel) -> None:
    class Even(Odd):
        def train(self, index: int, seed: int) -> Problem:
            return super().train(2 * index, seed)

    rollout = sampled(model, Even("even", 20), most=3).next(0)
    assert rollout.counts == {"prompts_drawn": 9, "groups_dropped": 6}
    assert len(rollout.batch) == 12  # nothing tells anything: the first batch stays
    assert not any(telling(rollout.batch))


def test_dynamic_sampling_goes_on_where_it_stopped(model: LanguageModel) -> None:
    task, whole = Odd("odd", 20), sampled(model, Odd("odd", 20), most=4)
    first, second = whole.next(0), whole.next(1)
    resumed = sampled(model, task, most=4)
    resumed.problems.state = {"extra": int(first.counts["prompts_drawn"]) - 3}
    again = resumed.next(1)
    assert again.completions == second.completions
    assert again.prompts == second.prompts
    assert torch.equal(again.batch.logp_behaviour, second.batch.logp_behaviour)
    assert not set(first.prompts) & set(second.prompts)  # further problems, none twice


def test_prompts_may_get_different_numbers_of_samples(model: LanguageModel) -> None:
    class Uneven(InOrder):
        def take(self, step: int, attempt: int = 0) -> list[object]:  # type: ignore[override]
            return [pick._replace(samples=n) for pick, n in zip(super().take(step, attempt), (2, 5, 2), strict=True)]

    source = sampled(model, TASK)
    source.problems = Uneven(TASK, 3, 4, 0)
    rollout = source.next(0)
    assert rollout.batch.unit.tolist() == [0, 0, 1, 1, 1, 1, 1, 2, 2]
    assert rollout.prompts[2] == TASK.train(1, 0).prompt
    assert [len(o.rewards) for o in rollout.outcomes] == [2, 5, 2]


