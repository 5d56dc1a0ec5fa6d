"""Theorems 2 to 4: rescaling, rotation and permutation symmetry."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mirrorsym import mirrors
from reproduction.experiments.theory_checks.losses import (
    Loss,
    attention,
    factorization,
    gradient,
    hessian,
    normal,
    random_loss,
    relu_network,
    tanh_network,
    unit,
    with_decay,
)
from reproduction.experiments.theory_checks.violations import Violation, fraction, worst

Generator = np.random.Generator
Function = Callable[[Tensor], Tensor]

DECAYS = (-1.0, 0.0, 0.3, 1e6)


def at(loss: Loss, sample: Tensor) -> Function:
    """Return the loss of one sample."""
    return lambda w: loss(w, sample)


def rescaling_loss(rng: Generator, u: int, w: int) -> Function:
    """Return a random smooth function of the outer product of u and w, parameters (u, w)."""
    of_product, sample = random_loss(rng, u * w), normal(rng, 4)
    return lambda theta: of_product(torch.outer(theta[:u], theta[u:]).reshape(-1), sample)


def theorem2_part1(rng: Generator) -> Violation:
    """Gradients at u = w = 0."""
    residuals, control = [], []
    for u, w in ((1, 1), (2, 4), (3, 3)):
        loss, plain = rescaling_loss(rng, u, w), at(random_loss(rng, u + w), normal(rng, 4))
        zero, elsewhere = torch.zeros(u + w, dtype=torch.float64), normal(rng, u + w)
        for gamma in DECAYS:
            here, there = (gradient(with_decay(loss, gamma), point).norm() for point in (zero, elsewhere))
            residuals.append(float(here / there))
        control.append(float(gradient(plain, zero).norm() / gradient(plain, elsewhere).norm()))
    return Violation(worst(residuals), control=min(control))


def theorem2_part2(rng: Generator) -> Violation:
    """Just above the printed gamma_0 (Eq. 40), which is 0/0 at u = w = 0; mended: without that point."""
    fails = []
    for u, w in ((1, 1), (2, 4), (3, 3)):
        loss = rescaling_loss(rng, u, w)
        zero = torch.zeros(u + w, dtype=torch.float64)
        for size in (1e-2, 1.0, 30.0):
            point = size * normal(rng, u + w)
            square = float((point**2).sum())
            gamma = max(0.0, float(loss(zero) - loss(point)) / square)
            fails.append(not strictly_lower(loss, zero, point, gamma * (1 + 1e-6) + 1e-9))
    at_zero = [not strictly_lower(loss, zero, zero, gamma) for gamma in (0.1, 1e6)]
    return Violation(fraction([*fails, *at_zero]), fraction(fails))


def strictly_lower(loss: Function, better: Tensor, worse: Tensor, gamma: float) -> bool:
    """Return whether the loss with decay is strictly smaller at ``better``."""
    return float(loss(better) - loss(worse)) + gamma * float((better**2).sum() - (worse**2).sum()) < 0


def theorem2_proof(rng: Generator) -> Violation:
    """Eqs. 38 and 39."""
    residuals = []
    for u, w in ((1, 1), (2, 4), (3, 3)):
        loss, theta = rescaling_loss(rng, u, w), normal(rng, u + w)
        slope, curvature = gradient(loss, theta), hessian(loss, theta)
        of_w, of_u = slope[u:] @ theta[u:], slope[:u] @ theta[:u]
        residuals.append(float((of_w - of_u).abs() / slope.norm() / theta.norm()))
        printed = -curvature[u:, u:] @ theta[u:] + curvature[u:, :u] @ theta[:u]
        residuals.append(float((slope[u:] - printed).norm() / curvature.norm() / theta.norm()))
    return Violation(worst(residuals))


def rescaling_mirrors(rng: Generator) -> Violation:
    """Reflections of losses with rescaling symmetry, at zeros of one factor too."""
    residuals, control = [], []
    for _ in range(3):
        loss = rescaling_loss(rng, 1, 1)
        for theta in (normal(rng, 2), torch.tensor([0.0, 1.3]).double(), torch.tensor([-0.7, 0.0]).double()):
            images = [mirror.reflect(theta) for mirror in (*mirrors.rescaling_mirrors(), mirrors.permutation_mirror(1))]
            residuals += [change(loss, theta, image) for image in images]
        for u, w in ((2, 4), (3, 3)):
            vectors, theta = rescaling_loss(rng, u, w), normal(rng, u + w)
            residuals.append(change(vectors, theta, mirrors.identity_mirror(u + w).reflect(theta)))
        control.append(change(vectors, theta, theta.roll(3)))
    return Violation(worst(residuals), control=worst(control))


def change(function: Function, a: Tensor, b: Tensor) -> float:
    """Return the relative difference of a function's values at two points."""
    first, second = function(a), function(b)
    return float((first - second).abs() / torch.maximum(first.abs(), second.abs()))


