"""Read one problem from what a user wrote: a mapping with `prompt`, what is known of its answers, and whatever else."""

from __future__ import annotations

import json
from typing import Any

from posttrain.core.errors import UserError
from posttrain.rewards.verifiers import verifier_names
from posttrain.tasks.task import Given, Problem, Prompt

FORMS = (("chosen", "rejected"), ("completion",), ("completions",))  # the keys that give answers; one form a problem
_OWN = {"prompt", "answer", *(key for form in FORMS for key in form)}


def problem_from(row: Any, where: str, scored: bool = True) -> Problem:
    """The problem in one row; `where` begins every error ("my.jsonl line 3").

    scored: a verifier will want the answer.

    Raises:
        UserError: no mapping, a key is missing, or a prompt or given answer that no chat template can take.
    """
    if not isinstance(row, dict):
        raise UserError(f"{where}: must be an object with prompt and answer, not {type(row).__name__}")
    given = _given(row, where)
    for key in ("prompt", "answer"):
        if key not in row and not (key == "answer" and given and not scored):
            raise UserError(f"{where}: key {key!r} is missing; it has {', '.join(map(str, row)) or 'none'}")
    answer, rest = row.get("answer"), {key: value for key, value in row.items() if key not in _OWN}
    try:
        json.dumps([answer, rest])
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: answer and further keys must be plain JSON data: {error}") from error
    part = row.get("part", "")
    if not isinstance(part, str):
        raise UserError(f"{where}: part = {part!r:.60}: must be a text")
    return Problem(_prompt(row["prompt"], where), answer, rest, given, part)


def verifier_missing(name: str) -> UserError:
    """The refusal of a task whose problems nothing can score."""
    return UserError(f"verifier is missing: task {name!r} needs one of {', '.join(verifier_names())}, "
                     "or your own as file.py:function, or given answers in its problems")


def _given(row: dict[Any, Any], where: str) -> tuple[Given, ...]:
    """The answers that the row brings, in the order written."""
    found = [form for form in FORMS if any(key in row for key in form)]
    if len(found) > 1:
        raise UserError(f"{where}: has both {found[0][0]!r} and {found[1][0]!r}; answers are given in one way")
    match found:
        case [("chosen", "rejected")]:
            for key in ("chosen", "rejected"):
                if key not in row:
                    raise UserError(f"{where}: key {key!r} is missing; a preference has chosen and rejected")
            return tuple(Given(_text(row[key], key, where), reward)
                         for key, reward in (("chosen", 1.0), ("rejected", 0.0)))
        case [("completion",)]:
            return (Given(_text(row["completion"], "completion", where), 1.0),)
        case [("completions",)]:
            listed = row["completions"]
            if not isinstance(listed, (list, tuple)) or not listed:
                raise UserError(f"{where}: completions = {listed!r:.60}: must be a list, not empty, of "
                                "{'text': text, 'reward': number}")
            return tuple(_weighed(each, where) for each in listed)
    return ()


def _weighed(each: Any, where: str) -> Given:
    if not isinstance(each, dict) or not {"text", "reward"} <= set(each) <= {"text", "reward", "process"}:
        raise UserError(f"{where}: a completion must be {{'text': text, 'reward': number}}, not {each!r:.60}")
    for key in ("reward", "process"):
        value = each.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise UserError(f"{where}: {key} = {value!r:.60}: must be a number in [0, 1]")
    process = float(each["process"]) if "process" in each else None
    return Given(_text(each["text"], "text", where), float(each["reward"]), process)


def _text(text: Any, key: str, where: str) -> str:
    if not isinstance(text, str) or not text:
        raise UserError(f"{where}: {key} = {text!r:.60}: must be a text, not empty")
    return _encodable(text, where, key)


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


def _encodable(text: str, where: str, what: str = "prompt") -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: the {what} holds a lone surrogate at character {error.start}") from error
    return text
