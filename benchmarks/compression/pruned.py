"""Torch-Pruning, at a number of parameters that is given."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

NORMALIZERS = ("mean", None)
"""How Torch-Pruning makes groups comparable: by their mean, as it does by itself, or not at all."""

STEPS = 20
"""So many of its ratios are tried, and between two of them again: parameters do not always fall as ratios grow."""


def pruned(model: nn.Module, inputs: Tensor, parameters: int, outputs: nn.Module) -> Iterator[nn.Module]:
    """Yield a model pruned by Torch-Pruning's group magnitudes over the whole network, without fine-tuning.

    Args:
        model: any; it is left as it is.
        inputs: a batch, shape (samples, …).
        parameters: so many are left at most, or as few as any ratio leaves.
        outputs: the layer that has to keep its outputs.

    Yields:
        One for each normalizer.
    """
    place = next(name for name, module in model.named_modules() if module is outputs)
    for normalizer in NORMALIZERS:
        found: dict[int, tuple[float, nn.Module]] = {}

        def add(ratio: float, found: dict[int, tuple[float, nn.Module]] = found, by: str | None = normalizer) -> None:
            trial = copy.deepcopy(model)
            _prune(trial, inputs, ratio, trial.get_submodule(place), by)
            found.setdefault(sum(p.numel() for p in trial.parameters()), (ratio, trial.eval()))

        for step in range(1, STEPS):
            add(step / STEPS)
        near = _nearest(found, parameters)[0]
        for step in range(1, STEPS):
            add(near - step / STEPS**2)
        yield _nearest(found, parameters)[1]


def _nearest(found: dict[int, tuple[float, nn.Module]], parameters: int) -> tuple[float, nn.Module]:
    few_enough = [count for count in found if count <= parameters]
    return found[max(few_enough)] if few_enough else found[min(found)]


def _prune(model: nn.Module, inputs: Tensor, ratio: float, outputs: nn.Module, normalizer: str | None) -> None:
    import torch_pruning

    heads: dict[nn.Module, int] = {}
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            heads[module] = module.num_heads
        elif hasattr(module, "heads") and hasattr(module, "query"):
            heads |= dict.fromkeys((module.query, module.key, module.value), module.heads)
    options: dict[str, Any] = {"num_heads": heads, "prune_num_heads": False, "prune_head_dims": True} if heads else {}
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2, normalizer=normalizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parameters that are in no layer, which it prunes
        torch_pruning.MagnitudePruner(
            model, inputs, importance=importance, global_pruning=True, pruning_ratio=ratio, max_pruning_ratio=0.99,
            ignored_layers=[outputs], **options,
        ).step()  # fmt: skip
    for module in model.modules():
        if isinstance(module, nn.RMSNorm):  # which it does not know
            module.normalized_shape = tuple(module.weight.shape)
