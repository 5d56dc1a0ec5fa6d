"""Products of two layers whose rank is lower than the dimension between them (Theorem 3): factors of that rank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mirrorsym.compression.edit import Places, places_of, remove, replace_tensor, tensor_of
from mirrorsym.compression.probe import Reading, reading_axis
from mirrorsym.symmetries.symmetry import Slot, Symmetry


@dataclass(frozen=True)
class Product:
    """The two sides of a general linear group, that the model only sees as a product.

    Args:
        slots: where its units lie now.
        left: balanced factors of the product, the one side's weights of each unit, shape (units, weights).
        right: those of the other side.
        values: the product's singular values, falling, shape (units,).
        one: the singular value at which the product counts as one: what is far below it can go. The largest, and with
            keys and queries what makes the logits of attention change by one if that is more.
        logits: whether it is one of keys with queries.
    """

    slots: list[tuple[Slot, Tensor]]
    left: Tensor
    right: Tensor
    values: Tensor
    one: float
    logits: bool

    @property
    def units(self) -> int:
        """The dimension between the two sides."""
        return len(self.left)


def product_of(model: nn.Module, places: Places, symmetry: Symmetry, readings: Mapping[str, Reading]) -> Product | None:
    """Return the product on which a general linear group acts.

    Returns:
        None where a side is missing, or has fewer units than were found.
    """
    slots = places_of(model, places, symmetry)
    if not len(slots[0][1]):
        return None
    sides: dict[bool, list[Tensor]] = {False: [], True: []}
    for slot, where in slots:
        sides[slot.inverse].append(_block(tensor_of(model, slot.name), slot, where))
    if not sides[False] or not sides[True]:
        return None
    a, b = torch.cat(sides[False], 1), torch.cat(sides[True], 1)
    basis, ra = torch.linalg.qr(a.T)
    other, rb = torch.linalg.qr(b.T)
    u, values, v = torch.linalg.svd(ra @ rb.T)
    root = values.sqrt()[:, None]
    count = len(values)
    left = torch.zeros_like(a)
    right = torch.zeros_like(b)
    left[:count] = root * (u[:, :count].T @ basis.T)
    right[:count] = root * (v[:count] @ other.T)
    padded = torch.zeros(len(a), dtype=values.dtype, device=values.device)
    padded[:count] = values
    logits = _one_in_logits(model, slots, readings)
    largest = float(values[0])
    return Product(slots, left, right, padded, largest if logits is None else max(largest, logits), logits is not None)


def _one_in_logits(
    model: nn.Module, slots: Sequence[tuple[Slot, Tensor]], readings: Mapping[str, Reading]
) -> float | None:
    """Return the singular value that changes logits by one at most; None where a side reads, and there are none."""
    lengths = [1.0, 1.0]  # the biases read a one
    for slot, _ in slots:
        owner, _, attribute = slot.name.rpartition(".")
        module = model.get_submodule(owner)
        reading = readings.get(owner)
        if reading is None or reading_axis(module) == slot.axis:
            return None
        if attribute == "weight":
            lengths[slot.inverse] += float(reading.rows.square().sum(1).max())
    return math.sqrt(len(slots[0][1]) / (lengths[0] * lengths[1]))


def factor(model: nn.Module, places: Places, products: Sequence[Product], rank: int, scale: float) -> None:
    """Write factors of a rank in place of products.

    Args:
        model: is changed.
        places: is changed.
        products: of one layer, such as those of its heads.
        rank: of the factors.
        scale: multiplies keys' products with queries, where attention divides by a root of their dimension.
    """
    for product in products:
        start = {False: 0, True: 0}
        for slot, where in product.slots:
            side = product.right if slot.inverse else product.left * (scale if product.logits else 1.0)
            tensor = tensor_of(model, slot.name)
            size = _block(tensor, slot, where).shape[1]
            block = side[:, start[slot.inverse] : start[slot.inverse] + size]
            start[slot.inverse] += size
            replace_tensor(model, slot.name, _put(tensor.detach(), slot, where, block))
    dropped: dict[tuple[str, tuple[int, ...]], tuple[Slot, list[Tensor]]] = {}
    for product in products:
        for slot, where in product.slots:
            dropped.setdefault((slot.name, slot.axes), (slot, []))[1].append(where[rank:].reshape(-1, 1))
    # Places of all products at once, since the first cut would move those of the next.
    together = [(slot, torch.cat(where).reshape(1, -1)) for slot, where in dropped.values()]
    remove(model, places, together, [0])


def _block(tensor: Tensor, slot: Slot, where: Tensor) -> Tensor:
    """Return the entries of each unit, in double precision, shape (units, entries)."""
    front = tensor.detach().double().movedim(slot.axes[0], 0)
    return front[where.flatten().to(front.device)].reshape(len(where), -1)


def _put(tensor: Tensor, slot: Slot, where: Tensor, block: Tensor) -> Tensor:
    front = tensor.movedim(slot.axes[0], 0).clone()
    places = where.flatten().to(front.device)
    front[places] = block.reshape(len(places), *front.shape[1:]).to(front)
    return front.movedim(0, slot.axes[0]).contiguous()
