"""The lossless cut of each mirror on which a network lies."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from mirrorsym.compression.attention import Attention, replaceable
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
from mirrorsym.compression.inputs import Inputs, distance, outputs_of
from mirrorsym.compression.probe import Reading, observe
from mirrorsym.compression.rank import factor, product_of
from mirrorsym.compression.report import Compression, Cut, Kept
from mirrorsym.compression.units import Plan, judge
from mirrorsym.symmetries import Symmetry, find_symmetries
from mirrorsym.symmetries.twin import copied, unwrapped

TRIES = (1.0, 1e-2, 1e-4)
"""A cut that changes the outputs too much is tried again with so much of its share of the tolerance."""
SWEEPS = 4
"""All groups are looked at again so many times at most, as long as the last time something was cut."""
JUDGED, WIDE, HELD_OUT = (1, 2), (3,), (4, 5, 6)
"""Seeds of the inputs on which cuts are judged and checked, of those of a wider range on which they are judged alone,
and of those that are held out."""
SPREAD = 3.0
"""The wider range, over the batch's."""
REPEATS = 7
"""Forwards of each model whose median time is reported."""

NOT_CUT = {
    "rotation": "its rank is lower than its dimension, and directions of a stream are not cut, only channels",
    "complex": "planes of a rotary embedding are zero, and are not cut",
}
"""Mirrors of which no cut is made."""


def compress(model: nn.Module, batch: Any, tolerance: float = 1e-3) -> tuple[nn.Module, Compression]:
    """Return a smaller model that computes the same, where the model lies on mirrors (Theorems 2 to 4, Section 3).

    Units that are zero, constant or multiples of another unit go, heads of attention as well, and products of layers
    whose rank is lower than the dimension between them (keys with queries, values with what reads them) become products
    of that dimension. A unit is judged by what it gives to those that read it, on the batch, on other inputs in its
    range, and on inputs far from it, not by its weights. After each cut the outputs are compared, on the batch and on
    inputs in its range, and a cut that changes them too much is undone. The outputs are those of evaluation mode.

    Args:
        model: any module that :func:`find_symmetries` takes. It is left as it is. What ``torch.compile`` and
            ``DataParallel`` have made is compressed without the wrapper.
        batch: what its forward takes: a tensor, of shape (samples, …), a tuple of what it takes by place, or a mapping
            by name. A small one: some ten samples in which every branch takes part.
        tolerance: how much an output may change at most, relative to the outputs' root mean square.

    Returns:
        The smaller model, with plain parameters where there were parametrizations such as DCS, and a report. Where
        there is nothing to cut the model is a copy.

    Raises:
        ValueError: if the tolerance is not positive, or the model one that :func:`find_symmetries` refuses.
    """
    if not tolerance > 0:
        raise ValueError(f"compress: tolerance is {tolerance}; it has to be a positive number")
    inputs = Inputs.of(batch)
    model = unwrapped(model)
    work = copied(model)
    work.eval()
    original = copy.deepcopy(work)
    plain_parameters(work)
    attentions = _replace_attentions(work)
    cutter = _Cutter(work, original, inputs, tolerance)
    cutter.run()
    _restore_attentions(cutter.model, attentions)
    report = cutter.report()
    if not report.cuts:
        return copied(model), report
    modes = {name: module.training for name, module in model.named_modules()}
    for name, module in cutter.model.named_modules():
        module.training = modes.get(name, module.training)
    return cutter.model, report


@dataclass(frozen=True)
class _Group:
    """One symmetry of units, or several that have to be cut alike, such as those of a layer's heads.

    Args:
        symmetries: the symmetries.
        products: in how many products each head takes part here.
    """

    symmetries: tuple[Symmetry, ...]
    products: int = 1

    @property
    def where(self) -> str:
        return self.symmetries[0].name.partition(" [")[0]

    @property
    def permutation(self) -> bool:
        return self.symmetries[0].kind == "permutation"


class _Cutter:
    """Cuts one group after the other, and keeps what leaves the outputs as they were."""

    def __init__(self, model: nn.Module, original: nn.Module, inputs: Inputs, tolerance: float) -> None:
        self.model = model
        self.cuts: list[Cut] = []
        self._original = original
        self._tolerance = tolerance
        self._inputs = [inputs, *self._usable(original, inputs, JUDGED)]
        self._wide = self._usable(original, inputs, WIDE, SPREAD)
        self._held_out = self._usable(original, inputs, HELD_OUT)
        self._before = outputs_of(original, self._inputs)
        self._places = Places()
        self._readings: dict[str, Reading] | None = None
        self._kept: dict[str, Kept] = {}
        self._promised = 0.0
        found = find_symmetries(model, *inputs.args, **inputs.kwargs)
        self._groups = list(_groups(found))
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

    def report(self) -> Compression:
        """Return what was done."""
        small = self.model if self.cuts else self._original
        inputs = self._inputs[0]
        after = outputs_of(small, self._held_out)
        done = {c.where for c in self.cuts}
        flops = tuple(_flops(one, inputs) for one in (self._original, small))
        seconds = _seconds((self._original, small), inputs)
        return Compression(
            cuts=tuple(_joined(self.cuts)),
            kept=tuple(kept for kept in self._kept.values() if kept.where not in done),
            tolerance=self._tolerance,
            promised=self._promised,
            found=distance(self._before[:1], outputs_of(small, self._inputs[:1])),
            held_out=distance(outputs_of(self._original, self._held_out), after) if self._held_out else float("nan"),
            parameters=(_count(self._original), _count(small)),
            flops=(flops[0], flops[1]),
            seconds=seconds,
        )

    def _keep(self, where: str, why: str) -> None:
        self._kept[where] = Kept(where, why)

    def _read(self) -> dict[str, Reading]:
        """Return what the modules of the model as it is now read."""
        if self._readings is None:
            self._readings = observe(self.model, [*self._inputs, *self._wide])
        return self._readings

    def _cut_units(self, group: _Group) -> None:
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
        readers = [reader for reader in readers if reader.module in readings]
        if not readers:
            self._keep(group.where, "no module that is known reads these units")
            return
        what = self._what(symmetry, slots)
        why = ""
        for share in TRIES:
            plan = judge(readers, readings, share * (self._tolerance - self._promised) / 2)
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

    def _cut_rank(self, group: _Group) -> None:
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
            limit = share * (self._tolerance - self._promised) / 2
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
                error = distance(self._before, outputs_of(trial, self._inputs))
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
        self._promised = max(self._promised, cut.promised) if cut.what == "rank" else self._promised + cut.promised


