"""Double precision throughout, whatever number types a model's forward asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_LOW = (torch.float32, torch.float16, torch.bfloat16)


def in_double(func: Any, args: Any, kwargs: Any, keep: Callable[[Tensor, Tensor], None]) -> tuple[Any, dict[str, Any]]:
    """Return an operation's arguments with double precision in place of lower ones.

    Args:
        func: the operation; what it writes into stays as it is.
        args: its arguments.
        kwargs: its named ones, whose ``dtype`` is changed as well.
        keep: called with a tensor and what takes its place.
    """
    written = args[0] if args and func.overloadpacket.__name__.endswith("_") else None

    def change(value: Any) -> Any:
        if isinstance(value, torch.dtype) and value in _LOW:
            return torch.float64
        if isinstance(value, Tensor) and value.dtype in _LOW and value is not written:
            wide = value.double()
            keep(value, wide)
            return wide
        return value

    return tuple(_each(change, value) for value in args), {name: _each(change, v) for name, v in kwargs.items()}


def _each(change: Callable[[Any], Any], value: Any) -> Any:
    """Return a value with everything in its lists and tuples changed.

    It is no function inside of :func:`in_double`, which would hold itself, and tensors until the next collection.
    """
    if isinstance(value, list | tuple):
        return type(value)([_each(change, part) for part in value])
    return change(value)


class Separately(TorchFunctionMode):
    """Multiplies groups of rows one after the other, where PyTorch's product of groups has no double precision."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") not in ("_grouped_mm", "grouped_mm"):
            return func(*args, **kwargs)
        rows, matrices = args[:2]
        ends = (args[2] if len(args) > 2 else kwargs["offs"]).tolist()
        pieces = [rows[a:b] @ matrix for a, b, matrix in zip([0, *ends], ends, matrices, strict=False)]
        return torch.cat(pieces)


class Double(TorchDispatchMode):
    """Runs a model in double precision where its forward says float32: ``.float()``, ``dtype=``, ``torch.zeros``."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # which would import the compiler, for a second

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = in_double(func, args, kwargs or {}, lambda old, new: None)
        return func(*args, **kwargs)
