"""Gymnasium's Box2D environments: stepped, restored after a kill in mid-episode, and drawn without a screen."""

from __future__ import annotations

import json
from pathlib import Path

import imageio.v3 as imageio
import pytest
import torch

from posttrain.evaluate.control import evaluate_control
from posttrain.policies.control import KINDS
from posttrain.rollout.environments import Environments

NAMES = {"LunarLander-v3": (8, 4, "categorical"), "BipedalWalker-v3": (24, 4, "gaussian")}  # observations, actions


@pytest.mark.parametrize("task", NAMES)
def test_an_episode_goes_on_where_it_was(task: str) -> None:
    envs = Environments(task, 2, 0)
    obs, actions, kind = NAMES[task]
    assert envs.spaces == (obs, actions, kind == "categorical")
    noise = torch.Generator().manual_seed(0)
    policy = KINDS[kind](envs.spaces, 4, 1, "tanh", None, noise)

    def act(these: Environments, draw: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return these.step(policy.sample(these.obs, draw).action).next_obs

    draws = policy.noise((60, 2), noise)
    for draw in draws[:40]:
        act(envs, draw)
    again = Environments(task, 2, 0)
    again.restore(json.loads(json.dumps(envs.state())))
    for draw in draws[40:]:
        torch.testing.assert_close(act(again, draw), act(envs, draw), rtol=0, atol=0)


@pytest.mark.parametrize("task", NAMES)
def test_an_episode_is_drawn(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    envs = Environments(task, 1, 0)
    policy = KINDS[NAMES[task][2]](envs.spaces, 4, 1, "tanh", None, torch.Generator().manual_seed(0))
    policy.save(tmp_path / "policy")
    found = evaluate_control(tmp_path / "policy", task, episodes=1, video=str(tmp_path / "episode.gif"))
    frames = imageio.imread(tmp_path / "episode.gif")
    assert len(frames) == found["video_frames"] == found["length"] + 1
    assert frames[0].std() > 10 and (frames[0] != frames[-1]).any()  # something is to be seen, and it moved
