"""Definition 2, Figure 1 and Theorem 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize, minimize_scalar
from torch import Tensor

from mirrorsym.mirrors import Mirror
from mirrorsym.stability import gamma_0, gamma_1
from reproduction.experiments.theory_checks.losses import (
    Loss,
    Model,
    factorization,
    gradient,
    hessian,
    normal,
    paper_models,
    random_loss,
    random_mirror,
    random_models,
    rescaled_regression,
    symmetrized,
    tanh_network,
)
from reproduction.experiments.theory_checks.violations import (
    DISTANCES,
    Violation,
    divergence,
    fraction,
    missing_order,
    order,
    ratio,
    worst,
)

Array = NDArray[np.float64]
Generator = np.random.Generator

DECAYS = (-10.0, 0.0, 0.1, 1e6)


def definition2(rng: Generator) -> Violation:
    """Identities of reflections and projections."""
    residuals, control = [], []
    for parameters, codimension in ((2, 1), (6, 3), (9, 9)):
        mirror = random_mirror(rng, parameters, codimension)
        product = np.eye(parameters)
        for column in mirror.O.T:
            product = product @ (np.eye(parameters) - 2 * np.outer(column, column))
        w = rng.standard_normal(parameters)
        residuals += [
            float(np.abs(product - mirror.R).max()),
            float(np.abs(mirror.R @ mirror.R.T - np.eye(parameters)).max()),
            float(np.abs(mirror.P @ mirror.P - mirror.P).max()),
            abs(float(np.linalg.norm(mirror.reflect(w)) / np.linalg.norm(w)) - 1),
        ]
        first, second = (v / np.linalg.norm(v) for v in rng.standard_normal((2, parameters)))
        both = (np.eye(parameters) - 2 * np.outer(first, first)) @ (np.eye(parameters) - 2 * np.outer(second, second))
        control.append(
            float(np.abs(both - np.eye(parameters) + 2 * np.outer(first, first) + 2 * np.outer(second, second)).max())
        )
    return Violation(worst(residuals), control=min(control))


def fig1_matrix(rng: Generator) -> Violation:
    """Figure 1's O, whose second column is zero; mended: without that column."""
    printed = np.array([[1.0, -1.0], [0.0, 0.0]]).T / np.sqrt(2)
    mended = printed[:, :1]
    found = [float(np.abs(o.T @ o - np.eye(o.shape[1])).max()) for o in (printed, mended)]
    # The zero column adds nothing to the projection, so that P and R are right as printed.
    projection = float(np.abs(printed @ printed.T - mended @ mended.T).max())
    return Violation(found[0], max(found[1], projection))


def fig1_projection(rng: Generator) -> Violation:
    """Figure 1: A, B, C and gradients on the mirror."""
    mirror = Mirror.spanned_by([1.0, -1.0])
    residuals, control = [], []
    for _ in range(5):
        plain, sample, a = random_loss(rng, 2), normal(rng, 4), normal(rng, 2)
        loss = symmetrized(plain, [mirror])
        b, c = mirror.reflect(a), mirror.project(a)
        slope = gradient(lambda w, loss=loss, sample=sample: loss(w, sample), c)  # type: ignore[misc]
        residuals += [
            relative(loss(a, sample), loss(b, sample)),
            float(not float(c.norm()) < float(a.norm())),
            float(mirror.distance(slope) / slope.norm()),
        ]
        control.append(relative(plain(a, sample), plain(b, sample)))
    return Violation(worst(residuals), control=worst(control))


def relative(a: Tensor, b: Tensor) -> float:
    """Return the difference of two numbers relative to the larger."""
    return float((a - b).abs() / torch.maximum(a.abs(), b.abs()))


def all_models(rng: Generator) -> list[Model]:
    """Return random models and the paper's."""
    return [*random_models(rng), *paper_models(rng)]


