"""What a symmetry is: where the units of a layer lie in the parameters, and the group that acts on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from mirrorsym.mirrors import Mirror

State = Mapping[str, Tensor]
"""Parameters and buffers by name."""
Kind = Literal["permutation", "sign_flip", "rescaling", "rotation"]


@dataclass(frozen=True)
class Slot:
    """Where the units of a layer lie in one parameter: a run of its entries along one axis.

    Args:
        name: the parameter's or buffer's name.
        axis: the axis along which its units lie.
        start: the first unit's place on that axis.
        repeat: consecutive entries of each unit, more than one behind a flattened picture.
        inverse: True where a rescaling divides, on the other side of the layer's output.
        squared: True for variances.
        buffer: True for what the model keeps and does not train, such as a running mean.
    """

    name: str
    axis: int
    start: int = 0
    repeat: int = 1
    inverse: bool = False
    squared: bool = False
    buffer: bool = False

    def take(self, tensor: Tensor, units: int) -> Tensor:
        """Return the entries of each unit, shape (units, entries)."""
        moved = tensor.movedim(self.axis, 0)
        return moved[self.start : self.start + units * self.repeat].reshape(units, -1)

    def put(self, tensor: Tensor, block: Tensor) -> Tensor:
        """Return a copy of the tensor with other entries of each unit, shape (units, entries)."""
        result = tensor.clone()
        moved = result.movedim(self.axis, 0)
        part = moved[self.start : self.start + len(block) * self.repeat]
        part.copy_(block.reshape(part.shape))
        return result


@dataclass(frozen=True)
class Symmetry:
    """A transformation of a layer's units that leaves the model's outputs unchanged.

    - ``permutation``: two units are exchanged. On the mirror they are copies of each other (Theorem 4).
    - ``sign_flip``: all weights of a unit change their sign, a rescaling by -1. On the mirror they are 0 (Theorem 2).
    - ``rotation``: the units are rotated or reflected along any direction n. On the mirror the weights have no part
      along n, so their rank is lower (Theorem 3 and the double rotation of Section 3.2).
    - ``rescaling``: a unit's incoming weights are multiplied by a positive number and its outgoing ones divided, as
      with ReLU. This alone is no mirror. L2 decay still acts on such a unit as the lasso does.

    Args:
        kind: one of these.
        units: the number of units.
        slots: where their parameters lie.
    """

    kind: Kind
    units: int
    slots: tuple[Slot, ...]

    @property
    def name(self) -> str:
        """The modules whose parameters take part, in the network's order."""
        modules = dict.fromkeys(slot.name.rpartition(".")[0] or slot.name for slot in self.slots)
        first = self.slots[0].start
        # The units of an attention head are only some of those of its projection.
        return ", ".join(modules) + (f" [{first}:{first + self.units}]" if any(s.start for s in self.slots) else "")

    def matrix(self, state: State) -> Tensor:
        """Return the weights of each unit, incoming and outgoing ones together, shape (units, weights).

        The order parameters are functions of it: differences of rows, rows, and singular values.

        Args:
            state: the parameters by name, such as ``dict(model.named_parameters())``.
        """
        trained = [slot for slot in self.slots if not slot.buffer]
        return torch.cat([slot.take(state[slot.name], self.units) for slot in trained], dim=1)

    def reflect(self, state: State, normal: Tensor) -> dict[str, Tensor]:
        """Return all parameters and buffers after the reflection ``I - 2 n nᵀ`` of the units.

        Args:
            state: parameters and buffers by name, as ``model.state_dict()`` has them.
            normal: a vector along n, shape (units,): for a permutation ±1 at two units, for a sign flip 1 at one.

        Raises:
            ValueError: if the symmetry has no such mirror.
        """
        unit = normal / normal.norm()
        self._check(unit)
        return self.transform(state, torch.eye(self.units).to(unit) - 2 * torch.outer(unit, unit))

    def transform(self, state: State, matrix: Tensor) -> dict[str, Tensor]:
        """Return all parameters and buffers after a linear transformation of the units.

        Args:
            state: parameters and buffers by name.
            matrix: shape (units, units), an element of the symmetry's group.
        """
        result = dict(state)
        inverse = torch.linalg.inv(matrix).T
        for slot in self.slots:
            factor = (inverse if slot.inverse else matrix).to(result[slot.name])
            factor = factor**2 if slot.squared else factor
            result[slot.name] = slot.put(result[slot.name], factor @ slot.take(result[slot.name], self.units))
        return result

    def sample(self, seed: int = 0) -> Tensor:
        """Return a random element of the symmetry's group, shape (units, units), in double precision."""
        rng = np.random.default_rng(seed)
        if self.kind == "permutation":
            order = rng.permutation(self.units)  # as one cycle, which leaves no unit in its place
            matrix = np.zeros((self.units, self.units))
            matrix[order, np.roll(order, 1)] = 1
        elif self.kind == "sign_flip":
            signs = rng.choice([-1.0, 1.0], self.units)
            signs[0] = -1
            matrix = np.diag(signs)
        elif self.kind == "rescaling":
            matrix = np.diag(rng.uniform(0.5, 2, self.units))
        else:
            matrix = np.linalg.qr(rng.standard_normal((self.units, self.units)))[0]
        return torch.from_numpy(matrix)

    def mirror(self, model: nn.Module, normal: Tensor) -> Mirror:
        """Return one mirror of the symmetry as a matrix O over all parameters. For small models: O is dense.

        Args:
            model: the model.
            normal: as in :meth:`reflect`.

        Returns:
            A mirror for vectors as ``torch.nn.utils.parameters_to_vector(model.parameters())`` makes them.

        Raises:
            ValueError: if the symmetry has no such mirror, or acts on one parameter twice, as with shared layers.
        """
        unit = normal / normal.norm()
        self._check(unit)
        places, count = {}, 0
        for name, parameter in model.named_parameters():
            places[name] = torch.arange(count, count + parameter.numel()).reshape(parameter.shape)
            count += parameter.numel()
        entries = self.matrix(places).numpy()
        if len(np.unique(entries)) != entries.size:
            raise ValueError(f"the symmetry of {self.name} acts on some parameters from two sides; use reflect")
        directions = np.zeros((count, entries.shape[1]))
        directions[entries, np.arange(entries.shape[1])] = unit.double().cpu().numpy()[:, None]
        return Mirror(directions[:, np.abs(directions).sum(axis=0) > 0])

    def difference(self, model: nn.Module, loss: Callable[[nn.Module], Tensor], seed: int = 0) -> float:
        """Return the relative change of a loss when the parameters are transformed: about rounding for a symmetry.

        The model is left as it was.

        Args:
            model: the model; take it in double precision and in evaluation mode for a sharp answer.
            loss: what computes a number from the model, such as ``lambda model: criterion(model(x), y)``.
            seed: picks the transformation.
        """
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with torch.no_grad():
            with _holding(model, state, state):
                before = float(loss(model))
            with _holding(model, self.transform(state, self.sample(seed)), state):
                after = float(loss(model))
        return abs(after - before) / max(abs(before), torch.finfo(torch.double).tiny)

    def _check(self, unit: Tensor) -> None:
        entries = unit.detach().double().cpu()
        size = entries[entries != 0].abs()
        allowed = {
            "permutation": len(size) == 2 and bool((entries.sum().abs() < 1e-6).item()),
            "sign_flip": len(size) == 1,
            "rescaling": False,
            "rotation": True,
        }
        if entries.shape != (self.units,) or not allowed[self.kind]:
            raise ValueError(
                f"the {self.kind} of {self.name} has no mirror along a vector of shape {tuple(unit.shape)} with "
                f"{len(size)} entries that are not 0; it acts on {self.units} units, a permutation along ±1 at two of "
                "them, a sign flip along one, a rotation along any direction, and a rescaling has none"
            )


@contextmanager
def _holding(model: nn.Module, state: State, before: State) -> Iterator[None]:
    model.load_state_dict(dict(state))
    try:
        yield
    finally:
        model.load_state_dict(dict(before))
