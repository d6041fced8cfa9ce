"""verl's group objectives: its registered advantage estimators, and its policy losses through its own `ppo_loss`.

Micro-batches are as verl's engines make them: nested rows, each micro-batch as wide as its longest answer, the token
and row counts of the whole mini-batch, one backward pass each and the gradients added.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from posttrain import ops

from . import ours
from .compare import Cause, Comparison, Row
from .draw import Draw
from .ours import Outcome
from .trl_groups import beside_equal

PEER = "verl"
PIECES = 3
FREE = 1e9  # a bound that binds nothing


# -------------------- calling verl


def load() -> None:
    """
    Raises:
        ImportError: if verl, or something it needs, is not there.
    """
    import verl.workers.utils.losses  # noqa: F401


def advantage(name: str, d: Draw, scores: Tensor | None = None, **options: Any) -> Tensor:
    """A registered estimator's advantages, [B, T], 0 where masked; the reward stands on the last token of each row."""
    from verl.trainer.config import AlgoConfig
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    estimate = get_adv_estimator_fn(name)
    rewards = last_token(d) if scores is None else scores
    given: dict[str, Any] = {"token_level_rewards": rewards, "response_mask": d.mask.long()}
    given |= options if name == "gae" else {"index": d.group.numpy().astype(object), "config": AlgoConfig(), **options}
    return torch.where(d.mask, estimate(**given)[0], 0.0)


def last_token(d: Draw) -> Tensor:
    """The rewards as verl holds them: [B, T], at each answer's last token, learnt from or not."""
    rewards = torch.zeros_like(d.logp)
    rewards[torch.arange(len(d)), d.present.sum(1) - 1] = d.reward
    return rewards


def actor(mode: str, d: Draw, **options: Any) -> Any:
    """verl's ActorConfig; the fields of its policy-loss section go by their own names."""
    from dataclasses import fields

    from verl.workers.config import ActorConfig
    from verl.workers.config.actor import PolicyLossConfig

    section = {f.name for f in fields(PolicyLossConfig)}
    policy_loss = PolicyLossConfig(loss_mode=mode, **{k: v for k, v in options.items() if k in section})
    return ActorConfig(strategy="fsdp", rollout_n=d.samples, use_dynamic_bsz=True, policy_loss=policy_loss,
                       **{k: v for k, v in options.items() if k not in section})


def part_of(d: Draw, credit: Tensor, rows: list[int], config: Any) -> Any:
    """Some rows of a mini-batch as verl's engine hands them to a loss."""
    from tensordict import NonTensorData, TensorDict

    def nested(x: Tensor) -> Tensor:
        return torch.nested.as_nested_tensor([x[row, : d.lengths[row]] for row in rows], layout=torch.jagged)

    prompt = torch.nested.as_nested_tensor([torch.zeros(1, dtype=torch.long) for _ in rows], layout=torch.jagged)
    return TensorDict({
        "prompts": prompt, "responses": nested(torch.zeros_like(d.logp, dtype=torch.long)),
        "response_mask": nested(d.mask.long()), "old_log_probs": nested(d.old), "ref_log_prob": nested(d.ref),
        "advantages": nested(credit), "dp_size": NonTensorData(1),
        "batch_num_tokens": NonTensorData(int(d.mask.sum())), "global_batch_size": NonTensorData(len(d)),
    }, batch_size=[len(rows)])


