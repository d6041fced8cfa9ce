"""RLPD is REDQ with normalised layers, on batches of both kinds of rows."""

from __future__ import annotations

from pathlib import Path

import torch
from control_toy import ControlLearner, toy_transitions

from posttrain.core.method import Method
from posttrain.methods.off_policy.redq import REDQ
from posttrain.methods.offline.rlpd import RLPD
from posttrain.rollout.record import at_random, record
from posttrain.train.config import ControlConfig
from posttrain.train.control import ControlSetting


def gradients(method: Method) -> dict[str, torch.Tensor]:  # type: ignore[type-arg]
    learner = ControlLearner(method, layers=2)
    learner.update(toy_transitions(learner.setting.spaces, noises=3))
    return {name: learner.gradient(name) for name in learner.optimizers}


def test_without_normalised_layers_it_is_redq() -> None:
    ours, theirs = gradients(RLPD(layer_norm=False)), gradients(REDQ())
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not torch.equal(gradients(RLPD())["q"], theirs["q"])


def test_what_q_says_of_far_actions_is_bounded_by_its_last_layer() -> None:
    """|LN(y)| ≤ √width, so |Q| ≤ √width · |w| + |b|, however far the action."""
    learner = ControlLearner(RLPD(members=3), layers=2)
    q = learner.models.q
    body = q.body
    bound = 8**0.5 * body.weights[-1].norm(dim=(1, 2)) + body.biases[-1].abs().amax((1, 2))
    said = q(torch.zeros(1, 3, dtype=torch.float64), torch.full((1, 1), 1e9, dtype=torch.float64))
    assert (said.abs()[:, 0] <= bound).all()


def test_half_of_a_batch_is_logged(tmp_path: Path) -> None:
    import gymnasium as gym

    from posttrain.data.dataset import write_dataset

    logged = record("Pendulum-v1", at_random, 0, episodes=1)
    write_dataset(tmp_path, gym.make("Pendulum-v1"), "random", logged, "a test's", None)
    options = {name: x for name, x in RLPD.defaults["control"].items() if name != "width"}
    config = ControlConfig(task="Pendulum-v1", width=8, dataset=(str(tmp_path),), seed=1,
                           **{**options, "batch_size": 10, "random_steps": 30})
    setting = ControlSetting(RLPD(), config, None)
    batch = setting.next(0).batch
    assert (batch.extra["to_go"] > -torch.inf).tolist() == [True] * 5 + [False] * 5
    assert len(setting.replay) == 31
    setting.next(1)
    assert len(setting.replay) == 31  # one action before each 20 batches
