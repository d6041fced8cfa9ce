"""What a control run begins with: networks that an earlier run left, finished or not, or a saved policy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from posttrain.core import Method
from posttrain.core.errors import UserError, unknown
from posttrain.data.steps import Spaces
from posttrain.policies.export import new_folder
from posttrain.rollout.environments import make, spaces_of
from posttrain.train.checkpoint import load_newest
from posttrain.train.config import ControlConfig
from posttrain.train.objective import method_name

TAKEN = ("policy", "encoder", "critic", "q", "temperature")  # what may be, each with the target that follows it
SCALE = "reward_scale"  # goes with the critic, which has learnt rewards so scaled
FILES = ("networks.safetensors", "shapes.json")
EVERY = ("spaces", "width", "layers", "activation", "normalize_obs", "memory")
SHAPES: Mapping[str, tuple[str, ...]] = {  # what must be alike for a network to be taken
    "policy": ("policy", *EVERY, "ensemble", "renorm"), "encoder": ("policy", *EVERY, "atoms"), "critic": EVERY,
    "temperature": (),
    "q": (*EVERY, "q_width", "dueling", "members", "layer_norm", "atoms", "channels", "renorm")}
OPTIONS = ("width", "layers", "activation", "normalize_obs", "memory", "ensemble", "q_width", "dueling")
HYPERPARAMETERS: Mapping[str, Any] = {  # what a network is like to a method that has none of that name
    "members": 2, "layer_norm": False, "atoms": 0, "channels": None, "renorm": None}


@dataclass(frozen=True)
class Kept:
    """Networks as a run left them.

    tensors: network/name, or of a checkpoint network/master, all trained weights end to end, and network/kept/name.
    shapes: what decided them, by the name of the option or hyperparameter; what is not known is left out.
    """

    tensors: Mapping[str, Tensor]
    shapes: Mapping[str, Any]

    @property
    def networks(self) -> set[str]:
        return {name.partition("/")[0] for name in self.tensors}

    def of(self, network: str) -> dict[str, Tensor]:
        return {name.partition("/")[2]: x for name, x in self.tensors.items() if name.startswith(f"{network}/")}

    def write(self, target: Path) -> None:
        """A folder that appears whole or not at all, in place of one that is there."""
        shutil.rmtree(target, ignore_errors=True)
        with new_folder(target) as folder:
            save_file({name: x.detach().contiguous().clone() for name, x in self.tensors.items()}, folder / FILES[0])
            (folder / FILES[1]).write_text(json.dumps(self.shapes, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Start:
    """What a method takes of what was kept; all else begins anew."""

    source: str
    kept: Kept
    networks: tuple[str, ...]

    @torch.no_grad()
    def fill(self, network: str, module: nn.Module) -> bool:
        """Load what is taken into a network that was just built; False where none of it is.

        Raises:
            UserError: where it does not fit.
        """
        own = self.kept.of(network) if base(network) in self.networks else {}
        checkpointed = "master" in own
        inner: nn.Module = getattr(module, "module", module) if checkpointed else module
        held = inner.state_dict()
        trained = [p for p in inner.parameters() if p.requires_grad]
        try:
            if checkpointed:
                for p, part in zip(trained, own["master"].split([p.numel() for p in trained]), strict=True):
                    p.copy_(part.view(p.shape))
            for name, x in own.items():
                if name != "master":
                    held[name.removeprefix("kept/")].copy_(x)
        except (KeyError, RuntimeError, ValueError) as error:
            raise UserError(f"start_from = {self.source!r}: its {network} does not fit this run's ({error})") from error
        return bool(own)

    def fill_statistics(self, normalizer: nn.Module | None, scale: nn.Module | None) -> None:
        """What observations and rewards were divided by, as the networks that are taken have learnt them."""
        for name, module in (("normalizer", normalizer), (SCALE, scale if "critic" in self.networks else None)):
            if module is not None and (own := self.kept.of(name)):
                module.load_state_dict(own)

    def write(self, target: Path) -> None:
        """What is taken, so that a run can be resumed whatever becomes of the one that it began from."""
        tensors = {name: x for name, x in self.kept.tensors.items()
                   if base(name.partition("/")[0]) in {*self.networks, "normalizer", SCALE}}
        Kept(tensors, self.kept.shapes).write(target)

    def told(self, method: Method[Any]) -> str:
        """One line."""
        anew = [name for name in TAKEN if name in needed(method) and name not in self.networks]
        return (f"begins with {', '.join(self.networks)} of {self.source}"
                + (f"; {', '.join(anew)} anew" if anew else ""))


def base(network: str) -> str:
    return network.removesuffix("_target")


def needed(method: Method[Any]) -> set[str]:
    """Those of TAKEN that a method has; Q alone stands for a policy that acts by it."""
    return {base(name) for name in method.needs} & set(TAKEN)


def open_start(method: Method[Any], config: ControlConfig, shapes: Mapping[str, Any]) -> Start | None:
    """None where the run begins with nothing; a run that has begun goes by its own copy.

    shapes: of this run's networks.

    Raises:
        UserError: where nothing was kept, or what was is of another shape.
    """
    for name in config.start_networks:
        if name not in TAKEN:
            unknown("start_networks", name, TAKEN)
    if not config.start_from:
        return None
    own = Path(config.out) / "start"
    kept = read_kept(own if config.out and own.is_dir() else Path(config.start_from).expanduser())
    field, has = f"start_from = {config.start_from!r}", needed(method)
    for name in config.start_networks:
        if name in has and name not in kept.networks:
            raise UserError(f"{field}: keeps no {name}, only {', '.join(n for n in TAKEN if n in kept.networks)}")
    taken = tuple(name for name in config.start_networks or TAKEN if name in has & kept.networks)
    if not taken:
        raise UserError(f"{field}: keeps nothing that {method_name(method)} has")
    for shape in dict.fromkeys(shape for name in taken for shape in SHAPES[name]):
        if shape in kept.shapes and kept.shapes[shape] != shapes[shape]:
            raise UserError(f"{field}: was made with {shape} = {kept.shapes[shape]!r}, and this run has "
                            f"{shapes[shape]!r}; they must be alike")
    return Start(config.start_from, kept, taken)


def inherited(method: Method[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Options and hyperparameters that shape what is taken, as the run that is begun with had them."""
    kept = read_kept(Path(str(given["start_from"])).expanduser())
    taken = needed(method) & kept.networks & set(given.get("start_networks") or TAKEN)
    found = {shape: kept.shapes[shape] for name in taken for shape in SHAPES[name] if shape in kept.shapes}
    found.pop("spaces", None)
    return found