def rotation_loss(rng: Generator, rows: int, columns: int) -> Function:
    """Return a random smooth function of the Gram matrix of W's columns, W flattened."""
    of_gram, sample = random_loss(rng, columns**2), normal(rng, 4)

    def loss(w: Tensor) -> Tensor:
        matrix = w.reshape(rows, columns)
        return of_gram((matrix.T @ matrix).reshape(-1), sample)

    return loss


def remove(matrix: Tensor, normal_vector: Tensor) -> Tensor:
    """Return W with ``n^T W = 0``."""
    return matrix - torch.outer(normal_vector, normal_vector @ matrix)


def theorem3_part1(rng: Generator) -> Violation:
    """Gradients along n where ``n^T W = 0``, and of both matrices under the double rotation."""
    residuals, control = [], []
    for rows, columns in ((3, 3), (4, 2), (2, 4)):
        loss, n, matrix = rotation_loss(rng, rows, columns), unit(normal(rng, rows)), normal(rng, rows, columns)
        for gamma in DECAYS:
            on, off = (
                gradient(with_decay(loss, gamma), w.reshape(-1)).reshape(rows, columns)
                for w in (remove(matrix, n), matrix)
            )
            residuals.append(float((n @ on).norm() / on.norm()))
        control.append(float((n @ off).norm() / off.norm()))
    for double, hidden, size in ((factorization, 4, 6), (attention, 2, 13)):
        mirror, sample = mirrors.double_rotation_mirror(rng.standard_normal(hidden), 3, 3), normal(rng, size)
        for gamma in DECAYS:
            on = gradient(with_decay(at(double, sample), gamma), mirror.project(normal(rng, mirror.parameters)))
            residuals.append(float(mirror.distance(on) / on.norm()))
    return Violation(worst(residuals), control=min(control))


def theorem3_part2(rng: Generator) -> Violation:
    """Each singular value set to zero just above its gamma_0; mended: singular values above zero."""
    positive, zero = [], []
    for rows, columns, rank in ((3, 3, 3), (4, 2, 2), (3, 3, 2)):
        loss = rotation_loss(rng, rows, columns)
        left, values, right = torch.linalg.svd(normal(rng, rows, columns), full_matrices=False)
        values[rank:] = 0
        whole = (left * values) @ right
        for index in range(len(values)):
            less = (left * torch.where(torch.arange(len(values)) == index, 0.0, values)) @ right
            gain = float(loss(less.reshape(-1)) - loss(whole.reshape(-1)))
            if values[index] > 0:
                gamma = gain / float(values[index] ** 2)
                margin = 1e-6 * (abs(gamma) + 1)
                positive.append(not strictly_lower(loss, less.reshape(-1), whole.reshape(-1), gamma + margin))
            else:
                zero.append(not strictly_lower(loss, less.reshape(-1), whole.reshape(-1), 1e6))
    return Violation(fraction([*positive, *zero]), fraction(positive))


def theorem3_low_rank(rng: Generator) -> Violation:
    """Rank of W in general position with ``n^T W = 0``: any shapes; mended: no more rows than columns."""
    verdicts = {}
    for rows, columns in ((3, 3), (2, 5), (5, 3), (6, 2)):
        matrix = remove(normal(rng, rows, columns), unit(normal(rng, rows)))
        verdicts[rows, columns] = bool(torch.linalg.matrix_rank(matrix) == min(rows, columns))
    return Violation(
        fraction(verdicts.values()), fraction(full for (rows, columns), full in verdicts.items() if rows <= columns)
    )


def footnote3(rng: Generator) -> Violation:
    """Continuous symmetries without reflections, which must not constrain, and with them, which must."""
    wrong = []
    for _ in range(3):
        n, sample = unit(normal(rng, 2)), normal(rng, 4)
        turning, even_turning = random_loss(rng, 5), rotation_loss(rng, 2, 2)
        matrix = remove(normal(rng, 2, 2), n)

        def rotated(w: Tensor, loss: Loss = turning, sample: Tensor = sample) -> Tensor:
            columns = w.reshape(2, 2)
            # Not torch.linalg.det, whose derivative is wrong at singular matrices.
            area = columns[0, 0] * columns[1, 1] - columns[0, 1] * columns[1, 0]
            invariants = torch.cat([(columns.T @ columns).reshape(-1), area[None]])
            return loss(invariants, sample)

        def part(loss: Function, w: Tensor = matrix, n: Tensor = n) -> bool:
            slope = gradient(loss, w.reshape(-1)).reshape(w.shape)
            return bool((n @ slope).norm() > 1e-6 * slope.norm())

        wrong += [not part(rotated), part(even_turning)]
        plain, direction = random_loss(rng, 4), unit(normal(rng, 4))
        across = direction - direction.mean()
        point = remove(normal(rng, 4, 1), unit(across))
        for invariant in (lambda w: w - w.mean(), unit):

            def moved(w: Tensor, map_: Function = invariant, loss: Loss = plain, sample: Tensor = sample) -> Tensor:
                return loss(map_(w), sample)

            def even(w: Tensor, loss: Function = moved, v: Tensor = unit(across)) -> Tensor:  # noqa: B008
                return loss(w) + loss(w - 2 * v * (v @ w))

            wrong += [not part(moved, point, unit(across)), part(even, point, unit(across))]
    return Violation(fraction(wrong))


