"""``python -m benchmarks.breaking``: remedies against the loss of plasticity side by side, into docs/break.md.

The task is the paper's (Section 3.4, Appendix B.3): linear regression on one task after the other by f(x) = Σ wᵢ uᵢ xᵢ,
with the data, the starts and the settings of the experiment ``plasticity``. All remedies see the same batches, in one
run, each from the same start. Adam's moments start anew with each task, as in Figure 4's first panels.

- L2 towards the start: γ‖θ - θ₀‖² in the loss (Kumar, Marklund, Van Roy 2023, "Maintaining plasticity in continual
  learning via regenerative regularization").
- ReDo: of hidden units h = w x those whose mean magnitude is at most 0.025 of the layer's are dormant; they get new
  incoming weights and outgoing ones of zero (Sokar, Agarwal, Castro, Evci 2023, "The dormant neuron phenomenon in deep
  reinforcement learning"; every thousand steps there).
- Gradient noise and a fixed bias: the paper's own, of its variances.
- ``break_symmetry``: once, before each task but the first.
"""

from __future__ import annotations

import argparse
import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import mirrorsym
from benchmarks.guides import write_measured
from mirrorsym.features import DORMANT
from mirrorsym.measures import sparsity
from reproduction.experiments.plasticity import PlasticitySettings, _tasks, gradients
from reproduction.pipeline import provenance
from reproduction.streams import stream

GUIDE = Path("docs/break.md")
BEGIN = "<!-- measured by python -m benchmarks.breaking -->"
LEARNING_RATE = 0.01
LABEL_NOISES = (0.1, 1.0)
SEEDS, LAST = 10, 3
REDO_EVERY = 1000
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Method:
    """A remedy.

    Args:
        name: as the table calls it.
        l2: γ of the distance to the start.
        noise: whether gradients have noise.
        bias: whether weights have a fixed bias.
        every: ReDo's steps between two looks; 0 for once before each task, None for never.
        breaks: whether ``break_symmetry`` is called before each task.
        single: whether there is one weight a feature, and no symmetry.
    """

    name: str
    l2: float = 0.0
    noise: bool = False
    bias: bool = False
    every: int | None = None
    breaks: bool = False
    single: bool = False


METHODS = (
    Method("plain training"),
    Method("L2 towards the start, 0.0001", l2=1e-4),
    Method("L2 towards the start, 0.001", l2=1e-3),
    Method("L2 towards the start, 0.01", l2=1e-2),
    Method("fixed bias", bias=True),
    Method("ReDo, once a task", every=0),
    Method(f"ReDo, every {REDO_EVERY} steps", every=REDO_EVERY),
    Method("gradient noise", noise=True),
    Method("`break_symmetry`, once a task", breaks=True),
    Method("one weight a feature, no symmetry", single=True),
)


class Rescaled(nn.Module):
    """The paper's regressor, f(x) = Σ wᵢ uᵢ xᵢ, one weight of each factor a feature."""

    def __init__(self, factors: Tensor) -> None:
        super().__init__()
        self.w, self.u = (nn.Parameter(factor.clone()) for factor in factors)

    def forward(self, x: Tensor) -> Tensor:
        """Return predictions for points of shape (points, features)."""
        return x @ (self.w * self.u)


