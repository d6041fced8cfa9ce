"""Read one problem from what a user wrote: a mapping with `prompt`, `answer` and whatever else."""

from __future__ import annotations

import json
from typing import Any

from posttrain.core.errors import UserError
from posttrain.tasks.task import Problem, Prompt


def problem_from(row: Any, where: str) -> Problem:
    """The problem in one row; `where` begins every error ("my.jsonl line 3").

    Raises:
        UserError: no mapping, a key is missing, or a prompt that no chat template can take.
    """
    if not isinstance(row, dict):
        raise UserError(f"{where}: must be an object with prompt and answer, not {type(row).__name__}")
    for key in ("prompt", "answer"):
        if key not in row:
            raise UserError(f"{where}: key {key!r} is missing; it has {', '.join(map(str, row)) or 'none'}")
    rest = {key: value for key, value in row.items() if key not in ("prompt", "answer")}
    try:
        json.dumps([row["answer"], rest])
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: answer and further keys must be plain JSON data: {error}") from error
    return Problem(_prompt(row["prompt"], where), row["answer"], rest)


def _prompt(prompt: Any, where: str) -> Prompt:
    if isinstance(prompt, (list, tuple)):
        messages = tuple(_message(message, where) for message in prompt)
        if messages:
            return messages
    elif isinstance(prompt, str) and prompt.strip():
        return _encodable(prompt, where)
    raise UserError(f"{where}: prompt = {prompt!r:.60}: must be a text, not empty, or a list of messages")


def _message(message: Any, where: str) -> dict[str, str]:
    if not isinstance(message, dict) or set(message) != {"role", "content"} or not all(
            isinstance(value, str) for value in message.values()):
        raise UserError(f"{where}: a message of the prompt must be {{'role': text, 'content': text}}, "
                        f"not {message!r:.60}")
    return {key: _encodable(value, where) for key, value in message.items()}


def _encodable(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: the prompt holds a lone surrogate at character {error.start}") from error
    return text
