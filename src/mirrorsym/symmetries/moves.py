"""Operations that move entries: they are carried out on the atoms themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mirrorsym.symmetries.factors import (
    Factors,
    NotFollowedError,
    core_of,
    flat,
    is_part,
    is_uniform,
    is_zero,
    spread_shape,
    support,
    tidy,
)
from mirrorsym.symmetries.tensors import tensors_in
from mirrorsym.symmetries.ties import Ties

VIEWS = {
    "permute",
    "t",
    "transpose",
    "unsqueeze",
    "squeeze",
    "slice",
    "select",
    "expand",
    "alias",
    "detach",
    "numpy_T",
    "split",
    "split_with_sizes",
    "unbind",
    "unsafe_split",
    "unsafe_split_with_sizes",
    "unsafe_chunk",
    "chunk",
    "swapaxes",
    "movedim",
    "diagonal",
    "unfold",
    "narrow",
    "view_as_real",
}

RESHAPES = {"view", "_unsafe_view", "reshape", "flatten", "_reshape_alias"}

COPIES = {"clone", "contiguous", "_to_copy", "lift_fresh", "lift_fresh_copy", "positive", "lift"}

MOVES = {
    "flip",
    "roll",
    "repeat",
    "index_select",
    "pixel_shuffle",
    "pixel_unshuffle",
    "channel_shuffle",
    "native_channel_shuffle",
    "rot90",
    "repeat_interleave",
    "im2col",
    "unfold_copy",
    "take_along_dim",
}


class Moves(Ties):
    """Rules for what views, copies, joins side by side, takes and writes entries."""

    def _give_up(self, name: str, tensors: Sequence[Tensor], why: str) -> None:
        raise NotImplementedError

    def _moved(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        """Carry out on the factors what only moves entries."""
        x, *others = args
        if any(self.factors(tensor) for tensor in tensors_in((others, kwargs))):
            raise NotFollowedError("where it moves entries to depends on parameters")
        factors = self.factors(x)
        if name in ("select", "unbind") and hasattr(x, "_stacked"):
            axis, parts = x._stacked
            if (others[0] if others else kwargs.get("dim", 0)) % x.dim() == axis:
                return tuple(parts) if name == "unbind" else parts[others[1]]
            self._arrive(x)
        if name in COPIES:
            return factors
        if name in RESHAPES:
            return [self._copies(x, factor, tidy(factor.reshape(others[0]))) for factor in factors]
        moved = [func(factor, *others, **kwargs) for factor in factors]
        for before, after in zip(factors, moved, strict=True):
            if support(before) and not any(support(part) for part in tensors_in([after])):
                self.atoms.immovable.append(flat(before))  # each was taken for a place of its own
        if moved and isinstance(moved[0], tuple | list):
            return tuple(list(parts) for parts in zip(*moved, strict=True))
        return [tidy(factor) for factor in moved] if name in MOVES else moved

    def _copies(self, x: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """Return atoms of their own for copies, such as keys that several queries share, behind a reshape."""
        core = core_of(after)
        if core.numel() == core_of(before).numel():
            return after
        known = support(before)
        alike = [axis for axis in range(x.dim()) if axis not in known and x.shape[axis] > 1 and is_uniform(x, axis)]
        if not alike:
            return after
        old = core.reshape(-1).numpy()
        made = self.atoms.new(len(old))
        self.atoms.relate(made, old)
        self.atoms.equal(made, old)
        self.atoms.along(made, old)
        return torch.from_numpy(made).reshape(core.shape).expand(after.shape)

    def _op_cat(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        parts = list(args[0])
        axis = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % result.dim()
        parts = [part for part in parts if part.numel()]
        ends = np.cumsum([0, *(part.shape[axis] for part in parts)])
        whole = [result.narrow(axis, start, part.shape[axis]) for start, part in zip(ends, parts, strict=False)]
        arrays = [self._one_factor(part) for part in parts]
        known = [array for array in arrays if array is not None]
        if not any(axis in support(array) for array in known):
            first = known[0]
            self._await(result, [(core_of(first), core_of(array)) for array in known[1:]])
            for part, missing in zip(parts, (array is None for array in arrays), strict=True):
                if missing and not is_zero(part):
                    self._constant(core_of(first).expand(spread_shape(first, part.shape)), part)
            return [core_of(first).expand(result.shape)]
        supports = sorted({axis}.union(*(support(array) for array in known)))
        shape = [result.shape[i] if i in supports else 1 for i in range(result.dim())]
        pieces = []
        for own, part in zip(arrays, whole, strict=True):
            small = [part.shape[axis] if i == axis else size for i, size in enumerate(shape)]
            if own is not None:
                pieces.append(core_of(own).expand(small))
            elif is_zero(part):
                pieces.append(torch.zeros(small, dtype=torch.int64))
            else:
                fixed = torch.from_numpy(self.atoms.new(math.prod(small))).reshape(small)
                self.atoms.fix(flat(fixed))
                pieces.append(fixed)
        return [torch.cat(pieces, axis).expand(result.shape)]

    _op_concat = _op_cat

    def _op_stack(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        axis = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % result.dim()
        parts = []
        for part in args[0]:
            wider = part.unsqueeze(axis)
            factors = [factor.unsqueeze(axis) for factor in self.factors(part)]
            if factors:
                wider._factors = factors
            parts.append(wider)
        made = self._op_cat(func, (parts, axis), {}, result)
        result._stacked = (axis, [self.factors(part) for part in args[0]])  # type: ignore[attr-defined]
        return made

    def _one_factor(self, part: Tensor) -> Tensor | None:
        factors = self.factors(part)
        return self.fused(factors) if factors else None

    def _op_index(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        x, indices = args[0], args[1]
        if any(self.factors(index) for index in indices if index is not None):
            self._give_up("index", [index for index in indices if index is not None], "parameters choose what is taken")
        return [tidy(func(factor, indices)) for factor in self.factors(x)]

    def _op_gather(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        if self.factors(args[2]):
            self._give_up("gather", [args[2]], "parameters choose what is taken")
        return [tidy(func(factor, *args[1:], **kwargs)) for factor in self.factors(args[0])]

    def _op_constant_pad_nd(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        x, widths = args[0], args[1]
        value = args[2] if len(args) > 2 else kwargs.get("value", 0)
        padded = {x.dim() - 1 - place // 2 for place, width in enumerate(widths) if width}
        factors = []
        for factor in self.factors(x):
            if padded & set(support(factor)):
                factors.append(tidy(func(factor, widths, 0 if not value else int(self._one[0]))))
            else:
                factors.append(core_of(factor).expand(result.shape))
        if value:
            self._bend(factors, scale=True, sign=True)
        return factors

    def _op_as_strided(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        x, shape = args[:2]
        if list(shape) != list(result.shape) or x.shape != result.shape or is_part(x):
            raise NotFollowedError("it takes entries by their places in memory")
        return self.factors(x)

    def _op_fill(self, func: Any, args: Any, kwargs: Any, result: Any) -> Factors:
        return []

    _op_zero = _op_fill

    def _op_copy(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        return [core_of(factor).expand(result.shape) for factor in self._wide(args[1], result.dim())]

    def _op_where(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        if len(args) < 3:
            raise NotFollowedError("where its entries are depends on parameters")
        condition, a, b = args
        joined = self._add(a, b, result)
        if not self.factors(condition):
            if a.dim() and b.dim():
                self._apart(joined, condition, result)
            return joined
        values = self._product(joined, self._wide(condition, result.dim()), 1)
        self._bend(values)
        return values

    def _op_masked_fill(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        x, mask, value = args
        factors = self.factors(x)
        if self.factors(mask):
            raise NotFollowedError("parameters choose what is filled")
        self._apart(factors, mask, result)
        number = float(value)
        if number != 0:
            self._bend(factors, scale=not math.isinf(number), sign=True)
        return factors

    def _op_index_add(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        base, axis, index, source = args[:4]
        if self.factors(index):
            raise NotFollowedError("parameters choose where it adds")
        axis %= base.dim()
        known = self.factors(source)
        if any(axis in support(factor) for factor in [*known, *self.factors(base)]):
            raise NotFollowedError("it adds along units")
        spread = [core_of(factor).expand(base.shape) for factor in known]
        if not self.factors(base):
            return spread
        return self._match(self.factors(base), spread, result)

    def _op_index_put(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        base, indices, values = args[:3]
        taken = [axis for axis, index in enumerate(indices) if index is not None]
        known = self._wide(values, base.dim()) if values.dim() <= base.dim() else []
        if any(set(taken) & set(support(factor)) for factor in [*known, *self.factors(base)]) or (
            self.factors(values) and not known
        ):
            raise NotFollowedError("it writes along units")
        spread = [core_of(factor).expand(base.shape) for factor in known]
        if not self.factors(base) or not spread:
            return spread or self.factors(base)
        return self._match(self.factors(base), spread, result)

    _op_unsafe_index_put = _op_index_put

    def _op_scatter_add(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        raise NotFollowedError("it scatters entries")

    def _op_embedding(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        weight = args[0]
        rows = [factor for factor in self.factors(weight) if 0 in support(factor)]
        for factor in rows:
            self.atoms.fix(flat(factor))
        kept = [factor for factor in self.factors(weight) if 0 not in support(factor)]
        return [factor[0].expand(result.shape) for factor in kept]

    def _op_embedding_bag(self, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        if any(self.factors(tensor) for tensor in tensors_in((args[1:], kwargs))):
            raise NotFollowedError("parameters weigh what it adds up")
        factors = self._op_embedding(func, args, kwargs, result[0])
        if len(args) > 4 and args[4] == 2:  # the largest of each
            self._bend(factors, sign=True)
        return (factors, [], [], [])

    _op_embedding_bag_forward_only = _op_embedding_bag
