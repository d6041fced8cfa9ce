"""Pure tensor functions: shapes asserted first, the equation in the docstring, no state and no flags."""

from posttrain.ops.advantages import group_mean, group_normalize, group_std, is_constant
from posttrain.ops.divergences import k3
from posttrain.ops.surrogates import clipped_gain

__all__ = ["clipped_gain", "group_mean", "group_normalize", "group_std", "is_constant", "k3"]