def read_kept(folder: Path) -> Kept:
    """What a finished run, a stopped one or a saved policy holds.

    Raises:
        UserError: if it holds nothing, or cannot be read.
    """
    try:
        for place in (folder, folder / "networks"):
            if (place / FILES[1]).is_file():
                return Kept(load_file(place / FILES[0]), json.loads((place / FILES[1]).read_text(encoding="utf-8")))
        for place in (folder, folder / "final"):
            if (place / "policy.json").is_file():
                return _policy(place)
        if (folder / "config.json").is_file():
            return _checkpoint(folder)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"start_from = '{folder}': cannot be read ({type(error).__name__}: {error})") from error
    raise UserError(f"start_from = '{folder}': holds neither a run of control nor a policy")


def _policy(folder: Path) -> Kept:
    told = json.loads((folder / "policy.json").read_text(encoding="utf-8"))
    shapes = {"policy": told.pop("kind"), "normalize_obs": told.pop("normalized", False), **told}
    return Kept({f"policy/{name}": x for name, x in load_file(folder / "weights.safetensors").items()}, shapes)


def _checkpoint(folder: Path) -> Kept:
    """Of a run that was stopped."""
    told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    found, _ = load_newest(folder / "checkpoints")
    if found is None or "kind" not in told:
        what = "no run of control" if found else "a run that was stopped before its first checkpoint"
        raise UserError(f"start_from = '{folder}': {what}")
    env = make(told["config"]["task"])
    tensors = {name: x for name, x in found.tensors.items() if base(name.partition("/")[0]) in {*TAKEN, "normalizer"}
               and name.partition("/")[2] not in ("first", "second", "steps")}
    tensors |= {f"{SCALE}/{name}": torch.tensor(x, dtype=torch.float64)
                for name, x in found.data["setting"].get("scale", {}).get("seen", {}).items()}
    shapes = shapes_of(spaces_of(env), told["kind"], told["config"], told["hyperparameters"])
    env.close()
    return Kept(tensors, shapes)


def shapes_of(spaces: Spaces, kind: str, config: Mapping[str, Any], hyperparameters: Mapping[str, Any]
              ) -> dict[str, Any]:
    """Of a run's networks, as JSON has them."""
    found = {"policy": kind, "spaces": spaces._asdict(), **{name: config[name] for name in OPTIONS if name in config},
             **{name: hyperparameters.get(name, other) for name, other in HYPERPARAMETERS.items()}}
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain


def keep(built: Mapping[str, nn.Module], shapes: Mapping[str, Any]) -> Kept:
    """Of the networks that a run has built, those that another may take."""
    return Kept({f"{network}/{name}": x for network, module in built.items() if base(network) in (*TAKEN, SCALE)
                 for name, x in module.state_dict().items()}, shapes)
