"""Small networks over vectors: one perceptron, an ensemble of them in one product, a running normaliser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posttrain.nets.least import SLOPES, Least
from posttrain.nets.perceptron import ACTIVATIONS, Pairs, every_layer, linear, through
from posttrain.nets.renorm import BatchRenorm, Renorm
from posttrain.ops.draws import scattered


class MLP(nn.Module):
    """x [..., sizes[0]] -> [..., sizes[-1]]."""

    def __init__(self, sizes: Sequence[int], activation: str, generator: torch.Generator, last_gain: float,
                 renorm: Renorm | None = None) -> None:
        """Orthogonal weights of gain √2, the last layer's of `last_gain`; biases 0 (Saxe et al. 2014, 1312.6120).

        renorm: of what each layer is given, inputs and the activations of hidden layers.
        """
        super().__init__()
        self.activation, self.renorm = activation, renorm  # a module's own modules are looked up by name
        gains = [math.sqrt(2)] * (len(sizes) - 2) + [last_gain]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs, gain in zip(sizes, sizes[1:], gains, strict=False):
            weight = nn.init.orthogonal_(torch.empty(outputs, inputs), gain, generator=generator)
            self.weights.append(weight.T.contiguous())
            self.biases.append(torch.zeros(outputs))
        self.pairs = list(zip(self.weights, self.biases, strict=True))  # a ParameterList looks each up by name
        self.norms = nn.ModuleList(BatchRenorm((n,), renorm) for n in sizes[:-1] if renorm)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.hidden(x)) if self.renorm else self._through(x, self.pairs)

    def fixed(self, x: Tensor) -> Tensor:
        """The same with gradient to x alone; of one without normalised layers."""
        assert not self.renorm
        return self._through(x, [(w.detach(), b.detach()) for w, b in self.pairs])

    def _through(self, x: Tensor, pairs: Pairs) -> Tensor:
        said = through(x.reshape(-1, x.shape[-1]), pairs, self.activation)
        return said.view(*x.shape[:-1], said.shape[-1])

    def hidden(self, x: Tensor) -> Tensor:
        """The last hidden layer, x itself where there is none: [..., sizes[-2]]."""
        for i, (w, b) in enumerate(self.pairs[:-1]):
            x = ACTIVATIONS[self.activation](linear(self.norms[i](x) if self.renorm else x, w, b))
        return x

    def last(self, hidden: Tensor) -> Tensor:
        """[..., sizes[-2]] -> [..., sizes[-1]]."""
        return linear(self.norms[-1](hidden) if self.renorm else hidden, *self.pairs[-1])


class Perceptron(nn.Module):
    """An MLP of whatever it is told, end to end: a network of a method's own."""

    def __init__(self, sizes: Sequence[int], activation: str, generator: torch.Generator) -> None:
        super().__init__()
        self.body = MLP(sizes, activation, generator, 0.01)

    @property
    def module(self) -> nn.Module:
        return self

    def forward(self, *told: Tensor) -> Tensor:
        out: Tensor = self.body(torch.cat(told, -1))
        return out


Dropout = tuple[float, Tensor]
"""The share of units that are left out, and a whole number of each row, [B] long, which decides of them."""


