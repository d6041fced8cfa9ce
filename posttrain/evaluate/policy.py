"""Measure any policy on any task: greedy accuracy, and pass@k from samples, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from posttrain.core.errors import UserError
from posttrain.core.seeds import derive
from posttrain.core.told import read_config
from posttrain.evaluate.accuracy import greedy_accuracy
from posttrain.evaluate.given import given_measure
from posttrain.evaluate.intervals import interval
from posttrain.policies.load import LanguageModel, load_language_model
from posttrain.policies.pretrained import resolve
from posttrain.rewards.scoring import Scorer
from posttrain.rollout.engine import Sampling
from posttrain.tasks import load_task
from posttrain.tasks.task import Problem, can_score

MAX_NEW_TOKENS = 256  # where neither the run nor the task says how long an answer may be


def evaluate_policy(target: str, task: str, *, problems: int = 200, samples: int = 1, temperature: float = 1.0,
                    seed: int = 0) -> dict[str, Any]:
    """`target` is a run folder (its final policy, its own verifier and lengths) or whatever names a policy.

    Returns accuracy and its 95% interval over problems; with `samples` > 1 also pass@k for k = 1, 2, 4 … ≤ samples.

    Raises:
        UserError: if the run has no final policy, or a name is unknown.
    """
    own = _run_config(Path(target))
    chosen = load_task(task, verifier=own.get("verifier") or None, heldout_file=own.get("heldout") or None)
    limit = int(own.get("max_new_tokens") or chosen.defaults.get("max_new_tokens", MAX_NEW_TOKENS))
    model = load_language_model(_folder(Path(target), target, bool(own)), max_new_tokens=limit)
    asked = chosen.heldout(problems)
    with Scorer(chosen) as scorer:
        scored = can_score(chosen)
        if samples > 1 and not scored:
            raise UserError(f"samples = {samples}: task {chosen.name!r} has no verifier, so nothing scores them")
        found = greedy_accuracy(model, asked, scorer, limit) if scored else given_measure(model, chosen, asked, limit)
        results: dict[str, Any] = {"task": chosen.name, "problems": len(asked), found.name: found.mean,
                                   f"{found.name}_95": list(found.interval), "verifier_failures": found.failures}
        if model.notes:
            results["notes"] = "; ".join(model.notes)
        if samples > 1:
            right = _right(model, asked, scorer, samples, limit, temperature, seed)
            for k in (2**i for i in range(samples.bit_length()) if 2**i <= samples):
                scores = [pass_at_k(samples, count, k) for count in right]
                results[f"pass@{k}"] = sum(scores) / len(scores)
                results[f"pass@{k}_95"] = list(interval(scores))
    return results


def pass_at_k(n: int, right: int, k: int) -> float:
    """Chance that k of n samples, drawn without replacement, hold a right one (Chen et al., 2107.03374, eq. 1)."""
    assert 0 <= right <= n and 1 <= k <= n, (n, right, k)
    return 1 - math.comb(n - right, k) / math.comb(n, k)


def _right(model: LanguageModel, problems: Sequence[Problem], scorer: Scorer, samples: int, limit: int,
           temperature: float, seed: int) -> list[int]:
    """How many of each problem's samples score full marks."""
    sampling = Sampling(max_new_tokens=limit, temperature=temperature, stop_tokens=model.stop_tokens)
    ids = [model.prompter.encode(problem.prompt) for problem in problems]
    out = model.engine.generate(ids, samples, sampling, torch.Generator().manual_seed(derive(seed, "pass@k")))
    texts = [model.prompter.decode(row[:length]) for row, length in
             zip(out.tokens.tolist(), out.lengths.tolist(), strict=True)]
    scored = scorer([problem for problem in problems for _ in range(samples)], texts)
    return [sum(s.value == 1.0 for s in scored[i:i + samples]) for i in range(0, len(scored), samples)]


def _run_config(path: Path) -> dict[str, Any]:
    """The configuration of a run folder; empty where the path is none."""
    try:
        config: dict[str, Any] = read_config(path)["config"]
    except (OSError, ValueError, KeyError):
        return {}
    return config


def _folder(path: Path, name: str, is_run: bool) -> Path:
    if not is_run:
        return resolve(name)
    if not (path / "final/config.json").exists():
        raise UserError(f"target = '{path}': this run has no final policy yet; finish it with "
                        f"posttrain train --resume {path}")
    return path / "final"
