"""A copy of the project in a folder of its own, with a configuration of two experiments that takes seconds."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import xarray as xr
import yaml

ROOT = Path(__file__).parents[2]
PARTS = ("Snakefile", "workflow", "src", "config", "notebooks", "profiles", "envs", "pyproject.toml")
SMALL = {
    "experiments": {
        "sparsity": {
            "settings": {"steps": 500},
            "seeds": 2,
            "sweep": [{"parameterization": ["rescaled"], "noise_std": [1], "learning_rate": [0.001, 0.008]}],
        },
    },
    "figures": {},
}


@dataclass
class Project:
    """A copy of the project."""

    folder: Path

    def copy(self, folder: Path) -> Project:
        """Return a copy of it as it is now; what was up to date stays so."""
        shutil.copytree(self.folder, folder)
        return Project(folder)

    def snakemake(self, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the typed command and return what it printed."""
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
        return self._run(command, check, environment)

    def mirrorsym(self, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        return self._run([sys.executable, "-m", "reproduction", *arguments], check, environment)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start the typed command and return the process."""
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, cwd=self.folder, env=self.environment(environment), text=True, **quiet)

    def _run(self, command: list[str], check: bool, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment(environment), text=True, capture_output=True, timeout=1700
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def environment(self, more: dict[str, str]) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MIRRORSYM_")}
        shared_cache = ROOT / "results" / ".cache"
        return {
            **kept,
            "PYTHONPATH": str(self.folder / "src"),
            "MIRRORSYM_CACHE": str(
                shared_cache if shared_cache.parent.is_dir() else self.folder / "results" / ".cache"
            ),
            **more,
        }

    def remove_results(self) -> None:
        """Remove what runs made, except caches of compiled code."""
        for name in ("points", "quick", "checkpoints"):
            shutil.rmtree(self.folder / "results" / name, ignore_errors=True)

    def configure(self, config: dict[str, object]) -> None:
        """Write a configuration: the data source of the real one, and these experiments and figures."""
        real = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
        text = yaml.safe_dump({"scale": "quick", "cifar10": real["cifar10"], **config})
        (self.folder / "config" / "config.yaml").write_text(text)
        for scale in (self.folder / "config" / "scales").glob("*.yaml"):
            scale.write_text("{}\n")

    def planned(self, *arguments: str) -> dict[str, int]:
        """Return how many jobs of each rule Snakemake plans."""
        lines = self.snakemake("-n", *arguments).stdout.splitlines()
        starts = [i for i, line in enumerate(lines) if line.startswith("job  ")]
        counts: dict[str, int] = {}
        for line in lines[starts[0] + 2 :] if starts else []:
            name, _, count = line.partition(" ")
            if not count.strip().isdecimal():
                break
            counts[name] = int(count)
        return {name: count for name, count in counts.items() if name not in ("all", "total")}

    def result(self, experiment: str, scale: str = "quick") -> xr.Dataset:
        with xr.open_dataset(self.folder / "results" / scale / f"{experiment}.nc") as dataset:
            return dataset.load()

    def listing(self) -> list[str]:
        """All files, except Snakemake's own records and logs."""
        skipped = (".snakemake", "__pycache__", ".cache")
        files = (path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())
        return sorted(str(path) for path in files if not any(part in skipped for part in path.parts))


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount a file system of this size at a folder, or skip the test where this machine does not let us."""
    folder.mkdir(parents=True, exist_ok=True)
    size = f"size={megabytes}m"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("this machine does not let the test mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def make_project(folder: Path) -> Project:
    """Return a fresh copy of the project, with the small configuration."""
    folder.mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.nbc", "*.nbi", "*.egg-info")
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=ignored)
        else:
            shutil.copy(source, folder / part)
    made = Project(folder)
    made.configure(SMALL)
    return made
