"""Move units off their mirrors, so that training can use them again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mirrorsym.compression.edit import UncuttableError, holders, readers_of, require_cuttable
from mirrorsym.compression.inputs import Inputs, distance, outputs_of
from mirrorsym.compression.probe import Reading, observe, reading_axis
from mirrorsym.compression.units import Reader, judge
from mirrorsym.forecasting import Forecast
from mirrorsym.moving import Mover
from mirrorsym.reflections import fixed
from mirrorsym.running import evaluating
from mirrorsym.symmetries import Slot, Symmetries, Symmetry, find_symmetries
from mirrorsym.units import place

DEAD = 1e-3
"""A unit or a direction is zero where it is so small beside the largest of its layer."""
SHARES = (1.0, 1e-2, 1e-4)
"""What changes the outputs too much is tried again with so much of the tolerance: sharing what reads two units that are
nearly copies gives weight to where they differ."""
WORDS = {"permutation": "copies", "general_linear": "directions"}
"""What lies on the mirrors of a kind; of the others, units that are zero."""


@dataclass(frozen=True)
class Moved:
    """What was moved off the mirrors of one group (Theorems 2 to 4) by :func:`break_symmetry`. Printed, a sentence.

    Args:
        where: the modules.
        units: the number of units of the group.
        zero: units that were zero.
        copies: units that were multiples of another one.
        directions: the number of directions between two layers that were lost.
        forecasts: those that were given of the mirrors that these units lay on.
    """

    where: str
    units: int
    zero: tuple[int, ...] = ()
    copies: tuple[int, ...] = ()
    directions: int = 0
    forecasts: tuple[Forecast, ...] = ()

    @property
    def falls_back(self) -> bool | None:
        """Whether near its mirror some of it falls back (Section 2.4); None where no forecast says it."""
        answers = {one.answer for one in self.forecasts}
        return True if "no" in answers else False if answers == {"yes"} else None

    def __str__(self) -> str:
        counts = {"zero": len(self.zero), "copies": len(self.copies), "lost directions": self.directions}
        what = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        return "; ".join([f"{self.where}: moved of {self.units} units {what}", *map(_outcome, self.forecasts)])

    __repr__ = __str__


def _outcome(forecast: Forecast) -> str:
    what = WORDS.get(forecast.symmetry.kind, "zero")
    if forecast.answer == "undecided":
        return f"{what}: it is undecided whether training draws them back"
    steps = f"in {forecast.half_life:.0f} steps"
    if forecast.answer == "yes":
        return f"{what} will stay off: a small distance doubles {steps}"
    return f"{what} will fall back: a small distance halves {steps}"


def break_symmetry(
    model: nn.Module,
    batch: Any,
    optimizer: torch.optim.Optimizer | None = None,
    forecasts: Iterable[Forecast] = (),
    tolerance: float = 1e-3,
    seed: int = 0,
) -> list[Moved]:
    """Move what lies on a mirror (Theorems 2 to 4), and that alone; the outputs stay as they are.

    A unit that is zero gets incoming weights as large as those of the units that live, and is not read until training
    learns to. A unit that is a multiple of another one shares what reads the two with it at random, entry by entry:
    from then on their gradients differ. A direction that both of two layers have lost is written by the first again,
    and not yet read by the second. What the optimizer remembers of what was written is set to zero.

    On a mirror no gradient leads away from it; off it one does. Where training is attracted to the mirror, by decay,
    noise or a large learning rate (Section 2.4), units near to it fall back: with the forecasts of their mirrors, what
    is returned says so. From far they may come to rest elsewhere, which no exponent says. Units in a stream with norms,
    heads of ``nn.MultiheadAttention``, planes of a rotary embedding and units that are constant but not zero stay as
    they are.

    Args:
        model: any module that :func:`find_symmetries` takes. It is changed in place.
        batch: as in :func:`compress`: a tensor of shape (samples, …), a tuple, or a mapping by name.
        optimizer: the one that trains it.
        forecasts: what :func:`forecast` returned for the model, if it was asked.
        tolerance: the units are on a mirror if to replace them changes an output by this at most, together, relative to
            the outputs' root mean square. A move that changes outputs by more, in evaluation mode, is not made.
        seed: of the random numbers.

    Returns:
        What was moved, by group.

    Raises:
        ValueError: if the tolerance is not positive, or the model one that :func:`find_symmetries` refuses.
    """
    if not tolerance > 0:
        raise ValueError(f"break_symmetry: tolerance is {tolerance}; it has to be a positive number")
    inputs = Inputs.of(batch)
    with torch.enable_grad():  # which the search needs
        found = find_symmetries(model, *inputs.args, **inputs.kwargs)
    known = tuple(forecasts)
    moved = []
    with evaluating(model), torch.no_grad():
        breaker = _Breaker(model, [inputs, inputs.redrawn(seed)], optimizer, tolerance, seed)
        for symmetry in found:
            one = breaker.move(symmetry, found)
            if one is not None:
                moved.append(replace(one, forecasts=_about(one, symmetry, known)))
    return moved


class _Breaker:
    """Moves units of one group after the other, and takes back what changes the outputs."""

    def __init__(
        self,
        model: nn.Module,
        inputs: Sequence[Inputs],
        optimizer: torch.optim.Optimizer | None,
        tolerance: float,
        seed: int,
    ) -> None:
        self._model = model
        self._inputs = inputs
        self._optimizer = optimizer
        self._tolerance = tolerance
        self._generator = torch.Generator().manual_seed(seed)
        self._before = outputs_of(model, inputs)
        self._readings: dict[str, Reading] | None = None

    def move(self, symmetry: Symmetry, found: Symmetries) -> Moved | None:
        """Move what lies on the mirrors of a symmetry, if anything does and the outputs stay."""
        for share in SHARES:
            mover = Mover(self._model, symmetry, self._generator)
            if symmetry.kind == "permutation":
                moved = self._units(symmetry, mover, share * self._tolerance)
            elif symmetry.kind == "rescaling" and not _companions(symmetry, found.of_kind("permutation")):
                moved = self._factors(symmetry, mover)
            elif symmetry.kind == "general_linear":
                moved = self._directions(symmetry, mover)
            else:
                return None
            if moved is None:
                return None
            if distance(self._before, outputs_of(self._model, self._inputs)) <= self._tolerance:
                self._readings = None
                if self._optimizer is not None:
                    mover.forget(self._optimizer)
                return moved
            mover.undo()
        return None

    def _units(self, symmetry: Symmetry, mover: Mover, tolerance: float) -> Moved | None:
        """Move neurons, channels and heads, judged by what they give to those that read them."""
        slots = [(slot, slot.indices(symmetry.units).reshape(symmetry.units, -1)) for slot in symmetry.slots]
        readers = readers_of(self._model, slots)
        if self._readings is None:
            self._readings = observe(self._model, self._inputs)
        readings = self._readings
        if not readers or not _movable(self._model, symmetry, readers, readings):
            return None
        plan = judge(readers, readings, tolerance)
        sizes = torch.stack([_size(reader, readings[reader.module]) for reader in readers]).amax(0)
        zero = sorted(unit for unit in plan.zero if sizes[unit] <= DEAD * sizes.max())
        copies = sorted(unit for unit in plan.copies if sizes[unit] > DEAD * sizes.max())
        if not sizes.any():
            zero = list(range(symmetry.units))  # of which a cut would leave one
        if not zero and not copies:
            return None
        names = {reader.module for reader in readers}
        reading = [slot for slot in symmetry.slots if _reads(self._model, slot, names)]
        for unit in copies:
            other, factors = plan.copies[unit]
            mover.split(unit, other, {slot: factors[slot.name.rpartition(".")[0]] for slot in reading})
        if zero:
            mover.revive(zero, [slot for slot in symmetry.slots if slot not in reading], reading)
        return Moved(_where(symmetry), symmetry.units, tuple(zero), tuple(copies))

    def _factors(self, symmetry: Symmetry, mover: Mover) -> Moved | None:
        """Move units that only a product makes, such as the entries of w ⊙ u: zero where both of their sides are."""
        parameters = dict(self._model.named_parameters())
        if fixed(symmetry, parameters):
            return None
        sizes = symmetry.matrix(parameters).norm(dim=1)
        zero = (sizes <= DEAD * sizes.max()).nonzero()[:, 0].tolist()
        if not zero:
            return None
        mover.revive(zero, *([s for s in symmetry.slots if (s.power > 0) is own] for own in (True, False)))
        return Moved(_where(symmetry), symmetry.units, tuple(zero))

    def _directions(self, symmetry: Symmetry, mover: Mover) -> Moved | None:
        """Move directions that both sides of a product of two layers have lost."""
        parameters = dict(self._model.named_parameters())
        if fixed(symmetry, parameters):
            return None
        left, values, _ = torch.linalg.svd(symmetry.matrix(parameters).double(), full_matrices=False)
        lost = left[:, values <= DEAD * values.max()]
        if not lost.shape[1]:
            return None
        mover.recover(lost, [slot for slot in symmetry.slots if not slot.inverse])
        return Moved(_where(symmetry), symmetry.units, directions=lost.shape[1])


def _where(symmetry: Symmetry) -> str:
    return symmetry.name.partition(" [")[0]


def _companions(symmetry: Symmetry, others: Sequence[Symmetry]) -> list[Symmetry]:
    """Return those of the other symmetries that act on the same units, one of the two on all that the other does."""
    own = {place(slot) for slot in symmetry.slots}
    return [
        other
        for other in others
        if other.units == symmetry.units and (own <= (places := {place(slot) for slot in other.slots}) or places <= own)
    ]


def _about(moved: Moved, symmetry: Symmetry, forecasts: Sequence[Forecast]) -> tuple[Forecast, ...]:
    """Return the forecasts of the mirrors that what was moved lay on."""
    lay = {"permutation": moved.copies, "general_linear": moved.directions}
    return tuple(
        one for one in forecasts if lay.get(one.symmetry.kind, moved.zero) and _companions(symmetry, [one.symmetry])
    )


def _movable(model: nn.Module, symmetry: Symmetry, readers: Sequence[Reader], readings: Mapping[str, Reading]) -> bool:
    """Return whether units can get weights and the outputs stay: not in a stream with norms, nor if they are tied."""
    try:
        for slot in symmetry.slots:
            for _, module, _ in holders(model, slot.name):
                require_cuttable(module, slot)
    except UncuttableError:
        return False
    return all(reader.merges and reader.module in readings for reader in readers)


def _size(reader: Reader, reading: Reading) -> Tensor:
    """Return the largest that each unit gives, near and far off, shape (units,)."""
    largest = torch.stack([reading.lowest.abs(), reading.highest.abs(), reading.slope]).amax(0)
    return largest[reader.features].amax(1)


def _reads(model: nn.Module, slot: Slot, readers: Collection[str]) -> bool:
    """Return whether a slot lies where one of the readers reads."""
    owner, _, attribute = slot.name.rpartition(".")
    return owner in readers and attribute == "weight" and slot.axis == reading_axis(model.get_submodule(owner))
