"""The face of the equations: STIX, cut down to the signs that the pages use, so that they look alike everywhere.

The fonts come with matplotlib, under the SIL Open Font License, which asks that a changed font lose its name.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import matplotlib
from fontTools import subset
from fontTools.ttLib import TTFont

FOLDER = Path(matplotlib.get_data_path(), "fonts", "ttf")
FACES = {"equations.woff": "STIXGeneral.ttf", "equations-italic.woff": "STIXGeneralItalic.ttf"}
LICENCE = FOLDER / "LICENSE_STIX"
OWN_NAME = "Equations"
KEPT_NAMES = (0, 13, 14)  # copyright and licence


def face(file: str, characters: Iterable[str]) -> bytes:
    """One of the faces with these characters alone, as a web font; the same bytes for the same characters."""
    font = TTFont(FOLDER / FACES[file], recalcTimestamp=False)
    options = subset.Options(name_IDs=list(KEPT_NAMES), notdef_outline=True, hinting=False)
    options.drop_tables += ["FFTM"]  # when FontForge made it
    cut = subset.Subsetter(options)
    cut.populate(unicodes=sorted({ord(c) for c in characters}))
    cut.subset(font)
    for name_id in (1, 4, 6):
        font["name"].setName(OWN_NAME, name_id, 3, 1, 0x409)
    font.flavor = "woff"
    out = io.BytesIO()
    font.save(out)
    return out.getvalue()
