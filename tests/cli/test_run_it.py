"""The command that `explain` ends with is of the kind of policy that the method is shown for."""

from __future__ import annotations

import pytest

from posttrain.cli.explain import command
from posttrain.cli.resolve import resolve
from posttrain.core import catalog, method_files
from posttrain.rollout.environments import check_costs, make, spaces_of
from posttrain.train.control_checks import check_teacher, policy_of, source_of


@pytest.mark.parametrize(("name", "expected"), [
    ("grpo", "posttrain train grpo --policy smollm2-135m --task addition --steps 60"),
    ("dqn", "posttrain train dqn --task CartPole-v1"),
    ("gsde", "posttrain train gsde --task Pendulum-v1"),
    ("pdppo", "posttrain train pdppo --task posttrain/LotSizing-v0"),
    ("cpo", "posttrain train cpo --task PendulumSpeed-v0"),
    ("bc", "posttrain train bc --task Pendulum-v1 --dataset DIR"),
    ("decision-transformer", "posttrain train decision-transformer --task Pendulum-v1 --dataset DIR"),
    ("jsrl", "posttrain train jsrl --task Pendulum-v1 --teacher RUN"),
    ("wsrl", "posttrain train wsrl --task Pendulum-v1 --start-from RUN"),
    ("hnpg", "posttrain train hnpg --task Pendulum-v1 --dataset DIR"),
    ("flow-grpo", "posttrain train flow-grpo --policy digits-flow"),
])
def test_each_kind_has_its_own(name: str, expected: str) -> None:
    assert command(catalog.find(name)) == expected


def test_without_policy_and_task_a_run_is_of_that_kind() -> None:
    assert resolve("pdppo", {"envs": 2}).config.task == "posttrain/LotSizing-v0"
    assert resolve("dqn", {"envs": 2}).config.task == "CartPole-v1"
    assert resolve("flow-grpo", {"steps": 2}).config.policy == "digits-flow"
    assert resolve("grpo", {"steps": 2}).config.task == "addition"


def test_every_control_method_takes_its_own_command() -> None:
    for name, found in method_files.methods().items():
        if found.home == "control":
            words = command(found).split()
            given = dict(zip((w.removeprefix("--").replace("-", "_") for w in words[3::2]), words[4::2], strict=True))
            assert given.pop("start_from", "RUN") == "RUN"  # a run that is not there
            if "dataset" in given:
                given["dataset"] = (given["dataset"],)
            plan = resolve(name, given)
            assert plan.config.task == given["task"]
            source_of(plan.method, plan.config)  # raises where something is missing
            check_teacher(plan.method, plan.config)
            env = make(given["task"])
            if "cost_critic" in plan.method.needs:
                check_costs(env, given["task"], name)
            policy_of(plan.method, plan.config, spaces_of(env).numbered)
            env.close()
            assert plan.method.needs == tuple(n for n in plan.method.needs if n in found.needs)
