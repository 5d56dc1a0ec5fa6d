"""Where a sweep stands: done, running, failed, diverged; read from the folders while a run goes on, without a lock.

What each state is known by:

* done: the point's file is there. Files are renamed into place, so they are whole.
* running: a run holds this folder, and Snakemake has a mark of the unfinished output that is younger than that run; or
  a process holds the lease of the point's checkpoints. On a cluster, ask on the machine where snakemake runs; a job
  that waits in the cluster's queue counts as running.
* checkpoint: not running, with a checkpoint that the next run goes on from.
* failed: not running, with a log of an attempt that did not succeed: a job writes its benchmark file last, and when
  it succeeded only. A mark that is left says that the whole run was killed, and a training that was stopped says so.
* waiting: everything else.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tabulate import tabulate

from reproduction.contract import DIVERGED
from reproduction.pipeline.config import Config
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.points import Point, points_of
from reproduction.pipeline.snakemake.marks import unfinished_outputs
from reproduction.pipeline.snakemake.messages import last_line

DONE, RUNNING, CHECKPOINT, FAILED, WAITING = "done", "running", "checkpoint", "failed", "waiting"
STATES = (DONE, RUNNING, CHECKPOINT, FAILED, WAITING)
COLLECT, FIGURES = "collect", "figures"
"""What the collections and the figures of a scale are called among its experiments."""

_STOPPED = "stopped"
"""How the log of a training begins its last line where it wrote a checkpoint and ended."""


@dataclass(frozen=True)
class Failure:
    """A job that failed: its output, its log, and the log's last line."""

    output: str
    log: str
    said: str


@dataclass
class Status:
    """Where an experiment stands, or all collections, or all figures.

    Args:
        name: the experiment's id, "collect" or "figures".
        points: its jobs.
        counts: the number of them in each of the states.
        diverged: runs, of all that the done points hold, whose status flag says so.
        failures: what failed.
        going: outputs of what is running.
    """

    name: str
    points: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    diverged: int = 0
    failures: list[Failure] = field(default_factory=list)
    going: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Job:
    """The files of a job; ``checkpoints`` is the folder of a training's."""

    output: Path
    log: Path
    benchmark: Path
    checkpoints: Path | None = None


class _Folders:
    """What the folders hold: listings, each read once, and the marks of what is going on."""

    def __init__(self, layout: Layout) -> None:
        self._root = layout.root
        self._listings: dict[Path, dict[str, float]] = {}
        self._locked = _locked_files()
        lock = layout.lock
        marks = unfinished_outputs(layout.root)
        since = lock.stat().st_mtime if lock.is_file() else 0.0
        alive = self._holds(lock)
        self._marks = {output: alive and time_ >= since for output, time_ in marks.items()}

    def has(self, path: Path) -> bool:
        """True where a file or folder is there."""
        return path.name in self.listing(path.parent)

    def modified(self, path: Path) -> float:
        return self.listing(path.parent).get(path.name, 0.0)

    def listing(self, folder: Path) -> dict[str, float]:
        """The names in a folder with the times of their last changes; empty where there is no such folder."""
        if folder not in self._listings:
            try:
                with os.scandir(folder) as entries:
                    self._listings[folder] = {entry.name: entry.stat().st_mtime for entry in entries}
            except OSError:
                self._listings[folder] = {}
        return self._listings[folder]

    def state(self, job: _Job) -> str:
        """The state of a job."""
        if self.has(job.output):
            return DONE
        mark = self._marks.get(os.path.relpath(job.output, self._root))
        kept = self.listing(job.checkpoints) if job.checkpoints and self.has(job.checkpoints) else {}
        if mark or (job.checkpoints and "lease" in kept and self._holds(job.checkpoints / "lease")):
            return RUNNING
        # After a success the benchmark is the younger one; the output was then removed by hand.
        attempted = self.has(job.log) and self.modified(job.log) > self.modified(job.benchmark)
        if attempted and mark is None and not last_line(job.log).startswith(_STOPPED):
            return FAILED
        return CHECKPOINT if any(name.endswith(".pt") for name in kept) else WAITING

    def _holds(self, path: Path) -> bool:
        return is_held(path, self._locked)


def is_held(path: Path, locked: set[tuple[int, int, int]] | None = None) -> bool:
    """True where a process of this machine holds the lock of a file; ``locked`` are the files known to be."""
    try:
        found = path.stat()
    except OSError:
        return False
    locked = _locked_files() if locked is None else locked
    if locked is not None:
        return (os.major(found.st_dev), os.minor(found.st_dev), found.st_ino) in locked
    return path.name == ".lock" and _is_alive(path)


