"""A training on mirrors, and beside it a displacement off them that is followed to first order.

The displacement v of a step of SGD becomes (1 - λ(H + γ)) v with the Hessian H of the batch (Section 2.4). H times v is
the derivative of the gradient along v: no Hessian is built. Between mirrors that share no weights H has no block, so
one v serves all of them; its part along each is scaled by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mirrorsym.reflections import Reflection
from mirrorsym.symmetries.names import plain

Loss = Callable[[nn.Module, Any], Tensor]
Tensors = dict[str, Tensor]
OptimizerName = Literal["sgd", "adam", "adamw"]

DISPLACED = 1e-6
"""How far off zero a unit is kept, relative to a unit's norm: what it does itself is the square of that."""
LEAVES = 1e-3
"""A gradient with this share off the mirror shows that the loss has no such mirror."""
LARGEST = math.log(1e5)
"""What grows more in so few steps is no displacement to first order."""
BETAS, EPSILON = (0.9, 0.999), 1e-8
"""PyTorch's for Adam."""
TINY = 1e-300


@dataclass(frozen=True)
class Settings:
    """How a network is trained, as PyTorch's optimizers have it."""

    lr: float
    weight_decay: float = 0.0
    momentum: float = 0.0
    optimizer: OptimizerName = "sgd"


@dataclass(frozen=True, eq=False)
class Start:
    """A mirror on which a unit is put.

    Args:
        reflection: the mirror.
        distance: how far off it the unit was found, relative to the units.
        living: the next one, which stays where it is.
    """

    reflection: Reflection
    distance: float
    living: Reflection | None = None

    @property
    def at_zero(self) -> bool:
        """Whether all weights of the unit are 0 on the mirror.

        It is followed by the gradient at a very small distance from zero, which loses no digits there, and is right for
        units with a kink at zero, as ReLU's, where autograd says that the curvature is 0.
        """
        return self.reflection.symmetry.kind in ("sign_flip", "complex", "rescaling")


