"""Write other weights for units of a group, in place, so that it can be taken back or the optimizer be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mirrorsym.compression.edit import tensor_of
from mirrorsym.symmetries import Slot, Symmetry

SQUARES = ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum")
"""What optimizers call averages of squares: these have no part along a direction that mixes units."""


class Mover:
    """Moves units of one group off their mirrors (Theorems 2 to 4), such that what the model computes stays.

    Args:
        model: is changed in place.
        symmetry: the group.
        generator: of the random numbers.
    """

    def __init__(self, model: nn.Module, symmetry: Symmetry, generator: torch.Generator) -> None:
        self._model = model
        self._units = symmetry.units
        self._generator = generator
        self._before = {slot.name: tensor_of(model, slot.name).clone() for slot in symmetry.slots}
        # Of each what is kept in it: 1 or 0 for each unit, or a projection of the units.
        self._written: list[tuple[Slot, Tensor]] = []

    def split(self, unit: int, other: int, readers: Mapping[Slot, float]) -> None:
        """Share what reads a unit and another that it is a multiple of, at random.

        Args:
            unit: the copy.
            other: the one that it is a multiple of.
            readers: where weights read them, with how many times the other the unit is to these.
        """
        for slot, factor in readers.items():
            block = self._block(slot)
            both = block[other] + factor * block[unit]
            share = torch.rand(both.shape, generator=self._generator).to(both)
            block[other], block[unit] = (1 - share) * both, share * both / factor
            self._write(slot, block, self._others([unit, other]))

    def revive(self, units: Sequence[int], own: Sequence[Slot], readers: Sequence[Slot]) -> None:
        """Give units incoming weights, and let nothing read them.

        Args:
            units: some that give nothing.
            own: where their incoming weights lie, biases, gains and statistics included.
            readers: where weights read them.
        """
        living = self._others(units).nonzero()[:, 0].tolist()
        for slot in readers:
            block = self._block(slot)
            block[list(units)] = 0
            self._write(slot, block, self._others(units))
        for slot in own:
            block = self._block(slot)
            if living:
                block[list(units)] = self._like(block[living], len(units))
            elif not slot.buffer and not slot.name.endswith("bias"):
                size = block.shape[1] ** -0.5
                block[list(units)] = size * self._normal(block[list(units)])
            self._write(slot, block, self._others(units))

    def recover(self, directions: Tensor, own: Sequence[Slot]) -> None:
        """Give directions of the units, which nothing reads, incoming weights as large as those of the others.

        Args:
            directions: orthonormal, shape (units, directions).
            own: where incoming weights lie.
        """
        lost = directions.shape[1]
        for slot in own:
            block = self._block(slot)
            if block.shape[1] == 1:  # biases
                continue
            size = block.norm() / (max(self._units - lost, 1) * block.shape[1]) ** 0.5
            normals = directions.to(block)
            noise = self._normal(block[:lost])
            block += size * normals @ noise
            self._write(slot, block, torch.eye(self._units).to(block) - normals @ normals.T)

    def undo(self) -> None:
        """Take back what was written."""
        for name, tensor in self._before.items():
            tensor_of(self._model, name).copy_(tensor)

    def forget(self, optimizer: torch.optim.Optimizer) -> None:
        """Set to zero what an optimizer remembers of what was written, and of nothing else."""
        for slot, keep in self._written:
            tensor = tensor_of(self._model, slot.name)
            for name, value in optimizer.state.get(tensor, {}).items():
                if isinstance(value, Tensor) and value.shape == tensor.shape:
                    block, kept = slot.take(value, self._units), keep.to(value)
                    if keep.dim() == 1:
                        slot.write(value, kept[:, None] * block)
                    elif name not in SQUARES:
                        slot.write(value, kept @ block)

    def _like(self, living: Tensor, count: int) -> Tensor:
        """Return weights of new units, shape (count, entries): normal, or what living units have of one sign alone."""
        if living.shape[1] == 1 and bool((living >= 0).all() or (living <= 0).all()):  # gains, variances
            return living[torch.randint(len(living), (count,), generator=self._generator).to(living.device)]
        return living.square().mean().sqrt() * self._normal(living[:1].expand(count, -1))

    def _normal(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self._generator).to(like)

    def _others(self, units: Sequence[int]) -> Tensor:
        keep = torch.ones(self._units)
        keep[list(units)] = 0
        return keep

    def _block(self, slot: Slot) -> Tensor:
        return slot.take(tensor_of(self._model, slot.name), self._units).clone()

    def _write(self, slot: Slot, block: Tensor, keep: Tensor) -> None:
        tensor = tensor_of(self._model, slot.name)
        slot.write(tensor, block)
        self._written.append((slot, keep))
