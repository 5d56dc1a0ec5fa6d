"""The sparsity sweep, per run and step: our kernel, the plain PyTorch loop, batched PyTorch, and what the caches allow.

Runs of both parameterizations, half each, at batch size 1. Drawing the samples is part of every time but the last.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from numba import njit

from reproduction.contract import Context
from reproduction.experiments.sparsity import EXPERIMENT, initial_factors
from reproduction.streams import stream

FEATURES, SEED = 200, 0
NOISES = [0.1, 0.3, 1.0]
RATES = [float(rate) for rate in np.geomspace(1e-4, 4e-3, 24)]
PARAMETERIZATIONS = ["vanilla", "rescaled"]


def bench() -> dict[str, float]:
    """Return microseconds per run and step, and ratios, all measured now on one thread.

    The sweep has the paper's 144 runs a seed, at learning rates where none diverges, so that all of them work all the
    time. The batched program carries 240 runs. Both baselines must end at our weights.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ours = _ours()
        plain = np.mean([_plain(name) for name in PARAMETERIZATIONS])
        batched = np.mean([_batched(name) for name in PARAMETERIZATIONS])
    finally:
        torch.set_num_threads(threads)
    return {
        "ours_us": ours,
        "torch_us": float(plain),
        "ratio": float(plain / ours),
        "batched_us": float(batched),
        "batched_ratio": float(batched / ours),
        "limit_us": _limit(),
    }


def _train(steps: int, **grid: list) -> np.ndarray:
    full = {"parameterization": PARAMETERIZATIONS, "noise_std": NOISES, "learning_rate": RATES} | grid
    return EXPERIMENT.run(EXPERIMENT.settings(features=FEATURES, steps=steps), full, SEED, Context()).weight.values


def _ours(steps: int = 10_000) -> float:
    _train(1)  # compiles
    return _best(lambda: _train(steps), 3) / (steps * len(PARAMETERIZATIONS) * len(NOISES) * len(RATES))


def _plain(parameterization: str, steps: int = 3_000, rate: float = RATES[-1], sigma: float = 1.0) -> float:
    """The loop that one writes first: autograd and torch.optim.SGD, one sample a step."""
    w, u = (torch.tensor(factor) for factor in initial_factors("sparsity", FEATURES, 1 / FEATURES, SEED))
    parameters = [w.requires_grad_()] if parameterization == "vanilla" else [w.requires_grad_(), u.requires_grad_()]
    optimizer = torch.optim.SGD(parameters, lr=rate)
    inputs, noises = stream("sparsity", SEED, "x"), stream("sparsity", SEED, "noise")
    start = time.perf_counter()
    for _ in range(steps):
        x = torch.from_numpy(inputs.standard_normal(FEATURES, dtype=np.float32))
        y = x.mean() + sigma * float(noises.standard_normal(dtype=np.float32))
        v = parameters[0] if parameterization == "vanilla" else w * u
        loss = (v @ x - y) ** 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    seconds = time.perf_counter() - start
    ours = _train(steps, parameterization=[parameterization], noise_std=[sigma], learning_rate=[rate])
    _agree(v_of(parameters), ours.reshape(-1), f"the plain loop, {parameterization}")
    return 1e6 * seconds / steps


def _batched(parameterization: str, steps: int = 2_000, runs: int = 240) -> float:
    """The best of what PyTorch does with all runs in one program: gradients by hand, in place, without autograd."""
    rates = [float(rate) for rate in np.geomspace(RATES[0], RATES[-1], runs // len(NOISES))]
    rate, sigma = (torch.tensor(part.ravel(), dtype=torch.float32) for part in np.meshgrid(rates, NOISES))
    w, u = (
        torch.tensor(factor).repeat(runs, 1) for factor in initial_factors("sparsity", FEATURES, 1 / FEATURES, SEED)
    )
    product, slope = torch.empty_like(w), torch.empty_like(w)
    inputs, noises = stream("sparsity", SEED, "x"), stream("sparsity", SEED, "noise")
    start = time.perf_counter()
    with torch.inference_mode():
        for begin in range(0, steps, 50):
            count = min(50, steps - begin)
            samples = torch.from_numpy(inputs.standard_normal((count, FEATURES), dtype=np.float32))
            unit = torch.from_numpy(noises.standard_normal(count, dtype=np.float32))
            labels = samples.mean(dim=1)[:, None] + unit[:, None] * sigma
            for x, y in zip(samples, labels, strict=True):
                if parameterization == "vanilla":
                    w.addr_(rate * (y - w @ x), x, alpha=2)
                    continue
                torch.mul(w, u, out=product)
                torch.outer(rate * (y - product @ x), x, out=slope)
                torch.addcmul(w, slope, u, value=2, out=product)
                u.addcmul_(slope, w, value=2)
                w, product = product, w
    seconds = time.perf_counter() - start
    ours = _train(steps, parameterization=[parameterization], learning_rate=rates)
    _agree(w if parameterization == "vanilla" else w * u, ours.reshape(runs, FEATURES), f"batched, {parameterization}")
    return 1e6 * seconds / (steps * runs)


def v_of(parameters: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([parameter.detach() for parameter in parameters]).prod(dim=0)


def _agree(theirs: torch.Tensor, ours: np.ndarray, what: str) -> None:
    """Float32 sums in another order: the paths part slowly, by far less than the weights' own size of 0.07."""
    difference = float(np.abs(theirs.numpy() - ours).max())
    if not difference < 1e-4:
        raise AssertionError(f"{what} ends {difference:g} from our weights; the two must do the same computation")


@njit(nogil=True, error_model="numpy")
def _touch(w: np.ndarray, u: np.ndarray, repetitions: int) -> None:
    for _ in range(repetitions):
        for i in range(w.size):
            w[i] = w[i] + np.float32(1)
            u[i] = u[i] + np.float32(1)


def _limit(repetitions: int = 50_000) -> float:
    """Time to read and write a run's state once in the first cache, with no arithmetic to speak of."""
    w, u = np.zeros((2, FEATURES), np.float32)
    _touch(w, u, 1)
    both = _best(lambda: _touch(w, u, repetitions), 9) / repetitions
    return both * 3 / 4  # a vanilla run has one factor, a rescaled one two


def _best(function, repetitions: int) -> float:
    """Return the shortest of several durations in microseconds."""
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e6 * min(times)


if __name__ == "__main__":
    print(bench())
