"""What MkDocs calls while it builds: adds the generated pages, the navigation and the face of the equations."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from generator import font, pages  # noqa: E402
from mkdocs.config.defaults import MkDocsConfig  # noqa: E402
from mkdocs.structure.files import File, Files  # noqa: E402


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Generate all; pages written by hand stay, with their links into the repository made links within the site."""
    site = pages.build()
    guide = [f for f in files.documentation_pages() if "/" not in f.src_uri]
    for written in guide:
        site.pages[written.src_uri] = pages.linked(written.content_string, HERE, site)
        files.remove(written)
    for address, text in site.pages.items():
        files.append(File.generated(config, address, content=text))
    for address, path in site.copies.items():
        files.append(File.generated(config, address, abs_src_path=str(path)))
    for name in font.FACES:
        characters = set("".join(site.pages.values())) | set(map(chr, range(32, 127)))
        files.append(File.generated(config, f"fonts/{name}", content=font.face(name, characters)))
    files.append(File.generated(config, "fonts/LICENCE.txt", abs_src_path=str(font.LICENCE)))
    config["nav"] = pages.navigation(pages.documented(), [f.src_uri for f in guide])
    return files


def on_serve(server: Any, config: MkDocsConfig, builder: Any) -> Any:
    """`mkdocs serve` builds again when a method changes."""
    server.watch(str(HERE.parent / "posttrain"))
    return server