def theorem1_part1(rng: Generator) -> Violation:
    """Gradients on the mirror, of single samples and of their mean, at decays from negative to huge.

    They are relative to the larger of the gradient there, which vanishes where the mirror is a point, and that off it.
    """
    residuals, control = [], []
    for model in all_models(rng):
        samples, on = model.samples(rng, 3), model.on_mirror(rng)
        off = on + model.across(rng)
        for batch in (samples[:1], samples):
            of_loss, of_loss_off = (gradient(model.mean(batch), w) for w in (on, off))
            for gamma in DECAYS:
                slope, there = of_loss + 2 * gamma * on, of_loss_off + 2 * gamma * off
                residuals.append(ratio(model.mirror.distance(slope), torch.maximum(slope.norm(), there.norm())))
        control.append(ratio(model.mirror.distance(of_loss_off), of_loss_off.norm()))
    return Violation(worst(residuals), control=float(np.median(control)))


def theorem1_part2(rng: Generator) -> Violation:
    """Eigenvectors of the Hessian on the mirror; mended: its blocks, which degenerate eigenvalues do not touch."""
    mixed, coupled, control = [], [], []
    for model in all_models(rng):
        samples, on = model.samples(rng, 3), model.on_mirror(rng)
        for batch in (samples[:1], samples):
            found = hessian(model.mean(batch), on).numpy()
            vectors = np.linalg.eigh(found)[1]
            inside = model.mirror.P @ vectors
            parts = [np.linalg.norm(part, axis=0) for part in (inside, vectors - inside)]
            mixed.append(float(np.minimum(*parts).max()))
            coupled.append(float(model.mirror.off_block(found)))
        if model.mirror.codimension < model.mirror.parameters:
            off = hessian(model.mean(samples), on + model.across(rng)).numpy()
            control.append(float(model.mirror.off_block(off)))
    return Violation(worst(mixed), worst(coupled), worst(control))


def footnote1(rng: Generator) -> Violation:
    """The transformation that makes blocks of the Hessian: O as printed, and O completed to a basis."""
    printed, mended = [], []
    for model in random_models(rng):
        codimension = model.mirror.codimension
        if codimension == model.mirror.parameters:
            continue
        found = hessian(model.mean(model.samples(rng, 3)), model.on_mirror(rng)).numpy()
        kept = float(np.linalg.norm(model.mirror.O.T @ found @ model.mirror.O))
        whole = float(np.linalg.norm(found))
        printed.append(float(np.sqrt(max(whole**2 - kept**2, 0)) / whole))
        complement = np.linalg.qr(np.concatenate([model.mirror.O, rng.standard_normal(found.shape)], axis=1))[0]
        rotated = complement.T @ found @ complement
        mended.append(float(np.linalg.norm(rotated[:codimension, codimension:]) / whole))
    return Violation(worst(printed), worst(mended))


def hessian_near_mirror(rng: Generator) -> Violation:
    """How fast the blocks decouple towards the mirror; control: losses without the symmetry, whose blocks do not."""
    missing, control = [], []
    for model in all_models(rng):
        samples, on, across = model.samples(rng, 3), model.on_mirror(rng), model.across(rng)
        far, near = (
            float(model.mirror.off_block(hessian(model.mean(samples), on + s * across).numpy())) for s in (1e-3, 1e-4)
        )
        if near > 1e-12:
            missing.append(missing_order(1.0, order(far, near, 10)))
    for mirror in (random_mirror(rng, 4, 1), random_mirror(rng, 6, 2)):
        plain = Model("none", random_loss(rng, mirror.parameters), mirror, 3)
        samples, on, across = plain.samples(rng, 3), plain.on_mirror(rng), plain.across(rng)
        far, near = (
            float(mirror.off_block(hessian(plain.mean(samples), on + s * across).numpy())) for s in (1e-3, 1e-4)
        )
        control.append(missing_order(1.0, order(far, near, 10)))
    return Violation(worst(missing), control=min(control))


