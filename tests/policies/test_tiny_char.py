"""tiny-char at toy size: the folder, its tokenizer, the same bytes twice, and runs on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain.core.errors import PosttrainError, UserError
from posttrain.methods.groups.grpo import GRPO
from posttrain.nets.architecture import read_architecture
from posttrain.policies import packaged, tiny_char
from posttrain.policies.fast_lm import FastLM
from posttrain.policies.load import load_language_model
from posttrain.policies.pretrained import names, put_in_cache, resolve
from posttrain.tasks import load_task
from posttrain.train.config import LanguageConfig
from posttrain.train.display import Display
from posttrain.train.run import train
from tests.tiny_folder import write_tiny_folder

STEPS = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("policy") / "tiny-char"
    tiny_char.make(target, lambda line: None, STEPS)
    return target


class Lines(Display):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.last: list[str] = []

    def note(self, line: str) -> None:
        self.notes.append(line)

    def finish(self, lines: Any) -> None:
        self.last = list(lines)


def config_for(policy: Path, out: Path, **changes: Any) -> LanguageConfig:
    return LanguageConfig(**{"policy": str(policy), "task": "char-addition", "steps": 2, "out": str(out), "prompts": 2,
                     "samples": 4, "max_new_tokens": 5, "eval_problems": 8, "lr": 1e-3, "threads": 1,
                     "precision": "fp32", **changes})


def test_the_same_bytes_on_any_number_of_threads(folder: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(99)
            tiny_char.make(tmp_path / "again", lambda line: None, STEPS)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    for name in ("model.safetensors", "config.json", "tokenizer.json", packaged.RECORD):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_training_lowers_the_loss() -> None:
    arch = read_architecture(tiny_char.config().to_dict())
    batch = tiny_char.answers_of([(str(p.prompt), p.answer) for p in load_task("char-addition").heldout(64)])

    def loss(steps: int) -> float:
        net, done = tiny_char.supervised(arch, steps)
        assert done == steps
        with torch.no_grad():
            return float(-tiny_char.CausalLM(net, None).log_prob(batch)[batch.mask].mean())

    assert loss(8) < loss(0) - 0.3


def test_training_stops_when_it_knows_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_char, "ENOUGH", 0.0)  # known from the start: the first full window is the last
    _, done = tiny_char.supervised(read_architecture(tiny_char.config().to_dict()), 100)
    assert done == tiny_char.WINDOW


def test_answers_are_what_is_learnt() -> None:
    # "10+10=" is answered "02" and the end, "99+99=" "891" and the end.
    batch = tiny_char.answers_of([("10+10=", "02"), ("99+99=", "891")])
    ids = tiny_char.VOCABULARY
    assert batch.mask.tolist() == [[True, True, True, False], [True] * 4]
    assert batch.payload.tokens.tolist() == [[ids["0"], ids["2"], ids["<eos>"], 0],
                                             [ids["8"], ids["9"], ids["1"], ids["<eos>"]]]


def test_every_character_is_a_token(folder: Path) -> None:
    model = load_language_model(folder, max_new_tokens=5, precision="fp32")
    for problem in load_task("char-addition").heldout(50):
        text = f"{problem.prompt}{problem.answer}"
        ids = model.prompter.encode(text)
        assert ids == tiny_char.encode(text)
        assert model.prompter.decode([*ids, *model.stop_tokens]) == text
    assert model.stop_tokens == (tiny_char.VOCABULARY["<eos>"],)
    assert model.prompter.decode(range(len(tiny_char.VOCABULARY))) == "0123456789+="


def test_it_knows_what_it_cannot_read(folder: Path, tmp_path: Path) -> None:
    prompter = load_language_model(folder, max_new_tokens=5, precision="fp32").prompter
    assert prompter.reads("37+85=")
    assert not any(map(prompter.reads, ["37 + 85", "What is 3+5?", "٣", "\n"]))
    assert not prompter.reads([{"role": "user", "content": "hello"}])
    bytes_folder = write_tiny_folder(tmp_path / "bytes")
    assert load_language_model(bytes_folder, max_new_tokens=5).prompter.reads("٣ and all else\n")


def test_the_fast_path_runs_it_and_transformers_agrees(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = load_language_model(folder, max_new_tokens=5, precision="fp32")
    assert isinstance(model.policy, FastLM)
    assert model.notes == ()
    assert 0.6e6 < sum(p.numel() for p in model.policy.module.parameters()) < 1e6
    batch = tiny_char.answers_of([("37+85=", "221")])
    with torch.no_grad():
        ours = model.policy.log_prob(batch)[0]
        theirs = AutoModelForCausalLM.from_pretrained(folder)(
            torch.tensor([tiny_char.encode("37+85=221")])).logits[0, 5:].log_softmax(-1)
    torch.testing.assert_close(ours, theirs.gather(1, batch.payload.tokens[0][:, None])[:, 0], atol=1e-5, rtol=0)


def test_it_is_made_once_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTTRAIN_HOME", str(tmp_path))
    monkeypatch.setattr(tiny_char, "WINDOW", 1)
    monkeypatch.setattr(tiny_char, "ENOUGH", 0.0)  # one step
    assert "tiny-char" in names()
    said: list[str] = []
    made = put_in_cache("tiny-char", said.append)
    assert made == tmp_path / "models" / "tiny-char"
    assert said == ["tiny-char: training it on this machine (10 to 20 seconds)", f"tiny-char: ready in {made}"]
    assert json.loads((made / packaged.RECORD).read_text())["steps"] == 1
    said.clear()
    assert resolve("tiny-char", said.append) == put_in_cache("tiny-char", said.append) == made
    assert said == []
    assert {path.name for path in (tmp_path / "models").iterdir()} <= {"tiny-char", ".tiny-char.lock"}

    (made / "tokenizer.json").write_text("{}")
    with pytest.raises(PosttrainError, match=r"tokenizer\.json: 2 bytes, expected \d+; move that folder away"):
        resolve("tiny-char")
    for refuse in (resolve, put_in_cache):
        with pytest.raises(UserError, match=r"= 'tiny-chra': no such .*; did you mean 'tiny-char'"):
            refuse("tiny-chra")


def test_a_run_is_evaluated_without_the_prompts_it_cannot_read(folder: Path, tmp_path: Path) -> None:
    display = Lines()
    summary = train(GRPO(kl_coef=0.0), config_for(folder, tmp_path / "run"), display).summary
    assert display.notes == ["other skills: 64 of 64 prompts hold characters that this policy has no tokens for; "
                             "they are left out"]
    assert set(summary["before"]) == {"accuracy", "interval"}
    assert set(summary["after"]) == {"accuracy", "interval", "kl_task"}
    assert not any("other skills" in line for line in display.last)
    assert display.last[1].startswith("KL to the initial policy ")


def test_a_task_that_it_cannot_read_writes_nothing(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task = 'addition': policy '.*' has no tokens for its prompts, such as 'What"):
        train(GRPO(kl_coef=0.0), config_for(folder, tmp_path / "run", task="addition"))
    assert not (tmp_path / "run").exists()


def test_runs_are_the_same_twice(folder: Path, tmp_path: Path) -> None:
    first, second = (train(GRPO(kl_coef=0.0), config_for(folder, tmp_path / name)).folder for name in "ab")
    for name in ("metrics.jsonl", "evaluations.jsonl", "final/model.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