def _collapsed(weights: Tensor, kind: str, tolerance: float) -> bool:
    """Return whether units lie on a mirror of a rotation, or planes on theirs."""
    sizes = weights.norm(dim=1) if kind == "complex" else torch.linalg.svdvals(weights)
    return len(sizes) < len(weights) or bool(sizes.min() <= tolerance * sizes.max())


def _groups(found: Sequence[Symmetry]) -> Iterator[_Group]:
    """Yield what is cut together, in the network's order: heads of one layer are.

    Where keys, queries and values lie in one parameter, they are also yielded as one, after each product by itself: a
    forward may take no keys and values of different sizes.
    """
    together: dict[Any, list[Symmetry]] = {}
    for symmetry in found:
        if symmetry.kind == "permutation":
            together[id(symmetry)] = [symmetry]
        elif symmetry.kind == "general_linear":
            key = (symmetry.units, tuple((slot.name, slot.axes, slot.inverse) for slot in symmetry.slots))
            together.setdefault(key, []).append(symmetry)
    alike: dict[Any, list[list[Symmetry]]] = {}
    for symmetries in together.values():
        yield _Group(tuple(symmetries))
        first = symmetries[0]
        if first.kind == "general_linear":
            alike.setdefault((first.units, first.slots[0].name, first.slots[0].axes), []).append(symmetries)
    for several in alike.values():
        if len(several) > 1 and len({len(symmetries) for symmetries in several}) == 1:
            yield _Group(tuple(symmetry for symmetries in several for symmetry in symmetries), len(several))


def _joined(cuts: Sequence[Cut]) -> Iterator[Cut]:
    """Yield one line for the cuts of each group, of several sweeps."""
    together: dict[tuple[str, str], list[Cut]] = {}
    for cut in cuts:
        together.setdefault((cut.where, cut.what), []).append(cut)
    for (where, what), parts in together.items():
        zero, constant, copies = (sum(getattr(part, name) for part in parts) for name in ("zero", "constant", "copies"))
        promised = sum(part.promised for part in parts)
        yield Cut(where, what, parts[0].before, parts[-1].after, zero, constant, copies, promised)


def plain_parameters(model: nn.Module) -> None:
    """Let parameters that are functions of others be what they compute."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            parametrizations = module._modules["parametrizations"]
            assert isinstance(parametrizations, nn.ModuleDict)
            values = {name: getattr(module, name).detach().clone() for name in parametrizations}
            # PyTorch's own way changes the class, which copies of a module share.
            module.__class__ = parametrize.type_before_parametrizations(module)
            del module._modules["parametrizations"]
            for name, value in values.items():
                module.register_parameter(name, nn.Parameter(value))


def _replace_attentions(model: nn.Module) -> dict[str, nn.MultiheadAttention]:
    """Put attention that can be cut in the place of nn.MultiheadAttention; return what was there."""
    replaced = {name: module for name, module in model.named_modules() if replaceable(module)}
    for name, module in replaced.items():
        assert isinstance(module, nn.MultiheadAttention)
        _set_module(model, name, Attention(module))
    return replaced  # type: ignore[return-value]


def _restore_attentions(model: nn.Module, originals: dict[str, nn.MultiheadAttention]) -> None:
    """Put nn.MultiheadAttention back where nothing was cut."""
    for name, original in originals.items():
        now, before = model.get_submodule(name).state_dict(), Attention(original).state_dict()
        if all(torch.equal(now[key], before[key]) for key in now if now[key].shape == before[key].shape) and all(
            now[key].shape == before[key].shape for key in now
        ):
            _set_module(model, name, original)


def _set_module(model: nn.Module, name: str, module: nn.Module) -> None:
    owner, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(owner), attribute, module)


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _flops(model: nn.Module, inputs: Inputs) -> int:
    with FlopCounterMode(display=False) as counter:
        outputs_of(model, [inputs])
    return int(counter.get_total_flops())


def _seconds(models: tuple[nn.Module, nn.Module], inputs: Inputs) -> tuple[float, float]:
    """Return the median times of a forward of two models, in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    with torch.no_grad():
        for _ in range(REPEATS):
            for model, own in zip(models, times, strict=True):
                start = time.perf_counter()
                inputs.run(model)
                own.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])
