"""TRL's objectives for pairs and for given answers: the trainers' own losses, on objects that never met a model.

Replaced is the forward pass: what TRL's fused head returns, a log-probability per labelled token and 0 elsewhere, comes
from the draw's table.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from . import ours
from .compare import Cause, Comparison, Row
from .draw import Draw
from .ours import Outcome
from .trl_groups import accelerator

PEER = "TRL"
PIECES = 3
CHOSEN, REJECTED = (0, 2, 4, 6, 8, 10), (1, 3, 5, 7, 9, 11)


def load() -> None:
    """
    Raises:
        ImportError: if TRL, or something it needs, is not there.
    """
    import trl.experimental.cpo
    import trl.experimental.gkd
    import trl.experimental.orpo
    import trl.trainer.dpo_trainer
    import trl.trainer.kto_trainer  # noqa: F401


def paired(d: Draw) -> Draw:
    """Six pairs, an even row preferred to the odd one after it."""
    rows = len(CHOSEN + REJECTED)
    group = torch.arange(rows // 2).repeat_interleave(2)
    return d.rows(range(rows)).but(group=group, reward=(torch.arange(rows) % 2 == 0).double(), samples=2, given=True)


class FusedModel(nn.Module):
    """The outputs that TRL reads, for rows found by their only prompt token."""

    is_gradient_checkpointing = False

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = table

    def forward(self, input_ids: Tensor, labels: Tensor, **_: Any) -> SimpleNamespace:
        logp = torch.where(labels[:, 1:] != -100, self.table[input_ids[:, 0]], 0.0)
        blank = torch.zeros_like(logp.detach())
        return SimpleNamespace(log_probs=logp, entropy=blank, mean_logits=blank, is_top1=blank.bool())


class LogitModel(nn.Module):
    """Logits of two choices, of which the second is what was chosen."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = table

    def forward(self, input_ids: Tensor, **_: Any) -> SimpleNamespace:
        chosen = self.table[input_ids[:, 0]]
        logits = torch.stack([(-chosen.expm1()).log(), chosen], -1)
        return SimpleNamespace(logits=torch.cat([logits, torch.zeros_like(logits[:, :1])], 1))


def accumulate(table: Tensor, pieces: int, loss_of: Callable[[Tensor], Tensor]) -> Outcome:
    """The losses of equal parts of the six pairs, which transformers' Trainer averages, and the gradient."""
    total = torch.zeros((), dtype=torch.float64)
    for part in torch.arange(len(CHOSEN)).tensor_split(pieces):
        loss = loss_of(part) / pieces
        loss.backward()
        total += loss.detach()
    assert table.grad is not None
    return Outcome(table.detach() * 0.0, total, table.grad)


def bare(cls: type, d: Draw, **fields: Any) -> Any:
    """An instance of one of TRL's trainers that never met a model, a dataset or a tokenizer."""
    trainer: Any = object.__new__(cls)
    shared = {"aux_loss_enabled": False, "_total_train_tokens": 0, "_tp_size": 1, "precompute_ref_logps": False,
              "label_smoothing": 0.0, "beta": 0.1}
    vars(trainer).update(shared | fields, accelerator=accelerator(), model=FusedModel(d.logp),
                         ref_model=FusedModel(d.ref), args=SimpleNamespace(gradient_checkpointing_kwargs=None),
                         _metrics=defaultdict(lambda: defaultdict(list)))
    return trainer


def tokens(d: Draw, rows: Tensor, prefix: str = "") -> dict[str, Tensor]:
    """Rows as TRL collates them: one prompt token, which is the row's number, then the answer."""
    prompt = torch.zeros(len(rows), 1, dtype=torch.long)
    return {f"{prefix}input_ids": torch.cat([rows[:, None], d.present[rows].long()], 1),
            f"{prefix}attention_mask": torch.cat([prompt + 1, d.present[rows].long()], 1),
            f"{prefix}completion_mask": torch.cat([prompt, d.mask[rows].long()], 1)}


