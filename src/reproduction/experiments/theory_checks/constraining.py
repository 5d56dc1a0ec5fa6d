"""Sections 2.5 and 2.6: the L1 equivalent of decay, the lasso, and the parametrization of DCS."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from mirrorsym.constraints import DCS, MirrorDCS
from mirrorsym.mirrors import permutation_mirror, rotation_mirror
from reproduction.experiments.theory_checks.losses import (
    gradient,
    hessian,
    normal,
    paper_models,
    random_loss,
    random_mirror,
    random_models,
    unit,
)
from reproduction.experiments.theory_checks.main_theorem import smallest_product
from reproduction.experiments.theory_checks.violations import (
    DISTANCES,
    Violation,
    divergence,
    fraction,
    order,
    worst,
)

Array = NDArray[np.float64]
Generator = np.random.Generator


def eq6(rng: Generator) -> Violation:
    """The loss with decay in terms of z, and its right derivative at z = 0 against half the curvature.

    Control: against the whole curvature, a wrong formula.
    """
    residuals, control = [], []
    for model in [*random_models(rng), *paper_models(rng)]:
        loss, w, gamma = model.mean(model.samples(rng, 2)), model.on_mirror(rng) + 3 * model.across(rng), 0.7
        rest, across = model.mirror.project(w), w - model.mirror.project(w)
        direction, z = unit(across), (across**2).sum()

        def of_z(
            size: Tensor | float,
            loss: Callable[[Tensor], Tensor] = loss,
            rest: Tensor = rest,
            direction: Tensor = direction,
        ) -> Tensor:
            return loss(rest + torch.as_tensor(size).sqrt() * direction)

        left, right = loss(w) + gamma * (w**2).sum(), of_z(z) + gamma * ((rest**2).sum() + z)
        residuals.append(float((left - right).abs() / left.abs()))
        curvature = float(direction @ hessian(loss, rest) @ direction)
        step = torch.tensor(1e-6, dtype=torch.float64)
        slope = float(of_z(step) - loss(rest)) / 1e-6
        error = abs(slope - curvature / 2) / max(abs(curvature), float(loss(rest)), 1e-3)
        residuals.append(error if error > 1e-4 else 0.0)
        control.append(abs(slope - curvature) / max(abs(curvature), float(loss(rest)), 1e-3))
    return Violation(worst(residuals), control=float(np.median(control)))


def eq6_no_symmetry(rng: Generator) -> Violation:
    """The power with which the derivative in z diverges without a symmetry; control: with one, where it does not."""
    errors, control = [], []
    for _ in range(5):
        loss, sample, rest, direction = random_loss(rng, 4), normal(rng, 4), normal(rng, 4), unit(normal(rng, 4))
        slopes = []
        for z in (1e-10, 1e-12):
            place = torch.tensor(z, dtype=torch.float64)
            of_z: Callable[[Tensor], Tensor] = lambda z, loss=loss, sample=sample, rest=rest, direction=direction: loss(  # type: ignore[misc] # noqa: E731
                rest + z.sqrt() * direction, sample
            )
            slopes.append(float(gradient(of_z, place)))
        errors.append(abs(1 - 2 * order(slopes[1], slopes[0], 100)))
    for model in random_models(rng):
        of_loss, on, across = model.mean(model.samples(rng, 2)), model.on_mirror(rng), model.across(rng)
        slopes = []
        for z in (1e-5, 1e-7):
            place = torch.tensor(z, dtype=torch.float64, requires_grad=True)
            of_loss(on + place.sqrt() * across).backward()  # type: ignore[no-untyped-call]
            assert place.grad is not None
            slopes.append(float(place.grad))
        control.append(abs(1 - 2 * order(slopes[1], slopes[0], 100)))
    return Violation(worst(errors), control=float(np.median(control)))


def lasso(rng: Generator) -> Violation:
    """Products of two weights with decay gamma against the lasso of penalty ``2 gamma``; control: of ``gamma``."""
    errors, control = [], []
    for _ in range(3):
        x = rng.standard_normal((30, 6))
        y = x @ np.array([1.5, -1.0, 0.5, 0, 0, 0]) + 0.3 * rng.standard_normal(30)
        square, covariance = x.T @ x / len(x), x.T @ y / len(x)
        gamma = float(rng.uniform(0.1, 0.6)) * float(np.abs(covariance).max())
        found = smallest_product(square, covariance, gamma, rng.standard_normal(12))
        expected = lasso_of_support(square, covariance, gamma, np.where(np.abs(found) > 1e-6, np.sign(found), 0))
        errors.append(1.0 if expected is None else float(np.linalg.norm(found - expected) / np.linalg.norm(expected)))
        half = lasso_of_support(square, covariance, gamma / 2, np.where(np.abs(found) > 1e-6, np.sign(found), 0))
        control.append(1.0 if half is None else float(np.linalg.norm(found - half) / np.linalg.norm(half)))
    return Violation(worst(errors), control=min(control))


def lasso_of_support(square: Array, covariance: Array, gamma: float, signs: Array) -> Array | None:
    """Return the v that minimizes ``v C v - 2 c v + 2 gamma ||v||_1``, None where it has other signs than these.

    The conditions of optimality decide: they are sufficient, and C is positive definite.
    """
    used = signs != 0
    v = np.zeros(len(signs))
    v[used] = np.linalg.solve(square[np.ix_(used, used)], covariance[used] - gamma * signs[used])
    slope = covariance - square @ v
    optimal = (np.sign(v) == signs).all() and (np.abs(slope[~used]) <= gamma).all()
    return v if optimal else None


def group_penalty(rng: Generator) -> Violation:
    """Scalars times vectors with decay gamma, whose mirror is I - 2P = -I, against the group lasso of penalty 2 gamma.

    Control: against the lasso of the coordinates, a wrong penalty.
    """
    errors, control = [], []
    for _ in range(3):
        x = rng.standard_normal((60, 9))
        y = x @ np.array([1.5, -1.0, 0.5, 0.3, 0.0, 0.2, 0, 0, 0]) + 0.5 * rng.standard_normal(60)
        square, covariance = x.T @ x / len(x), x.T @ y / len(x)
        lengths = np.linalg.norm(covariance.reshape(3, 3), axis=1)
        for gamma in (0.3 * float(lengths.max()), 0.9 * float(np.sort(lengths)[1]), 1.1 * float(lengths.max())):
            found = smallest_scaled_vectors(square, covariance, gamma, rng.standard_normal(12))
            slope = covariance.reshape(3, 3) - (square @ found.ravel()).reshape(3, 3)
            errors.append(worst(group_residual(v, of_v, gamma) for v, of_v in zip(found, slope, strict=True)))
            single = [
                group_residual(v, of_v, gamma)
                for v, of_v in zip(found.reshape(-1, 1), slope.reshape(-1, 1), strict=True)
            ]
            control.append(worst(single))
    return Violation(worst(errors), control=float(np.median(control)))


def smallest_scaled_vectors(square: Array, covariance: Array, gamma: float, start: Array) -> Array:
    """Return the groups v_g = u_g w_g that minimize ``v C v - 2 c v + gamma (||u||**2 + ||w||**2)``.

    Args:
        square: C, shape (features, features).
        covariance: c, shape (features,).
        gamma: the decay.
        start: of u, one number a group, and of w, shape (groups + features,); groups are of equal size.
    """
    groups = len(start) - len(covariance)

    def loss_and_slope(point: Array) -> tuple[float, Array]:
        u, w = point[:groups], point[groups:].reshape(groups, -1)
        v = (u[:, None] * w).ravel()
        of_v = (2 * (square @ v - covariance)).reshape(groups, -1)
        value = float(v @ square @ v - 2 * covariance @ v + gamma * point @ point)
        return value, np.concatenate([(of_v * w).sum(axis=1), (of_v * u[:, None]).ravel()]) + 2 * gamma * point

    options = {"maxiter": 20000, "ftol": 1e-16, "gtol": 1e-13, "maxcor": 30}
    found = minimize(loss_and_slope, start, jac=True, method="L-BFGS-B", options=options).x
    return np.asarray(found[:groups, None] * found[groups:].reshape(groups, -1))


def group_residual(v: Array, slope: Array, gamma: float) -> float:
    """Return how far a group is from the conditions of ``v C v - 2 c v + 2 gamma sum ||v_g||``, in units of gamma.

    Args:
        v: the group.
        slope: c - C v of its features, half of the descent of the loss without the penalty.
        gamma: half of the penalty.
    """
    length = float(np.linalg.norm(v))
    if length < 1e-5:
        return max(float(np.linalg.norm(slope)) / gamma - 1, 0.0)
    return float(np.linalg.norm(slope - gamma * v / length)) / gamma


def constraint_directions(rng: Generator) -> dict[str, Array]:
    """Return O of single coordinates, in general position, of a rotation and of permutations of two subsets."""
    return {
        "coordinates": np.eye(5)[:, [1, 3]],
        "random": np.asarray(random_mirror(rng, 6, 2).O, float),
        "rotation": np.asarray(rotation_mirror(rng.standard_normal(3), 2).O, float),
        "permutation": np.asarray(permutation_mirror(3).O, float),
    }


def unreachable(o: Array, theta: Tensor, rng: Generator) -> float:
    """Return the smallest part of a parameter that Eq. 7 misses, relative to its projection, over several w.

    For a given w, T is linear in u and v: the best u solves linear least squares, and v takes up what P leaves.
    """
    columns = torch.tensor(o)
    constraint = DCS(columns)
    target = columns.T @ theta
    missed = []
    for _ in range(5):
        w = columns @ normal(rng, columns.shape[1])
        system = columns.T @ (w[:, None] * columns)
        u = columns @ torch.linalg.pinv(system) @ target
        v = theta - constraint(w, u, torch.zeros_like(theta))
        missed.append(float((constraint(w, u, v) - theta).norm() / target.norm()))
    return min(missed)


def dcs_faithful(rng: Generator) -> Violation:
    """What Eq. 7 cannot reach; mended: what the product in O's coordinates cannot."""
    printed, mended = [], []
    for o in constraint_directions(rng).values():
        theta = normal(rng, len(o))
        printed.append(unreachable(o, theta, rng))
        constraint = MirrorDCS(torch.tensor(o))
        mended.append(float((constraint(*constraint.right_inverse(theta)) - theta).norm() / theta.norm()))
    return Violation(worst(printed), worst(mended))


