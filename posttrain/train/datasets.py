"""Datasets of the project's own: transitions of a random policy, a run's policy, a run's replay or a controller."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.seeds import derive
from posttrain.core.told import read_config
from posttrain.data.dataset import Episode, told, write_dataset
from posttrain.policies import control
from posttrain.policies.acting import ControlPolicy
from posttrain.policies.export import new_folder
from posttrain.rewards.functions import load_function
from posttrain.rollout.environments import make, spaces_of
from posttrain.rollout.goals import has_goals
from posttrain.rollout.record import Actor, at_random, by_policy, by_script, from_replay, record
from posttrain.train.checkpoint import load_newest

LABEL = "made by posttrain from its own runs; its reference returns are its own, so scores compare with no other set's"


def make_dataset(task: str, out: Path, *, kind: str, policy: str, steps: int, seed: int, expert: str,
                 reference_episodes: int) -> dict[str, Any]:
    """Write `out`/data in Minari's format and `out`/posttrain.json, which is returned.

    kind: random, medium, replay, expert or scripted; policy: what the command line says of it.

    Raises:
        UserError: if `out` exists, the task cannot be logged, or the policy or the replay cannot be had.
    """
    if out.exists():
        raise UserError(f"out = '{out}': exists already; name another folder")
    env = make(task)
    _check(env, task)
    best = by_policy(_policy(expert or policy, task, "expert" if expert else "policy")) \
        if expert or kind == "expert" else None
    if kind == "replay":
        episodes = _newest(_replay(policy, task), steps)
    else:
        episodes = record(task, _actor(kind, policy, task), seed, steps)
    measured = derive(seed, "reference")
    random = _mean(record(task, at_random, measured, episodes=reference_episodes))
    high = None if best is None else _mean(record(task, best, measured, episodes=reference_episodes))
    if high is not None and high <= random:
        raise UserError(f"expert = {expert or policy!r}: returns {high:.4g} on average, no more than a random policy's "
                        f"{random:.4g}; a normalised score needs a better one")
    returns = [float(e.rewards.sum()) for e in episodes]
    about: dict[str, Any] = {
        "label": LABEL, "task": task, "kind": kind, "policy": policy, "seed": seed,
        "steps": sum(len(e.rewards) for e in episodes), "episodes": len(episodes),
        "returns": {"mean": sum(returns) / len(returns), "lowest": min(returns), "highest": max(returns)},
        "references": {"random": random, "expert": high, "episodes": reference_episodes}}
    with new_folder(out) as folder:
        write_dataset(folder, env, kind, episodes, LABEL, None if high is None else (random, high))
        (folder / "posttrain.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    env.close()
    return about


def _check(env: Any, task: str) -> None:
    if has_goals(env):
        raise UserError(f"task = {task!r}: its observations name a goal, and a dataset holds one array of each; wrap "
                        "it (gymnasium.wrappers.FlattenObservation) and register that")
    try:
        env.spec.to_json()
    except ValueError as error:
        raise UserError(f"task = {task!r}: a dataset names how its environment is made, and this one was registered as "
                        "a class; must be text, 'module:class'") from error


def _mean(episodes: Sequence[Episode]) -> float:
    return sum(float(e.rewards.sum()) for e in episodes) / len(episodes)


def _actor(kind: str, policy: str, task: str) -> Actor:
    if kind == "random":
        return at_random
    return by_script(load_function(policy, "policy")) if kind == "scripted" else by_policy(_policy(policy, task))


def _policy(run: str, task: str, field: str = "policy") -> ControlPolicy:
    folder = Path(run)
    if not (folder / "final").is_dir():
        raise UserError(f"{field} = {run!r}: no finished run, it holds no final/")
    found, env = control.load(folder / "final"), make(task)
    if found.remembered:
        raise UserError(f"{field} = {run!r}: remembers what it saw; an action of a dataset answers one observation")
    if found.spaces != spaces_of(env):
        raise UserError(f"{field} = {run!r}: takes {told(found.spaces)}, and {task} has {told(spaces_of(env))}")
    return found


def _replay(run: str, task: str) -> list[Episode]:
    """What the newest whole checkpoint of a run holds.

    Raises:
        UserError: where it holds none, or another task's.
    """
    file = Path(run) / "config.json"
    if not file.is_file():
        raise UserError(f"policy = {run!r}: no run here, it holds no config.json")
    config = read_config(Path(run))["config"]
    if config["task"] != task:
        raise UserError(f"policy = {run!r}: a run on {config['task']}, not {task}")
    found, _ = load_newest(Path(run) / "checkpoints")
    kept = {} if found is None else {name.partition("/")[2]: x for name, x in found.tensors.items()
                                     if name.startswith("replay/")}
    if not kept:
        raise UserError(f"policy = {run!r}: no checkpoint holds a replay; train with --checkpoint-every below --steps")
    return from_replay(task, kept, config["envs"])


def _newest(episodes: Sequence[Episode], steps: int) -> list[Episode]:
    """The last of them that hold at most `steps` steps, but at least one."""
    kept, total = list[Episode](), 0
    for episode in reversed(episodes):
        total += len(episode.rewards)
        if kept and total > steps:
            break
        kept.append(episode)
    return kept[::-1]
