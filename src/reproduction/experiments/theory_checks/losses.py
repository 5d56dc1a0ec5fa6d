"""Losses with mirror symmetries: random smooth ones, symmetrized, and the models of the paper.

A loss takes a parameter vector, shape (parameters,), and one sample, a vector whose last entries are its labels, to a
number. All numbers are in double precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from mirrorsym.mirrors import (
    Mirror,
    double_rotation_mirror,
    identity_mirror,
    permutation_mirror,
    rescaling_mirrors,
    rotation_mirror,
)

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Model:
    """A loss with a mirror.

    Args:
        name: what it is.
        loss: of a parameter vector and one sample.
        mirror: a mirror that every sample's loss has.
        inputs: number of entries of a sample that are no labels.
        labels: number of entries that are.
        smooth: False for a loss with kinks, such as ReLU's.
    """

    name: str
    loss: Loss
    mirror: Mirror
    inputs: int
    labels: int = 1
    smooth: bool = True

    def samples(self, rng: np.random.Generator, count: int) -> Tensor:
        """Return standard normal samples, shape (count, inputs + labels)."""
        return normal(rng, count, self.inputs + self.labels)

    def mean(self, samples: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the mean of the loss over samples, as a function of the parameters."""
        return lambda w: torch.stack([self.loss(w, sample) for sample in samples]).mean()

    def point(self, rng: np.random.Generator) -> Tensor:
        """Return a random parameter vector."""
        return normal(rng, self.mirror.parameters)

    def on_mirror(self, rng: np.random.Generator) -> Tensor:
        """Return a random parameter vector on the mirror."""
        on: Tensor = self.mirror.project(self.point(rng))
        return on

    def across(self, rng: np.random.Generator) -> Tensor:
        """Return a random unit vector in the image of P."""
        return unit(torch.tensor(self.mirror.O) @ normal(rng, self.mirror.codimension))


def normal(rng: np.random.Generator, *shape: int) -> Tensor:
    """Return a tensor of standard normal numbers."""
    return torch.from_numpy(np.asarray(rng.standard_normal(shape)))


def unit(vector: Tensor) -> Tensor:
    """Return the unit vector of a direction."""
    return torch.nn.functional.normalize(vector, dim=0, eps=0.0)


def gradient(function: Callable[[Tensor], Tensor], w: Tensor) -> Tensor:
    """Return the gradient of a function of the parameters, shape (parameters,)."""
    # Plain autograd: several times faster than torch.func on functions this small, whose import alone takes a second.
    place = w.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad(function(place), place)
    return torch.as_tensor(found)


def hessian(function: Callable[[Tensor], Tensor], w: Tensor) -> Tensor:
    """Return the Hessian of a function of the parameters, shape (parameters, parameters)."""
    place = w.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(function(place), place, create_graph=True)
    rows = [torch.autograd.grad(entry, place, retain_graph=True, materialize_grads=True)[0] for entry in slope]
    return torch.stack(rows)


def with_decay(loss: Callable[[Tensor], Tensor], gamma: float) -> Callable[[Tensor], Tensor]:
    """Return Eq. 1: the loss plus ``gamma ||w||**2``."""
    return lambda w: loss(w) + gamma * (w**2).sum()


def random_mirror(rng: np.random.Generator, parameters: int, codimension: int) -> Mirror:
    """Return a mirror in general position: no coordinate marks it."""
    return Mirror(np.linalg.qr(rng.standard_normal((parameters, codimension)))[0])


def random_loss(rng: np.random.Generator, parameters: int, inputs: int = 3, features: int = 5) -> Loss:
    """Return a random smooth non-negative loss without any symmetry; the sample has one label."""
    weight = normal(rng, features, parameters) / parameters**0.5
    of_sample, shift = normal(rng, features, inputs), normal(rng, features)
    outgoing, frequency = normal(rng, features), normal(rng, features)

    def loss(w: Tensor, sample: Tensor) -> Tensor:
        hidden = weight @ w + of_sample @ sample[:-1] + shift
        return torch.square(outgoing @ (hidden.tanh() + 0.3 * (frequency * hidden).sin()) - sample[-1])

    return loss


def symmetrized(loss: Loss, mirrors: Sequence[Mirror]) -> Loss:
    """Return the mean of a loss over the group that commuting reflections generate."""
    reflections = [torch.from_numpy(mirror.R) for mirror in mirrors]

    def symmetric(w: Tensor, sample: Tensor) -> Tensor:
        total = torch.zeros((), dtype=w.dtype)
        for used in product((False, True), repeat=len(reflections)):
            image = w
            for reflection, use in zip(reflections, used, strict=True):
                image = reflection @ image if use else image
            total = total + loss(image, sample)
        return total / (1 << len(reflections))

    return symmetric


