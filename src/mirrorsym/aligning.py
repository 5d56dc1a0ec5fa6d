"""Bring one network to another by their symmetries, and look at the line between them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mirrorsym.running import arguments, evaluating
from mirrorsym.symmetries import Slot, State, Symmetry
from mirrorsym.symmetries.acting import transformed
from mirrorsym.symmetries.names import lookup, plain
from mirrorsym.symmetries.twin import copied
from mirrorsym.units import place

Module = TypeVar("Module", bound=nn.Module)
Element = tuple[Symmetry, Tensor]
BALANCED = 1e-7
"""Balancing ends where no factor is further from 1, no matrix further from the identity."""
BALANCING_SWEEPS = 50
SINGULAR = 1e-10
"""A layer with a smaller share than this between its eigenvalues has lost directions, and is not balanced."""
FACTORS = torch.logspace(-3, 3, 121, dtype=torch.double)
"""Where a rescaling's best factor is looked for at first."""
REFINEMENTS = 45
GOLDEN = (5**0.5 - 1) / 2
WHOLE = 6
"""So many flips of all units of a permutation are tried in all combinations."""
ROUNDING = 1e-14
"""A smaller gain than this share of the squared norm is none."""


@torch.no_grad()
def align(a: nn.Module, b: Module, symmetries: Sequence[Symmetry], sweeps: int = 100) -> Module:
    """Return a copy of a network that computes the same and lies as near to another as its symmetries allow.

    Both are first brought to the point of their orbit with the smallest norm, where what is left of rescalings and
    invertible matrices are signs and rotations. There one symmetry after the other takes its best element, until
    nothing changes: permutations by assignment at the best signs, heads by what is left after their best rotation,
    signs, rotations (Procrustes) and phases in closed form. Then the copy goes to where the other network lies in its
    orbit, factors by a search in one dimension. No step increases the distance, and the end is a local minimum. It is
    Theorem 4's group, and those of Sections 3.1 and 3.2, used as by Ainsworth et al. 2023, with no specification
    written by hand.

    Args:
        a: the network that stays.
        b: the network that is moved, with the same architecture; it is left as it is.
        symmetries: as :func:`find_symmetries` returns them for either.
        sweeps: at most so many rounds over all symmetries.

    Raises:
        ValueError: if the two differ in the names or shapes of what they keep.
        ImportError: if there are permutations and scipy is missing.
    """
    target, state = _doubles(a), _doubles(b)
    _require_alike(target, state)
    found = list(symmetries)
    balanced, frame = _balance(target, found)
    state, _ = _balance(state, found)
    movers = [_Discrete(symmetry, found) for symmetry in found]
    starts = [state, _from_what_stays(balanced, state, movers)]
    ends = [_descend(balanced, start, movers, sweeps, 1e-9) for start in starts]
    state = min(ends, key=lambda end: sum(_apart(balanced[n], t) for n, t in end.items() if t.is_floating_point()))
    for symmetry, element in reversed(frame):
        back = torch.linalg.inv(element) if element.dim() == 2 else 1 / element
        state = transformed(state, [(symmetry, back)])
    factors = [_Factors(s) for s in found if s.kind in ("rescaling", "complex")]
    state = _descend(target, state, factors, sweeps, 1e-4)
    aligned = copied(b)
    aligned.load_state_dict({name: state[name].to(tensor) for name, tensor in b.state_dict().items()})
    return aligned


@torch.no_grad()
def interpolate(a: Module, b: nn.Module, share: float, batches: Iterable[Any] = ()) -> Module:
    """Return the network on the line between two, with the statistics of its batch normalizations computed anew.

    Args:
        a: the network at 0; a mode, device and all that is no number are taken from it.
        b: the network at 1, such as :func:`align` returns it (Theorem 4: copies are on one mirror).
        share: where on the line.
        batches: inputs of which the statistics are taken, each as the forward takes it: a tensor, a tuple of what it
            takes by place, or a dictionary of what it takes by name. Without any they are interpolated.

    Raises:
        ValueError: if the two differ in the names or shapes of what they keep.
    """
    first, second = a.state_dict(), b.state_dict()
    _require_alike(first, second)
    between = copied(a)
    between.load_state_dict(
        {
            name: torch.lerp(tensor, second[name].to(tensor), share) if tensor.is_floating_point() else tensor
            for name, tensor in first.items()
        }
    )
    _recompute_statistics(between, list(batches))
    return between


