"""Elements of the groups: a random one of each kind, and whether a tensor is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Kind = Literal["permutation", "sign_flip", "rescaling", "rotation", "general_linear", "complex"]
KINDS: tuple[Kind, ...] = ("general_linear", "rotation", "complex", "sign_flip", "rescaling", "permutation")
"""All kinds, in the order in which those of the same units are listed."""

WORDS: dict[Kind, str] = {
    "permutation": "an order, integers of shape ({n},) with each of 0 … {last} once, or a permutation matrix",
    "sign_flip": "signs ±1 of shape ({n},), or a diagonal matrix of them",
    "rescaling": "positive factors of shape ({n},), or a diagonal matrix of them",
    "rotation": "an orthogonal matrix of shape ({n}, {n})",
    "general_linear": "an invertible matrix of shape ({n}, {n})",
    "complex": "complex numbers of shape ({n},), none of them 0, or a diagonal matrix of real ones",
}


def sample(kind: Kind, units: int, seed: int) -> Tensor:
    """Return a random element of a group: no unit stays as it is.

    Args:
        kind: the kind of symmetry.
        units: the number of units.
        seed: picks the element.

    Returns:
        Integers, real numbers in double precision or complex ones, shape (units,), or a matrix (units, units).
    """
    rng = np.random.default_rng(seed)
    if kind == "permutation":
        cycle = rng.permutation(units)
        order = np.empty_like(cycle)
        order[cycle] = np.roll(cycle, 1)
        return torch.from_numpy(order)
    if kind == "sign_flip":
        signs = rng.choice([-1.0, 1.0], units)
        signs[rng.integers(units)] = -1
        return torch.from_numpy(signs)
    if kind == "rescaling":
        return torch.from_numpy(rng.uniform(0.5, 2, units))
    if kind == "complex":
        return torch.from_numpy(rng.uniform(0.5, 2, units) * np.exp(2j * np.pi * rng.uniform(size=units)))
    left, _, right = torch.linalg.svd(torch.from_numpy(rng.standard_normal((units, units))))
    stretch = rng.uniform(0.5, 2, units) if kind == "general_linear" else np.ones(units)
    matrix: Tensor = (left * torch.from_numpy(stretch)) @ right
    return matrix


def checked(kind: Kind, units: int, element: Tensor) -> Tensor:
    """Return an element of a group as it acts, integers of signs and factors as real numbers.

    Args:
        kind: the kind of symmetry.
        units: the number of units.
        element: integers, numbers or a matrix.

    Raises:
        ValueError: if it is no element of the group.
    """
    numbers = element.detach()
    vectors = () if kind in ("rotation", "general_linear") else ((units,),)
    if tuple(numbers.shape) not in (*vectors, (units, units)):
        wrong = f"its shape is {tuple(numbers.shape)}"
    elif not bool(numbers.isfinite().all()):
        wrong = "it has entries that are not finite"
    elif numbers.is_complex() and (kind != "complex" or numbers.dim() == 2):
        wrong = "it is complex"
    elif kind == "permutation" and numbers.dim() == 1 and (numbers.is_floating_point() or numbers.dtype == torch.bool):
        wrong = f"its dtype is {numbers.dtype}"
    else:
        wrong = _outside(kind, numbers)
    if wrong:
        words = WORDS[kind].format(n=units, last=units - 1)
        raise ValueError(f"an element of this {kind} is {words}; {wrong}")
    is_order = kind == "permutation" and element.dim() == 1
    return element if is_order or element.is_floating_point() or element.is_complex() else element.double()


def _outside(kind: Kind, numbers: Tensor) -> str:
    """Return why numbers of a right shape are no element, nothing if they are one."""
    if numbers.dim() == 1:
        return "" if _VECTORS[kind](numbers) else "this one is none"
    numbers = numbers if numbers.is_floating_point() else numbers.double()
    error = 1e-8 if numbers.dtype == torch.double else 1e-4
    one = torch.eye(len(numbers)).to(numbers)
    if kind == "general_linear":
        inverse, info = torch.linalg.inv_ex(numbers)
        condition = float(torch.linalg.matrix_norm(numbers, 1) * torch.linalg.matrix_norm(inverse, 1))
        singular = bool(info) or not condition < 0.1 / torch.finfo(numbers.dtype).eps
        return "this one is singular" if singular else ""
    if kind == "rotation":
        off = float((numbers @ numbers.T - one).abs().max())
        return "" if off <= error else f"this one's product with its transpose is off the identity by {off:.1g}"
    if kind == "permutation":
        order = numbers.argmax(dim=1)
        ordered = _VECTORS[kind](order) and float((numbers - one[order]).abs().max()) <= error
        return "" if ordered else "this one is none"
    diagonal = numbers.diagonal()
    apart = float((numbers - diagonal.diag()).abs().max())
    return "" if apart <= error and _VECTORS[kind](diagonal) else "this one is none"


_VECTORS: dict[Kind, Callable[[Tensor], bool]] = {
    "permutation": lambda order: torch.equal(order.sort().values.cpu(), torch.arange(len(order))),
    "sign_flip": lambda signs: float((signs.double().abs() - 1).abs().max()) <= 1e-6,
    "rescaling": lambda factors: bool((factors > 0).all()),
    "complex": lambda factors: bool((factors != 0).all()),
}
