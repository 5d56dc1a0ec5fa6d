"""Symmetries of any network, found from one forward pass and confirmed numerically.

:func:`find_symmetries` follows one forward pass for candidates and keeps those that leave the outputs unchanged, in
double precision and at random parameters. What it returns are symmetries of the model in evaluation mode, whatever loss
is made from the outputs and with L2 decay on all parameters. It does not claim to find all. It follows linear and
convolutional layers, matrix products, normalizations, embeddings, elementwise functions, sums, products, residual
connections and the heads of ``nn.MultiheadAttention``. It does not look into channels that are concatenated, split or
reshaped into heads, into recurrent layers, at exchanges of whole heads, nor at symmetries that only the loss has, such
as a rotation of the outputs. :func:`holds` checks a symmetry that was written down by hand.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor, nn

from mirrorsym.symmetries.follow import Follower, Spaces
from mirrorsym.symmetries.symmetry import Kind, Symmetry
from mirrorsym.symmetries.verify import invariance, randomize, twin_of


def find_symmetries(model: nn.Module, *inputs: Tensor) -> list[Symmetry]:
    """Find symmetries of a model's outputs, each confirmed numerically.

    A layer with a rotation is listed with that alone: it includes the permutations and sign flips of its units.

    Args:
        model: any module. It is copied, and left as it is.
        *inputs: what its forward takes, a small batch of two or more samples.

    Returns:
        The symmetries, in the order in which the network uses their parameters.
    """
    twin, arguments = twin_of(model, inputs)
    follower = Follower(twin)
    with torch.no_grad(), follower:
        outputs = twin(*arguments)
    follower.give_up(outputs)
    return _confirmed(twin, arguments, follower.spaces)


def _confirmed(model: nn.Module, inputs: tuple[Tensor, ...], spaces: Spaces) -> list[Symmetry]:
    randomize(model)
    unchanged = invariance(model, inputs)
    found = []
    for units, slots in spaces.continuous():
        kinds: tuple[Kind, ...] = ("rotation", "sign_flip", "rescaling") if units > 1 else ("sign_flip", "rescaling")
        candidates = (Symmetry(kind, units, slots) for kind in kinds)
        found += list(islice(filter(unchanged, candidates), 1))
    rotated = {slot for symmetry in found if symmetry.kind == "rotation" for slot in symmetry.slots}
    for units, slots in spaces.tied():
        permutation = Symmetry("permutation", units, slots)
        if units > 1 and not rotated & set(slots) and unchanged(permutation):
            found.append(permutation)
    order = {name: index for index, name in enumerate(spaces.used)}
    found = [replace(s, slots=tuple(sorted(s.slots, key=lambda slot: order[slot.name]))) for s in found]
    return sorted(found, key=lambda symmetry: order[symmetry.slots[0].name])
