"""What a symmetry is: where the units of a layer lie in the parameters, and the group that acts on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from mirrorsym.mirrors import Mirror
from mirrorsym.symmetries.acting import memory, transformed
from mirrorsym.symmetries.elements import Kind, checked, sample
from mirrorsym.symmetries.names import lookup, plain, unparametrized

State = Mapping[str, Tensor]
"""Parameters and buffers by name."""
LISTED_MODULES = 6
"""A name lists so many modules; of a longer one it gives the first, the last and the count."""


@dataclass(frozen=True)
class Slot:
    """Where the units of a layer lie in one parameter: entries along one axis, or along several that are flattened.

    The units are what the groups of Theorems 2 to 4 act on.

    Args:
        name: the parameter's or buffer's name.
        axis: the axis along which its units lie, or the axes, such as (0, 1) in a grouped convolution.
        start: the first unit's place on that axis.
        repeat: entries of each unit along the axis, one after the other; more than one behind a flattened picture.
        inverse: True where a rescaling divides, on the other side of the layer's output.
        degree: the power of a rescaling's factor that acts here: 2 for w in (w u²), where u has 1.
        buffer: True for what the model keeps and does not train, such as a running mean.
        places: places along the axis, ``repeat`` for each unit, unit after unit; None where they follow each other.
    """

    name: str
    axis: int | tuple[int, ...]
    start: int = 0
    repeat: int = 1
    inverse: bool = False
    degree: float = 1
    buffer: bool = False
    places: tuple[int, ...] | None = None

    def take(self, tensor: Tensor, units: int) -> Tensor:
        """Return the entries of each unit, shape (units, entries)."""
        front, _ = self._front(tensor)
        return front[self.indices(units).to(tensor.device)].reshape(units, -1)

    def put(self, tensor: Tensor, block: Tensor) -> Tensor:
        """Return a copy of the tensor with other entries of each unit, shape (units, entries)."""
        changed = tensor.clone(memory_format=torch.contiguous_format)
        self.write(changed, block)
        return changed

    def write(self, tensor: Tensor, block: Tensor) -> None:
        """Write other entries of each unit, shape (units, entries), into a tensor."""
        front, shape = self._front(tensor)
        places = self.indices(len(block)).to(tensor.device)
        rows = block.reshape(len(places), *front.shape[1:]).to(front)
        if len(self.axes) == 1:
            front.index_copy_(0, places, rows)
        else:  # the flattened axes may be a copy
            changed = front.index_copy(0, places, rows)
            tensor.copy_(changed.reshape(shape).movedim(tuple(range(len(self.axes))), self.axes))

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes along which the units lie."""
        return (self.axis,) if isinstance(self.axis, int) else self.axis

    def indices(self, units: int) -> Tensor:
        """Return the places along the axis, shape (units · repeat,)."""
        if self.places is None:
            return torch.arange(self.start, self.start + units * self.repeat)
        return self._places

    @cached_property
    def _places(self) -> Tensor:
        return torch.tensor(self.places)

    @property
    def power(self) -> float:
        """The power of a rescaling's factor that multiplies these entries."""
        return -self.degree if self.inverse else self.degree

    def _front(self, tensor: Tensor) -> tuple[Tensor, torch.Size]:
        """Return the tensor with the units' axes flattened in front, and its shape before they were flattened."""
        moved = tensor.movedim(self.axes, tuple(range(len(self.axes))))
        return moved.flatten(0, len(self.axes) - 1), moved.shape


