"""Policy-guided diffusion: TD3+BC on stretches that are made up as the data's policy, drawn to the learnt one, acts.

    x_i ~ stretches of logged steps (s, a, r, d) under noise σ_i,   σ_0 > … > σ_{N−1},  σ_N = 0
    a_i ← a_i + λ_i ∇_a log N( a_i; π(s_i), 1 ),   then a pass of the denoiser      x_i → x_{i+1}
    λ_i = c [ 1 − i / N + κ sin(π (i + 1) / N) ],  0 in the last pass
    L_Q, L_π: TD3+BC's, on rows of x_N beside a few logged ones

The denoiser knows p, how the data's policy goes on from state to state, and not how π would.  Guidance tilts what it
makes up towards p · N(a; π, 1)^λ: more of what π does, but only with consequences that the data speak for, a whole
stretch at a time and so without errors that add up from step to step.  c = 0 is learning from more of the same
(SynthER), c → ∞ leaves the data behind.

Deviations: the released code trains IQL so too; this is its TD3+BC.  It models artanh a with a U-Net over the steps,
averaged over its training; here it is a itself, cut off at ± 1, and a perceptron over the whole stretch, as it is at
the end.  A made-up stretch has T transitions and what is seen last, there T − 1.  After a step with fresh noise that
code goes on from where x was without it; this does as the paper of the sampler says.  It has no default for c: ours.
Its 256 passes, 8192 stretches and 10⁴ epochs of the denoiser are the options `synthetic_*`, which here are less.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain.core import Models, NonNegative, Paper, by_kind
from posttrain.methods.offline.td3_bc import TD3BC


@dataclass(frozen=True, kw_only=True)
class PolicyGuidedDiffusion(TD3BC):
    paper = Paper("2404.06356", "Jackson et al., 2024", parent="td3-bc")
    defaults = by_kind(control={  # released code: 240 of 256 rows are made up
        **TD3BC.defaults["control"], "dataset_share": 0.0625, "synthetic": 32})

    guidance: NonNegative = 1.0  # c; ours
    bend: NonNegative = 0.3  # κ; released code
    unit_length: bool = False  # whether each stretch's gradient is scaled to length 1; an option of the released code

    def guide(self, models: Models, obs: Tensor, action: Tensor, taken: int, passes: int) -> Tensor:
        """λ_i ∇_a log N(a; π(s), 1) = λ_i (π(s) − a)."""
        if taken == passes - 1:
            return torch.zeros_like(action)
        towards: Tensor = models.policy.mode(obs.flatten(0, 1)).view(action.shape) - action
        if self.unit_length:
            towards = towards / (torch.linalg.vector_norm(towards, dim=(1, 2), keepdim=True) + 1e-8)
        return self.strength(taken, passes) * towards

    def strength(self, taken: int, passes: int) -> float:
        """λ_i."""
        return self.guidance * (1 - taken / passes + self.bend * math.sin(math.pi * (taken + 1) / passes))
