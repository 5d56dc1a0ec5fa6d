"""Measured rates of a device: how long a job's start-up and each unit of its work takes there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reproduction.files import FileError, write_atomically
from reproduction.training.flop import Work

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]

PEAKS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L4": 121e12, "V100": 125e12}
"""Published dense peaks in FLOP/s, bfloat16 (V100: float16), of NVIDIA's data sheets."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Speed(_Model):
    """The speed of training steps of one size."""

    step_flop: float = Field(gt=0, description="FLOPs of a step.")
    seconds_per_flop: float = Field(gt=0, description="Time of a step for each of its FLOPs.")


class Arm(_Model):
    """The speed of trainings with one parameterization."""

    speeds: list[Speed] = Field(min_length=1, description="Measured sizes, the smallest first.")
    evaluation: float | None = Field(None, gt=0, description="Seconds per FLOP of an evaluation; None: as a step's.")


class Rates(_Model):
    """What was measured on one device.

    Times on a CPU are the seconds that a core computes. A job has one thread, so with a core of its own they are its
    seconds by the clock; they do not depend on what else the machine does.
    """

    device: str = Field(description="cpu or cuda.")
    name: str = Field(description="The processor's or the GPU's model.")
    date: str
    software: str
    code_version: str
    peak_flops: float | None = Field(None, gt=0, description="FLOP/s that the device can reach at most.")
    peak_source: str = Field("", description="Where the peak comes from.")
    starts: dict[str, Seconds] = Field(description="Seconds of a job's start-up, by module; collect and notebook too.")
    terms: dict[str, dict[str, Seconds]] = Field({}, description="Seconds per unit of work, by module and term.")
    trainings: dict[str, Arm] = Field({}, description="Speeds of trainings, by parameterization.")

    def seconds(self, work: Work) -> float | None:
        """Return the seconds of a job, or None where its module was not measured."""
        start = self.starts.get(work.module)
        if start is None:
            return None
        if work.arm:
            computing = self._training_seconds(work)
            return None if computing is None else start + computing
        terms = self.terms.get(work.module, {})
        if any(term not in terms for term in work.amounts):
            return None
        return start + sum(terms[term] * amount for term, amount in work.amounts.items())

    def share_of_peak(self, work: Work) -> float | None:
        """Return the share of the device's peak at which the work's training steps run, None where it is not known."""
        arm = self.trainings.get(work.arm)
        return None if arm is None or not self.peak_flops else 1 / (_per_flop(arm, work.step_flop) * self.peak_flops)

    def _training_seconds(self, work: Work) -> float | None:
        arm = self.trainings.get(work.arm)
        if arm is None:
            return None
        per_flop = _per_flop(arm, work.step_flop)
        return work.amounts["training"] * per_flop + work.amounts["evaluation"] * (arm.evaluation or per_flop)


def _per_flop(arm: Arm, step_flop: float) -> float:
    """Seconds per FLOP between the measured sizes, on a logarithmic scale; beyond them that of the nearest."""
    sizes = np.log([speed.step_flop for speed in arm.speeds])
    times = np.log([speed.seconds_per_flop for speed in arm.speeds])
    return float(np.exp(np.interp(np.log(step_flop), sizes, times)))


def published_peak(name: str) -> float | None:
    """Return the published dense peak of a GPU in FLOP/s by its name, None where it is not in the table."""
    return next((peak for gpu, peak in PEAKS.items() if re.search(rf"\b{gpu}\b", name)), None)


def read_rates(directory: Path, device: str) -> tuple[Rates, Path] | None:
    """Return a device's rates and their file: measured in this project, or those that came with it, or None.

    Raises:
        FileError: if the file is damaged.
    """
    for path in (rates_file(directory, device), directory / "config" / "rates.json"):
        if path.is_file():
            try:
                rates = Rates.model_validate_json(path.read_text())
            except (ValidationError, UnicodeDecodeError):
                raise FileError(f"{path} is no file of rates; delete it and run mirrorsym calibrate") from None
            if rates.device == device:
                return rates, path
    return None


def rates_file(directory: Path, device: str) -> Path:
    """Return where the rates measured on a device of this project lie."""
    return directory / "results" / "rates" / f"{device}.json"


def write_rates(rates: Rates, path: Path) -> None:
    """Write rates, whole or not at all.

    Raises:
        FileError: if the file cannot be written.
    """
    write_atomically(path, rates.model_dump_json(indent=1) + "\n")


def fit(amounts: Sequence[Mapping[str, float]], seconds: Sequence[float]) -> dict[str, float]:
    """Return the seconds per unit of each term that explain the times of several jobs best, none negative.

    Args:
        amounts: the terms of each job; the same names in all of them.
        seconds: the time of each job, above 0.
    """
    from scipy.optimize import nnls

    names = list(amounts[0])
    table = np.array([[job[name] for name in names] for job in amounts])
    scale = np.maximum(table.max(axis=0), 1.0)
    # Each job counts by its relative error: the start-up of short ones is as much wanted as the rate of long ones.
    times = np.array(seconds)
    solution = nnls(table / scale / times[:, None], np.ones(len(times)))[0] / scale
    return {name: float(rate) for name, rate in zip(names, solution, strict=True)}