def dpo(d: Draw, pieces: int = 1, **options: Any) -> Outcome:
    from trl import DPOTrainer

    trainer = bare(DPOTrainer, d, **{"loss_types": ["sigmoid"], "loss_weights": [1.0], "ld_alpha": None,
                                     "f_divergence_type": "reverse_kl", "use_weighting": False, **options})
    table = d.logp.clone().requires_grad_()
    chosen, rejected = torch.tensor(CHOSEN), torch.tensor(REJECTED)
    return accumulate(table, pieces, lambda part: trainer._compute_loss(
        FusedModel(table), tokens(d, torch.cat([chosen[part], rejected[part]])), False))


def kto(d: Draw, pieces: int = 1, **options: Any) -> Outcome:
    """The answer that TRL pairs with another prompt to estimate KL is the next row's, however the batch is split."""
    from trl import KTOTrainer

    trainer = bare(KTOTrainer, d, **{"loss_type": "kto", "calculate_KL": True, "desirable_weight": 1.0,
                                     "undesirable_weight": 1.0, **options})
    table = d.logp.clone().requires_grad_()
    chosen, rejected = torch.tensor(CHOSEN), torch.tensor(REJECTED)

    def loss_of(part: Tensor) -> Tensor:
        rows = torch.cat([chosen[part], rejected[part]])
        inputs = tokens(d, rows) | tokens(d, (rows + 1) % len(d), "KL_") | {"label": rows % 2 == 0}
        loss: Tensor = trainer._compute_loss(FusedModel(table), inputs, False)
        return loss

    return accumulate(table, pieces, loss_of)


def concatenated(cls: type, d: Draw, pieces: int, **options: Any) -> Outcome:
    """CPOTrainer's and ORPOTrainer's `get_batch_loss_metrics`, on logits."""
    trainer = bare(cls, d, **{"is_encoder_decoder": False, "pad_token_id": 0, "padding_value": 0, **options})
    table = d.logp.clone().requires_grad_()

    def side(rows: Tensor, name: str) -> dict[str, Tensor]:
        part = tokens(d, rows, f"{name}_")
        mask = part.pop(f"{name}_completion_mask")
        return part | {f"{name}_labels": part[f"{name}_input_ids"].masked_fill(mask == 0, -100)}

    def loss_of(part: Tensor) -> Tensor:
        batch = side(torch.tensor(CHOSEN)[part], "chosen") | side(torch.tensor(REJECTED)[part], "rejected")
        loss: Tensor = trainer.get_batch_loss_metrics(LogitModel(table), batch)[0]
        return loss

    return accumulate(table, pieces, loss_of)


def simpo(d: Draw, pieces: int = 1, **options: Any) -> Outcome:
    from trl.experimental.cpo import CPOTrainer

    return concatenated(CPOTrainer, d, pieces, **{"loss_type": "simpo", "alpha": 0.0, "beta": 2.5,
                                                  "simpo_gamma": 2.5 * 0.55, "cpo_alpha": 1.0, **options})


def orpo(d: Draw, pieces: int = 1, **options: Any) -> Outcome:
    from trl.experimental.orpo import ORPOTrainer

    return concatenated(ORPOTrainer, d, pieces, **options)


def rows(objective: str, entry: str, d: Draw, run: Callable[..., Outcome], mine: dict[str, Any], theirs: dict[str, Any],
         cause: tuple[str, Outcome, Outcome] | None = None, split: tuple[str, Tensor] | None = None) -> Iterator[Row]:
    """Loss and gradient of pairs, then TRL's gradient from micro-batches and from a wider batch."""
    name = objective.partition(",")[0]
    left, right = ours.run(name, d, **mine), run(d, **theirs)
    for quantity in ("loss", "gradient"):
        why = Cause(cause[0], getattr(cause[1], quantity), getattr(cause[2], quantity)) if cause else None
        yield Row(objective, PEER, entry, quantity, getattr(left, quantity), getattr(right, quantity), why)
    whole = right.gradient
    yield Row(objective, PEER, entry, "split", whole, run(d, PIECES, **theirs).gradient,
              Cause(split[0], whole, split[1]) if split else None)
    yield Row(objective, PEER, entry, "padding", whole, ours.off_padding(run(d.wider(7), **theirs).gradient, d))


