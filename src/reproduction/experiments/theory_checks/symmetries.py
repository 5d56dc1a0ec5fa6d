"""Theorems 2 to 4: rescaling, rotation and permutation symmetry."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mirrorsym import mirrors
from mirrorsym.stability import gamma_0
from reproduction.experiments.theory_checks.losses import (
    Loss,
    attention,
    factorization,
    gradient,
    hessian,
    normal,
    random_loss,
    relu_network,
    residual_factorization,
    tanh_network,
    unit,
    with_decay,
)
from reproduction.experiments.theory_checks.violations import DISTANCES, Violation, divergence, fraction, worst

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


def theorem2_part2_bounded(rng: Generator) -> Violation:
    """Whether Eq. 40's gamma_0 stays bounded as u and w vanish, which is what the symmetry adds to part 2.

    Control: losses without the symmetry, whose gamma_0 diverges.
    """
    found: list[float] = []
    control: list[float] = []
    for u, w in ((1, 1), (2, 4), (3, 3)):
        direction = unit(normal(rng, u + w))
        zero = torch.zeros(u + w, dtype=torch.float64)
        for loss, powers in (
            (rescaling_loss(rng, u, w), found),
            (at(random_loss(rng, u + w), normal(rng, 4)), control),
        ):
            powers.append(divergence([float(loss(zero) - loss(s * direction)) / s**2 for s in DISTANCES]))
    return Violation(worst(found), control=float(np.median(control)))


def strictly_lower(loss: Function, better: Tensor, worse: Tensor, gamma: float) -> bool:
    """Return whether the loss with decay is strictly smaller at ``better``."""
    return float(loss(better) - loss(worse)) + gamma * float((better**2).sum() - (worse**2).sum()) < 0


def theorem2_proof(rng: Generator) -> Violation:
    """Eqs. 38 and 39; control: Eq. 39 with the other sign of its second term, a wrong formula."""
    residuals, control = [], []
    for u, w in ((1, 1), (2, 4), (3, 3)):
        loss, theta = rescaling_loss(rng, u, w), normal(rng, u + w)
        slope, curvature = gradient(loss, theta), hessian(loss, theta)
        of_w, of_u = slope[u:] @ theta[u:], slope[:u] @ theta[:u]
        residuals.append(float((of_w - of_u).abs() / slope.norm() / theta.norm()))
        printed = -curvature[u:, u:] @ theta[u:] + curvature[u:, :u] @ theta[:u]
        residuals.append(float((slope[u:] - printed).norm() / curvature.norm() / theta.norm()))
        wrong = -curvature[u:, u:] @ theta[u:] - curvature[u:, :u] @ theta[:u]
        control.append(float((slope[u:] - wrong).norm() / curvature.norm() / theta.norm()))
    return Violation(worst(residuals), control=min(control))


def eq37(rng: Generator) -> Violation:
    """Eq. 37 at factors 1 + epsilon: its values at every epsilon but 1, as printed, that are no numbers.

    Mended: the largest relative change at every epsilon but -1, 1 among them.
    """
    u, w = 2, 4
    loss, theta = rescaling_loss(rng, u, w), normal(rng, u + w)

    def scaled(epsilon: float) -> Tensor:
        return torch.cat([(1 + epsilon) * theta[:u], theta[u:] / torch.tensor(1 + epsilon, dtype=torch.float64)])

    printed = [not bool(loss(scaled(epsilon)).isfinite()) for epsilon in (-1.0, -0.5, 0.3)]
    mended = [change(loss, theta, scaled(epsilon)) for epsilon in (1.0, -3.0, -0.5, 0.3)]
    return Violation(float(any(printed)), worst(mended))


def positive_rescaling(rng: Generator) -> Violation:
    """Losses that are rescaled by positive factors alone: gradients at zero, and (control) the missing mirror.

    ``a exp(-1 / (u w))`` for u, w > 0 and ``b exp(-1 / (u w))`` for u, w < 0 is smooth, invariant under u to ρu and
    w to w/ρ for every positive ρ, and not under ρ = -1.
    """
    residuals, control = [], []
    for _ in range(3):
        a, b = rng.uniform(1, 2), rng.uniform(3, 4)

        def loss(theta: Tensor, a: float = float(a), b: float = float(b)) -> Tensor:
            product = theta[0] * theta[1]
            if product.item() <= 0:
                return 0 * theta.sum()
            return (a if theta[0].item() > 0 else b) * torch.exp(-1 / product)

        point = torch.from_numpy(rng.uniform(0.5, 2, 2))
        there = gradient(loss, point).norm()
        residuals.append(change(loss, point, point * torch.tensor([3.0, 1 / 3], dtype=torch.float64)))
        for _ in range(4):
            residuals.append(float(gradient(loss, 1e-3 * normal(rng, 2)).norm() / there))
        control.append(change(loss, point, -point))
    return Violation(worst(residuals), control=min(control))


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


def theorem3_part2_bounded(rng: Generator) -> Violation:
    """Whether part 2's gamma_0 stays bounded as a singular value vanishes, which is what the symmetry adds.

    Control: losses without the symmetry, whose gamma_0 diverges.
    """
    found: list[float] = []
    control: list[float] = []
    for rows, columns in ((3, 3), (4, 2), (2, 4)):
        left, values, right = torch.linalg.svd(normal(rng, rows, columns), full_matrices=False)
        losses = (rotation_loss(rng, rows, columns), at(random_loss(rng, rows * columns), normal(rng, 4)))
        for loss, powers in zip(losses, (found, control), strict=True):

            def with_last(s: float, left: Tensor = left, values: Tensor = values, right: Tensor = right) -> Tensor:
                last = torch.arange(len(values)) == len(values) - 1
                return ((left * torch.where(last, s, values)) @ right).reshape(-1)

            powers.append(divergence([float(loss(with_last(0.0)) - loss(with_last(s))) / s**2 for s in DISTANCES]))
    return Violation(worst(found), control=float(np.median(control)))


def theorem3_proof(rng: Generator) -> Violation:
    """The share of shapes with directions n, ``n^T W = 0``, that belong to no singular value of W.

    The proof lets a singular value go to zero along its left vector; of a tall W of full column rank no left vector is
    n. Mended: the part of the gradient along n, which the reflection ``I - 2 n n^T`` gives for every shape.
    """
    outside, residuals = [], []
    for rows, columns in ((3, 3), (2, 4), (4, 2), (6, 2)):
        n, loss = unit(normal(rng, rows)), rotation_loss(rng, rows, columns)
        matrix = remove(normal(rng, rows, columns), n)
        left = torch.linalg.svd(matrix, full_matrices=False)[0]
        outside.append(bool((n @ left).abs().max() < 1e-8))
        slope = gradient(loss, matrix.reshape(-1)).reshape(rows, columns)
        residuals.append(float((n @ slope).norm() / slope.norm()))
    return Violation(fraction(outside), worst(residuals))


def double_rotation_favored(rng: Generator) -> Violation:
    """Whether the decay above which ``n^T W = 0`` and ``U n = 0`` have the smaller loss stays bounded towards them.

    Control: with residual connections, whose decay is centred off their mirror.
    """
    found: list[float] = []
    control: list[float] = []
    for loss, hidden, size in ((factorization, 4, 6), (attention, 2, 13), (residual_factorization, 3, 6)):
        mirror, of_sample = (
            mirrors.double_rotation_mirror(rng.standard_normal(hidden), 3, 3),
            at(loss, normal(rng, size)),
        )
        on, across = (
            mirror.project(normal(rng, mirror.parameters)),
            unit(torch.tensor(mirror.O) @ normal(rng, mirror.codimension)),
        )
        power = divergence([gamma_0(of_sample, mirror, on + s * across) for s in DISTANCES])
        (control if loss is residual_factorization else found).append(power)
    return Violation(worst(found), control=min(control))


def theorem3_rows(rng: Generator) -> Violation:
    """The share of shapes for which W in general position with ``n^T W = 0`` has a rank of its rows.

    Control: without that condition, no taller than wide.
    """
    full, control = [], []
    for rows, columns in ((3, 3), (2, 5), (5, 3), (6, 2)):
        matrix = normal(rng, rows, columns)
        without = remove(matrix, unit(normal(rng, rows)))
        full.append(bool(torch.linalg.matrix_rank(without) == rows))
        if rows <= columns:
            control.append(bool(torch.linalg.matrix_rank(matrix) == rows))
    return Violation(fraction(full), control=fraction(control))


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
    """Continuous symmetries without reflections, of kinds that do not constrain, and with them, which must.

    Control: the share of the losses with reflections whose gradient does have a part across off the mirror.
    """
    wrong, seen = [], []
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
        seen.append(part(even_turning, normal(rng, 2, 2)))
        plain, direction = random_loss(rng, 4), unit(normal(rng, 4))
        across = direction - direction.mean()
        point = remove(normal(rng, 4, 1), unit(across))
        for invariant in (lambda w: w - w.mean(), unit):

            def moved(w: Tensor, map_: Function = invariant, loss: Loss = plain, sample: Tensor = sample) -> Tensor:
                return loss(map_(w), sample)

            def even(w: Tensor, loss: Function = moved, v: Tensor = unit(across)) -> Tensor:  # noqa: B008
                return loss(w) + loss(w - 2 * v * (v @ w))

            wrong += [not part(moved, point, unit(across)), part(even, point, unit(across))]
            seen.append(part(even, point + normal(rng, 4, 1), unit(across)))
    return Violation(fraction(wrong), control=fraction(seen))


def footnote3_only(rng: Generator) -> Violation:
    """The share of constraints by symmetries without any reflection: whether gradients stay where these keep them.

    Cyclic shifts of three parameters keep ``w_1 = w_2 = w_3``; a turn of two complex numbers by charges 2 and 3 keeps
    ``z_1 = 0``. Control: neither loss is even across it, as it would be with the reflection.
    """
    constrained, odd = [], []
    for _ in range(3):
        plain, turned, sample = random_loss(rng, 3), random_loss(rng, 4), normal(rng, 4)

        def cyclic(w: Tensor, loss: Loss = plain, sample: Tensor = sample) -> Tensor:
            return loss(w, sample) + loss(w.roll(1), sample) + loss(w.roll(2), sample)

        def charged(w: Tensor, loss: Loss = turned, sample: Tensor = sample) -> Tensor:
            first, second = torch.complex(w[0], w[1]), torch.complex(w[2], w[3])
            product = first**3 * second.conj() ** 2
            invariants = torch.stack([first.abs() ** 2, second.abs() ** 2, product.real, product.imag])
            return loss(invariants, sample)

        equal, alone = torch.full((3,), 0.7, dtype=torch.float64), torch.cat([torch.zeros(2).double(), normal(rng, 2)])
        across = normal(rng, 3)
        cases: list[tuple[Function, Tensor, Tensor]] = [
            (cyclic, equal, across - across.mean()),
            (charged, alone, torch.cat([normal(rng, 2), torch.zeros(2).double()])),
        ]
        for loss, on, off in cases:
            slope, there = gradient(loss, on), gradient(loss, on + off)
            part = slope - slope.mean() if loss is cyclic else slope[:2]
            constrained.append(bool(part.norm() < 1e-9 * there.norm()))
            odd.append(change(loss, on + off, on - off) > 1e-9)
    return Violation(fraction(constrained), control=fraction(odd))


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


def theorem4_part2_bounded(rng: Generator) -> Violation:
    """Whether part 2's gamma_0 stays bounded as the two subsets approach each other, which is what the symmetry adds.

    Control: losses without the symmetry, whose gamma_0 diverges.
    """
    found: list[float] = []
    control: list[float] = []
    for loss, size, parameters in exchangeable_losses(rng):
        w, d = normal(rng, parameters), normal(rng, size)
        w[size : 2 * size] = w[:size]
        across = torch.cat([d, -d, torch.zeros(parameters - 2 * size, dtype=torch.float64)])
        square = float((across**2).sum())
        for one, powers in ((loss, found), (at(random_loss(rng, parameters), normal(rng, 4)), control)):
            powers.append(divergence([float(one(w) - one(w + s * across)) / (s**2 * square) for s in DISTANCES]))
    return Violation(worst(found), control=float(np.median(control)))


def filters(rng: Generator) -> Violation:
    """A network of two convolutions whose first has two filters: exchanged with what reads them, and equal ones.

    The largest relative change of the loss under the exchange, and difference of the gradients of equal filters.
    Control: filters that are exchanged without what reads them.
    """
    residuals, control = [], []
    for _ in range(3):
        picture, label = normal(rng, 1, 1, 6, 6), normal(rng, 1)[0]

        def loss(w: Tensor, picture: Tensor = picture, label: Tensor = label) -> Tensor:
            filters, readers = w[:18].reshape(2, 1, 3, 3), w[18:].reshape(1, 2, 3, 3)
            hidden = torch.nn.functional.conv2d(picture, filters).tanh()
            return (torch.nn.functional.conv2d(hidden, readers).mean() - label) ** 2

        w = normal(rng, 36)
        pairs = torch.arange(36).reshape(2, 2, 9)
        exchanged, alone = pairs.flip(1).reshape(-1), torch.cat([pairs[0].flip(0), pairs[1]]).reshape(-1)
        residuals.append(change(loss, w, w[exchanged]))
        control.append(change(loss, w, w[alone]))
        equal = (w + w[exchanged]) / 2
        slope = gradient(loss, equal)
        residuals.append(float((slope - slope[exchanged]).norm() / slope.norm()))
    return Violation(worst(residuals), control=min(control))


def eq57(rng: Generator) -> Violation:
    """The difference of the norms as printed; mended: with both norms subtracted, which is what Eq. 58 divides by."""
    printed, mended = [], []
    for a, b in rng.standard_normal((50, 2, 3)):
        mean, of_a, of_b = 2 * ((a + b) / 2) @ ((a + b) / 2), a @ a, b @ b
        # g_a(0.5) is theta_b and g_b(0.5) is theta_a (Eqs. 52 and 53).
        printed.append(bool(mean - of_b + of_a >= 0))
        mended.append(bool(mean - of_b - of_a >= 0))
    return Violation(fraction(printed), fraction(mended))


def eq11(rng: Generator) -> Violation:
    """The projection of the permutation symmetry; control: without its factor of one half."""
    residuals, control = [], []
    for size in (1, 4):
        one, none = np.eye(size), np.zeros((size, size))
        projection = np.block([[one, -one], [-one, one]]) / 2
        exchange = np.block([[none, one], [one, none]])
        residuals += [
            float(np.abs(np.eye(2 * size) - 2 * projection - exchange).max()),
            float(np.abs(projection @ projection - projection).max()),
            float(np.abs(projection - mirrors.permutation_mirror(size).P).max()),
        ]
        control.append(float(np.abs(np.eye(2 * size) - 4 * projection - exchange).max()))
    return Violation(worst(residuals), control=min(control))


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
    theorem2_part2_bounded,
    theorem2_proof,
    eq37,
    positive_rescaling,
    rescaling_mirrors,
    theorem3_part1,
    theorem3_part2,
    theorem3_part2_bounded,
    theorem3_proof,
    double_rotation_favored,
    theorem3_low_rank,
    theorem3_rows,
    footnote3,
    footnote3_only,
    theorem4_part1,
    theorem4_part2,
    theorem4_part2_bounded,
    filters,
    eq57,
    eq11,
    footnote5,
)
