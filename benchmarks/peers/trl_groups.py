"""TRL's group objectives: GRPOTrainer's own scoring and loss, on an object that has only what those two read.

Replaced are generation (the draw's tokens), the reward function (the draw's rewards, which TRL would round to fp32)
and the forward pass (a table of log-probabilities).  Advantages, masks, denominators and losses are TRL's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from . import ours
from .compare import Cause, Comparison, Row
from .draw import Draw, draw
from .ours import Outcome

PEER = "TRL"
PIECES = 3
EOS = 1


def load() -> None:
    """
    Raises:
        ImportError: if TRL, or something it needs, is not there.
    """
    import trl.experimental.gmpo
    import trl.trainer.grpo_trainer
    import trl.trainer.rloo_trainer  # noqa: F401


class TableModel:
    """What TRL calls a model here: the rows' log-probabilities, looked up by the prompt's last token."""

    training, is_gradient_checkpointing = True, False

    def __init__(self, table: Tensor) -> None:
        self.table = table

    def rows(self, input_ids: Tensor, width: int) -> Tensor:
        """[B, width]; −3 at TRL's own padding."""
        padding = self.table.new_full((len(self.table), max(0, width - self.table.shape[1])), -3.0)
        return torch.cat([self.table, padding], 1)[input_ids[:, -width - 1], :width]


@cache
def accelerator() -> Any:
    from accelerate import Accelerator

    return Accelerator(cpu=True)


def bare(cls: type, d: Draw, **options: Any) -> Any:
    """An instance of one of TRL's trainers that never met a model, a dataset or a tokenizer."""
    def generate(prompts: list[Any]) -> tuple[Any, ...]:
        ids = [[2] * (n - 1) + [EOS if d.mask[row].any() else 2] for row, n in enumerate(d.lengths)]
        masks = [d.mask[row, :n].long().tolist() if d.mask[row].any() else [1] * n for row, n in enumerate(d.lengths)]
        prompt_ids, texts = [[row] for row in range(len(d))], [""] * len(d)
        return (prompt_ids, ids, texts) if "RLOO" in cls.__name__ else (
            prompt_ids, ids, masks, texts, None, {}, None, None)

    def log_probs(model: TableModel, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int,
                  *_: Any, **__: Any) -> tuple[Tensor, Tensor, None]:
        logp = model.rows(input_ids, logits_to_keep)
        return logp, torch.zeros_like(logp.detach()), None

    args = {"steps_per_generation": 1, "gradient_accumulation_steps": 1, "per_device_train_batch_size": len(d),
            "gradient_checkpointing_kwargs": None, "use_bias_correction_kl": False, "report_to": [],
            "sapo_temperature_pos": 1.0, "sapo_temperature_neg": 1.05, "delta": None}
    fields = {"environment_factories": None, "environments": None, "tools": [], "_is_vlm": False,
              "pad_to_multiple_of": None, "mask_truncated_completions": True, "eos_token_ids": [EOS],
              "num_iterations": 2, "use_vllm": False, "vllm_importance_sampling_correction": False,
              "num_generations": d.samples, "multi_objective_aggregation": "sum_then_normalize",
              "reward_weights": torch.ones(1, dtype=torch.float64), "reward_func_names": ["draw"],
              "reward_funcs": [None], "reward_clip_range": None, "normalize_advantages": False,
              "log_multimodal": False, "aux_loss_enabled": False, "top_entropy_quantile": 1.0,
              "off_policy_mask_threshold": None, "importance_sampling_level": "token", "loss_type": "dapo",
              "_entropy_bonus_enabled": False, "max_completion_length": d.limit,
              "current_gradient_accumulation_steps": 1, "scale_rewards": "group", "beta": 0.0,
              "epsilon_low": 0.2, "epsilon_high": 0.2}  # TRL's defaults where it has one
    for name, value in options.items():
        (args if name in args else fields)[name] = value
    trainer: Any = object.__new__(cls)
    vars(trainer).update(fields, args=SimpleNamespace(**args), accelerator=accelerator(), _generate=generate,
                         _tokenizer=SimpleNamespace(pad_token_id=0), _get_per_token_logps_and_entropies=log_probs,
                         _calculate_rewards=lambda *_: d.reward[:, None].clone(), ref_model=TableModel(d.ref),
                         model=TableModel(d.old), maybe_activation_offload_context=nullcontext(),
                         _metrics=defaultdict(lambda: defaultdict(list)), _pending_extra_logs={}, _pending_metrics={},
                         _logs=defaultdict(list) | {"rewards": defaultdict(list), "extra": defaultdict(list)})
    return trainer