def theorem1_part3(rng: Generator) -> Violation:
    """Both sides of gamma_0, near and far from the mirror."""
    failed, control = [], []
    for model in all_models(rng):
        loss = model.mean(model.samples(rng, 3))
        for distance in (1e-2, 1.0, 30.0):
            w = model.on_mirror(rng) + distance * model.across(rng)
            critical = gamma_0(loss, model.mirror, w)
            projected = model.mirror.project(w)
            margin = max(1e-6 * abs(critical), 1e-12 * float(loss(w) + 1) / distance**2, 1e-9)
            failed += [not lowers(loss, w, projected, critical + margin), lowers(loss, w, projected, critical - margin)]
            if critical > 1e-3:
                control.append(not lowers(loss, w, projected, critical / 2))
    return Violation(fraction(failed), control=fraction(control))


def theorem1_part3_bounded(rng: Generator) -> Violation:
    """Whether gamma_0 stays bounded towards the mirror, which is what the symmetry adds to part 3.

    A gamma_0 at each point exists for any loss; control: losses without the symmetry, whose gamma_0 diverges.
    """
    found: list[float] = []
    control: list[float] = []
    for model in all_models(rng):
        plain = Model("none", random_loss(rng, model.mirror.parameters), model.mirror, 3)
        for one, powers in ((model, found), (plain, control)):
            loss, on, across = one.mean(one.samples(rng, 3)), one.on_mirror(rng), one.across(rng)
            powers.append(divergence([gamma_0(loss, one.mirror, on + s * across) for s in DISTANCES]))
    return Violation(worst(found), control=float(np.median(control)))


def lowers(loss: Callable[[Tensor], Tensor], w: Tensor, other: Tensor, gamma: float) -> bool:
    """Return whether the loss with decay is strictly smaller at ``other`` than at ``w``.

    The norms are compared as the norm of the difference of both where one is a projection of the other.
    """
    return float(loss(other) - loss(w)) + gamma * float((other**2).sum() - (w**2).sum()) < 0


class Waves:
    """A random loss ``sum a_k (1 + cos(d_k w + phase_k))``, symmetrized, with a bound of its Hessian."""

    def __init__(self, rng: Generator, mirror: Mirror, waves: int = 6) -> None:
        parameters = mirror.parameters
        directions = rng.standard_normal((waves, parameters))
        self.directions = np.concatenate([directions, directions @ mirror.R])
        self.amplitudes = np.tile(rng.uniform(0.5, 2, waves), 2) / 2
        self.phases = np.tile(rng.uniform(0, 2 * np.pi, waves), 2)
        self.lower_bound = -float(np.linalg.eigvalsh((self.directions.T * self.amplitudes) @ self.directions)[-1])

    def loss(self, w: Array, gamma: float) -> float:
        return float(self.amplitudes @ (1 + np.cos(self.directions @ w + self.phases)) + gamma * w @ w)

    def slope(self, w: Array, gamma: float) -> Array:
        waves = self.amplitudes * np.sin(self.directions @ w + self.phases)
        return np.asarray(2 * gamma * w - self.directions.T @ waves)

    def curvature(self, w: Array, gamma: float) -> Array:
        waves = self.amplitudes * np.cos(self.directions @ w + self.phases)
        return np.asarray(2 * gamma * np.eye(len(w)) - (self.directions.T * waves) @ self.directions)

    def minimum(self, start: Array, gamma: float) -> Array:
        """Return a minimum with decay, by BFGS and a few steps of Newton's method."""
        w = np.asarray(minimize(self.loss, start, (gamma,), "BFGS", self.slope).x)
        for _ in range(5):
            w = w - np.linalg.solve(self.curvature(w, gamma), self.slope(w, gamma))
        return w

    def minimum_within(self, basis: Array, start: Array, gamma: float) -> Array:
        """Return a minimum with decay within the span of an orthonormal basis, shape (parameters, dimensions)."""
        found = minimize(
            lambda y: self.loss(basis @ y, gamma),
            start,
            method="BFGS",
            jac=lambda y: basis.T @ self.slope(basis @ y, gamma),
        )
        y = np.asarray(found.x)
        for _ in range(5):
            y = y - np.linalg.solve(
                basis.T @ self.curvature(basis @ y, gamma) @ basis, basis.T @ self.slope(basis @ y, gamma)
            )
        return np.asarray(basis @ y)


