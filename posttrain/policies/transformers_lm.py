"""Any causal language model that transformers can load: correct for all, slower than the fast path."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from posttrain.core import Batch, Critic, Policy, Score
from posttrain.core.errors import UserError
from posttrain.core.method import B
from posttrain.core.policy import Predictions
from posttrain.nets.architecture import FAMILIES
from posttrain.nets.precision import at_least_fp32
from posttrain.policies.causal_lm import Sequences, spread
from posttrain.policies.export import ADAPTER, copy_companions, new_folder
from posttrain.policies.language_policy import Adapters, Decode, WithoutAdapters
from posttrain.rollout.transformers_engine import TransformersEngine, alike, context_length

LOGIT_BYTES = 512 << 20  # of fp32 logits in one micro-batch


class TransformersLM:
    """Scores completions with transformers' own model.  Dropout is off: old and new scores must agree."""

    decision = "token"

    def __init__(self, model: Any, tokenizer: Any, tokens_per_micro_batch: int, folder: Path,
                 adapters: Adapters) -> None:
        self.model = model.eval()  # transformers'; its layers also hold the adapters
        self.adapted = add_lora(model, adapters) if adapters.rank else None  # peft's, around it
        self.module: nn.Module = self.adapted or model
        self.tokenizer, self.folder = tokenizer, folder
        self.context = context_length(model.config)
        vocabulary = model.config.get_text_config().vocab_size
        self.budget = min(tokens_per_micro_batch, max(1, LOGIT_BYTES // (4 * vocabulary)))

    def engine(self, decode: Decode) -> TransformersEngine:
        return TransformersEngine(self.model, decode)

    def freeze(self, batch: B, seed: int) -> B:
        """Nothing here is random."""
        return batch

    def log_prob(self, batch: Batch) -> Tensor:
        return self.score(batch).log_prob

    def score(self, batch: Batch, entropy: bool = False) -> Score:
        """Log-probabilities [B, T] of the masked tokens; without gradient, however large the batch."""
        if torch.is_grad_enabled():
            return self._score(batch, entropy)
        out = torch.zeros(2, *batch.mask.shape, dtype=torch.promote_types(self.model.dtype, torch.float32))
        for rows in self.split(batch, whole_units=False):
            part = self._score(batch.take(rows), entropy)
            out[0, rows] = part.log_prob
            if part.entropy is not None:
                out[1, rows] = part.entropy
        return Score(out[0], out[1] if entropy else None)

    def _score(self, batch: Batch, entropy: bool) -> Score:
        sequences = batch.payload
        assert isinstance(sequences, Sequences)
        logp = self.predict(batch)(slice(None))  # [n, V]
        chosen = logp.gather(1, sequences.tokens[batch.mask][:, None].to(logp.device))[:, 0]
        return Score(spread(chosen, batch.mask),
                     spread(-(logp.exp() * logp).sum(-1), batch.mask) if entropy else None)

    def predict(self, batch: Batch) -> Predictions:
        """Log-probabilities of the whole vocabulary at each masked token."""
        sequences = batch.payload
        assert isinstance(sequences, Sequences)
        ids, first = lay_out(sequences)
        start = int(first.min())  # no logits before the first completion
        ids = ids.to(self.model.device)
        seen = torch.ones_like(ids)  # says no more than its absence does, but that brings warnings
        logits = self.model(ids, attention_mask=seen, use_cache=False, logits_to_keep=ids.shape[1] - start).logits
        row, t = batch.mask.nonzero(as_tuple=True)
        chosen = logits[row, first[row] + t - start]
        return lambda rows: (at_least_fp32(chosen[rows]) / sequences.temperature).log_softmax(-1)

    def split(self, batch: Batch, whole_units: bool) -> list[Tensor]:
        """Rows in order of their unit, cut where rows × longest row passes the budget."""
        sequences = batch.payload
        assert isinstance(sequences, Sequences)
        prompts = torch.tensor([len(p) for p in sequences.prompts])
        sizes = (prompts[sequences.prompt] + sequences.lengths).tolist()
        parts: list[list[int]] = []
        longest = 0
        for unit in sorted(set(batch.unit.tolist())):
            rows = (batch.unit == unit).nonzero()[:, 0].tolist()
            for piece in [rows] if whole_units else [[row] for row in rows]:
                longest = max([longest, *(sizes[row] for row in piece)])
                if not parts or (len(parts[-1]) + len(piece)) * longest > self.budget:
                    parts.append([])
                    longest = max(sizes[row] for row in piece)
                parts[-1] += piece
        return [torch.tensor(part) for part in parts]

    def initial(self) -> Policy:
        if self.adapted:
            return WithoutAdapters(self, self.adapted.disable_adapter)
        model = open_transformers(self.folder, self.model.dtype).requires_grad_(False).to(self.model.device)
        return TransformersLM(model, self.tokenizer, self.budget, self.folder, Adapters())

    def anchor(self) -> Policy:
        if self.adapted:
            raise UserError("lora: this method keeps a moving copy of the policy, which adapters cannot hold; "
                            "train without --lora")
        model = open_transformers(self.folder, torch.float32).requires_grad_(False).to(self.model.device)
        return TransformersLM(model, self.tokenizer, self.budget, self.folder, Adapters())

    def critic(self) -> Critic:
        kind = self.model.config.model_type
        raise UserError(f"policy = '{self.folder}': this method needs a critic, and this {kind} has no fast path to "
                        f"build one on; most models of these types have: {', '.join(FAMILIES)}")

    @torch.no_grad()
    def weights(self) -> dict[str, Tensor]:
        """The present weights under Hugging Face's names, adapters folded in."""
        return {name: weight.detach() for name, weight in merged(self.model).items()}

    def save(self, target: Path) -> Path:
        with new_folder(target) as folder, torch.no_grad(), quiet():
            self.model.save_pretrained(folder, state_dict=merged(self.model), max_shard_size="10TB")
            copy_companions(self.folder, folder, self.model.dtype)
            if self.adapted:
                self.adapted.save_pretrained(str(folder / ADAPTER), save_embedding_layers=False)
        return target


def lay_out(sequences: Sequences) -> tuple[Tensor, Tensor]:
    """Ids [B, W]: each row's prompt and completion less the last token; [B]: where decision 0 is predicted.

    Padding is on the right, where a causal model cannot see it, so it needs no mask and no positions.
    """
    tokens, lengths = sequences.tokens.tolist(), sequences.lengths.tolist()
    prompts = [sequences.prompts[prompt] for prompt in sequences.prompt.tolist()]
    rows = [[*p, *c[: max(n - 1, 0)]] for p, c, n in zip(prompts, tokens, lengths, strict=True)]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    return ids, torch.tensor([len(p) - 1 for p in prompts])


def from_folder(kind: Any, folder: Path, **options: Any) -> Any:
    """kind.from_pretrained(folder), from this disk alone and without running code that the folder brings.

    Raises:
        UserError: if transformers cannot read it.
    """
    try:
        with quiet():
            return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"policy = '{folder}': {kind.__name__} cannot read that folder: {reason}") from error


def open_transformers(folder: Path, dtype: torch.dtype) -> Any:
    """transformers' own model with the weights of `folder`.

    Raises:
        UserError: if it is no causal language model with a cache, or some of its weights are not there.
    """
    from transformers import AutoModelForCausalLM

    model, found = from_folder(AutoModelForCausalLM, folder, dtype=dtype, output_loading_info=True)
    absent = sorted([*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])])
    if absent:
        raise UserError(f"policy = '{folder}': holds no weights for {', '.join(absent[:3])}"
                        f"{f' and {len(absent) - 3} more' if len(absent) > 3 else ''}")
    accepted = set(inspect.signature(model.forward).parameters)
    if "logits_to_keep" not in accepted or accepted.isdisjoint(("past_key_values", "cache_params")):
        raise UserError(f"policy = '{folder}': {model.config.model_type} keeps no cache, so it cannot sample")
    if not is_causal(model.eval()):
        raise UserError(f"policy = '{folder}': {model.config.model_type} is no causal model: what it says of "
                        "a token depends on later ones")
    return model


