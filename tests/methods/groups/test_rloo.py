"""RLOO's closed forms, worked by hand, through the real loop."""

from __future__ import annotations

import math

from toy import table_groups
from worked import close, f64, learn, ln

from posttrain.methods.groups.rloo import RLOO


def test_the_baseline_is_the_mean_of_the_others() -> None:
    # Rewards 1, 4, 7: the others' means are 5.5, 4, 2.5.
    _, prepared, gradient = learn(RLOO(kl_coef=0), table_groups([1, 4, 7], [[1, 1]] * 3), f64([[0, 0]] * 3))
    close(prepared.credit[:, 0], [-4.5, 0, 4.5])
    close(gradient, [[1.5, 1.5], [0, 0], [-1.5, -1.5]])  # −1/3 Â on each token, not divided by the length


def test_a_group_of_one_has_no_baseline_and_no_gradient() -> None:
    batch = table_groups([9, 1, 3], [[1]] * 3, group=[5, 2, 2])
    _, prepared, gradient = learn(RLOO(kl_coef=0), batch, f64([[0]] * 3))
    close(prepared.credit[:, 0], [0, -2, 2])
    assert gradient[0, 0] == 0


def test_the_whole_sequence_pays_the_kl_penalty() -> None:
    # log π − log π_ref: log 2 and 0 for the first completion, 0 for the second: R = 1 − 0.1 log 2 and 1.
    logp, logp_ref = ln([[0.5, 0.5], [0.5, 1]]), ln([[0.25, 0.5], [0.5, 1]])
    batch = table_groups([1, 1], [[1, 1], [1, 0]])
    metrics, prepared, gradient = learn(RLOO(kl_coef=0.1), batch, logp, logp_ref)
    penalty = 0.1 * math.log(2)
    close(prepared.credit[:, 0], [-penalty, penalty])
    close(gradient, [[penalty / 2, penalty / 2], [-penalty / 2, 0]])
    close(metrics["kl"], math.log(2) / 3)


def test_the_penalty_is_that_of_the_policy_before_the_first_update() -> None:
    # π_old is given: log π_old − log π_ref = log 3 for the first completion, whatever π is now.
    logp, logp_ref = ln([[0.9], [0.2]]), ln([[0.1], [0.2]])
    batch = table_groups([1, 1], [[1], [1]], logp_old=ln([[0.3], [0.2]]))
    _, prepared, _ = learn(RLOO(kl_coef=1), batch, logp, logp_ref)
    close(prepared.credit[:, 0], [-math.log(3), math.log(3)])


def test_is_unbiased() -> None:
    # All outcomes of two fair draws with rewards 1 and 0.  d E[r] / dθ = p (1 − p) = 1/4 for log-odds θ.
    # A mixed pair gives 1 · ½ + (−1)(−½) = 1; two such pairs, eight rows: 2/8.  A plain group mean would give 1/8.
    reward = [1.0, 1, 1, 0, 0, 1, 0, 0]
    batch = table_groups(reward, [[1]] * 8, group=[0, 0, 1, 1, 2, 2, 3, 3])
    _, _, gradient = learn(RLOO(kl_coef=0), batch, ln([[0.5]] * 8))
    close(-(gradient[:, 0] * (f64(reward) - 0.5)).sum(), 0.25)