def _recompute_statistics(model: nn.Module, batches: Sequence[Any]) -> None:
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    if not batches or not norms:
        return
    momenta = [norm.momentum for norm in norms]
    with evaluating(model):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
            norm.train()
        for batch in batches:
            args, kwargs = arguments(batch)
            model(*args, **kwargs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _doubles(model: nn.Module) -> dict[str, Tensor]:
    """What the model keeps, floating-point numbers in double precision; a tensor of two names is one here, too."""
    by_memory: dict[int, Tensor] = {}
    doubles = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in by_memory:
            kept = tensor.detach()
            by_memory[id(tensor)] = kept.double().clone() if kept.is_floating_point() else kept.clone()
        doubles[name] = by_memory[id(tensor)]
    return doubles


def _require_alike(first: State, second: State) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in first.items()}
    for name, shape in shapes.items():
        if name not in second:
            raise ValueError(
                f"the second network has no {name!r}, which the first has; they must be of one architecture"
            )
        if shape != tuple(second[name].shape):
            other = tuple(second[name].shape)
            raise ValueError(f"{name} has shape {shape} in the first network and {other} in the second")
    extra = [name for name in second if name not in shapes]
    if extra:
        raise ValueError(
            f"the first network has no {extra[0]!r}, which the second has; they must be of one architecture"
        )


def _trained(symmetry: Symmetry) -> list[Slot]:
    return [slot for slot in symmetry.slots if not slot.buffer]


def _blocks(symmetry: Symmetry, state: State) -> list[tuple[Slot, Tensor]]:
    """The trained slots, each with its entries, shape (units, entries)."""
    return [(slot, slot.take(lookup(state, slot.name), symmetry.units)) for slot in _trained(symmetry)]


def _pairs(
    symmetry: Symmetry, target: State, state: State, settled: Collection[tuple[object, ...]] | None = None
) -> list[tuple[Slot, Tensor, Tensor]]:
    """The trained slots, or those at some places, each with its entries in both."""
    blocks = zip(_blocks(symmetry, target), _blocks(symmetry, state), strict=True)
    return [(slot, one, other) for (slot, one), (_, other) in blocks if settled is None or place(slot) in settled]


def _balance(state: State, symmetries: Sequence[Symmetry]) -> tuple[dict[str, Tensor], list[Element]]:
    """Bring a network to the smallest norm in its orbit; return it and the elements that did it, one after the other.

    For an invertible G with GSGᵀ = G⁻ᵀTG⁻¹, S and T the sums of squares on both sides, G² = M solves MSM = T: it is the
    geometric mean of S⁻¹ and T. A rescaling is the same with numbers.
    """
    result, frame = dict(state), list[Element]()
    movers = [(s, _SMALLEST[s.kind]) for s in symmetries if s.kind in _SMALLEST]
    for _ in range(BALANCING_SWEEPS):
        furthest = 0.0
        for symmetry, smallest in movers:
            element = smallest(symmetry, result)
            one = torch.eye(len(element)).to(element) if element.dim() == 2 else torch.ones_like(element)
            off = float((element - one).abs().max())
            if off > BALANCED:
                result = transformed(result, [(symmetry, element)])
                frame.append((symmetry, element))
                furthest = max(furthest, off)
        if furthest <= BALANCED:
            break
    return result, frame


