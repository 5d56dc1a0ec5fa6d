"""Run one point: give it data, a device, checkpoints and a progress bar, and write what it returns."""

from __future__ import annotations

import datetime
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mirrorsym import fingerprints, provenance, store
from mirrorsym.checkpoints import FileCheckpoint
from mirrorsym.config import ConfigError, load_experiment, nearest
from mirrorsym.experiments.base import Context, NoCheckpoint
from mirrorsym.points import Point

if TYPE_CHECKING:
    import xarray as xr
    from tqdm import tqdm

    from mirrorsym.data.images import Images


def run_point(
    point: Point,
    results: Path,
    data: Path,
    out: Path | None = None,
    device: str = "cpu",
    checkpoint_seconds: float = 300,
) -> xr.Dataset:
    """Return the point's dataset, described after the contract, and write it where ``out`` says.

    A training keeps its checkpoints below ``results/checkpoints`` and removes them when the result stands.

    Raises:
        ConfigError: if a GPU is demanded and there is none.
        FileError: if another process trains the same point, or a checkpoint or the result cannot be written.
        Stopped: if a signal stopped a training, after its checkpoint was written.
    """
    experiment = load_experiment(point.module)
    read_sources: list[str] = []

    def images(name: str) -> Images:
        found = load_images(name, data, point.data)
        read_sources.append(found.source)
        return found

    device = pick_device(device) if experiment.training else "cpu"
    code = code_attributes(point, results)  # before the run: an edit while it computes is not what computed it
    checkpoint: FileCheckpoint | NoCheckpoint = NoCheckpoint()
    if experiment.training:
        checkpoint = FileCheckpoint(
            results / "checkpoints" / point.name.with_suffix(""), checkpoint_seconds, code["fingerprint"]
        )
        checkpoint.stop_on(signal.SIGTERM, signal.SIGINT)
    settings = experiment.settings.model_validate(point.settings)
    try:
        with ProgressBar(point) as progress:
            context = Context(progress=progress, checkpoint=checkpoint, device=device, images=images)
            dataset = experiment.run(settings, point.grid, point.seed, context)
    except BaseException:
        if isinstance(checkpoint, FileCheckpoint):
            checkpoint.remove_if_empty()
        raise
    described = store.describe(dataset, experiment, attributes_of(point, device, read_sources) | code)
    if out is not None:
        store.write(described, out)
    if isinstance(checkpoint, FileCheckpoint):
        checkpoint.remove()
    return described


def pick_device(wanted: str) -> str:
    """Return "cuda" or "cpu" for "cuda", "cpu" or "auto".

    Raises:
        ConfigError: if "cuda" is demanded and torch finds no GPU.
    """
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda: torch finds no GPU on this machine; use device cpu or auto")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def load_images(name: str, data: Path, checksum: str | None) -> Images:
    """Return a data set by its name: "digits", or "cifar10" from ``data/cifar10.nc``.

    Raises:
        DataError: if the file is missing, damaged, or made from an archive of another checksum.
    """
    if name == "digits":
        from mirrorsym.data import digits

        return digits.load()
    if name != "cifar10":
        raise ConfigError(f"there is no data set {name!r}{nearest(name, ('cifar10', 'digits'))}")
    from mirrorsym.data import cifar10

    return cifar10.load(data / "cifar10.nc", checksum)


def code_attributes(point: Point, results: Path) -> dict[str, str]:
    """Return what a point's file says of the code that made it."""
    module = f"mirrorsym.experiments.{point.module}"
    return {
        "code_version": provenance.code_version(),
        "fingerprint": fingerprints.accepted(results / "fingerprints", module),
    }


def attributes_of(point: Point, device: str, sources: list[str]) -> dict[str, str]:
    """Return what a point's file says of how it was made."""
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    attributes = {
        "experiment": point.experiment,
        "point": point.to_json(),
        "config_hash": point.config_hash,
        "created": created,
        "history": f"{created} mirrorsym run {point.experiment}",
        "software": provenance.software(),
        "device": provenance.device(device),
    }
    return attributes | ({"data_source": "; ".join(dict.fromkeys(sources))} if sources else {})


class ProgressBar:
    """A tqdm bar that is made at the first call, with the numbers that the run shows."""

    def __init__(self, point: Point) -> None:
        self._name = point.experiment
        self._bar: tqdm[NoReturn] | None = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, done: int, total: int, numbers: Mapping[str, float]) -> None:
        if self._bar is None:
            from tqdm import tqdm

            seconds = 0.2 if sys.stderr.isatty() else 30
            self._bar = tqdm(total=total, desc=self._name, mininterval=seconds, dynamic_ncols=True)
        self._bar.set_postfix({name: f"{value:.4g}" for name, value in numbers.items()}, refresh=False)
        self._bar.update(done - self._bar.n)