@torch.no_grad()
def is_causal(model: Any) -> bool:
    """Whether the last token leaves what is said before it alone."""
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5]]) % model.config.get_text_config().vocab_size
    return alike(*model(ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[:, :3])


def add_lora(model: Any, adapters: Adapters) -> Any:
    """Freeze the model and put peft's adapters on every linear layer but the output.

    Raises:
        UserError: if peft is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise UserError(f"lora = {adapters.rank}: adapters on {model.config.model_type} need the peft library; "
                        "pip install 'posttrain[lora]'") from None
    config = LoraConfig(r=adapters.rank, lora_alpha=2 * adapters.rank, target_modules="all-linear",
                        task_type="CAUSAL_LM")
    with torch.random.fork_rng(), warnings.catch_warnings():  # peft draws from torch's one generator
        warnings.simplefilter("ignore")  # GPT-2's transposed layers are recognised, with a warning for each
        torch.manual_seed(adapters.seed)
        return get_peft_model(model, config).eval()


def merged(model: nn.Module) -> dict[str, Tensor]:
    """The state dict that the model had without adapters, its weights with them folded in."""
    state = {name.replace(".base_layer.", "."): tensor for name, tensor in model.state_dict().items()
             if ".lora_" not in name}
    for name, layer in model.named_modules():
        if hasattr(layer, "get_delta_weight"):
            weight = layer.get_base_layer().weight
            state[f"{name}.weight"] = weight + layer.get_delta_weight("default").to(weight.dtype)
    return state


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars, which would cut through our own display."""
    import transformers

    bars: Any = transformers.utils.logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()