def _smallest_factors(symmetry: Symmetry, state: State) -> Tensor:
    """The factors of a rescaling that make the weights of each unit smallest; 1 where one side is zero."""
    zero = torch.zeros(symmetry.units).double()
    squares: dict[float, Tensor] = {}
    for slot, block in _blocks(symmetry, state):
        squares[slot.power] = squares.get(slot.power, zero) + block.square().sum(dim=1)
    multiplied = sum((s for power, s in squares.items() if power > 0), zero)
    divided = sum((s for power, s in squares.items() if power < 0), zero)
    if len(squares) == 2 and sum(squares) == 0:
        factors = (divided / multiplied) ** (1 / (4 * max(squares)))
    else:
        factors = _search([(power, s, zero) for power, s in squares.items()])
    return torch.where((multiplied > 0) & (divided > 0), factors, 1.0)


def _smallest_moduli(symmetry: Symmetry, state: State) -> Tensor:
    """The same for planes, whose phases stay."""
    return _smallest_factors(symmetry, state).to(torch.complex128)


def _smallest_matrix(symmetry: Symmetry, state: State) -> Tensor:
    sides = {True: torch.zeros(symmetry.units, symmetry.units).double()}
    sides[False] = sides[True].clone()
    for slot, block in _blocks(symmetry, state):
        sides[slot.inverse] += block @ block.T
    multiplied, divided = sides[False], sides[True]
    if any(torch.linalg.cond(side) > 1 / SINGULAR for side in (multiplied, divided)):
        return torch.eye(symmetry.units).double()  # what is lost on one side would grow without end on the other
    root, inverse = _power(multiplied, 0.5), _power(multiplied, -0.5)
    return _power(inverse @ _power(root @ divided @ root, 0.5) @ inverse, 0.5)


_SMALLEST: dict[str, Callable[[Symmetry, State], Tensor]] = {
    "rescaling": _smallest_factors,
    "complex": _smallest_moduli,
    "general_linear": _smallest_matrix,
}


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    result: Tensor = (vectors * values**exponent) @ vectors.T
    return result


def _descend(
    target: State,
    state: State,
    movers: Sequence[Callable[[State, State], dict[str, Tensor]]],
    sweeps: int,
    tolerance: float,
) -> dict[str, Tensor]:
    """Let one mover after the other change the state where that lessens its squared distance by more than a share."""
    result = dict(state)
    for _ in range(sweeps):
        moved = False
        for mover in movers:
            there = mover(target, result)
            names = [name for name in result if there[name] is not result[name] and result[name].is_floating_point()]
            before, after = (sum(_apart(target[name], s[name]) for name in names) for s in (result, there))
            floor = ROUNDING * sum(float(target[name].square().sum()) for name in names)
            if before - after > max(tolerance * before, floor):
                result, moved = there, True
        if not moved:
            break
    return result


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).square().sum())


def _from_what_stays(target: State, state: State, movers: Sequence[_Discrete]) -> dict[str, Tensor]:
    """Move a state layer by layer, each by those weights alone whose other sides no symmetry moves any more.

    At first these are the weights of inputs, tokens and outputs.
    """
    result = dict(state)
    free: dict[tuple[str, int], set[int]] = {}
    for number, mover in enumerate(movers):
        for slot in _trained(mover.symmetry):
            for axis in slot.axes:
                free.setdefault((plain(slot.name), axis), set()).add(number)
    numbers = {id(mover.symmetry): number for number, mover in enumerate(movers)}
    pending = {number: {number, *(numbers[id(s)] for s in mover.followers)} for number, mover in enumerate(movers)}
    order = sorted(pending, key=lambda number: movers[number].symmetry.kind != "permutation")
    done: set[int] = set()
    while len(done) < len(movers):
        best, most, settled = -1, -1.0, set[tuple[object, ...]]()
        for number in order:
            if number not in done:
                fixed = {
                    place(slot)
                    for slot in _trained(movers[number].symmetry)
                    if all(
                        free.get((plain(slot.name), axis), set()) <= done | pending[number]
                        for axis in range(lookup(target, slot.name).dim())
                        if axis not in slot.axes
                    )
                }
                share = len(fixed) / len(_trained(movers[number].symmetry))
                if share > most:
                    best, most, settled = number, share, fixed
        if movers[best].symmetry.kind not in ("rescaling",):
            result = movers[best](target, result, settled or None)
        done |= pending[best]
    return result


