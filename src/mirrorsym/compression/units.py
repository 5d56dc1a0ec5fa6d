"""Which units of a group are not needed: by what they compute, not by how far apart their weights are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mirrorsym.compression.probe import Reading


@dataclass(frozen=True)
class Reader:
    """Where one module reads the units of a group.

    Args:
        module: its name.
        features: the places of each unit's features in what it reads, shape (units, repeat).
        merges: whether one unit's weights can take over another's: not so for a norm, or a weight that is tied.
        folds: whether its bias can take over a constant: not so where zeros are padded.
    """

    module: str
    features: Tensor
    merges: bool
    folds: bool


@dataclass
class Plan:
    """Which units go, and what takes their place where they were read.

    Args:
        zero: units without effect.
        constant: units that are constant.
        copies: units that are multiples of another one, which stays: ``{unit: (other, {module: factor})}``.
        promised: the sum of what cutting each changes at most in an output, to first order.
    """

    zero: list[int] = field(default_factory=list)
    constant: list[int] = field(default_factory=list)
    copies: dict[int, tuple[int, dict[str, float]]] = field(default_factory=dict)
    promised: float = 0.0

    @property
    def gone(self) -> list[int]:
        """All units that go."""
        return sorted([*self.zero, *self.constant, *self.copies])


def judge(readers: Sequence[Reader], readings: Mapping[str, Reading], budget: float) -> Plan:
    """Return which units can go for an error of at most ``budget``, cheapest first. One unit stays at least.

    A unit costs the largest distance of what it gives to its readers from zero, from a constant or from a multiple of
    another unit, times the sensitivity of the outputs. Multiples are by any factor: behind ReLU copies have positive
    ones, behind odd functions signs, behind others ones; what it computes decides.
    """
    zero = sum(_zero(reader, readings[reader.module]) for reader in readers)
    constant = sum(_constant(reader, readings[reader.module]) for reader in readers)
    assert isinstance(zero, Tensor)
    assert isinstance(constant, Tensor)
    plan = Plan()
    cost = torch.minimum(zero, constant)
    order = cost.argsort().tolist()
    for unit in order[:-1]:
        if plan.promised + float(cost[unit]) > budget:
            break
        (plan.zero if zero[unit] <= constant[unit] else plan.constant).append(unit)
        plan.promised += float(cost[unit])
    if all(reader.merges for reader in readers):
        gone = set(plan.gone)
        left = [unit for unit in zero.argsort(descending=True).tolist() if unit not in gone]
        _merge(readers, readings, left, plan, budget)
    return plan


def _zero(reader: Reader, reading: Reading) -> Tensor:
    largest = torch.stack([reading.lowest.abs(), reading.highest.abs(), reading.slope]).amax(0)
    return _product(largest, reading.sensitivity)[reader.features].sum(1)


def _constant(reader: Reader, reading: Reading) -> Tensor:
    if not (reader.merges and reader.folds):
        return torch.full((len(reader.features),), torch.inf, dtype=torch.double, device=reading.lowest.device)
    change = torch.maximum(reading.highest - reading.lowest, reading.slope)
    return _product(change, reading.sensitivity)[reader.features].sum(1)


def _product(change: Tensor, sensitivity: Tensor) -> Tensor:
    """Return their product, zero where nothing changes."""
    return torch.where(change == 0, torch.zeros_like(change), change * sensitivity)


def _merge(
    readers: Sequence[Reader], readings: Mapping[str, Reading], units: Sequence[int], plan: Plan, budget: float
) -> None:
    """Let units, the most important first, be taken over by one before them that they are a multiple of."""
    if len(units) < 2:
        return
    costs, factors = _multiples(readers, readings, units)
    kept = [0]
    for place in range(1, len(units)):
        cost, which = costs[place, kept].min(0)
        if plan.promised + float(cost) > budget:
            kept.append(place)
            continue
        other = kept[int(which)]
        plan.copies[units[place]] = (units[other], {name: float(f[place, other]) for name, f in factors.items()})
        plan.promised += float(cost)


def _multiples(
    readers: Sequence[Reader], readings: Mapping[str, Reading], units: Sequence[int]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what it costs to replace each unit by the best multiple of each other, and the factors by reader.

    Returns:
        Shape (units, units): the first is replaced by the second.
    """
    costs: Tensor | None = None
    factors = {}
    for reader in readers:
        reading = readings[reader.module]
        rows = reading.rows[:, reader.features[list(units)]].permute(1, 0, 2).flatten(1)
        gram = rows @ rows.T
        size = gram.diagonal()
        factor = gram / size.clamp_min(torch.finfo(torch.double).tiny)
        left = (size[:, None] - gram * factor).clamp_min(0) / rows.shape[1]
        sensitivity = reading.sensitivity[reader.features[list(units)]].sum(1)
        cost = _product(left.sqrt(), sensitivity[:, None].expand_as(left))
        costs = cost if costs is None else costs + cost
        factors[reader.module] = factor
    assert costs is not None
    return costs, factors
