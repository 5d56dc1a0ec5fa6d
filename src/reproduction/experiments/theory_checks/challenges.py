"""What would change a verdict, where it takes seconds: instances of another kind than those that judge a claim."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirrorsym.mirrors import identity_mirror, permutation_mirror
from reproduction.experiments.theory_checks.losses import (
    Model,
    gradient,
    hessian,
    normal,
    paper_models,
    random_loss,
    random_mirror,
    random_models,
    relu_network,
    tanh_network,
    with_decay,
)
from reproduction.experiments.theory_checks.violations import Violation, fraction, missing_order, order, ratio, worst

Array = NDArray[np.float64]
Generator = np.random.Generator
Function = Callable[[Tensor], Tensor]


def kinks(rng: Generator) -> Violation:
    """Part 1 of Theorem 1 for ReLU neurons whose input is exactly 0, with the slope that autograd takes there.

    Control: two neurons that are at their kinks and not equal.
    """
    exchange, silent = permutation_mirror(3).embed(range(6), 9), identity_mirror(3).embed([6, 7, 8], 9)
    residuals: list[float] = []
    control: list[float] = []
    for _ in range(5):
        on_kink = torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64) * float(rng.integers(1, 4))
        sample = torch.tensor([2.0, -1.0, 3.0], dtype=torch.float64) * float(rng.integers(1, 4))
        outgoing = float(rng.standard_normal()) * torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        alike = torch.cat([on_kink + outgoing, on_kink + outgoing, normal(rng, 3)])
        unlike = torch.cat([on_kink + outgoing, normal(rng, 3), normal(rng, 3)])
        for mirror, place, found in (
            (exchange, alike, residuals),
            (silent, silent.project(alike), residuals),
            (exchange, unlike, control),
        ):
            slope = gradient(lambda w, sample=sample: relu_network(w, sample), place)  # type: ignore[misc]
            found.append(ratio(mirror.distance(slope), max(float(slope.norm()), 1.0)))
    return Violation(worst(residuals), control=worst(control))


def wide_reflections(rng: Generator) -> Violation:
    """Definition 2's identities with 150 directions among 400 parameters; control: directions at an angle."""
    mirror = random_mirror(rng, 400, 150)
    directions, p, r = (np.asarray(matrix, float) for matrix in (mirror.O, mirror.P, mirror.R))
    one_by_one = np.eye(400)
    for n in directions.T:
        one_by_one -= 2 * np.outer(n, n @ one_by_one)
    size = float(np.linalg.norm(r))
    residuals = [np.linalg.norm(p @ p - p), np.linalg.norm(r @ r.T - np.eye(400)), np.linalg.norm(one_by_one - r)]
    skew = np.linalg.norm(np.eye(400) - 2 * directions[:, :1] @ (directions[:, :1] + directions[:, 1:2]).T - r)
    return Violation(worst(float(residual) / size for residual in residuals), control=float(skew) / size)


def heavy_tails(rng: Generator) -> Violation:
    """Theorem 5 for curvatures without a mean: Cauchy's law, whose exponent has a closed form.

    With centre c and width b it is ``log((1 - rate c)**2 + (rate b)**2) / 2``. Control: the sign of the median decides.
    """
    wrong: list[bool] = []
    control: list[bool] = []
    steps, runs = 3000, 100
    for centre, width, rate in ((0.5, 0.3, 1.0), (0.5, 0.3, 4.0), (0.2, 1.0, 0.2), (0.2, 1.0, 1.0), (-0.2, 0.5, 0.5)):
        exponent = np.log((1 - rate * centre) ** 2 + (rate * width) ** 2) / 2
        curvature = centre + width * rng.standard_cauchy((runs, steps))
        collapses = fraction((np.log(np.abs(1 - rate * curvature)).sum(1) < -20).tolist()) > 0.5
        wrong.append(collapses != (exponent < 0))
        control.append(collapses != (centre > 0))
    return Violation(fraction(wrong), control=fraction(control))


