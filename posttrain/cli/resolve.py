"""From what a user gave to what will run: names checked, a task's suggestions taken, a run read back."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from posttrain.core import catalog
from posttrain.core.errors import UserError, nearest
from posttrain.core.method_files import plain_name
from posttrain.core.told import read_config
from posttrain.train.config import Config, LanguageConfig
from posttrain.train.kinds import KINDS, Kind, brought, kind_of
from posttrain.train.material import check_used, source_kind

if TYPE_CHECKING:
    from posttrain.core.curriculum import Curriculum
    from posttrain.core.method import Method
    from posttrain.tasks.task import Task


@dataclass(frozen=True)
class Plan:
    """A method and a configuration, fully resolved."""

    name: str
    method: Method[Any]
    config: Config
    curriculum: Curriculum | None = None

    @property
    def title(self) -> str:
        return f"{self.name} on {self.config.task} · {self.config.policy}"


def resolve(name: str, given: Mapping[str, Any]) -> Plan:
    """The plan for a new run.  What was not given is what the task suggests, else the default; where neither policy nor
    task was, they are of the kind that the method is shown for.

    given: fields of Config and hyperparameters of the method and of the curriculum, by name.

    Raises:
        UserError: on an unknown option or task, or a value out of range.
    """
    found = catalog.find(name)
    plain = catalog.make(name)
    named = str(given.get("policy", "")), str(given.get("task", ""))
    name_of_kind = kind_of(*named) if any(named) else found.home
    kind, asked = KINDS[name_of_kind], set(given)
    own, options = {f.name for f in found.fields}, {f.name for f in dataclasses.fields(kind.config)}
    chooser = str(given.get("curriculum", ""))
    choosing = {f.name for f in catalog.find_curriculum(chooser).fields} if chooser else set[str]()
    for option in given:
        _check_known(option, [*options, *own, *choosing])
    check_kind(plain, found.name, name_of_kind)
    given = {**declared_clip(plain, kind), **plain.defaults.get(name_of_kind, {}), **brought(named[0]), **given}
    given = {**given, **begun_with(plain, given, asked)}
    method = catalog.make(name, **{k: v for k, v in given.items() if k in own})
    curriculum = curriculum_of(chooser, {k: v for k, v in given.items() if k in choosing})
    chosen = {k: v for k, v in given.items() if k in options}
    if chooser:
        chosen["curriculum"] = plain_name(chooser)
    config = kind.config(**chosen)  # what the user gave is refused before a task is loaded
    if isinstance(config, LanguageConfig):
        task = _task(config)
        config = type(config)(**{**task.defaults, **chosen})
        check_used(source_kind(method.learns_from, found.name, config, task), given)
    if not config.out:
        config = dataclasses.replace(config, out=default_folder(found.name, config))
    return Plan(found.name, method, config, curriculum)


def check_kind(method: Method[Any], name: str, kind: str) -> None:
    """
    Raises:
        UserError: where the method asks its policy what another kind alone can say.
    """
    if method.kinds and kind not in method.kinds:
        raise UserError(f"method = {name!r}: trains {' or '.join(method.kinds)}, and these options are of {kind}")


def declared_clip(method: Method[Any], kind: Kind) -> dict[str, float]:
    """The clip range that a kind of policy declares, for a method that has one."""
    if kind.clip is None:
        return {}
    return {name: kind.clip for name in ("clip_low", "clip_high") if isinstance(getattr(method, name, None), float)}


def begun_with(method: Method[Any], given: Mapping[str, Any], asked: Collection[str]) -> dict[str, Any]:
    """What shapes the networks that a run begins with, where it was not asked for otherwise."""
    if not given.get("start_from"):
        return {}
    from posttrain.train.start import inherited

    return {name: value for name, value in inherited(method, given).items() if name not in asked}


def curriculum_of(name: str, hyperparameters: Mapping[str, Any]) -> Curriculum | None:
    """The curriculum of that name; None without one."""
    return catalog.make_curriculum(name, **hyperparameters) if name else None


def _check_known(option: str, allowed: list[str]) -> None:
    if option not in allowed:
        close = nearest(option, allowed)
        raise UserError(f"no such option {option!r}" + (f"; did you mean {close[0]!r}?" if close else ""))


def _task(config: LanguageConfig) -> Task:
    from posttrain.tasks import load_task

    return load_task(config.task, verifier=config.verifier or None, heldout_file=config.heldout or None)


def default_folder(method: str, config: Config) -> str:
    """runs/METHOD-TASK-SEED, with what a folder's name should not hold as hyphens."""
    task = re.sub(r"[^A-Za-z0-9.-]+", "-", config.task).strip("-.")
    return f"runs/{method}-{task}-{config.seed}"


def resume_from(folder: str, name: str, given: Mapping[str, Any]) -> Plan:
    """The plan stored in a run folder; what is given besides must agree with it.

    Raises:
        UserError: where there is no run, or an option differs from the stored one.
    """
    if not folder:
        raise UserError("resume needs the run's folder, as in posttrain train --resume runs/x")
    run = read_run(Path(folder))
    method_file = catalog.find(run.method)
    _check_same(folder, {"method": catalog.find(name).spec} if name else {}, {"method": method_file.spec})
    _check_same(folder, given, {**run.hyperparameters, **run.curriculum, **run.config})
    method = catalog.make(run.method, **run.hyperparameters)
    kind = KINDS[kind_of(run.config["policy"], run.config["task"])]
    config = kind.config(**{**run.config, "out": folder})
    return Plan(method_file.name, method, config, curriculum_of(run.config.get("curriculum", ""), run.curriculum))


def _check_same(folder: str, given: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    for option, value in given.items():
        _check_known(option, list(stored))
        if value != stored[option]:
            raise UserError(f"{option} = {value!r}: the run in {folder} has {stored[option]!r}, and resuming "
                            "keeps every option; start a new run with another --out")


class Stored(NamedTuple):
    """What a run folder's config.json says."""

    method: str
    hyperparameters: dict[str, Any]
    config: dict[str, Any]
    curriculum: dict[str, Any]  # hyperparameters of the one that the configuration names


def read_run(folder: Path) -> Stored:
    """What the run in a folder was told.

    Raises:
        UserError: where the file is missing or is not of a run.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise UserError(f"{folder}: no run here, it holds no config.json")
    try:
        told = read_config(folder)
        config, curriculum = ({k: tuple(v) if isinstance(v, list) else v for k, v in told[part].items()}
                              for part in ("config", "curriculum"))
        return Stored(str(told["method"]), dict(told["hyperparameters"]), config, curriculum)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: not the configuration of a run ({type(error).__name__}: {error})") from None
