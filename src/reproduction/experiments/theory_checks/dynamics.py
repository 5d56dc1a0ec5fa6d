"""Sections 2.3 and 2.4 and Appendix C.1: the Hessian of the tanh network, expansions, gradient descent and SGD."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirrorsym import stability
from mirrorsym.mirrors import identity_mirror
from reproduction.experiments.hessian_structure import scalar_sample_loss
from reproduction.experiments.theory_checks.losses import (
    Model,
    factorization,
    gradient,
    hessian,
    normal,
    paper_models,
    random_loss,
    random_models,
    rescaled_regression,
    tanh_network,
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
    """How the entries between the blocks vanish towards zero; control: towards another point."""
    missing, control = [], []
    between = np.kron(1 - np.eye(4), np.ones((2, 2)))
    for _ in range(3):
        direction, (x, y) = unit(normal(rng, 8)), rng.standard_normal(2)
        found = [scalar_hessian(size * direction, float(x), float(y)) for size in (FAR, NEAR)]
        far, near = (float(np.linalg.norm(matrix * between) / np.linalg.norm(matrix)) for matrix in found)
        missing.append(missing_order(1.0, order(far, near, FAR / NEAR)))
    for _ in range(3):
        elsewhere, direction, (x, y) = normal(rng, 8), unit(normal(rng, 8)), rng.standard_normal(2)
        found = [scalar_hessian(elsewhere + size * direction, float(x), float(y)) for size in (FAR, NEAR)]
        far, near = (float(np.linalg.norm(matrix * between) / np.linalg.norm(matrix)) for matrix in found)
        control.append(missing_order(1.0, order(far, near, FAR / NEAR)))
    return Violation(worst(missing), control=min(control))


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


BACKGROUNDS: tuple[rescaled_regressor.Background, ...] = ("collapsed", "learnt")


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


def assumption2(rng: Generator) -> Violation:
    """Relative change of the critical rate of Figure 3, left, with the point on the mirror, at label noise 1.

    From a background in which all other features are at zero to one in which all are learnt. Edge: at label noise 0.1.
    """
    moved = []
    for noise_std in (1.0, 0.1):
        collapsed, learnt = (rescaled_regressor.critical_learning_rates(noise_std, where)[0] for where in BACKGROUNDS)
        moved.append(abs(collapsed / learnt - 1))
    return Violation(moved[0], edge=moved[1])


def linear_coupling(rng: Generator) -> Violation:
    """How the forces along and across couple near the mirror: 2 minus the lowest order, cut to [0, 1].

    Motion across by s changes the force along; motion along by s, from a distance of s, changes the force across
    beyond its linear part. Control: losses without the symmetry.
    """
    missing: list[float] = []
    control: list[float] = []
    for model in random_models(rng):
        if model.mirror.codimension == model.mirror.parameters:
            continue
        plain = Model("none", random_loss(rng, model.mirror.parameters), model.mirror, 3)
        for one, found in ((model, missing), (plain, control)):
            sample, on, across = one.samples(rng, 1)[0], one.on_mirror(rng), one.across(rng)
            along = unit(one.on_mirror(rng))

            def slope(w: Tensor, one: Model = one, sample: Tensor = sample) -> Tensor:
                return gradient(lambda point: one.loss(point, sample), w)

            here = slope(on)
            sizes = (FAR / 10, NEAR / 10)
            of_across = [float(one.mirror.project(slope(on + s * across) - here).norm()) for s in sizes]
            of_along = [
                float(one.mirror.distance(slope(on + s * across + s * along) - slope(on + s * across))) for s in sizes
            ]
            for far, near in (of_across, of_along):
                if near > 1e-12:
                    found.append(missing_order(2, order(far, near, FAR / NEAR)))
    return Violation(worst(missing), control=float(np.median(control)))


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


def escape_rate_limit(rng: Generator) -> Violation:
    """Growth of gradient descent per unit of time, the rate times the steps, against ``-xi*`` as the rate vanishes.

    1 minus the order of the relative error in the rate, cut to [0, 1]. Control: against half of it, an error that does
    not vanish. Edge: the largest relative error at rates from 0.01 to 0.4 with curvatures of order 1.
    """
    missing: list[float] = []
    control: list[float] = []
    largest: list[float] = []
    for _ in range(3):
        eigenvalue = -rng.uniform(0.5, 1)
        curvature = mean_hessian(rng, np.array([eigenvalue, 0.3 * eigenvalue, 0.5, 2.0]))
        speeds = {}
        for rate in (0.4, 0.1, 0.01, 0.005):
            z = 1e-100 * rng.standard_normal(4)
            steps, logs = int(60 / rate), []
            for step in range(steps):
                if step in (steps // 2, steps - 1):
                    logs.append((step, float(np.log(np.linalg.norm(z)))))
                z = z - rate * (curvature @ z)
            speeds[rate] = (logs[1][1] - logs[0][1]) / (logs[1][0] - logs[0][0]) / rate
        for claimed, found in ((-eigenvalue, missing), (-eigenvalue / 2, control)):
            far, near = (abs(speeds[rate] / claimed - 1) for rate in (0.01, 0.005))
            found.append(missing_order(1, order(far, near, 2)))
        largest.append(max(abs(speed / -eigenvalue - 1) for speed in speeds.values()))
    return Violation(worst(missing), control=min(control), edge=worst(largest))


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


def gd_attraction_small_rate(rng: Generator) -> Violation:
    """Whether gradient descent goes to the mirror if and only if xi* with the decay's shift, 2 gamma, is positive.

    At rates ``rate * (xi_max + 2 gamma) < 1``. Control: if and only if xi* alone is positive. Edge: at larger rates.
    """
    wrong: dict[str, list[bool]] = {"small": [], "without": [], "large": []}
    for _ in range(60):
        eigenvalues = np.append(-rng.uniform(0.1, 1), rng.uniform(-0.1, 2, 2))
        gamma = rng.uniform(0, 2) * -eigenvalues[0]
        limit = 1 / (eigenvalues.max() + 2 * gamma)
        shifted = eigenvalues[0] + 2 * gamma
        for name, rate in (("small", rng.uniform(0.1, 1) * limit), ("large", rng.uniform(2.1, 4) * limit)):
            step = np.eye(3) - rate * (mean_hessian(rng, eigenvalues) + 2 * gamma * np.eye(3))
            if abs(np.log(np.abs(np.linalg.eigvals(step)).max())) < 1e-3:
                continue
            with np.errstate(over="ignore", invalid="ignore"):
                attracted = bool(np.linalg.norm(np.linalg.matrix_power(step, 2**15)) < 1)
            wrong[name].append((shifted > 0) != attracted)
            if name == "small":
                wrong["without"].append((eigenvalues[0] > 0) != attracted)
    return Violation(fraction(wrong["small"]), control=fraction(wrong["without"]), edge=fraction(wrong["large"]))


def critical_decay(rng: Generator) -> Violation:
    """Whether gradient descent goes to a symmetric solution just above the decay ``-xi*/2`` and leaves just below it.

    Descent is on the whole loss, from a start near zero, at decays 5 % off; the mirrors are points, so that nothing
    moves along them. Control: by ``-xi*``, as printed, which leaves out that the Hessian of ``gamma ||w||**2`` is
    2 gamma. Registered: relative error of ``-xi*/2`` by the linearized step, made of the Hessian that gives xi*.
    """
    wrong, control = [], []
    for loss, inputs, labels, parameters in (
        (rescaled_regression, 3, 1, 6),
        (tanh_network, 2, 1, 9),
        (factorization, 3, 3, 24),
    ):
        model = Model("at zero", loss, identity_mirror(parameters), inputs, labels)
        mean, start = model.mean(model.samples(rng, 4)), 1e-4 * model.point(rng)
        eigenvalues = np.linalg.eigvalsh(hessian(mean, torch.zeros_like(start)).numpy())
        lowest, rate = float(eigenvalues[0]), 0.5 / float(np.abs(eigenvalues).max())
        for share in (0.95, 1.05):
            gamma = share * -lowest / 2
            middle = _descend(mean, gamma, rate, start)
            stays = bool(_descend(mean, gamma, rate, middle).norm() < middle.norm())
            wrong.append((lowest + 2 * gamma > 0) != stays)
            control.append((lowest + gamma > 0) != stays)
    return Violation(fraction(wrong), control=fraction(control), registered=_linear_critical_decay(rng))


def _descend(loss: Callable[[Tensor], Tensor], gamma: float, rate: float, w: Tensor, steps: int = 50) -> Tensor:
    """Return the parameters after steps of gradient descent with decay."""
    for _ in range(steps):
        w = w - rate * (gradient(loss, w) + 2 * gamma * w)
    return w


def _linear_critical_decay(rng: Generator) -> float:
    """Return the relative error of ``-xi*/2`` against the decay from which the linearized step does not grow."""
    errors = []
    for model in random_models(rng):
        loss, on = model.mean(model.samples(rng, 3)), model.on_mirror(rng)
        basis = torch.tensor(model.mirror.O)
        curvature = (basis.T @ hessian(loss, on) @ basis).numpy()
        lowest = float(np.linalg.eigvalsh(curvature)[0])
        if lowest > -1e-3:
            continue
        size = float(np.abs(np.linalg.eigvalsh(curvature)).max())
        low, high = 0.0, 2 * size
        for _ in range(40):
            middle = (low + high) / 2
            step = np.eye(len(curvature)) - (curvature + 2 * middle * np.eye(len(curvature))) / (8 * size)
            with np.errstate(over="ignore", invalid="ignore"):
                grows = not bool(np.linalg.norm(np.linalg.matrix_power(step, 2**40)) <= 1)
            low, high = (middle, high) if grows else (low, middle)
        errors.append(abs(high / (-lowest / 2) - 1))
    return worst(errors) if errors else float("nan")


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
    """The exponent against its second order, and the printed zero of that.

    Control: the second order with the other sign, a wrong formula, whose remainder is of second order.
    """
    missing, errors, control = [], [], []
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
        far, near = exact + rates * mean - rates**2 * square / 2
        control.append(missing_order(3, order(far, near, 2)))
        critical = -2 * mean / square
        library = float(stability.second_order_critical_learning_rate(law.mean(), (law**2).mean(), decay))
        errors.append(abs(library - max(critical, 0)) + abs(-critical * mean - critical**2 * square / 2))
    return Violation(worst([*missing, *errors]), control=min(control))


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
    """E[h**2] of products of two weights at zero on random regressions: over batch sizes, and with noisier labels.

    The batches are all of 1 to 4 of four samples, with replacement; labels have noise of 0.1 and of 1. Control: the
    same of the numerator's square, ``E[h]**2``, which no batch changes.
    """
    wrong, control = [], []
    for _ in range(5):
        x = rng.standard_normal((400, 1))
        noise = rng.standard_normal(400)
        quiet, noisy = (2 * x[:, 0] * (0.5 * x[:, 0] + size * noise) for size in (0.1, 1.0))
        wrong.append(bool((noisy**2).mean() <= (quiet**2).mean()))
        few = quiet[rng.choice(400, 4, replace=False)]
        batches = [batch_means(few, size) for size in (1, 2, 3, 4)]
        wrong += (np.diff([(batch**2).mean() for batch in batches]) >= 0).tolist()
        control += (np.diff([batch.mean() ** 2 for batch in batches]) >= -1e-12).tolist()
    return Violation(fraction(wrong), control=fraction(control))


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


RATES = np.geomspace(0.02, 8, 33)
"""Learning rates among which critical ones are looked for."""


def diagonal_approximation(rng: Generator) -> Violation:
    """Rates at which products of random 3 by 3 Hessians collapse one direction, two and three; and by the diagonal.

    The share of laws and directions whose two critical rates differ by more than a factor of four, or of which one
    alone has one; of those where the grid of rates can tell. Mended: laws that commute. Control: by the diagonal
    without its noise. Edge: of the last direction alone, with which nothing escapes. Registered: of that, the median
    over laws of the logarithm of the ratio, with the grid's last rate for what never collapses.
    """
    laws, diagonals, quiet = [], [], []
    for _ in range(24):
        mean = -np.sort(rng.uniform(-0.3, 0.3, 3)) - np.array([0, 0, rng.uniform(0.05, 0.2)])
        noise = rng.standard_normal((1000, 3, 3))
        for off_diagonal in (rng.uniform(0, 2), 0.0):
            hessians = np.diag(mean) + (noise + noise.transpose(0, 2, 1)) / 2 * np.where(np.eye(3), 1.0, off_diagonal)
            # Every sample twice, so that chance does not move the diagonal's own means.
            laws.append(hessians[rng.permutation(np.tile(np.arange(len(hessians)), 2))])
            diagonals.append([stability.lyapunov_exponent(RATES, hessians[:, i, i]) for i in range(3)])
            quiet.append(np.log(np.abs(1 - mean[:, None] * RATES)))
    exact, approximate, noiseless = (
        _begins(np.asarray(found)) for found in (_spectra(RATES, np.array(laws)), diagonals, quiet)
    )
    mixed, commuting = slice(0, None, 2), slice(1, None, 2)
    last = [np.where(np.isfinite(found), found, RATES[-1])[mixed, 2] for found in (approximate, exact)]
    return Violation(
        fraction(_apart(approximate[mixed], exact[mixed])),
        fraction(_apart(approximate[commuting], exact[commuting])),
        fraction(_apart(noiseless[mixed], exact[mixed])),
        fraction(_apart(approximate[mixed, 2], exact[mixed, 2])),
        float(np.median(np.abs(np.log(last[0] / last[1])))),
    )


def _spectra(rates: Array, laws: Array) -> Array:
    """Return the exponents of products of Hessians at each learning rate.

    Args:
        rates: shape (rates,).
        laws: the Hessians of each law in the order in which they act, an even number, shape (laws, steps, 3, 3).

    Returns:
        Shape (laws, 3, rates), in no order.
    """
    count, steps, size, _ = laws.shape
    # One column after the other, of each the rates: all products advance in one multiplication.
    columns = np.repeat(np.tile(np.eye(size), (count, 1, 1)), len(rates), axis=2)
    every = np.tile(rates, size)
    growth = np.zeros((count, size, len(rates)))
    for step in range(steps):
        columns = columns - laws[:, step] @ columns * every
        if step % 2:
            apart = columns.reshape(count, size, size, len(rates))
            for place in range(size):
                column = apart[:, :, place]
                for before in range(place):
                    column -= apart[:, :, before] * (apart[:, :, before] * column).sum(1, keepdims=True)
                length = np.sqrt((column**2).sum(1))
                growth[:, place] += np.log(length)
                column /= length[:, None]
    return np.asarray(growth / steps)


def _begins(exponents: Array) -> Array:
    """Return the smallest rates at which one exponent, two and three are negative, infinite where there are none.

    Args:
        exponents: at :data:`RATES`, shape (laws, directions, rates).

    Returns:
        Shape (laws, directions).
    """
    negative = np.sort(exponents, axis=1) < 0
    return np.where(negative.any(-1), RATES[negative.argmax(-1)], np.inf)


def _apart(first: Array, second: Array) -> list[bool]:
    """Return whether critical rates are more than four times apart, of those of which the grid of rates can tell.

    It cannot where both directions collapse from its start, where neither does, and where one alone does near its end.
    """
    low, high = np.minimum(first, second), np.maximum(first, second)
    told = (high > RATES[0]) & np.where(np.isfinite(high), True, low <= RATES[-1] / 4)
    return [bool(wrong) for wrong in (high > 4 * low)[told]]


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


def noise_attracts_rank_one(rng: Generator) -> Violation:
    """Laws of one curvature whose exponent under SGD is above that of gradient descent, with ``rate * h < 1``.

    By Jensen's inequality none is. Control: the share of products of 4 by 4 Hessians whose largest exponent is. Edge:
    rates at which some ``rate * h`` is far above 1.
    """
    wrong: dict[str, list[bool]] = {"small": [], "large": []}
    control = []
    for _ in range(20):
        law = rng.standard_normal(400) * rng.uniform(0.2, 2) - rng.uniform(-0.5, 0.5)
        for name, rate in (("small", rng.uniform(0.05, 0.95) / law.max()), ("large", rng.uniform(20, 100) / law.max())):
            descent = float(np.log(np.abs(1 - rate * law.mean())))
            wrong[name].append(float(stability.lyapunov_exponent(rate, law)) > descent)
    for _ in range(4):
        noise = rng.standard_normal((3000, 4, 4))
        hessians = -0.01 * np.eye(4) + (noise + noise.transpose(0, 2, 1)) * np.where(np.eye(4), 0.1, 0.5)
        rate = np.array([0.2])
        control.append(bool(_largest_exponents(rate, hessians, rng)[0] > np.log(1 + 0.01 * rate[0])))
    return Violation(fraction(wrong["small"]), control=fraction(control), edge=fraction(wrong["large"]))


def noise_attracts_in_sum(rng: Generator) -> Violation:
    """Laws of 4 by 4 Hessians whose exponents sum to more under SGD than under gradient descent.

    The sum is ``E log |det(I - rate H)|``, and the logarithm of a determinant is concave while ``I - rate H`` is
    positive definite, at the rates here. Control: the share whose largest exponent is above gradient descent's.
    """
    wrong, control = [], []
    for _ in range(6):
        noise = rng.standard_normal((3000, 4, 4))
        spread = np.where(np.eye(4), 0.1, 0.5)
        hessians = np.diag(rng.uniform(-0.02, 0.02, 4)) + (noise + noise.transpose(0, 2, 1)) * spread
        rate = 0.9 / float(np.linalg.eigvalsh(hessians).max())
        steps, descent = np.eye(4) - rate * hessians, np.eye(4) - rate * hessians.mean(0)
        wrong.append(bool(np.log(np.linalg.det(steps)).mean() > np.log(np.linalg.det(descent))))
        largest = _largest_exponents(np.array([rate]), hessians, rng)[0]
        control.append(bool(largest > np.log(np.linalg.eigvalsh(descent).max())))
    return Violation(fraction(wrong), control=fraction(control))


def fisher(rng: Generator) -> Violation:
    """Fisher information across the mirror, with the data's labels and with the model's; control: off the mirror.

    Edge: at a distance of 0.01 from it, where the information is nearly singular and no longer singular.
    """
    residuals, control, missing, close = [], [], [], []
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
        if model.smooth:
            far, near = (informations(on + s * across)[0] for s in (FAR, NEAR))
            parts = [float((basis.T @ matrix @ basis).norm()) for matrix in (far, near)]
            close.append(ratio(parts[1], max(float(near.norm()), size[0])))
            if parts[1] > 1e-14:
                missing.append(missing_order(2, order(parts[0], parts[1], FAR / NEAR)))
    late = worst(missing)
    return Violation(
        max(worst(residuals), late if late > 0.1 else 0.0), control=float(np.median(control)), edge=worst(close)
    )


CHECKS = (
    eq2,
    eq2_near_zero,
    eq2_two_mirrors,
    eq3,
    eq14,
    eq14_background,
    eq4,
    independent_dynamics,
    assumption2,
    linear_coupling,
    escape_rate,
    escape_rate_limit,
    decay_shift,
    gd_attraction,
    gd_attraction_small_rate,
    critical_decay,
    lyapunov_large_rate,
    eq5_expansion,
    eq5_condition,
    eq5_denominator,
    theorem5,
    diagonal_approximation,
    noise_attracts_rank_one,
    noise_attracts_in_sum,
    fisher,
)
