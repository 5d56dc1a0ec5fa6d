"""Mirror symmetries: the mirror of a loss, and the symmetries of neural networks as mirrors (Definitions 1 and 2).

Parameters are flat vectors, with matrices in row-major order (``W.reshape(-1)``), as NumPy arrays or torch tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Mirror:
    """A mirror ``O``: the loss is the same at ``w`` and at its reflection ``(I - 2 O O^T) w`` (Definition 2).

    All methods take parameters of shape (..., parameters), NumPy arrays or torch tensors, and return the same kind.

    Args:
        O: orthonormal columns that span the directions in which the reflection flips the sign, shape
            (parameters, codimension).

    Raises:
        ValueError: if ``O`` is not a matrix of finite numbers with orthonormal columns.
    """

    O: NDArray[np.floating[Any]]  # noqa: E741, the paper's symbol

    def __post_init__(self) -> None:
        matrix = np.array(self.O, dtype=float)
        if matrix.ndim != 2 or not 0 < matrix.shape[1] <= matrix.shape[0]:
            raise ValueError(
                f"O has shape {matrix.shape}; it needs (parameters, codimension), with no more columns than rows"
            )
        deviation = np.abs(matrix.T @ matrix - np.eye(matrix.shape[1])).max()
        if not deviation < 1e-8:
            raise ValueError(
                f"the columns of O are not orthonormal (O^T O is off the identity by {deviation:.2g}); "
                "Mirror.spanned_by takes columns that are not"
            )
        matrix.flags.writeable = False
        object.__setattr__(self, "O", matrix)

    @classmethod
    def spanned_by(cls, directions: ArrayLike) -> Mirror:
        """Return the mirror whose flipped directions are spanned by a vector, or by the columns of a matrix.

        Args:
            directions: shape (parameters,) or (parameters, codimension), linearly independent, of any length.

        Raises:
            ValueError: if the directions are linearly dependent.
        """
        columns = np.asarray(directions, dtype=float)
        columns = columns[:, None] if columns.ndim == 1 else columns
        left, values, right = np.linalg.svd(columns, full_matrices=False)
        if not values.min() > 1e-10 * values.max():
            raise ValueError(f"the {columns.shape[1]} directions are linearly dependent; pass independent ones")
        if columns.shape[1] == 1:
            # Equal entries stay equal to the last bit, so that the distance of a point on the mirror is exactly 0.
            return cls(columns / values)
        return cls(left @ right)

    @property
    def parameters(self) -> int:
        """Length of the parameter vectors on which the mirror acts."""
        return int(self.O.shape[0])

    @property
    def codimension(self) -> int:
        """Number of independent constraints on the mirror."""
        return int(self.O.shape[1])

    @property
    def P(self) -> Array:  # noqa: N802, the paper's symbol
        """The projection ``O O^T`` onto the symmetry-breaking directions, shape (parameters, parameters)."""
        return self.O @ self.O.T

    @property
    def R(self) -> Array:  # noqa: N802, the paper's symbol
        """The reflection ``I - 2 O O^T``, shape (parameters, parameters)."""
        return np.eye(self.parameters) - 2 * self.P

    @cached_property
    def basis(self) -> Array:
        """Orthonormal basis (footnote 1): the columns of ``O``, then those of the space on the mirror, ker P."""
        if self.codimension == self.parameters:
            return np.asarray(self.O)
        complement = np.linalg.svd(self.O.T, full_matrices=True)[2][self.codimension :].T
        return np.concatenate([self.O, complement], axis=1)

    def order_parameter(self, w: Any) -> Any:
        """Return ``O^T w``, shape (..., codimension): zero on the mirror, of opposite signs on its two sides."""
        return self._check(w) @ self._like(w)

    def distance(self, w: Any) -> Any:
        """Return the distance to the mirror, the length of the order parameter, shape (...)."""
        return (self.order_parameter(w) ** 2).sum(-1) ** 0.5

    def project(self, w: Any) -> Any:
        """Return the symmetric solution ``(I - O O^T) w``, the point of the mirror nearest to ``w``."""
        return w - self.order_parameter(w) @ self._like(w).T

    def reflect(self, w: Any) -> Any:
        """Return the mirror image ``(I - 2 O O^T) w``."""
        return w - 2 * (self.order_parameter(w) @ self._like(w).T)

    def is_symmetric(self, loss: Callable[[Any], Any], w: Any, tolerance: float = 1e-9) -> bool:
        """Return whether a loss takes the same value at ``w`` and at its reflection.

        One point can only refute a symmetry; draw several at random to be sure of one.

        Args:
            loss: parameters of shape (parameters,) to a number, without or with decay, which every mirror leaves alone.
            w: a parameter vector off the mirror, shape (parameters,).
            tolerance: largest difference that counts as none, relative to the larger of 1 and the loss.
        """
        here, there = float(loss(w)), float(loss(self.reflect(w)))
        return abs(here - there) <= tolerance * max(1.0, abs(here))

    def rotate(self, hessian: ArrayLike) -> Array:
        """Return a Hessian in :attr:`basis`: two blocks on the mirror, (im P, im P) first (Theorem 1, part 2).

        Args:
            hessian: shape (..., parameters, parameters).
        """
        matrix = np.asarray(hessian, dtype=float)
        if matrix.shape[-2:] != (self.parameters, self.parameters):
            raise ValueError(
                f"the Hessian has shape {matrix.shape}; the mirror needs (..., {self.parameters}, {self.parameters})"
            )
        return np.asarray(self.basis.T @ matrix @ self.basis)

    def off_block(self, hessian: ArrayLike) -> Array:
        """Return the norm of the two blocks that couple im P to ker P over the norm of the Hessian, shape (...).

        0 for a Hessian of zeros. The norm is Frobenius's.
        """
        if self.codimension == self.parameters:
            return np.zeros(np.shape(hessian)[:-2])
        return coupling(hessian, [self.basis[:, : self.codimension], self.basis[:, self.codimension :]])

    def embed(self, indices: Sequence[int], parameters: int) -> Mirror:
        """Return the same mirror in a longer parameter vector, of which it acts on some entries.

        Args:
            indices: the entries it acts on, in its own order, each once.
            parameters: length of the longer vector.

        Raises:
            ValueError: if the number of indices is not the mirror's, or one repeats or lies outside the vector.
        """
        places = np.asarray(indices, dtype=int)
        if len(places) != self.parameters or len(set(places.tolist())) != len(places):
            raise ValueError(f"indices has {len(places)} entries; the mirror needs {self.parameters} different ones")
        if places.min() < 0 or places.max() >= parameters:
            raise ValueError(f"indices run from {places.min()} to {places.max()}; the vector has {parameters} entries")
        matrix = np.zeros((parameters, self.codimension))
        matrix[places] = self.O
        return Mirror(matrix)

    def _check(self, w: Any) -> Any:
        if not hasattr(w, "shape"):
            w = np.asarray(w, dtype=float)
        if len(w.shape) < 1 or w.shape[-1] != self.parameters:
            raise ValueError(
                f"w has shape {tuple(w.shape)} and O has shape {self.O.shape}; w needs {self.parameters} entries "
                "in its last dimension (flatten matrices first)"
            )
        return w

    def _like(self, w: Any) -> Any:
        """Return ``O`` as the kind of array that ``w`` is (torch's tensors know how to make their own kind)."""
        return w.new_tensor(self.O.tolist()) if hasattr(w, "new_tensor") else self.O


def sectors(mirrors: Sequence[Mirror]) -> list[Array]:
    """Split the parameter space along several mirrors that commute: each sector is in im P or ker P of each of them.

    At a solution on all of the mirrors the Hessian has no entries between sectors (Section 2.3: sub-blocks).

    Args:
        mirrors: at least one, all for vectors of one length.

    Returns:
        Orthonormal bases of the sectors that are not empty, each of shape (parameters, size), those that the first
        mirror flips first.

    Raises:
        ValueError: if two mirrors do not commute, or act on vectors of different lengths.
    """
    bases = [np.eye(mirrors[0].parameters)]
    for index, mirror in enumerate(mirrors):
        if mirror.parameters != mirrors[0].parameters:
            raise ValueError(
                f"mirror 0 acts on {mirrors[0].parameters} parameters and mirror {index} on {mirror.parameters}; "
                "embed them in one vector first"
            )
        bases = [part for basis in bases for part in _split(basis, mirror, index)]
    return bases


def coupling(hessian: ArrayLike, parts: Sequence[Array]) -> Array:
    """Return the norm of a Hessian's entries between different parts over that of the whole (Section 2.3, Fig. 2).

    Args:
        hessian: shape (..., parameters, parameters).
        parts: orthonormal bases of the parts, as :func:`sectors` returns them.

    Returns:
        Ratios of Frobenius norms, shape (...); 0 for a Hessian of zeros.
    """
    basis = np.concatenate(parts, axis=1)
    part = np.repeat(np.arange(len(parts)), [columns.shape[1] for columns in parts])
    squares = (basis.T @ np.asarray(hessian, dtype=float) @ basis) ** 2
    between = np.where(part[:, None] != part, squares, 0.0).sum((-2, -1))
    whole = squares.sum((-2, -1))
    return np.asarray(np.sqrt(between / np.where(whole > 0, whole, 1.0)))


def _split(basis: Array, mirror: Mirror, index: int) -> list[Array]:
    values, vectors = np.linalg.eigh(basis.T @ mirror.P @ basis)
    if np.minimum(np.abs(values), np.abs(values - 1)).max() > 1e-8:
        raise ValueError(f"mirror {index} does not commute with those before it, so there are no common sectors")
    flipped = values > 0.5
    return [basis @ vectors[:, keep] for keep in (flipped, ~flipped) if keep.any()]


def identity_mirror(parameters: int) -> Mirror:
    """Return the mirror ``O = I``, a flip of all signs: rescaling between two vectors of any length (Theorem 2).

    The only symmetric solution is zero.

    Args:
        parameters: length of both vectors together.
    """
    return Mirror(np.eye(parameters))


def rescaling_mirrors() -> tuple[Mirror, Mirror]:
    """Return both mirrors of ``loss(u, w) = loss(rho u, w / rho)`` for two scalars (Section 3.1).

    The first flips (1, 1), so its symmetric solution is ``u = -w``; the second flips (1, -1), with ``u = w``.
    """
    return Mirror.spanned_by([1.0, 1.0]), Mirror.spanned_by([1.0, -1.0])


def rotation_mirror(normal: ArrayLike, columns: int) -> Mirror:
    """Return the mirror of ``loss(W) = loss(Omega W)`` along a direction, ``n^T W = 0`` (Theorem 3).

    Args:
        normal: the direction, shape (rows of W,), or several as columns, shape (rows of W, directions).
        columns: number of columns of ``W``.

    Returns:
        A mirror for ``W.reshape(-1)``: the reflection ``W -> (I - 2 n n^T) W``.
    """
    return Mirror(np.kron(Mirror.spanned_by(normal).O, np.eye(columns)))


def double_rotation_mirror(normal: ArrayLike, rows: int, columns: int) -> Mirror:
    """Return the mirror of ``loss(U, W) = loss(U R, R^T W)`` along a direction: ``n^T W = 0`` and ``U n = 0``.

    Args:
        normal: the direction in the space between the two, shape (hidden,) or (hidden, directions).
        rows: number of rows of ``U``, of shape (rows, hidden).
        columns: number of columns of ``W``, of shape (hidden, columns).

    Returns:
        A mirror for the vector of ``U.reshape(-1)`` followed by ``W.reshape(-1)`` (Section 3.2).
    """
    directions = Mirror.spanned_by(normal).O
    of_u, of_w = np.kron(np.eye(rows), directions), np.kron(directions, np.eye(columns))
    upper = np.concatenate([of_u, np.zeros((len(of_u), of_w.shape[1]))], axis=1)
    lower = np.concatenate([np.zeros((len(of_w), of_u.shape[1])), of_w], axis=1)
    return Mirror(np.concatenate([upper, lower]))


def permutation_mirror(size: int) -> Mirror:
    """Return the mirror of ``loss(theta_a, theta_b) = loss(theta_b, theta_a)``: ``theta_a = theta_b`` (Eq. 11).

    Args:
        size: number of parameters in each of the two, such as a neuron's incoming and outgoing weights.

    Returns:
        A mirror for the vector of ``theta_a`` followed by ``theta_b``; :meth:`Mirror.embed` takes other places.
    """
    identity: Array = np.eye(size)
    return Mirror(np.concatenate([identity, -identity]) * np.sqrt(0.5))