def epochs(rng: Generator) -> Violation:
    """Theorem 5 for samples that come in epochs, each once in an order of its own, with batches of one and of two.

    The exponent is that of independent batches. Control: the sign of the mean curvature decides.
    """
    wrong: list[bool] = []
    control: list[bool] = []
    rounds, runs = 400, 40
    for size, rate in ((1, 0.8), (1, 2.5), (2, 0.8), (2, 2.5)):
        law = rng.standard_normal(6) - 0.3
        means = np.array([np.mean(batch) for batch in combinations(law, size)])
        exponent = float(np.log(np.abs(1 - rate * means)).mean())
        if abs(exponent) < 0.03:
            continue
        orders = rng.permuted(np.broadcast_to(law, (runs, rounds, len(law))), axis=2)
        batches = orders.reshape(runs, rounds, -1, size).mean(-1)
        collapses = fraction((np.log(np.abs(1 - rate * batches)).sum((1, 2)) < -20).tolist()) > 0.5
        wrong.append(collapses != (exponent < 0))
        control.append(collapses != (float(law.mean()) > 0))
    return Violation(fraction(wrong), control=fraction(control))


def sum_beyond(rng: Generator) -> Violation:
    """Share of laws of 4 by 4 Hessians whose exponents sum to more under SGD than under descent, at larger rates.

    The rates make ``I - rate H`` indefinite at some samples, where the logarithm of its determinant is not concave.
    Control: the largest distance of the two sums.
    """
    wrong: list[bool] = []
    apart: list[float] = []
    for _ in range(10):
        noise = rng.standard_normal((3000, 4, 4))
        hessians = np.diag(rng.uniform(-0.02, 0.02, 4)) + (noise + noise.transpose(0, 2, 1)) * np.where(
            np.eye(4), 0.1, 0.5
        )
        largest = float(np.linalg.eigvalsh(hessians).max())
        for rate in (3 / largest, 10 / largest, 100 / largest):
            noisy = np.log(np.abs(np.linalg.det(np.eye(4) - rate * hessians))).mean()
            descent = np.log(np.abs(np.linalg.det(np.eye(4) - rate * hessians.mean(0))))
            wrong.append(bool(noisy > descent))
            apart.append(abs(noisy - descent))
    return Violation(fraction(wrong), control=worst(apart))


def trained_escape(rng: Generator) -> Violation:
    """Share of trainings of ``W U x`` in which SGD leaves a small start before gradient descent of the mean loss does.

    The labels are those of Figure 3, middle, in dimension 20; a run has left where the norm of WU is a tenth of the
    target's. Control: the share of scalars, whose mirrors are of rank one, in which SGD is not the first.
    """
    first: list[bool] = []
    control: list[bool] = []
    for dimension, found in ((20, first), (1, control)):
        for signal, rate in ((0.05, 0.03), (0.1, 0.01), (0.1, 0.03), (0.3, 0.01)):
            start = 1e-3 * rng.standard_normal((2, dimension, dimension))
            descent, noisy = (_steps_to_leave(start, signal, rate, used) for used in (None, rng))
            found.append(noisy < descent)
    return Violation(fraction(first), control=1 - fraction(control))


def _steps_to_leave(start: Array, signal: float, rate: float, rng: Generator | None) -> int:
    """Return the steps until ``||W U||`` is a tenth of the target's, at most 4000; by descent without a generator."""
    w, u = start
    dimension = len(w)
    noise_std = np.sqrt(2 / np.arange(1, dimension + 1))
    for step in range(4000):
        if np.linalg.norm(w @ u) > 0.1 * signal * np.sqrt(dimension):
            return step
        if rng is None:
            error = w @ u - signal * np.eye(dimension)
            w, u = w - 2 * rate * error @ u.T, u - 2 * rate * w.T @ error
        else:
            x, noise = rng.standard_normal((2, dimension))
            hidden = u @ x
            residual = w @ hidden - signal * x - (1 - signal) * noise_std * noise
            w, u = w - 2 * rate * np.outer(residual, hidden), u - 2 * rate * np.outer(w.T @ residual, x)
    return 4000


