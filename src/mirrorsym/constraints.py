"""Constraints by symmetry: differentiable constraints (DCS, Section 2.6) as parametrizations of PyTorch parameters.

A parametrization replaces a parameter by a function of others that are trained in its place. These have a mirror
symmetry at which the constraint holds, so weight decay, a large learning rate or gradient noise drives the parameter
there. :mod:`mirrorsym.constraining` puts them on the parameters of a network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

ZERO_PARTNER = 0.1
"""Start of u where the parameter is exactly 0: w = u = 0 has no gradient, and would never move."""
IMBALANCE = 0.01
"""u² - w² at the start, where nothing else is asked for: an entry at 0 starts as w = 0 and u = 0.1."""
ORTHONORMAL_TOLERANCE = 1e-5


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


def factors(product: Tensor, imbalance: float) -> tuple[Tensor, Tensor]:
    """Return w and u with w⊙u = ``product``: balanced ones where the imbalance is 0, unbalanced ones elsewhere.

    Args:
        product: any shape.
        imbalance: u² - w², 0 or positive.
    """
    return unbalanced_factors(product, imbalance) if imbalance else balanced_factors(product)


class Hadamard(nn.Module):
    """A parameter as the elementwise product w⊙u: sparsity by rescaling symmetry (Sections 2.6 and 3.1).

    It is DCS with P = I, for any shape. The mirror of an entry is w = u = 0, where the entry is 0. Weight decay on both
    factors is the lasso's penalty on the parameter, here on a layer that PyTorch initialized::

        layer = mirrorsym.constrain(nn.Linear(20, 1), "weight", mirrorsym.Hadamard())
        optimizer = torch.optim.SGD(mirrorsym.parameter_groups(layer, weight_decay=2 * gamma), lr=0.05)
        ...  # on (layer(x)[:, 0] - y).square().mean() it ends where scikit-learn's Lasso(alpha=gamma) does

    PyTorch's weight decay is twice the paper's α of Eq. 7, since its gradient is ``weight_decay`` times the parameter.

    Args:
        imbalance: u² - w² at the start. It lets every entry change its sign; from 0, a balanced start
            (:func:`balanced_factors`), gradient descent keeps w = u or w = -u, and no entry ever changes its sign.

    Raises:
        ValueError: if the imbalance is negative or infinite.
    """

    def __init__(self, imbalance: float = IMBALANCE) -> None:
        super().__init__()
        self.imbalance = _checked("Hadamard", imbalance)

    def forward(self, w: Tensor, u: Tensor) -> Tensor:
        """Return w⊙u."""
        return w * u

    def right_inverse(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return factors whose product is ``value``.

        Raises:
            ValueError: if the parameter is not real and floating point.
        """
        _require_real("Hadamard", value)
        return factors(value, self.imbalance)


