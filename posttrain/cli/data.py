"""`posttrain data make TASK`: log transitions into a Minari dataset, for methods that learn from one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from posttrain.cli.options import Parser
from posttrain.core.errors import UserError
from posttrain.core.source import Field
from posttrain.core.types import Count, Natural

OPTIONS = (
    Field("kind", Literal["random", "medium", "replay", "expert", "scripted"], "random",
          "whose actions: even over all; a run's policy, half trained or trained; what a run saw; a controller's"),
    Field("policy", str, "", "the run folder; of kind scripted, module:function from observation to action, or "
          "module:class, made of (env, obs, info) in each episode and called with each (obs, info)"),
    Field("steps", Count, 10_000, "transitions, and on to the end of an episode; of kind replay, at most, the newest"),
    Field("out", str, "", "folder to be made; nothing is overwritten"),
    Field("seed", Natural, 0, "of resets and actions"),
    Field("expert", str, "", "run folder of the policy whose mean return a normalised score calls 100"),
    Field("reference_episodes", Count, 20, "episodes behind each reference return"),
)


def make_parser() -> Parser:
    parser = Parser("data make TASK", "Log transitions on a Gymnasium task into a Minari dataset.", [
        "posttrain data make Pendulum-v1 --kind random --steps 20000 --out data/pendulum-random",
        "posttrain data make Pendulum-v1 --kind expert --policy runs/sac-Pendulum-v1-0 --out data/pendulum-expert",
        "posttrain data make Pendulum-v1 --kind replay --policy runs/mine --expert runs/mine --out data/replay",
        "posttrain train td3-bc --task Pendulum-v1 --dataset data/pendulum-expert --dataset data/pendulum-random"])
    parser.add_argument("action", metavar="make", choices=["make"], help="the one thing that is done with data")
    parser.add_argument("task", metavar="TASK", help="a Gymnasium id")
    parser.declare("dataset", OPTIONS)
    return parser


def run(arguments: Sequence[str]) -> int:
    found, given = make_parser().read(arguments)
    settings: dict[str, Any] = {f.name: f.default for f in OPTIONS} | given
    if not settings["out"]:
        raise UserError("out is missing: say which folder to make, as in --out data/mine")
    if (settings["kind"] == "random") == bool(settings["policy"]):
        raise UserError("policy = " + (f"{settings['policy']!r}: actions of kind 'random' are nobody's"
                                       if settings["policy"] else f"'': kind {settings['kind']!r} needs --policy"))

    from posttrain.train.datasets import make_dataset
    from posttrain.train.objective import counted

    folder = settings.pop("out")
    told = make_dataset(found.task, Path(folder), **settings)
    low, high = told["returns"]["lowest"], told["returns"]["highest"]
    print(f"{folder}: {counted(told['steps'], 'step')} in {counted(told['episodes'], 'episode')}, "
          f"return {told['returns']['mean']:.4g} on average, {low:.4g} to {high:.4g}")
    for name, value in told["references"].items():
        if value is not None and name != "episodes":
            print(f"reference: {name} policy returns {value:.4g} on average")
    print(f"next: posttrain train td3-bc --task {found.task} --dataset {folder}")
    return 0