def dcs_loss(o: Array, rng: Generator) -> tuple[Callable[[Tensor], Tensor], DCS]:
    """Return a random loss of T(w, u, v), a function of (w, u, v) in one vector, and T."""
    plain, sample, constraint = random_loss(rng, len(o)), normal(rng, 4), DCS(torch.tensor(o))
    return lambda factors: plain(constraint(*factors.chunk(3)), sample), constraint


def dcs_stationary(rng: Generator) -> Violation:
    """Gradient descent from ``O^T T = 0``; mended: from Pw = Pu = 0."""
    printed: list[float] = []
    mended: list[float] = []
    directions = constraint_directions(rng)
    del directions["permutation"]  # there O^T T is 0 whatever w and u are
    for o in directions.values():
        loss, constraint = dcs_loss(o, rng)
        w, u, v = normal(rng, 3, len(o))
        without = [factor - constraint.project(factor) for factor in (w, u)]
        for found, start in ((printed, [without[0], u, v]), (mended, [*without, v])):
            factors = torch.cat(start)
            assert float((constraint.o.T @ constraint(*factors.chunk(3))).norm()) < 1e-12
            after = constraint(*(factors - gradient(loss, factors)).chunk(3))
            found.append(float((constraint.o.T @ after).norm() / after.norm()))
    return Violation(min(printed), worst(mended))


