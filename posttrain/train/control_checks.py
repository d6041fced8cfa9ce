"""What a control run may be asked for: every combination that cannot be is refused before anything is written."""

from __future__ import annotations

from typing import Any

from torch import nn

from posttrain.core import Method
from posttrain.core.errors import UserError
from posttrain.data.dataset import Dataset, read_datasets, told
from posttrain.data.steps import Spaces
from posttrain.policies.acting import ControlPolicy
from posttrain.policies.control import LOG_STD, NUMBERED, BoundedGaussian, Gaussian
from posttrain.policies.control_noise import CHAINS, NOISE_KINDS
from posttrain.policies.exploring import ON_POLICY, StateDependent
from posttrain.policies.sequence import Sequence
from posttrain.rollout.environments import OWN, between, spaces_of, stepped
from posttrain.train.config import ControlConfig
from posttrain.train.objective import method_name

ENCODED = ("latent", "adapting")  # kinds of policy that act by an encoder


def source_of(method: Method[Any], config: ControlConfig) -> str:
    """What a batch holds.

    Raises:
        UserError: where the method cannot learn from that.
    """
    beside = method.learns_from == "both" and "control" in method.kinds
    if method.learns_from in ("demonstrations", "both") and not beside:
        raise UserError(f"method = {method_name(method)!r}: learns from given answers, and an environment gives none")
    off_policy, share = method.learns_from in ("transitions", "stretches"), config.dataset_share
    if method.learns_from == "stretches" and (share < 1 or not config.dataset):
        raise UserError(f"dataset_share = {share:g}: {method_name(method)} learns from logged episodes alone; give "
                        "--dataset FOLDER, and a share of 1")
    if config.dataset and not (off_policy or beside):
        raise UserError(f"dataset = {config.dataset[0]!r}: {method_name(method)} learns from its own acting alone")
    if not config.dataset and (config.source == "dataset" or (off_policy and share < 1) or (beside and share > 0)):
        raise UserError(f"dataset is missing: {method_name(method)} learns from logged transitions; give --dataset "
                        "FOLDER, which posttrain data make TASK --out FOLDER makes")
    if beside and share == 1:
        raise UserError(f"dataset_share = {share:g}: leaves nothing to what {method_name(method)} does itself")
    allowed: tuple[str, ...] = ("segments",) if beside else ("segments", "episodes")
    if off_policy:
        allowed = ("dataset",) if config.dataset else ("replay",)
    if config.source == "auto":
        return allowed[0] if "critic" in method.needs or len(allowed) == 1 else "episodes"
    if config.source not in allowed:
        given = " and a dataset is given" if config.dataset else ""
        raise UserError(f"source = {config.source!r}: {method_name(method)} learns from {' or '.join(allowed)}{given}")
    return config.source


def logged_rows(kind: str, config: ControlConfig) -> int:
    """How many rows of a batch, or beside segments how many actions, come from the dataset.

    Raises:
        UserError: if none is to.
    """
    if not config.dataset:
        return 0
    share, whole = config.dataset_share, config.batch_size
    if kind == "segments":
        whole = round(config.envs * config.segment / (1 - share))
    if round(share * whole) == 0:
        raise UserError(f"dataset_share = {share:g}: leaves no row of {whole} to the dataset")
    return round(share * whole)


def open_datasets(config: ControlConfig, spaces: Spaces) -> Dataset:
    """
    Raises:
        UserError: where they cannot be read, or are not of the task's spaces.
    """
    found = read_datasets(config.dataset)
    if found.spaces != spaces:
        raise UserError(f"dataset = {config.dataset[0]!r}: holds {told(found.spaces)}, and {config.task} has "
                        f"{told(spaces)}")
    return found


def notes_of(logged: Dataset | None, config: ControlConfig) -> tuple[str, ...]:
    if logged and logged.task not in ("", config.task.rpartition(":")[2]):  # less the module that registers it
        return (f"the dataset was logged on {logged.task}, and the policy is measured on {config.task}",)
    return ()


