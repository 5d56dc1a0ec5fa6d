"""What sums, products and functions tie: the rules that all operations are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mirrorsym.symmetries.atoms import Atoms, Ids, pairs
from mirrorsym.symmetries.elementwise import Behaviour
from mirrorsym.symmetries.factors import (
    Factors,
    NotFollowedError,
    along,
    broadcast,
    core_of,
    expanded,
    flat,
    forget,
    is_uniform,
    is_zero,
    numbers,
    support,
    tidy,
    without_zeros,
)
from mirrorsym.symmetries.tensors import tensors_in


class Ties:
    """Atoms of the values that meet in a network, and the rules that tie them.

    Args:
        names: names of parameters and buffers by the identity of their tensors.
        moving: the names of what moves with its units. Of other buffers, the statistics of batch normalizations do so;
            the rest are constants.
    """

    def __init__(self, names: Mapping[int, str], moving: Sequence[str]) -> None:
        self.atoms = Atoms()
        self.names = names
        self.parameters: dict[str, Factors] = {}
        self.used: dict[str, None] = {}
        self._movable = set(moving)
        self._clock = 0
        self._one = self.atoms.new(1)
        self.atoms.fix(self._one)

    def factors(self, tensor: Any) -> Factors:
        """Return the factors of a value, empty for a constant or an input."""
        if not isinstance(tensor, Tensor):
            return []
        found: Factors | None = getattr(tensor, "_factors", None)
        if found is not None:
            return found
        name = self.names.get(id(tensor))
        if name is None or name not in self._movable:
            return []
        if name not in self.parameters:
            sizes = [(axis, size) for axis, size in enumerate(tensor.shape) if size > 1]
            axes = sizes or [(0, 1)]
            fresh = tensor.is_floating_point() and tensor.dim() > 0 and tensor.numel() > 0
            made = [along(self.atoms.new(size), axis, tensor.shape) for axis, size in axes] if fresh else []
            self.parameters[name] = made
        return self.parameters[name]

    def _hold(self, constant: Tensor) -> None:
        """Notice a constant whose values differ along units."""
        raise NotImplementedError

    def _use(self, args: Any, kwargs: Any) -> None:
        for tensor in tensors_in((args, kwargs)):
            name = self.names.get(id(tensor))
            if name is not None:
                self.used.setdefault(name)

    def _keep(self, old: Tensor, new: Tensor) -> None:
        factors = self.factors(old)
        if factors:
            new._factors = factors  # type: ignore[attr-defined]

    def _note(self, result: Any, factors: Any) -> None:
        if isinstance(result, Tensor):
            result._seen = self._clock  # type: ignore[attr-defined]
            if factors:
                result._factors = factors  # type: ignore[attr-defined]
            else:
                forget(result)
        elif isinstance(result, tuple | list):
            several = isinstance(factors, tuple)
            for index, tensor in enumerate(result):
                if isinstance(tensor, Tensor):
                    self._note(tensor, factors[index] if several else factors if index == 0 else None)

    def _await(self, result: Tensor, waiting: list[tuple[Tensor, Tensor]]) -> None:
        """Join what lies side by side when it is used: the last states of recurrent layers often are not."""
        pairs_of = [broadcast(a, b) for a, b in waiting]
        result._waiting = [(a, b) for a, b in pairs_of if not torch.equal(a, b)]  # type: ignore[attr-defined]

    def _arrive(self, tensor: Tensor) -> None:
        for a, b in getattr(tensor, "_waiting", ()):
            self._join(a, b)
        if hasattr(tensor, "_waiting"):
            tensor._waiting = []

    def _add(self, a: Any, b: Any, result: Tensor) -> Factors:
        """Join two terms: equal charges, one unit. A number that is not 0 fixes the charges."""
        first, second = self._wide(a, result.dim()), self._wide(b, result.dim())
        if first and second:
            a_missing = self._missing(a, first, second, result)
            b_missing = self._missing(b, second, first, result)
            constants = [*a_missing, *b_missing]
            return self._match(first + a_missing, second + b_missing, result, constants)
        known, other = (first, b) if first else (second, a)
        known = [core_of(factor).expand(result.shape) for factor in known]
        if is_zero(other):
            return known
        whole = self._single(known)
        self.atoms.uncharge(flat(whole[0]))
        self._bend(whole)
        self._constant(whole[0], other)
        return whole

    def _match(self, first: Factors, second: Factors, result: Tensor, constants: Sequence[Tensor] = ()) -> Factors:
        """Join the factors of two terms, those of the same axes with each other; what meets a constant is told no more.

        A place of a token, say, that a positional embedding tells apart, would otherwise be carried through all layers.
        """
        fixed = {id(factor) for factor in constants}
        first, second = list(first), list(second)
        kept: Factors = []
        for factor in list(first):
            partner = next((f for f in second if support(f) == support(factor)), None)
            if partner is None or not support(factor):
                continue
            first = [f for f in first if f is not factor]
            second = [f for f in second if f is not partner]
            a, b = core_of(factor), core_of(partner)
            self._join(a, b)
            if id(factor) in fixed or id(partner) in fixed:
                continue
            kept.append(torch.where(a == 0, b, a).expand(result.shape))
        if first or second:
            a = core_of(self.fused(first)) if first else torch.from_numpy(self._one)
            b = core_of(self.fused(second)) if second else torch.from_numpy(self._one)
            if first and second:
                a, b = broadcast(a, b)
                self._join(a, b)
                a = torch.where(a == 0, b, a)
            else:
                self.atoms.uncharge(flat(a if first else b))
            kept.append(tidy(a if first else b).expand(result.shape))
        return kept

    def _join(self, a: Tensor, b: Tensor) -> None:
        a, b = broadcast(a, b)
        left, right = numbers(a, b)
        if len(np.unique(left)) > 1 and len(np.unique(right)) > 1:
            spread = support(a) != support(b)
            self.atoms.unite(left, right, merge=not spread)
        if len(np.unique(left)) == 1 or len(np.unique(right)) == 1:
            self.atoms.bend(np.concatenate([left, right]))
        self.atoms.equal(left, right)
        self.atoms.along(left, right)

    def _missing(self, value: Any, own: Factors, other: Factors, result: Tensor) -> Factors:
        """Return factors of constants for axes of the other term's units along which this one's values differ."""
        wanted = set().union(*(support(factor) for factor in other)) - set().union(*(support(f) for f in own))
        return self._fixed(value, wanted, result)

    def _fixed(self, value: Any, axes: set[int], result: Tensor) -> Factors:
        if not isinstance(value, Tensor):
            return []
        wide = value.reshape([*[1] * (result.dim() - value.dim()), *value.shape])
        varying = [axis for axis in sorted(axes) if not is_uniform(wide, axis)]
        if not varying:
            return []
        self._hold(value)
        shape = [wide.shape[axis] if axis in varying else 1 for axis in range(wide.dim())]
        atoms = torch.from_numpy(self.atoms.new(math.prod(shape))).reshape(shape)
        self.atoms.fix(flat(atoms))
        return [atoms.expand(result.shape)]

    def _constant(self, units: Tensor, other: Any) -> None:
        """Tie units to the places of a constant that differs along them."""
        for factor in self._fixed(other, set(support(units)), units):
            a, b = broadcast(core_of(units), core_of(factor))
            left, right = numbers(a, b)
            self.atoms.unite(left, right, merge=False)

    def _apart(self, factors: Factors, mask: Tensor, result: Tensor) -> None:
        for factor in factors:
            if support(factor):
                self._constant(factor, mask)

    def _times(self, a: Any, b: Any, power: float, result: Tensor) -> Factors:
        if isinstance(a, Tensor) and a is b and power == 1:
            return self._squared(a)
        if not isinstance(a, Tensor) or not isinstance(b, Tensor):
            known = a if isinstance(a, Tensor) else b
            if known is a:
                return self._wide(a, result.dim())
            return self._scaled_powers(self._single(self._wide(b, result.dim())), power)
        first, second = self._wide(a, result.dim()), self._wide(b, result.dim())
        if (not first and is_zero(a)) or (not second and is_zero(b)):
            return []
        first += self._missing(a, first, second, result)
        second += self._missing(b, second, first, result)
        first = [core_of(factor).expand(result.shape) for factor in first]
        second = [core_of(factor).expand(result.shape) for factor in second]
        return self._product(first, second, power)

    def _squared(self, x: Tensor) -> Factors:
        units = self._single(self.factors(x))
        return self._powers(units, Behaviour(0, 2.0), squares=True)

    def _product(self, first: Factors, second: Factors, power: float) -> Factors:
        """Return the factors of an elementwise product: charges add up, and units along one axis go together."""
        kept = list(first)
        for factor in second:
            own = set(support(factor))
            touching = [f for f in kept if own & set(support(f)) or (not own and not support(f))]
            if not touching:
                kept.append(factor if power == 1 else self._scaled_powers([factor], power)[0])
                continue
            whole = self.fused(touching)
            kept = [f for f in kept if not any(f is t for t in touching)]
            kept.append(self._product_of(whole, factor, power))
        return kept

    def _product_of(self, a: Tensor, b: Tensor, power: float = 1, bend: bool = True) -> Tensor:
        """Return the atoms of the product of two arrays of atoms."""
        shape = torch.broadcast_shapes(a.shape, b.shape)
        apart = set(support(a)) == set(support(b))
        smaller_first = len(support(a)) < len(support(b))
        smaller = a if smaller_first else b
        whole = set(support(a)) | set(support(b))
        apart_from = [set(support(factor)) != whole for factor in (a, b)]
        a, b = broadcast(core_of(a), core_of(b))
        left, right = a.reshape(-1).numpy(), b.reshape(-1).numpy()
        _, index, place = np.unique(np.stack([left, right]), axis=1, return_index=True, return_inverse=True)
        first, second = left[index], right[index]
        made = self.atoms.new(len(index))
        made[(first == 0) | (second == 0)] = 0
        counts = [len(np.unique(part)) for part in (first, second)]
        # Each of one meets each of the other: heads and the places in a head, where all heads share their values.
        grid = min(counts) > 1 and len(index) == counts[0] * counts[1]
        self._bundle(made, (first, grid or apart_from[0]), (second, grid or apart_from[1]))
        self.atoms.total(made, first, second, 1, power)
        if grid or not apart:
            self.atoms.along(made, second if smaller_first else first)
        if grid:
            self.atoms.along(made, first if smaller_first else second)
        if bend:
            # A factor that is the same for several units mixes with none of them.
            self.atoms.bend(np.concatenate([made, first, second]) if apart else flat(smaller))
        return torch.from_numpy(made[place.reshape(-1)]).reshape(a.shape).expand(shape)

    def _bundle(self, made: Ids, *parts: tuple[Ids, bool]) -> None:
        """Let new atoms and those that they are made of be exchanged together.

        Several new atoms of one old one are copies along other axes, or places of one unit that go together.
        """
        several = [(part, copied) for part, copied in parts if len(np.unique(part)) > 1]
        for part, copied in several:
            if not copied or len(np.unique(part)) == len(made):
                self.atoms.unite(made, part)
        others = [part for part, copied in several if copied and len(np.unique(part)) < len(made)]
        if others:
            self.atoms.relate(made, *others)

    def fused(self, factors: Factors) -> Tensor:
        """Return one factor in place of several."""
        whole = factors[0]
        for factor in factors[1:]:
            whole = self._product_of(whole, factor, bend=False)
        return whole

    def _single(self, factors: Factors) -> Factors:
        return [self.fused(factors)] if len(factors) > 1 else list(factors)

    def _contract(
        self,
        widen_a: Callable[[Tensor], Tensor],
        axis_a: int,
        widen_b: Callable[[Tensor], Tensor],
        axis_b: int,
        operands: Sequence[Tensor],
        result: Tensor,
        drop: Callable[[Tensor], Tensor],
    ) -> Factors:
        """Follow a sum over products: charges inside add up to one that all terms have."""
        a, b = operands
        first, second = self.factors(a), self.factors(b)
        if (not first and is_zero(a)) or (not second and is_zero(b)):
            return []
        inner_a = [f for f in first if axis_a in support(f)]
        inner_b = [f for f in second if axis_b in support(f)]
        outer = [drop(expanded(widen_a(f), widen_b(b))) for f in first if axis_a not in support(f)]
        outer_b = [drop(expanded(widen_b(f), widen_a(a))) for f in second if axis_b not in support(f)]
        outer = self._product(outer, outer_b, 1) if outer else outer_b
        gauge = bool(len(first) > len(inner_a) or len(second) > len(inner_b))
        if not inner_a and not inner_b:
            return outer
        wide_a, wide_b = widen_a(a), widen_b(b)
        whole = torch.broadcast_shapes(wide_a.shape, wide_b.shape)
        inner_axis = axis_a
        left = widen_a(self.fused(inner_a)).expand(whole) if inner_a else None
        right = widen_b(self.fused(inner_b)).expand(whole) if inner_b else None
        for one, other, unlabelled in ((left, right, wide_b), (right, left, wide_a)):
            if one is not None and other is None:
                fixed = self._fixed(unlabelled, {inner_axis}, one)
                if fixed:
                    other_core, one_core = broadcast(core_of(fixed[0]), core_of(one))
                    x, y = numbers(one_core, other_core)
                    self.atoms.unite(x, y, merge=False)
                self.atoms.bend(flat(one))
        cores = [core_of(side) for side in (left, right) if side is not None]
        cores = list(broadcast(*cores))
        made = self._sum_over(cores, inner_axis, gauge)
        if made is None:
            return outer
        inner = drop(made.expand(whole)).expand(result.shape) if made.dim() else made.expand(result.shape)
        return self._product(outer, [inner], 1) if outer else [inner]

    def _sum_over(self, cores: list[Tensor], axis: int, gauge: bool) -> Tensor | None:
        """Return the atoms of a sum over one axis of products of one or two arrays of atoms."""
        flat = [core.reshape(-1).numpy() for core in cores]
        rest = [size for place, size in enumerate(cores[0].shape) if place != axis]
        alone = math.prod(rest) == 1
        if len(cores) == 2:
            a, b = pairs(*flat)
            one_to_one = len(np.unique(a)) == len(a) and len(np.unique(b)) == len(b)
            self.atoms.along(a, b, inverse=True)
            if alone:
                self.atoms.unite(a, b, merge=True)
            elif one_to_one:
                self.atoms.joined.append((a, b))
            if alone and gauge:
                self.atoms.equal(a, b, inverse=True)
                return None
        elif alone and gauge:
            self.atoms.uncharge(flat[0])
            return None
        groups = self._groups(cores, (axis,))
        spread = groups.expand(cores[0].shape).reshape(-1).numpy()
        if len(cores) == 1:
            self.atoms.equal(flat[0], spread)
            self.atoms.relate(flat[0], spread)
            return groups
        self.atoms.total(spread, flat[0], flat[1])
        if not alone:
            if one_to_one:
                self.atoms.relate(flat[0], spread)
            else:
                self.atoms.relate(flat[0], flat[1], spread)
        return groups

    def _gather(self, units: Tensor, axes: Sequence[int], signs: bool, scales: bool = False) -> Tensor:
        """Return the atoms of what all units along some axes make together."""
        core = core_of(units)
        groups = self._groups([core], axes)
        a, b = numbers(core, groups.expand(core.shape))
        self.atoms.relate(a, b)
        if signs:
            self.atoms.signs.equal.append((a, b, 1))
        if scales:
            self.atoms.scales.equal.append((a, b, 1))
        return groups

    def _groups(self, cores: Sequence[Tensor], axes: Sequence[int]) -> Tensor:
        """Return new atoms, one for all along some axes, the same ones where the same are gathered."""
        small = [1 if axis in axes else size for axis, size in enumerate(cores[0].shape)]
        inner = sorted({axis % len(small) for axis in axes})
        rows = [core.movedim(inner, list(range(-len(inner), 0))).reshape(math.prod(small), -1) for core in cores]
        _, place = np.unique(torch.cat(rows, dim=1).numpy(), axis=0, return_inverse=True)
        made = self.atoms.new(int(place.max()) + 1)
        return torch.from_numpy(made[place.reshape(-1)]).reshape(small)

    def _powers(self, units: Factors, found: Behaviour, squares: bool = False) -> Factors:
        """Return the factors behind a function that is odd or even, homogeneous or neither."""
        ids = flat(units[0])
        if found.parity is None:
            self.atoms.uncharge(ids, scale=False)
        if found.degree is None:
            self.atoms.uncharge(ids, sign=False)
        if squares:
            self.atoms.normed.append(ids)
        else:
            self.atoms.bend(ids)
        if found.degree in (1, None) and found.parity != 0:
            return units
        made = self._scaled_powers(units, found.degree or 0, even=found.parity == 0)
        if squares:
            self.atoms.note_squares(flat(made[0]))
        return made

    def _scaled_powers(self, units: Factors, power: float, even: bool = False) -> Factors:
        """Return new atoms, one for each old one, whose charges are its charges times a power."""
        if power == 1 and not even:
            return units
        core = core_of(units[0])
        old, place = np.unique(core.numpy(), return_inverse=True)
        made = self.atoms.new(len(old))
        made[old == 0] = 0
        self.atoms.unite(made, old)
        nothing = np.zeros_like(old)
        self.atoms.scales.sums.append((made, old, nothing, float(power), 0.0))
        if even:
            self.atoms.signs.zero.append(made)
        else:
            self.atoms.signs.equal.append((*without_zeros(made, old), 1))
        if not even and power != -1:
            self.atoms.bend(made)
        return [torch.from_numpy(made[place.reshape(-1)]).reshape(core.shape).expand(units[0].shape)]

    def _bend(self, factors: Factors, scale: bool = False, sign: bool = False) -> None:
        for factor in factors:
            self.atoms.bend(flat(factor))
            self.atoms.uncharge(flat(factor), scale=scale, sign=sign)

    def _of_channels(self, factors: Factors) -> Factors:
        """Return factors of channels alone, axis 1, for what treats all places of a picture alike.

        Such are the channels that a layer makes place by place, before a reshape. What lies at a place keeps it.
        """
        if not any(set(support(factor)) - {1} for factor in factors):
            return factors
        whole = self.fused(factors)
        core = core_of(whole)
        if 0 in support(whole) or core.shape[1] == 1 or whole.dim() < 3:
            raise NotFollowedError("units lie along the axes over which it moves")
        table = core.select(0, 0).flatten(1).numpy()  # channels, places
        _, place = np.unique(table, axis=1, return_inverse=True)
        channels, places = self.atoms.new(len(table)), self.atoms.new(int(place.max()) + 1)
        self.atoms.fix(places)
        atoms, made = table.reshape(-1), np.repeat(channels, table.shape[1])
        self.atoms.relate(atoms, made, np.tile(places[place.reshape(-1)], len(table)))
        self.atoms.equal(atoms, made)
        self.atoms.along(atoms, made)
        return [along(channels, 1, whole.shape)]

    def _tie(self, units: Factors, others: Factors) -> None:
        for other in others:
            a, b = broadcast(core_of(units[0]), core_of(other))
            left, right = numbers(a, b)
            if len(np.unique(right)) > 1:
                self.atoms.unite(left, right, merge=False)

    def _wide(self, value: Any, dims: int) -> Factors:
        """Return a value's factors with axes of size 1 in front, as broadcasting puts them."""
        return [f.reshape(*[1] * (dims - f.dim()), *f.shape) if f.dim() < dims else f for f in self.factors(value)]