class _Discrete:
    """Moves a state by the best element of one symmetry among those that change no norm.

    Args:
        symmetry: the symmetry.
        symmetries: all of them. Those that act on the same units, or within them, follow an exchange at once; so do
            flips of all units together, at whose wrong sign the best order would be that of chance.
    """

    def __init__(self, symmetry: Symmetry, symmetries: Sequence[Symmetry]) -> None:
        self.symmetry = symmetry
        self._flips: list[Symmetry] = []
        self._whole: list[Symmetry] = []
        self._inner: list[list[Symmetry]] = []
        if symmetry.kind == "permutation":
            own = {place(slot) for slot in _trained(symmetry)}
            flips = [s for s in symmetries if s.kind == "sign_flip"]
            self._flips = [s for s in flips if s.units == symmetry.units and _odd(s) <= own]
            inner = [_within(symmetry, unit, symmetries) for unit in range(symmetry.units)]
            if inner[0] and len({tuple((s.kind, s.units, len(s.slots)) for s in one) for one in inner}) == 1:
                self._inner = inner
            else:
                self._whole = [s for s in flips if s.units == 1 and _flipped(symmetry, s)][:WHOLE]
        self._odd = [*map(_odd, self._flips), *(_flipped(symmetry, whole) for whole in self._whole)]

    @property
    def followers(self) -> list[Symmetry]:
        """Those that follow an exchange at once."""
        return [*self._flips, *self._whole, *itertools.chain(*self._inner)]

    def __call__(
        self, target: State, state: State, settled: Collection[tuple[object, ...]] | None = None
    ) -> dict[str, Tensor]:
        """Return the state where it was moved to, by all weights or by those at some places alone."""
        if self.symmetry.kind != "permutation":
            return _turned(self.symmetry, target, state, settled)
        result = dict(state)
        order, whole = self._order(target, state, settled)
        for symmetry, sign in zip(self._whole, whole, strict=True):
            if sign < 0:
                result = transformed(result, [(symmetry, torch.tensor([sign]).double())])
        result = transformed(result, [(self.symmetry, order)])
        for symmetry, signs in zip(self._flips, self._signs(target, result, settled), strict=True):
            result = transformed(result, [(symmetry, signs)])
        for symmetry in itertools.chain(*self._inner):
            result = _turned(symmetry, target, result)
        return result

    def _order(
        self, target: State, state: State, settled: Collection[tuple[object, ...]] | None
    ) -> tuple[Tensor, Sequence[float]]:
        """The order of the state's units that is most like the target's, and the signs of the whole at which it is."""
        found = []
        for likeness, whole in self._likeness(target, state, settled):
            order = _assignment(likeness)
            found.append((float(likeness[torch.arange(len(order)), order].sum()), order, whole))
        return max(found, key=lambda one: one[0])[1:]

    def _signs(self, target: State, state: State, settled: Collection[tuple[object, ...]] | None) -> Iterable[Tensor]:
        """The signs of each flip, shape (units,), that together bring the units nearest to the target's."""
        products = self._products(target, state, settled, lambda one, other: (one * other).sum(dim=1))
        combinations = torch.tensor(_combinations(self._flips)).double()
        best = torch.stack([_signed(products, signs) for signs in combinations.tolist()]).argmax(dim=0)
        return combinations[best].T

    def _products(
        self,
        target: State,
        state: State,
        settled: Collection[tuple[object, ...]] | None,
        product: Callable[[Tensor, Tensor], Tensor],
    ) -> dict[tuple[bool, ...], Tensor]:
        """Products of the weights in both, summed over the slots that the same flips change."""
        products: dict[tuple[bool, ...], Tensor] = {}
        for slot, one, other in _pairs(self.symmetry, target, state, settled):
            flipped = tuple(place(slot) in slots for slots in self._odd)
            products[flipped] = products.get(flipped, 0) + product(one, other)
        return products

    def _likeness(
        self, target: State, state: State, settled: Collection[tuple[object, ...]] | None
    ) -> Iterator[tuple[Tensor, Sequence[float]]]:
        """How alike each unit of the target is to each of the state's, shape (units, units), by signs of the whole.

        It is the product of their weights at the best signs, where signs can change; of what other symmetries turn
        within a unit, as within a head, the largest product that a turn can reach.
        """
        if self._inner:
            likeness = torch.zeros((self.symmetry.units,) * 2).double()
            for i, of_target in enumerate(self._inner):
                for j, of_state in enumerate(self._inner):
                    pairs = zip(of_target, of_state, strict=True)
                    likeness[i, j] = sum(_reachable(one, target, other, state) for one, other in pairs)
            yield likeness, ()
            return
        products = self._products(target, state, settled, lambda one, other: one @ other.T)
        for whole in _combinations(self._whole):
            best = torch.full((self.symmetry.units,) * 2, -torch.inf).double()
            for signs in _combinations(self._flips):
                best = torch.maximum(best, _signed(products, (*signs, *whole)))
            yield best, whole


