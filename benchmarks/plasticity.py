"""One Adam step of continual regression: the compiled loop beside plain and batched PyTorch, one thread each."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from reproduction.kernels.plasticity import train

RUNS, STEPS, POINTS, DIMENSION, BATCH = 240, 5000, 100, 100, 16
LEARNING_RATE, BETA2, EPSILON = 1e-3, 0.999, 1e-8
CHECKED_STEPS = 100


def bench() -> dict[str, float]:
    """Return microseconds per run and step in float32, for the variant with rescaling symmetry.

    ``batched_us`` has the sweep's structure, 24 runs of each of 10 seeds, which share their seed's batches;
    ``batched_unshared_us`` has 240 runs with data of their own. ``collapsed_us`` is ours where weights
    have collapsed to subnormal numbers: on the second task at λ = 0.01.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _bench()
    finally:
        torch.set_num_threads(threads)


def _bench() -> dict[str, float]:
    data = _data()
    start = data[3]
    ours = _ours(*data, CHECKED_STEPS)
    for theirs in (_plain(*data, CHECKED_STEPS), _batched(*data, 2, 3, CHECKED_STEPS)[1]):
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-4)
    collapsed = start
    for _ in range(5):
        collapsed = _ours(*data[:3], collapsed, STEPS, learning_rate=1e-2)
    timed = _best_of_rounds(
        {
            "ours_us": (STEPS, lambda: _timed(_ours, *data, STEPS)),
            "collapsed_us": (STEPS, lambda: _timed(_ours, *data[:3], collapsed, STEPS, 1e-2)),
            "torch_us": (300, lambda: _timed(_plain, *data, 300)),
            "batched_us": (100 * RUNS, lambda: _batched(*data, 10, RUNS // 10, 100)[0]),
            "batched_unshared_us": (100 * RUNS, lambda: _batched(*data, RUNS, 1, 100)[0]),
            "limit_us": (1, lambda: _limit_us(data[0])),
        }
    )
    return timed | {
        "ratio": timed["torch_us"] / timed["ours_us"],
        "batched_ratio": timed["batched_us"] / timed["ours_us"],
        "batched_unshared_ratio": timed["batched_unshared_us"] / timed["ours_us"],
    }


def _data() -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((POINTS, DIMENSION))
    y = x.mean(axis=1) + 0.1 * rng.standard_normal(POINTS)
    batches = rng.integers(POINTS, size=(STEPS, BATCH), dtype=np.int32)
    weights = 0.1 * rng.standard_normal((2, DIMENSION))
    return x.astype("f4"), y.astype("f4"), batches, weights.astype("f4")


def _timed(work: Callable[..., Any], *arguments: Any) -> float:
    """Return the microseconds of a call."""
    begin = time.perf_counter()
    work(*arguments)
    return 1e6 * (time.perf_counter() - begin)


def _best_of_rounds(works: dict[str, tuple[int, Callable[[], float]]], rounds: int = 15) -> dict[str, float]:
    """Time all works in turns, so that none has a quieter machine, and return the fastest time per run and step."""
    times = [{name: measure() / steps for name, (steps, measure) in works.items()} for _ in range(rounds)]
    return {name: min(row[name] for row in times) for name in works}


def _ours(x: Any, y: Any, batches: Any, start: Any, steps: int, learning_rate: float = LEARNING_RATE) -> Any:
    weights = start.copy()
    corrections = ((1 - BETA2 ** np.arange(1, steps + 1)) ** -0.5).astype(x.dtype)
    no_noise = np.empty((0, 2, DIMENSION), np.float32)
    train(
        x, y, batches[:steps], no_noise, 0.0, np.zeros_like(weights), learning_rate, BETA2, EPSILON, corrections,
        weights, np.zeros_like(weights),
    )  # fmt: skip
    return weights


def _plain(x: Any, y: Any, batches: Any, start: Any, steps: int) -> Any:
    """The loop that a user would write first."""
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
    indices = torch.from_numpy(batches[:steps]).long()
    w, u = (torch.nn.Parameter(torch.from_numpy(row.copy())) for row in start)
    optimizer = torch.optim.Adam([w, u], lr=LEARNING_RATE, betas=(0.0, BETA2), eps=EPSILON)
    for index in indices:
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(inputs[index] @ (w * u), targets[index])
        loss.backward()
        optimizer.step()
    return torch.stack([w, u]).detach().numpy()


@torch.no_grad()
def _batched(x: Any, y: Any, batches: Any, start: Any, seeds: int, runs: int, steps: int) -> tuple[float, Any]:
    """All runs in one tensor program: gradients by hand, in place; the runs of a seed share its data and batches.

    Returns the microseconds of the steps, after setting up, and the first run's weights.
    """
    inputs, targets = torch.from_numpy(x).repeat(seeds, 1), torch.from_numpy(y).repeat(seeds)
    first_row = POINTS * torch.arange(seeds)[:, None]
    indices = torch.from_numpy(batches[:steps]).long()
    w, u = (torch.from_numpy(row).expand(seeds, runs, -1).clone() for row in start)
    moments = [torch.zeros_like(w), torch.zeros_like(u)]
    product, shared, below, *slopes = (torch.empty_like(w) for _ in range(5))
    errors = torch.empty(seeds, runs, BATCH)
    begin = time.perf_counter()
    for step, index in enumerate(indices, 1):
        rows = (first_row + index).view(-1)
        batch = inputs.index_select(0, rows).view(seeds, BATCH, -1)
        torch.mul(w, u, out=product)
        torch.bmm(product, batch.transpose(1, 2), out=errors)
        errors.sub_(targets.index_select(0, rows).view(seeds, 1, BATCH)).mul_(2 / BATCH)
        torch.bmm(errors, batch, out=shared)
        torch.mul(shared, u, out=slopes[0])
        torch.mul(shared, w, out=slopes[1])
        root = (1 - BETA2**step) ** -0.5
        for factor, moment, slope in zip((w, u), moments, slopes, strict=True):
            moment.mul_(BETA2).addcmul_(slope, slope, value=1 - BETA2)
            torch.sqrt(moment, out=below).mul_(root).add_(EPSILON)
            factor.addcdiv_(slope, below, value=-LEARNING_RATE)
    return 1e6 * (time.perf_counter() - begin), torch.stack([w[0, 0], u[0, 0]]).numpy()


def _limit_us(x: Any) -> float:
    """Time in which a copy that stays in the cache moves the bytes of one step.

    The batch is read twice, the weights and second moments are read and written.
    """
    copy, repeats = np.empty_like(x), 1000
    begin = time.perf_counter()
    for _ in range(repeats):
        np.copyto(copy, x)
    copied_us = 1e6 * (time.perf_counter() - begin) / repeats
    moved = 2 * BATCH * DIMENSION + 2 * 2 * 2 * DIMENSION
    return copied_us * moved / (2 * x.size)


if __name__ == "__main__":
    for name, value in bench().items():
        print(f"{name:22} {value:10.3f}")