def run(mode: str, d: Draw, credit: Tensor, pieces: int = 1, widen: bool = False, **options: Any) -> Outcome:
    """A policy loss of verl's, with our advantage; `widen` makes one answer longer by tokens that are not learnt."""
    from verl.workers.utils.losses import ppo_loss

    if widen:
        d = d.wider(7)
        credit = torch.cat([credit, torch.zeros_like(d.logp[:, :7])], 1)
        d.present[0] = True
    config = actor(mode, d, **options)
    torch.manual_seed(d.seed)  # clip_cov draws
    table = d.logp.clone().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for rows in torch.arange(len(d)).tensor_split(pieces):
        part = part_of(d, credit, rows.tolist(), config)
        ends = table.new_zeros(1)  # what the model says after the last token, which verl shifts away
        flat = torch.cat([torch.cat([table[row, : d.lengths[row]], ends]) for row in rows])
        loss, _ = ppo_loss(config, {"log_probs": flat}, part)
        loss.backward()
        total += loss.detach()
    assert table.grad is not None
    return Outcome(credit, total, table.grad)


def rows(objective: str, entry: str, d: Draw, mine: dict[str, Any], mode: str, theirs: dict[str, Any],
         causes: dict[str, tuple[str, Outcome, Outcome]] | None = None, split: tuple[str, Tensor] | None = None,
         padding: tuple[str, Tensor] | None = None) -> Iterator[Row]:
    """Loss and gradient under our advantage, then verl's gradient from micro-batches and from a wider batch.

    split, padding: why that changes the gradient, and the gradient of the same without the cause.
    """
    left = ours.run(objective.partition(",")[0], d, **mine)
    credit = left.advantage
    right = run(mode, d, credit, **theirs)
    for quantity in ("loss", "gradient"):
        found = (causes or {}).get(quantity) or (causes or {}).get("all")
        cause = Cause(found[0], getattr(found[1], quantity), getattr(found[2], quantity)) if found else None
        yield Row(objective, PEER, entry, quantity, getattr(left, quantity), getattr(right, quantity), cause)
    whole = right.gradient
    yield Row(objective, PEER, entry, "split", whole, run(mode, d, credit, PIECES, **theirs).gradient,
              Cause(split[0], whole, split[1]) if split else None)
    wide = ours.off_padding(run(mode, d, credit, widen=True, **theirs).gradient, d)
    yield Row(objective, PEER, entry, "padding", whole, wide, Cause(padding[0], whole, padding[1]) if padding else None)


# -------------------- policy losses


SEQ_MEAN = "seq-mean-token-mean"
DUAL = ("verl never lets the loss of a bad token pass 3 |Â| (`clip_ratio_c`, dual-clip PPO), whichever objective is "
        "asked for; ours does so only where the paper does.  Without that bound the numbers are equal")
NO_DUAL = {"clip_ratio_c": FREE}


def grpo(d: Draw) -> Iterator[Row]:
    theirs = {"loss_agg_mode": SEQ_MEAN, "use_kl_loss": True, "kl_loss_coef": 0.04}
    mine = {"kl_coef": 0.04}
    credit = ours.run("grpo", d, **mine).advantage
    without = DUAL, ours.run("grpo", d, **mine), run("vanilla", d, credit, **theirs, **NO_DUAL)
    yield from rows("grpo", f'vanilla, "{SEQ_MEAN}", k3 0.04, clip_ratio_c=∞', d, mine, "vanilla", theirs | NO_DUAL)
    yield from rows("grpo", f'vanilla, "{SEQ_MEAN}", k3 0.04', d, mine, "vanilla", theirs, {"all": without})


def grpo_by_default(d: Draw) -> Iterator[Row]:
    mine = {"kl_coef": 0.0}
    credit = ours.run("grpo", d, **mine).advantage
    why = (f'the default `loss_agg_mode` is "token-mean": one mean over all tokens, where GRPO takes each answer\'s '
           f'mean first; and `clip_ratio_c` is 3.  With "{SEQ_MEAN}" and no such bound the numbers are equal')
    without = why, ours.run("grpo", d, **mine), run("vanilla", d, credit, loss_agg_mode=SEQ_MEAN, **NO_DUAL)
    yield from rows("grpo, no KL", "vanilla, defaults", d, mine, "vanilla", {}, {"all": without})