def learnt(d: Draw) -> Draw:
    """The draw without its answer of which nothing is learnt."""
    return d.but(mask=d.mask | (d.present & ~d.mask.any(1)[:, None]))


def short(d: Draw, length: int) -> Draw:
    """Every answer cut to that many tokens, all of them learnt."""
    head = d.present & (torch.arange(d.mask.shape[1]) < length)
    return d.but(mask=head, present=head)


# -------------------- one function for each objective


def sigmoid(d: Draw) -> Iterator[Row]:
    yield from rows("dpo", 'DPOTrainer, loss_type="sigmoid"', paired(d), dpo, {"beta": 0.1}, {"beta": 0.1})


def sft(d: Draw) -> Iterator[Row]:
    """DPOTrainer's "sft" term is the mean over the chosen answers' tokens."""
    d = paired(d)
    theirs = {"loss_types": ["sft"]}
    equal = short(d, 2)
    still = dpo(equal, **theirs).gradient - dpo(equal, PIECES, **theirs).gradient
    split = ("each micro-batch is divided by its own number of tokens, and the micro-batches are averaged.  Where all "
             "answers have two tokens nothing changes", dpo(d, **theirs).gradient - still)
    yield from rows("sft", 'DPOTrainer, loss_type="sft"', d, dpo, {}, theirs, None, split)