def step_with_decay(rng: Generator) -> Violation:
    """Eq. 4 with decay, whose step is ``Pw <- Pw - rate (H + 2 gamma) Pw``; control: the step without the decay."""
    residuals: list[float] = []
    control: list[float] = []
    for model in [*random_models(rng), *paper_models(rng)]:
        sample, on, across = model.samples(rng, 1)[0], model.on_mirror(rng), model.across(rng)
        basis, gamma = torch.tensor(model.mirror.O), float(rng.uniform(0.1, 2))
        loss: Function = lambda w, model=model, sample=sample: model.loss(w, sample)  # type: ignore[misc] # noqa: E731
        curvature = basis.T @ hessian(loss, on) @ basis
        w, rate = on + 1e-5 * across, 1 / (float(curvature.norm()) + 2 * gamma)
        z, slope = basis.T @ w, basis.T @ gradient(with_decay(loss, gamma), w)
        without = z - rate * curvature @ z
        residuals.append(float((z - rate * slope - without + 2 * rate * gamma * z).norm() / z.norm()))
        control.append(float((z - rate * slope - without).norm() / z.norm()))
    return Violation(worst(residuals), control=float(np.median(control)))


def long_background(rng: Generator) -> Violation:
    """Motion along a mirror over 100 steps of SGD, from points off it: 2 minus the order with which it feels them.

    Control: losses without the symmetry.
    """
    missing: list[float] = []
    control: list[float] = []
    for model in random_models(rng):
        if model.mirror.codimension == model.mirror.parameters:
            continue
        plain = Model("none", random_loss(rng, model.mirror.parameters), model.mirror, 3)
        samples, on, across = model.samples(rng, 100), model.on_mirror(rng), model.across(rng)
        for one, found in ((model, missing), (plain, control)):
            ends = []
            for distance in (0.0, 1e-2, 1e-3):
                w = on + distance * across
                for sample in samples:
                    w = w - 0.005 * gradient(lambda place, one=one, sample=sample: one.loss(place, sample), w)  # type: ignore[misc]
                ends.append(one.mirror.project(w))
            far, near = (float((end - ends[0]).norm()) for end in ends[1:])
            if near > 1e-13:
                found.append(missing_order(2, order(far, near, 10)))
    return Violation(worst(missing), control=float(np.median(control)))


def without_replacement(rng: Generator) -> Violation:
    """E[h**2] of a product of two weights at zero over batches drawn without replacement, as epochs draw them.

    Control: the square of the mean, which no batch changes.
    """
    wrong: list[bool] = []
    control: list[bool] = []
    for _ in range(10):
        x = rng.standard_normal(6)
        curvatures = 2 * x * (0.5 * x + rng.standard_normal(6))
        means = [np.array([np.mean(batch) for batch in combinations(curvatures, size)]) for size in range(1, 6)]
        wrong += (np.diff([(batch**2).mean() for batch in means]) >= 0).tolist()
        control += (np.diff([batch.mean() ** 2 for batch in means]) >= -1e-12).tolist()
    return Violation(fraction(wrong), control=fraction(control))


def softmax_fisher(rng: Generator) -> Violation:
    """The Fisher information of a classifier across the mirror of two equal neurons; control: two different ones."""
    mirror = permutation_mirror(5).embed(range(10), 15)
    basis = torch.tensor(mirror.O)
    residuals: list[float] = []
    control: list[float] = []
    for _ in range(4):
        inputs, w = normal(rng, 6, 2), normal(rng, 15)
        for place, found in ((mirror.project(w), residuals), (w, control)):
            information = torch.zeros(15, 15, dtype=torch.float64)
            for x in inputs:
                for label in range(3):
                    neurons: Function = lambda v, x=x: _logits(v, x)  # type: ignore[misc] # noqa: E731
                    weight = neurons(place).softmax(-1)[label]
                    row = gradient(lambda v, label=label, neurons=neurons: neurons(v).log_softmax(-1)[label], place)  # type: ignore[misc]
                    information = information + weight * torch.outer(row, row)
            found.append(float((basis.T @ information @ basis).norm() / information.norm()))
    return Violation(worst(residuals), control=min(control))


def _logits(w: Tensor, x: Tensor) -> Tensor:
    """Return the three logits of three tanh neurons with two incoming and three outgoing weights each."""
    neurons = w.reshape(3, 5)
    return (neurons[:, :2] @ x).tanh() @ neurons[:, 2:]


