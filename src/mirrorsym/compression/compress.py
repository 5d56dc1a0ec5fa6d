"""The lossless cut of each mirror on which a network lies."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from mirrorsym.compression.attention import replace_attentions, restore_attentions
from mirrorsym.compression.cutter import Cutter
from mirrorsym.compression.inputs import Inputs, distance, outputs_of
from mirrorsym.compression.report import Compression, Cut
from mirrorsym.symmetries.twin import copied, unwrapped

REPEATS = 7
"""Forwards of each model whose median time is reported."""


def compress(model: nn.Module, batch: Any, tolerance: float = 1e-3) -> tuple[nn.Module, Compression]:
    """Return a smaller model that computes the same, where the model lies on mirrors (Theorems 2 to 4, Section 3).

    Units that are zero, constant or multiples of another unit go, heads of attention as well, and products of layers
    whose rank is lower than the dimension between them (keys with queries, values with what reads them) become products
    of that dimension. A unit is judged by what it gives to those that read it, on the batch, on other inputs in its
    range, and on inputs far from it, not by its weights. After each cut the outputs are compared, on the batch and on
    inputs in its range, and a cut that changes them too much is undone. The outputs are those of evaluation mode.

    Args:
        model: any module that :func:`find_symmetries` takes. It is left as it is. What ``torch.compile`` and
            ``DataParallel`` have made is compressed without the wrapper.
        batch: what its forward takes: a tensor, of shape (samples, …), a tuple of what it takes by place, or a mapping
            by name. A small one: some ten samples in which every branch takes part.
        tolerance: how much an output may change at most, relative to the outputs' root mean square.

    Returns:
        The smaller model, with plain parameters where there were parametrizations such as DCS, and a report. Where
        there is nothing to cut the model is a copy.

    Raises:
        ValueError: if the tolerance is not positive, or the model one that :func:`find_symmetries` refuses.
    """
    if not tolerance > 0:
        raise ValueError(f"compress: tolerance is {tolerance}; it has to be a positive number")
    inputs = Inputs.of(batch)
    model = unwrapped(model)
    work = copied(model)
    work.eval()
    plain_parameters(work)
    original = copy.deepcopy(work)
    attentions = replace_attentions(work)
    cutter = Cutter(work, original, inputs, tolerance)
    cutter.run()
    restore_attentions(cutter.model, attentions)
    report = _report(cutter, original, tolerance)
    if not report.cuts:
        return copied(model), report
    modes = {name: module.training for name, module in model.named_modules()}
    for name, module in cutter.model.named_modules():
        module.training = modes.get(name, module.training)
    return cutter.model, report


def plain_parameters(model: nn.Module) -> None:
    """Let parameters that are functions of others be what they compute; those that are tied stay tied."""
    plain: dict[int, nn.Parameter] = {}
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            parametrizations = module._modules["parametrizations"]
            assert isinstance(parametrizations, nn.ModuleDict)
            values = {
                name: plain.setdefault(id(stored), nn.Parameter(getattr(module, name).detach().clone()))
                for name, stored in parametrizations.items()
            }
            # PyTorch's own way changes the class, which copies of a module share.
            module.__class__ = parametrize.type_before_parametrizations(module)
            del module._modules["parametrizations"]
            for name, value in values.items():
                module.register_parameter(name, value)


def _report(cutter: Cutter, original: nn.Module, tolerance: float) -> Compression:
    """Return what was done."""
    small = cutter.model if cutter.cuts else original
    inputs = cutter.inputs[0]
    after = outputs_of(small, cutter.held_out)
    done = {c.where for c in cutter.cuts}
    flops = tuple(_flops(one, inputs) for one in (original, small))
    seconds = _seconds((original, small), inputs)
    return Compression(
        cuts=tuple(_joined(cutter.cuts)),
        kept=tuple(kept for kept in cutter.kept.values() if kept.where not in done),
        tolerance=tolerance,
        promised=cutter.promised,
        found=distance(cutter.before[:1], outputs_of(small, cutter.inputs[:1])),
        held_out=distance(outputs_of(original, cutter.held_out), after) if cutter.held_out else float("nan"),
        parameters=(_count(original), _count(small)),
        flops=(flops[0], flops[1]),
        seconds=seconds,
    )


def _joined(cuts: Sequence[Cut]) -> Iterator[Cut]:
    """Yield one line for the cuts of each group, of several sweeps."""
    together: dict[tuple[str, str], list[Cut]] = {}
    for cut in cuts:
        together.setdefault((cut.where, cut.what), []).append(cut)
    for (where, what), parts in together.items():
        zero, constant, copies = (sum(getattr(part, name) for part in parts) for name in ("zero", "constant", "copies"))
        promised = sum(part.promised for part in parts)
        yield Cut(where, what, parts[0].before, parts[-1].after, zero, constant, copies, promised)


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _flops(model: nn.Module, inputs: Inputs) -> int:
    with FlopCounterMode(display=False) as counter:
        outputs_of(model, [inputs])
    return int(counter.get_total_flops())


def _seconds(models: tuple[nn.Module, nn.Module], inputs: Inputs) -> tuple[float, float]:
    """Return the median times of a forward of two models, in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    with torch.no_grad():
        for _ in range(REPEATS):
            for model, own in zip(models, times, strict=True):
                start = time.perf_counter()
                inputs.run(model)
                own.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])