def exchangeable(rng: Generator, size: int) -> Function:
    """Return a random smooth function that is the same when both halves of the parameters are exchanged."""
    plain, sample = random_loss(rng, 2 * size), normal(rng, 4)
    return lambda w: plain(w, sample) + plain(w.roll(size), sample)


def exchangeable_losses(rng: Generator) -> list[tuple[Function, int, int]]:
    """Return losses with the sizes of one subset and of the whole vector; both subsets come first."""
    sample = normal(rng, 3)
    return [
        (exchangeable(rng, 1), 1, 2),
        (exchangeable(rng, 4), 4, 8),
        (at(tanh_network, sample), 3, 9),
        (at(relu_network, sample), 3, 9),
    ]


def theorem4_part1(rng: Generator) -> Violation:
    """Gradients of two equal subsets."""
    residuals, control = [], []
    for loss, size, parameters in exchangeable_losses(rng):
        off = normal(rng, parameters)
        on = torch.cat([off[:size], off[:size], off[2 * size :]])
        for gamma in DECAYS:
            slope, there = (gradient(with_decay(loss, gamma), w) for w in (on, off))
            residuals.append(float((slope[:size] - slope[size : 2 * size]).norm() / there.norm()))
        control.append(float((there[:size] - there[size : 2 * size]).norm() / there.norm()))
    return Violation(worst(residuals), control=min(control))


def theorem4_part2(rng: Generator) -> Violation:
    """Both sides of gamma_0 for the mean of two subsets."""
    fails = []
    for loss, size, parameters in exchangeable_losses(rng):
        for distance in (1e-2, 1.0, 30.0):
            w = distance * normal(rng, parameters)
            mean = (w[:size] + w[size : 2 * size]) / 2
            equal = torch.cat([mean, mean, w[2 * size :]])
            difference = float(((w[:size] - w[size : 2 * size]) ** 2).sum())
            gamma = float(loss(equal) - loss(w)) / (difference / 2)
            margin = 1e-6 * (abs(gamma) + 1)
            fails += [
                not strictly_lower(loss, equal, w, gamma + margin),
                strictly_lower(loss, equal, w, gamma - margin),
            ]
    return Violation(fraction(fails))


def eq57(rng: Generator) -> Violation:
    """The difference of the norms as printed; mended: with both norms subtracted."""
    printed, mended = [], []
    for a, b in rng.standard_normal((50, 2, 3)):
        mean, of_a, of_b = 2 * ((a + b) / 2) @ ((a + b) / 2), a @ a, b @ b
        # g_a(0.5) is theta_b and g_b(0.5) is theta_a (Eqs. 52 and 53).
        printed.append(bool(mean - of_b + of_a >= 0))
        mended.append(bool(mean - of_b - of_a >= 0))
    return Violation(fraction(printed), fraction(mended))


def eq11(rng: Generator) -> Violation:
    """The projection of the permutation symmetry."""
    residuals = []
    for size in (1, 4):
        one, none = np.eye(size), np.zeros((size, size))
        projection = np.block([[one, -one], [-one, one]]) / 2
        exchange = np.block([[none, one], [one, none]])
        residuals += [
            float(np.abs(np.eye(2 * size) - 2 * projection - exchange).max()),
            float(np.abs(projection @ projection - projection).max()),
            float(np.abs(projection - mirrors.permutation_mirror(size).P).max()),
        ]
    return Violation(worst(residuals))


def footnote5(rng: Generator) -> Violation:
    """Solutions of footnote 5's loss at decays from 1e-6 to 1e6."""
    residuals = []
    for gamma in 10.0 ** np.arange(-6, 7):
        first, second = np.linalg.solve([[2 + 2 * gamma, 2], [2, 2 + 2 * gamma]], [2, 2])
        residuals.append(1.0 if min(abs(first), abs(second)) < 1e-12 else abs(first - second) / abs(first))
    apart = np.array([2.0, -1.0])
    assert np.allclose(2 * (apart.sum() - 1), 0)
    return Violation(worst(residuals), control=float(abs(apart[0] - apart[1]) / abs(apart[0])))


CHECKS = (
    theorem2_part1,
    theorem2_part2,
    theorem2_proof,
    rescaling_mirrors,
    theorem3_part1,
    theorem3_part2,
    theorem3_low_rank,
    footnote3,
    theorem4_part1,
    theorem4_part2,
    eq57,
    eq11,
    footnote5,
)