def vector_inputs(rng: Generator) -> Violation:
    """Eq. 2 for inputs of two entries: blocks of ``-2 y x`` between a neuron's weights; control: off zero."""
    residuals: list[float] = []
    control: list[float] = []
    for _ in range(5):
        sample = normal(rng, 3)
        expected = torch.zeros(9, 9, dtype=torch.float64)
        for neuron in range(3):
            incoming, outgoing = slice(3 * neuron, 3 * neuron + 2), 3 * neuron + 2
            expected[incoming, outgoing] = expected[outgoing, incoming] = -2 * sample[2] * sample[:2]
        for place, found in ((torch.zeros(9, dtype=torch.float64), residuals), (normal(rng, 9), control)):
            off = hessian(lambda w, sample=sample: tanh_network(w, sample), place) - expected  # type: ignore[misc]
            found.append(float(off.norm() / expected.norm()))
    return Violation(worst(residuals), control=min(control))


def batch_normalization(rng: Generator) -> Violation:
    """Theorem 4, part 1, for neurons behind batch normalization, which mixes the samples; control: unequal neurons."""
    residuals: list[float] = []
    control: list[float] = []
    for _ in range(5):
        batch, w = normal(rng, 8, 3), normal(rng, 4, 6)
        alike = torch.cat([w[:1], w[:1], w[2:]])
        for place, found in ((alike, residuals), (w, control)):
            slope = gradient(lambda v, batch=batch: _normalized(v, batch), place)  # type: ignore[misc]
            found.append(float((slope[0] - slope[1]).norm() / slope.norm()))
    return Violation(worst(residuals), control=worst(control))


def _normalized(neurons: Tensor, batch: Tensor) -> Tensor:
    """Return the squared error of ReLU neurons (three weights, gain, shift, outgoing weight) behind a batch's norm."""
    x = torch.cat([batch[:, :2], torch.ones(len(batch), 1, dtype=batch.dtype)], dim=1) @ neurons[:, :3].T
    normalized = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()
    return torch.square((normalized * neurons[:, 3] + neurons[:, 4]).relu() @ neurons[:, 5] - batch[:, 2]).mean()


def other_parameters(rng: Generator) -> Violation:
    """Part 1 of Theorems 2 and 3 beside parameters that no symmetry touches; control: off the mirrors."""
    residuals: list[float] = []
    control: list[float] = []
    for _ in range(4):
        plain, sample, rest = random_loss(rng, 8), normal(rng, 4), normal(rng, 2)
        u, w = normal(rng, 2), normal(rng, 3)

        def rescaled(v: Tensor, plain: Callable[..., Tensor] = plain, sample: Tensor = sample) -> Tensor:
            return plain(torch.cat([torch.outer(v[:2], v[2:5]).flatten(), v[5:]]), sample)

        slopes = [gradient(rescaled, torch.cat([scale * u, scale * w, rest]))[:5] for scale in (0.0, 1.0)]
        residuals.append(float(slopes[0].norm() / slopes[1].norm()))
        of_gram, n = random_loss(rng, 6), normal(rng, 3)
        n = n / n.norm()

        def rotated(v: Tensor, of_gram: Callable[..., Tensor] = of_gram, sample: Tensor = sample) -> Tensor:
            matrix = v[:6].reshape(3, 2)
            return of_gram(torch.cat([(matrix.T @ matrix).flatten(), v[6:]]), sample)

        matrix = normal(rng, 3, 2)
        for place, found in ((matrix - torch.outer(n, n @ matrix), residuals), (matrix, control)):
            slope = gradient(rotated, torch.cat([place.flatten(), rest]))[:6].reshape(3, 2)
            found.append(float((n @ slope).norm() / slope.norm()))
    return Violation(worst(residuals), control=worst(control))


CHECKS = (
    kinks,
    wide_reflections,
    heavy_tails,
    epochs,
    sum_beyond,
    trained_escape,
    step_with_decay,
    long_background,
    without_replacement,
    softmax_fisher,
    vector_inputs,
    batch_normalization,
    other_parameters,
)
