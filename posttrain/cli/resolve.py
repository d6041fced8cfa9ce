"""From what a user gave to what will run: names checked, a task's suggestions taken, a run read back."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.core import catalog
from posttrain.core.errors import UserError, nearest
from posttrain.train.config import Config

if TYPE_CHECKING:
    from posttrain.core.method import Method

CONFIG_FIELDS = tuple(f.name for f in dataclasses.fields(Config))


@dataclass(frozen=True)
class Plan:
    """A method and a configuration, fully resolved."""

    name: str
    method: Method[Any]
    config: Config

    @property
    def title(self) -> str:
        return f"{self.name} on {self.config.task} · {self.config.policy}"


def resolve(name: str, given: Mapping[str, Any]) -> Plan:
    """The plan for a new run.  What was not given is what the task suggests, else the default.

    given: fields of Config and hyperparameters of the method, by name.

    Raises:
        UserError: on an unknown option or task, or a value out of range.
    """
    found = catalog.find(name)
    own = {f.name for f in found.fields}
    for option in given:
        _check_known(option, [*CONFIG_FIELDS, *own])
    method = catalog.make(name, **{k: v for k, v in given.items() if k in own})
    chosen = {k: v for k, v in given.items() if k in CONFIG_FIELDS}
    Config(**chosen)  # what the user gave is refused before a task is loaded
    config = Config(**{**_suggested(Config(**chosen)), **chosen})
    if not config.out:
        config = dataclasses.replace(config, out=default_folder(found.name, config))
    return Plan(found.name, method, config)


def _check_known(option: str, allowed: list[str]) -> None:
    if option not in allowed:
        close = nearest(option, allowed)
        raise UserError(f"no such option {option!r}" + (f"; did you mean {close[0]!r}?" if close else ""))


def _suggested(config: Config) -> Mapping[str, Any]:
    """The defaults that the task suggests."""
    from posttrain.tasks import load_task

    task = load_task(config.task, verifier=config.verifier or None, heldout_file=config.heldout or None)
    return task.defaults


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
    stored_name, hyperparameters, stored = read_run(Path(folder))
    _check_same(folder, {"method": catalog.plain_name(name)} if name else {}, {"method": stored_name})
    _check_same(folder, given, {**hyperparameters, **stored})
    method = catalog.make(stored_name, **hyperparameters)
    return Plan(stored_name, method, Config(**{**stored, "out": folder}))


def _check_same(folder: str, given: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    for option, value in given.items():
        _check_known(option, list(stored))
        if value != stored[option]:
            raise UserError(f"{option} = {value!r}: the run in {folder} has {stored[option]!r}, and resuming "
                            "keeps every option; start a new run with another --out")


def read_run(folder: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Method name, hyperparameters and configuration from a run folder's config.json.

    Raises:
        UserError: where the file is missing or is not of a run.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise UserError(f"{folder}: no run here, it holds no config.json")
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        config = {k: tuple(v) if isinstance(v, list) else v for k, v in told["config"].items()}
        return str(told["method"]), dict(told["hyperparameters"]), config
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: not the configuration of a run ({type(error).__name__}: {error})") from None
