"""MoDoMoDo: a quadratic of the mixture predicts how good a run will be, and the best mixture is trained on.

    ŝ(w) = a + bᵀ w + wᵀ C w                                         fitted to the scores s of seed runs on mixtures w
    w*   = argmax ŝ(w)   over w ≥ 0, Σ w = 1
    p(d) = w*_d

How parts of a task help and hinder each other is what C says.  Seed runs are runs of this library: of one part, of all
but one, of all alike; each is told its mixture by `part_weights`, and the last run is told their folders by
`seed_runs`.  Without either all parts weigh the same.

Deviations: on the simplex a and b are part of C, since Σ w = 1, so wᵀ C w alone is fitted, by least squares.  The
maximum is exact: on each face of the simplex the stationary point solves a linear system.  The paper scores by
benchmarks outside the training data; here s is what the seed run's own held-out evaluation came to.
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from posttrain.core import Arm, Curriculum, Paper, State
from posttrain.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class MoDoMoDo(Curriculum):
    paper = Paper("2505.24871", "Liang et al., 2025")

    part_weights: str = ""  # w, numbers between commas in the order of the parts; ours, empty: all alike
    seed_runs: str = ""  # run folders between commas, from whose scores w is predicted; ours, empty: none

    def initial_state(self, arms: Sequence[Arm]) -> State:
        """The mixture, one number a part."""
        if self.part_weights and self.seed_runs:
            raise UserError(f"part_weights = {self.part_weights!r}: seed_runs decide the mixture; give one of the two")
        if not self.seed_runs:
            return {"weights": mixture(self.part_weights, len(arms))}
        runs = [read_run(Path(folder.strip()), arms) for folder in self.seed_runs.split(",")]
        needed = len(arms) * (len(arms) + 1) // 2
        if len(runs) < needed:
            raise UserError(f"seed_runs: {len(runs)} runs, and a quadratic of {len(arms)} parts needs {needed}")
        weights, scores = zip(*runs, strict=True)
        return {"weights": best(fit(torch.tensor(weights).double(), torch.tensor(scores).double())).tolist()}

    def probabilities(self, state: State, arms: Sequence[Arm]) -> list[float]:
        return list(state["weights"])


def mixture(text: str, parts: int) -> list[float]:
    """Weights scaled to sum to 1."""
    try:
        weights = [float(word) for word in text.split(",")] if text else [1.0] * parts
    except ValueError:
        weights = []
    if len(weights) != parts or min(weights) < 0 or not 0 < sum(weights) < float("inf"):
        raise UserError(f"part_weights = {text!r}: must be {parts} numbers ≥ 0 between commas, not all 0")
    return [w / sum(weights) for w in weights]


def read_run(folder: Path, arms: Sequence[Arm]) -> tuple[list[float], float]:
    """The mixture of a finished run on the same parts, and its score."""
    try:
        told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        score, given = float(summary["after"][summary["measure"]]), told["curriculum"].get("part_weights", "")
        parts = told["parts"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"seed_runs: {folder}: no finished run ({type(error).__name__}: {error})") from None
    if parts != [arm.name for arm in arms] or told["config"]["curriculum"] not in ("", "modomodo"):
        raise UserError(f"seed_runs: {folder}: trained on other parts, or by another curriculum")
    return mixture(given, len(arms)), score


def fit(w: Tensor, s: Tensor) -> Tensor:
    """The symmetric C of wᵀ C w nearest to the scores: w [R, D], s [R] -> [D, D]."""
    i, j = torch.triu_indices(w.shape[1], w.shape[1])
    found = torch.linalg.lstsq(w[:, i] * w[:, j], s[:, None], driver="gelsd").solution[:, 0]
    c = torch.zeros(w.shape[1], w.shape[1], dtype=w.dtype)
    c[i, j] += found / 2
    c[j, i] += found / 2
    return c


def best(c: Tensor) -> Tensor:
    """The point of the simplex where wᵀ C w is largest, [D]."""
    d, found = len(c), []
    for size in range(1, d + 1):
        for face in map(list, itertools.combinations(range(d), size)):
            system = torch.zeros(size + 1, size + 1, dtype=c.dtype)  # 2 C w = λ 1 and Σ w = 1 on this face
            system[:size, :size], system[:size, size], system[size, :size] = 2 * c[face][:, face], -1, 1
            right = torch.zeros(size + 1, dtype=c.dtype)
            right[size] = 1
            solution, failed = torch.linalg.solve_ex(system, right)
            if not failed and (solution[:size] >= 0).all():  # a singular face has its maximum on its edge too
                found.append(torch.zeros(d, dtype=c.dtype).index_copy(0, torch.tensor(face), solution[:size]))
    return max(found, key=lambda w: float(w @ c @ w))