def run(d: Draw, pieces: int = 1, cls: str = "GRPOTrainer", multiple: int | None = None, **options: Any) -> Outcome:
    """Score the draw, split it as TRL does, add up the losses as its training step does."""
    from trl.trainer.utils import split_tensor_dict

    trainer = bare(trainer_class(cls), d, pad_to_multiple_of=multiple, **options)
    trainer.args.steps_per_generation = trainer.args.gradient_accumulation_steps = pieces
    trainer.current_gradient_accumulation_steps = pieces
    scored = trainer._generate_and_score_completions([{"prompt": str(row)} for row in range(len(d))])
    policy = TableModel(d.logp.clone().requires_grad_())
    divisor = pieces if cls == "RLOOTrainer" else 1  # RLOO leaves it to transformers' Trainer to divide by the pieces
    total = torch.zeros((), dtype=torch.float64)
    for part in split_tensor_dict(scored, pieces):
        loss = trainer._compute_loss(policy, part) / divisor
        loss.backward()
        total += loss.detach()
    assert policy.table.grad is not None
    return Outcome(scored["advantages"][:, None] * d.mask, total, policy.table.grad)


def trainer_class(name: str) -> type:
    """GRPOTrainer, RLOOTrainer or GMPOTrainer."""
    import trl

    if name == "GMPOTrainer":
        from trl.experimental.gmpo import GMPOTrainer

        return GMPOTrainer
    found: type = getattr(trl, name)
    return found


Causes = dict[str, tuple[str, Outcome, Outcome]]  # by quantity, or "all": why, and both outcomes without it


def rows(objective: str, entry: str, d: Draw, mine: dict[str, Any], theirs: dict[str, Any],
         causes: Causes | None = None, split: tuple[str, Tensor] | None = None) -> Iterator[Row]:
    """Advantage, loss and gradient, then the peer's gradient from micro-batches and from a wider batch.

    split: why micro-batches change the gradient, and the gradient of the same micro-batches without that.
    """
    name = objective.partition(",")[0]
    left, right = ours.run(name, d, **mine), run(d, **theirs)
    for quantity in ("advantage", "loss", "gradient"):
        found = (causes or {}).get(quantity) or (causes or {}).get("all")
        cause = Cause(found[0], getattr(found[1], quantity), getattr(found[2], quantity)) if found else None
        yield Row(objective, PEER, entry, quantity, getattr(left, quantity), getattr(right, quantity), cause)
    whole = right.gradient
    yield Row(objective, PEER, entry, "split", whole, run(d, PIECES, **theirs).gradient,
              Cause(split[0], whole, split[1]) if split else None)
    yield Row(objective, PEER, entry, "padding", whole, run(d, multiple=16, **theirs).gradient)


# -------------------- one function for each objective


def grpo(d: Draw) -> Iterator[Row]:
    yield from rows("grpo", 'GRPOTrainer, loss_type="grpo", beta=0.04', d, {"kl_coef": 0.04},
                    {"loss_type": "grpo", "beta": 0.04})


def grpo_by_default(d: Draw) -> Iterator[Row]:
    """GRPOTrainer as it comes does not optimise what the paper named GRPO."""
    mine = {"kl_coef": 0.0}
    why = ('the default `loss_type` is "dapo": one mean over all tokens of the batch, where GRPO takes each '
           'completion\'s mean first.  With `loss_type="grpo"` the numbers are equal')
    without = why, ours.run("grpo", d, **mine), run(d, loss_type="grpo")
    yield from rows("grpo, no KL", "GRPOTrainer, defaults", d, mine, {}, {"loss": without, "gradient": without})


def grpo_of_four(d: Draw) -> Iterator[Row]:
    """4 / 3 is no fp32 number; 5 / 4, in the other comparisons, is."""
    d = draw(d.seed, samples=4)
    left, right = ours.run("grpo", d, kl_coef=0.0).advantage, run(d, loss_type="grpo").advantage
    why = "`nanstd` computes n / (n − 1) in fp32 from two integers.  With torch.std in its place the numbers are equal"
    yield Row("grpo, groups of 4", PEER, 'GRPOTrainer, loss_type="grpo"', "advantage", left, right,
              Cause(why, left, with_exact_std(d)))


def equal_rewards(d: Draw) -> Iterator[Row]:
    """One group of eight rewards of 0.7 beside one that differs, in fp32, as rewards arrive."""
    double = beside_equal(d)
    single, weight = double.single(), torch.ones(1)
    why = ("eight times 0.7 has not exactly the mean 0.7 in fp32, and the error is divided by a standard deviation of "
           "0 plus 1e-4, so every answer of a group that says nothing is pushed a little.  Ours is 0 where all "
           "rewards are the same number.  In fp64, with torch.std for `nanstd`, the numbers are equal")
    yield Row("grpo, equal rewards in fp32", PEER, 'GRPOTrainer, loss_type="grpo"', "advantage",
              ours.run("grpo", single, kl_coef=0.0).advantage,
              run(single, loss_type="grpo", reward_weights=weight).advantage,
              Cause(why, ours.run("grpo", double, kl_coef=0.0).advantage, with_exact_std(double)))


