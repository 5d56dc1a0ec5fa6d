"""Elements of groups act on parameters: many at once, on a copy, or in place and back again."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mirrorsym.symmetries.names import plain

if TYPE_CHECKING:
    from mirrorsym.symmetries.symmetry import Slot, State, Symmetry

Along = dict[tuple[int, ...], Tensor]
"""A vector along some axes of a parameter."""


class Action:
    """What elements of several symmetries' groups do to parameters and buffers.

    Signs, factors and orders are gathered first, so that each parameter is read once for each of its axes.

    Args:
        state: parameters and buffers by name.
        elements: symmetries, each with an element of its group.

    Raises:
        KeyError: if the state has no such parameter.
    """

    def __init__(self, state: State, elements: Iterable[tuple[Symmetry, Tensor]]) -> None:
        self._factors: dict[str, Along] = defaultdict(dict)
        self._orders: dict[str, Along] = defaultdict(dict)
        self._others: dict[str, list[tuple[Symmetry, Slot, Tensor]]] = defaultdict(list)
        names = {plain(name): name for name in state}
        for symmetry, element in elements:
            for slot in symmetry.slots:
                name = slot.name if slot.name in state else names.get(plain(slot.name))
                if name is None:
                    raise KeyError(f"there is no parameter {slot.name!r}; model.named_parameters() has their names")
                if element.dim() == 2 or element.is_complex():
                    self._others[name].append((symmetry, slot, element))
                else:
                    self._gather(name, state[name], symmetry, slot, element)
        self.names = dict.fromkeys((*self._factors, *self._orders, *self._others))

    def _gather(self, name: str, tensor: Tensor, symmetry: Symmetry, slot: Slot, element: Tensor) -> None:
        size = math.prod(tensor.shape[axis] for axis in slot.axes)
        places = slot.indices(symmetry.units).reshape(symmetry.units, slot.repeat)
        if element.is_floating_point():
            along = self._factors[name].setdefault(slot.axes, torch.ones(size, dtype=torch.double))
            along[places] *= (element.double() ** slot.power)[:, None].cpu()
        else:
            order = self._orders[name].setdefault(slot.axes, torch.arange(size))
            order[places] = order[places[element.cpu()]]

    def on(self, name: str, tensor: Tensor) -> Tensor:
        """Return what a parameter becomes."""
        dense = torch.contiguous_format if self._others.get(name) else torch.preserve_format
        made = tensor.clone(memory_format=dense)
        self._change(name, made)
        return made

    @torch.no_grad()
    def apply(self, tensors: State) -> None:
        """Let parameters become what they become, in place."""
        for name in self.names:
            self._change(name, tensors[name])

    def _change(self, name: str, tensor: Tensor) -> None:
        for axes, along in self._factors.get(name, {}).items():
            tensor.mul_(_beside(tensor, axes, along))
        for axes, order in self._orders.get(name, {}).items():
            tensor.copy_(_reordered(tensor, axes, order))
        for symmetry, slot, element in self._others.get(name, ()):
            _act(symmetry, slot, element, tensor)

    @torch.no_grad()
    def undo(self, tensors: State) -> None:
        """Bring parameters back to what they were, up to some roundings."""
        for name in self.names:
            tensor = tensors[name]
            for symmetry, slot, element in reversed(self._others.get(name, [])):
                _act(symmetry, slot, _inverse(symmetry, element), tensor)
            for axes, order in reversed(self._orders.get(name, {}).items()):
                tensor.copy_(_reordered(tensor, axes, order.argsort()))
            for axes, along in self._factors.get(name, {}).items():
                tensor.div_(_beside(tensor, axes, along))


def transformed(state: State, elements: Iterable[tuple[Symmetry, Tensor]]) -> dict[str, Tensor]:
    """Return all parameters and buffers after transformations by symmetries; those that stay are the state's own.

    Args:
        state: parameters and buffers by name. Of a tensor that has several names, all are changed.
        elements: symmetries, each with an element of its group.

    Raises:
        KeyError: if the state has no such parameter.
    """
    action = Action(state, elements)
    changed = {memory(state[name]): action.on(name, state[name]) for name in action.names}
    return {name: changed.get(memory(tensor), tensor) for name, tensor in state.items()}


def memory(value: object) -> tuple[object, ...]:
    """Return what two names of one tensor have in common."""
    if not isinstance(value, Tensor):
        return (id(value),)
    return (value.data_ptr() or id(value), value.shape, value.stride())


def _act(symmetry: Symmetry, slot: Slot, element: Tensor, tensor: Tensor) -> None:
    block = slot.take(tensor, symmetry.units)
    slot.write(tensor, symmetry.act(slot, element.to(block.device), block))


def _inverse(symmetry: Symmetry, element: Tensor) -> Tensor:
    if element.is_complex():
        return 1 / element
    if symmetry.kind == "rotation":
        return element.T
    inverse: Tensor = torch.linalg.inv(element)
    return inverse


def _beside(tensor: Tensor, axes: tuple[int, ...], along: Tensor) -> Tensor:
    """Return a vector along some axes in a shape that broadcasts against a tensor."""
    moved = along.reshape([tensor.shape[axis] for axis in axes] + [1] * (tensor.dim() - len(axes)))
    return moved.movedim(tuple(range(len(axes))), axes).to(tensor)


def _reordered(tensor: Tensor, axes: tuple[int, ...], order: Tensor) -> Tensor:
    order = order.to(tensor.device)
    if len(axes) == 1:
        return tensor.index_select(axes[0], order)
    front = tensor.movedim(axes, tuple(range(len(axes))))
    flat = front.flatten(0, len(axes) - 1).index_select(0, order)
    return flat.reshape(front.shape).movedim(tuple(range(len(axes))), axes)