class Runs:
    """All remedies on all seeds and label noises, trained together.

    Args:
        settings: the experiment's.
        seeds: so many of its seeds.
        noises: standard deviations of the labels' noise.
    """

    def __init__(self, settings: PlasticitySettings, seeds: int, noises: Sequence[float] = LABEL_NOISES) -> None:
        self.settings, self.noises = settings, noises
        shape = (2, settings.dimension)
        draws = {
            purpose: torch.from_numpy(
                np.stack([stream("plasticity", seed, purpose).standard_normal(shape) for seed in range(seeds)], axis=1)
            )[:, :, None].float()
            for purpose in ("initial", "bias")
        }
        start = (settings.initial_std * draws["initial"]).repeat(1, 1, len(METHODS), 1)
        bias = settings.bias_variance**0.5 * draws["bias"][:, :, 0]
        start[:, :, self._where("bias")] += bias  # a bias is a translation: nothing else differs
        start[1, :, self._where("single")] = 1
        # Factors of shape (2, label noises · seeds, remedies, features), as all tensors here.
        self.factors = start.repeat(1, len(noises), 1, 1)
        self._start = self.factors.clone()
        self._moments = torch.zeros_like(self.factors)
        self._l2 = torch.tensor([method.l2 for method in METHODS])[:, None]
        self._generator = torch.Generator().manual_seed(0)

    def train(self, inputs: Tensor, targets: Tensor, batches: Tensor, first: bool) -> None:
        """Train on one task.

        Args:
            inputs: shape (label noises · seeds, points, features).
            targets: shape (label noises · seeds, points).
            batches: indices of points, shape (label noises · seeds, steps, batch).
            first: whether it is the first task, before which nothing is moved.
        """
        self._moments.zero_()
        if not first:
            self._break(inputs)
            self._redo(inputs, [k for k, method in enumerate(METHODS) if method.every == 0])
        groups, points, features = inputs.shape
        rows = batches + points * torch.arange(groups)[:, None, None]
        flat, labels = inputs.reshape(-1, features), targets.reshape(-1)
        often = [k for k, method in enumerate(METHODS) if method.every]
        for step in range(rows.shape[1]):
            chosen = rows[:, step].reshape(-1)
            x = flat.index_select(0, chosen).view(groups, -1, features)
            self._step(x, labels.index_select(0, chosen).view(groups, 1, -1), step + 1)
            if (step + 1) % REDO_EVERY == 0:
                self._redo(inputs, often)

    def _step(self, x: Tensor, y: Tensor, count: int) -> None:
        """One step of Adam without momentum on the mean squared error of a batch."""
        w, u = self.factors
        errors = torch.baddbmm(y, w * u, x.transpose(1, 2), beta=-1)
        slope = torch.bmm(errors, x).mul_(2 / x.shape[1])
        gradient = torch.stack([u * slope, w * slope])
        gradient.add_((self.factors - self._start).mul_(2 * self._l2))
        noisy = self._where("noise")
        noise = torch.randn(gradient[:, :, noisy].shape, generator=self._generator)
        gradient[:, :, noisy] += self.settings.gradient_noise_variance**0.5 * noise
        gradient[1, :, self._where("single")] = 0
        beta2 = self.settings.beta2
        self._moments.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = (self._moments / (1 - beta2**count)).sqrt_().add_(self.settings.epsilon)
        self.factors.addcdiv_(gradient, root, value=-LEARNING_RATE)

    def _redo(self, inputs: Tensor, methods: Sequence[int]) -> None:
        """Give dormant units new incoming weights, and outgoing ones of zero."""
        for k in methods:
            hidden = (self.factors[0, :, k, None] * inputs).abs().mean(1)
            dormant = hidden <= DORMANT * hidden.mean(1, keepdim=True)
            fresh = self.settings.initial_std * torch.randn(hidden.shape, generator=self._generator)
            self.factors[0, :, k] = torch.where(dormant, fresh, self.factors[0, :, k])
            self.factors[1, :, k] = torch.where(dormant, 0.0, self.factors[1, :, k])
            self._moments[:, :, k] = torch.where(dormant, 0.0, self._moments[:, :, k])

    def _break(self, inputs: Tensor) -> None:
        (k,) = (k for k, method in enumerate(METHODS) if method.breaks)
        for group, points in enumerate(inputs):
            model = Rescaled(self.factors[:, group, k])
            mirrorsym.break_symmetry(model, points[:16], seed=group)
            self.factors[:, group, k] = torch.stack([model.w, model.u]).detach()

    def _where(self, what: str) -> int:
        return next(k for k, method in enumerate(METHODS) if getattr(method, what))

    def measure(self, inputs: Tensor, targets: Tensor) -> Floats:
        """Return loss, dead units and sparsity on a task, shape (3, label noises, seeds, remedies).

        A unit is dead where the gradients of both of its weights vanish at every point of the task.
        """
        found = np.empty((3, *self.factors.shape[1:3]))
        for group in range(found.shape[1]):
            x, y = inputs[group].double().numpy(), targets[group].double().numpy()
            for k, method in enumerate(METHODS):
                both = self.factors[:, group, k].double().numpy()
                factors = both[:1] if method.single else both
                largest, _, loss = gradients(factors, x, y)
                dead = (largest.reshape(factors.shape) < self.settings.dead_threshold).all(axis=0).sum()
                found[:, group, k] = loss, dead, sparsity(factors.prod(axis=0))
        return found.reshape(3, len(self.noises), -1, len(METHODS))