def beside_equal(d: Draw) -> Draw:
    """Two groups of eight, the second with rewards of 0.7 throughout, and nothing masked."""
    reward = torch.cat([d.reward[:8], torch.full((8,), 0.7, dtype=torch.float64)])
    d = d.rows([*range(8), *range(7, 15)]).but(reward=reward, group=torch.arange(2).repeat_interleave(8), samples=8)
    return d.but(mask=d.present)


def with_exact_std(d: Draw) -> Tensor:
    """TRL's advantages, with torch.std in place of `nanstd`."""
    from trl.trainer import grpo_trainer

    kept = grpo_trainer.nanstd
    grpo_trainer.nanstd = lambda x, dim=None: x.std(dim)
    try:
        return run(d, loss_type="grpo").advantage
    finally:
        grpo_trainer.nanstd = kept


def dr_grpo(d: Draw) -> Iterator[Row]:
    yield from rows("dr_grpo", 'GRPOTrainer, loss_type="dr_grpo", scale_rewards="none"', d, {},
                    {"loss_type": "dr_grpo", "scale_rewards": "none"})


def dr_grpo_half_set(d: Draw) -> Iterator[Row]:
    why = ('`loss_type` changes the denominator only; the default `scale_rewards="group"` still divides by the '
           'standard deviation, which Dr. GRPO removes.  With `scale_rewards="none"` the numbers are equal')
    without = why, ours.run("dr_grpo", d), run(d, loss_type="dr_grpo", scale_rewards="none")
    yield from rows("dr_grpo", 'GRPOTrainer, loss_type="dr_grpo"', d, {}, {"loss_type": "dr_grpo"}, {"all": without})


def dapo(d: Draw) -> Iterator[Row]:
    why = ("our method holds DAPO's penalty on overlong answers, which took 1 from the reward of the answer that was "
           "cut off; TRL has it as a reward function of its own.  With the penalty in TRL's rewards the numbers are "
           "equal")
    options = {"loss_type": "dapo", "epsilon_high": 0.28}
    without = why, ours.run("dapo", d), run(d.but(reward=d.reward - cut_off(d)), **options)
    yield from rows("dapo", 'GRPOTrainer, loss_type="dapo", epsilon_high=0.28', d, {}, options, {"all": without})


def cut_off(d: Draw) -> Tensor:
    """[B]: 1 for the answer that was cut off, else 0."""
    return (~d.mask.any(1)).to(d.reward.dtype)


def bnpo(d: Draw) -> Iterator[Row]:
    """One name, two objectives; TRL's is a token mean over each micro-batch."""
    why = ("another objective under the same name: TRL's has the group's standard deviation as divisor and the mean "
           "over a micro-batch's tokens, and nothing of the Beta density that BNPO (2506.02864) is named for.  It is "
           "our `dapo` with ε_high = 0.2 and no overlong penalty, to which it is equal while the batch is whole")
    split = ("each micro-batch is divided by its own number of tokens.  TRL's \"dapo\", which divides by all of them, "
             "keeps its gradient", run(d, PIECES, loss_type="dapo").gradient)
    same = ours.run("dapo", d.but(reward=d.reward + cut_off(d)), clip_high=0.2)
    without = why, same, run(d, loss_type="bnpo")
    yield from rows("bnpo", 'GRPOTrainer, loss_type="bnpo"', d, {}, {"loss_type": "bnpo"}, {"all": without}, split)


def cispo(d: Draw) -> Iterator[Row]:
    yield from rows("cispo", 'GRPOTrainer, loss_type="cispo", epsilon_high=5', d, {"clip_high": 4.0},
                    {"loss_type": "cispo", "epsilon_high": 5.0})


def cispo_same_number(d: Draw) -> Iterator[Row]:
    why = ("TRL's `epsilon_high` is the bound itself, ours and the paper's is its distance from 1: 4 there is 3 here.  "
           "With 5 the numbers are equal")
    without = why, ours.run("cispo", d, clip_high=4.0), run(d, loss_type="cispo", epsilon_high=5.0)
    yield from rows("cispo", 'GRPOTrainer, loss_type="cispo", epsilon_high=4', d, {"clip_high": 4.0},
                    {"loss_type": "cispo", "epsilon_high": 4.0}, {"loss": without, "gradient": without})