def _locked_files() -> set[tuple[int, int, int]] | None:
    """Device and inode of every file that a process of this machine has locked; None where Linux does not say."""
    try:
        lines = Path("/proc/locks").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = set()
    for line in lines:
        parts = line.split()
        if "->" not in parts and "FLOCK" in parts:
            major, minor, inode = parts[-3].split(":")
            found.add((int(major, 16), int(minor, 16), int(inode)))
    return found


def _is_alive(lock: Path) -> bool:
    """True where the process whose id stands in the run's lock file lives."""
    try:
        os.kill(int(lock.read_text(encoding="utf-8")), 0)
    except (OSError, ValueError):
        return False
    return True


def status_of(config: Config, layout: Layout, experiments: Iterable[str]) -> list[Status]:
    """Return where experiments stand, and after them the collections and figures that belong to them.

    Args:
        config: the configuration at the scale.
        layout: the project's paths.
        experiments: their ids.

    Raises:
        ConfigError: if the sweep of an experiment is not valid.
    """
    folders, chosen = _Folders(layout), list(experiments)
    found = []
    for name in chosen:
        points = points_of(config, name)
        jobs = [_job_of(point, layout) for point in points]
        status = _status(name, jobs, folders, layout.root)
        done = [job.output for job in jobs if folders.has(job.output)]
        status.diverged = _diverged(done, len(jobs), folders, layout.result(config.scale, name))
        found.append(status)
    figures = [
        name
        for name, figure in config.figures.items()
        if set(figure.experiments) & set(chosen) or len(chosen) == len(config.experiments)
    ]
    outputs = {f"collect_{name}": layout.result(config.scale, name) for name in chosen}
    drawn = {name: layout.figure(config.scale, name, "png") for name in figures}
    for name, files in ((COLLECT, outputs), (FIGURES, drawn)):
        jobs = [
            _Job(output, layout.log(config.scale, job), layout.benchmark(config.scale, job))
            for job, output in files.items()
        ]
        found.append(_status(name, jobs, folders, layout.root))
    return [status for status in found if status.points]


def _job_of(point: Point, layout: Layout) -> _Job:
    name = point.name
    return _Job(layout.point(name), layout.point_log(name), layout.point_benchmark(name), layout.checkpoints(name))


def _status(name: str, jobs: list[_Job], folders: _Folders, directory: Path) -> Status:
    found = Status(name, len(jobs))
    for job in jobs:
        state = folders.state(job)
        found.counts[state] += 1
        output = os.path.relpath(job.output, directory)
        if state == FAILED:
            said = last_line(job.log) or "it left no message"
            found.failures.append(Failure(output, os.path.relpath(job.log, directory), said))
        if state == RUNNING:
            found.going.append(output)
    return found


def _diverged(done: list[Path], jobs: int, folders: _Folders, collected: Path) -> int:
    """Count the runs that diverged: in the collected file where it is newer than all points, else point by point."""
    if done and len(done) == jobs and folders.modified(collected) >= max(map(folders.modified, done)):
        counted = _count_diverged(collected)
        if counted is not None:
            return counted
    return sum(_count_diverged(path) or 0 for path in done)


def _count_diverged(path: Path) -> int | None:
    """The number of runs whose status flag is "diverged" in a file, None where it cannot be read."""
    import netCDF4

    try:
        with netCDF4.Dataset(path) as file:
            return int(np.count_nonzero(np.asarray(file["status"][:]) == DIVERGED))
    except (OSError, IndexError, RuntimeError):
        return None


def table(found: list[Status]) -> list[str]:
    """Return the status as lines for a terminal."""
    total = Status("all")
    for status in found:
        total.points += status.points
        total.diverged += status.diverged
        for state in STATES:
            total.counts[state] += status.counts[state]
    cells = [
        [status.name, status.points, *(status.counts[state] for state in STATES), status.diverged]
        for status in [*found, *([total] if len(found) > 1 else [])]
    ]
    lines = tabulate(cells, ["", "jobs", *STATES, "diverged runs"], "plain").splitlines()
    if total.diverged:
        lines.append("diverged runs: their weights left all bounds, as at large learning rates; no failure, a result")
    lines += [f"running: {output}" for status in found for output in status.going]
    for status in found:
        for failure in status.failures:
            lines += [f"failed: {failure.output}: {failure.said}", f"  log: {failure.log}"]
    return lines
