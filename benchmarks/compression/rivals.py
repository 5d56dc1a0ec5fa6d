"""What torch.nn.utils.prune and weightwatcher make of the networks that are compressed."""

from __future__ import annotations

import copy
import statistics
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils import prune

LAYERS = (nn.Linear, nn.Conv2d)


def masked(model: nn.Module, parameters: int, outputs: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return a model with as many parameters that are not zero, by torch.nn.utils.prune; its layers keep their sizes.

    Args:
        model: any; it is left as it is.
        parameters: so many are left.
        outputs: the layer that has to keep its outputs.

    Returns:
        One without the weights that are smallest over the whole network, and one without the rows, or channels, of the
        smallest norm, of each layer the same share.
    """
    total = sum(parameter.numel() for parameter in model.parameters())
    single, rows = copy.deepcopy(model), copy.deepcopy(model)
    layers = [module for module in single.modules() if isinstance(module, LAYERS)]
    weights = sum(module.weight.numel() for module in layers)
    prune.global_unstructured(
        [(module, "weight") for module in layers],
        pruning_method=prune.L1Unstructured,
        amount=min(total - parameters, weights),
    )
    for module in layers:
        prune.remove(module, "weight")
    place = next(name for name, module in model.named_modules() if module is outputs)
    for name, module in rows.named_modules():
        if isinstance(module, LAYERS) and name != place:
            prune.ln_structured(module, "weight", amount=min((total - parameters) / weights, 1.0), n=2, dim=0)
            prune.remove(module, "weight")
    return single, rows


@dataclass(frozen=True)
class Spectra:
    """How weightwatcher's exponent α of a layer's eigenvalues goes with what compress takes from the layer.

    Args:
        layers: that have an exponent.
        collapsed: of which less than half of the weights are left.
        alpha_collapsed: the median exponent of these.
        alpha_others: that of the others.
        flagged: of the collapsed, those with α above 6, which weightwatcher calls under-trained.
        flagged_others: of the others.
    """

    layers: int
    collapsed: int
    alpha_collapsed: float
    alpha_others: float
    flagged: int
    flagged_others: int


def spectra(model: nn.Module, small: nn.Module) -> Spectra | None:
    """Return what weightwatcher (Martin, Peng, Mahoney 2021) says of a model, None where it is not installed.

    It is no dependency: ``pip install --no-deps weightwatcher powerlaw mpmath`` (0.7.7 was tried).

    Args:
        model: as it was trained.
        small: what :func:`mirrorsym.compress` made of it.
    """
    try:
        import weightwatcher
    except ImportError:
        return None
    details = weightwatcher.WeightWatcher(model=model).analyze()
    left = dict(small.named_modules())
    alphas: dict[bool, list[float]] = {True: [], False: []}
    for name, alpha in zip(details["longname"], details["alpha"], strict=True):
        before, after = model.get_submodule(name).weight, getattr(left.get(name), "weight", None)
        if alpha > 0 and isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor):
            alphas[after.numel() < before.numel() / 2].append(float(alpha))
    medians = [statistics.median(alphas[cut]) if alphas[cut] else float("nan") for cut in (True, False)]
    flagged = [sum(alpha > 6 for alpha in alphas[cut]) for cut in (True, False)]
    return Spectra(len(alphas[True]) + len(alphas[False]), len(alphas[True]), medians[0], medians[1], *flagged)
