"""Assumption 1 on each of the paper's models: how their most negative curvature grows with the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from reproduction.experiments.theory_checks.losses import (
    Loss,
    attention,
    factorization,
    footnote_5,
    normal,
    rescaled_regression,
    residual_factorization,
    rotation_landscape,
    tanh_network,
)
from reproduction.experiments.theory_checks.violations import Violation, fraction

Generator = np.random.Generator

SCALES = (1e2, 1e3)


def regression(w: Tensor, sample: Tensor) -> Tensor:
    """Return ``(w @ x - y)**2``."""
    return (w @ sample[:-1] - sample[-1]) ** 2


def normalized_regression(w: Tensor, sample: Tensor) -> Tensor:
    """Return the squared error of one batch of 4 samples with batch normalization: gain and bias are the last two."""
    x, y = sample[:12].reshape(4, 3), sample[12:]
    before = x @ w[:3]
    centered = before - before.mean()
    return ((w[3] * centered / (centered**2).mean().sqrt() + w[4] - y) ** 2).mean()


@dataclass(frozen=True)
class Growth:
    """A model with the groups of its parameters whose sizes are varied apart.

    Args:
        loss: of parameters and a sample.
        groups: sizes of the groups in the order of the parameters.
        sample: length of a sample.
        bounded: what is known of it in closed form: whether its curvature is bounded from below.
    """

    loss: Loss
    groups: Sequence[int]
    sample: int
    bounded: bool


MODELS = {
    "linear regression": Growth(regression, [3], 4, True),
    "rescaled regression": Growth(rescaled_regression, [3, 3], 4, False),
    "tanh network": Growth(tanh_network, [2, 1, 2, 1, 2, 1], 3, False),
    "matrix factorization": Growth(factorization, [12, 12], 6, False),
    "residual factorization": Growth(residual_factorization, [9, 9], 6, False),
    "attention": Growth(attention, [6, 6], 13, False),
    "batch normalization": Growth(normalized_regression, [3, 2], 16, False),
    "rotation landscape": Growth(rotation_landscape, [3], 1, True),
    "footnote 5": Growth(footnote_5, [2], 1, True),
}


def most_negative(model: Growth, rng: Generator, scale: float, points: int = 12) -> float:
    """Return the smallest eigenvalue of the Hessian of a mean loss, over points with groups scaled up and down."""
    samples = normal(rng, 2, model.sample)
    factors = list(product((1.0, scale, 1 / scale), repeat=min(len(model.groups), 2)))
    starts = []
    for factor in factors:
        sizes = torch.tensor([factor[place % 2] for place in range(len(model.groups))], dtype=torch.float64)
        starts.append(normal(rng, points, sum(model.groups)) * sizes.repeat_interleave(torch.tensor(model.groups)))

    def mean(w: Tensor) -> Tensor:
        return torch.stack([model.loss(w, sample) for sample in samples]).mean()

    hessians = torch.vmap(torch.func.jacrev(torch.func.grad(mean)))(torch.cat(starts))
    return float(torch.linalg.eigvalsh(hessians).min())


def unbounded(model: Growth, rng: Generator) -> bool:
    """Return whether the most negative curvature grows more than threefold as the scale grows tenfold."""
    state = rng.bit_generator.state
    found = []
    for scale in SCALES:
        rng.bit_generator.state = state  # the same directions at both scales
        found.append(-most_negative(model, rng, scale))
    # Rounding makes tiny negative eigenvalues of a convex loss, relative to its large ones.
    return found[1] > 3 * found[0] and found[1] > 10


def assumption1_models(rng: Generator) -> Violation:
    """The fraction of the models whose curvature is not bounded from below; mended: of those known to be bounded."""
    verdicts = {name: unbounded(model, rng) for name, model in MODELS.items()}
    return Violation(
        fraction(verdicts.values()), fraction(verdicts[name] for name, model in MODELS.items() if model.bounded)
    )


CHECKS = (assumption1_models,)