def dr_grpo(d: Draw) -> Iterator[Row]:
    theirs = {"loss_agg_mode": "seq-mean-token-sum-norm", "loss_scale_factor": d.limit, **NO_DUAL}
    yield from rows("dr_grpo", 'vanilla, "seq-mean-token-sum-norm", loss_scale_factor=256', d, {}, "vanilla", theirs)


def dr_grpo_by_default(d: Draw) -> Iterator[Row]:
    theirs: dict[str, Any] = {"loss_agg_mode": "seq-mean-token-sum-norm", **NO_DUAL}
    fixed = theirs | {"loss_scale_factor": d.limit}
    outcome = ours.run("dr_grpo", d)
    credit = outcome.advantage
    why = ("`loss_scale_factor` unset is the width of the padded micro-batch, Dr. GRPO's constant is the longest "
           "answer allowed.  With that constant set the numbers are equal")
    moved = "the divisor is the longest answer of the micro-batch.  With `loss_scale_factor` set it is not"
    plain, wide = run("vanilla", d, credit, **fixed), run("vanilla", d, credit, widen=True, **fixed).gradient
    scale = d.limit / max(d.lengths)  # of verl's whole gradient to the one with the constant
    yield from rows("dr_grpo", 'vanilla, "seq-mean-token-sum-norm"', d, {}, "vanilla", theirs,
                    {"all": (why, outcome, plain)},
                    (moved, scale * run("vanilla", d, credit, PIECES, **fixed).gradient),
                    (moved, scale * ours.off_padding(wide, d)))


def dapo(d: Draw) -> Iterator[Row]:
    yield from rows("dapo", 'vanilla, "token-mean", clip_ratio_high=0.28, clip_ratio_c=10', d, {}, "vanilla",
                    {"clip_ratio_high": 0.28, "clip_ratio_c": 10.0})


def reinforce_pp(d: Draw) -> Iterator[Row]:
    yield from rows("reinforce_pp", 'vanilla, "token-mean", clip_ratio_c=∞', d, {}, "vanilla", NO_DUAL)


def cispo(d: Draw) -> Iterator[Row]:
    yield from rows("cispo", 'cispo, "token-mean", clip_ratio_low=1, clip_ratio_high=4', d, {}, "cispo",
                    {"clip_ratio_low": 1.0, "clip_ratio_high": 4.0})


def sapo(d: Draw) -> Iterator[Row]:
    yield from rows("sapo", "sapo", d, {}, "sapo", {})


def full(d: Draw) -> Draw:
    """The draw without its answer of which nothing is learnt."""
    return d.but(mask=d.mask | (d.present & ~d.mask.any(1)[:, None]))


EMPTY = ("an answer without a token to learn from has no ratio: ours counts it as 1, which adds a constant to the loss "
         "and nothing to the gradient.  Where every answer has tokens the numbers are equal")


def gspo(d: Draw) -> Iterator[Row]:
    clip = {"clip_ratio_low": 3e-4, "clip_ratio_high": 4e-4}
    theirs = clip | {"loss_agg_mode": SEQ_MEAN}
    left, whole = ours.run("gspo", d), ours.run("gspo", full(d))
    same = left, run("gspo", d, left.advantage, **theirs)
    same_full = whole, run("gspo", full(d), whole.advantage, **theirs)
    yield from rows("gspo", f'gspo, "{SEQ_MEAN}"', d, {}, "gspo", theirs, {"loss": (EMPTY, *same_full)})
    why = (f'the default `loss_agg_mode` "token-mean" weighs answers by their length, GSPO counts each once.  With '
           f'"{SEQ_MEAN}" the numbers are equal')
    yield from rows("gspo", "gspo, default aggregation", d, {}, "gspo", clip,
                    {"loss": (why, *same_full), "gradient": (why, *same)})


def gpg(d: Draw) -> Iterator[Row]:
    yield from rows("gpg", 'gpg, "token-mean"', d, {}, "gpg", {})


