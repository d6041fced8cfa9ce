"""tiny-masked: a masked-diffusion language model of 0.6M weights that reads characters, made here in seconds.

tiny-char's network with every token in sight of every other, and one token more, the mask.  It half knows the task
char-addition: sampled with its defaults it answers about a fifth of new sums, so that a method has something to teach
and something to build on.  It is made by supervised training in fp32, on one thread, from a fixed seed: of each answer,
filled up to the canvas with end tokens, a random share is masked and predicted.  The training stops when a fifth of
512 sampled answers are right.  The same machine makes the same bytes every time; another one rounds otherwise.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from posttrain.nets.architecture import Architecture, read_architecture
from posttrain.nets.hf_weights import to_hf
from posttrain.nets.transformer import Transformer
from posttrain.policies import tiny_char
from posttrain.policies.denoiser import OwnDenoiser
from posttrain.policies.export import new_folder
from posttrain.policies.packaged import Say, in_cache, seal, to_stderr
from posttrain.rollout.engine import Sampling
from posttrain.rollout.unmasking import Unmasking, UnmaskingEngine, lay_out
from posttrain.tasks.char_addition import LONGEST, CharAddition

NAME = "tiny-masked"
MASK = "<mask>"
VOCABULARY = tiny_char.VOCABULARY | {MASK: len(tiny_char.VOCABULARY)}
END = VOCABULARY[tiny_char.END]

SEED = 0
EXAMPLES = 256  # sums a step
LR, MAX_GRAD_NORM = 1e-3, 1.0  # AdamW's
ENOUGH = 0.2  # share of sampled answers that are right
ASKED, EVERY = 512, 10  # sums sampled, every so many steps
MOST_STEPS = 600


def fetch(say: Say = to_stderr) -> Path:
    """The model's folder, from the cache or made now.

    Raises:
        PosttrainError: if the cache cannot be written, or its folder is damaged.
    """
    return in_cache(NAME, lambda target: make(target, say), say)


def make(target: Path, say: Say = to_stderr, most_steps: int = MOST_STEPS) -> None:
    """Train the model and write it as a Hugging Face folder, which appears whole or not at all."""
    say(f"{NAME}: training it on this machine (20 to 60 seconds)")
    config = _config()
    net, steps = supervised(read_architecture(config.to_dict()), most_steps)
    with new_folder(target) as folder:
        weights = {name: weight.detach() for name, weight in net.named_weights()}
        save_file(to_hf(net.arch, weights), folder / "model.safetensors", metadata={"format": "pt"})
        written = config.to_dict() | {"mask_token_id": VOCABULARY[MASK]}
        (folder / "config.json").write_text(json.dumps(written, indent=2), encoding="utf-8")
        tiny_char.tokenizer(VOCABULARY, mask_token=MASK).save_pretrained(folder)
        seal(folder, {"model": NAME, "steps": steps, "seed": SEED, "torch": torch.__version__})
    say(f"{NAME}: ready in {target}")


def supervised(arch: Architecture, most_steps: int) -> tuple[Transformer, int]:
    """A net trained on the mean −log p of masked tokens of the answers, until it knows ENOUGH; and its steps."""
    task = CharAddition()
    with tiny_char.one_thread():
        generator = torch.Generator().manual_seed(SEED)
        net = Transformer(arch, tiny_char.initial_weights(arch, generator))
        denoiser = OwnDenoiser(net, VOCABULARY[MASK])
        optimizer = torch.optim.AdamW(net.parameters(), LR, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
        for step in range(most_steps):
            problems = [task.train(step * EXAMPLES + i, SEED) for i in range(EXAMPLES)]
            examples = [(str(problem.prompt), str(problem.answer)) for problem in problems]
            loss(denoiser, examples, generator).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), MAX_GRAD_NORM)
            optimizer.step()
            optimizer.zero_grad()
            if (step + 1) % EVERY == 0 and right(denoiser, step) >= ENOUGH:
                return net, step + 1
    return net, most_steps


def loss(denoiser: OwnDenoiser, examples: list[tuple[str, str]], generator: torch.Generator) -> Tensor:
    """−log p of each masked token, one mean over all: a row's tokens are masked with probability t ~ U(0, 1]."""
    answers = torch.tensor([canvas_of(answer) for _, answer in examples])
    time = 1 - torch.rand(len(examples), 1, generator=generator)
    masked = torch.rand(answers.shape, generator=generator) < time
    prompts = [tiny_char.encode(prompt) for prompt, _ in examples]
    ids, present, places = lay_out(prompts, torch.where(masked, denoiser.mask_token, answers))
    row, place = masked.nonzero(as_tuple=True)
    logits = denoiser.logits(ids, present, row, places[row, place])
    return torch.nn.functional.cross_entropy(logits, answers[row, place])


def canvas_of(answer: str) -> list[int]:
    """The answer's tokens, filled up with the end token."""
    ids = tiny_char.encode(answer)
    return ids + [END] * (LONGEST - len(ids))


def right(denoiser: OwnDenoiser, step: int) -> float:
    """The share of new sums that a sampled canvas answers."""
    task = CharAddition()
    problems = [task.train(i, SEED + 1 + step) for i in range(ASKED)]
    engine = UnmaskingEngine(denoiser, Unmasking(), lambda ids: "")
    prompts = [tiny_char.encode(str(problem.prompt)) for problem in problems]
    out = engine.generate(prompts, 1, Sampling(max_new_tokens=LONGEST, stop_tokens=(END,)),
                          torch.Generator().manual_seed(SEED))
    answers = [[*tiny_char.encode(str(problem.answer)), END] for problem in problems]
    given = [row[:n] for row, n in zip(out.tokens.tolist(), out.lengths.tolist(), strict=True)]
    return sum(map(list.__eq__, given, answers)) / ASKED


def _config() -> Any:
    config = tiny_char.config(len(VOCABULARY))
    config.architectures = None  # no class of transformers runs it: that would hide later tokens
    return config