def policy_of(method: Method[Any], config: ControlConfig, numbered: bool) -> str:
    """The kind of policy.

    Raises:
        UserError: where it does not fit the environment's actions.
    """
    kind: str = config.policy
    if kind == "auto":
        kind = "categorical" if numbered else method.ranged
    if (kind == Sequence.kind) != (method.learns_from == "stretches"):
        raise UserError(f"policy = {kind!r}: {method_name(method)} learns from " + (
            "single decisions" if kind == Sequence.kind else "what came before each, as 'transformer' does"))
    if kind == Sequence.kind:
        return kind
    if (kind in NUMBERED) != numbered:
        those = "numbered" if numbered else "numbers in a range"
        if kind == method.defaults["control"].get("policy"):  # nobody has to have asked for it
            raise UserError(f"task = {config.task!r}: its actions are {those}, and {method_name(method)}'s policy, "
                            f"{kind!r}, has {'numbers in a range' if numbered else 'numbered ones'}")
        raise UserError(f"policy = {kind!r}: the actions of {config.task!r} are {those}")
    if (kind == "greedy") == ("policy" in method.lr_scale):
        raise UserError(f"policy = {kind!r}: {method_name(method)} trains " + (
            "a policy of its own" if kind == "greedy" else "Q alone, so it acts by policy = 'greedy'"))
    own = method.defaults["control"]["policy"] if "encoder" in method.needs else ""  # the one that has its encoder
    if own and kind != own:
        raise UserError(f"policy = {kind!r}: {method_name(method)} trains an encoder, so it acts by policy = {own!r}")
    if not own and kind in ENCODED:
        raise UserError(f"policy = {kind!r}: {method_name(method)} trains no encoder")
    if (kind == "greedy" or own) and config.normalize_obs:
        raise UserError(f"normalize_obs = True: a policy of the kind {kind!r} takes observations as they are")
    return kind


def check_acting(method: Method[Any], config: ControlConfig, kind: str) -> None:
    """
    Raises:
        UserError: where this method cannot learn from what such a run does.
    """
    name, replayed = method_name(method), method.learns_from == "transitions"
    if kind in ON_POLICY and replayed:
        raise UserError(f"policy = {kind!r}: {name} learns from replayed actions, and this kind is for methods that "
                        "learn from their own acting")
    if kind == "deterministic" and "temperature" in method.needs:
        raise UserError(f"policy = {kind!r}: {name} pays a policy for its entropy, and this kind has none; must be one "
                        "that draws its actions, as 'squashed-gaussian'")
    if method.policies and kind not in method.policies:
        raise UserError(f"policy = {kind!r}: {name} trains {' or '.join(method.policies)}")
    if kind in CHAINS and "q" in method.needs:
        raise UserError(f"policy = {kind!r}: decides more than an action, and the Q of {name} is told actions")
    if config.memory and kind in NOISE_KINDS:
        raise UserError(f"memory = {config.memory}: policies of the kind {kind!r} remember nothing; must be 0")
    if config.history and "behaviour" not in method.needs:
        raise UserError(f"history = {config.history}: {name} learns from what the policy does, and past segments are "
                        "an older one's; must be 0")
    if config.memory and "behaviour" in method.needs:
        raise UserError(f"memory = {config.memory}: {name} acts by a policy of its own, whose memories the learnt one "
                        "does not have; must be 0")
    if config.memory and "cost_critic" in method.needs:
        raise UserError(f"memory = {config.memory}: {name} has a critic of costs, whose memory no batch keeps; "
                        "must be 0")
    if config.memory and (replayed or "q" in method.needs):
        raise UserError(f"memory = {config.memory}: {name} learns from single actions, which nothing comes before")
    if config.normalize_reward and method.learns_from == "both":
        raise UserError(f"normalize_reward = true: {name} learns from logged rewards too, which are as they are; must "
                        "be false")


