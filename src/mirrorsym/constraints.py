"""Constraints by symmetry: differentiable constraints (DCS, Section 2.6) as parametrizations of PyTorch parameters.

A parametrization replaces a parameter by a function of others that are trained in its place. These have a mirror
symmetry at which the constraint holds, so weight decay, a large learning rate or gradient noise drives the parameter
there::

    layer = constraints.constrain(nn.Linear(20, 1), "weight", constraints.Hadamard())
    torch.optim.SGD(layer.parameters(), lr=0.1, weight_decay=2 * gamma)  # the lasso with penalty 2 gamma |weight|

Weight decay in PyTorch is twice the paper's α of Eq. 7, since its gradient is ``weight_decay`` times the parameter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

ZERO_PARTNER = 0.1
"""Start of u where the parameter is exactly 0: w = u = 0 has no gradient, and would never move."""
ORTHONORMAL_TOLERANCE = 1e-5

Module = TypeVar("Module", bound=nn.Module)


def balanced_factors(product: Tensor) -> tuple[Tensor, Tensor]:
    """Return w and u with w⊙u = ``product``: w = sign √, u = √ of its magnitude, and w = 0, u = 0.1 where it is 0.

    Gradient descent keeps w = u, or w = -u, once it holds: an entry that starts balanced and not at 0 can shrink to 0
    and grow, and never change its sign.

    Args:
        product: any shape.
    """
    root = product.abs().sqrt()
    return product.sign() * root, torch.where(product == 0, torch.full_like(root, ZERO_PARTNER), root)


def unbalanced_factors(product: Tensor, imbalance: float) -> tuple[Tensor, Tensor]:
    """Return w and u with w⊙u = ``product`` and u² - w² = ``imbalance``, from which every entry can change its sign.

    Args:
        product: any shape.
        imbalance: positive; weight decay lets it decay in training.
    """
    u = (imbalance / 2 + torch.hypot(product, torch.full_like(product, imbalance / 2))).sqrt()
    return product / u, u


class Hadamard(nn.Module):
    """A parameter as the elementwise product w⊙u: sparsity by rescaling symmetry (Sections 2.6 and 3.1).

    It is DCS with P = I, for any shape. The mirror of an entry is w = u = 0, where the entry is 0.

    Args:
        imbalance: u² - w² at the start. 0 starts balanced (:func:`balanced_factors`), and no entry ever changes its
            sign; with 0.01 an entry at 0 starts alike, w = 0 and u = 0.1, and all entries can change their signs.

    Raises:
        ValueError: if the imbalance is negative or infinite.
    """

    def __init__(self, imbalance: float = 0.0) -> None:
        super().__init__()
        if not 0 <= imbalance < float("inf"):
            raise ValueError(f"Hadamard: imbalance is {imbalance}; it has to be 0 or a positive number")
        self.imbalance = imbalance

    def forward(self, w: Tensor, u: Tensor) -> Tensor:
        """Return w⊙u."""
        return w * u

    def right_inverse(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return factors whose product is ``value``.

        Raises:
            ValueError: if the parameter is not real and floating point.
        """
        _require_real("Hadamard", value)
        return unbalanced_factors(value, self.imbalance) if self.imbalance else balanced_factors(value)


class _Projected(nn.Module):
    """What both forms of DCS share: the orthonormal matrix O and checks that name the constraint and the shape."""

    o: Tensor

    def __init__(self, o: Tensor) -> None:
        super().__init__()
        name = type(self).__name__
        if o.ndim != 2 or not 0 < o.shape[1] <= o.shape[0]:
            raise ValueError(
                f"{name}: O has shape {tuple(o.shape)}; it has to be (entries of the parameter, directions), with "
                "at least one direction and no more than entries"
            )
        error = (o.T @ o - torch.eye(o.shape[1], dtype=o.dtype, device=o.device)).abs().max().item()
        if not error <= ORTHONORMAL_TOLERANCE:
            raise ValueError(
                f"{name}: the columns of O, of shape {tuple(o.shape)}, are not orthonormal (OᵀO is off the identity by "
                f"{error:.2g}); torch.linalg.qr makes them so"
            )
        self.register_buffer("o", o)

    def project(self, value: Tensor) -> Tensor:
        """Return P ``value`` = O Oᵀ ``value`` for a flattened parameter."""
        return self.o @ (self.o.T @ value)

    def _flat(self, value: Tensor) -> Tensor:
        if value.numel() != self.o.shape[0]:
            raise ValueError(
                f"{type(self).__name__}: the parameter has shape {tuple(value.shape)}, {value.numel()} entries, and O "
                f"has shape {tuple(self.o.shape)}; O needs one row an entry"
            )
        return value.reshape(-1)