def _combinations(flips: Sequence[Symmetry]) -> list[tuple[float, ...]]:
    """All signs that some flips can have."""
    return list(itertools.product((1.0, -1.0), repeat=len(flips)))


def _flipped(symmetry: Symmetry, whole: Symmetry) -> set[tuple[object, ...]]:
    """The places of a permutation's units that a flip of all of them changes."""
    changed: dict[tuple[str, tuple[int, ...]], set[int]] = {}
    for slot in _trained(whole):
        if slot.degree % 2:
            changed.setdefault((plain(slot.name), slot.axes), set()).update(slot.indices(1).tolist())
    return {
        place(slot)
        for slot in _trained(symmetry)
        if changed.get((plain(slot.name), slot.axes), set()).issuperset(slot.indices(symmetry.units).tolist())
    }


def _signed(products: Mapping[tuple[bool, ...], Tensor], signs: Sequence[float]) -> Tensor:
    """The sum of products, each with the signs of the flips that change it."""
    terms = [product * math.prod(itertools.compress(signs, flipped)) for flipped, product in products.items()]
    return torch.stack(terms).sum(dim=0)


def _turned(
    symmetry: Symmetry, target: State, state: State, settled: Collection[tuple[object, ...]] | None = None
) -> dict[str, Tensor]:
    """Return the state after the order, signs, rotation (Procrustes) or phases that bring it nearest."""
    pairs = _pairs(symmetry, target, state, settled)
    if symmetry.kind == "permutation":
        order = _assignment(sum((one @ other.T for _, one, other in pairs), torch.zeros(())))
        return transformed(state, [(symmetry, order)])
    if symmetry.kind == "sign_flip":
        products = sum((one * other).sum(dim=1) for slot, one, other in pairs if slot.degree % 2)
        signs = torch.where(torch.as_tensor(products) < 0, -1.0, 1.0).double()
        return transformed(state, [(symmetry, signs)])
    if symmetry.kind in ("rotation", "general_linear"):
        left, _, right = torch.linalg.svd(sum((one @ other.T for _, one, other in pairs), torch.zeros(())))
        return transformed(state, [(symmetry, left @ right)])
    if symmetry.kind == "complex":
        overlap = _overlap(symmetry, pairs)
        return transformed(state, [(symmetry, torch.where(overlap.abs() > 0, overlap / overlap.abs(), 1.0))])
    return dict(state)


def _overlap(symmetry: Symmetry, pairs: Sequence[tuple[Slot, Tensor, Tensor]]) -> Tensor:
    """Σ a b̄ for each plane: its phase turns b to a."""
    overlap = torch.zeros(symmetry.units, dtype=torch.complex128)
    for slot, one, other in pairs:
        x, y = (_planes(slot, block) for block in (one, other))
        overlap += (x * y.conj()).sum(dim=1)
    return overlap


