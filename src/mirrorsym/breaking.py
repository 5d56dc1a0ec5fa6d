"""Move units off their mirrors, so that training can use them again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mirrorsym.compression.edit import UncuttableError, holders, readers_of, require_cuttable, tensor_of
from mirrorsym.compression.inputs import Inputs
from mirrorsym.compression.probe import Reading, observe
from mirrorsym.compression.units import Reader, judge
from mirrorsym.running import evaluating
from mirrorsym.symmetries import Slot, Symmetry, find_symmetries

DEAD = 1e-3
"""A unit is dead where what it gives is so small beside what the largest of its layer gives."""


@dataclass(frozen=True)
class Moved:
    """The units of one group that were moved off their mirrors (Theorems 2 and 4) by :func:`break_symmetry`.

    Args:
        where: the modules.
        units: the number of units of the group.
        zero: those that were zero.
        copies: those that were multiples of another one.
    """

    where: str
    units: int
    zero: tuple[int, ...]
    copies: tuple[int, ...]


def break_symmetry(
    model: nn.Module,
    batch: Any,
    optimizer: torch.optim.Optimizer | None = None,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> list[Moved]:
    """Move units that lie on a mirror (Theorems 2 and 4), and those alone; the outputs stay as they are.

    A unit that is zero gets incoming weights as large as those of the units that live, and is not read until training
    learns to. A unit that is a multiple of another one shares what reads the two with it at random, entry by entry:
    from then on their gradients differ. What the optimizer remembers of the entries that were written is set to zero.

    On a mirror no gradient leads away from it; off it one does. Where training is attracted to the mirror, by decay,
    noise or a large learning rate (Section 2.4), the units fall back: then change these. Units in a stream with norms,
    heads of ``nn.MultiheadAttention`` and units that are constant but not zero stay as they are.

    Args:
        model: any module that :func:`find_symmetries` takes. It is changed in place.
        batch: as in :func:`compress`: a tensor of shape (samples, …), a tuple, or a mapping by name.
        optimizer: the one that trains it.
        tolerance: the units are on a mirror if to replace them changes an output by this at most, together, relative to
            the outputs' root mean square.
        seed: of the random numbers.

    Returns:
        What was moved, by group.

    Raises:
        ValueError: if the tolerance is not positive, or the model one that :func:`find_symmetries` refuses.
    """
    if not tolerance > 0:
        raise ValueError(f"break_symmetry: tolerance is {tolerance}; it has to be a positive number")
    inputs = Inputs.of(batch)
    moved: list[Moved] = []
    generator = torch.Generator().manual_seed(seed)
    with torch.enable_grad():  # which the search needs
        found = find_symmetries(model, *inputs.args, **inputs.kwargs)
    with evaluating(model), torch.no_grad():
        for symmetry in found.of_kind("permutation"):
            slots = [(slot, slot.indices(symmetry.units).reshape(symmetry.units, -1)) for slot in symmetry.slots]
            readings = observe(model, [inputs, inputs.redrawn(seed)])
            readers = readers_of(model, slots)
            if readers and _movable(model, symmetry, readers, readings):
                moved += _move(_Mover(model, symmetry, readers, optimizer, generator), readings, tolerance)
    return moved


def _movable(model: nn.Module, symmetry: Symmetry, readers: Sequence[Reader], readings: dict[str, Reading]) -> bool:
    """Return whether units can get weights and the outputs stay: not in a stream with norms, nor if they are tied."""
    try:
        for slot in symmetry.slots:
            for _, module, _ in holders(model, slot.name):
                require_cuttable(module, slot)
    except UncuttableError:
        return False
    return all(reader.merges and reader.module in readings for reader in readers)


def _move(mover: _Mover, readings: dict[str, Reading], tolerance: float) -> Iterator[Moved]:
    plan = judge(mover.readers, readings, tolerance)
    sizes = torch.stack([_size(reader, readings[reader.module]) for reader in mover.readers]).amax(0)
    dead = [unit for unit in plan.zero if sizes[unit] <= DEAD * sizes.max()]
    copies = [unit for unit in plan.copies if sizes[unit] > DEAD * sizes.max()]
    for unit in copies:
        mover.split(unit, *plan.copies[unit])
    if dead:
        mover.revive(dead)
    if dead or copies:
        where = mover.symmetry.name.partition(" [")[0]
        yield Moved(where, mover.symmetry.units, tuple(sorted(dead)), tuple(sorted(copies)))


def _size(reader: Reader, reading: Reading) -> Tensor:
    """Return the largest that each unit gives, near and far off, shape (units,)."""
    largest = torch.stack([reading.lowest.abs(), reading.highest.abs(), reading.slope]).amax(0)
    return largest[reader.features].amax(1)


class _Mover:
    """Writes weights of single units of a group."""

    def __init__(
        self,
        model: nn.Module,
        symmetry: Symmetry,
        readers: Sequence[Reader],
        optimizer: torch.optim.Optimizer | None,
        generator: torch.Generator,
    ) -> None:
        self.symmetry = symmetry
        self.readers = readers
        self._model = model
        self._optimizer = optimizer
        self._generator = generator
        names = {reader.module for reader in readers}
        self._reading = [slot for slot in symmetry.slots if self._reads(slot, names)]
        self._own = [slot for slot in symmetry.slots if slot not in self._reading]

    def split(self, unit: int, other: int, factors: dict[str, float]) -> None:
        """Share what reads a unit and another that it is a multiple of, at random."""
        for slot in self._reading:
            block = self._block(slot)
            factor = factors[slot.name.rpartition(".")[0]]
            both = block[other] + factor * block[unit]
            share = torch.rand(both.shape, generator=self._generator).to(both)
            block[other], block[unit] = (1 - share) * both, share * both / factor
            self._write(slot, block, [unit, other])

    def revive(self, units: Sequence[int]) -> None:
        """Give units incoming weights, and let nothing read them."""
        living = [unit for unit in range(self.symmetry.units) if unit not in units]
        for slot in self._reading:
            block = self._block(slot)
            block[list(units)] = 0
            self._write(slot, block, units)
        for slot in self._own:
            block = self._block(slot)
            like = block[living] if living else block
            if block.shape[1] == 1:  # gains, biases and statistics: as the others have them on average
                block[list(units)] = like.mean(0)
            else:
                size = like.square().mean().sqrt() if living else block.shape[1] ** -0.5
                noise = torch.randn(len(units), block.shape[1], generator=self._generator)
                block[list(units)] = size * noise.to(block)
            self._write(slot, block, units)

    def _reads(self, slot: Slot, names: set[str]) -> bool:
        owner, _, attribute = slot.name.rpartition(".")
        return owner in names and attribute == "weight" and slot.axis != _writing_axis(self._model.get_submodule(owner))

    def _block(self, slot: Slot) -> Tensor:
        return slot.take(tensor_of(self._model, slot.name), self.symmetry.units).clone()

    def _write(self, slot: Slot, block: Tensor, units: Sequence[int]) -> None:
        tensor = tensor_of(self._model, slot.name)
        tensor.copy_(slot.put(tensor, block))
        if self._optimizer is None:
            return
        for value in self._optimizer.state.get(tensor, {}).values():
            if isinstance(value, Tensor) and value.shape == tensor.shape:
                remembered = slot.take(value, self.symmetry.units).clone()
                remembered[list(units)] = 0
                value.copy_(slot.put(value, remembered))


def _writing_axis(module: nn.Module) -> int:
    """Return the axis of a module's weight along which what it gives lies."""
    transposed = isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
    return 1 if transposed or type(module).__name__ == "Conv1D" else 0
