"""Peak memory of a training step: the allocator's on a GPU, the resident size of a process on a CPU."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from reproduction.training.loop import laid_out, memory_format
from reproduction.training.precision import Precision, computing

_LINUX = sys.platform == "linux"
_M_MMAP_THRESHOLD = -3


def step_peak(
    build: Callable[[], nn.Module], shape: tuple[int, ...], batch_size: int, device: str, precision: Precision
) -> int:
    """Return the peak memory of a step of SGD with momentum, in bytes, above what there was before the network.

    The momentum exists already in the step that is measured. Parameters, gradients and momentum are float32,
    whatever the network computes in. On a CPU it is measured in a fork, so call it in a process that has done little
    else: memory that was freed before would be used again, uncounted.

    Args:
        build: makes the network.
        shape: of a picture, (channels, height, width).
        batch_size: pictures in the step.
        device: ``"cpu"`` or ``"cuda"``.
        precision: what the network computes in.
    """
    if device == "cpu":
        return _in_fork(lambda: _resident_peak(build, shape, batch_size, precision))
    _warm_up(shape, device, precision)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    take_step = _training_step(build, shape, batch_size, device, precision)
    take_step()
    torch.cuda.reset_peak_memory_stats()
    take_step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _training_step(
    build: Callable[[], nn.Module], shape: tuple[int, ...], batch_size: int, device: str, precision: Precision
) -> Callable[[], None]:
    network = build()
    layout = memory_format(network, device)
    network.to(device).to(memory_format=layout)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, fused=True)
    pictures = laid_out(torch.zeros((batch_size, *shape), device=device), layout)
    labels = torch.zeros(batch_size, dtype=torch.int64, device=device)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and batch_size == 1:
            module.eval()  # one picture that has shrunk to one pixel has no variance

    def take_step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with computing(precision, device):
            loss = functional.cross_entropy(network(pictures), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return take_step


def _warm_up(shape: tuple[int, ...], device: str, precision: Precision) -> None:
    """Let the libraries load their code and take their workspaces, which are no part of a step."""
    layers = nn.Conv2d(shape[0], 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    _training_step(lambda: nn.Sequential(*layers), shape, 1, device, precision)()


def _resident_peak(
    build: Callable[[], nn.Module], shape: tuple[int, ...], batch_size: int, precision: Precision
) -> int:
    torch.set_num_threads(1)
    with contextlib.suppress(
        AttributeError
    ):  # glibc: blocks above 64 KiB go back when freed, so that the peak is exact
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 16)
    _warm_up(shape, "cpu", precision)
    build()  # what it imports is no part of a step
    _forget_the_past()
    before = _largest()
    take_step = _training_step(build, shape, batch_size, "cpu", precision)
    take_step()
    _forget_the_past()
    take_step()
    return _largest() - before


def _forget_the_past() -> None:
    """Give back what was freed and let the largest size start from now on, where the system can."""
    if _LINUX:
        with contextlib.suppress(AttributeError):  # musl has no malloc_trim and keeps little
            ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def _largest() -> int:
    """Return the largest resident size so far, in bytes."""
    if _LINUX:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def _in_fork(function: Callable[[], int]) -> int:
    """Return the function's number, computed in a fork of this process.

    Raises:
        ChildProcessError: if the fork ends without an answer.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(write, str(function()).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise ChildProcessError(f"the process that measures memory ended with status {status}")
    return int(text)