def theorem1_part4(rng: Generator) -> Violation:
    """Minima at a decay just above half the bound of the Hessian, and (control) far below it."""
    residuals: list[float] = []
    control: list[float] = []
    for parameters, codimension in ((3, 1), (5, 2)):
        mirror = random_mirror(rng, parameters, codimension)
        loss = Waves(rng, mirror)
        for gamma, found in (
            (1.001 * gamma_1(loss.lower_bound), residuals),
            (1e-2 * gamma_1(loss.lower_bound), control),
        ):
            for _ in range(3):
                w = loss.minimum(3 * rng.standard_normal(parameters), gamma)
                found.append(float(mirror.distance(w) / np.linalg.norm(w)))
    return Violation(worst(residuals), control=worst(control))


def theorem1_part4_proof(rng: Generator) -> Violation:
    """Global minima of ``a (1 + cos(k s)) + gamma s**2``, whose Hessian is at least ``-a k**2``.

    The rest of the loss is convex and does not move s. The decay is above the bound as printed, then above minus half
    of it.
    """
    wrong: dict[bool, list[bool]] = {False: [], True: []}
    for _ in range(4):
        amplitude, frequency = rng.uniform(0.5, 2, 2)
        bound = -amplitude * frequency**2

        def loss(s: float, gamma: float, a: float = float(amplitude), k: float = float(frequency)) -> float:
            return float(a * (1 + np.cos(k * s)) + gamma * s**2)

        for is_mended, multiples in ((False, (0.05, 0.2, 0.45, 0.6, 2.0)), (True, (0.5001, 0.6, 2.0))):
            for multiple in multiples:
                gamma = -multiple * bound if not is_mended else 2 * multiple * gamma_1(bound)
                bounds = (1e-9, 2 * np.pi / frequency)
                best: Any = minimize_scalar(loss, bounds=bounds, args=(gamma,), method="bounded")
                wrong[is_mended].append(bool(best.fun < loss(0, gamma) - 1e-9))
    return Violation(fraction(wrong[False]), fraction(wrong[True]))


def theorem1_part4_models(rng: Generator) -> Violation:
    """Minima of the paper's own models just above ``sqrt(E|y|**2 E|x|**2)``, relative to their start; control: below.

    Their curvature has no lower bound, so that Assumption 1 fails on them. Yet at a stationary point the decay's slope
    is balanced by the loss's: ``gamma ||u||**2 <= E|y f|`` with ``|f| <= ||u|| ||w|| |x|``, and alike for w, so that
    above that decay only zero, which lies on each of their mirrors, is stationary.
    """
    found: list[float] = []
    control: list[float] = []
    for loss, inputs, outputs, parameters in (
        (rescaled_regression, 3, 1, 6),
        (tanh_network, 2, 1, 9),
        (factorization, 3, 3, 24),
    ):
        samples = normal(rng, 8, inputs + outputs)
        if loss is not tanh_network:  # labels that the model can learn, so that there is something to collapse
            samples[:, inputs:] += samples[:, :1]
        squares = samples.square()
        critical = float((squares[:, :inputs].sum(1).mean() * squares[:, inputs:].sum(1).mean()).sqrt())
        for share, sizes in ((1.001, found), (0.02, control)):
            ends = [_decayed_minimum(loss, samples, share * critical, normal(rng, parameters)) for _ in range(3)]
            sizes.append(max(ends))
    return Violation(worst(found), control=min(control))


