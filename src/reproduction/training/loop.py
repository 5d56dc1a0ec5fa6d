"""One training loop for picture classifiers: plain PyTorch, the data on the device, resumable from inside an epoch.

Nothing in a run depends on the process that computes it: the shuffle and the augmentation of an epoch are drawn from
the experiment's name, the seed and the epoch, so a run that goes on from a checkpoint draws the same.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from reproduction.contract import Context, SettingError
from reproduction.data.images import Images
from reproduction.streams import stream, torch_seed
from reproduction.training.precision import Precision, chosen, computing
from reproduction.training.recipe import Recipe

Network = TypeVar("Network", bound=nn.Module)

EVALUATION_BATCH = 500
PROGRESS_STEPS = 50
SAFE_CHANNELS = 8


@dataclass(frozen=True)
class Trained:
    """What a training leaves beside the network.

    Args:
        history: each measure's values, one an epoch, the start among them (epoch 0). ``train_loss`` is the mean loss of
            the epoch's steps, for epoch 0 the loss of the first step, before any update; ``epoch_seconds`` the time
            that the epoch's steps took without the measures, for epoch 0 zero.
        diverged: True where a loss or, at the end, a parameter was not finite; the history may then end early.
        precision: what the network computed in.
    """

    history: dict[str, list[float]]
    diverged: bool
    precision: Precision


@contextlib.contextmanager
def reproducible(device: str, threads: int) -> Iterator[None]:
    """Compute with a fixed number of threads and, on a GPU, with deterministic algorithms and float32 as it is written.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        threads: CPU threads. One and two of them give other last bits.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with contextlib.nullcontext() if device == "cpu" else _deterministic_gpu():
            yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _deterministic_gpu() -> Iterator[None]:
    """Choose deterministic kernels, the same ones each time, and no TF32, which rounds float32 to 10 bits.

    Deterministic mode also fills all memory that is asked for, to show what reads it unwritten; that costs time only.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it deterministic mode refuses cuBLAS
    cudnn, filling = torch.backends.cudnn, cast(Any, torch.utils.deterministic)  # a module with a property
    before = torch.are_deterministic_algorithms_enabled(), filling.fill_uninitialized_memory
    flags = cudnn.allow_tf32, cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32
    torch.use_deterministic_algorithms(True)
    filling.fill_uninitialized_memory = False
    cudnn.allow_tf32 = cudnn.benchmark = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        filling.fill_uninitialized_memory = before[1]
        cudnn.allow_tf32, cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32 = flags


def initialized(build: Callable[[], Network], experiment: str, seed: int) -> Network:
    """Return ``build()``, its random initial values drawn from the experiment and the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(experiment, seed, "initial"))
        return build()


def memory_format(model: nn.Module, device: str) -> torch.memory_format:
    """Return the memory layout to train a network in: channels_last, the faster one on CPUs and GPUs, where it is safe.

    On a CPU, torch 2.14.1 corrupts the heap in the gradient of a strided 1x1 convolution over 4 or 6 channels in
    channels_last. Networks with such a convolution over fewer than 8 channels get the contiguous layout there.

    Args:
        model: the network.
        device: ``"cpu"`` or ``"cuda"``.
    """
    for module in model.modules() if device == "cpu" else ():
        few = isinstance(module, nn.Conv2d) and module.in_channels < SAFE_CHANNELS
        if few and module.kernel_size == (1, 1) and module.stride != (1, 1):
            return torch.contiguous_format
    return torch.channels_last


def laid_out(pictures: Tensor, layout: torch.memory_format) -> Tensor:
    """Return a copy of pictures in a memory layout.

    ``Tensor.contiguous`` does not do: with one channel a batch counts as contiguous in both layouts, whatever its
    strides are, and its strides decide in which one the whole network computes.
    """
    return pictures.clone(memory_format=layout)