def gkd(d: Draw) -> Iterator[Row]:
    """GKDTrainer.generalized_jsd_loss on logits over seven choices; sampled tokens only."""
    from trl.experimental.gkd import GKDTrainer

    generator = torch.Generator().manual_seed(d.seed)
    student, teacher = (torch.randn(*d.mask.shape, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    labels = torch.where(d.mask, 0, -100)
    for mixture in (0.5, 0.1, 0.0, 1.0):
        networks = {"policy": ours.ChoiceTable(student), "teacher": ours.ChoiceTable(teacher)}
        made = ours.method("gkd", mixture=mixture, on_policy=1.0)
        _, terms, gradient = ours.learn(made, networks, ours.groups(d))
        table = student.clone().requires_grad_()
        theirs = GKDTrainer.generalized_jsd_loss(table, teacher, labels, beta=mixture)
        theirs.backward()
        assert table.grad is not None
        entry = f"GKDTrainer.generalized_jsd_loss, beta={mixture}"
        yield Row("gkd", PEER, entry, "loss", terms["sampled"], theirs.detach())
        yield Row("gkd", PEER, entry, "gradient", gradient, table.grad.flatten())


def cdpo(d: Draw) -> Iterator[Row]:
    d = paired(d)
    plain = ours.run("cdpo", d, flipped=0.0)
    why = ('`label_smoothing` is not read by "sigmoid", which stays plain DPO without a word.  With ε = 0 in ours the '
           "numbers are equal")
    theirs = {"label_smoothing": 0.1}
    yield from rows("cdpo", 'DPOTrainer, loss_type="sigmoid", label_smoothing=0.1', d, dpo, {"flipped": 0.1}, theirs,
                    (why, plain, dpo(d, **theirs)))
    why = ('"robust" is another objective, which divides the difference of the two terms by 1 − 2ε to be unbiased '
           "under flipped labels; TRL has no cDPO.  With ε = 0 in both the numbers are equal")
    yield from rows("cdpo", 'DPOTrainer, loss_type="robust", label_smoothing=0.1', d, dpo, {"flipped": 0.1},
                    theirs | {"loss_types": ["robust"]}, (why, plain, dpo(d, loss_types=["robust"])))


def ipo(d: Draw) -> Iterator[Row]:
    d, theirs = paired(d), {"loss_types": ["ipo"], "beta": 0.1}
    one = short(d, 1)
    why = ("TRL divides each answer's log-ratio by its number of tokens, which its source says IPO's authors "
           "confirmed; ours sums it, as the paper's eq. 17 reads.  With answers of one token the numbers are equal")
    yield from rows("ipo", 'DPOTrainer, loss_type="ipo"', d, dpo, {"tau": 0.1}, theirs,
                    (why, ours.run("ipo", one, tau=0.1), dpo(one, **theirs)))


def kto_(d: Draw) -> Iterator[Row]:
    """Given answers only, for which ours takes z = 0."""
    d, without = paired(d), {"calculate_KL": False}
    yield from rows("kto", "KTOTrainer, calculate_KL off", d, kto, {}, without)
    why = ("TRL estimates the reference point z from answers paired with other prompts, ours takes 0 on given "
           "answers.  With that estimate switched off the numbers are equal")
    split = ("z is each micro-batch's own estimate.  With it switched off nothing changes",
             kto(d).gradient - kto(d, **without).gradient + kto(d, PIECES, **without).gradient)
    yield from rows("kto", "KTOTrainer", d, kto, {}, {}, (why, ours.run("kto", d), kto(d, **without)), split)


def simpo_(d: Draw) -> Iterator[Row]:
    d = paired(d)
    full, pure = learnt(d), {"cpo_alpha": 0.0}
    yield from rows("simpo", 'CPOTrainer, loss_type="simpo", cpo_alpha=0', full, simpo, {}, pure)
    same = ours.run("simpo", full), simpo(full, **pure)
    why = ("an answer without a token to learn from is divided by its length of 0, and loss and gradient are NaN.  "
           "Where every answer has tokens the numbers are equal")
    name, entry = "simpo, an answer without tokens", 'CPOTrainer, loss_type="simpo", cpo_alpha=0'
    empty = ours.run("simpo", d), simpo(d, **pure)
    for quantity in ("loss", "gradient"):
        left, right = (getattr(outcome, quantity) for outcome in empty)
        yield Row(name, PEER, entry, quantity, left, right, Cause(why, *(getattr(o, quantity) for o in same)))
    why = ("`cpo_alpha` is 1 unless set, which adds the likelihood of the chosen answers: that is CPO-SimPO.  With 0 "
           "the numbers are equal")
    split = ("the likelihood is a mean over each micro-batch's tokens.  Without it nothing changes",
             simpo(full).gradient - simpo(full, **pure).gradient + simpo(full, PIECES, **pure).gradient)
    yield from rows("simpo", 'CPOTrainer, loss_type="simpo"', full, simpo, {}, {}, (why, *same), split)


def orpo_(d: Draw) -> Iterator[Row]:
    d = learnt(paired(d))
    equal = short(d, 2)
    why = ("TRL's likelihood term is one mean over all tokens of the chosen answers, a tool's and the prompt's among "
           "them, where ours is each answer's own mean; and its odds are rounded to fp32.  With answers of two "
           "tokens, and `Tensor.float` kept from rounding, the numbers are equal")
    without = why, ours.run("orpo", equal), unrounded(lambda: orpo(equal))
    split = ("the likelihood is a mean over each micro-batch's tokens.  With answers of two tokens nothing changes",
             orpo(d).gradient - orpo(equal).gradient + orpo(equal, PIECES).gradient)
    yield from rows("orpo", "ORPOTrainer", d, orpo, {}, {}, without, split)


def unrounded(run: Callable[[], Outcome]) -> Outcome:
    """With `Tensor.float` leaving fp64 as it is."""
    kept = torch.Tensor.float
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign, assignment]
    try:
        return run()
    finally:
        torch.Tensor.float = kept  # type: ignore[method-assign]


COMPARISONS: tuple[Comparison, ...] = (sigmoid, cdpo, ipo, kto_, simpo_, orpo_, sft, gkd)


def without_counterpart() -> list[str]:
    """What TRL offers for pairs and no method of posttrain is compared with."""
    return [f'DPOTrainer, loss_type="{name}"' for name in (
        "hinge", "exo_pair", "nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down",
        "discopop", "sigmoid_norm")] + ['KTOTrainer, loss_type="apo_zero_unpaired"', "experimental TPOTrainer"]