def _decayed_minimum(loss: Loss, samples: Tensor, gamma: float, start: Tensor) -> float:
    """Return the largest parameter at the minimum of a mean loss with decay that L-BFGS finds from a start."""

    def value_and_slope(w: Array) -> tuple[float, Array]:
        place = torch.from_numpy(w.copy()).requires_grad_()
        value = torch.stack([loss(place, sample) for sample in samples]).mean() + gamma * place.square().sum()
        (slope,) = torch.autograd.grad(value, place)
        return value.item(), slope.numpy()

    options = {"ftol": 1e-16, "gtol": 1e-12, "maxiter": 2000}
    return float(np.abs(minimize(value_and_slope, start.numpy(), jac=True, method="L-BFGS-B", options=options).x).max())


def local_minimum(rng: Generator) -> Violation:
    """Minima on the mirror: minima of the whole loss exactly where the curvature across is positive with decay.

    Control: the same without the shift that the decay gives the curvature.
    """
    wrong, control = [], []
    for parameters, codimension in ((3, 1), (5, 2)):
        mirror = random_mirror(rng, parameters, codimension)
        loss, basis = Waves(rng, mirror), mirror.basis[:, codimension:]
        bound = gamma_1(loss.lower_bound)
        for gamma in (0.02 * bound, 0.1 * bound, 0.3 * bound, 1.001 * bound):
            # By part 1 a minimum within the mirror is a stationary point of the whole loss.
            w = loss.minimum_within(basis, 2 * rng.standard_normal(parameters - codimension), gamma)
            across = float(np.linalg.eigvalsh(mirror.O.T @ loss.curvature(w, 0.0) @ mirror.O)[0])
            steps = 1e-3 * rng.standard_normal((400, parameters))
            is_minimum = all(loss.loss(w + step, gamma) > loss.loss(w, gamma) for step in steps)
            # Random steps see a curvature of either sign unless it is tiny.
            if abs(across + 2 * gamma) > 0.2 * bound:
                wrong.append(is_minimum != (across + 2 * gamma > 0))
            control.append(is_minimum != (across > 0))
            if gamma > bound:
                wrong.append(not is_minimum)
    return Violation(fraction(wrong), control=fraction(control))


def bounded_space(rng: Generator) -> Violation:
    """Most negative curvature in a ball, on a grid and on one ten times as fine: how much further down it goes.

    Of random smooth losses along lines; control: of ``-|s|**1.5``, which is not twice differentiable.
    """
    found = []
    coarse, fine = np.linspace(-5, 5, 201), np.linspace(-5, 5, 2001)
    for _ in range(3):
        mirror = random_mirror(rng, 3, 1)
        waves, direction = Waves(rng, mirror), rng.standard_normal(3)
        lowest = [
            min(float(direction @ waves.curvature(s * direction, 0.0) @ direction) for s in grid)
            for grid in (coarse, fine)
        ]
        found.append((lowest[0] - lowest[1]) / abs(lowest[1]))
    rough = [float((-0.75 / np.sqrt(np.abs(grid[grid != 0]))).min()) for grid in (coarse, fine)]
    return Violation(worst(found), control=(rough[0] - rough[1]) / abs(rough[1]))