class Ensemble(nn.Module):
    """K perceptrons in one product: x [B, sizes[0]], or one [K, B, sizes[0]] of each -> [K, B, sizes[-1]]."""

    def __init__(self, members: int, sizes: Sequence[int], activation: str, generator: torch.Generator,
                 layer_norm: bool = False, renorm: Renorm | None = None) -> None:
        """Weights and biases uniform in ± inputs^-½, as torch's linear layers.

        layer_norm: after each hidden layer, before its activation, without weights of its own (Ball et al. 2023).
        renorm: of what each layer is given, inputs and the activations of hidden layers, each member's by itself.
        """
        super().__init__()
        self.activation, self.layer_norm, self.renorm = activation, layer_norm, renorm
        bounds = [(a, b, a**-0.5) for a, b in pairwise(sizes)]
        self.weights = nn.ParameterList(torch.empty(members, a, b).uniform_(-w, w, generator=generator)
                                        for a, b, w in bounds)
        self.biases = nn.ParameterList(torch.empty(members, 1, b).uniform_(-w, w, generator=generator)
                                       for _, b, w in bounds)
        self.pairs = list(zip(self.weights, self.biases, strict=True))
        self.norms = nn.ModuleList(BatchRenorm((members, n), renorm) for n in sizes[:-1] if renorm)

    def forward(self, x: Tensor, dropout: Dropout | None = None) -> Tensor:
        return self._through(x, self.pairs, dropout)

    def fixed(self, x: Tensor, dropout: Dropout | None = None, members: int | None = None) -> Tensor:
        """The same with gradient to x alone; members: of the first so many, for ensembles without normalised layers."""
        assert members is None or not self.renorm
        pairs = self.pairs if members is None else [(w[:members], b[:members]) for w, b in self.pairs]
        return self._through(x, [(w.detach(), b.detach()) for w, b in pairs], dropout, True)

    def least(self, held: Tensor, moved: Tensor) -> Tensor:
        """The least of the members' one output for each row [held, moved], with gradient to `moved` alone: [B].

        held: [B, h], moved: [B, m], h + m = sizes[0].
        """
        x = torch.cat([held, moved], -1)
        if self.activation not in SLOPES or self.layer_norm or self.renorm:  # what a layer says does not tell its slope
            return self.fixed(x)[:, :, 0].amin(0)
        *hidden, said = every_layer(x, self.pairs, self.activation)
        least: Tensor = Least.apply(moved, said, hidden, list(self.weights), self.activation)  # type: ignore[no-untyped-call]
        return least

    def _through(self, x: Tensor, pairs: Pairs, dropout: Dropout | None, fixed: bool = False) -> Tensor:
        if dropout is None and not self.layer_norm and not self.renorm:
            return through(x, pairs, self.activation)
        y = x if x.dim() == 3 else x.expand(len(pairs[0][0]), *x.shape)
        for i, (w, b) in enumerate(pairs[:-1]):
            y = linear(self.norms[i](y, fixed) if self.renorm else y, w, b)
            if dropout is not None:
                rate, seed = dropout
                y = y * (scattered(seed, i, len(y), y.shape[-1]) >= rate) / (1 - rate)
            y = ACTIVATIONS[self.activation](F.layer_norm(y, y.shape[-1:]) if self.layer_norm else y)
        return linear(self.norms[-1](y, fixed) if self.renorm else y, *pairs[-1])


class Normalizer(nn.Module):
    """x -> (x − mean) / std of all that `observe` was shown, clipped at ± 10; the identity before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.square: Tensor  # sum of squared deviations
        self.count: Tensor
        self.register_buffer("mean", torch.zeros(width, dtype=torch.float64))
        self.register_buffer("square", torch.zeros(width, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.known: tuple[object, Tensor, Tensor] | None = None  # (of what, mean, deviation), as last used

    @property
    def std(self) -> Tensor:
        """1 where nothing has been seen."""
        return (self.square / self.count).sqrt() if self.count > 0 else torch.ones_like(self.mean)

    def forward(self, x: Tensor) -> Tensor:
        of = (self.count._version, x.dtype)
        if self.known is None or self.known[0] != of:
            self.known = of, self.mean.to(x), self.std.to(x) + 1e-8
        return (x - self.known[1]).div_(self.known[2]).clamp_(-10, 10)

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Take in x [n, width]; two sets in either order give the same (Chan, Golub & LeVeque 1983)."""
        x = x.double()
        n, mean = len(x), x.mean(0)
        total, apart = self.count + n, mean - self.mean
        self.square += ((x - mean) ** 2).sum(0) + apart**2 * self.count * n / total
        self.mean += apart * n / total
        self.count += n
