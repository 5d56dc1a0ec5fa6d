"""How long a large sweep takes to plan, beside a bare Snakefile of that size: ``python -m benchmarks.dag 10000``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from benchmarks.process import run_measured

ROOT = Path(__file__).parents[1]
PARTS = ("Snakefile", "workflow", "src", "config", "notebooks", "profiles", "envs", "pyproject.toml")
BARE = """
rule all:
    input:
        expand("results/all.txt"),


rule collect:
    input:
        expand("results/points/{{value}}.nc", value=range({points})),
    output:
        "results/all.txt",
    shell:
        "touch {{output}}"


rule train:
    output:
        "results/points/{{value}}.nc",
    log:
        "results/logs/{{value}}.log",
    benchmark:
        "results/benchmarks/{{value}}.tsv"
    resources:
        mem_mb=1000,
        runtime=10,
        gpu=1,
    shell:
        "touch {{output}}"
"""


def sweep(points: int) -> dict[str, Any]:
    """Return a configuration of so many trainings, one job each."""
    seeds = min(points, 100)
    experiment = {
        "module": "homogeneity",
        "settings": {"dataset": "digits", "width": 2, "epochs": 1},
        "seeds": seeds,
        "sweep": [{"weight_decay": [round(1e-6 * number, 9) for number in range(points // seeds)]}],
        "resources": {"mem_mb": 1000, "runtime": 10, "gpu": 1},
    }
    real = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    return {"scale": "tiny", "cifar10": real["cifar10"], "experiments": {"large": experiment}, "figures": {}}


def make_folders(folder: Path, points: int) -> tuple[Path, Path]:
    """Make the two projects and return their folders: ours and the bare one."""
    ours, bare = folder / "ours", folder / "bare"
    ours.mkdir()
    bare.mkdir()
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, ours / part, ignore=shutil.ignore_patterns("__pycache__", "*.nbc", "*.nbi"))
        else:
            shutil.copy(source, ours / part)
    (ours / "config" / "config.yaml").write_text(yaml.safe_dump(sweep(points)))
    (ours / "config" / "scales" / "tiny.yaml").write_text("{}\n")
    (bare / "Snakefile").write_text(BARE.format(points=points))
    return ours, bare


def planned(folder: Path) -> dict[str, float]:
    """Return the seconds and the peak memory of ``snakemake -n`` in a folder, and how many jobs it plans."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "rules", "--cores", "2"]
    ended = run_measured(command, folder, environment)
    if ended.code != 0:
        sys.exit(ended.said)
    counts = [int(line.split()[1]) for line in ended.said.splitlines() if line.startswith("total")]
    return {
        "seconds": round(ended.seconds, 2),
        "peak_mb": round(ended.peak_mb),
        "jobs": counts[0] if counts else 0,
    }


def both_planned(ours: Path, bare: Path) -> dict[str, Any]:
    """Plan both at once, each on a core of its own: one after the other, a machine's speed changes between them."""
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(("ours", "bare"), pool.map(planned, (ours, bare)), strict=True))
    return {**found, "ratio": round(found["ours"]["seconds"] / found["bare"]["seconds"], 2)}


def pretend_finished(ours: Path, bare: Path, points: int) -> None:
    """Put an empty file in the place of every output, as after a finished run."""
    listed = (
        "from pathlib import Path; from reproduction.pipeline.config import load;"
        "from reproduction.pipeline.points import points_of;"
        "print('\\n'.join(str(p.name) for p in points_of(load(Path('config'), {}), 'large')))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ours / "src")}
    done = subprocess.run(
        [sys.executable, "-c", listed], cwd=ours, env=environment, capture_output=True, text=True, check=True
    )
    names = [ours / "results" / "points" / name for name in done.stdout.split()]
    for path in [*names, *(bare / "results" / "points" / f"{value}.nc" for value in range(points))]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    time.sleep(0.1)
    for path in (ours / "results" / "tiny" / "large.nc", bare / "results" / "all.txt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def measure(points: int) -> dict[str, Any]:
    """Return the times of both projects, first planned and then with all outputs there."""
    with tempfile.TemporaryDirectory() as name:
        ours, bare = make_folders(Path(name), points)
        found: dict[str, Any] = {"points": points}
        found["first"] = both_planned(ours, bare)
        pretend_finished(ours, bare, points)
        found["second"] = both_planned(ours, bare)
    return found


if __name__ == "__main__":
    for number in sys.argv[1:] or ["100", "1000", "10000"]:
        print(json.dumps(measure(int(number))), flush=True)