class DCS(_Projected):
    """A parameter as T(w, u, v) = (I - P)v + (Pw)⊙(Pu), P = OOᵀ: Eq. 7 as printed.

    The mirror is Pw = Pu = 0, where Oᵀ of the parameter is 0. The product is taken in the coordinates of the parameter.
    Where P is not diagonal it leaves the image of P: for O = (1, -1)/√2 it is a multiple of (1, 1), Oᵀ of the parameter
    is 0 whatever w and u are, and the parametrization is not faithful. :class:`MirrorDCS` takes the product in O's
    coordinates and is faithful for every O; both agree where the columns of O are coordinate directions.

    Args:
        o: orthonormal columns, the directions to constrain, shape (entries of the parameter, directions). The parameter
            is flattened in row-major order.

    Raises:
        ValueError: if O has another form or its columns are not orthonormal.
    """

    def forward(self, w: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Return T(w, u, v), in the shape of ``v``."""
        flat = self._flat(v)
        result = flat - self.project(flat) + self.project(self._flat(w)) * self.project(self._flat(u))
        return result.reshape(v.shape)

    def right_inverse(self, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return w, u and v with T(w, u, v) = ``value``; w and u are balanced.

        Raises:
            ValueError: if the parameter is not real, O has another number of rows than it has entries, or P is not
                diagonal.
        """
        _require_real("DCS", value)
        flat = self._flat(value)
        projection = self.o @ self.o.T
        if (projection - projection.diagonal().diag()).abs().max() > ORTHONORMAL_TOLERANCE:
            raise ValueError(
                f"DCS: with this O of shape {tuple(self.o.shape)}, P = OOᵀ is not diagonal and Eq. 7 cannot take every "
                f"value of a parameter of shape {tuple(value.shape)}; use MirrorDCS"
            )
        w, u = (self.project(factor).reshape(value.shape) for factor in balanced_factors(self.project(flat)))
        return w, u, value.clone()


class MirrorDCS(_Projected):
    """A parameter as (I - P)v + O((Oᵀw)⊙(Oᵀu)): Eq. 7 with its product in the coordinates of O.

    The mirror is Oᵀw = Oᵀu = 0, where Oᵀ of the parameter is 0; each column of O is a mirror of its own. Any value can
    be reached, for every O: with O = (1, -1)/√2 over two neurons' weights it drives the two together.

    Args:
        o: orthonormal columns, the directions to constrain, shape (entries of the parameter, directions). The parameter
            is flattened in row-major order.

    Raises:
        ValueError: if O has another form or its columns are not orthonormal.
    """

    def forward(self, w: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Return the parameter, in the shape of ``v``."""
        flat = self._flat(v)
        product = (self.o.T @ self._flat(w)) * (self.o.T @ self._flat(u))
        return (flat - self.project(flat) + self.o @ product).reshape(v.shape)

    def right_inverse(self, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return w, u and v at which the parameter is ``value``; w and u are balanced along each column of O.

        Raises:
            ValueError: if the parameter is not real, or O has another number of rows than it has entries.
        """
        _require_real("MirrorDCS", value)
        w, u = balanced_factors(self.o.T @ self._flat(value))
        return (self.o @ w).reshape(value.shape), (self.o @ u).reshape(value.shape), value.clone()


def constrain(module: Module, name: str, constraint: nn.Module) -> Module:
    """Put a constraint on one parameter of a module, whose value stays what it is; return the module (Section 2.6).

    Args:
        module: owner of the parameter.
        name: the parameter's name in it, such as ``"weight"``.
        constraint: :class:`Hadamard`, :class:`DCS` or :class:`MirrorDCS`.

    Raises:
        ValueError: if there is no such parameter, or the constraint does not fit it.
    """
    if not isinstance(getattr(module, name, None), Tensor):
        own = ", ".join(parameter for parameter, _ in module.named_parameters(recurse=False))
        raise ValueError(f"{type(module).__name__} has no parameter {name!r}; it has {own or 'none of its own'}")
    parametrize.register_parametrization(module, name, constraint)
    return module


def constrain_all(module: Module) -> Module:
    """Write every parameter of a module and its submodules as w⊙u, values kept; return the module (Fig. 7).

    Args:
        module: the module; it is changed.
    """
    for submodule in list(module.modules()):
        for name, _ in list(submodule.named_parameters(recurse=False)):
            constrain(submodule, name, Hadamard())
    return module


def effective_parameters(module: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """Yield (owner, name, value) of all that a module computes with: for a constrained parameter T of Eq. 7.

    Args:
        module: the module, constrained or not.
    """
    for submodule in module.modules():
        if isinstance(submodule, parametrize.ParametrizationList):
            continue
        for name in getattr(submodule, "parametrizations", {}):
            yield submodule, name, getattr(submodule, name)
        for name, parameter in submodule.named_parameters(recurse=False):
            yield submodule, name, parameter


def _require_real(constraint: str, value: Tensor) -> None:
    if not value.is_floating_point():
        raise ValueError(
            f"{constraint}: the parameter of shape {tuple(value.shape)} has dtype {value.dtype}; it has to be real and "
            "floating point"
        )
