"""One full-batch Adam step of self-attention at the paper's size: the loops beside plain PyTorch, one thread each."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks.in_context_regressor import InContextRegressor
from reproduction.experiments.attention import AttentionSettings, in_context_data, initial_parameters, initial_weights
from reproduction.kernels import attention, attention_two_layers
from reproduction.kernels.attention import Array, Descent, Problem

POINTS, TOKENS, WIDTH = 500, 50, 101
CHECKED_STEPS = 10
DESCENT = Descent(learning_rate=4e-3, weight_decay=1e-2)


def bench_1() -> dict[str, float]:
    """Return microseconds per step of one layer."""
    # X a, X v and two sums of rows for each point; a and its gradient for all points; four products of weights.
    multiplications = POINTS * (4 * TOKENS * WIDTH + 2 * WIDTH**2) + 4 * WIDTH**3
    return _bench(1, multiplications)


def bench_2() -> dict[str, float]:
    """Return microseconds per step of two layers."""
    # X C, (X C) Xᵀ and the same backwards for each point; the rest is a few percent.
    multiplications = 2 * POINTS * TOKENS * WIDTH * (WIDTH + TOKENS)
    return _bench(2, multiplications)


def _bench(layers: int, multiplications: int) -> dict[str, float]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            return _measured(layers, multiplications)
    finally:
        torch.set_num_threads(threads)


def _measured(layers: int, multiplications: int) -> dict[str, float]:
    tokens, targets = in_context_data(AttentionSettings(features=WIDTH - 1, tokens=TOKENS), POINTS, seed=0)
    tokens, targets = tokens.astype(np.float32), targets.astype(np.float32)
    plain, ours = _plain(layers, tokens, targets), _ours(layers, tokens, targets)
    np.testing.assert_allclose(ours(CHECKED_STEPS), plain(CHECKED_STEPS), rtol=1e-3)
    # In turns, so that whatever else the machine does falls on both.
    ours_us, torch_us = np.inf, np.inf
    for _ in range(6):
        ours_us = min(ours_us, _seconds(lambda: ours(10 // layers)) / (10 // layers))
        torch_us = min(torch_us, _seconds(lambda: plain(2)) / 2)
    compute, memory = multiplications / _multiplications_per_second(), tokens.nbytes / _bytes_per_second()
    return {
        "ours_us": ours_us * 1e6,
        "torch_us": torch_us * 1e6,
        "ratio": torch_us / ours_us,
        "limit_us": max(compute, memory) * 1e6,
    }


def _ours(layers: int, tokens: Array, targets: Array) -> Callable[[int], list[float]]:
    """Return a function that takes steps and returns the loss before each."""
    loss_and_gradient = (attention if layers == 1 else attention_two_layers).loss_and_gradient
    problem, parameters = Problem.of(tokens, targets), initial_parameters(WIDTH, layers, 0)
    moments, gradient, taken = np.zeros((2, parameters.size), np.float32), np.empty_like(parameters), [0]

    def steps(count: int) -> list[float]:
        losses = []
        for _ in range(count):
            losses.append(loss_and_gradient(problem, parameters, gradient))
            taken[0] += 1
            attention.descend(parameters, gradient, moments, taken[0], DESCENT)
        return losses

    return steps


def _plain(layers: int, tokens: Array, targets: Array) -> Callable[[int], list[float]]:
    """Return the same for the loop that a user would write first."""
    model = InContextRegressor(WIDTH, layers)
    with torch.no_grad():
        for number, layer in enumerate(model.layers, start=1):
            matrices = (layer.key, layer.query, layer.value)
            for matrix, weight in zip(matrices, initial_weights(WIDTH, number, 0), strict=True):
                matrix.weight.copy_(torch.from_numpy(weight))
    optimizer = torch.optim.Adam(model.parameters(), lr=DESCENT.learning_rate, weight_decay=DESCENT.weight_decay)
    x, y = torch.from_numpy(tokens), torch.from_numpy(targets)

    def steps(count: int) -> list[float]:
        losses = []
        for _ in range(count):
            optimizer.zero_grad()
            loss = ((model(x) - y) ** 2).mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return steps


def _multiplications_per_second(size: int = 1024) -> float:
    """What a matrix product reaches."""
    a = np.ones((size, size), np.float32)
    product = np.empty_like(a)
    return size**3 / min(_seconds(lambda: np.dot(a, a, out=product)) for _ in range(5))


def _bytes_per_second(size: int = 2_500_000) -> float:
    """What a copy of 10 MB reaches, bytes read and written."""
    a = np.ones(size, np.float32)
    b = np.empty_like(a)
    return 2 * a.nbytes / min(_seconds(lambda: np.copyto(b, a)) for _ in range(10))


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
