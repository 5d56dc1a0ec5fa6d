"""Forecast a collapse: whether a unit that lies on its mirror leaves it, within so many steps of training.

::

    outlook = mirrorsym.forecast(model, loss, loader, symmetries, lr=0.1, weight_decay=0.01, steps=1000)
    print(outlook)

Gradients do not leave a mirror, so the network is put on it and trained on. Beside it, a small displacement off the
mirror is followed to first order: v becomes (1 - λ(H + γ)) v with the Hessian H of each batch (Section 2.4), times v
alone, so no Hessian is built. Between mirrors that share no weights H has no block, and one v serves all of them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Literal, get_args, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mirrorsym.reflections import LINEAR, Place, along_smallest, fixed, nearest
from mirrorsym.symmetries import Symmetry
from mirrorsym.tables import table
from mirrorsym.tangents import BETAS, Loss, OptimizerName, Path, Settings, Start, Tensors, logarithm, trained

Answer = Literal["yes", "no", "undecided"]

SEGMENTS = 10
"""A run is cut into so many, whose growths differ by the noise of the batches."""
SHORTEST = 20
"""Steps of a run; fewer decide nothing."""
RENORMALIZED = 20
"""At most so many steps pass between two normalizations of a displacement."""
ADAM = "Adam divides by the gradients' own size, so nothing at zero has an exponent: from 1e-15 to lr in a few steps"
FAST = 2.0
"""A displacement whose logarithm grows more between two normalizations is normalized more often."""
COVERAGE = 0.9
CERTAINTY = 0.99


@dataclass(frozen=True, eq=False)
class Forecast:
    """What becomes of a unit on one mirror of a symmetry.

    Args:
        symmetry: the symmetry.
        normal: the mirror's direction n, shape (units,), as :meth:`Symmetry.reflect` takes it.
        units: the unit, or the two that are made copies; along a direction that mixes all, all.
        distance: how far off the mirror it was found, relative to its units: below about 1e-3 it has collapsed.
        steps: N.
        exponent: the growth of ln(order parameter) a step (Section 2.4): positive where the unit leaves the mirror.
        error: its standard error.
        interval: where ln(order parameter after N steps / at the start) lies in nine of ten runs, while it is small.
        answer: whether it leaves the mirror within N steps: "yes" or "no" where growth or decay is 99 % certain.
        living: the slope a step of ln(order parameter) of the next unit, which is not on the mirror; NaN if none is.
        run: which run of the forecast it comes from; mirrors of one run were on at the same time.
    """

    symmetry: Symmetry
    normal: Tensor
    units: tuple[int, ...]
    distance: float
    steps: int
    exponent: float
    error: float
    interval: tuple[float, float]
    answer: Answer
    living: float
    run: int

    @property
    def half_life(self) -> float:
        """Steps in which the order parameter doubles, or where the exponent is negative halves."""
        return math.log(2) / abs(self.exponent) if self.exponent else math.inf


class Outlook(Sequence[Forecast]):
    """The forecasts (Section 2.4) of a network, as a sequence; printed, it is a table.

    Args:
        forecasts: one for each symmetry that has a mirror.
        steps: N.
        skipped: the symmetries of which nothing is said, each with why.
    """

    def __init__(self, forecasts: Iterable[Forecast], steps: int, skipped: Sequence[tuple[Symmetry, str]] = ()) -> None:
        self._forecasts = tuple(forecasts)
        self.steps = steps
        self.skipped = tuple(skipped)

    @overload
    def __getitem__(self, index: int) -> Forecast: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Forecast, ...]: ...
    def __getitem__(self, index: int | slice) -> Forecast | tuple[Forecast, ...]:
        return self._forecasts[index]

    def __len__(self) -> int:
        return len(self._forecasts)

    def __str__(self) -> str:
        rows = [("leaves", "exponent a step", f"ln of growth in {self.steps} steps", "kind", "units", "where")]
        for one in self._forecasts:
            units = "a direction" if one.symmetry.kind in LINEAR else ", ".join(map(str, one.units))
            growth = f"{one.interval[0]:+.2g} to {one.interval[1]:+.2g}"
            exponent = f"{one.exponent:+.5f} ± {one.error:.5f}"
            rows.append((one.answer, exponent, growth, one.symmetry.kind, units, one.symmetry.name))
        lines = table(rows)
        alike: dict[tuple[str, str], list[str]] = {}
        for symmetry, why in self.skipped:
            alike.setdefault((symmetry.kind, why), []).append(symmetry.name)
        for (kind, why), names in alike.items():
            where = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
            lines.append(f"nothing is said of the {kind} of {where}: {why}")
        return "\n".join(lines)

    __repr__ = __str__


def forecast(
    model: nn.Module,
    loss: Loss,
    loader: Iterable[Any],
    symmetries: Iterable[Symmetry],
    *,
    lr: float,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    steps: int = 1000,
    starts: int = 1,
    optimizer: str = "sgd",
) -> Outlook:
    """Forecast for each symmetry whether a unit on its mirror leaves it within N steps (Section 2.4).

    The unit nearest to the mirror is put on it: the two most alike become copies, the smallest zero. A run costs about
    as much as two to four times its steps of training, whatever the number of units; mirrors that share weights need
    a run each. The model stays as it is.

    Args:
        model: the network, in the mode in which it is trained, and its precision.
        loss: gives a number from the model and a batch, without the decay.
        loader: batches, gone through again and again; one that shuffles is seeded anew for each start.
        symmetries: as :func:`find_symmetries` returns them, or some of them.
        lr: learning rate λ.
        weight_decay: PyTorch's number, on all parameters.
        momentum: PyTorch's number.
        steps: N, at least 20.
        starts: runs from which it forecasts, each of N steps and with an order of the batches of its own.
        optimizer: ``"sgd"``, or for copies alone ``"adam"`` or ``"adamw"``, whose moments are followed too.

    Raises:
        ValueError: if a setting makes no sense, the loader is empty, the training diverges, or the loss lacks a mirror
            that the model has, as with dropout.
    """
    settings = _settings(optimizer, lr, weight_decay, momentum)
    if steps < SHORTEST or starts < 1:
        raise ValueError(
            f"steps is {steps} and starts {starts}; a run takes {SHORTEST} steps or more, and there is one"
        )
    tensors = trained(model)
    chosen, skipped = _chosen(tensors, symmetries, settings)
    found: list[Forecast] = []
    for number, group in enumerate(_disjoint(tensors, chosen)):
        runs = [_run(model, loss, loader, group, settings, steps, seed) for seed in range(starts)]
        for mirror in group:
            growths = np.array([growth[mirror] for growth, _ in runs])
            living = float(np.mean([slopes.get(mirror, math.nan) for _, slopes in runs]))
            rounding = steps * max(torch.finfo(tensors[name].dtype).eps for name in mirror.reflection.names)
            found.append(_forecast(mirror, growths, living, steps, number, rounding))
    order = {symmetry: index for index, symmetry in enumerate(chosen)}
    return Outlook(sorted(found, key=lambda one: order[one.symmetry]), steps, skipped)


def _run(
    model: nn.Module,
    loss: Loss,
    loader: Iterable[Any],
    mirrors: Sequence[Start],
    settings: Settings,
    steps: int,
    seed: int,
) -> tuple[dict[Start, list[float]], dict[Start, float]]:
    """Train on the mirrors; return each displacement's growth by segment, and the slope of the next unit."""
    with torch.random.fork_rng(), sdpa_kernel(SDPBackend.MATH):  # type: ignore[no-untyped-call]
        torch.manual_seed(seed)
        path = Path(copy.deepcopy(model), loss, mirrors, settings)
        before = path.living()
        ends = set(np.linspace(0, steps, SEGMENTS + 1).round().astype(int)[1:].tolist())
        growths: dict[Start, list[float]] = {mirror: [0.0] for mirror in mirrors}
        wait, due = 1, 1
        for step, batch in zip(range(1, steps + 1), forever(loader), strict=False):
            path.step(batch)
            if step == due or step in ends:
                grown = path.normalize()
                wait = max(wait // 2, 1) if max(grown.values()) > FAST else min(2 * wait, RENORMALIZED)
                due = step + wait
                for mirror, growth in grown.items():
                    growths[mirror][-1] += growth
            if step in ends and step < steps:
                for growing in growths.values():
                    growing.append(0.0)
        after = path.living()
    return growths, {m: logarithm(after[m] / before[m]) / steps for m in before if before[m] > 0}


def _forecast(
    mirror: Start, growths: NDArray[np.float64], living: float, steps: int, run: int, rounding: float
) -> Forecast:
    """Judge growths of shape (starts, segments), each run's known up to rounding."""
    mean, error, reach = _prediction(growths, COVERAGE)
    certain = _prediction(growths, CERTAINTY)[2] + rounding
    low, high = mean - reach - rounding, mean + reach + rounding
    answer: Answer = "yes" if mean > certain else "no" if mean < -certain else "undecided"
    return Forecast(
        symmetry=mirror.reflection.symmetry,
        normal=mirror.reflection.normal,
        units=mirror.reflection.units,
        distance=mirror.distance,
        steps=steps,
        exponent=mean / steps,
        error=error / steps,
        interval=(low, high),
        answer=answer,
        living=living,
        run=run,
    )


def _prediction(growths: NDArray[np.float64], coverage: float) -> tuple[float, float, float]:
    """Return the mean growth of a run, its standard error, and how far from it the growth of another run lies.

    The variance comes from second differences of the segments, since the growth drifts along a training in the same way
    in every run; or from those between runs, where they are larger.

    Args:
        growths: shape (starts, segments).
        coverage: how often another run's growth is no farther away.
    """
    starts, segments = growths.shape
    totals = growths.sum(axis=1)
    variance = segments * float(np.square(np.diff(growths, n=2, axis=1)).mean()) / 6
    if starts > 1:
        variance = max(variance, float(totals.var(ddof=1)))
    count = segments - 2  # of second differences, whose correlations with their neighbours are -2/3 and 1/6
    freedom = starts * count**2 / (count + 8 / 9 * (count - 1) + (count - 2) / 18)
    mean, reach = float(totals.mean()), _t_quantile(coverage, freedom) * math.sqrt(variance * (1 + 1 / starts))
    return mean, math.sqrt(variance / starts), reach


def _t_quantile(coverage: float, freedom: float) -> float:
    """Return where |t| of Student's law stays with some probability (Cornish and Fisher's expansion)."""
    z = NormalDist().inv_cdf((1 + coverage) / 2)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def _chosen(
    tensors: Tensors, symmetries: Iterable[Symmetry], settings: Settings
) -> tuple[list[Symmetry], list[tuple[Symmetry, str]]]:
    """Sort symmetries into those that have a mirror, and those of which nothing is said."""
    unique = list(dict.fromkeys(symmetries))
    flips = [{(slot.name, slot.axes) for slot in s.slots} for s in unique if s.kind == "sign_flip"]
    chosen, skipped = [], []
    for symmetry in unique:
        why = fixed(symmetry, tensors)
        if symmetry.kind == "rescaling" and {(slot.name, slot.axes) for slot in symmetry.slots} in flips:
            why = why or "the sign flip of the same units says it"
        if settings.optimizer != "sgd" and symmetry.kind != "permutation":
            why = why or ADAM
        if why:
            skipped.append((symmetry, why))
        else:
            chosen.append(symmetry)
    return chosen, skipped


def _disjoint(tensors: Tensors, symmetries: Sequence[Symmetry]) -> Iterator[list[Start]]:
    """Yield mirrors that share no weights, of each symmetry one, until all symmetries are served."""
    waiting = list(symmetries)
    while waiting:
        taken: set[Place] = set()
        group: list[Start] = []
        later = []
        for symmetry in waiting:
            found = nearest(symmetry, tensors, taken)
            alone = symmetry.units == 1  # to be nothing at all is no place from which to judge the others
            if found is None or (alone and group):
                later.append(symmetry)
                continue
            taken |= found[0].places()
            group.append(Start(*found))
            if alone:
                later += waiting[waiting.index(symmetry) + 1 :]
                break
        yield [_with_living(start, tensors, taken) for start in group]
        waiting = later


def _with_living(start: Start, tensors: Tensors, taken: set[Place]) -> Start:
    symmetry = start.reflection.symmetry
    if symmetry.kind in LINEAR:
        following = along_smallest(symmetry, tensors, 1) if symmetry.units > 1 else None
    else:
        following = nearest(symmetry, tensors, taken)
    return replace(start, living=following and following[0])


def forever(loader: Iterable[Any]) -> Iterator[Any]:
    """Yield the batches of a loader again and again.

    Args:
        loader: batches.

    Raises:
        ValueError: if it gives none.
    """
    while True:
        empty = True
        for batch in loader:
            empty = False
            yield batch
        if empty:
            raise ValueError("the loader gives no batch; it has to be one that can be gone through again, as a list")


def _settings(optimizer: str, lr: float, weight_decay: float, momentum: float) -> Settings:
    if optimizer not in get_args(OptimizerName):
        raise ValueError(f"optimizer is {optimizer!r}; a forecast is made for {', '.join(get_args(OptimizerName))}")
    if not lr > 0:
        raise ValueError(f"lr is {lr}; it has to be positive")
    if optimizer != "sgd" and momentum:
        raise ValueError(f"{optimizer} has no momentum; its betas are PyTorch's, {BETAS}")
    return Settings(lr, weight_decay, momentum, optimizer)  # type: ignore[arg-type]
