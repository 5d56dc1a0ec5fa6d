"""Rescalings and sign flips: the solutions of the equations between charges, each as local as it can be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from mirrorsym.symmetries.atoms import Charges, Ids, components, oriented

HUB = 100
"""A charge in more equations than these ties too much: it is taken to be 0, so that the others come apart."""
COMBINED = 5
"""Up to so many independent solutions of one system are combined, in search of those with the fewest parameters."""


@dataclass(frozen=True)
class Solved:
    """Charges by class: what is equal up to a sign is one class.

    Args:
        own: class of each atom.
        orientation: ±1 of each atom in its class.
        zero: whether each atom's charge is 0.
        rows: equations Σ coefficient · class = 0 that are left, each a mapping from class to coefficient.
    """

    own: Ids
    orientation: Ids
    zero: NDArray[np.bool_]
    rows: list[dict[int, float]]


def reduced(count: int, charges: Charges, signs: bool) -> Solved:
    """Solve all equations of two charges, and say which remain.

    Args:
        count: number of atoms.
        charges: the equations.
        signs: whether they are those of signs, modulo 2.
    """
    zeros = np.concatenate([np.zeros(1, np.int64), *charges.zero])
    edges = [*charges.equal, (zeros, np.zeros_like(zeros), 1)]
    if not signs:
        edges.append((np.zeros(1, np.int64), np.zeros(1, np.int64), -1))
    atoms, factors = _rows(charges, signs)
    while True:
        own, orientation, opposite = oriented(count, edges)
        zero = (own == own[0]) | opposite & (not signs)
        classes, coefficients = own[atoms], np.where(zero[atoms], 0.0, factors * orientation[atoms])
        classes, coefficients = _collected(classes, coefficients, signs)
        terms = (coefficients != 0).sum(axis=1)
        new = _consequences(classes, coefficients, terms, signs)
        if not new and not (hubs := _hubs(classes, coefficients, terms)).size:
            kept = terms > 1
            rows = {
                tuple(zip(c, k, strict=True))
                for c, k in zip(classes[kept].tolist(), coefficients[kept].tolist(), strict=True)
            }
            return Solved(own, orientation, zero, [{c: k for c, k in row if k} for row in sorted(rows)])
        edges += new or [(hubs, np.zeros_like(hubs), 1)]
        alive = terms > 1
        atoms, factors = classes[alive], coefficients[alive]


def _rows(charges: Charges, signs: bool) -> tuple[Ids, NDArray[np.float64]]:
    atoms, factors = [np.zeros((0, 3), np.int64)], [np.zeros((0, 3))]
    for made, a, b, ka, kb in charges.sums:
        rows = np.stack([made, a, b], axis=1)
        kept = (made != 0) & (a != 0) & ((b != 0) | (kb == 0))
        atoms.append(rows[kept])
        factors.append(np.tile([1.0, ka if signs else -ka, kb if signs else -kb], (int(kept.sum()), 1)))
    return np.concatenate(atoms), np.concatenate(factors)


def _collected(classes: Ids, factors: NDArray[np.float64], signs: bool) -> tuple[Ids, NDArray[np.float64]]:
    """Add up what an equation has of one class, in place."""
    for first, second in ((0, 1), (0, 2), (1, 2)):
        same = (classes[:, first] == classes[:, second]) & (factors[:, second] != 0)
        factors[same, first] += factors[same, second]
        factors[same, second] = 0
    if signs:
        factors = np.abs(factors) % 2
    classes[factors == 0] = 0
    return classes, factors


def _consequences(
    classes: Ids, factors: NDArray[np.float64], terms: NDArray[np.int64], signs: bool
) -> list[tuple[Ids, Ids, int]]:
    """Return what follows from the equations that have one term, or two of one size."""
    new = []
    alone = classes[terms == 1].max(axis=1) if (terms == 1).any() else np.zeros(0, np.int64)
    if alone.size:
        new.append((alone, np.zeros_like(alone), 1))
    pair = factors[terms == 2] != 0
    left, right = (classes[terms == 2][pair].reshape(-1, 2)).T
    of_left, of_right = (factors[terms == 2][pair].reshape(-1, 2)).T
    alike = np.abs(of_left) == np.abs(of_right)
    for orientation in (1, -1):
        chosen = alike & (np.sign(of_left * of_right) == -orientation)
        if signs:
            chosen = alike if orientation == 1 else np.zeros_like(alike)
        if chosen.any():
            new.append((left[chosen], right[chosen], orientation))
    return new


def _hubs(classes: Ids, factors: NDArray[np.float64], terms: NDArray[np.int64]) -> Ids:
    found = classes[(factors != 0) & (terms > 1)[:, None]]
    names, counts = np.unique(found, return_counts=True)
    return names[counts > HUB][:1] if (counts > HUB).any() else np.zeros(0, np.int64)


def generators(solved: Solved, weights: Ids, signs: bool) -> Iterator[dict[int, float]]:
    """Yield independent solutions, as charges by class.

    Args:
        solved: what :func:`reduced` returns.
        weights: how many parameters have atoms of a class, shape (classes,); solutions with few of them are preferred.
        signs: whether charges are those of signs, modulo 2.
    """
    tied = sorted({name for row in solved.rows for name in row})
    place = {name: index for index, name in enumerate(tied)}
    edges = []
    for row in solved.rows:
        names = [place[name] for name in row]
        edges += [(names[0], name) for name in names[1:]]
    array = np.array(edges, dtype=np.int64).reshape(-1, 2)
    label = components(len(tied), [(array[:, 0], array[:, 1])])
    members, rows = defaultdict(list), defaultdict(list)
    for name, group in zip(tied, label.tolist(), strict=True):
        members[group].append(name)
    for row in solved.rows:
        rows[int(label[place[next(iter(row))]])].append(row)
    for name in np.setdiff1d(np.flatnonzero(weights), tied).tolist():
        if not solved.zero[name]:
            yield {name: 1.0}
    known: dict[object, list[list[float]]] = {}
    for group, names in members.items():
        local = {name: index for index, name in enumerate(names)}
        system = tuple(sorted(tuple(sorted((local[name], k) for name, k in row.items())) for row in rows[group]))
        weight = tuple(weights[names].tolist())
        key = (system, weight)
        if key not in known:
            known[key] = _solutions(system, weight, signs)
        for solution in known[key]:
            yield {names[i]: k for i, k in enumerate(solution) if k}


def _solutions(
    system: tuple[tuple[tuple[int, float], ...], ...], weight: tuple[int, ...], signs: bool
) -> list[list[float]]:
    """Return independent solutions of one system, those with the fewest parameters that combinations give."""
    matrix = np.zeros((len(system), len(weight)))
    for index, row in enumerate(system):
        for name, k in row:
            matrix[index, name] += k
    basis = _null_space(matrix, weight, signs)
    if not 1 < len(basis) <= COMBINED:
        return [list(vector) for vector in basis]
    combined = []
    for factors in product((0, 1) if signs else (0, 1, -1), repeat=len(basis)):
        vector = np.array(factors) @ np.array(basis)
        vector = vector % 2 if signs else vector
        if any(factors):
            combined.append(vector if signs or vector[np.flatnonzero(vector)[0]] > 0 else -vector)
    combined.sort(key=lambda vector: (float(((vector != 0) * weight).sum()), -float((vector > 0).sum())))
    chosen: list[NDArray[np.float64]] = []
    for vector in combined:
        if _rank([*chosen, vector], signs) > len(chosen):
            chosen.append(vector)
        if len(chosen) == len(basis):
            break
    return [list(vector) for vector in chosen]


def _null_space(matrix: NDArray[np.float64], weight: tuple[int, ...], signs: bool) -> list[NDArray[np.float64]]:
    """Return a basis of the solutions; the lightest unknowns are written by the others."""
    order = sorted(range(len(weight)), key=lambda index: weight[index])
    m = matrix[:, order].copy()
    pivots: list[int] = []
    row = 0
    for column in range(m.shape[1]):
        candidates = np.flatnonzero(np.abs(m[row:, column]) > 1e-9)
        if not candidates.size:
            continue
        m[[row, row + candidates[0]]] = m[[row + candidates[0], row]]
        m[row] /= m[row, column]
        for other in range(len(m)):
            if other != row and abs(m[other, column]) > 1e-9:
                m[other] -= m[other, column] * m[row]
        m = m % 2 if signs else m
        pivots.append(column)
        row += 1
        if row == len(m):
            break
    basis = []
    for column in (c for c in range(m.shape[1]) if c not in pivots):
        vector = np.zeros(m.shape[1])
        vector[column] = 1
        for index, pivot in enumerate(pivots):
            vector[pivot] = m[index, column] if signs else -m[index, column]
        whole = np.zeros_like(vector)
        whole[order] = vector
        basis.append(whole % 2 if signs else whole)
    return basis


def _rank(vectors: list[NDArray[np.float64]], signs: bool) -> int:
    matrix = np.array(vectors)
    return len(vectors[0]) - len(_null_space(matrix, tuple([1] * matrix.shape[1]), signs))
