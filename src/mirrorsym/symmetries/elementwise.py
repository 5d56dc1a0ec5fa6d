"""What an elementwise function does to signs and scales, told by calling it alone over all magnitudes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_TOLERANCE = 1e-9
_FACTORS = (3.0, 1e5)
"""A homogeneous function is one at both of these factors, over all magnitudes."""


@dataclass(frozen=True)
class Behaviour:
    """How f answers to f(λx), λ > 0, and to f(-x).

    Args:
        parity: 1 where f(-x) = -f(x), 0 where f(-x) = f(x), None where neither.
        degree: p where f(λx) = λᵖ f(x), None where there is none.
    """

    parity: int | None
    degree: float | None

    @property
    def linear(self) -> bool:
        """Whether f(x) is x times a number."""
        return self.parity == 1 and self.degree == 1


def behaviour(function: Callable[[Tensor], Tensor]) -> Behaviour | None:
    """Return how a function of one tensor behaves, None if it does not act on each entry alone.

    Args:
        function: called on vectors in double precision, with entries ±10⁻⁸…10⁸.
    """
    sizes = torch.logspace(-8, 8, 33, dtype=torch.double)
    x = torch.cat([-sizes.flip(0), sizes])
    try:
        y = function(x)
        alone = torch.cat([function(x[i : i + 1]) for i in range(0, len(x), 7)])
        if y.shape != x.shape or not (_same(alone, y[::7]) and _same(function(x.flip(0)), y.flip(0))):
            return None
        y = y.double()
        opposite = function(-x).double()
        scaled = {factor: function(factor * x).double() for factor in _FACTORS}
    except (RuntimeError, TypeError, IndexError, ValueError, NotImplementedError):
        return None
    return Behaviour(_parity(y, opposite), _degree(y, scaled))


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=_TOLERANCE, atol=0, equal_nan=True)


def _parity(y: Tensor, opposite: Tensor) -> int | None:
    if bool(y.isnan().any()):
        return None
    if _same(opposite, -y):
        return 1
    return 0 if _same(opposite, y) else None


def _degree(y: Tensor, scaled: dict[float, Tensor]) -> float | None:
    usable = y.isfinite() & (y != 0) & scaled[_FACTORS[0]].isfinite() & (scaled[_FACTORS[0]] != 0)
    if not bool(usable.any()):
        return None
    ratio = float((scaled[_FACTORS[0]] / y)[usable][0])
    if ratio <= 0:
        return None
    power = round(math.log(ratio) / math.log(_FACTORS[0]) * 12) / 12
    ordinary = all(_same(values, factor**power * y) for factor, values in scaled.items())
    return power if ordinary else None
