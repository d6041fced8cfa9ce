"""HNPG's critic and advantages by hand; without what is logged, TRPO's step."""

from __future__ import annotations

import copy
import math

import torch
from control_toy import ControlLearner, toy_segments
from toy import Learner
from worked import close, f64

from posttrain.core import Groups
from posttrain.data.steps import Spaces, Steps
from posttrain.methods.actor_critic.hnpg import HNPG
from posttrain.methods.actor_critic.trpo import TRPO
from posttrain.policies.control import ActionValue, Gaussian

SPACES = Spaces(1, 1, False)
METHOD = HNPG(epochs=1, discount=0.5, logged_weight=2.0, renewal=2, damping=0)


def batch_of_two() -> Groups:
    """An own row that did 2, earned 5 and ended; a logged one that did ½ and earned 1.  Every state is 0.

    Noise is ± 1 in turns for V, 1 for ã and 3 for a'.
    """
    zero, action = torch.zeros(2, 1, 1, dtype=torch.float64), f64([[[2.0]], [[0.5]]])
    noise = f64([*[1, -1] * 5, 1, 3]).expand(2, 1, 12)[..., None]
    own = torch.tensor([[True], [False]])
    return Groups(payload=Steps(zero, action, zero[:, 0]), mask=torch.ones(2, 1, dtype=torch.bool),
                  unit=torch.arange(2), version=torch.zeros(2, 1), logp_behaviour=f64([[0.0], [torch.nan]]),
                  reward=f64([5.0, 1.0]), rewards=f64([[5.0], [1.0]]), finished=own[:, 0], limit=1,
                  extra={"obs": zero, "action": action, "next_obs": zero, "terminated": own, "noise": noise,
                         "given": ~own[:, 0]})


def learner(method: HNPG) -> Learner:
    """π = N(0, 1) whatever the state, and Q(s, a) = 1 + a."""
    policy = Gaussian(SPACES, 1, 0, "tanh", None, torch.Generator()).double()
    q = ActionValue(SPACES, 1, 1, 0, "tanh", torch.Generator()).double()
    with torch.no_grad():
        q.body.weights[0].copy_(f64([[[0.0], [1.0]]]))
        q.body.biases[0].fill_(1.0)
    return Learner(method, policy, anchor=policy.initial(), q=q, q_target=copy.deepcopy(q))


def test_by_hand() -> None:
    # V = 1 + mean ε = 1.  The own row: A = 5 − 1 = 4, G = 5; the logged one: ã = 1, A = Q(ã) − V = 2 − 1 = 1.
    # Â = ± 1/√2 of the two.  L_Q = (Q(2) − 5)² + 2 (Q(½) − 1 − ½ Q̄(3))² = (3 − 5)² + 2 (1.5 − 1 − ½ · 4)² = 4 + 4.5;
    # ∂L_Q / ∂ (w_s, w_a, b) = 2 (−2) (0, 2, 1) + 2 · 2 (−1.5) (0, ½, 1) = (0, −11, −10).
    # ∇ log π(a) = (a, a² − 1) in (μ, log σ) at actions 2 and ã = 1: ∇L_π = −½ c [ (2, 3) − (1, 0) ] = −½ c (1, 3).
    made = learner(METHOD)
    prepared = made.update(batch_of_two())
    c = 1 / math.sqrt(2)
    assert prepared.advantage is not None and isinstance(prepared.payload, Steps)
    assert torch.allclose(prepared.advantage[:, 0], f64([c, -c]), atol=1e-7, rtol=0)  # of 1e-8 beside the deviation
    assert prepared.payload.action[:, 0, 0].tolist() == [2, 1]
    close(made.metrics["loss/value"], 4.0)
    close(made.metrics["loss/logged_value"], 4.5)
    close(made.optimizers["q"].gradients[0], [0, -11, -10])  # type: ignore[attr-defined]
    found = dict(zip(("log_std", "weight", "bias"), made.optimizers["policy"].gradients[0].tolist(), strict=True))  # type: ignore[attr-defined]
    assert abs(found["bias"] + c / 2) < 1e-7 and abs(found["log_std"] + 3 * c / 2) < 1e-7 and found["weight"] == 0


def test_a_weight_of_0_leaves_the_logged_rewards_out_of_q() -> None:
    # Only the own row's: 2 (−2) (0, 2, 1).
    made = learner(HNPG(epochs=1, discount=0.5, logged_weight=0.0))
    made.update(batch_of_two())
    close(made.optimizers["q"].gradients[0], [0, -8, -4])  # type: ignore[attr-defined]


def test_the_copy_is_renewed_before_a_batch_and_every_second_update() -> None:
    made = learner(HNPG(epochs=3, renewal=2, discount=0.5))
    seen: list[bool] = []

    def same() -> bool:
        return torch.equal(made.models.q.body.biases[0], made.models.q_target.body.biases[0])

    after_step = HNPG.after_step

    class Watched(HNPG):
        def after_step(self, models: object, metrics: object) -> None:
            after_step(self, models, metrics)  # type: ignore[arg-type]
            seen.append(same())

    made.run.method = Watched(epochs=3, renewal=2, discount=0.5)
    made.update(batch_of_two())
    made.update(batch_of_two())
    assert seen == [False, True, False, True, False, True]  # the 2nd, 4th and 6th of all
    after = made.models.q_target.body.biases[0].clone()
    METHOD.prepare(made.models, batch_of_two())
    assert torch.equal(after, made.models.q_target.body.biases[0]) and same()


def test_without_logged_states_it_is_trpo() -> None:
    # λ = 0, nothing logged, and a Q that is V whatever the action: V(s) = Q(s, ·), so A, G and the step are TRPO's;
    # of GAE with λ = 1, L_V is ½ (V − G)² and L_Q is (Q − G)².
    settings = {"epochs": 1, "discount": 0.9, "decay": 1.0}
    hybrid, plain = HNPG(logged_weight=0.0, **settings), TRPO(**settings)  # type: ignore[arg-type]
    one, other = ControlLearner(hybrid, dataset_share=0.0), ControlLearner(plain, task="Pendulum-v1")
    with torch.no_grad():
        for to, of in zip(one.models.policy.parameters(), other.models.policy.parameters(), strict=True):
            to.copy_(of)
        q, v = one.models.q.body, other.models.critic.body
        for i, (weight, bias) in enumerate(zip(v.weights, v.biases, strict=True)):
            q.weights[i].zero_()
            q.weights[i][0, :len(weight)].copy_(weight)
            q.biases[i][0, 0].copy_(bias)
    batch = toy_segments(hybrid, dataset_share=0.0)
    assert not batch.extra["given"].any()
    ours, theirs = one.update(batch), other.update(batch)
    assert ours.advantage is not None and theirs.advantage is not None
    close(ours.advantage, theirs.advantage)
    close(one.metrics["loss/value"], 2 * other.metrics["loss/value"])
    assert other.metrics["step_share"] == one.metrics["step_share"] > 0
    close(one.optimizers["policy"].master, other.optimizers["policy"].master)
