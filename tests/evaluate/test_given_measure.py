"""What a policy makes of held-out answers, against its log-probabilities one answer at a time."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_folder import write_tiny_folder

from posttrain.evaluate.given import given_measure
from posttrain.evaluate.intervals import interval
from posttrain.evaluate.policy import evaluate_policy
from posttrain.policies.load import LanguageModel, load_language_model
from posttrain.tasks import load_task
from posttrain.tasks.task import Task


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = write_tiny_folder(tmp_path_factory.mktemp("policy"), context=512)
    return load_language_model(folder, max_new_tokens=8, precision="fp32")


def task_of(folder: Path, **keys: Any) -> Task:
    lines = [{"prompt": f"say {letter}"} | {key: make(letter) for key, make in keys.items()} for letter in "abcdefghij"]
    (folder / "my.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return load_task(str(folder / "my.jsonl"))


def log_probs(model: LanguageModel, prompt: str, answer: str) -> list[float]:
    """Of each token of the answer and its end, by transformers."""
    from transformers import AutoModelForCausalLM

    hf = AutoModelForCausalLM.from_pretrained(model.folder).eval()
    start = model.prompter.encode(prompt)
    ids = torch.tensor([[*start, *model.prompter.tokenizer(answer).input_ids, 256]])
    logp = hf(ids).logits[0, len(start) - 1 : -1].log_softmax(-1)
    found: list[float] = logp.gather(1, ids[0, len(start):, None])[:, 0].tolist()
    return found


def test_preference_accuracy(model: LanguageModel, tmp_path: Path) -> None:
    """Three answers of worth 1, ½ and 0: three pairs, each right where the better one is the likelier."""
    task = task_of(tmp_path, completions=lambda c: [
        {"text": c + c, "reward": 0.5}, {"text": chr(ord(c) + 5), "reward": 1}, {"text": chr(ord(c) + 9), "reward": 0}])
    problems = [*task.heldout(9), *(task.train(i, 0) for i in range(9))]
    found = given_measure(model, task, problems, 8)
    assert found.name == "preference_accuracy"
    for problem, score in zip(problems, found.scores, strict=True):
        middle, best, worst = (sum(log_probs(model, str(problem.prompt), g.text)) for g in problem.completions)
        assert score == pytest.approx(((best > middle) + (best > worst) + (middle > worst)) / 3)
    assert len(set(found.scores)) > 1
    assert found.interval == interval(found.scores)


def test_answer_likelihood(model: LanguageModel, tmp_path: Path) -> None:
    task = task_of(tmp_path, completion=lambda c: f"it is {c}"[:7])
    problems = [task.train(i, 0) for i in range(4)]
    found = given_measure(model, task, problems, 8)
    assert found.name == "answer_likelihood"
    for problem, score in zip(problems, found.scores, strict=True):
        logp = log_probs(model, str(problem.prompt), problem.completions[0].text)
        assert score == pytest.approx(math.exp(sum(logp) / len(logp)), rel=1e-4)


def test_eval_names_what_it_measured(model: LanguageModel, tmp_path: Path) -> None:
    task = task_of(tmp_path, chosen=lambda c: c, rejected=lambda c: "no")
    told = evaluate_policy(str(model.folder), task.name)
    assert set(told) == {"task", "problems", "preference_accuracy", "preference_accuracy_95", "verifier_failures"}
    assert told["problems"] == len(task.heldout(200))
    with pytest.raises(ValueError, match=r"samples = 4: task .* has no verifier, so nothing scores them"):
        evaluate_policy(str(model.folder), task.name, samples=4)