class Unit(nn.Module):
    """Parameters of a layer as one number g a unit times a vector v: whole units vanish (Sections 2.6 and 3.1).

    The rescaling symmetry of g and v has its mirror at g = 0, v = 0, where the unit is zero. Decay on both penalizes
    the norm of each unit's weights, all its parameters together, as the group lasso does: g² + ‖v‖² ≥ 2‖gv‖.

    Args:
        values: the parameters, such as a layer's weight and bias, of any shapes with as many units each.
        axis: the units' axis in those that have several.
        imbalance: g² - ‖v‖² at the start.

    Raises:
        ValueError: if the parameters are not real, have no such axis, differ in the number of units or in dtype, or if
            the imbalance is negative or infinite.
    """

    def __init__(self, values: Sequence[Tensor], axis: int = 0, imbalance: float = IMBALANCE) -> None:
        super().__init__()
        self.imbalance, self.axis = _checked("Unit", imbalance), axis
        for value in values:
            _require_real("Unit", value)
        shapes = [tuple(value.shape) for value in values]
        if not all(len(shape) < 2 or -len(shape) <= axis < len(shape) for shape in shapes):
            raise ValueError(f"Unit: parameters of the shapes {shapes} do not all have an axis {axis}")
        if len({len(self._rows(value)) for value in values}) != 1:
            raise ValueError(f"Unit: parameters of the shapes {shapes} do not have as many units along axis {axis}")
        self.g = nn.Parameter(self.start(values), requires_grad=any(value.requires_grad for value in values))

    @torch.no_grad()
    def start(self, values: Sequence[Tensor]) -> Tensor:
        """Return the g that fits the norms of the units, shape (units,).

        Args:
            values: as in the constructor.
        """
        rows = torch.cat([self._rows(value) for value in values], dim=1)
        return factors(rows.norm(dim=1), self.imbalance)[1]

    def forward(self, v: Tensor) -> Tensor:
        """Return g v, in the shape of ``v``."""
        return self.along(v, self.g) * v

    def right_inverse(self, value: Tensor) -> Tensor:
        """Return the v at which the parameter is ``value``; g stays, since other parameters share it.

        Raises:
            ValueError: if a unit that is to be different from zero has g = 0.
        """
        g = self.along(value, self.g)
        v = torch.where(value == 0, 0.0, value / g)
        if bool(((g == 0) & (value != 0)).any()):
            raise ValueError("Unit: a unit with g = 0 cannot take a value; load_plain_state_dict starts it anew")
        return v

    def along(self, value: Tensor, g: Tensor) -> Tensor:
        """Return g in a shape that multiplies the units of ``value``."""
        if value.dim() < 2:
            return g.reshape(value.shape)
        return g.reshape([-1 if axis == self.axis % value.dim() else 1 for axis in range(value.dim())])

    def _rows(self, value: Tensor) -> Tensor:
        rows = value.reshape(-1, 1) if value.dim() < 2 else value.movedim(self.axis, 0).flatten(1)
        return rows.detach()


class _Projected(nn.Module):
    """What both forms of DCS share: the orthonormal matrix O and checks that name the constraint and the shape."""

    o: Tensor

    def __init__(self, o: Tensor, imbalance: float = IMBALANCE) -> None:
        super().__init__()
        name = type(self).__name__
        self.imbalance = _checked(name, imbalance)
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