def measure(
    settings: PlasticitySettings,
    seeds: int = SEEDS,
    noises: Sequence[float] = LABEL_NOISES,
    say: Callable[[str], None] = print,
) -> Floats:
    """Return loss, dead units and sparsity after each task, shape (3, tasks, label noises, seeds, remedies)."""
    runs, found = Runs(settings, seeds, noises), []
    tasks = zip(*(_tasks(settings, seed, False) for seed in range(seeds)), strict=True)
    for number, drawn in enumerate(tasks):
        inputs = torch.from_numpy(np.stack([task.inputs for task in drawn] * len(noises))).float()
        targets = torch.from_numpy(np.stack([task.targets(std) for std in noises for task in drawn])).float()
        batches = torch.from_numpy(np.stack([task.batches for task in drawn] * len(noises))).long()
        with torch.no_grad():
            runs.train(inputs, targets, batches, number == 0)
        found.append(runs.measure(inputs, targets))
        say(f"task {number + 1} of {settings.tasks}")
    return np.stack(found, axis=1)


def table(found: Floats, noises: Sequence[float] = LABEL_NOISES) -> list[str]:
    """Return the lines of the guide; of seeds the mean, and of the ratio the smallest and the largest too.

    Args:
        found: what :func:`measure` returns.
        noises: its label noises.
    """
    loss, dead, zeros = found
    last = loss[-LAST:].mean(axis=0)
    ratio = last / loss[0]
    lines = [
        f"| label noise | remedy | loss after the first task | of the last {LAST} | ratio (over seeds) | dead units | "
        "products below 1e-6 |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for n, noise in enumerate(noises):
        for k, method in enumerate(METHODS):
            own = ratio[n, :, k]
            cells = [
                f"{noise:g}",
                method.name,
                f"{loss[0, n, :, k].mean():.4f}",
                f"{last[n, :, k].mean():.4f}",
                f"{own.mean():.2g} ({own.min():.2g} to {own.max():.2g})",
                f"{dead[-1, n, :, k].mean():.1f}",
                f"{100 * zeros[-1, n, :, k].mean():.0f} %",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write it into the guide if the settings are the paper's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=PlasticitySettings().tasks)
    parser.add_argument("--steps", type=int, default=PlasticitySettings().steps)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    chosen = parser.parse_args(arguments)
    settings = PlasticitySettings(tasks=chosen.tasks, steps=chosen.steps)
    torch.set_num_threads(1)
    begin = time.process_time()
    lines = table(measure(settings, chosen.seeds))
    lines += [
        "",
        f"{settings.tasks} tasks of {settings.steps:,} steps of Adam at a learning rate of {LEARNING_RATE:g}, "
        f"{chosen.seeds} seeds,",
        f"float32, in {(time.process_time() - begin) / 60:.0f} minutes of one core, {provenance.device('cpu')}, "
        f"{datetime.date.today():%d %B %Y}.",
    ]
    print("\n".join(lines))
    if settings == PlasticitySettings() and chosen.seeds == SEEDS and GUIDE.exists():
        write_measured(GUIDE, BEGIN, lines)


if __name__ == "__main__":
    main()