def gmpo(d: Draw) -> Iterator[Row]:
    theirs = {"clip_ratio_low": 0.4, "clip_ratio_high": 0.4}
    credit, whole = ours.run("gmpo", d).advantage, ours.run("gmpo", full(d))
    without = EMPTY, whole, run("geo_mean", full(d), whole.advantage, **theirs)
    split = ("`torch.mean` over each micro-batch, and verl's engines add the gradients of micro-batches without "
             f"dividing: {PIECES} micro-batches give {PIECES} times the gradient.  Divided by {PIECES} it is the same",
             run("geo_mean", d, credit, PIECES, **theirs).gradient / PIECES)
    yield from rows("gmpo", "geo_mean, clip 0.4", d, {}, "geo_mean", theirs, {"loss": without}, split)


def clip_cov(d: Draw) -> Iterator[Row]:
    mine = {"share": 0.05, "cov_low": 0.2}
    theirs = {"clip_cov_ratio": 0.05, "clip_cov_lb": 0.2, "clip_ratio_low": 1.0, "clip_ratio_high": 1.0}
    every = {"share": 1.0, "cov_low": 0.2}
    fresh = d.but(logp=d.old)
    sure = ours.run("clip_cov", fresh, **every)
    why = ("verl silences a random choice of the tokens, ours weighs all of them by the chance of being chosen; verl's "
           "covariance is of the policy as it is now, ours of the policy before the first update.  At the first "
           "update, and with every such token silenced, the numbers are equal")
    without = why, sure, run("clip_cov", fresh, sure.advantage, **theirs | {"clip_cov_ratio": 1.0})
    credit = ours.run("clip_cov", d, **mine).advantage
    none = theirs | {"clip_cov_lb": FREE, "clip_cov_ub": FREE}
    still = run("clip_cov", d, credit, **none).gradient - run("clip_cov", d, credit, PIECES, **none).gradient
    whole = run("clip_cov", d, credit, **theirs).gradient
    split = ("means, covariances and the random choice (of at least one token) are each micro-batch's own.  With "
             "bounds that choose no token, micro-batches change nothing", whole - still)
    yield from rows("clip_cov", "clip_cov, r=0.05, bounds 0.2 and 5", d, mine, "clip_cov", theirs, {"all": without},
                    split)


