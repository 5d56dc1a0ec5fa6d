"""Where a mirror holds a unit and where it lets it go: exponents over weight decay and learning rate.

There need not be one critical decay: little decay lets the network fit and leaves a zero unit nothing to do, more of it
leaves an error that revives the unit, and still more outweighs that.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mirrorsym.forecasting import Forecast, Outlook, forecast, forever
from mirrorsym.symmetries import Symmetry
from mirrorsym.tangents import Loss


@dataclass(frozen=True, eq=False)
class SignChange:
    """Two neighbouring settings between which an exponent (Section 2.4) changes its sign; both signs are certain.

    Args:
        symmetry: whose mirror it is.
        along: the setting that changes.
        between: its two values.
        at: where a straight line through both exponents is zero.
        held: the value of the other setting.
        rises: True where the unit leaves its mirror above, and is held below.
    """

    symmetry: Symmetry
    along: Literal["weight_decay", "lr"]
    between: tuple[float, float]
    at: float
    held: float
    rises: bool


class Curve:
    """Forecasts (Section 2.4) over learning rates and weight decays; printed, it is a table for each symmetry.

    Args:
        outlooks: the forecasts by (learning rate, weight decay).
    """

    def __init__(self, outlooks: Mapping[tuple[float, float], Outlook]) -> None:
        self.outlooks = dict(outlooks)
        self.lr = sorted({lr for lr, _ in outlooks})
        self.weight_decay = sorted({decay for _, decay in outlooks})
        self.symmetries = [one.symmetry for one in next(iter(outlooks.values()))]

    def forecasts(self, symmetry: Symmetry) -> list[list[Forecast]]:
        """Return the forecasts of one symmetry: for each learning rate, one for each weight decay."""
        return [[self._at(symmetry, lr, decay) for decay in self.weight_decay] for lr in self.lr]

    def exponents(self, symmetry: Symmetry) -> NDArray[np.float64]:
        """Return the exponents a step, shape (learning rates, weight decays)."""
        return np.array([[one.exponent for one in row] for row in self.forecasts(symmetry)])

    def changes(self) -> list[SignChange]:
        """Return all changes of sign, along the decay at each learning rate and along the rate at each decay.

        Settings at which the sign is undecided are left out, so a change may lie between values that are no neighbours.
        """
        found = []
        for symmetry in self.symmetries:
            for lr in self.lr:
                line = [(decay, self._at(symmetry, lr, decay)) for decay in self.weight_decay]
                found += [SignChange(symmetry, "weight_decay", pair, at, lr, up) for pair, at, up in _crossings(line)]
            for decay in self.weight_decay:
                line = [(lr, self._at(symmetry, lr, decay)) for lr in self.lr]
                found += [SignChange(symmetry, "lr", pair, at, decay, up) for pair, at, up in _crossings(line)]
        return found

    def __str__(self) -> str:
        lines = []
        for symmetry in self.symmetries:
            lines.append(f"{symmetry.kind} of {symmetry.name}: exponent a step, ? where its sign is undecided")
            lines.append("lr \\ decay  " + "".join(f"{decay:>11g}" for decay in self.weight_decay))
            for lr, row in zip(self.lr, self.forecasts(symmetry), strict=True):
                cells = [f"{one.exponent:+.5f}" + ("?" if one.answer == "undecided" else " ") for one in row]
                lines.append(f"{lr:<12g}" + "".join(f"{cell:>11}" for cell in cells))
        return "\n".join(line.rstrip() for line in lines)

    __repr__ = __str__

    def _at(self, symmetry: Symmetry, lr: float, decay: float) -> Forecast:
        return next(one for one in self.outlooks[lr, decay] if one.symmetry == symmetry)


def forecast_curve(
    model: nn.Module,
    loss: Loss,
    loader: Iterable[Any],
    symmetries: Iterable[Symmetry],
    *,
    lr: float | Sequence[float],
    weight_decay: Sequence[float],
    momentum: float = 0.0,
    steps: int = 1000,
    retrain: int | None = None,
) -> Curve:
    """Forecast at each pair of learning rate and weight decay, to which the network is retrained first (Section 2.4).

    Args:
        model: where each training starts; it stays as it is.
        loss: as :func:`forecast` takes it, as all that follows.
        loader: batches.
        symmetries: of the model.
        lr: learning rates, or one.
        weight_decay: weight decays.
        momentum: PyTorch's number.
        steps: N of each forecast.
        retrain: steps of SGD before each; None for as many as ``steps``. What is not at rest after them is judged on
            its way.

    Raises:
        ValueError: as :func:`forecast`, or if there is no learning rate or decay.
    """
    rates = [float(lr)] if isinstance(lr, (int, float)) else [float(rate) for rate in lr]
    pairs = list(itertools.product(rates, map(float, weight_decay)))
    if not pairs:
        raise ValueError("a curve needs a learning rate and a weight decay, or several")
    chosen = list(symmetries)
    outlooks = {}
    for rate, decay in pairs:
        network = copy.deepcopy(model)
        optimizer = torch.optim.SGD(network.parameters(), lr=rate, weight_decay=decay, momentum=momentum)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for _, batch in zip(range(steps if retrain is None else retrain), forever(loader), strict=False):
                optimizer.zero_grad()
                loss(network, batch).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        outlooks[rate, decay] = forecast(
            network, loss, loader, chosen, lr=rate, weight_decay=decay, momentum=momentum, steps=steps
        )
    return Curve(outlooks)


def _crossings(line: Sequence[tuple[float, Forecast]]) -> Iterable[tuple[tuple[float, float], float, bool]]:
    decided = [(x, one) for x, one in line if one.answer != "undecided"]
    for (x, one), (y, other) in itertools.pairwise(decided):
        if one.answer != other.answer:
            share = one.exponent / (one.exponent - other.exponent)
            yield (x, y), x + share * (y - x), other.answer == "yes"
