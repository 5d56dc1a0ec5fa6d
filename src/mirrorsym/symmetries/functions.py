"""Reductions, pooling, orders and functions of each entry."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mirrorsym.symmetries.elementwise import Behaviour, behaviour
from mirrorsym.symmetries.factors import (
    Factors,
    NotFollowedError,
    core_of,
    flat,
    reduced_axes,
    reduced_factor,
    support,
)
from mirrorsym.symmetries.tensors import tensors_in
from mirrorsym.symmetries.ties import Ties

POOLS = {
    "max_pool2d_with_indices",
    "avg_pool2d",
    "avg_pool1d",
    "avg_pool3d",
    "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d",
    "adaptive_avg_pool1d",
    "adaptive_max_pool2d",
    "max_pool3d_with_indices",
    "upsample_nearest2d",
    "upsample_bilinear2d",
    "upsample_bicubic2d",
    "upsample_nearest1d",
    "upsample_linear1d",
    "upsample_nearest3d",
    "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa",
    "upsample_trilinear3d",
    "reflection_pad2d",
    "replication_pad2d",
    "reflection_pad1d",
    "grid_sampler_2d",
    "replication_pad1d",
}

MAXIMA = {"max_pool2d_with_indices", "adaptive_max_pool2d", "max_pool3d_with_indices"}

REDUCTIONS = {"sum", "mean", "linalg_vector_norm", "norm", "var", "std", "var_mean", "logsumexp", "amax", "amin"}

COMPARISONS = {"gt", "lt", "ge", "le", "eq", "ne"}

ALONG_AN_AXIS = {"cumsum", "_softmax", "softmax", "_safe_softmax", "_log_softmax", "sort", "topk", "cumprod"}

REDUCTIONS |= {"max", "min", "argmax", "argmin", "prod", "any", "all", "nansum", "median"}


class Functions(Ties):
    """Rules for operations without parameters."""

    _behaviours: dict[Any, Behaviour | None]

    def _reduce(self, name: str, args: Any, kwargs: Any, result: Any) -> Any:
        x = args[0]
        out = result[0] if isinstance(result, tuple | list) else result
        axes, keep = reduced_axes(name, args, kwargs, x, out)
        factors: Factors = []
        inside = [f for f in self.factors(x) if set(axes) & set(support(f))]
        for factor in self.factors(x):
            if not any(factor is f for f in inside):
                factors.append(reduced_factor(core_of(factor).expand(x.shape), axes, keep, out))
        linear = name in ("sum", "mean", "nansum")
        if name in ("argmax", "argmin", "any", "all", "prod"):
            raise NotFollowedError("it chooses along an axis")
        if inside:
            units = self.fused(inside)
            ids = flat(units)
            norm = name == "linalg_vector_norm" and (args[1] if len(args) > 1 else 2) == 2
            if norm or (linear and self.atoms.are_squares(ids)):
                self.atoms.normed.append(ids)
            else:
                self.atoms.bend(ids)
            if name == "logsumexp":
                self.atoms.uncharge(ids)
            if name in ("amax", "amin", "max", "min", "median"):
                self.atoms.uncharge(ids, scale=False)
            even = name in ("linalg_vector_norm", "norm")
            groups = self._gather(units, axes, signs=not even, scales=True)
            made = groups.expand([1 if axis in axes else size for axis, size in enumerate(x.shape)])
            made = made if keep else made.reshape([s for axis, s in enumerate(made.shape) if axis not in axes])
            if even:
                self.atoms.uncharge(flat(groups), scale=False)
            factors = self._product(factors, [made.expand(out.shape)], 1)
        elif not linear:
            factors = self._single(factors)
            if name == "logsumexp":
                self._bend(factors, scale=True, sign=True)
            elif name in ("amax", "amin", "max", "min", "median"):
                self._bend(factors, sign=True)
            else:
                degree = 2.0 if name == "var" else 1.0
                factors = self._powers(factors, Behaviour(0, degree))
        if name == "var_mean":
            raise NotFollowedError("it makes a variance and a mean")
        if name in ("var", "std") and inside:
            # A variance of units lets all of them flip together, or none.
            for factor in factors:
                self.atoms.uncharge(flat(factor))
        return factors

    def _ordered(self, name: str, args: Any, kwargs: Any, result: Any) -> Any:
        """Follow what acts along an axis: units may not lie along it, but for softmax, which only needs all of them."""
        x = args[0]
        axis = (args[2 if name == "topk" else 1] if len(args) > (2 if name == "topk" else 1) else -1) % max(x.dim(), 1)
        units = self._single(self.factors(x))
        out = result[0] if isinstance(result, tuple | list) else result
        along = axis in support(units[0])
        if "softmax" in name:
            if along:
                self._gather(units[0], (axis,), signs=False)
            self._bend(units, scale=True, sign=True)
            return units
        if along:
            raise NotFollowedError("the order of units matters to it")
        if name == "cumsum":
            return units
        self._bend(units, sign=True, scale=name == "cumprod")
        return (([core_of(unit).expand(out.shape) for unit in units]), []) if name in ("sort", "topk") else units

    def _pooled(self, name: str, x: Tensor, result: Any) -> Any:
        out = result[0] if isinstance(result, tuple | list) else result
        factors = self.factors(x)
        if any(set(support(factor)) - {0, 1} for factor in factors):
            factors = self._of_channels(factors)
        factors = [core_of(factor).expand(out.shape) for factor in factors]
        if name in MAXIMA:
            factors = self._single(factors)
            self._bend(factors, sign=True)
            return (factors, [])
        return factors

    def _compare(self, args: Any, result: Tensor) -> Factors:
        a, b = args[:2]
        joined = self._add(a, b, result)
        self._bend(joined, sign=True)
        return self._powers(self._single(joined), Behaviour(None, 0.0))

    def _op_pow(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        base, exponent = args
        if isinstance(exponent, Tensor) or isinstance(base, int | float):
            if isinstance(exponent, Tensor) and exponent.dim() == 0 and not self.factors(exponent):
                exponent = exponent.item()
            elif isinstance(base, Tensor) or self.factors(exponent):
                raise NotFollowedError("its exponent is no number")
        return self._elementwise("pow", func, (base, exponent), kwargs, result, squares=exponent == 2)

    def _elementwise(self, name: str, func: Any, args: Any, kwargs: Any, result: Any, squares: bool = False) -> Factors:
        labelled = [index for index, value in enumerate(args) if isinstance(value, Tensor) and self.factors(value)]
        if (
            len(labelled) != 1
            or not isinstance(result, Tensor)
            or result.shape != args[labelled[0]].shape
            or any(self.factors(tensor) for tensor in tensors_in(kwargs))
        ):
            raise NotFollowedError("it is not known")
        place = labelled[0]
        others = [value for index, value in enumerate(args) if index != place]
        if any(tensor.numel() > 1 for tensor in tensors_in((others, kwargs))):
            raise NotFollowedError("it is not known")
        found = self._behaviour(func, args, kwargs, place)
        if found is None:
            raise NotFollowedError("it does not act on each entry alone")
        if found.linear:
            return self.factors(args[place])
        return self._powers(self._single(self.factors(args[place])), found, squares)

    def _behaviour(self, func: Any, args: Any, kwargs: Any, place: int) -> Behaviour | None:
        def numbers(value: Any) -> Any:
            return value.item() if isinstance(value, Tensor) else value

        others = [numbers(value) for index, value in enumerate(args) if index != place]
        key = (func, repr(others), repr(sorted((k, str(numbers(v))) for k, v in kwargs.items())), place)
        if key not in self._behaviours:
            name = func.overloadpacket.__name__
            outer = name.rstrip("_") if name.endswith("_") else name
            function = getattr(torch.ops.aten, outer, func.overloadpacket)

            def call(x: Tensor) -> Any:
                return function(*[x.clone() if index == place else v for index, v in enumerate(args)], **kwargs)

            self._behaviours[key] = behaviour(call)
        return self._behaviours[key]