def assumption1_bounded_space(rng: Generator) -> Violation:
    """Minima of ``s**4 (1 + cos s) + gamma s**2``: in a ball, and anywhere."""
    grid = np.linspace(0, 5, 20001)

    def slope(s: Any, gamma: float) -> Any:
        return 4 * s**3 * (1 + np.cos(s)) - s**4 * np.sin(s) + 2 * gamma * s

    curvature = 12 * grid**2 * (1 + np.cos(grid)) - 8 * grid**3 * np.sin(grid) - grid**4 * np.cos(grid)
    anywhere, inside = [], []
    for multiple in (1.01, 10.0, 1e3):
        gamma = multiple * gamma_1(float(curvature.min()))
        valley = np.pi * (2 * np.ceil((200 * gamma) ** (1 / 3) / 2) + 1)
        # Falling before the valley and rising after it: a minimum between.
        anywhere.append(bool(slope(valley - 1.0, gamma) < 0 < slope(valley + 1.0, gamma)))
        if anywhere[-1]:
            place = brentq(slope, valley - 1.0, valley + 1.0, args=(gamma,))
            assert place > 5
        inside.append(bool((slope(grid[1:], gamma) <= 0).any()))
    return Violation(fraction(anywhere), fraction(inside))


def decay_sparse(rng: Generator) -> Violation:
    """Products of two weights just above their finite threshold, and ridge regression, which has none.

    The ridge solution vanishes as 1/gamma and no faster. Control: products just below their threshold.
    """
    failed: list[bool] = []
    control: list[bool] = []
    for _ in range(2):
        x, noise = rng.standard_normal((20, 4)), rng.standard_normal(20)
        y = x @ rng.standard_normal(4) + noise
        square, covariance = x.T @ x / len(x), x.T @ y / len(x)
        for gamma in (1e5, 1e8):
            ridge = np.linalg.solve(square + gamma * np.eye(4), covariance)
            failed.append(bool((np.abs(ridge * gamma / covariance - 1) > 0.1).any()))
        threshold = float(np.abs(covariance).max())
        for share, wrong in ((1.2, failed), (0.8, control)):
            product = smallest_product(square, covariance, share * threshold, rng.standard_normal(8))
            wrong.append(not np.abs(product).max() < 1e-8)
    return Violation(fraction(failed), control=fraction(control))


def sparsity_unique(rng: Generator) -> Violation:
    """Ridge regressions with a repeated feature whose solution has ``O^T w = 0`` at a finite decay, as in footnote 5.

    Control: the share that has not, without the repetition.
    """
    found: list[bool] = []
    control: list[bool] = []
    for gamma in (1e-3, 1.0):
        x, y = rng.standard_normal((20, 3)), rng.standard_normal(20)
        for columns, verdicts in (((0, 0, 1), found), ((0, 2, 1), control)):
            used = x[:, columns]
            w = np.linalg.solve(used.T @ used / len(x) + gamma * np.eye(3), used.T @ y / len(x))
            verdicts.append(bool(abs(w[0] - w[1]) < 1e-9 * np.abs(w).max()))
    return Violation(fraction(found), control=1 - fraction(control))


def smallest_product(square: Array, covariance: Array, gamma: float, start: Array) -> Array:
    """Return v = w * u that minimizes ``v C v - 2 c v + gamma (||w||**2 + ||u||**2)``, by L-BFGS from a start."""
    size = len(covariance)

    def loss_and_slope(point: Array) -> tuple[float, Array]:
        w, u = point[:size], point[size:]
        v = w * u
        of_v = 2 * (square @ v - covariance)
        value = float(v @ square @ v - 2 * covariance @ v + gamma * point @ point)
        return value, np.concatenate([of_v * u, of_v * w]) + 2 * gamma * point

    options = {"maxiter": 20000, "ftol": 1e-16, "gtol": 1e-13, "maxcor": 30}
    found = minimize(loss_and_slope, start, jac=True, method="L-BFGS-B", options=options).x
    return np.asarray(found[:size] * found[size:])


CHECKS = (
    definition2,
    fig1_matrix,
    fig1_projection,
    theorem1_part1,
    theorem1_part2,
    footnote1,
    hessian_near_mirror,
    theorem1_part3,
    theorem1_part3_bounded,
    theorem1_part4,
    theorem1_part4_proof,
    theorem1_part4_models,
    local_minimum,
    bounded_space,
    assumption1_bounded_space,
    decay_sparse,
    sparsity_unique,
)
