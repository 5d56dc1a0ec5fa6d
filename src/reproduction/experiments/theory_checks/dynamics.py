"""Sections 2.3 and 2.4 and Appendix C.1: the Hessian of the tanh network, expansions, gradient descent and SGD."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirrorsym import stability
from reproduction.experiments.hessian_structure import scalar_sample_loss
from reproduction.experiments.theory_checks.losses import (
    Model,
    gradient,
    hessian,
    normal,
    paper_models,
    random_loss,
    random_models,
    unit,
)
from reproduction.experiments.theory_checks.violations import Violation, fraction, missing_order, order, ratio, worst
from reproduction.theory import rescaled_regressor

Array = NDArray[np.float64]
Generator = np.random.Generator
FAR, NEAR = 2e-2, 1e-2


def eq2(rng: Generator) -> Violation:
    """The Hessian of the scalar tanh network at zero, and its eigenvectors."""
    residuals, control = [], []
    for neurons in (1, 4):
        x, y = rng.standard_normal(2)
        found = scalar_hessian(torch.zeros(2 * neurons, dtype=torch.float64), float(x), float(y))
        printed = np.kron(np.eye(neurons), [[0, -x * y], [-x * y, 0]])
        residuals.append(float(np.abs(found - printed).max() / abs(x * y)))
        for neuron, sign in product(range(neurons), (1, -1)):
            vector = np.zeros(2 * neurons)
            vector[2 * neuron : 2 * neuron + 2] = 1, sign
            residuals.append(float(np.abs(found @ vector + sign * x * y * vector).max() / abs(x * y)))
        elsewhere = scalar_hessian(normal(rng, 2 * neurons), float(x), float(y))
        control.append(float(np.abs(elsewhere - printed).max() / np.abs(elsewhere).max()))
    return Violation(worst(residuals), control=min(control))


def scalar_hessian(theta: Tensor, x: float, y: float) -> Array:
    """Return the Hessian of Eq. 2's loss at (w_1, u_1, w_2, ...)."""
    sample = torch.tensor([x, y], dtype=torch.float64)
    return np.asarray(hessian(lambda point: scalar_sample_loss(point, sample[0], sample[1]), theta).numpy())


def eq2_near_zero(rng: Generator) -> Violation:
    """How the entries between the blocks vanish towards zero."""
    missing = []
    between = np.kron(1 - np.eye(4), np.ones((2, 2)))
    for _ in range(3):
        direction, (x, y) = unit(normal(rng, 8)), rng.standard_normal(2)
        found = [scalar_hessian(size * direction, float(x), float(y)) for size in (FAR, NEAR)]
        far, near = (float(np.linalg.norm(matrix * between) / np.linalg.norm(matrix)) for matrix in found)
        missing.append(missing_order(1.0, order(far, near, FAR / NEAR)))
    return Violation(worst(missing))


def eq2_two_mirrors(rng: Generator) -> Violation:
    """The exchange of u and w in a tanh neuron, at order 1; mended: the order of its change at zero, 4."""
    printed, mended = [], []
    for _ in range(3):
        u, w, x = rng.uniform(0.5, 2, 3) * rng.choice([-1, 1], 3)

        def change(size: float, u: float = float(u), w: float = float(w), x: float = float(x)) -> float:
            return float(size * u * np.tanh(size * w * x) - size * w * np.tanh(size * u * x))

        printed.append(abs(change(1.0)) / abs(u * np.tanh(w * x)))
        mended.append(missing_order(3.9, order(change(FAR), change(NEAR), FAR / NEAR)))
    return Violation(min(printed), worst(mended))


def along(model: Model, rng: Generator) -> tuple[Callable[[float], float], float]:
    """Return the loss of one sample at a distance s along a line across the mirror, and its curvature there."""
    sample, on, across = model.samples(rng, 1)[0], model.on_mirror(rng), model.across(rng)
    curvature = across @ hessian(lambda w: model.loss(w, sample), on) @ across
    return lambda s: float(model.loss(on + s * across, sample)), float(curvature)


def remainder_orders(rng: Generator) -> list[float]:
    """Return the orders in s at which the remainder of the second-order expansion vanishes, where there is one."""
    orders = []
    for model in [*random_models(rng), *paper_models(rng)]:
        loss, curvature = along(model, rng)
        if not model.smooth:
            continue
        far, near = (loss(s) - loss(0) - curvature * s**2 / 2 for s in (FAR, NEAR))
        if abs(near) > 1e-11:
            orders.append(order(far, near, FAR / NEAR))
    return orders


