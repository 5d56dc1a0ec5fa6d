"""One SGD step of 200×200 matrix factorization: the compiled loop beside plain and batched PyTorch, one thread each."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from reproduction.kernels.matrix_factorization import advance

DIMENSION, STEPS, RUNS = 200, 4000, 40
SIGNAL, LEARNING_RATE, INITIAL_STD = 0.1, 1e-3, 0.07
CHECKED_STEPS = 100
ROUNDS = 6


def bench() -> dict[str, float]:
    """Return microseconds per run and step in float32.

    ``torch_us`` is the loop that a user would write first, ``batched_us`` the faster of two programs that advance all
    runs of a sweep at once, gradients by hand, in place. ``by_hand_us`` is one run like that, which stays in the cache.
    ``limit_us`` is the time of the five multiply-adds per entry
    of a 200×200 matrix that a step needs, at the rate of NumPy's 200×200 matrix product.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _bench()
    finally:
        torch.set_num_threads(threads)


def _bench() -> dict[str, float]:
    w, u, x, _, noise = data = _data()
    ours = _ours(w, u, x, noise, CHECKED_STEPS)
    for theirs in (_plain, _by_hand, _batched_products, _batched_updates):
        for found, expected in zip(theirs(*data[:4], CHECKED_STEPS)[1], ours, strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    factor = np.ascontiguousarray(w)
    out = np.empty_like(w)
    times: dict[str, list[float]] = {name: [] for name in ("ours", "torch", "hand", "products", "updates", "limit")}
    # What else runs on the machine only ever adds, so each takes its fastest of several rounds.
    for _ in range(ROUNDS):
        times["ours"].append(_time(lambda: _ours(w, u, x, noise, STEPS)) / STEPS)
        times["torch"].append(_plain(*data[:4], 1000)[0] / 1000)
        times["hand"].append(_by_hand(*data[:4], 1000)[0] / 1000)
        times["products"].append(_batched_products(*data[:4], 30)[0] / 30 / RUNS)
        times["updates"].append(_batched_updates(*data[:4], 30)[0] / 30 / RUNS)
        times["limit"].append(_time(lambda: [np.matmul(factor, factor, out=out) for _ in range(200)]) / 200)
    best = {name: min(values) for name, values in times.items()}
    batched_us = min(best["products"], best["updates"])
    return {
        "ours_us": best["ours"],
        "torch_us": best["torch"],
        "ratio": best["torch"] / best["ours"],
        "batched_us": batched_us,
        "batched_ratio": batched_us / best["ours"],
        "limit_us": best["limit"] * 5 / DIMENSION,
        "by_hand_us": best["hand"],
        "by_hand_ratio": best["hand"] / best["ours"],
    }


def _time(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return 1e6 * (time.perf_counter() - begin)


def _data() -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    w, u = (INITIAL_STD * rng.standard_normal((DIMENSION, DIMENSION)) for _ in range(2))
    x = rng.standard_normal((STEPS, DIMENSION)).astype("f4")
    noise = (rng.standard_normal((STEPS, DIMENSION)) * np.sqrt(2 / np.arange(1, DIMENSION + 1))).astype("f4")
    y = np.float32(SIGNAL) * x + np.float32(1 - SIGNAL) * noise
    return w.astype("f4"), u.astype("f4"), x, y, noise


def _ours(w: Any, u: Any, x: Any, noise: Any, steps: int) -> tuple[Any, Any]:
    w, u = w.copy(), u.copy()
    assert advance(w, u, x[:steps], noise[:steps], SIGNAL, LEARNING_RATE)
    return w, u


def _plain(w: Any, u: Any, x: Any, y: Any, steps: int) -> tuple[float, tuple[Any, Any]]:
    """The loop that a user would write first, without ``torch.optim``, which would only add to it.

    Returns the microseconds of the steps and both matrices.
    """
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
    w, u = (torch.nn.Parameter(torch.from_numpy(matrix.copy())) for matrix in (w, u))
    begin = time.perf_counter()
    for step in range(steps):
        loss = ((w @ (u @ inputs[step]) - targets[step]) ** 2).sum()
        w_gradient, u_gradient = torch.autograd.grad(loss, (w, u))
        with torch.no_grad():
            w -= LEARNING_RATE * w_gradient
            u -= LEARNING_RATE * u_gradient
    return 1e6 * (time.perf_counter() - begin), (w.detach().numpy(), u.detach().numpy())


@torch.no_grad()
def _by_hand(w: Any, u: Any, x: Any, y: Any, steps: int) -> tuple[float, tuple[Any, Any]]:
    """One run without autograd: three products of a matrix and a vector, two updates in place."""
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
    w, u = (torch.from_numpy(matrix.copy()) for matrix in (w, u))
    begin = time.perf_counter()
    for step in range(steps):
        hidden = torch.mv(u, inputs[step])
        error = torch.mv(w, hidden).sub_(targets[step])
        gradient = torch.mv(w.t(), error)
        w.addr_(error, hidden, alpha=-2 * LEARNING_RATE)
        u.addr_(gradient, inputs[step], alpha=-2 * LEARNING_RATE)
    return 1e6 * (time.perf_counter() - begin), (w.numpy(), u.numpy())


@torch.no_grad()
def _batched_products(w: Any, u: Any, x: Any, y: Any, steps: int) -> tuple[float, tuple[Any, Any]]:
    """All runs of a sweep as one tensor program of batched products, ``baddbmm_`` for both updates."""
    inputs, targets = torch.from_numpy(x)[:, None, :, None], torch.from_numpy(y)[:, None, :, None]
    w, u = (torch.from_numpy(matrix).expand(RUNS, -1, -1).clone() for matrix in (w, u))
    rate = torch.full((RUNS, 1, 1), -2 * LEARNING_RATE)
    begin = time.perf_counter()
    for step in range(steps):
        x_step = inputs[step].expand(RUNS, -1, -1)
        hidden = torch.bmm(u, x_step)
        error = torch.bmm(w, hidden).sub_(targets[step]).mul_(rate)
        gradient = torch.bmm(w.transpose(1, 2), error)
        w.baddbmm_(error, hidden.transpose(1, 2))
        u.baddbmm_(gradient, x_step.transpose(1, 2))
    return 1e6 * (time.perf_counter() - begin), (w[0].numpy(), u[0].numpy())


@torch.no_grad()
def _batched_updates(w: Any, u: Any, x: Any, y: Any, steps: int) -> tuple[float, tuple[Any, Any]]:
    """The same where U is one tall matrix, so that its product is a single one, and updates are broadcast."""
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)[:, None, :]
    w, u = (torch.from_numpy(matrix).expand(RUNS, -1, -1).clone() for matrix in (w, u))
    rate = torch.full((RUNS, 1, 1), -2 * LEARNING_RATE)
    tall = u.view(-1, DIMENSION)
    begin = time.perf_counter()
    for step in range(steps):
        hidden = torch.mv(tall, inputs[step]).view(RUNS, DIMENSION, 1)
        error = torch.bmm(w, hidden).transpose(1, 2).sub_(targets[step]).mul_(rate)
        gradient = torch.bmm(error, w)
        w.addcmul_(error.transpose(1, 2), hidden.transpose(1, 2))
        tall.addr_(gradient.reshape(-1), inputs[step])
    return 1e6 * (time.perf_counter() - begin), (w[0].numpy(), u[0].numpy())


if __name__ == "__main__":
    for name, value in bench().items():
        print(f"{name:22} {value:10.3f}")
