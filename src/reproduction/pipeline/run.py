"""Run one point: give it data, a device, checkpoints and a progress bar, and write what it returns."""

from __future__ import annotations

import datetime
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from reproduction.contract import Context, NoCheckpoint, Stopped
from reproduction.errors import ConfigError, nearest
from reproduction.files import write_atomically
from reproduction.pipeline import fingerprints, provenance, store
from reproduction.pipeline.checkpoints import FileCheckpoint
from reproduction.pipeline.config import load_experiment, module_path
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.points import Point

if TYPE_CHECKING:
    import xarray as xr
    from tqdm import tqdm

    from reproduction.data.images import Images

GRACE = 600.0
"""Seconds that a stopped training of a cluster's job waits for its end."""
MARGIN = 90.0
"""Seconds before the end of a cluster's job at which a training stops, at most a third of the job's time."""


def run_point(
    point: Point,
    layout: Layout,
    out: Path | None = None,
    device: str = "cpu",
    checkpoint_seconds: float = 300,
    walltime: float | None = None,
) -> xr.Dataset:
    """Return the point's dataset, described after the contract, and write it where ``out`` says.

    A training keeps its checkpoints in a folder of its own and removes them when the result stands. There, too,
    lies the lease of a cluster's job, and then its result, until it is collected.

    Args:
        point: what to run.
        layout: the project's paths.
        out: where to write the dataset, if anywhere.
        device: "cpu", "cuda" or "auto".
        checkpoint_seconds: the time between two checkpoints of a training.
        walltime: seconds that a cluster gives to this job. It then waits for another job of the same point instead of
            failing, and takes the result that such a job left; a training stops by itself before they are over.

    Raises:
        ConfigError: if a GPU is demanded and there is none.
        FileError: if another process runs the same point, or a checkpoint or the result cannot be written.
        Stopped: if a signal or the walltime stopped a training, after its checkpoint was written.
    """
    deadline = deadline_of(walltime)
    experiment = load_experiment(point.module)
    read_sources: list[str] = []

    def images(name: str) -> Images:
        found = load_images(name, layout, point.data)
        read_sources.append(found.source)
        return found

    device = pick_device(device) if experiment.training else "cpu"
    code = code_attributes(point, layout)  # before the run: an edit while it computes is not what computed it
    checkpoint: FileCheckpoint | NoCheckpoint = NoCheckpoint()
    if experiment.training or deadline:
        folder = layout.checkpoints(point.name)
        checkpoint = FileCheckpoint(folder, checkpoint_seconds, code["fingerprint"], deadline)
        if deadline and out and (kept := taken(checkpoint, code["fingerprint"], out)):
            return kept
        if experiment.training:
            checkpoint.stop_on(signal.SIGTERM, signal.SIGINT)
    try:
        with ProgressBar(point) as progress:
            context = Context(progress=progress, checkpoint=checkpoint, device=device, images=images)
            dataset = experiment.run(point.settings, point.grid, point.seed, context)
    except BaseException as error:
        if isinstance(checkpoint, FileCheckpoint):
            checkpoint.remove_if_empty()
            if isinstance(error, Stopped) and deadline and checkpoint.asked_to_stop:
                wait_for_the_scheduler()
        raise
    described = store.describe(dataset, experiment, attributes_of(point, device, read_sources) | code)
    store.check_place(described, point.place)
    if out is not None:
        store.write(described, out)
    if isinstance(checkpoint, FileCheckpoint):
        if deadline and out:
            checkpoint.keep_result(out)
        else:
            checkpoint.remove()
    return described


def wait_for_the_scheduler() -> None:
    """Wait to be killed: a job that ends by itself in the grace time of its preemption counts as failed."""
    print("stopped as asked, the checkpoint is safe; waiting for the scheduler to end the job", flush=True)
    time.sleep(GRACE)


def deadline_of(walltime: float | None) -> float | None:
    """Return when a job of so many seconds has to stop, on the monotonic clock.

    The margin is for what ran before this (two starts of Snakemake), the last step, and writing the checkpoint.
    """
    return None if walltime is None else time.monotonic() + walltime - min(MARGIN, walltime / 3)


def taken(checkpoint: FileCheckpoint, fingerprint: str, out: Path) -> xr.Dataset | None:
    """Put the result that another job of this point left into its place and return it; None where there is none."""
    kept = checkpoint.kept_result()
    if kept is None:
        return None
    try:
        dataset = store.read(kept)
    except store.StoreError:
        return None
    if dataset.attrs.get("fingerprint") != fingerprint:
        return None
    write_atomically(out, kept.read_bytes())
    print(f"another job of this point has finished it: {out} is its result", flush=True)
    return dataset


def pick_device(wanted: str) -> str:
    """Return "cuda" or "cpu" for "cuda", "cpu" or "auto".

    Raises:
        ConfigError: if "cuda" is demanded and torch finds no GPU.
    """
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda: torch finds no GPU on this machine; use device cpu or auto")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def load_images(name: str, layout: Layout, checksum: str | None) -> Images:
    """Return a data set by its name: "digits", or "cifar10" from the unpacked archive.

    Raises:
        DataError: if the file is missing, damaged, or made from an archive of another checksum.
    """
    if name == "digits":
        from reproduction.data import digits

        return digits.load()
    if name != "cifar10":
        raise ConfigError(f"there is no data set {name!r}{nearest(name, ('cifar10', 'digits'))}")
    from reproduction.data import cifar10

    return cifar10.load(layout.cifar10, checksum)


def code_attributes(point: Point, layout: Layout) -> dict[str, str]:
    """Return what a point's file says of the code that made it."""
    return {
        "code_version": provenance.code_version(),
        "fingerprint": fingerprints.accepted(layout.fingerprints, module_path(point.module)),
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
    """A tqdm bar that is made at the first call, with the numbers that the run shows.

    What was done by then is not in its rate: a resumed run does not foretell its end from steps it did not take.
    """

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
            self._bar = tqdm(
                total=total, initial=done, desc=self._name, mininterval=seconds, maxinterval=30, dynamic_ncols=True
            )
        self._bar.set_postfix({name: f"{value:.4g}" for name, value in numbers.items()}, refresh=False)
        self._bar.update(done - self._bar.n)
