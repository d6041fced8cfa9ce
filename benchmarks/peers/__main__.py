"""posttrain's objectives beside those of TRL and verl, on the same random tensors.

    pip install -e ".[peers]" && pip install --no-deps verl==0.9.1
    python -m benchmarks.peers

Prints a table, and writes docs/peers.md and evidence/peers.json.  0: every disagreement has a checked reason; 1: one
has none, or a peer is missing, and then nothing is written; 2: wrong use.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from . import report
from .compare import Finding, findings

ROOT = Path(__file__).parents[2]
FAMILIES = {"TRL": ("trl_groups", "trl_preference"), "verl": ("verl_groups",), "posttrain": ("own",)}
PACKAGES = {"TRL": "trl", "verl": "verl"}
INSTALL = {"TRL": 'pip install -e ".[peers]"',
           "verl": 'pip install -e ".[peers]" && pip install --no-deps verl==0.9.1'}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--peer", choices=tuple(PACKAGES), help="only this one; nothing is written")
    args = parser.parse_args(argv)
    quiet()
    asked = [args.peer] if args.peer else list(PACKAGES)
    problems = {peer: problem for peer in asked if (problem := why_not(peer))}
    for problem in problems.values():
        print(f"peers: {problem}", file=sys.stderr)
    there = [peer for peer in asked if peer not in problems]
    if not there:
        return 1
    found = collect([*there, "posttrain"])
    for line in report.lines(found):
        print(line)
    print(report.counts(found))
    if problems or not all(f.explained for f in found):
        return 1
    if not args.peer:
        write(found)
    return 0


def quiet() -> None:
    """Peers talk while they are imported; nothing here asks the network for anything."""
    warnings.filterwarnings("ignore")
    for name, value in (("HF_HUB_OFFLINE", "1"), ("VERL_LOGGING_LEVEL", "ERROR"), ("TRL_EXPERIMENTAL_SILENCE", "1")):
        os.environ.setdefault(name, value)


def why_not(peer: str) -> str:
    """One line that says why the peer cannot be asked; empty if it can."""
    if find_spec(PACKAGES[peer]) is None:
        return f"{peer}: not installed: {INSTALL[peer]}"
    try:
        for family in FAMILIES[peer]:
            import_module(f"{__package__}.{family}").load()
    except ImportError as error:
        return f"{peer}: does not import ({error}): {INSTALL[peer]}"
    return ""


def collect(peers: Sequence[str]) -> list[Finding]:
    """All that the families of these libraries find."""
    found: list[Finding] = []
    for peer in peers:
        for family in FAMILIES[peer]:
            found += findings(import_module(f"{__package__}.{family}").COMPARISONS)
    return found


def versions() -> dict[str, str]:
    named = {"posttrain": "posttrain", "TRL": "trl", "verl": "verl", "torch": "torch", "transformers": "transformers",
             "tensordict": "tensordict"}
    found = {}
    for name, package in named.items():
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write(found: Sequence[Finding]) -> None:
    missing = {peer: [name for family in families if hasattr(module := import_module(f"{__package__}.{family}"),
                                                             "without_counterpart")
                      for name in module.without_counterpart()]
               for peer, families in FAMILIES.items() if peer in PACKAGES}
    (ROOT / "docs/peers.md").write_text(report.page(found, versions(), missing))
    text = json.dumps(report.data(found, versions()), indent=1, ensure_ascii=False, allow_nan=False)
    (ROOT / "evidence/peers.json").write_text(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