def check_post(env: Any, task: str) -> None:
    """
    Raises:
        UserError: unless the environment says the post-decision state of a step.
    """
    env.reset(seed=0)
    env.action_space.seed(0)
    post = between(stepped(env, env.action_space.sample())[4])
    if post is None or len(post) != spaces_of(env).obs:
        raise UserError(f"task = {task!r}: its steps do not say what a decision made of the state before chance came "
                        f"in, info['post_decision'], an observation; {' and '.join(OWN)} does")


def set_noise(policy: ControlPolicy, config: ControlConfig) -> None:
    """
    Raises:
        UserError: on noise that this kind of policy has not.
    """
    if config.hold > 1:
        if not isinstance(policy, StateDependent):
            raise UserError(f"hold = {config.hold}: only the noise of policy = 'state-dependent' is held; must be 1")
        policy.hold = config.hold
    if config.log_std:
        if not isinstance(policy, (Gaussian, StateDependent)):
            raise UserError(f"log_std = {config.log_std:g}: only Gaussian policies with one σ everywhere and "
                            "'state-dependent' start from it; must be 0")
        low, high = LOG_STD
        if isinstance(policy, BoundedGaussian) and not low <= config.log_std <= high:
            raise UserError(f"log_std = {config.log_std:g}: policies of the kind {policy.kind!r} keep it in "
                            f"[{low:g}, {high:g}]")
        nn.init.constant_(policy.log_std, config.log_std)


def check_teacher(method: Method[Any], config: ControlConfig) -> None:
    """
    Raises:
        UserError: where a teacher is given and not needed, or the reverse.
    """
    if config.teacher and "teacher" not in method.needs:
        raise UserError(f"teacher = {config.teacher!r}: {method_name(method)} has no use for one")
    if not config.teacher and "teacher" in method.needs:
        raise UserError(f"teacher is missing: {method_name(method)} lets another policy act too; give --teacher RUN")


def check_replay(method: Method[Any], config: ControlConfig, numbered: bool, goals: bool) -> None:
    """
    Raises:
        UserError: on what a replay is asked for that this method or these actions cannot take.
    """
    name = method_name(method)
    if config.span > 1 and "spans" not in method.replays:
        raise UserError(f"span = {config.span}: {name} learns from transitions of one action")
    if config.replay == "hindsight":
        if method.learns_from != "transitions":
            raise UserError(f"replay = 'hindsight': {name} learns from its own acting alone; must be 'uniform'")
        if not goals:
            raise UserError(f"replay = 'hindsight': {config.task} has no goals: no observation with achieved_goal and "
                            "desired_goal, or no compute_reward; must be 'uniform' or 'prioritized'")
        if method.ahead:
            raise UserError(f"replay = 'hindsight': {name} learns from what was paid ahead under one goal")
        if config.span > 1:
            raise UserError(f"span = {config.span}: with replay = 'hindsight' it must be 1, since rewards are of one "
                            "action")
    if config.replay == "prioritized" and "priorities" not in method.replays:
        raise UserError(f"replay = {config.replay!r}: {name} does not weigh what it learns from; must be 'uniform'")
    if config.replay != "uniform" and config.dataset:
        raise UserError(f"replay = {config.replay!r}: a dataset is drawn from evenly; must be 'uniform'")
    if config.exploration and numbered:
        raise UserError(f"exploration = {config.exploration:g}: the actions of {config.task!r} are numbered; "
                        "random ones are the share epsilon")
    if config.exploration_memory == 1:
        raise UserError("exploration_memory = 1: must be below 1, or noise would never change")
    if config.exploration_memory and not config.exploration:
        raise UserError(f"exploration_memory = {config.exploration_memory:g}: must be 0 where exploration = 0 adds no "
                        "noise")
    if config.dueling and not (numbered and "q" in method.needs):
        raise UserError(f"dueling = true: needs a method with Q of numbered actions, and {name} on "
                        f"{config.task!r} has none")


