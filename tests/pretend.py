"""A device that is not there: tensors of the processor which say that they are on "cuda", and refuse to be mixed.

    with Pretend():
        x = torch.zeros(3, device="cuda")
        x + torch.zeros(3)      # AssertionError, as CUDA would refuse it

It shows that every tensor is where the operation wants it, with real numbers, and nothing of how CUDA computes them.
A tensor's device is remembered with its memory, so that views, parameters and gradients have it too.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Self

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = torch.device("cuda")
ANY_INDEX = {"index", "index_put", "index_put_", "_index_put_impl_"}  # take indices in the host's memory too
CROSSING = {"copy_", "_to_copy", "_local_scalar_dense", "set_"}


class Pretend:
    """Both modes at once."""

    def __init__(self) -> None:
        self.there: dict[int, StorageWeakRef] = {}  # memory that is on the device

    def __enter__(self) -> Self:
        self.stack = ExitStack()
        self.stack.enter_context(_Calls(self))
        self.stack.enter_context(_Checks(self))
        return self

    def __exit__(self, *error: Any) -> None:
        self.stack.close()

    def holds(self, x: Tensor) -> bool:
        return not x.is_mkldnn and x.untyped_storage()._cdata in self.there  # oneDNN's own layouts are the host's

    def place(self, x: Tensor, there: bool) -> Tensor:
        if x.is_mkldnn:
            assert not there
            return x
        key = x.untyped_storage()._cdata
        if there:
            self.there[key] = StorageWeakRef(x.untyped_storage())  # the address is not used again while this lives
        else:
            self.there.pop(key, None)
        return x


def tensors(*parts: Any) -> list[Tensor]:
    """Those among a call's arguments, or in lists of them."""
    found = []
    for part in parts:
        if isinstance(part, Tensor):
            found.append(part)
        elif isinstance(part, (tuple, list)):
            found += tensors(*part)
        elif isinstance(part, dict):
            found += tensors(*part.values())
    return found


class _Calls(TorchFunctionMode):
    """What Python asks: a tensor's device, and tensors on one."""

    def __init__(self, pretend: Pretend) -> None:
        super().__init__()
        self.pretend = pretend

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, pretend = dict(kwargs or {}), self.pretend
        if getattr(func, "__self__", None) is Tensor.device:
            return CUDA if pretend.holds(args[0]) else torch.device("cpu")
        if func is Tensor.cpu:
            return self._moved(args[0], "cpu")
        if func is Tensor.to:
            return self._to(*args, **kwargs)
        if func is torch.tensor and any(map(pretend.holds, tensors(args))):
            raise AssertionError("torch.tensor of tensors on the device")
        asked = kwargs.get("device")
        if asked is None:
            return func(*args, **kwargs)
        there = torch.device(asked).type == "cuda"
        made = func(*args, **kwargs | {"device": "cpu" if there else asked})
        return made if torch.device(asked).type == "meta" else pretend.place(made, there)

    def _to(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        device, dtype, copy = kwargs.get("device"), kwargs.get("dtype"), kwargs.get("copy", False)
        for arg in args:
            if isinstance(arg, Tensor):
                device, dtype = (CUDA if self.pretend.holds(arg) else "cpu"), arg.dtype
            elif isinstance(arg, torch.dtype):
                dtype = arg
            elif isinstance(arg, (str, torch.device)):
                device = arg
        if dtype is not None or copy:
            with torch._C.DisableTorchFunction():
                x = x.to(x.dtype if dtype is None else dtype, copy=copy)
        return x if device is None else self._moved(x, device)

    def _moved(self, x: Tensor, device: Any) -> Tensor:
        there = torch.device(device).type == "cuda"
        if there == self.pretend.holds(x):
            return x
        return _Move.apply(x, self.pretend, there)  # type: ignore[no-any-return, no-untyped-call]


class _Move(torch.autograd.Function):
    """A copy on the other side, whose gradient comes back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, pretend: Pretend, there: bool) -> Tensor:
        ctx.pretend, ctx.there = pretend, there
        return pretend.place(x.clone(), there)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return ctx.pretend.place(grads[0].clone(), not ctx.there), None, None


class _Checks(TorchDispatchMode):
    """What reaches a kernel: all on one side, but for numbers without a dimension that come from the host."""

    def __init__(self, pretend: Pretend) -> None:
        super().__init__()
        self.pretend = pretend

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name, holds = kwargs or {}, func.overloadpacket.__name__, self.pretend.holds
        checked = (args[0], *args[2:]) if name in ANY_INDEX else (args, kwargs)
        sides = {holds(x) for x in tensors(checked) if holds(x) or x.dim() > 0}
        indices = [holds(x) for x in tensors(args[1])] if name in ANY_INDEX else []
        if name not in CROSSING:
            assert len(sides) < 2, f"{func}: tensors on both sides"
            assert not any(indices) or sides == {True}, f"{func}: indices on the device, the rest not"
        given = {x.untyped_storage()._cdata for x in tensors(args, kwargs) if not x.is_mkldnn}
        out = func(*args, **kwargs)
        for x in tensors(out):
            if x.is_mkldnn or x.untyped_storage()._cdata not in given:
                self.pretend.place(x, True in sides)
        return out
