"""A random masked-diffusion model in float64, and batches that it could have sampled."""

from __future__ import annotations

from dataclasses import replace

import torch
from toy import Learner, sequences, toy_groups, toy_model

from posttrain.core import Groups, Method
from posttrain.core.method import Likelihood
from posttrain.policies.denoiser import OwnDenoiser
from posttrain.policies.masked_diffusion_lm import Estimate, MaskedDiffusionLM

MASK_TOKEN = 96  # the last of the toy vocabulary


def masked_policy(kind: Likelihood, seed: int = 0, dtype: torch.dtype = torch.float64, budget: int = 4096,
                  draws: int = 3) -> MaskedDiffusionLM:
    net = toy_model(seed=seed, dtype=dtype)
    return MaskedDiffusionLM(OwnDenoiser(net, MASK_TOKEN), None, budget, Estimate(kind, 0.3, draws))


def canvases(seed: int = 0, dtype: torch.dtype = torch.float64) -> Groups:
    """`toy_groups` without a tool's tokens and without masks among the tokens, two tokens decided in each pass."""
    batch = toy_groups(seed, dtype)
    payload = sequences(batch)
    present = torch.arange(batch.mask.shape[1]) < payload.lengths[:, None]
    tokens = torch.randint(MASK_TOKEN, present.shape, generator=torch.Generator().manual_seed(seed))
    order = torch.rand(present.shape, generator=torch.Generator().manual_seed(seed + 1)).argsort(1) // 2
    return batch.replace(mask=present, payload=replace(payload, tokens=tokens)).with_extra(
        when=order, given=torch.zeros(len(batch), dtype=torch.bool))


def masked_learner(method: Method[Groups], dtype: torch.dtype = torch.float64, budget: int = 4096) -> Learner:
    """The policy scores by the method's likelihood; the reference is another random model."""
    reference = masked_policy(method.likelihood, 1, dtype, budget)
    reference.module.requires_grad_(False)
    return Learner(method, masked_policy(method.likelihood, 0, dtype, budget), reference)
