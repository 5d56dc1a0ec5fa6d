"""Corollary 1 for the optimizers that the paper's experiments use: whether a mirror holds them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mirrorsym.mirrors import double_rotation_mirror
from reproduction.experiments.theory_checks.losses import (
    Model,
    coordinate_models,
    factorization,
    gradient,
    normal,
    paper_models,
    random_loss,
    random_models,
)
from reproduction.experiments.theory_checks.violations import Violation, fraction, ratio, worst

Generator = np.random.Generator
MakeOptimizer = Callable[[list[Tensor]], torch.optim.Optimizer]

STEPS = 8


def sgd(parameters: list[Tensor]) -> torch.optim.Optimizer:
    """Plain SGD."""
    return torch.optim.SGD(parameters, lr=0.01)


def sgd_with_decay(parameters: list[Tensor]) -> torch.optim.Optimizer:
    """SGD with coupled decay."""
    return torch.optim.SGD(parameters, lr=0.01, weight_decay=0.1)


def momentum(parameters: list[Tensor]) -> torch.optim.Optimizer:
    """SGD as in the experiments with the ResNet, with a smaller learning rate."""
    return torch.optim.SGD(parameters, lr=0.002, momentum=0.9, weight_decay=1e-3)


def adam(parameters: list[Tensor]) -> torch.optim.Optimizer:
    """Adam as in the attention experiment, with coupled decay."""
    return torch.optim.Adam(parameters, lr=4e-3, weight_decay=1e-2)


def adam_decoupled(parameters: list[Tensor]) -> torch.optim.Optimizer:
    """The same with decoupled decay."""
    return torch.optim.AdamW(parameters, lr=4e-3, weight_decay=1e-2)


def adam_no_momentum(parameters: list[Tensor]) -> torch.optim.Optimizer:
    """Adam as in the continual learning experiment."""
    return torch.optim.Adam(parameters, lr=1e-2, betas=(0.0, 0.999))


def adam_momentum(parameters: list[Tensor]) -> torch.optim.Optimizer:
    """Adam with its usual momentum and no decay."""
    return torch.optim.Adam(parameters, lr=1e-2)


def train(
    model: Model,
    start: Tensor,
    samples: Tensor,
    make: MakeOptimizer,
    velocity: Tensor | None = None,
    noise: list[Tensor] | None = None,
) -> Tensor:
    """Return the parameters after one step on each sample.

    Args:
        model: the loss.
        start: where training starts, shape (parameters,).
        samples: one a step.
        make: makes the optimizer.
        velocity: with which training arrives, for SGD with momentum.
        noise: added to the gradient, one tensor a step.
    """
    w = start.clone()
    optimizer = make([w])
    if velocity is not None:
        optimizer.state[w]["momentum_buffer"] = velocity.clone()
    for step, sample in enumerate(samples):
        point = w.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(model.loss(point, sample), point)
        w.grad = slope if noise is None else slope + noise[step]
        optimizer.step()
    return w.detach()


def escape(model: Model, rng: Generator, make: MakeOptimizer, velocity: Tensor | None = None) -> float:
    """Return the distance to the mirror relative to the norm after training from a random point on it."""
    start = model.on_mirror(rng)
    end = train(model, start, model.samples(rng, STEPS), make, velocity)
    return float(model.mirror.distance(end) / torch.maximum(end.norm(), start.norm()).clamp_min(1.0))


def corollary1(rng: Generator) -> Violation:
    """SGD of batch size 1 with and without decay, and single huge steps."""
    residuals = []
    for model in [*random_models(rng), *paper_models(rng)]:
        residuals += [escape(model, rng, make) for make in (sgd, sgd_with_decay)]
        on, sample = model.on_mirror(rng), model.samples(rng, 1)[0]
        end = on - 1e6 * gradient(lambda point, model=model, sample=sample: model.loss(point, sample), on)  # type: ignore[misc]
        # Where the mirror is a point, the step itself is rounding: it counts against the step from nearby.
        off = gradient(lambda point, model=model, sample=sample: model.loss(point, sample), on + model.across(rng))  # type: ignore[misc]
        residuals.append(float(model.mirror.distance(end) / torch.maximum(end.norm(), 1e6 * off.norm()).clamp_min(1.0)))
    control = [
        escape(Model("none", random_loss(rng, model.mirror.parameters), model.mirror, 3), rng, sgd)
        for model in random_models(rng)
    ]
    return Violation(worst(residuals), control=min(control))


def optimizer_momentum(rng: Generator) -> Violation:
    """Momentum that arrives with any velocity; mended: with one along the mirror."""
    printed, mended = [], []
    for model in [*random_models(rng), *paper_models(rng)]:
        velocity = model.point(rng)
        printed.append(escape(model, rng, momentum, velocity))
        mended += [escape(model, rng, momentum, kept) for kept in (None, model.mirror.project(velocity))]
    return Violation(worst(printed), worst(mended))


def optimizer_adam(rng: Generator) -> Violation:
    """Adam as in the attention experiment, with coupled and with decoupled decay."""
    return _adaptive(rng, (adam, adam_decoupled))


def optimizer_adam_no_momentum(rng: Generator) -> Violation:
    """Adam as in the continual learning experiment."""
    return _adaptive(rng, (adam_no_momentum,))


def _adaptive(rng: Generator, makes: tuple[MakeOptimizer, ...]) -> Violation:
    general = [model for model in [*random_models(rng), *paper_models(rng)] if not permutes_coordinates(model)]
    printed = [escape(model, rng, make) for model in general for make in makes]
    mended = [escape(model, rng, make) for model in coordinate_models() for make in makes]
    return Violation(worst(printed), worst(mended))


def permutes_coordinates(model: Model) -> bool:
    """Return whether the reflection only permutes coordinates and flips signs."""
    magnitudes = np.abs(model.mirror.R)
    return bool(np.minimum(magnitudes, np.abs(magnitudes - 1)).max() < 1e-9)


def equivariance(rng: Generator) -> Violation:
    """Runs from mirror images: Adam and mirrors in general position; mended: SGD, and Adam on coordinate mirrors."""
    general, coordinate = random_models(rng)[1:4], coordinate_models()
    printed = [image_error(model, rng, make) for model in general for make in (adam, adam_no_momentum)]
    mended = [image_error(model, rng, make) for model in general for make in (sgd, momentum)]
    mended += [image_error(model, rng, make) for model in coordinate for make in (adam, adam_no_momentum)]
    without = [Model("none", random_loss(rng, model.mirror.parameters), model.mirror, 3) for model in general]
    return Violation(worst(printed), worst(mended), worst(image_error(model, rng, sgd) for model in without))


def image_error(model: Model, rng: Generator, make: MakeOptimizer) -> float:
    """Return how far the run from a reflected start is from the reflected run, relative to the norm."""
    start, samples = model.point(rng), model.samples(rng, STEPS)
    reflected_run = model.mirror.reflect(train(model, start, samples, make))
    run_of_reflection = train(model, model.mirror.reflect(start), samples, make)
    return float((reflected_run - run_of_reflection).norm() / reflected_run.norm())


def stationary_point(rng: Generator) -> Violation:
    """Linear regression at its minimum: steps of SGD; mended: of gradient descent, and of SGD that interpolates."""
    x, noise = normal(rng, 20, 4), normal(rng, 20)
    target = normal(rng, 4)
    printed, mended = 0.0, []
    for labels in (x @ target + noise, x @ target):
        best = torch.linalg.lstsq(x, labels[:, None]).solution[:, 0]
        steps, far = (2 * (x @ w - labels)[:, None] * x for w in (best, best + normal(rng, 4)))
        scale = float(far.norm(dim=1).mean())
        mended.append(float(steps.mean(0).norm()) / scale)
        single = float(steps.norm(dim=1).max()) / scale
        if labels.equal(x @ target):
            mended.append(single)
        else:
            printed = single
    return Violation(printed, worst(mended))


def bias_removes_symmetry(rng: Generator) -> Violation:
    """A fixed bias on every weight: gradients on the shifted mirror without decay.

    Mended: with decay ``gamma`` the gradient there has the part ``-2 gamma O^T bias`` across the mirror. Control: 1
    minus the same measure off the shifted mirror, where the gradient has a part across. Edge: relative change of the
    biased loss by the reflection at the origin, which is the symmetry of Definition 2.
    """
    printed, mended, control, changed = [], [], [], []
    for model in [*random_models(rng), *paper_models(rng)]:
        bias, sample = 0.01 * model.point(rng), model.samples(rng, 1)[0]
        shifted = model.on_mirror(rng) - bias
        slope = gradient(lambda w, model=model, bias=bias, sample=sample: model.loss(w + bias, sample), shifted)  # type: ignore[misc]
        part = ratio(model.mirror.distance(slope), torch.maximum(slope.norm(), shifted.norm()))
        printed.append(1 - min(part / 1e-3, 1.0))
        decayed = model.mirror.order_parameter(slope + 2 * 0.1 * shifted)
        expected = -2 * 0.1 * model.mirror.order_parameter(bias)
        mended.append(ratio((decayed - expected).norm(), expected.norm()))
        off = shifted + torch.tensor(model.mirror.O[:, 0])
        elsewhere = gradient(lambda w, model=model, bias=bias, sample=sample: model.loss(w + bias, sample), off)  # type: ignore[misc]
        control.append(min(ratio(model.mirror.distance(elsewhere), elsewhere.norm()) / 1e-3, 1.0))
        values = [model.loss(w + bias, sample) for w in (off, torch.as_tensor(model.mirror.reflect(off)))]
        changed.append(ratio((values[0] - values[1]).abs(), max(values)))
    return Violation(worst(printed), worst(mended), float(np.median(control)), float(np.median(changed)))


def bias_translates(rng: Generator) -> Violation:
    """Training with a fixed bias against training without from a start moved by it, step for step, relative.

    By SGD and by Adam with and without momentum. Control: SGD with decay, which is centred at zero.
    """
    found: list[float] = []
    control: list[float] = []
    for model in [*random_models(rng)[::2], *paper_models(rng)[::2]]:
        bias, start, samples = model.point(rng), model.point(rng), model.samples(rng, STEPS)

        def biased(w: Tensor, sample: Tensor, model: Model = model, bias: Tensor = bias) -> Tensor:
            return model.loss(w + bias, sample)

        moved = Model("biased", biased, model.mirror, model.inputs, model.labels)
        for make, errors in (
            (sgd, found),
            (adam_no_momentum, found),
            (adam_momentum, found),
            (sgd_with_decay, control),
        ):
            with_bias, without = train(moved, start, samples, make) + bias, train(model, start + bias, samples, make)
            errors.append(ratio((with_bias - without).norm(), without.norm()))
    return Violation(worst(found), control=float(np.median(control)))


def adam_with_momentum(rng: Generator) -> Violation:
    """Dead parameters after a task of Figure 4 with Adam's usual momentum: 1 less their share over 2 %, at least 0.

    Product of two weights, 100 features and points, batches of 16, 25,000 steps, rate 0.01, label noise 0.1, in double
    precision; dead is a gradient below 1e-6 on every point. Control: the plain regressor.
    """
    x, steps = rng.standard_normal((100, 100)), 25_000
    y = x.mean(1) + 0.1 * rng.standard_normal(100)
    batches = rng.integers(100, size=(steps, 16))
    missing = []
    for factors in (2, 1):
        w = 0.1 * rng.standard_normal((factors, 100))
        first, second = np.zeros_like(w), np.zeros_like(w)
        for step, batch in enumerate(batches, start=1):
            part = x[batch]
            slope = (2 / 16) * ((part @ w.prod(0) - y[batch]) @ part)
            slopes = slope * w[::-1] if factors == 2 else slope[None]
            first += 0.1 * (slopes - first)
            second += 0.001 * (slopes**2 - second)
            w -= 0.01 * first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        of_points = np.abs(2 * (x @ w.prod(0) - y)[:, None] * x).max(0)
        dead = (of_points * (np.abs(w[::-1]) if factors == 2 else 1) < 1e-6).mean()
        missing.append(max(1 - float(dead) / 0.02, 0.0))
    return Violation(missing[0], control=missing[1])


def noise_removes_conditions(rng: Generator) -> Violation:
    """A few steps from the mirror with Gaussian noise of variance 1e-4 on the gradient, fresh in each.

    Control: without the noise. Registered: after the first step.
    """
    stays, quiet, first = [], [], []
    for model in [*random_models(rng), *paper_models(rng)]:
        for make in (sgd, adam_no_momentum):
            start = model.on_mirror(rng)
            noise = [0.01 * model.point(rng) for _ in range(STEPS)]
            samples = model.samples(rng, STEPS)
            end = train(model, start, samples, make, noise=noise)
            stays.append(bool(model.mirror.distance(end) < 1e-9))
            first.append(bool(model.mirror.distance(train(model, start, samples[:1], make, noise=noise)) < 1e-9))
        quiet.append(bool(model.mirror.distance(train(model, start, samples, sgd)) < 1e-9))
    return Violation(fraction(stays), control=fraction(quiet), registered=fraction(first))


def low_rank_stays(rng: Generator) -> Violation:
    """SGD on ``||U W x - y||**2`` from matrices of rank 2: the third singular value of W over its first.

    W and U lack the same directions of the hidden space, in general position. Control: Adam, which does not respect
    rotations; edge: W alone lacks them, and U does not.
    """
    kept: list[float] = []
    control: list[float] = []
    edge: list[float] = []
    for _ in range(3):
        mirror = double_rotation_mirror(rng.standard_normal((4, 2)), 3, 3)
        model = Model("factorization", factorization, mirror, 3, 3)
        on, samples = model.on_mirror(rng), model.samples(rng, 40)
        alone = torch.cat([model.point(rng)[:12], on[12:]])
        for start, make, found in ((on, sgd, kept), (on, adam, control), (alone, sgd, edge)):
            values = torch.linalg.svdvals(train(model, start, samples, make)[12:].reshape(4, 3))
            found.append(float(values[2] / values[0]))
    return Violation(worst(kept), control=min(control), edge=min(edge))


def rounding(rng: Generator) -> Violation:
    """SGD on Figure 5's left landscape, a rounding error off the condition u = -w: its distance at the end.

    Steps and rate are the figure's. Control: the condition u = w, whose minimum is stable across it; 1 minus its
    distance over the first.
    """
    apart: list[float] = []
    kept: list[float] = []
    for _ in range(3):
        labels = 1 + 0.5 * rng.standard_normal(400)
        for sign, found in ((-1.0, apart), (1.0, kept)):
            w = float(rng.uniform(0.5, 1.5))
            u = sign * w * (1 + 2.3e-16)
            for y in labels:
                slope = 2 * (w * u - y)
                w, u = w - 0.05 * slope * u, u - 0.05 * slope * w
            found.append(abs(u - sign * w) / np.sqrt(2))
    return Violation(worst(apart), control=1 - worst(kept))


CHECKS = (
    corollary1,
    optimizer_momentum,
    optimizer_adam,
    optimizer_adam_no_momentum,
    equivariance,
    stationary_point,
    bias_removes_symmetry,
    bias_translates,
    adam_with_momentum,
    noise_removes_conditions,
    low_rank_stays,
    rounding,
)
