"""kernels.c, compiled for this processor when it is first wanted.  Where it cannot be, torch's own operations serve."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from posttrain.home import home
from posttrain.nets.architecture import Architecture
from posttrain.nets.precision import cpu_flags, has_tiles

SOURCE, *INCLUDED = (Path(__file__).with_name(name)
                     for name in ("kernels.c", "elementary.h", "words.h", "tiles.c", "attention.c",
                                  "attention_alone.c", "layers.c"))
FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math",
         "-fassociative-math", "-fno-signed-zeros", "-ffp-contract=fast")
COMPILE_SECONDS = 60  # most that it may take; two are usual
GELU = "gelu_pytorch_tanh"
FEW = 2  # rows of `product`, at most: beyond, oneDNN's products of weights that were laid out for them are as fast

ARGUMENTS = {"n": ctypes.c_int64, "f": ctypes.c_float, "p": ctypes.c_void_p}  # a count, a number, where a tensor lies

LEVELS = 16  # of a tree, at most
TOGETHER = 96  # queries of one key head that look together, about
SPARE = 16  # rows, and columns of a head, of which that many are filled up in sums
GRAIN = 32  # rows and columns of scratch come in so many, which no processor's vectors or tiles exceed

Made = TypeVar("Made")
Stored = Sequence[Tensor]  # keys and values [places, K, N, D]
Store = tuple[Tensor, Tensor]  # of one level of a tree, [N, K, D]


class Multiply(Protocol):
    """Products with weights that were laid out, as C calls them."""

    @property
    def address(self) -> int:
        """Where `multiply` lies."""

    def room(self, rows: int, inputs: int) -> Tensor | None:
        """What it needs beside its factors."""


class Uncompiled(Exception):
    """There are no kernels here, and why."""


class Kernels:
    """The functions of kernels.c, which says what each does.  Tensors are contiguous, on the processor, and x, qkv and
    weights of products of the type that was compiled for."""

    def __init__(self, library: ctypes.CDLL) -> None:
        function = partial(function_of, library)
        self._norm, self._add = function("norm", "nnppfp"), function("add", "nnpppff")
        self._gate, self._product = function("gate", "nnpp"), function("product", "nnnpppp")
        self._norm_back, self._gate_back = function("norm_back", "nnnppfppp"), function("gate_back", "nnppp")
        self._turn = function("turn", "nnnpppfp")
        self._gather = function("gather", "nnpp")
        self._masses, self._masses_back = function("masses", "nnpfpppp"), function("masses_back", "nnpfpppppp")
        self._draw = function("draw", "nnpfpppp")
        self._attend = function("attend", "nnnpppnfppfppnppnpppnppnnpp")
        self._layers = function("layers", "npppnnnnnnfffpnnnpppnpnpppp")
        self._look, self._look_back = function("tree_look", "nnnnpppfnpp"), function("tree_look_back", "nnnnpppfnppppp")

    def norm(self, x: Tensor, w: Tensor | None, epsilon: float, dtype: torch.dtype) -> Tensor:
        """x [n, d] fp32 over its root mean square, times w [d] fp32 -> [n, d] of `dtype`; x where there is no w."""
        out = torch.empty(x.shape, dtype=dtype)
        self._norm(*x.shape, x.data_ptr(), at(w), epsilon, out.data_ptr())
        return out

    def norm_back(self, x: Tensor, w: Tensor, epsilon: float, g: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients to x [n, d] and w [d] of `norm`, of which g [n, d] is the one at its result."""
        dx, dw = torch.empty_like(x), torch.zeros(torch.get_num_threads(), len(w))
        self._norm_back(len(dw), *x.shape, x.data_ptr(), w.data_ptr(), epsilon, g.data_ptr(), dx.data_ptr(),
                        dw.data_ptr())
        return dx, dw.sum(0)

    def add(self, x: Tensor, y: Tensor, w: Tensor | None, epsilon: float, scale: float) -> Tensor:
        """x [n, d] fp32, to which `scale` times y [n, d], or its norm where there is w [d] fp32, was added in place."""
        self._add(*x.shape, x.data_ptr(), y.data_ptr(), at(w), epsilon, scale)
        return x

    def gate(self, x: Tensor) -> Tensor:
        """activation(a) b of x = [a, b] [n, 2 f] -> [n, f]."""
        out = torch.empty(len(x), x.shape[1] // 2, dtype=x.dtype)
        self._gate(*out.shape, x.data_ptr(), out.data_ptr())
        return out

    def gate_back(self, x: Tensor, g: Tensor) -> Tensor:
        """Gradient to x [n, 2 f] of `gate`, of which g [n, f] is the one at its result."""
        dx = torch.empty_like(x)
        self._gate_back(*g.shape, x.data_ptr(), g.data_ptr(), dx.data_ptr())
        return dx

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor, way: float = 1.0) -> Tensor:
        """x [n, heads, D], whose rows need not lie side by side, turned by cos and sin [n, …, D / 2], or back by −1."""
        out = torch.empty(x.shape, dtype=x.dtype)
        self._turn(len(x), x.shape[1], x.stride(0), x.data_ptr(), cos.data_ptr(), sin.data_ptr(), way, out.data_ptr())
        return out

    def gather(self, parts: Sequence[Tensor], part: Tensor, row: Tensor) -> Tensor:
        """Some rows of several tensors [., width]: [n, width], of which the i-th is row[i] of parts[part[i]]."""
        out = torch.empty(len(row), parts[0].shape[1], dtype=parts[0].dtype)
        size = out.shape[1] * out.element_size()
        lies = torch.tensor([x.data_ptr() for x in parts])[part] + row * size
        self._gather(len(row), size, lies.data_ptr(), out.data_ptr())
        return out

    def masses(self, z: Tensor, inverse: float, most: Tensor, total: Tensor, mass: Tensor | None,
               along: Tensor | None) -> None:
        """Fill in what `Softmax` says of z [n, V]."""
        self._masses(*z.shape, z.data_ptr(), inverse, at(mass), most.data_ptr(), total.data_ptr(), at(along))

    def draw(self, z: Tensor, inverse: float, uniform: Tensor, most: Tensor, total: Tensor) -> Tensor:
        """The token at quantile uniform [n] of what `Softmax` says of z [n, V], [n] long; fills in the rest of that."""
        token = torch.empty(len(z), dtype=torch.long)
        self._draw(*z.shape, z.data_ptr(), inverse, uniform.contiguous().data_ptr(), most.data_ptr(), total.data_ptr(),
                   token.data_ptr())
        return token

    def masses_back(self, z: Tensor, inverse: float, most: Tensor, total: Tensor, target: Tensor, g: Tensor,
                    entropy: Tensor | None, h: Tensor | None) -> None:
        """Put in the place of z [n, V] the gradient to it of g log p[target] + h entropy, all [n]."""
        self._masses_back(*z.shape, z.data_ptr(), inverse, most.data_ptr(), total.data_ptr(), target.data_ptr(),
                          g.data_ptr(), at(entropy), at(h))

    def product(self, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        """x wᵀ + bias of x [n, in], n ≤ FEW, and w [out, in] -> [n, out]."""
        assert len(x) <= FEW
        out = torch.empty(len(x), len(w), dtype=x.dtype)
        self._product(*x.shape, len(w), x.data_ptr(), w.data_ptr(), at(bias), out.data_ptr())
        return out

    def attend(self, qkv: Tensor, norms: tuple[Tensor | None, Tensor | None], epsilon: float,
               turn: tuple[Tensor, Tensor] | None, scale: float, root: Stored, prompts: Stored, place: Tensor,
               own: Stored, start: Tensor, drawn: Tensor, reach: int) -> Tensor:
        """Rows' newest tokens over what all share, their prompts and their own tokens, to which their keys and values
        are added: qkv [b, (H + 2 K) D] as a product leaves it -> [b, H D].

        norms: of queries and of keys, fp32, as long as a head or as all of them; turn: cos and sin [b, D / 2];
        place, start, drawn [b] long: where each row's prompt is, its tokens, the row's own with the new one.
        """
        (b, width), (_, kv, limit, size) = qkv.shape, own[0].shape
        queries = width - 2 * kv * size
        shared, rest = root[0].shape[2], prompts[0].shape[2]
        scratch = room(1, queries // (kv * size), shared + rest + limit, 3, 2)
        out = torch.empty(b, queries, dtype=qkv.dtype)
        across = norms[0] is not None and len(norms[0]) != size
        cos, sin = turn or (None, None)
        self._attend(len(scratch), b, kv, qkv.data_ptr(), at(norms[0]), at(norms[1]), across, epsilon, at(cos), at(sin),
                     scale, *(x.data_ptr() for x in root), shared, *(x.data_ptr() for x in prompts), rest,
                     place.data_ptr(), *(x.data_ptr() for x in own), limit, start.data_ptr(), drawn.data_ptr(), reach,
                     scratch.shape[-1], scratch.data_ptr(), out.data_ptr())
        return out

    def layers(self, arch: Architecture, weights: Tensor, kept: Tensor, by: Multiply, x: Tensor, across: bool,
               turns: Sequence[tuple[Tensor, Tensor]], sizes: tuple[int, int, int], place: Tensor, start: Tensor,
               drawn: Tensor, said: Sequence[Tensor], traced: int) -> Tensor:
        """x [b, d] fp32, rows' newest tokens, which went through all layers in place; their products are left in said.

        weights [layers, 16], kept [layers, 6]: where `Layer` and `Kept` of layers.c lie; turns: of each rope; sizes:
        tokens that all share, of the longest rest of a prompt, and that a row may have; the others as in `attend`.
        """
        shared, rest, limit = sizes
        scratch = room(1, arch.heads // arch.kv_heads, shared + rest + limit, 3, 2)
        widest = max(arch.width, arch.heads * arch.head_width, arch.hidden)
        entering, tiles = torch.empty(len(x), widest, dtype=said[0].dtype), by.room(len(x), widest)
        angles, places = addresses(*(y for pair in turns for y in pair)), addresses(*said)
        self._layers(arch.layers, weights.data_ptr(), kept.data_ptr(), by.address, len(scratch), len(x), arch.kv_heads,
                     arch.width, arch.hidden, across, arch.norm_epsilon, arch.query_scale * arch.head_width**-0.5,
                     arch.residual_scale, angles.data_ptr(), shared, rest, limit, place.data_ptr(), start.data_ptr(),
                     drawn.data_ptr(), scratch.shape[-1], scratch.data_ptr(), traced, places.data_ptr(),
                     entering.data_ptr(), at(tiles), x.data_ptr())
        return x

    def look(self, q: Tensor, stores: Sequence[Store], ranges: Tensor) -> Tensor:
        """Tokens q [n, H, D] over those that they descend from -> [n, H, D]; of each level of a tree its keys and
        values [N, K, D], in any order in memory but a head's, and ranges [n, levels, 3] as `Tree.ranges` says.
        """
        kv, where = stores[0][0].shape[1], table(stores)
        scratch = room(tokens_together(q.shape[1] // kv), q.shape[1] // kv, most_keys(ranges), len(stores), 2)
        out = torch.empty(q.shape, dtype=q.dtype)
        self._look(len(scratch), len(q), kv, len(stores), q.data_ptr(), where.data_ptr(), ranges.data_ptr(),
                   q.shape[2]**-0.5, scratch.shape[-1], scratch.data_ptr(), out.data_ptr())
        return out

    def look_back(self, q: Tensor, stores: Sequence[Store], ranges: Tensor, g: Tensor
                  ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients to q and to all levels' keys and values [n, K, D] of `look`; g [n, H, D] is that at its result."""
        kv, where, threads = stores[0][0].shape[1], table(stores), torch.get_num_threads()
        scratch = room(tokens_together(q.shape[1] // kv), q.shape[1] // kv, most_keys(ranges), len(stores), 3)
        dq = torch.empty(q.shape, dtype=q.dtype)
        sums = torch.zeros(2, threads, len(q) + SPARE, kv, q.shape[2] + -q.shape[2] % SPARE)
        self._look_back(threads, len(q), kv, len(stores), q.data_ptr(), where.data_ptr(), ranges.data_ptr(),
                        q.shape[2]**-0.5, scratch.shape[-1], scratch.data_ptr(), g.data_ptr(), dq.data_ptr(),
                        sums[0].data_ptr(), sums[1].data_ptr())
        dk, dv = sums.sum(1)[:, : len(q), :, : q.shape[2]].to(q.dtype)
        return dq, dk, dv


def most_keys(ranges: Tensor) -> int:
    """How many tokens one looks at, at most."""
    return int((ranges[:, :, 2] - ranges[:, :, 1]).sum(1).max())


def tokens_together(group: int) -> int:
    """How many tokens look together where so many query heads share a key head, at most."""
    return max(1, TOGETHER // group)


def room(tokens: int, group: int, keys: int, levels: int, arrays: int) -> Tensor:
    """Scratch [threads, arrays, rows, columns] of tokens that look at no more keys than this in so many levels: as many
    as look together see a few more, and each level's begin and end with whole vectors."""
    rows, columns = tokens * group, keys + tokens + 2 * GRAIN * levels
    return torch.empty(torch.get_num_threads(), arrays, rows + -rows % GRAIN, columns + -columns % GRAIN)


def table(stores: Sequence[Store]) -> Tensor:
    """What kernels.c knows of each level, [levels, 7] long."""
    assert len(stores) <= LEVELS, len(stores)
    rows, before = [], 0
    for k, v in stores:
        rows.append([k.data_ptr(), v.data_ptr(), k.stride(1), k.stride(0), v.stride(1), v.stride(0), before])
        before += len(k)
    return torch.tensor(rows)


def function_of(library: ctypes.CDLL, name: str, arguments: str) -> Callable[..., None]:
    """One that is compiled, which is given what these letters mean."""
    found = getattr(library, name)
    found.argtypes, found.restype = [ARGUMENTS[letter] for letter in arguments], None
    made: Callable[..., None] = found
    return made


def simple(*tensors: Tensor) -> bool:
    """Whether these are fp32, on the processor, and no transform of torch.func is to see what is done to them."""
    return (all(x.dtype == torch.float32 and x.device.type == "cpu" for x in tensors)
            and not torch._C._are_functorch_transforms_active())


def gradients(said: Sequence[Tensor], given: Sequence[Tensor | None], inputs: Sequence[Tensor], needed: Sequence[bool]
              ) -> list[Tensor | None]:
    """Of what torch's operations said of the inputs, with those given at it: they have gradients themselves."""
    told, grads = zip(*((x, g) for x, g in zip(said, given, strict=True) if g is not None), strict=True)
    asked = [x for x, wanted in zip(inputs, needed, strict=True) if wanted]
    found = iter(torch.autograd.grad(told, asked, grads, create_graph=True))
    return [next(found) if wanted else None for wanted in needed]


def addresses(*tensors: Tensor) -> Tensor:
    """Where tensors lie, [how many] long."""
    return torch.tensor([x.data_ptr() for x in tensors], dtype=torch.long)


def at(x: Tensor | None) -> int | None:
    """Where a tensor lies."""
    return None if x is None else x.data_ptr()


def kernels_for(arch: Architecture, dtype: torch.dtype, device: torch.device) -> Kernels | None:
    """Those for models of this architecture with such weights; None where torch's operations must serve."""
    if device.type != "cpu" or dtype not in (torch.bfloat16, torch.float32) or arch.head_width % 2:
        return None
    return _compiled_or_none(arch.head_width, arch.heads // arch.kv_heads, dtype == torch.bfloat16,
                             arch.activation == GELU)


def add_to(total: Tensor, x: Tensor) -> None:
    """total += x, fp32 and of any type: in one pass where torch makes a copy of x first."""
    kernels = None
    if total.device.type == "cpu" and total.dtype == torch.float32 and x.dtype == torch.bfloat16 and x.dim() == 2:
        kernels = any_kernels(x.dtype)
    if kernels is None:
        total.add_(x)
    else:
        kernels.add(total, x.contiguous(), None, 0.0, 1.0)


def any_kernels(dtype: torch.dtype) -> Kernels | None:
    """Those for what no architecture decides."""
    if dtype not in (torch.bfloat16, torch.float32):
        return None
    return _compiled_or_none(64, 1, dtype == torch.bfloat16, False)


@cache
def _compiled_or_none(head: int, group: int, bf16: bool, gelu: bool) -> Kernels | None:
    return or_none(lambda: compiled(head, group, bf16, gelu))


def or_none(make: Callable[[], Made]) -> Made | None:
    """What is made, where what it needs compiles."""
    try:
        return make()
    except Uncompiled:
        return None


def compiled(head: int = 64, group: int = 1, bf16: bool = False, gelu: bool = False) -> Kernels:
    """Kernels for heads of so many numbers, so many queries to a key, and SiLU's gate or GELU's; kept on disk.

    Raises:
        Uncompiled: if there is no compiler, or it fails.
    """
    return Kernels(built(SOURCE, f"-DHEAD={head}", f"-DGROUP={group}", f"-DBF16={int(bf16)}", f"-DGELU={int(gelu)}",
                         f"-DFEW={FEW}", f"-DLEVELS={LEVELS}", f"-DTOKENS={tokens_together(group)}",
                         f"-DTILED={int(bf16 and head % 32 == 0 and group <= 16 and has_tiles())}"))


def built(source: Path, *defined: str) -> ctypes.CDLL:
    """The functions of a C file, compiled for this processor; kept on disk.

    Raises:
        Uncompiled: if there is no compiler, or it fails.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise Uncompiled("no C compiler: none of cc, gcc and clang is on the PATH")
    command = [compiler, *FLAGS, *defined]
    text = [file.read_text(encoding="utf-8") for file in (source, *INCLUDED)]
    for_whom = (*command, *text, platform.machine(), *sorted(cpu_flags()))
    file = home() / "kernels" / f"{hashlib.sha256(repr(for_whom).encode()).hexdigest()[:16]}.so"
    try:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=file.parent) as folder:
                made = Path(folder, "kernels.so")
                subprocess.run([*command, "-o", str(made), str(source), "-lm"], check=True, capture_output=True,
                               text=True, timeout=COMPILE_SECONDS)
                made.replace(file)
        return ctypes.CDLL(str(file))
    except subprocess.CalledProcessError as error:
        told = next((line for line in error.stderr.splitlines() if "error" in line), error.stderr[:200])
        raise Uncompiled(f"{compiler} failed: {told}") from None
    except subprocess.TimeoutExpired:
        raise Uncompiled(f"{compiler} took more than {COMPILE_SECONDS} s") from None
    except OSError as error:
        raise Uncompiled(str(error)) from None