def _planes(slot: Slot, block: Tensor) -> Tensor:
    """The entries of planes as complex numbers, shape (units, entries)."""
    real, imaginary = block.reshape(len(block), slot.repeat // 2, 2, -1).unbind(2)
    return torch.complex(real, imaginary).flatten(1)


def _odd(symmetry: Symmetry) -> set[tuple[object, ...]]:
    return {place(slot) for slot in _trained(symmetry) if slot.degree % 2}


def _reachable(one: Symmetry, target: State, other: Symmetry, state: State) -> float:
    """The largest product of the weights of one symmetry's units in the target with another's, turned in the state."""
    pairs = [(slot, x, y) for (slot, x), (_, y) in zip(_blocks(one, target), _blocks(other, state), strict=True)]
    if one.kind == "complex":
        return float(_overlap(one, pairs).abs().sum())
    likeness = sum((x @ y.T for _, x, y in pairs), torch.zeros(()))
    if one.kind == "permutation":
        return float(likeness[torch.arange(one.units), _assignment(likeness)].sum())
    return float(torch.linalg.matrix_norm(likeness, "nuc"))


def _within(symmetry: Symmetry, unit: int, symmetries: Sequence[Symmetry]) -> list[Symmetry]:
    """The symmetries that mix entries within one unit of a permutation, as of a head or of a group of channels."""
    own: dict[tuple[str, tuple[int, ...]], set[int]] = {}
    for slot in _trained(symmetry):
        places = slot.indices(symmetry.units).reshape(symmetry.units, slot.repeat)[unit]
        own.setdefault((plain(slot.name), slot.axes), set()).update(places.tolist())
    room = max((slot.repeat for slot in _trained(symmetry)), default=0)
    found = []
    for other in symmetries:
        mixes = other.kind in ("permutation", "rotation", "general_linear", "complex")
        if mixes and other.units <= room and other is not symmetry:
            places_of = [(plain(s.name), s.axes, s.indices(other.units).tolist()) for s in _trained(other)]
            if all(own.get((name, axes), set()).issuperset(places) for name, axes, places in places_of):
                found.append(other)
    return found


def _assignment(likeness: Tensor) -> Tensor:
    """The order of the state's units that are most alike to the target's."""
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise ImportError("align needs scipy for permutations: pip install scipy") from None

    return torch.from_numpy(linear_sum_assignment(likeness.cpu().numpy(), maximize=True)[1])


class _Factors:
    """Moves a state by the factors of a rescaling, or the moduli of planes, that bring it nearest to the target."""

    def __init__(self, symmetry: Symmetry) -> None:
        self._symmetry = symmetry

    def __call__(self, target: State, state: State) -> dict[str, Tensor]:
        """Return the state where it was moved to."""
        terms = [
            (slot.power, other.square().sum(dim=1), (one * other).sum(dim=1))
            for slot, one, other in _pairs(self._symmetry, target, state)
        ]
        factors = _search(terms)
        element = factors.to(torch.complex128) if self._symmetry.kind == "complex" else factors
        return transformed(state, [(self._symmetry, element)])


def _search(terms: Sequence[tuple[float, Tensor, Tensor]]) -> Tensor:
    """Minimize Σ r²ᵖ s - 2 rᵖ c over r > 0 for each unit: on a grid of ln r, then by golden section beside its best.

    Args:
        terms: the power p, the squares s and the products c, shape (units,), of each slot.
    """
    sums: dict[float, tuple[Tensor, Tensor]] = {}
    for power, square, product in terms:
        s, c = sums.get(power, (torch.zeros_like(square), torch.zeros_like(product)))
        sums[power] = s + square, c + product

    def value(logarithm: Tensor) -> Tensor:
        total = torch.zeros(())
        for power, (s, c) in sums.items():
            factor = torch.exp(power * logarithm)
            total = total + factor * (factor * s - 2 * c)
        return total

    grid = FACTORS.log()
    best = grid[value(grid[:, None]).argmin(dim=0)]
    low, high = best - (grid[1] - grid[0]), best + (grid[1] - grid[0])
    for _ in range(REFINEMENTS):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        lower = value(left) < value(right)
        low, high = torch.where(lower, low, left), torch.where(lower, right, high)
    return ((low + high) / 2).exp()