@dataclass(frozen=True)
class Symmetry:
    """A transformation of a layer's units that leaves the model's outputs unchanged.

    - ``permutation``: two units are exchanged, which may be neurons, channels or whole heads. On the mirror they are
      copies of each other (Theorem 4).
    - ``sign_flip``: all weights of a unit change their sign, a rescaling by -1. On the mirror they are 0 (Theorem 2).
    - ``rotation``: the units are rotated or reflected along any direction n. On the mirror the weights have no part
      along n, so their rank is lower (Theorem 3 and the double rotation of Section 3.2).
    - ``general_linear``: the units are mixed by any invertible matrix, of which the rotations are some; the mirrors are
      those of the rotation.
    - ``complex``: each unit is a plane, such as one of a rotary embedding, multiplied by a complex number. Its mirror
      is the whole plane, which half a turn flips.
    - ``rescaling``: a unit's incoming weights are multiplied by a positive number and its outgoing ones divided, as
      with ReLU. This alone is no mirror. L2 decay still acts on such a unit as the lasso does.

    An element of the group is, by kind: a permutation's order, integers of shape (units,), unit i is replaced by unit
    order[i]; signs or factors, shape (units,); a matrix, shape (units, units); complex numbers, shape (units,). A
    matrix is taken for every kind, a diagonal one for the complex.

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
        """The modules whose parameters take part, in the network's order; of many the first, the last and the count."""
        if self.factored:
            return self.factored + self._part
        parameters = dict.fromkeys(unparametrized(slot.name) for slot in self.slots)
        modules = list(dict.fromkeys(parameter.rpartition(".")[0] or parameter for parameter in parameters))
        if len(modules) > LISTED_MODULES:
            return f"{modules[0]} … {modules[-1]} ({len(modules)} modules)"
        return ", ".join(modules) + self._part

    @property
    def factored(self) -> str:
        """The one parameter whose factors take part (:mod:`mirrorsym.constraints`), and nothing else; else nothing."""
        parameters = {unparametrized(slot.name) for slot in self.slots}
        within = len(parameters) == 1 and all(slot.name not in parameters for slot in self.slots)
        return parameters.pop() if within else ""

    @property
    def _part(self) -> str:
        """The places in the first parameter, where the units are only some of it, as those of an attention head."""
        places = self.slots[0].indices(self.units)
        first, last = int(places.min()), int(places.max()) + 1
        if not any(slot.start or slot.places is not None for slot in self.slots):
            return ""
        if torch.equal(places, torch.arange(first, last)):
            return f" [{first}:{last}]"
        return f" [{int(places[0])}, …]" if places[0] else ""

    def matrix(self, state: State) -> Tensor:
        """Return the weights of each unit, incoming and outgoing ones together, shape (units, weights).

        The order parameters are functions of it: differences of rows, rows, and singular values.

        Args:
            state: the parameters by name, such as ``dict(model.named_parameters())``.
        """
        trained = [slot for slot in self.slots if not slot.buffer]
        return torch.cat([slot.take(lookup(state, slot.name), self.units) for slot in trained], dim=1)

    def reflect(self, state: State, normal: Tensor) -> dict[str, Tensor]:
        """Return all parameters and buffers after the reflection ``I - 2 n nᵀ`` of the units.

        Args:
            state: parameters and buffers by name, as ``model.state_dict()`` has them.
            normal: a vector along n, shape (units,): for a permutation ±1 at two units, for a sign flip or a plane 1 at
                one.

        Raises:
            ValueError: if the symmetry has no such mirror.
        """
        unit = normal / normal.norm()
        self._check(unit)
        householder = torch.eye(self.units).to(unit) - 2 * torch.outer(unit, unit)
        return _own(state, transformed(state, [(self, householder)]))

    def transform(self, state: State, element: Tensor) -> dict[str, Tensor]:
        """Return all parameters and buffers after a transformation of the units, none of them the state's own.

        Args:
            state: parameters and buffers by name.
            element: an element of the symmetry's group, as :meth:`sample` returns it, or a matrix (units, units).

        Raises:
            ValueError: if it is no element of the group.
            KeyError: if the state has no such parameter.
        """
        return _own(state, transformed(state, [(self, checked(self.kind, self.units, element))]))

    def act(self, slot: Slot, element: Tensor, block: Tensor) -> Tensor:
        """Return the entries of one slot after a matrix or complex numbers have acted on them.

        Args:
            slot: one of the slots.
            element: shape (units, units), or (units,) of complex numbers.
            block: the entries, shape (units, entries).
        """
        if element.is_complex():
            planes = block.reshape(self.units, slot.repeat // 2, 2, -1)
            factor = (1 / element.conj() if slot.inverse else element).to(torch.complex128)[:, None, None]
            x, y = planes.unbind(2)
            real, imaginary = factor.real.to(block), factor.imag.to(block)
            return torch.stack([real * x - imaginary * y, imaginary * x + real * y], dim=2).reshape(block.shape)
        diagonal = element.diagonal()
        if self.kind == "complex":
            return diagonal.to(block)[:, None] ** (-1 if slot.inverse else 1) * block
        if bool((element == diagonal.diag()).all()):
            return diagonal.to(block)[:, None] ** slot.power * block
        if self.kind in ("permutation", "sign_flip", "rotation"):  # orthogonal: its own inverse transpose
            return element.to(block) @ block
        inverse = torch.linalg.inv(element).T if slot.inverse else element
        return inverse.to(block) @ block

    def sample(self, seed: int = 0) -> Tensor:
        """Return a random element of the symmetry's group: no unit stays as it is.

        Returns:
            As the class describes: integers, or double precision, or complex numbers for planes.
        """
        return sample(self.kind, self.units, seed)

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
        trained = [slot for slot in self.slots if not slot.buffer]
        if self.kind == "sign_flip":  # an even power stays as it is
            trained = [slot for slot in trained if slot.degree % 2]
        entries = torch.cat([slot.take(lookup(places, slot.name), self.units) for slot in trained], dim=1).numpy()
        if len(np.unique(entries)) != entries.size:
            raise ValueError(f"the symmetry of {self.name} acts on some parameters from two sides; use reflect")
        directions = np.zeros((count, entries.shape[1]))
        directions[entries, np.arange(entries.shape[1])] = unit.double().cpu().numpy()[:, None]
        return Mirror(directions[:, np.abs(directions).sum(axis=0) > 0])

    @torch.no_grad()
    def difference(self, model: nn.Module, loss: Callable[[nn.Module], Tensor], seed: int = 0) -> float:
        """Return the relative change of a loss when the parameters are transformed: about rounding for a symmetry.

        The model is left as it was.

        Args:
            model: the model; take it in double precision and in evaluation mode for a sharp answer.
            loss: what computes a number from the model, such as ``lambda model: criterion(model(x), y)``.
            seed: picks the transformation.
        """
        named = [*model.named_parameters(), *model.named_buffers()]
        touched = {plain(slot.name) for slot in self.slots}
        tensors = {plain(name): tensor for name, tensor in named if plain(name) in touched}
        before = {name: tensor.clone() for name, tensor in tensors.items()}
        everything = {name: tensor.clone() for name, tensor in named}
        here = float(loss(model))
        try:
            _copy(tensors, transformed(before, [(self, self.sample(seed))]))
            there = float(loss(model))
        finally:
            _copy(dict(named), everything)
        return abs(there - here) / max(abs(here), torch.finfo(torch.double).tiny)

    def _check(self, unit: Tensor) -> None:
        entries = unit.detach().double().cpu()
        size = entries[entries != 0].abs()
        allowed = {
            "permutation": len(size) == 2 and bool((entries.sum().abs() < 1e-6).item()),
            "sign_flip": len(size) == 1,
            "complex": len(size) == 1,
            "rescaling": False,
            "rotation": True,
            "general_linear": True,
        }
        if entries.shape != (self.units,) or not allowed[self.kind]:
            raise ValueError(
                f"the {self.kind} of {self.name} has no mirror along a vector of shape {tuple(unit.shape)} with "
                f"{len(size)} entries that are not 0; it acts on {self.units} units, a permutation along ±1 at two of "
                "them, a sign flip or a plane along one, a rotation along any direction, and a rescaling has none"
            )


def _own(state: State, changed: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of what has not changed, for tensors that are one a single copy."""
    copies: dict[tuple[object, ...], Tensor] = {}
    for name, tensor in changed.items():
        if tensor is state[name] and isinstance(tensor, Tensor):
            copies.setdefault(memory(tensor), tensor.clone())
    return {name: copies.get(memory(tensor), tensor) for name, tensor in changed.items()}


def _copy(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        tensor.copy_(values[name])