def eq3(rng: Generator) -> Violation:
    """Orders of the remainder for smooth losses and for ``|s|**2.5``, and odd parts; mended: smooth losses."""
    odd = []
    for model in [*random_models(rng), *paper_models(rng)]:
        loss, _ = along(model, rng)
        odd.append(abs(loss(1.0) - loss(-1.0)) / max(abs(loss(1.0)), 1e-3))
    smooth = worst([*(missing_order(4, found) for found in remainder_orders(rng)), *odd])
    rough = missing_order(4, order(FAR**2.5, NEAR**2.5, FAR / NEAR))
    plain, sample, on, across = random_loss(rng, 4), normal(rng, 4), normal(rng, 4), unit(normal(rng, 4))
    curvature = float(across @ hessian(lambda w: plain(w, sample), on) @ across)
    far, near = (float(plain(on + s * across, sample) - plain(on, sample)) - curvature * s**2 / 2 for s in (1e-4, 1e-5))
    return Violation(max(smooth, rough), smooth, missing_order(4, order(far, near, 10)))


def eq14(rng: Generator) -> Violation:
    """Whether the remainder vanishes faster than ``s**4``; mended: as fast."""
    orders = remainder_orders(rng)
    return Violation(
        worst(missing_order(5, found) for found in orders), worst(missing_order(4, found) for found in orders)
    )


def eq14_background(rng: Generator) -> Violation:
    """The part along O of the point around which Eq. 14 expands; mended: of ``(I - P) w``."""
    printed, mended = [], []
    for model in random_models(rng):
        w = model.point(rng)
        of_w = float(model.mirror.distance(w))
        printed.append(float(model.mirror.distance(torch.tensor(model.mirror.P) @ w)) / of_w)
        mended.append(float(model.mirror.distance(model.mirror.project(w))) / of_w)
    return Violation(min(printed), worst(mended))


def eq4(rng: Generator) -> Violation:
    """One step of SGD near the mirror (control: far from it) against its linearization."""
    residuals: list[float] = []
    control: list[float] = []
    for model in [*random_models(rng), *paper_models(rng)]:
        sample, on, across = model.samples(rng, 1)[0], model.on_mirror(rng), model.across(rng)
        basis = torch.tensor(model.mirror.O)

        def loss(w: Tensor, model: Model = model, sample: Tensor = sample) -> Tensor:
            return model.loss(w, sample)

        curvature = basis.T @ hessian(loss, on) @ basis
        size = float(curvature.norm()) or 1.0
        for distance, found in ((1e-5, residuals), (1.0, control)):
            w = on + distance * across
            z, slope = basis.T @ w, basis.T @ gradient(loss, w)
            for rate in (1e-3 / size, 1.0 / size, 1e3 / size):
                printed = z - rate * curvature @ z
                scale = z.norm() + rate * (curvature @ z).norm()
                found.append(float((z - rate * slope - printed).norm() / scale))
    return Violation(worst(residuals), control=worst(control))


def independent_dynamics(rng: Generator) -> Violation:
    """How the point on the mirror moves the curvature across it; mended: the order of the motion across on it."""
    printed, mended = [], []
    for model in random_models(rng):
        if model.mirror.codimension == model.mirror.parameters:
            continue
        sample, on, across = model.samples(rng, 1)[0], model.on_mirror(rng), model.across(rng)

        def loss(w: Tensor, model: Model = model, sample: Tensor = sample) -> Tensor:
            return model.loss(w, sample)

        moved = model.on_mirror(rng)
        nearby = on + 0.1 * on.norm() * unit(moved)
        here, there = (float(across @ hessian(loss, w) @ across) for w in (on, nearby))
        printed.append(abs(there - here) / max(abs(here), abs(there)) / 0.1)
        slope = gradient(loss, on)
        far, near = (float(model.mirror.project(gradient(loss, on + s * across) - slope).norm()) for s in (FAR, NEAR))
        mended.append(missing_order(1, order(far, near, FAR / NEAR)))
    return Violation(float(np.median(printed)), worst(mended))


def mean_hessian(rng: Generator, eigenvalues: Array) -> Array:
    """Return a matrix with given eigenvalues in general position."""
    basis = np.linalg.qr(rng.standard_normal((len(eigenvalues), len(eigenvalues))))[0]
    return np.asarray((basis * eigenvalues) @ basis.T)