def random_models(rng: np.random.Generator) -> list[Model]:
    """Return random symmetrized losses with mirrors in general position, of codimensions 1 to all, and with two."""
    models = []
    for parameters, codimension in ((2, 1), (6, 1), (6, 2), (7, 4), (3, 3)):
        mirror = random_mirror(rng, parameters, codimension)
        loss = symmetrized(random_loss(rng, parameters), [mirror])
        models.append(Model(f"random {codimension} of {parameters}", loss, mirror, 3))
    both = random_mirror(rng, 7, 3)
    first, second = Mirror(both.O[:, :1]), Mirror(both.O[:, 1:])
    models.append(Model("two mirrors", symmetrized(random_loss(rng, 7), [first, second]), both, 3))
    return models


def rescaled_regression(w: Tensor, sample: Tensor) -> Tensor:
    """Return ``((w * u) @ x - y)**2`` for parameters (w, u)."""
    half = len(w) // 2
    return torch.square((w[:half] * w[half:]) @ sample[:-1] - sample[-1])


def tanh_network(w: Tensor, sample: Tensor) -> Tensor:
    """Return the squared error of ``u @ tanh(W x)`` with three neurons of two inputs, parameters (w_i, u_i) each."""
    neurons = w.reshape(3, 3)
    return (neurons[:, 2] @ (neurons[:, :2] @ sample[:2]).tanh() - sample[2]) ** 2


def relu_network(w: Tensor, sample: Tensor) -> Tensor:
    """Return the same with ReLU."""
    neurons = w.reshape(3, 3)
    return (neurons[:, 2] @ (neurons[:, :2] @ sample[:2]).relu() - sample[2]) ** 2


def factorization(w: Tensor, sample: Tensor) -> Tensor:
    """Return ``||U W x - y||**2`` with U of 3 by 4 and W of 4 by 3."""
    return ((w[:12].reshape(3, 4) @ w[12:].reshape(4, 3) @ sample[:3] - sample[3:]) ** 2).sum()


def residual_factorization(w: Tensor, sample: Tensor) -> Tensor:
    """Return ``||(I + U)(I + W) x - y||**2`` with matrices of 3 by 3."""
    identity = torch.eye(3, dtype=w.dtype)
    u, v = w[:9].reshape(3, 3), w[9:].reshape(3, 3)
    return (((identity + u) @ (identity + v) @ sample[:3] - sample[3:]) ** 2).sum()


def attention(w: Tensor, sample: Tensor) -> Tensor:
    """Return the squared error of one head of attention, 4 tokens of 3 features, queries U (3 by 2), keys W (2 by 3).

    The value is a fixed mean of the features; the last token's output is compared with the label.
    """
    tokens = sample[:12].reshape(4, 3)
    scores = tokens[-1] @ w[:6].reshape(3, 2) @ w[6:].reshape(2, 3) @ tokens.T / 2**0.5
    return (scores.softmax(-1) @ tokens.sum(-1) - sample[12]) ** 2


def rotation_landscape(w: Tensor, sample: Tensor) -> Tensor:
    """Return ``-a ||w||**2 + ||w||**4``, whose a is 1 plus half the sample (Figure 5, right)."""
    square = (w**2).sum()
    return square**2 - (1 + 0.5 * sample[0]) * square


def footnote_5(w: Tensor, sample: Tensor) -> Tensor:
    """Return ``((w_1 + w_2) - 1 - y)**2``, footnote 5's loss for y = 0."""
    return (w.sum() - 1 - sample[0]) ** 2


def coordinate_models() -> list[Model]:
    """Return the paper's models whose reflections permute coordinates and flip signs."""
    plus, minus = rescaling_mirrors()
    rest = [
        Model("rescaling, w = -u", rescaled_regression, plus.embed([1, 4], 6), 3),
        Model("rescaling, w = u", rescaled_regression, minus.embed([1, 4], 6), 3),
        Model("rescaling, w = u = 0", rescaled_regression, identity_mirror(2).embed([1, 4], 6), 3),
        Model("sign flip", tanh_network, identity_mirror(3).embed([3, 4, 5], 9), 2),
        Model("footnote 5", footnote_5, minus, 0),
    ]
    exchange = permutation_mirror(3).embed(range(6), 9)
    return [
        *rest,
        Model("permutation", tanh_network, exchange, 2),
        Model("permutation, ReLU", relu_network, exchange, 2, smooth=False),
    ]


def rotation_models(rng: np.random.Generator) -> list[Model]:
    """Return the paper's models with a rotation symmetry, along directions in general position."""
    return [
        Model("factorization", factorization, double_rotation_mirror(rng.standard_normal(4), 3, 3), 3, 3),
        Model("two directions", factorization, double_rotation_mirror(rng.standard_normal((4, 2)), 3, 3), 3, 3),
        Model("attention", attention, double_rotation_mirror(rng.standard_normal(2), 3, 3), 12),
        Model("rotation", rotation_landscape, rotation_mirror(rng.standard_normal(3), 1), 0),
    ]


def paper_models(rng: np.random.Generator) -> list[Model]:
    """Return both."""
    return [*coordinate_models(), *rotation_models(rng)]