class DCS(_Projected):
    """A parameter as T(w, u, v) = (I - P)v + (Pw)⊙(Pu), P = OOᵀ: Eq. 7 as printed.

    The mirror is Pw = Pu = 0, where Oᵀ of the parameter is 0. The product is taken in the coordinates of the parameter.
    Where P is not diagonal it leaves the image of P: for O = (1, -1)/√2 it is a multiple of (1, 1), Oᵀ of the parameter
    is 0 whatever w and u are, and the parametrization is not faithful. :class:`MirrorDCS` takes the product in O's
    coordinates and is faithful for every O; both agree where the columns of O are coordinate directions.

    Args:
        o: orthonormal columns, the directions to constrain, shape (entries of the parameter, directions). The parameter
            is flattened in row-major order.
        imbalance: u² - w² at the start, as in :class:`Hadamard`.

    Raises:
        ValueError: if O has another form, its columns are not orthonormal, or the imbalance is negative or infinite.
    """

    def project(self, value: Tensor) -> Tensor:
        """Return P ``value`` = O Oᵀ ``value`` for a flattened parameter."""
        return self.o @ (self.o.T @ value)

    def forward(self, w: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Return T(w, u, v), in the shape of ``v``."""
        flat = self._flat(v)
        result = flat - self.project(flat) + self.project(self._flat(w)) * self.project(self._flat(u))
        return result.reshape(v.shape)

    def right_inverse(self, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return w, u and v with T(w, u, v) = ``value``, each in its shape.

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
        w, u = (self.project(factor).reshape(value.shape) for factor in factors(self.project(flat), self.imbalance))
        return w, u, value.clone()

    def _flat(self, value: Tensor) -> Tensor:
        _require_rows(self, value, value.numel(), "an entry")
        return value.reshape(-1)


class MirrorDCS(_Projected):
    """A parameter as (I - P)v + O(w⊙u): Eq. 7 with its product in the coordinates of O.

    Its w and u are the paper's Oᵀw and Oᵀu, all of them that counts. The mirror is w = u = 0, where Oᵀ of the parameter
    is 0; each of their entries has a mirror of its own. Any value can be reached, for every O. Over two units' weights
    O = (1, -1)/√2 drives the two together, here two channels of a convolution (:func:`ties`)::

        mirrorsym.constrain(nn.Conv2d(512, 512, 3), "weight", mirrorsym.MirrorDCS(mirrorsym.ties(512, [3, 7]), axis=0))

    Args:
        o: orthonormal columns, the directions to constrain, shape (units along the axis, directions); without an axis
            (entries of the parameter, directions), the parameter flattened in row-major order.
        axis: the axis of the parameter on which O acts, alike for all entries along the others.
        imbalance: u² - w² at the start, as in :class:`Hadamard`.

    Raises:
        ValueError: if O has another form, its columns are not orthonormal, or the imbalance is negative or infinite.
    """

    def __init__(self, o: Tensor, axis: int | None = None, imbalance: float = IMBALANCE) -> None:
        super().__init__(o, imbalance)
        self.axis = axis

    def forward(self, w: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Return the parameter, in the shape of ``v``.

        Args:
            w: shape (directions, entries along the other axes, which are 1 without an axis).
            u: as w.
            v: in the shape of the parameter.
        """
        rows = self._rows(v)
        return self._shaped(rows + self.o @ (w * u - self.o.T @ rows), v.shape)

    def right_inverse(self, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return w, u and v at which the parameter is ``value``.

        Raises:
            ValueError: if the parameter is not real, or O has another number of rows than it has units.
        """
        _require_real("MirrorDCS", value)
        w, u = factors(self.o.T @ self._rows(value), self.imbalance)
        return w, u, value.clone()

    def _rows(self, value: Tensor) -> Tensor:
        if self.axis is None:
            _require_rows(self, value, value.numel(), "an entry")
            return value.reshape(-1, 1)
        if not -value.dim() <= self.axis < value.dim():
            raise ValueError(f"MirrorDCS: the parameter has shape {tuple(value.shape)}, and no axis {self.axis}")
        _require_rows(self, value, value.shape[self.axis], f"a unit along axis {self.axis}")
        return value.movedim(self.axis, 0).reshape(value.shape[self.axis], -1)

    def _shaped(self, rows: Tensor, shape: torch.Size) -> Tensor:
        if self.axis is None:
            return rows.reshape(shape)
        others = torch.empty(shape, device="meta").movedim(self.axis, 0).shape[1:]
        return rows.reshape(len(rows), *others).movedim(0, self.axis)


def ties(units: int, *groups: Sequence[int]) -> Tensor:
    """Return the O of :class:`MirrorDCS` on whose mirror all units of a group are the same (Theorem 4).

    Args:
        units: how many there are.
        groups: the units of each group by their numbers, each unit in one group at most.

    Returns:
        Orthonormal columns, shape (units, directions), one direction fewer than units in each group.

    Raises:
        ValueError: if a unit is not there or in two places, or no group has two.
    """
    members = [unit for group in groups for unit in group]
    if len(set(members)) != len(members) or not all(0 <= unit < units for unit in members):
        raise ValueError(f"ties: the groups {groups} have to hold each of the units 0 to {units - 1} at most once")
    columns = []
    for group in groups:
        for number in range(1, len(group)):  # Helmert's contrasts: the next one against the mean of those before it
            column = torch.zeros(units)
            column[list(group[:number])], column[group[number]] = 1.0, -float(number)
            columns.append(column / (number * (number + 1)) ** 0.5)
    if not columns:
        raise ValueError(f"ties: none of the groups {groups} has two units")
    return torch.stack(columns, dim=1)


def _require_real(constraint: str, value: Tensor) -> None:
    if not value.is_floating_point():
        raise ValueError(
            f"{constraint}: the parameter of shape {tuple(value.shape)} has dtype {value.dtype}; it has to be real and "
            "floating point"
        )


def _require_rows(constraint: _Projected, value: Tensor, rows: int, each: str) -> None:
    if rows != constraint.o.shape[0]:
        raise ValueError(
            f"{type(constraint).__name__}: the parameter has shape {tuple(value.shape)}, {value.numel()} entries, and "
            f"O has shape {tuple(constraint.o.shape)}; O needs one row {each}"
        )


def _checked(constraint: str, imbalance: float) -> float:
    if not 0 <= imbalance < float("inf"):
        raise ValueError(f"{constraint}: imbalance is {imbalance}; it has to be 0 or a positive number")
    return imbalance
