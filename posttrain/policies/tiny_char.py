"""tiny-char: a language model of 0.6M weights that reads characters, made on this machine in seconds.

A Llama of width 128 and 3 layers that half knows the task char-addition: its likeliest answer is right for about two
of five held-out sums, so that a method has something to teach and something to build on.  It is made by supervised
training in fp32, on one thread, from a fixed seed, which stops when a sampled answer to a new sum is right with
probability 0.17.  The same machine makes the same bytes every time; another one rounds otherwise, and its model may
answer a few points more or fewer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from posttrain.core import Batch
from posttrain.nets.architecture import Architecture, read_architecture
from posttrain.nets.hf_weights import to_hf
from posttrain.nets.transformer import Transformer
from posttrain.policies.causal_lm import CausalLM, Sequences
from posttrain.policies.export import new_folder
from posttrain.policies.packaged import Say, in_cache, seal, to_stderr
from posttrain.tasks.char_addition import CharAddition

NAME = "tiny-char"
END, UNKNOWN = "<eos>", "<unk>"
VOCABULARY = {token: i for i, token in enumerate((END, UNKNOWN, *"0123456789+="))}
WIDTH, LAYERS, HEADS, HIDDEN, CONTEXT = 128, 3, 4, 384, 64

SEED = 0
EXAMPLES = 256  # sums a step
LR, MAX_GRAD_NORM = 1e-3, 1.0  # AdamW's
ENOUGH = 0.17  # probability of the whole right answer, mean of the last WINDOW steps
WINDOW = 10
MOST_STEPS = 400  # some 80 are enough


def fetch(say: Say = to_stderr) -> Path:
    """The model's folder, from the cache or made now.

    Raises:
        PosttrainError: if the cache cannot be written, or its folder is damaged.
    """
    return in_cache(NAME, lambda target: make(target, say), say)


def make(target: Path, say: Say = to_stderr, most_steps: int = MOST_STEPS) -> None:
    """Train the model and write it as a Hugging Face folder, which appears whole or not at all."""
    say(f"{NAME}: training it on this machine (10 to 20 seconds)")
    config = _config()
    net, steps = supervised(read_architecture(config.to_dict()), most_steps)
    with new_folder(target) as folder:
        weights = {name: weight.detach() for name, weight in net.named_weights()}
        save_file(to_hf(net.arch, weights), folder / "model.safetensors", metadata={"format": "pt"})
        config.save_pretrained(folder)
        _tokenizer().save_pretrained(folder)
        seal(folder, {"model": NAME, "steps": steps, "seed": SEED, "torch": torch.__version__})
    say(f"{NAME}: ready in {target}")


def supervised(arch: Architecture, most_steps: int) -> tuple[Transformer, int]:
    """A net trained on the mean −log p of the answers' tokens, end included, until it knows ENOUGH; and its steps."""
    task, right = CharAddition(), deque[float](maxlen=WINDOW)
    with one_thread():
        net = Transformer(arch, initial_weights(arch, torch.Generator().manual_seed(SEED)))
        policy = CausalLM(net, tokenizer=None)
        optimizer = torch.optim.AdamW(net.parameters(), LR, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
        for step in range(most_steps):
            problems = [task.train(step * EXAMPLES + i, SEED) for i in range(EXAMPLES)]
            batch = answers_of([(str(problem.prompt), str(problem.answer)) for problem in problems])
            logp = policy.log_prob(batch)  # [B, T]
            right.append(float(logp.detach().sum(1).exp().mean()))  # scored before it is learnt from
            (-logp[batch.mask].mean()).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), MAX_GRAD_NORM)
            optimizer.step()
            optimizer.zero_grad()
            if len(right) == WINDOW and sum(right) >= ENOUGH * WINDOW:
                return net, step + 1
    return net, most_steps


def initial_weights(arch: Architecture, generator: torch.Generator) -> dict[str, Tensor]:
    """Normal, with variance 1 / inputs; norms are 1."""
    assert arch.tied and not arch.qkv_bias and not arch.qk_norm, arch

    def normal(outputs: int, inputs: int) -> Tensor:
        scale: float = inputs**-0.5
        return torch.randn(outputs, inputs, generator=generator) * scale

    weights = {"embed": normal(arch.vocabulary, arch.width)}
    for i in range(arch.layers):
        weights |= {
            f"{i}.norm": torch.ones(arch.width),
            f"{i}.qkv": normal((arch.heads + 2 * arch.kv_heads) * arch.head_width, arch.width),
            f"{i}.o": normal(arch.width, arch.heads * arch.head_width),
            f"{i}.mlp_norm": torch.ones(arch.width),
            f"{i}.gate_up": normal(2 * arch.hidden, arch.width),
            f"{i}.down": normal(arch.width, arch.hidden),
        }
    return weights | {"norm": torch.ones(arch.width)}


def answers_of(examples: list[tuple[str, str]]) -> Batch:
    """Prompts and the answers to learn, each ended by the end token."""
    rows = [[*encode(answer), VOCABULARY[END]] for _, answer in examples]
    lengths = torch.tensor([len(row) for row in rows])
    width = int(lengths.max())
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    number = torch.arange(len(rows))
    mask = torch.arange(width) < lengths[:, None]
    payload = Sequences(tuple(tuple(encode(prompt)) for prompt, _ in examples), number, tokens, lengths, 1.0)
    return Batch(payload=payload, mask=mask, unit=number, version=torch.zeros(mask.shape),
                 logp_behaviour=torch.zeros(mask.shape))


def encode(text: str) -> list[int]:
    return [VOCABULARY[character] for character in text]


def _config() -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=len(VOCABULARY), hidden_size=WIDTH, intermediate_size=HIDDEN, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=CONTEXT,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=VOCABULARY[END], dtype="float32",
        architectures=["LlamaForCausalLM"])


def _tokenizer() -> Any:
    """Every character a token; what is not in the vocabulary becomes UNKNOWN."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel(VOCABULARY, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    kind: Any = PreTrainedTokenizerFast
    return kind(tokenizer_object=backend, eos_token=END, unk_token=UNKNOWN, model_max_length=CONTEXT)


@contextmanager
def one_thread() -> Iterator[None]:
    """The order of additions, and so the last bits, must not depend on how many cores there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
