"""Cut one group of units after the other, and keep what leaves the outputs as they were."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mirrorsym.compression.edit import (
    Places,
    UncuttableError,
    attribute_edits,
    fold,
    holders,
    places_of,
    readers_of,
    remove,
    require_cuttable,
)
from mirrorsym.compression.groups import Group, groups_of
from mirrorsym.compression.idle import Idle
from mirrorsym.compression.inputs import Inputs, distance, outputs_of
from mirrorsym.compression.probe import Reading, observe
from mirrorsym.compression.rank import factor, product_of
from mirrorsym.compression.report import Cut, Kept
from mirrorsym.compression.units import Plan, judge
from mirrorsym.symmetries import Symmetry, find_symmetries

TRIES = (1.0, 1e-2, 1e-4)
"""A cut that changes the outputs too much is tried again with so much of its share of the tolerance."""
SWEEPS = 4
"""All groups are looked at again so many times at most, as long as the last time something was cut."""
JUDGED, WIDE, HELD_OUT = (1, 2), (3,), (4, 5, 6)
"""Seeds of the inputs on which cuts are judged and checked, of those of a wider range on which they are judged alone,
and of those that are held out."""
SPREAD = 3.0
"""The wider range, over the batch's."""
NOT_CUT = {
    "rotation": "its rank is lower than its dimension, and directions of a stream are not cut, only channels",
    "complex": "planes of a rotary embedding are zero, and are not cut",
}
"""Mirrors of which no cut is made."""


