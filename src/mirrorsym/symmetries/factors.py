"""Arrays of atoms: of a value's own shape, with stride 0 along axes that they do not tell apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mirrorsym.symmetries.atoms import Ids

Factors = list[Tensor]


class NotFollowedError(Exception):
    """Raised by a rule that meets a case that it does not cover."""


def broadcast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return arrays in the shape that they broadcast to."""
    return tuple(torch.broadcast_tensors(*tensors))


def new_axis(axis: int) -> Callable[[Tensor], Tensor]:
    """Return a function that gives a tensor an axis of size 1."""
    return partial(torch.unsqueeze, dim=axis)


def forget(tensor: Tensor) -> None:
    """Take a value's factors away."""
    if hasattr(tensor, "_factors"):
        del tensor._factors


def is_part(tensor: Any) -> bool:
    """Return whether a tensor is a part of a larger one that other names may show."""
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
        return False
    return tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size() and tensor.numel() > 1


def support(factor: Tensor) -> tuple[int, ...]:
    """Return the axes along which an array of atoms tells entries apart."""
    return tuple(
        a for a, (size, step) in enumerate(zip(factor.shape, factor.stride(), strict=True)) if step and size > 1
    )


def core_of(factor: Tensor) -> Tensor:
    """Return an array of atoms with size 1 along the axes that it does not tell apart."""
    for axis, (size, step) in enumerate(zip(factor.shape, factor.stride(), strict=True)):
        if size > 1 and not step:
            factor = factor.narrow(axis, 0, 1)
    return factor


def tidy(factor: Tensor) -> Tensor:
    """Return an array of atoms with stride 0 along all axes that it does not tell apart."""
    core = core_of(factor)
    for axis in support(core):
        first = core.narrow(axis, 0, 1)
        if bool((core.narrow(axis, core.shape[axis] - 1, 1) == first).all()) and bool((core == first).all()):
            core = first
    return core.expand(factor.shape)


def flat(factor: Tensor) -> Ids:
    """Return the different atoms of an array."""
    return np.unique(core_of(factor).numpy())


def numbers(a: Tensor, b: Tensor) -> tuple[Ids, Ids]:
    """Return two arrays of atoms of one shape as vectors."""
    return a.reshape(-1).numpy(), b.reshape(-1).numpy()


def without_zeros(a: Ids, b: Ids) -> tuple[Ids, Ids]:
    """Return the pairs of atoms of which neither is a zero."""
    kept = (a != 0) & (b != 0)
    return a[kept], b[kept]


def along(atoms: Ids, axis: int, shape: Sequence[int]) -> Tensor:
    """Return atoms along one axis as an array of a shape."""
    return torch.from_numpy(atoms).reshape([-1 if place == axis else 1 for place in range(len(shape))]).expand(shape)


def along_channels(factor: Tensor, axis: int, shape: Sequence[int]) -> Tensor:
    """Return what lies along the last axis of an array along another axis of a shape."""
    core = core_of(factor)
    if core.numel() not in (1, shape[axis]):
        raise NotFollowedError("units lie along the axes over which it moves")
    return core.reshape([-1 if place == axis else 1 for place in range(len(shape))]).expand(tuple(shape))


def spread_shape(factor: Tensor, shape: Sequence[int]) -> list[int]:
    """Return a shape with an array's own sizes along the axes that it tells apart."""
    own = support(factor)
    return [factor.shape[axis] if axis in own else size for axis, size in enumerate(shape)]


def expanded(wide: Tensor, other: Tensor) -> Tensor:
    """Return an array in the shape to which it and another tensor broadcast."""
    return core_of(wide).expand(torch.broadcast_shapes(wide.shape, other.shape))


def is_zero(value: Any) -> bool:
    """Return whether a number or all entries of a tensor are 0."""
    if not isinstance(value, Tensor):
        return bool(value == 0)
    flat = value.reshape(-1)
    return not bool(flat[:1].any()) and not bool(flat.any())


def is_uniform(value: Tensor, axis: int) -> bool:
    """Return whether a tensor has the same values all along an axis."""
    if value.shape[axis] == 1 or value.stride(axis) == 0:
        return True
    first = value.narrow(axis, 0, 1)
    if not torch.equal(first, value.narrow(axis, 1, 1)):
        return False
    return bool((value == first).all())


def reduced_axes(name: str, args: Any, kwargs: Any, x: Tensor, out: Tensor) -> tuple[tuple[int, ...], bool]:
    """Return over which axes a reduction goes, and whether it keeps them with size 1."""
    place = 2 if name in ("linalg_vector_norm", "norm") else 1
    dims = args[place] if len(args) > place else kwargs.get("dim")
    if dims is None or dims == [] or isinstance(dims, bool):
        return tuple(range(x.dim())), out.dim() == x.dim() and x.dim() > 0
    axes = tuple(dim % x.dim() for dim in (dims if isinstance(dims, list | tuple) else [dims]))
    return axes, out.dim() == x.dim()


def reduced_factor(factor: Tensor, axes: Sequence[int], keep: bool, out: Tensor) -> Tensor:
    """Return an array without axes along which it tells nothing apart, in the shape of a reduction's result."""
    small = factor
    for axis in sorted(axes, reverse=True):
        small = small.narrow(axis, 0, 1) if keep else small.select(axis, 0)
    return core_of(small).expand(out.shape)


def axes_of(factors: Factors) -> list[tuple[tuple[int, ...], Ids]]:
    """Return for each factor of a parameter the axes along which it tells entries apart, and the atoms along them."""
    return [(support(factor) or (0,), core_of(factor).reshape(-1).numpy()) for factor in factors]
