"""Held-out accuracy and the distance to another policy, with a tiny model and a real task."""

from __future__ import annotations

import pytest
import torch
from tiny_folder import write_tiny_folder

from posttrain.core.seeds import derive
from posttrain.evaluate.accuracy import divergence, greedy_accuracy
from posttrain.policies.load import LanguageModel, load_language_model
from posttrain.rewards.scoring import Scorer
from posttrain.rollout.engine import Sampling
from posttrain.tasks.addition import Addition
from posttrain.tasks.task import Problem

PROBLEMS = Addition("addition", 20).heldout(6)


class ByText(Addition):
    """1 where the completion's first character comes late in the alphabet; the third problem breaks."""

    def score(self, problem: Problem, completion: str) -> float:
        if problem == PROBLEMS[2]:
            raise RuntimeError("broken")
        return float(completion[:1] > "m")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[LanguageModel, LanguageModel]:
    first, second = (load_language_model(write_tiny_folder(tmp_path_factory.mktemp("policy"), seed), max_new_tokens=8,
                                         precision="fp32") for seed in (0, 1))
    return first, second


def test_greedy_accuracy(models: tuple[LanguageModel, LanguageModel]) -> None:
    """Each problem alone, by the likeliest tokens; a verifier that fails counts as 0 and is counted."""
    model, task = models[0], ByText("by-text", 20)
    found = greedy_accuracy(model, PROBLEMS, Scorer(task), 8)
    sampling = Sampling(max_new_tokens=8, temperature=0.0, stop_tokens=model.stop_tokens)
    expected = []
    for problem in PROBLEMS:
        out = model.engine.generate([model.prompter.encode(problem.prompt)], 1, sampling, torch.Generator())
        text = model.prompter.decode(out.tokens[0, : int(out.lengths[0])].tolist())
        expected.append(float(text[:1] > "m"))
    expected[2] = 0.0
    assert found.scores == tuple(expected)
    assert found.failures == 1
    assert found.mean == sum(expected) / 6
    assert found.interval[0] <= found.mean <= found.interval[1]


def test_divergence_from_itself_is_zero(models: tuple[LanguageModel, LanguageModel]) -> None:
    model = models[0]
    assert divergence(model, model.policy, PROBLEMS, 8, seed=0) == 0


def test_divergence_is_the_mean_log_ratio_of_samples(models: tuple[LanguageModel, LanguageModel]) -> None:
    """Every sampled completion is scored alone by both policies, through transformers' own forward pass."""
    from transformers import AutoModelForCausalLM

    first, second = models
    prompts = [first.prompter.encode(p.prompt) for p in PROBLEMS]
    out = first.engine.generate(prompts, 1, Sampling(max_new_tokens=8, stop_tokens=first.stop_tokens),
                                torch.Generator().manual_seed(derive(4, "divergence")))
    networks = [AutoModelForCausalLM.from_pretrained(m.folder, local_files_only=True) for m in models]
    ratios = []
    for prompt, row, length in zip(prompts, out.tokens, out.lengths.tolist(), strict=True):
        ids = torch.tensor([[*prompt, *row[:length].tolist()]])
        with torch.no_grad():
            tables = [network(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1) for network in networks]
        ratios.append((tables[0] - tables[1]).gather(1, row[:length, None])[:, 0])
    expected = float(torch.cat(ratios).mean())
    assert abs(expected) > 1e-4
    assert divergence(first, second.policy, PROBLEMS, 8, seed=4) == pytest.approx(expected, abs=1e-5)
