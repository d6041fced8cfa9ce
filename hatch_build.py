"""What a wheel must say that only a checkout can know: the level of proof of every method."""

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Levels(BuildHookInterface[Any]):
    """Writes posttrain/core/levels.json into the wheel; a checkout, and an editable install of it, compute it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        sys.path.insert(0, self.root)
        from posttrain.core import levels

        file = Path(self.root, "build", "levels.json")
        file.parent.mkdir(exist_ok=True)
        file.write_text(levels.text(), encoding="utf-8")
        build_data["force_include"][str(file)] = "posttrain/core/levels.json"