def escape_rate(rng: Generator) -> Violation:
    """Growth per step of gradient descent from 1e-100 on ``z H z / 2 + ||z||**4``."""
    printed, mended = [], []
    for rate in (0.01, 0.1, 0.4):
        worst_eigenvalue = -rng.uniform(0.5, 1)
        curvature = mean_hessian(rng, np.array([worst_eigenvalue, 0.3 * worst_eigenvalue, 0.5, 2.0]))
        z = 1e-100 * rng.standard_normal(4)
        steps, logs = int(60 / rate), []
        for step in range(steps):
            if step in (steps // 2, steps - 1):
                logs.append((step, float(np.log(np.linalg.norm(z)))))
            z = z - rate * (curvature @ z + 4 * (z @ z) * z)
        growth = (logs[1][1] - logs[0][1]) / (logs[1][0] - logs[0][0])
        exact = np.log(1 - rate * worst_eigenvalue)
        printed.append(abs(growth / -worst_eigenvalue - 1))
        mended.append(abs(growth / exact - 1))
    return Violation(worst(printed), worst(mended))


def decay_shift(rng: Generator) -> Violation:
    """Shift of the Hessian's eigenvalues by decay (Eq. 1); mended: 2 gamma; control: of PyTorch's weight_decay."""
    printed, mended, control = [], [], []
    for model in random_models(rng):
        loss, on, gamma = model.mean(model.samples(rng, 3)), model.on_mirror(rng), float(rng.uniform(0.1, 2))

        def decayed(w: Tensor, loss: Callable[[Tensor], Tensor] = loss, gamma: float = gamma) -> Tensor:
            return loss(w) + gamma * (w**2).sum()

        shift = np.linalg.eigvalsh(hessian(decayed, on).numpy()) - np.linalg.eigvalsh(hessian(loss, on).numpy())
        printed.append(float(np.abs(shift / gamma - 1).max()))
        mended.append(float(np.abs(shift / (2 * gamma) - 1).max()))
        control.append(float(np.abs(shift / 2 / (2 * gamma) - 1).max()))
    return Violation(worst(printed), worst(mended), worst(control))


def gd_attraction(rng: Generator) -> Violation:
    """Where gradient descent with decay goes near the mirror; mended: with 2 gamma, and a rate not too large."""
    printed, mended = [], []
    for _ in range(60):
        eigenvalues = np.append(-rng.uniform(0.1, 1), rng.uniform(-0.1, 2, 2))
        gamma, rate = rng.uniform(0, 2) * -eigenvalues[0], rng.uniform(0.05, 1.2)
        step = np.eye(3) - rate * (mean_hessian(rng, eigenvalues) + 2 * gamma * np.eye(3))
        # 2**15 steps decide all but draws within 1e-3 of the border, which are left out.
        growth = np.log(np.abs(np.linalg.eigvals(step)).max())
        if abs(growth) < 1e-3:
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            attracted = bool(np.linalg.norm(np.linalg.matrix_power(step, 2**15)) < 1)
        printed.append((eigenvalues[0] + gamma > 0) != attracted)
        by_decay = eigenvalues[0] + 2 * gamma > 0 and rate * (eigenvalues.max() + 2 * gamma) < 2
        mended.append(by_decay != attracted)
    return Violation(fraction(printed), fraction(mended))


def lyapunov_large_rate(rng: Generator) -> Violation:
    """Exponents of the rescaled regressor at a huge rate; mended: inside and outside of both critical rates.

    The exponents are means over 50,000 samples of the curvature, independent of the closed forms that give the rates.
    """
    printed, mended = [], []
    for _ in range(2):
        noise_std, dimension = float(10 ** rng.uniform(-1, 0.5)), int(rng.integers(20, 300))
        x = rng.standard_normal(50_000)
        rest = rng.standard_normal(50_000) * np.sqrt(noise_std**2 + (dimension - 1) / dimension**2)
        curvature = -2 * x * (x / dimension + rest)
        size = float(np.sqrt((curvature**2).mean()))
        printed.append(float(stability.lyapunov_exponent(100 / size, curvature)) >= 0)
        low, high = rescaled_regressor.critical_learning_rates(noise_std, dimension=dimension)
        rates = [(low * 0.5, False), (low * 2, True), (float(np.sqrt(low * high)), True), (high * 0.5, True)]
        for rate, inside in [*rates, (high * 2, False), (high * 1e3, False)]:
            growth = np.log(np.abs(1 - rate * curvature))
            mean, error = growth.mean(), growth.std() / np.sqrt(growth.size)
            if abs(mean) > 4 * error:
                mended.append((mean < 0) != inside)
    return Violation(fraction(printed), fraction(mended))


def random_law(rng: Generator, relative_mean: float) -> Array:
    """Return curvatures of a normal law with negative mean, relative to the standard deviation."""
    values = rng.standard_normal(2000)
    return np.asarray((values - values.mean()) / values.std() - relative_mean)


def eq5_expansion(rng: Generator) -> Violation:
    """The exponent against its second order, and the printed zero of that."""
    missing, errors = [], []
    for _ in range(3):
        law = random_law(rng, float(rng.uniform(0.1, 1))) ** 3
        law = law / np.sqrt((law**2).mean())
        decay = float(rng.uniform(0, 0.2))
        shifted = law + decay
        mean, square = float(shifted.mean()), float((shifted**2).mean())
        rates = np.array([2e-4, 1e-4])
        exact = stability.lyapunov_exponent(rates, law, weight_decay=decay)
        far, near = exact + rates * mean + rates**2 * square / 2
        missing.append(missing_order(3, order(far, near, 2)))
        critical = -2 * mean / square
        library = float(stability.second_order_critical_learning_rate(law.mean(), (law**2).mean(), decay))
        errors.append(abs(library - max(critical, 0)) + abs(-critical * mean - critical**2 * square / 2))
    return Violation(worst([*missing, *errors]))


def eq5_condition(rng: Generator) -> Violation:
    """Eq. 5 against the sign of the exponent; mended: at small learning rates away from Eq. 5's own."""
    printed, mended = [], []
    for relative_mean in 10.0 ** rng.uniform(-2.5, 0, 12):
        law = random_law(rng, float(relative_mean))
        size = float(np.sqrt((law**2).mean()))
        critical = float(stability.second_order_critical_learning_rate(law.mean(), (law**2).mean()))
        rates = np.geomspace(1e-3, 1e2, 41) / size
        wrong = (stability.lyapunov_exponent(rates, law) < 0) != (rates > critical)
        printed += wrong.tolist()
        mended += wrong[(rates * size < 0.1) & (np.abs(rates / critical - 1) > 0.1)].tolist()
    return Violation(fraction(printed), fraction(mended))


def eq5_denominator(rng: Generator) -> Violation:
    """E[h**2] over all batches with replacement of 1 to 4 of four samples, and with noise on the curvature."""
    wrong = []
    for _ in range(5):
        law = rng.standard_normal(4)
        squares = []
        for size in (1, 2, 3, 4):
            squares.append(float((batch_means(law, size) ** 2).mean()))
            wrong.append(abs(squares[-1] - law.mean() ** 2 - law.var() / size) > 1e-12)
        noisy = np.concatenate([law + 0.5, law - 0.5])
        wrong += [*(np.diff(squares) >= 0).tolist(), float((noisy**2).mean()) <= squares[0]]
    return Violation(fraction(wrong))


def batch_means(law: Array, size: int) -> Array:
    """Return the mean over each batch of a size, drawn with replacement."""
    return np.array([np.mean(batch) for batch in product(law, repeat=size)])


def theorem5(rng: Generator) -> Violation:
    """Simulated runs against the sign of the exponent; control: against the sign of the mean curvature."""
    wrong, control, steps, runs = [], [], 4000, 100
    laws = [
        (rng.standard_normal(5) - mean, size, rate) for mean in (0.1, 0.4) for size in (1, 2) for rate in (0.8, 2.5)
    ]
    laws += [
        (np.array([1.0, -2.0]), 1, 1.0),  # a factor of exactly 0
        (np.array([2.0, 0.0]), 1, 1.0),  # factors of 1 and -1: the exponent is 0 and nothing moves
        (np.array([0.5, -1.0]), 1, 1.0),  # factors of 1/2 and 2: a walk of exponent 0
    ]
    for law, size, rate in laws:
        hessians = batch_means(law, size)
        with np.errstate(divide="ignore"):
            growth = np.log(np.abs(1 - rate * hessians))
        exponent = float(growth.mean())
        spread = float(growth.std()) if np.isfinite(exponent) else 0.0
        if exponent != 0 and abs(exponent) > 1e-12 and abs(exponent) * steps < 5 * spread * np.sqrt(steps) + 20:
            continue
        batches = law[rng.integers(len(law), size=(runs, steps, size))].mean(-1)
        with np.errstate(divide="ignore"):
            logs = np.log(np.abs(1 - rate * batches)).sum(1)
        collapses = fraction((logs < -20).tolist()) > 0.5
        wrong.append(collapses != (exponent < -1e-12))
        control.append(collapses != (float(law.mean()) > 0))
    return Violation(fraction(wrong), control=fraction(control))


def diagonal_approximation(rng: Generator) -> Violation:
    """Critical rates of products of random 3 by 3 Hessians against those of their diagonals: log of the ratio.

    Mended: Hessians that commute. In general the entries off the diagonal push away from the mirror as those on it
    pull: to second order direction i grows by ``-rate E[H_ii] + rate**2 / 2 (sum over j != i of E[H_ij**2] -
    E[H_ii**2])`` a step.
    """
    errors: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(5):
        mean = -np.sort(rng.uniform(-0.3, 0.3, 3)) - np.array([0, 0, rng.uniform(0.05, 0.2)])
        noise = rng.standard_normal((1000, 3, 3))
        for commute, found in errors.items():
            spread = np.where(np.eye(3), 1.0, 0.0 if commute else rng.uniform(0, 2))
            hessians = np.diag(mean) + (noise + noise.transpose(0, 2, 1)) / 2 * spread
            rates = np.geomspace(0.02, 8, 33)
            diagonal = [stability.lyapunov_exponent(rates, hessians[:, i, i]) for i in range(3)]
            largest = _largest_exponents(rates, hessians[rng.integers(len(hessians), size=2000)], rng)
            approximate, exact = (_collapse_begins(rates, growth) for growth in (np.max(diagonal, axis=0), largest))
            found.append(abs(float(np.log(exact / approximate))))
    return Violation(float(np.median(errors[False])), float(np.median(errors[True])))


def _largest_exponents(rates: Array, hessians: Array, rng: Generator) -> Array:
    """Return the growth per step of a random vector under the same Hessians at each learning rate."""
    vectors = rng.standard_normal((len(rates), hessians.shape[1]))
    total = np.zeros(len(rates))
    for step, matrix in enumerate(hessians):
        vectors = vectors - rates[:, None] * (vectors @ matrix)
        sizes = np.linalg.norm(vectors, axis=1)
        vectors /= sizes[:, None]
        total += np.log(sizes) if step >= 20 else 0
    return np.asarray(total / (len(hessians) - 20))


def _collapse_begins(rates: Array, growth: Array) -> float:
    """Return the smallest rate of a grid with negative growth, the last one where there is none."""
    negative = np.flatnonzero(growth < 0)
    return float(rates[negative[0]] if negative.size else rates[-1])


def fisher(rng: Generator) -> Violation:
    """Fisher information across the mirror, with the data's labels and with the model's; control: off the mirror."""
    residuals, control, missing = [], [], []
    for model in [*random_models(rng), *paper_models(rng)]:
        samples, on, across = model.samples(rng, 4), model.on_mirror(rng), model.across(rng)

        def informations(w: Tensor, model: Model = model, samples: Tensor = samples) -> list[Tensor]:
            place, sample = w.clone().requires_grad_(), samples[0].clone().requires_grad_()
            of_data = torch.stack([gradient(lambda v, one=one: model.loss(v, one), w) for one in samples])  # type: ignore[misc]
            # The squared loss's slope is linear in the labels, with the model's Jacobian as its coefficient.
            (of_sample,) = torch.autograd.grad(model.loss(place, sample), sample, create_graph=True)
            labels = of_sample[-model.labels :]
            of_labels = torch.stack([torch.autograd.grad(label, place, retain_graph=True)[0] for label in labels])
            return [rows.T @ rows for rows in (of_data, of_labels)]

        basis = torch.tensor(model.mirror.O)
        size = [float(matrix.norm()) for matrix in informations(on + across)]
        for matrix, other in zip(informations(on), size, strict=True):
            residuals.append(ratio((basis.T @ matrix @ basis).norm(), max(float(matrix.norm()), other)))
        control.append(ratio((basis.T @ informations(on + across)[0] @ basis).norm(), size[0]))
        far, near = (float((basis.T @ informations(on + s * across)[0] @ basis).norm()) for s in (FAR, NEAR))
        if model.smooth and near > 1e-14:
            missing.append(missing_order(2, order(far, near, FAR / NEAR)))
    late = worst(missing)
    return Violation(max(worst(residuals), late if late > 0.1 else 0.0), control=float(np.median(control)))


CHECKS = (
    eq2,
    eq2_near_zero,
    eq2_two_mirrors,
    eq3,
    eq14,
    eq14_background,
    eq4,
    independent_dynamics,
    escape_rate,
    decay_shift,
    gd_attraction,
    lyapunov_large_rate,
    eq5_expansion,
    eq5_condition,
    eq5_denominator,
    theorem5,
    diagonal_approximation,
    fisher,
)