class Path:
    """A model that is trained on mirrors, with a displacement off each of them.

    Args:
        model: the model, which is changed.
        loss: gives a number from the model and a batch.
        mirrors: mirrors that share no weights.
        settings: how it is trained.
    """

    def __init__(self, model: nn.Module, loss: Loss, mirrors: Sequence[Start], settings: Settings) -> None:
        self._model, self._loss, self._mirrors, self._settings = model, loss, mirrors, settings
        self._parameters = trained(model)
        self._buffers = {plain(name): b for name, b in model.named_buffers()}
        moved = set[str]().union(*(mirror.reflection.names for mirror in mirrors if not mirror.at_zero))
        self._tangent = {name: torch.zeros_like(p) for name, p in self._parameters.items() if name in moved}
        self._moments = [_zeros(self._parameters) for _ in range(1 if settings.optimizer == "sgd" else 2)]
        self._tangent_moments = [_zeros(self._tangent) for _ in self._moments]
        self._gradient: Tensors = {}
        self._steps = 0
        with torch.no_grad():
            starts = self._apart({mirror: self._direction(mirror) for mirror in mirrors})
            self._put_on_mirrors()
            self._sizes = {mirror: self._size(mirror) if mirror.at_zero else 1.0 for mirror in mirrors}
            for mirror, direction in starts.items():
                _add(self._moving(mirror)[0], direction, self._sizes[mirror] / _norm(direction))

    def step(self, batch: Any) -> None:
        """Do a step of the training, and its derivative along the displacement."""
        value = self._loss(self._model, batch)
        gradient = dict(zip(self._parameters, self._derivatives(value, self._parameters), strict=True))
        products = self._products(gradient)
        self._gradient = {name: g.detach() for name, g in gradient.items()}
        self._steps += 1
        with torch.no_grad():
            if self._settings.optimizer == "sgd":
                self._sgd(self._parameters, self._gradient, self._moments[0])
                self._sgd(self._tangent, products, self._tangent_moments[0])
            else:
                self._adam(products)

    @torch.no_grad()
    def normalize(self) -> dict[Start, float]:
        """Scale each displacement to its size at the start, and take rounding off; return logarithms of the growths.

        Raises:
            ValueError: if the training has diverged, or the gradient does not stay on a mirror.
        """
        displaced = {mirror: self._moving(mirror) for mirror in self._mirrors}
        parts = [
            self._apart({m: m.reflection.odd(moving[which]) for m, moving in displaced.items()})
            for which in range(1 + len(self._moments))
        ]
        growths = {m: logarithm(_norm(part) / self._sizes[m]) for m, part in parts[0].items()}
        for mirror in self._mirrors:
            self._require_mirror(mirror, growths[mirror])
        self._put_on_mirrors()
        for tensors in (self._tangent, *self._tangent_moments):
            for tensor in tensors.values():
                tensor.zero_()
        for mirror, moving in displaced.items():
            for tensors, part in zip(moving, parts, strict=True):
                _add(tensors, part[mirror], math.exp(-growths[mirror]))
        return growths

    @torch.no_grad()
    def living(self) -> dict[Start, float]:
        """Return the order parameters of the units that are not on a mirror."""
        return {m: _norm(m.living.odd(self._parameters)) for m in self._mirrors if m.living is not None}

    def _derivatives(self, value: Tensor, by: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        inputs = list(by.values())
        twice = bool(self._tangent) and by is self._parameters
        return torch.autograd.grad(value, inputs, create_graph=twice, allow_unused=True, materialize_grads=True)

    def _products(self, gradient: Tensors) -> Tensors:
        """The Hessian times the displacement."""
        along = [(gradient[name] * tangent).sum() for name, tangent in self._tangent.items()]
        if not any(term.requires_grad for term in along):
            return _zeros(self._tangent)
        total = torch.stack([term.to(along[0]) for term in along]).sum()
        found = self._derivatives(total, {name: self._parameters[name] for name in self._tangent})
        return dict(zip(self._tangent, found, strict=True))

    def _sgd(self, tensors: Tensors, gradient: Tensors, velocity: Tensors) -> None:
        for name, tensor in tensors.items():
            velocity[name].mul_(self._settings.momentum).add_(gradient[name])
            velocity[name].add_(tensor, alpha=self._settings.weight_decay)
            tensor.sub_(velocity[name], alpha=self._settings.lr)

    def _adam(self, products: Tensors) -> None:
        """A step of Adam or AdamW, and of its derivative, in which both moments take part."""
        first, second = (1 - beta**self._steps for beta in BETAS)
        decay, lr = self._settings.weight_decay, self._settings.lr
        coupled = decay if self._settings.optimizer == "adam" else 0.0
        shrinks = 1 - lr * (decay - coupled)
        for name, parameter in self._parameters.items():
            gradient = self._gradient[name] + coupled * parameter
            m, s = (moment[name] for moment in self._moments)
            m.lerp_(gradient, 1 - BETAS[0])
            s.lerp_(gradient.square(), 1 - BETAS[1])
            root = (s / second).sqrt()
            if name in self._tangent:
                tangent = self._tangent[name]
                change = products[name] + coupled * tangent
                dm, ds = (moment[name] for moment in self._tangent_moments)
                dm.lerp_(change, 1 - BETAS[0])
                ds.lerp_(2 * gradient * change, 1 - BETAS[1])
                droot = torch.where(root > 0, ds / (2 * second * root), 0.0)
                moved = dm / (root + EPSILON) - m * droot / (root + EPSILON).square()
                tangent.mul_(shrinks).sub_(moved, alpha=lr / first)
            parameter.mul_(shrinks).sub_(m / (root + EPSILON), alpha=lr / first)

    def _moving(self, mirror: Start) -> list[Tensors]:
        """What is displaced, and its moments: a tangent, or where a unit is zero the parameters themselves."""
        if mirror.at_zero:
            return [self._parameters, *self._moments]
        return [self._tangent, *self._tangent_moments]

    def _direction(self, mirror: Start) -> Tensors:
        """Where a unit lies off its mirror now; at random where it lies on it."""
        own = {name: self._parameters[name].detach() for name in mirror.reflection.names}
        direction = mirror.reflection.odd(own)
        if _norm(direction) > 0:
            return direction
        return mirror.reflection.odd({name: torch.randn_like(tensor) for name, tensor in own.items()})

    def _apart(self, parts: dict[Start, Tensors]) -> dict[Start, Tensors]:
        """Leave out of each mirror's part the weights between it and another, which that one flips too."""
        for mirror, part in parts.items():
            for other in self._mirrors:
                names = mirror.reflection.names & other.reflection.names
                if names and other is not mirror:
                    shared = other.reflection.odd({name: part[name] for name in names})
                    part |= {name: part[name] - tensor for name, tensor in shared.items()}
        return parts

    def _put_on_mirrors(self) -> None:
        for mirror in self._mirrors:
            for tensors in (self._parameters, self._buffers, *self._moments):
                for name, value in mirror.reflection.even(tensors).items():
                    tensors[name].copy_(value)

    def _size(self, mirror: Start) -> float:
        units = mirror.reflection.symmetry.matrix(self._parameters).norm(dim=1)
        return DISPLACED * float(units.median().clamp_min(1e-3))

    def _require_mirror(self, mirror: Start, growth: float) -> None:
        what = f"the mirror of the {mirror.reflection.symmetry.kind} of {mirror.reflection.symmetry.name}"
        if not growth < LARGEST:
            raise ValueError(
                f"what lies off {what} has grown {math.exp(LARGEST):.0e}-fold by step {self._steps}: the training "
                "diverged, so take a smaller lr, or gradients do leave that mirror"
            )
        whole = _norm(self._gradient) + LEAVES * _norm(self._parameters)  # a trained network's gradient is rounding
        if not mirror.at_zero and _norm(mirror.reflection.odd(self._gradient)) > LEAVES * whole:
            raise ValueError(
                f"the gradient leaves {what}, so the loss has no such mirror: dropout, or other noise that differs "
                "between units, takes it away"
            )


def trained(model: nn.Module) -> Tensors:
    """Return what is trained, by names without wrappers; a tied parameter once.

    Args:
        model: the model.
    """
    return {plain(name): p for name, p in model.named_parameters() if p.requires_grad}


def logarithm(value: float) -> float:
    """Return the logarithm, of 0 that of the smallest number.

    Args:
        value: not negative.
    """
    return math.log(max(value, TINY))


def _zeros(tensors: Tensors) -> Tensors:
    return {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}


def _norm(tensors: Mapping[str, Tensor]) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors.values()))


def _add(tensors: Tensors, other: Mapping[str, Tensor], factor: float) -> None:
    for name, tensor in other.items():
        tensors[name].add_(tensor, alpha=factor)
