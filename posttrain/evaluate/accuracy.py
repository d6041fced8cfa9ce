"""Held-out accuracy: the likeliest completion of each problem, scored by the task."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from posttrain.core import Groups, Policy
from posttrain.core.seeds import derive
from posttrain.evaluate.measures import Measured
from posttrain.policies.causal_lm import Sequences
from posttrain.policies.load import LanguageModel
from posttrain.rewards.scoring import Scorer
from posttrain.rollout.engine import Sampling
from posttrain.tasks.task import Problem


def greedy_accuracy(model: LanguageModel, problems: Sequence[Problem], scorer: Scorer, max_new_tokens: int,
                    stop: tuple[str, ...] = ()) -> Measured:
    """Score the likeliest completion of every problem."""
    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=0.0, stop_tokens=model.stop_tokens,
                        stop_strings=stop)
    ids = [model.prompter.encode(problem.prompt) for problem in problems]
    out = model.engine.generate(ids, 1, sampling, torch.Generator())
    texts = [model.prompter.decode(row[:length]) for row, length in
             zip(out.tokens.tolist(), out.lengths.tolist(), strict=True)]
    scored = scorer(problems, texts)
    return Measured(tuple(s.value or 0.0 for s in scored), sum(s.failure is not None for s in scored))


def divergence(model: LanguageModel, initial: Policy, problems: Sequence[Problem], max_new_tokens: int,
               seed: int) -> float:
    """KL(π ‖ π_0) in nats a token: the mean of log π − log π_0 over one sampled completion of each problem."""
    sampling = Sampling(max_new_tokens=max_new_tokens, stop_tokens=model.stop_tokens)
    ids = [model.prompter.encode(problem.prompt) for problem in problems]
    out = model.engine.generate(ids, 1, sampling, torch.Generator().manual_seed(derive(seed, "divergence")))
    rows = torch.arange(len(ids))
    mask = torch.arange(out.tokens.shape[1]) < out.lengths[:, None]
    batch = Groups(payload=Sequences(tuple(map(tuple, ids)), rows, out.tokens, out.lengths, 1.0), mask=mask, unit=rows,
                   version=torch.zeros(mask.shape), logp_behaviour=out.logp, reward=torch.zeros(len(ids)),
                   finished=out.finished, limit=max_new_tokens)
    with torch.no_grad():
        difference = model.policy.log_prob(batch) - initial.log_prob(batch)
    return float(difference[mask].mean())