class Cutter:
    """Cuts one group after the other, and keeps what leaves the outputs as they were.

    Args:
        model: the model as it is cut, in evaluation mode.
        original: what it has to agree with.
        inputs: the batch.
        tolerance: how much an output may change at most.
    """

    def __init__(self, model: nn.Module, original: nn.Module, inputs: Inputs, tolerance: float) -> None:
        self.model = model
        self.cuts: list[Cut] = []
        self._tolerance = tolerance
        self.inputs = [inputs, *self._usable(original, inputs, JUDGED)]
        self._wide = self._usable(original, inputs, WIDE, SPREAD)
        self.held_out = self._usable(original, inputs, HELD_OUT)
        self.before = outputs_of(original, self.inputs)
        self._places = Places()
        self._readings: dict[str, Reading] | None = None
        self.kept: dict[str, Kept] = {}
        self.promised = 0.0
        with torch.enable_grad():  # which the search needs
            found = find_symmetries(model, *inputs.args, **inputs.kwargs)
        idle = Idle(model, found.unused_parameters)
        self._groups = []
        for group in groups_of(found):
            reader = idle.reader(group) if group.permutation else None
            if reader is None:
                self._groups.append(group)
            else:
                self._keep(group.where, f"{reader} may read or give these units, and did not run on the batch")
        for module in idle.modules:
            self._keep(module, "it did not run on the batch, and is as it was")
        for unfollowed in found.unfollowed:
            self._keep(unfollowed.module or "the model", f"{unfollowed.operation} was not followed: {unfollowed.why}")
        parameters = dict(model.named_parameters())
        for symmetry in found.of_kind("rotation", "complex"):
            if _collapsed(symmetry.matrix(parameters).detach(), symmetry.kind, tolerance):
                self._keep(symmetry.name.partition(" [")[0], NOT_CUT[symmetry.kind])

    def _usable(self, model: nn.Module, inputs: Inputs, seeds: Sequence[int], spread: float = 1.0) -> list[Inputs]:
        """Return other inputs in the batch's range, as far as the model takes them."""
        usable = []
        for seed in seeds:
            drawn = inputs.redrawn(seed, spread)
            try:
                outputs_of(model, [drawn])
            except Exception:  # whatever a forward raises at inputs that do not fit together
                continue
            usable.append(drawn)
        return usable

    def run(self) -> None:
        """Cut until nothing is left to cut."""
        for _ in range(SWEEPS):
            count = len(self.cuts)
            for group in self._groups:
                try:
                    if group.permutation:
                        self._cut_units(group)
                    else:
                        self._cut_rank(group)
                except UncuttableError as error:
                    self._keep(group.where, str(error))
            if len(self.cuts) == count:
                return

    def _keep(self, where: str, why: str) -> None:
        self.kept[where] = Kept(where, why)

    def _read(self) -> dict[str, Reading]:
        """Return what the modules of the model as it is now read."""
        if self._readings is None:
            self._readings = observe(self.model, [*self.inputs, *self._wide])
        return self._readings

    def _cut_units(self, group: Group) -> None:
        (symmetry,) = group.symmetries
        slots = places_of(self.model, self._places, symmetry)
        for slot, _ in slots:
            for _, module, _ in holders(self.model, slot.name):
                require_cuttable(module, slot)
        units = len(slots[0][1])
        readers = readers_of(self.model, slots)
        if units < 2:
            return
        readings = self._read()
        idle = [reader.module for reader in readers if reader.module not in readings]
        if idle:
            raise UncuttableError(f"{idle[0]} reads these units, and did not run on the batch")
        if not readers:
            self._keep(group.where, "no module that is known reads these units")
            return
        what = self._what(symmetry, slots)
        why = ""
        for share in TRIES:
            plan = judge(readers, readings, share * (self._tolerance - self.promised) / 2)
            if not plan.gone:
                return
            counts = (units, units - len(plan.gone))
            size = max(where.shape[1] for _, where in slots)

            def edit(trial: nn.Module, places: Places, plan: Plan = plan) -> None:
                fold(trial, readers, readings, plan)
                remove(trial, places, slots, plan.gone)

            edits = attribute_edits(self.model, symmetry.slots, counts, (size, size)) if what == "heads" else iter([[]])
            error = self._try(edit, edits)
            if error is None:
                counted = (len(plan.zero), len(plan.constant), len(plan.copies))
                self._accept(Cut(group.where, what, *counts, *counted, plan.promised))
                return
            why = error
        self._keep(group.where, why)

    def _what(self, symmetry: Symmetry, slots: Sequence[Any]) -> str:
        if min(where.shape[1] for slot, where in slots if not slot.buffer) == 1:
            return "units"
        owners = [self.model.get_submodule(slot.name.rpartition(".")[0]) for slot, _ in slots]
        return "groups" if any(getattr(owner, "groups", 1) > 1 for owner in owners) else "heads"

    def _cut_rank(self, group: Group) -> None:
        readings = self._read()
        products = [product_of(self.model, self._places, symmetry, readings) for symmetry in group.symmetries]
        found = [product for product in products if product is not None]
        if not found or len({product.units for product in found}) > 1 or found[0].units < 2:
            return
        # Heads of one layer are measured by the largest of them.
        one = {flag: max((p.one for p in found if p.logits == flag), default=0.0) for flag in (False, True)}
        units, heads = found[0].units, len(found) // group.products
        slots = [slot for symmetry in group.symmetries for slot in symmetry.slots]
        why = ""
        for share in TRIES:
            limit = share * (self._tolerance - self.promised) / 2
            rank = max(1, *(int((product.values > limit * one[product.logits]).sum()) for product in found))
            if rank == units:
                return
            scales = (1.0, (rank / units) ** 0.5) if one[True] else (1.0,)
            for scale in scales:

                def edit(trial: nn.Module, places: Places, scale: float = scale, rank: int = rank) -> None:
                    factor(trial, places, found, rank, scale)

                outcome = self._try(edit, attribute_edits(self.model, slots, (heads, heads), (units, rank)))
                if outcome is None:
                    dropped = max(float(product.values[rank]) / max(one[product.logits], 1e-300) for product in found)
                    self._accept(Cut(group.where, "rank", units, rank, promised=dropped))
                    return
                why = outcome
        self._keep(group.where, why)

    def _try(
        self, edit: Callable[[nn.Module, Places], None], attributes: Iterator[list[tuple[str, str, int]]]
    ) -> str | None:
        """Make a change to a copy, and keep that if its outputs are the same. Return why not, or None."""
        why = ""
        for changes in attributes:
            trial, places = copy.deepcopy(self.model), self._places.copy()
            edit(trial, places)
            for owner, name, value in changes:
                setattr(trial.get_submodule(owner), name, value)
            try:
                error = distance(self.before, outputs_of(trial, self.inputs))
            except Exception as raised:  # whatever a forward raises when shapes do not fit
                why = f"the model's forward does not take fewer ({str(raised).splitlines()[0]})"
                continue
            if error <= self._tolerance:
                self.model, self._places, self._readings = trial, places, None
                return None
            why = f"fewer change the outputs by {error:.0e}"
        return why

    def _accept(self, cut: Cut) -> None:
        self.cuts.append(cut)
        self.promised += cut.promised


def _collapsed(weights: Tensor, kind: str, tolerance: float) -> bool:
    """Return whether units lie on a mirror of a rotation, or planes on theirs."""
    sizes = weights.norm(dim=1) if kind == "complex" else torch.linalg.svdvals(weights)
    return len(sizes) < len(weights) or bool(sizes.min() <= tolerance * sizes.max())
