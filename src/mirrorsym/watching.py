"""Watch a network that trains: how far it has collapsed onto the symmetries of its loss.

::

    monitor = mirrorsym.watch(model, x, every=500)  # measures the start, too
    for batch in batches:
        ...  # forward, backward, optimizer.step()
        monitor.step()
    print(monitor.summary())
    monitor.to_frame()  # or to_dataset(), or plot()
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mirrorsym import features, measures
from mirrorsym.constraining import effective_parameters
from mirrorsym.running import arguments, evaluating
from mirrorsym.symmetries import State, Symmetry, find_symmetries
from mirrorsym.symmetries.names import lookup
from mirrorsym.units import Units, distances, smallest_distance

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

WORDS = {
    "permutation": "different",
    "rotation": "independent",
    "general_linear": "independent",
    "complex": "not zero",
    "sign_flip": "not zero",
    "rescaling": "not zero",
}
GRAM_FLOOR = 1e-15
"""Eigenvalues of a Gram matrix in double precision are rounding below this share of the largest."""
DRAWN = 10
"""A plot draws so many symmetries, those that have lost most."""


@dataclass(frozen=True)
class Record:
    """One number of a :class:`CollapseMonitor`.

    Args:
        step: when it was measured.
        name: a parameter, the name of a symmetry, or a layer for what enters it.
        kind: ``weight``, the kind of the symmetry, or ``features``.
        quantity: what was measured.
        value: the number, NaN where it is not defined.
    """

    step: int
    name: str
    kind: str
    quantity: str
    value: float


def watch(
    model: nn.Module,
    batch: Any,
    every: int = 500,
    log: Callable[[dict[str, float], int], object] | None = None,
    symmetries: Sequence[Symmetry] | None = None,
) -> CollapseMonitor:
    """Find the symmetries of a model, measure where it starts, and return what measures it again (Theorems 2 to 4).

    Args:
        model: the model.
        batch: a small batch on which to look at its features: a tensor of any shape, a tuple of what its forward takes
            by place, or a dictionary of what it takes by name.
        every: :meth:`CollapseMonitor.step` measures at each so many calls.
        log: is called at each measurement with the numbers by name and the step, as ``wandb.log`` is.
        symmetries: as :func:`find_symmetries` returned them, to find none anew.

    Raises:
        ValueError: if ``every`` is less than 1.
    """
    if every < 1:
        raise ValueError(f"every is {every}; it has to be 1 or more")
    args, kwargs = arguments(batch)
    found = find_symmetries(model, *args, **kwargs) if symmetries is None else symmetries
    monitor = CollapseMonitor(model, found, batch=batch, every=every, log=log)
    monitor.update(0)
    return monitor


class CollapseMonitor:
    """Measures how far a network has collapsed onto its mirrors (Theorems 2 to 4), each time that its loop asks.

    For every parameter with two or more axes, as a matrix (first axis by all others; the product, where it is one by a
    constraint): ``rank`` and ``full_rank``, ``sparsity`` (fraction of entries below ``near_zero``) and ``norm``. For
    every symmetry:

    - ``units``, and ``effective_units``, those that the collapse has left: groups of copies and the others for a
      permutation, units that are not zero for a sign flip, a rescaling or a plane, the rank for a rotation or any
      matrix. Units at most 1 % of the largest one in norm count as zero, as singular values do in
      :func:`mirrorsym.measures.rank`; with a rescaling, which moves the norm, the geometric mean of both sides counts.
      Copies are told modulo the other symmetries of the same units: ReLU units that are one function up to a factor
      are one, tanh units up to the sign.
    - ``order_parameter``: the relative distance to the nearest mirror, 0 on it. For a permutation the smallest distance
      of two units that are not zero, ‖a - b‖ / √(‖a‖² + ‖b‖²); for a sign flip or a rescaling the smallest norm of a
      unit over the largest; for a rotation the smallest singular value over the largest, 0 below 1e-8.
    - ``identical_pairs``, for a permutation: the fraction of pairs of units that are not zero and copies of each other,
      told as for ``effective_units``: at a distance below ``identical``.
    - ``vanishing_units``, where there are gradients: the fraction of units all of whose weights have a gradient below
      ``near_zero`` in the last batch, which do not learn from it, such as ReLU units that never fire.

    With a batch, for what enters each linear and convolutional layer: ``units``, ``dead_units`` (0 on all of it),
    ``dormant_units`` (:data:`mirrorsym.features.DORMANT`), ``rank`` of the features, and ``full_rank``.

    What a network was before training is not collapse: call :meth:`update` once before the first step. It costs a
    Gram matrix of every parameter and layer, some training steps in all, so do not call it at every step.

    Args:
        model: the model.
        symmetries: as :func:`find_symmetries` returns them; none to watch the matrices alone.
        identical: relative distance below which two units are copies.
        near_zero: magnitude below which a weight or a gradient is zero.
        batch: as :func:`watch` takes it; none to look at no features.
        every: as :func:`watch` takes it.
        log: as :func:`watch` takes it.

    Raises:
        ValueError: if ``every`` is less than 1.
    """

    def __init__(
        self,
        model: nn.Module,
        symmetries: Sequence[Symmetry] = (),
        identical: float = measures.IDENTICAL_DISTANCE,
        near_zero: float = measures.ZERO_THRESHOLD,
        batch: Any = None,
        every: int = 500,
        log: Callable[[dict[str, float], int], object] | None = None,
    ) -> None:
        if every < 1:
            raise ValueError(f"every is {every}; it has to be 1 or more")
        self.records: list[Record] = []
        self._model = model
        self._symmetries = tuple(symmetries)
        self._names = _told_apart(self._symmetries)
        self._units = {s: Units(s, self._symmetries) for s in self._symmetries if s.kind == "permutation"}
        self._identical = identical
        self._near_zero = near_zero
        self._batch = batch
        self._every = every
        self._log = log
        self._steps = 0
        self._updates = 0

    def step(self) -> list[Record]:
        """Count a training step; at each ``every`` of them measure, as :meth:`update` does, and else return nothing."""
        self._steps += 1
        return self.update(self._steps) if self._steps % self._every == 0 else []

    @torch.no_grad()
    def update(self, step: int | None = None) -> list[Record]:
        """Measure, keep the records and return them.

        Args:
            step: the training's step; None to count the calls.
        """
        now = self._updates if step is None else step
        self._updates += 1
        parameters, values = self._parameters()
        gradients = {
            name: p.grad.to_dense() if p.grad.is_sparse else p.grad
            for name, p in self._model.named_parameters()
            if p.grad is not None
        }
        records = []
        for name, value in values.items():
            if value.dim() > 1:
                numbers = self._weight(value.flatten(1))
                records += [Record(now, name, "weight", key, number) for key, number in numbers.items()]
        for symmetry in self._symmetries:
            numbers = self._symmetry(symmetry, parameters | values, gradients)
            name = self._names[symmetry]
            records += [Record(now, name, symmetry.kind, key, number) for key, number in numbers.items()]
        for name, rows in self._features().items():
            numbers = features.counts(rows) | {"rank": _rank(_singular_values(rows)), "full_rank": min(rows.shape)}
            records += [Record(now, name, "features", key, number) for key, number in numbers.items()]
        self.records += records
        if self._log is not None:
            self._log({f"{r.name} ({r.kind}) {r.quantity}": r.value for r in records}, now)
        return records

    def to_frame(self) -> pd.DataFrame:
        """Return all records as a table with the columns step, name, kind, quantity, value.

        Raises:
            ImportError: if pandas is missing.
        """
        try:
            import pandas as pd
        except ImportError:
            raise ImportError("to_frame makes a pandas table, and pandas is missing: pip install pandas") from None

        return pd.DataFrame([vars(record) for record in self.records], columns=list(Record.__dataclass_fields__))

    def to_dataset(self) -> xr.Dataset:
        """Return all records as an xarray Dataset: a variable a quantity, with the dimensions (series, step).

        The coordinates ``name`` and ``kind`` say what a series is of; what was not measured of it is NaN.

        Raises:
            ImportError: if xarray is missing.
        """
        try:
            import xarray as xr
        except ImportError:
            raise ImportError("to_dataset makes a Dataset, and xarray is missing: pip install xarray") from None

        series = {pair: i for i, pair in enumerate(dict.fromkeys((r.name, r.kind) for r in self.records))}
        steps = {step: i for i, step in enumerate(dict.fromkeys(r.step for r in self.records))}
        arrays: dict[str, NDArray[np.float64]] = {}
        for r in self.records:
            array = arrays.setdefault(r.quantity, np.full((len(series), len(steps)), np.nan))
            array[series[r.name, r.kind], steps[r.step]] = r.value
        coords = {
            "step": list(steps),
            "name": ("series", [n for n, _ in series]),
            "kind": ("series", [k for _, k in series]),
        }
        return xr.Dataset({key: (("series", "step"), array) for key, array in arrays.items()}, coords)

    def plot(self) -> Figure:
        """Draw the share of its units that each symmetry has left, step by step; return Matplotlib's figure.

        Raises:
            ImportError: if Matplotlib is missing.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise ImportError("plot draws with Matplotlib, which is missing: pip install matplotlib") from None

        drawn = self._by_loss()[:DRAWN]
        figure = Figure(figsize=(6, 3.2 + 0.2 * len(drawn)), layout="constrained")
        axes = figure.subplots()
        for symmetry, _ in drawn:
            chosen = [r for r in self.records if (r.name, r.kind) == (self._names[symmetry], symmetry.kind)]
            left = [(r.step, r.value / symmetry.units) for r in chosen if r.quantity == "effective_units"]
            label = f"{self._names[symmetry]}: {WORDS[symmetry.kind]} of {symmetry.units}"
            axes.plot([step for step, _ in left], [share for _, share in left], marker=".", label=label)
        axes.set(xlabel="step", ylabel="share of units that are left", ylim=(0, 1.05))
        # Names are long, and would cover the lines inside.
        figure.legend(loc="outside lower left", fontsize="small", frameon=False)
        return figure

    def summary(self) -> str:
        """Return one line for each symmetry that has lost units at the last update, the fewest left first.

        Then how many have all of theirs, and one line for each layer into which units go that are 0 on the whole batch.
        """
        by_loss = self._by_loss()
        lines = [
            f"{self._names[s]} ({s.kind}): {left:.0f} of {s.units} units are {WORDS[s.kind]}"
            for s, left in by_loss
            if left != s.units
        ]
        if whole := len(by_loss) - len(lines):
            lines.append(f"{whole} {'symmetries have' if whole > 1 else 'symmetry has'} lost nothing")
        last = {(r.name, r.quantity): r.value for r in self.records if r.kind == "features"}
        lines += [
            f"into {name}: {dead:.0f} of {last[name, 'units']:.0f} units are 0 on the whole batch"
            for (name, quantity), dead in last.items()
            if quantity == "dead_units" and dead
        ]
        return "\n".join(lines)

    def _by_loss(self) -> list[tuple[Symmetry, float]]:
        """The symmetries, each with how many of its units are left, those first that have the smallest share."""
        last = {(r.name, r.kind): r.value for r in self.records if r.quantity == "effective_units"}
        left = [(s, last.get((self._names[s], s.kind), float("nan"))) for s in self._symmetries]
        return sorted(left, key=lambda pair: pair[1] / pair[0].units)

    def _parameters(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What is trained, and what the model computes with: products under the names that they had as parameters."""
        prefixes = {module: prefix for prefix, module in self._model.named_modules()}
        values = {}
        with evaluating(self._model):  # a spectral norm in training mode changes with each look at its weight
            for owner, name, value in effective_parameters(self._model):
                values[f"{prefixes[owner]}.{name}" if prefixes[owner] else name] = value.detach()
        return {name: p.detach() for name, p in self._model.named_parameters()}, values

    def _features(self) -> dict[str, Tensor]:
        return {} if self._batch is None else features.entering(self._model, *arguments(self._batch))

    def _weight(self, matrix: Tensor) -> dict[str, float]:
        return {
            "rank": _rank(_singular_values(matrix)),
            "full_rank": float(min(matrix.shape)),
            "sparsity": float(measures.sparsity(matrix.reshape(-1).cpu().float(), self._near_zero)),
            "norm": float(matrix.norm()),
        }

    def _symmetry(self, symmetry: Symmetry, parameters: State, gradients: State) -> dict[str, float]:
        numbers = {"units": float(symmetry.units)}
        if symmetry.kind == "permutation":
            numbers |= self._copies(symmetry, parameters)
        else:
            matrix = symmetry.matrix(parameters)
            by_rank = symmetry.kind in ("rotation", "general_linear")
            sizes = _singular_values(matrix) if by_rank else _sizes(symmetry, parameters)
            numbers["effective_units"] = _rank(sizes)
            numbers["order_parameter"] = float(sizes.min() / sizes.max()) if sizes.max() != 0 else 0.0
        if all(slot.name in gradients for slot in symmetry.slots if not slot.buffer):
            largest = symmetry.matrix(gradients).abs().amax(dim=1)
            numbers["vanishing_units"] = float((largest < self._near_zero).double().mean())
        return numbers

    def _copies(self, symmetry: Symmetry, parameters: State) -> dict[str, float]:
        rows, sizes = self._units[symmetry].rows(parameters)
        if not bool(torch.isfinite(rows).all() & torch.isfinite(sizes).all()):
            return dict.fromkeys(("effective_units", "order_parameter", "identical_pairs"), float("nan"))
        threshold = max(measures.RELATIVE_RANK_THRESHOLD * float(sizes.max()), measures.ABSOLUTE_RANK_THRESHOLD)
        alive = sizes > threshold
        apart = distances(rows[alive])
        pairs = apart[np.triu_indices(len(apart), k=1)]
        raw = symmetry.matrix(parameters).double()[alive]
        return {
            "effective_units": float(measures.clusters(1 - apart, 1 - self._identical)),
            "order_parameter": smallest_distance(raw, distances(raw)),
            "identical_pairs": float((pairs < self._identical).mean()) if pairs.size else float("nan"),
        }


def _told_apart(symmetries: Sequence[Symmetry]) -> dict[Symmetry, str]:
    """Return a name for each symmetry, its own with a number where another of its kind has it: rows and columns."""
    counts: dict[tuple[str, str], int] = {}
    names = {}
    for symmetry in symmetries:
        count = counts[symmetry.name, symmetry.kind] = counts.get((symmetry.name, symmetry.kind), 0) + 1
        names[symmetry] = symmetry.name if count == 1 else f"{symmetry.name} ({count})"
    return names


def _sizes(symmetry: Symmetry, parameters: State) -> NDArray[np.float64]:
    """Return the norm of each unit's weights; with a rescaling, which moves it, the geometric mean of its sides."""
    sides: dict[bool, Tensor] = {}
    for slot in symmetry.slots:
        if not slot.buffer:
            side = symmetry.kind == "rescaling" and slot.inverse
            square = slot.take(lookup(parameters, slot.name), symmetry.units).double().square().sum(dim=1)
            sides[side] = sides[side] + square if side in sides else square
    size = torch.stack(list(sides.values())).prod(dim=0) ** (1 / (2 * len(sides)))
    return np.asarray(size.cpu().numpy())


def _singular_values(matrix: Tensor) -> NDArray[np.float64]:
    """Return the singular values by the smaller Gram matrix, 0 below 1e-8; NaN where the training has diverged."""
    if not bool(torch.isfinite(matrix).all()):
        return np.full(min(matrix.shape), np.nan)
    wide = matrix.double()
    gram = wide @ wide.T if len(wide) <= wide.shape[1] else wide.T @ wide
    squares = torch.linalg.eigvalsh(gram).flip(0)
    squares = torch.where(squares > GRAM_FLOOR * squares[:1], squares, 0.0)
    return np.asarray(squares.sqrt().cpu().numpy())


def _rank(sizes: NDArray[np.float64]) -> float:
    return float(measures.rank(sizes)) if np.isfinite(sizes).all() else float("nan")