def kl_cov(d: Draw) -> Iterator[Row]:
    tokens = int(d.mask.sum())
    share = (tokens // 4) / tokens + 1e-12  # verl rounds down, ours up
    mine, theirs = {"share": (tokens // 4) / tokens - 1e-12}, {"kl_cov_ratio": share, "ppo_kl_coef": 1.0}
    shifted = d.but(old=d.logp - 0.05)
    left = ours.run("kl_cov", shifted, **mine)
    why = ("verl's covariance is of the policy as it is now, ours of the policy before the first update, so other "
           "tokens are held.  With log π − log π_old one constant, which leaves covariances alone, the numbers are "
           "equal")
    without = why, left, run("kl_cov", shifted, left.advantage, **theirs)
    credit = ours.run("kl_cov", d, **mine).advantage
    each = theirs | {"kl_cov_ratio": 1.0}
    still = run("kl_cov", d, credit, **each).gradient - run("kl_cov", d, credit, PIECES, **each).gradient
    whole = run("kl_cov", d, credit, **theirs).gradient
    split = ("covariances are compared within each micro-batch.  With every token held, micro-batches change nothing",
             whole - still)
    yield from rows("kl_cov", "kl_cov, k=¼, ppo_kl_coef=1", d, mine, "kl_cov", theirs, {"all": without}, split)


def ppo(d: Draw) -> Iterator[Row]:
    """Critic and policy, one pass; verl's value loss beside its policy loss."""
    from verl.trainer.ppo.core_algos import compute_rewards, compute_value_loss

    made = ours.method("ppo", epochs=1, discount=0.99, kl_coef=0.02)
    networks = {"policy": ours.Table(d.logp), "reference": ours.Table(d.ref), "critic": ours.ValueTable(d.value)}
    prepared, terms, gradients = ours.learn(made, networks, ours.groups(d))
    policy, critic = gradients.view(2, *d.logp.shape)
    credit = torch.where(d.mask, prepared.credit, 0.0)
    last = d.mask & (d.mask.cumsum(1) == d.mask.sum(1, keepdim=True))
    reward = compute_rewards(torch.where(last, d.reward[:, None], 0.0), d.old, d.ref, 0.02)
    right = advantage("gae", d, reward, values=d.value, gamma=0.99, lam=0.95)
    raw = torch.where(d.mask, prepared.extra["value_target"] - d.value, 0.0)
    yield Row("ppo", PEER, "gae, KL 0.02 in the reward", "advantage", credit, right, whitened(d, raw, right))
    outcome = run("vanilla", d, credit, **NO_DUAL)
    entry = 'vanilla, "token-mean", clip_ratio_c=∞'
    yield Row("ppo", PEER, entry, "loss", terms["policy"], outcome.loss)
    yield Row("ppo", PEER, entry, "gradient", policy, outcome.gradient)
    value = d.value.clone().requires_grad_()
    loss, _ = compute_value_loss(value, d.value + raw, d.value, d.mask, 0.2, batch_num_tokens=int(d.mask.sum()))
    loss.backward()
    assert value.grad is not None
    yield Row("ppo", PEER, "compute_value_loss", "loss", terms["value"], loss.detach())
    yield Row("ppo", PEER, "compute_value_loss", "gradient", critic, value.grad)


# -------------------- advantages


def advantages(d: Draw) -> Iterator[Row]:
    """Estimators that leave no choice."""
    for objective, entry, options in (("rloo", "rloo", {"kl_coef": 0.0}), ("rloo", "rloo_vectorized", {"kl_coef": 0.0}),
                                      ("opo", "opo", {})):
        yield Row(objective, PEER, entry, "advantage", ours.run(objective, d, **options).advantage, advantage(entry, d))
    yield Row("dr_grpo", PEER, "grpo, norm_adv_by_std_in_grpo=False", "advantage", ours.run("dr_grpo", d).advantage,
              advantage("grpo", d, norm_adv_by_std_in_grpo=False))


def grpo_advantage(d: Draw) -> Iterator[Row]:
    left = ours.run("grpo", d, kl_coef=0.0).advantage
    why = "verl adds 1e-6 to the standard deviation, ours 1e-4 as TRL does.  With 1e-4 the numbers are equal"
    yield Row("grpo", PEER, "grpo", "advantage", left, advantage("grpo", d),
              Cause(why, left, advantage("grpo", d, epsilon=1e-4)))
    why = ("`group_mean_std` rounds everything to fp32, and verl adds 1e-6 to the standard deviation, ours 1e-4.  With "
           "1e-4 and the same two statistics in fp64 the numbers are equal")
    yield Row("grpo", PEER, "grpo_vectorized", "advantage", left, advantage("grpo_vectorized", d),
              Cause(why, left, vectorized_in_fp64(d)))


def vectorized_in_fp64(d: Draw) -> Tensor:
    """verl's vectorised estimator, with statistics that are not rounded."""
    from verl.trainer.ppo import core_algos

    def statistics(scores: Tensor, group: Tensor, **_: Any) -> tuple[Tensor, Tensor, None]:
        parts = [scores[group == g] for g in group.unique()]
        return torch.stack([p.mean() for p in parts]), torch.stack([p.std() for p in parts]), None

    kept = core_algos.group_mean_std
    core_algos.group_mean_std = statistics
    try:
        return advantage("grpo_vectorized", d, epsilon=1e-4)
    finally:
        core_algos.group_mean_std = kept


def equal_rewards(d: Draw) -> Iterator[Row]:
    """One group of eight rewards of 0.7 beside one that differs, in fp32, as rewards arrive."""
    double = beside_equal(d)
    single = double.single()
    why = ("eight times 0.7 has not exactly the mean 0.7 in fp32, and the error is divided by a standard deviation of "
           "0 plus 1e-6: every answer of a group that says nothing is pushed by several percent of the largest "
           "advantage.  Ours is 0 where all rewards are the same number.  In fp64, with 1e-4, the numbers are equal")
    exact = ours.run("grpo", double, kl_coef=0.0).advantage
    yield Row("grpo, equal rewards in fp32", PEER, "grpo", "advantage",
              ours.run("grpo", single, kl_coef=0.0).advantage, advantage("grpo", single),
              Cause(why, exact, advantage("grpo", double, epsilon=1e-4)))


def group_of_one(d: Draw) -> Iterator[Row]:
    """The first answer's group has lost the others; the second group is whole."""
    alone, others = d.rows([0, *range(5, 15)]), d.rows(range(5, 15))
    why = ("a group of one has no other answer to be held against: ours gives it no advantage, verl its raw reward, so "
           "that whatever was sampled alone is reinforced.  Without such groups the numbers are equal")
    for objective, entry, mine, theirs in (
            ("rloo", "rloo", {"kl_coef": 0.0}, {}), ("rloo", "rloo_vectorized", {"kl_coef": 0.0}, {}),
            ("grpo", "grpo", {"kl_coef": 0.0}, {"epsilon": 1e-4}), ("opo", "opo", {}, {})):
        left, right = ours.run(objective, alone, **mine).advantage, advantage(entry, alone, **theirs)
        yield Row(f"{objective}, a group of one", PEER, entry, "advantage", left, right,
                  Cause(why, ours.run(objective, others, **mine).advantage, advantage(entry, others, **theirs)))


def gpg_advantage(d: Draw) -> Iterator[Row]:
    silent = d.but(reward=torch.where(d.group == d.group.max(), 0.0, d.reward))
    why = ("α = B / (B − M): ours takes M to be the answers in groups of equal rewards, as the paper does, verl the "
           "answers of reward 0.  Where those are the same answers the numbers are equal")
    yield Row("gpg", PEER, "gpg", "advantage", ours.run("gpg", d).advantage, advantage("gpg", d),
              Cause(why, ours.run("gpg", silent).advantage, advantage("gpg", silent)))


def reinforce_pp_advantage(d: Draw) -> Iterator[Row]:
    from verl.trainer.ppo.core_algos import compute_rewards

    left = ours.run("reinforce_pp", d, kl_coef=0.01).advantage
    right = advantage("reinforce_plus_plus", d, compute_rewards(last_token(d), d.old, d.ref, 0.01))
    penalty = torch.where(d.mask, 0.01 * ops.k1(d.old - d.ref), 0.0)
    returns = d.reward[:, None] - ops.to_go(penalty, d.mask)
    yield Row("reinforce_pp", PEER, "reinforce_plus_plus, KL 0.01 in the reward", "advantage", left, right,
              whitened(d, returns, right))


def whitened(d: Draw, x: Tensor, right: Tensor) -> Cause:
    """x [B, T], normalised over the batch with verl's roundings."""
    why = ("ours divides by the standard deviation plus 1e-8, verl has 1e-8 under the root, and n / (n − 1) of two "
           "integers is fp32.  With both in ours the numbers are equal")
    tokens = d.mask.sum()
    centred = torch.where(d.mask, x - x[d.mask].mean(), 0.0)
    variance = (centred**2).sum() / tokens * (tokens / (tokens - 1))
    return Cause(why, centred * torch.rsqrt(variance + 1e-8), right)


# -------------------- pieces


def divergences(d: Draw) -> Iterator[Row]:
    """Estimates of KL and their gradients, at the tokens that count."""
    from verl.trainer.ppo.core_algos import kl_penalty

    def theirs(kind: str, d: Draw) -> tuple[Tensor, Tensor]:
        logp = d.logp[d.mask].clone().requires_grad_()
        value = kl_penalty(logp, d.ref[d.mask], kind)
        return value.detach(), torch.autograd.grad(value.sum(), logp)[0]

    def mine(kind: str, d: Draw) -> tuple[Tensor, Tensor]:
        logp = d.logp[d.mask].clone().requires_grad_()
        value = getattr(ops, kind)(logp - d.ref[d.mask])
        return value.detach(), torch.autograd.grad(value.sum(), logp)[0]

    for kind in ("k1", "k2", "k3"):
        for quantity, left, right in zip(("value", "gradient"), mine(kind, d), theirs(kind, d), strict=True):
            yield Row(f"ops.{kind}", PEER, f'kl_penalty "{kind}"', quantity, left, right)
    far = d.but(logp=d.logp - 4 * (torch.arange(d.mask.shape[1]) == 0))
    why = ("verl bounds k3 by 10, so a token far below the reference, where the penalty should pull hardest, has no "
           "gradient at all.  At tokens below that bound the numbers are equal")
    for at, quantity in enumerate(("value", "gradient")):
        below = mine("k3", far)[0] < 10
        assert not below.all(), "the draw must reach the bound"
        yield Row("ops.k3, far from the reference", PEER, 'kl_penalty "k3"', quantity, mine("k3", far)[at],
                  theirs("k3", far)[at], Cause(why, mine("k3", far)[at][below], theirs("k3", far)[at][below]))


def reductions(d: Draw) -> Iterator[Row]:
    """verl's `agg_loss` against `Batch.mean`, of the tensor log π."""
    from verl.trainer.ppo.core_algos import agg_loss

    batch, mask = ours.groups(d).counted(), d.mask
    totals = {"batch_num_tokens": int(d.mask.sum()), "global_batch_size": len(d)}
    means = {"token-mean": batch.mean(d.logp).value, SEQ_MEAN: batch.mean(batch.mean_per_row(d.logp)).value,
             "seq-mean-token-sum": batch.mean(torch.where(d.mask, d.logp, 0.0).sum(1)).value}
    for mode, mean in means.items():
        yield Row("Batch.mean", PEER, f'agg_loss "{mode}"', "value", mean, agg_loss(d.logp, mask, mode, **totals))
    why = ("called without `global_batch_size`, verl leaves out answers without tokens and divides by what is left; "
           "ours divides by the rows of the whole batch.  With it given the numbers are equal")
    mode = "seq-mean-token-sum"
    yield Row("Batch.mean", PEER, f'agg_loss "{mode}", no global counts', "value", means[mode],
              agg_loss(d.logp, mask, mode), Cause(why, means[mode], agg_loss(d.logp, mask, mode, **totals)))


COMPARISONS: tuple[Comparison, ...] = (
    grpo, grpo_by_default, grpo_advantage, equal_rewards, group_of_one, dr_grpo, dr_grpo_by_default, dapo, cispo,
    sapo, gspo, gmpo, gpg, gpg_advantage, clip_cov, kl_cov, reinforce_pp, reinforce_pp_advantage, ppo, advantages,
    divergences, reductions)


def without_counterpart() -> list[str]:
    """What verl registers and no method of posttrain is compared with."""
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY

    losses = {"vanilla", "gspo", "sapo", "gpg", "clip_cov", "kl_cov", "geo_mean", "cispo"}
    estimators = {"gae", "grpo", "grpo_vectorized", "rloo", "rloo_vectorized", "opo", "gpg", "reinforce_plus_plus"}
    return [f"policy loss {name}" for name in sorted(set(POLICY_LOSS_REGISTRY) - losses)] + [
        f"advantage {name}" for name in sorted(set(ADV_ESTIMATOR_REGISTRY) - estimators)]