class Pictures:
    """Pictures and labels on the device, normalized to mean 0 and variance 1 per channel as they are read.

    Args:
        images: the data set; both parts are normalized by its training part.
        device: ``"cpu"`` or ``"cuda"``.
    """

    def __init__(self, images: Images, device: str) -> None:
        self.device = device
        self.train_images = torch.from_numpy(images.train_images).to(device)
        self.train_labels = torch.from_numpy(images.train_labels).to(device)
        self.test_images = torch.from_numpy(images.test_images).to(device)
        self.test_labels = torch.from_numpy(images.test_labels).to(device)
        mean = images.train_images.mean(axis=(0, 2, 3), dtype=np.float64)
        std = images.train_images.std(axis=(0, 2, 3), dtype=np.float64)
        self._mean = torch.tensor(mean, dtype=torch.float32, device=device)[:, None, None]
        self._std = torch.tensor(std, dtype=torch.float32, device=device)[:, None, None]

    def normalized(self, pixels: Tensor) -> Tensor:
        """Return uint8 pictures of shape (pictures, channels, height, width) as the network reads them."""
        return (pixels.float() - self._mean) / self._std

    def test_batches(self, limit: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (pictures, labels) of the test part in order, the first ``limit`` pictures where it is given."""
        images, labels = self.test_images[:limit], self.test_labels[:limit]
        for part, answers in zip(
            torch.split(images, EVALUATION_BATCH), torch.split(labels, EVALUATION_BATCH), strict=True
        ):
            yield self.normalized(part), answers


def augmented(pixels: Tensor, shifts: Tensor, flips: Tensor | None, padding: int) -> Tensor:
    """Return pictures cropped at a random place of their padded selves, and flipped.

    Args:
        pixels: shape (pictures, channels, height, width).
        shifts: rows and columns to start from, between 0 and 2 padding, shape (pictures, 2); the middle leaves a
            picture where it is.
        flips: which pictures to flip left to right, shape (pictures,), or None.
        padding: pixels of zeros on each side.
    """
    if padding:
        height, width = pixels.shape[2:]
        windows = functional.pad(pixels, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
        pixels = windows[torch.arange(len(pixels), device=pixels.device), :, shifts[:, 0], shifts[:, 1]]
    if flips is not None:
        pixels = torch.where(flips[:, None, None, None], pixels.flip(3), pixels)
    return pixels


@dataclass(frozen=True)
class _Epoch:
    """The random choices of one epoch: the order of the pictures, and how each is augmented."""

    order: Tensor
    shifts: Tensor
    flips: Tensor | None

    @classmethod
    def draw(cls, count: int, recipe: Recipe, experiment: str, seed: int, epoch: int, device: str) -> _Epoch:
        random = stream(experiment, seed, f"epoch {epoch}")
        order = random.permutation(count)
        shifts = random.integers(0, 2 * recipe.crop_padding + 1, (count, 2))
        flips = torch.from_numpy(random.random(count) < 0.5).to(device) if recipe.flip else None
        return cls(torch.from_numpy(order).to(device), torch.from_numpy(shifts).to(device), flips)

    def batch(self, pictures: Pictures, step: int, recipe: Recipe) -> tuple[Tensor, Tensor]:
        part = slice(step * recipe.batch_size, (step + 1) * recipe.batch_size)
        chosen = self.order[part]
        flips = None if self.flips is None else self.flips[part]
        pixels = augmented(pictures.train_images[chosen], self.shifts[part], flips, recipe.crop_padding)
        return pictures.normalized(pixels), pictures.train_labels[chosen]


def learning_rate(recipe: Recipe, step: int, total: int) -> float:
    """Return the learning rate of a step, counted from 0 over the whole training of ``total`` steps."""
    if recipe.schedule == "constant":
        return recipe.learning_rate
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * step / total))


def steps_per_epoch(pictures: int, recipe: Recipe) -> int:
    """Return the number of full batches in an epoch; what is left over is dropped, other pictures in every epoch.

    Raises:
        SettingError: if there is no full batch.
    """
    steps = pictures // recipe.batch_size
    if steps == 0:
        raise SettingError(
            f"batch_size is {recipe.batch_size} and there are {pictures} training pictures; choose a smaller batch_size"
        )
    return steps


def accuracy(model: nn.Module, pictures: Pictures, precision: Precision = "float32") -> float:
    """Return the fraction of test pictures that a network, in eval mode, classifies correctly."""
    model.eval()
    with torch.no_grad(), computing(precision, pictures.device):
        right = sum((model(batch).argmax(1) == labels).sum() for batch, labels in pictures.test_batches())
    return float(right) / len(pictures.test_labels)


class _Run:
    """The state of a training between two steps; ``step`` counts inside ``epoch``, which counts from 1."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: str,
        layout: torch.memory_format,
        precision: Precision,
        label: str,
    ) -> None:
        self.model, self.optimizer, self.device, self.layout, self.label = model, optimizer, device, layout, label
        self.epoch, self.step, self.seconds = 1, 0, 0.0
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.history: dict[str, list[float]] = {}
        self.diverged = False
        self.precision = precision

    def state(self, seconds: float) -> dict[str, Any]:
        """Return all that :meth:`restore` needs, ``seconds`` after the epoch was started or taken up again."""
        return {
            "label": self.label,
            "precision": self.precision,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "loss_sum": self.loss_sum,
            "seconds": self.seconds + seconds,
            "history": self.history,
        }

    def restore(self, state: dict[str, Any] | None) -> bool:
        """Go back to a saved state; False where there is none of this very run."""
        if state is None or state["label"] != self.label:
            return False
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision = state["precision"]  # whatever this machine would choose
        self.epoch, self.step, self.seconds = state["epoch"], state["step"], state["seconds"]
        self.loss_sum = state["loss_sum"].to(self.device)
        self.history = state["history"]
        return True

    def advance(self, pictures: Tensor, labels: Tensor) -> None:
        """Take one step; the loss is not read, since that would wait for the GPU."""
        self.optimizer.zero_grad(set_to_none=True)
        with computing(self.precision, self.device):
            loss = functional.cross_entropy(self.model(laid_out(pictures, self.layout)), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.loss_sum += loss.detach()
        self.step += 1

    def mean_loss(self) -> float:
        """Return the mean loss of the epoch's steps so far, and note whether it is finite."""
        loss = float(self.loss_sum) / self.step
        self.diverged |= not math.isfinite(loss)
        return loss

    def record(self, numbers: Mapping[str, float]) -> None:
        """Append each number to its history."""
        for name, number in numbers.items():
            self.history.setdefault(name, []).append(float(number))

    def next_epoch(self) -> None:
        """Start the next epoch."""
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        self.loss_sum.zero_()


def train(
    model: nn.Module,
    pictures: Pictures,
    recipe: Recipe,
    weight_decay: float,
    experiment: str,
    seed: int,
    context: Context,
    measure: Callable[[Precision], Mapping[str, float]] = lambda precision: {},
    label: str = "",
) -> Trained:
    """Train a network in place with SGD on the cross-entropy.

    Weight decay (PyTorch's number, twice the paper's γ) acts on all parameters, BatchNorm's included. In bfloat16
    the network computes, and keeps its parameters, gradients and momentum in float32; a checkpoint goes on in the
    precision that it began with.

    Args:
        model: the network, on any device; it is moved to the context's.
        pictures: the data set, on the context's device.
        recipe: the training's settings.
        weight_decay: the decay of every parameter.
        experiment: name of the experiment, for the random streams.
        seed: seed of the run.
        context: where progress and checkpoints go. A checkpoint holds the network, the momentum, epoch, step and the
            history so far; the random choices of an epoch are drawn again.
        measure: called before the first epoch and after each one with the precision that the network computes in; its
            numbers go into the history.
        label: what else tells this run from others; a checkpoint of another run is not taken up.

    Raises:
        Stopped: where the run was asked to stop; its state is in the checkpoint.
        ValueError: if there are fewer training pictures than one batch needs.
    """
    device, layout = context.device, memory_format(model, context.device)
    model.to(device).to(memory_format=layout)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=weight_decay, fused=True
    )
    precision = chosen(recipe.precision, device)
    run = _Run(model, optimizer, device, layout, precision, label=f"{experiment} {seed} {weight_decay!r} {label}")
    if not run.restore(context.checkpoint.load()):
        run.record({"train_loss": math.nan, "epoch_seconds": 0.0, **measure(run.precision)})
    steps = steps_per_epoch(len(pictures.train_images), recipe)
    while run.epoch <= recipe.epochs:
        loss, seconds = _epoch(run, pictures, recipe, experiment, seed, steps, context)
        if run.diverged:
            break
        run.record({"train_loss": loss, "epoch_seconds": seconds, **measure(run.precision)})
        run.next_epoch()
    finite = all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())
    return Trained(run.history, run.diverged or not finite, run.precision)


def _epoch(
    run: _Run, pictures: Pictures, recipe: Recipe, experiment: str, seed: int, steps: int, context: Context
) -> tuple[float, float]:
    """Take the steps that are left of an epoch; return its mean loss and the seconds that its steps took."""
    draws = _Epoch.draw(len(pictures.train_images), recipe, experiment, seed, run.epoch, context.device)
    total = recipe.epochs * steps
    run.model.train()
    started = time.perf_counter()
    while run.step < steps and not run.diverged:
        done = (run.epoch - 1) * steps + run.step
        for group in run.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, done, total)
        run.advance(*draws.batch(pictures, run.step, recipe))
        if done == 0:
            run.history["train_loss"][0] = run.mean_loss()
        if (done + 1) % PROGRESS_STEPS == 0 or run.step == steps:
            context.progress(done + 1, total, {"loss": run.mean_loss()})
        if context.checkpoint.due():
            context.checkpoint.save(run.state(time.perf_counter() - started))
    return run.mean_loss(), run.seconds + time.perf_counter() - started
