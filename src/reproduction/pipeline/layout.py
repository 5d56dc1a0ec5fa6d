"""Where everything that is generated lies: results/, data/ and paper/, below the project's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FIGURE_FORMATS = ("pdf", "svg", "png")
"""What each figure is saved as; the numbers behind it lie beside them as CSV."""


@dataclass(frozen=True)
class Layout:
    """The paths of a project.

    Args:
        root: the project's folder; the workflow's jobs run in it.
    """

    root: Path = Path()

    @property
    def config(self) -> Path:
        return self.root / "config"

    @property
    def measured(self) -> Path:
        """What jobs took elsewhere, for the plan of a scale before its first run."""
        return self.config / "measured.json"

    @property
    def cifar10(self) -> Path:
        return self.root / "data" / "cifar10.nc"

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def lock(self) -> Path:
        """The file that the run of this folder holds."""
        return self.results / ".lock"

    @property
    def cache(self) -> Path:
        """Compiled kernels and fonts."""
        return self.results / ".cache"

    @property
    def paper_claims(self) -> list[Path]:
        """The files of the paper's claims."""
        return sorted((self.root / "claims").glob("*.yaml"))

    @property
    def sockets(self) -> Path:
        """Where a run's jobs find the server that forks them."""
        return self.results / ".jobs"

    @property
    def fingerprints(self) -> Path:
        """The files that say which code made a result."""
        return self.results / "fingerprints"

    @property
    def sources(self) -> Path:
        """Copies of what a person writes and a rule reads, named by their content."""
        return self.results / "sources"

    @property
    def imported(self) -> Path:
        """Which points came by import."""
        return self.results / "imported.json"

    @property
    def records(self) -> Path:
        """Snakemake's records of what made each output."""
        return self.results / "records.json"

    @property
    def points(self) -> Path:
        """The folder of all points, which the scales share."""
        return self.results / "points"

    def point(self, name: Path) -> Path:
        """The file of a point; ``name`` is the point's own, such as ``sparsity/0123456789ab/seed~0.nc``."""
        return self.points / name

    def point_log(self, name: Path) -> Path:
        return (self.results / "logs" / "points" / name).with_suffix(".log")

    def point_benchmark(self, name: Path) -> Path:
        """What a point's job took."""
        return (self.results / "benchmarks" / "points" / name).with_suffix(".tsv")

    def checkpoints(self, name: Path) -> Path:
        """The folder of a point's checkpoints and lease."""
        return (self.results / "checkpoints" / name).with_suffix("")

    def scale(self, scale: str) -> Path:
        return self.results / scale

    def result(self, scale: str, experiment: str) -> Path:
        return self.scale(scale) / f"{experiment}.nc"

    def claims(self, scale: str) -> Path:
        return self.scale(scale) / "claims.json"

    def numbers(self, scale: str) -> Path:
        """All that the report says, as JSON."""
        return self.scale(scale) / "report.json"

    def executed(self, scale: str, figure: str) -> Path:
        return self.scale(scale) / "notebooks" / f"{figure}.ipynb"

    def plans(self, scale: str) -> Path:
        """The folder of the small files that say what a collection or the report is made from."""
        return self.results / "plans" / scale

    def log(self, scale: str, job: str) -> Path:
        """The log of a job that belongs to a scale: a collection, a notebook, the claims, the report."""
        return self.results / "logs" / scale / f"{job}.log"

    def benchmark(self, scale: str, job: str) -> Path:
        """What such a job took."""
        return self.results / "benchmarks" / scale / f"{job}.tsv"

    def steps(self, device: str) -> Path:
        """The speed of training steps on a device of this project."""
        return self.results / "steps" / f"{device}.json"

    def figures(self, scale: str) -> Path:
        return self.root / "paper" / "figures" / scale

    def figure(self, scale: str, figure: str, suffix: str) -> Path:
        return self.figures(scale) / f"{figure}.{suffix}"

    def report(self, scale: str) -> Path:
        return self.root / "paper" / scale

    @property
    def site(self) -> Path:
        """The folder of the page."""
        return self.root / "paper" / "site"

    def pdf(self, scale: str) -> Path:
        return self.report(scale) / "paper.pdf"

    def page(self, scale: str) -> Path:
        return self.report(scale) / "index.html"