def dcs_favored(rng: Generator) -> Violation:
    """Both sides of the alpha above which Pw = Pu = 0 has the smaller loss; v has no decay in Eq. 7."""
    wrong = []
    for o in constraint_directions(rng).values():
        loss, constraint = dcs_loss(o, rng)
        w, u, v = normal(rng, 3, len(o))
        before, after = torch.cat([w, u, v]), torch.cat([w - constraint.project(w), u - constraint.project(u), v])
        removed = float((before**2).sum() - (after**2).sum())
        gain = float(loss(after) - loss(before))
        critical = gain / removed
        margin = 1e-6 * (abs(critical) + 1)
        wrong += [
            gain - (critical + margin) * removed >= 0,
            gain - (critical - margin) * removed < 0,
        ]
    return Violation(fraction(wrong))


def dcs_favored_bounded(rng: Generator) -> Violation:
    """Whether Eq. 7's critical alpha stays bounded as Pw and Pu vanish, which is what its symmetry adds.

    Control: the critical decay of the parameter itself, without the product, which diverges.
    """
    found, control = [], []
    for o in constraint_directions(rng).values():
        plain, sample, constraint = random_loss(rng, len(o)), normal(rng, 4), DCS(torch.tensor(o))
        w, u, v = (constraint.project(factor) for factor in normal(rng, 3, len(o)))
        rest = v - constraint.project(v)
        size = float((w**2).sum() + (u**2).sum())
        at_zero = float(plain(rest, sample))
        found.append(
            divergence(
                [(at_zero - float(plain(constraint(s * w, s * u, rest), sample))) / (s**2 * size) for s in DISTANCES]
            )
        )
        length = float((w**2).sum())
        control.append(
            divergence([(at_zero - float(plain(rest + s * w, sample))) / (s**2 * length) for s in DISTANCES])
        )
    return Violation(worst(found), control=float(np.median(control)))


CHECKS = (eq6, eq6_no_symmetry, lasso, group_penalty, dcs_faithful, dcs_stationary, dcs_favored, dcs_favored_bounded)