def cispo_by_default(d: Draw) -> Iterator[Row]:
    why = ("`epsilon_high` unset is 0.2, and a bound of 0.2 on the weight itself: every token whose ratio is above "
           "0.2, which is nearly every token, gets the weight 0.2.  With 5 the numbers are equal")
    without = why, ours.run("cispo", d), run(d, loss_type="cispo", epsilon_high=5.0)
    yield from rows("cispo", 'GRPOTrainer, loss_type="cispo"', d, {}, {"loss_type": "cispo"},
                    {"loss": without, "gradient": without})


def sapo(d: Draw) -> Iterator[Row]:
    why = "torch.where makes τ_neg = 1.05 an fp32 number.  With that number as ours the results are equal"
    rounded = float(torch.tensor(1.05, dtype=torch.float32))
    without = why, ours.run("sapo", d, temperature_negative=rounded), run(d, loss_type="sapo")
    yield from rows("sapo", 'GRPOTrainer, loss_type="sapo"', d, {}, {"loss_type": "sapo"},
                    {"loss": without, "gradient": without})


GSPO = {"importance_sampling_level": "sequence", "epsilon_low": 3e-4, "epsilon_high": 4e-4}
EMPTY = ("an answer without a token to learn from has no ratio: ours counts it as 1, which adds a constant to the loss "
         "and nothing to the gradient.  Where every answer has tokens the numbers are equal")


def gspo(d: Draw) -> Iterator[Row]:
    options = GSPO | {"loss_type": "grpo"}
    full = d.but(mask=d.mask | (d.present & ~d.mask.any(1)[:, None]))
    yield from rows("gspo", 'GRPOTrainer, loss_type="grpo", importance_sampling_level="sequence"', d, {}, options,
                    {"loss": (EMPTY, ours.run("gspo", full), run(full, **options))})


def gspo_by_default(d: Draw) -> Iterator[Row]:
    why = ('the default `loss_type` "dapo" weighs completions by their length, GSPO counts each once.  With '
           '`loss_type="grpo"` the numbers are equal')
    full = d.but(mask=d.mask | (d.present & ~d.mask.any(1)[:, None]))
    options = GSPO | {"loss_type": "grpo"}
    yield from rows("gspo", 'GRPOTrainer, importance_sampling_level="sequence"', d, {}, GSPO,
                    {"loss": (why, ours.run("gspo", full), run(full, **options)),
                     "gradient": (why, ours.run("gspo", d), run(d, **options))})


def gmpo(d: Draw) -> Iterator[Row]:
    yield from rows("gmpo", "experimental GMPOTrainer", d, {},
                    {"cls": "GMPOTrainer", "epsilon_low": 0.4, "epsilon_high": 0.4})


def rloo(d: Draw) -> Iterator[Row]:
    """TRL's RLOO knows no tools, so these rows have no holes; a loss whose value is always 0 is not compared."""
    entry, options, first = "RLOOTrainer, beta=0.03", {"cls": "RLOOTrainer", "beta": 0.03}, "gradient, first update"
    later = draw(d.seed, holes=False)
    fresh = later.but(logp=later.old)
    left, right = ours.run("rloo", fresh, kl_coef=0.03), run(fresh, **options)
    yield Row("rloo", PEER, entry, "advantage", left.advantage, right.advantage)
    yield Row("rloo", PEER, entry, first, left.gradient, right.gradient)
    why = ("TRL multiplies the advantage by the completion's clipped ratio π / π_old, the paper has log π alone.  At "
           "the first update from a batch, π = π_old, the gradients are equal")
    yield Row("rloo", PEER, entry, "gradient, later update", ours.run("rloo", later, kl_coef=0.03).gradient,
              run(later, **options).gradient, Cause(why, left.gradient, right.gradient))
    whole = run(later, **options).gradient
    yield Row("rloo", PEER, entry, "split", whole, run(later, PIECES, **options).gradient)
    yield Row("rloo", PEER, entry, "padding", whole, run(later, multiple=16, **options).gradient)


COMPARISONS: tuple[Comparison, ...] = (
    grpo, grpo_by_default, grpo_of_four, equal_rewards, dr_grpo, dr_grpo_half_set, dapo, bnpo, cispo, cispo_same_number,
    cispo_by_default, sapo, gspo, gspo_by_default, gmpo, rloo)


def without_counterpart() -> list[str]:
    """What TRL offers for groups and no method of posttrain is compared with."""
    return ['GRPOTrainer, loss_type="luspo"', 'GRPOTrainer, loss_type="vespo"', "GDPO's normalize_then_sum",
            "experimental A2POTrainer"]
