"""The forecast of the scale quick against the benchmark files that a run of it left."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from project import ROOT

from reproduction.pipeline.calibration import _Runner, calibrate
from reproduction.pipeline.config import load
from reproduction.pipeline.costs import COLLECT, FIGURES, forecast
from reproduction.pipeline.measured import busy_seconds
from reproduction.pipeline.points import points_of

TOLERANCE = 0.3
AGAIN = ("dcs_resnet", "matrix_factorization", "attention")
"""Of each of these a point is run again: an hour after the run, a shared machine may be 1.4 times as fast."""


def benchmarked() -> dict[str, float]:
    """The seconds that cores computed for each row of the plan, from the benchmark files of this project's run."""
    config, benchmarks = load(ROOT / "config", {"scale": "quick"}), ROOT / "results" / "benchmarks"
    files = {
        name: [benchmarks / "points" / point.name.with_suffix(".tsv") for point in points_of(config, name)]
        for name in config.experiments
    }
    files[COLLECT] = [benchmarks / "quick" / f"collect_{name}.tsv" for name in config.experiments]
    files[FIGURES] = [benchmarks / "quick" / f"{name}.tsv" for name in config.figures]
    found = {name: [busy_seconds(path) for path in paths] for name, paths in files.items()}
    missing = [name for name, seconds in found.items() if None in seconds]
    if missing:
        pytest.skip(f"make quick has not run here: there are no benchmark files of {', '.join(missing)}")
    return {name: sum(value for value in seconds if value) for name, seconds in found.items()}


def slowdown(tmp_path: Path) -> float:
    """The seconds that cores compute now for three points of the run, two at once as there, over those of then."""
    config, benchmarks = load(ROOT / "config", {"scale": "quick"}), ROOT / "results" / "benchmarks" / "points"
    points = [points_of(config, name)[0] for name in AGAIN]
    tmp_path.mkdir()
    runner = _Runner(ROOT, tmp_path)
    with ThreadPoolExecutor(2) as pool:
        now = sum(seconds for seconds, _, _ in pool.map(lambda point: runner.run(runner.points([point])), points))
    return now / sum(busy_seconds(benchmarks / point.name.with_suffix(".tsv")) or 0.0 for point in points)


def forecast_over_measured(folder: Path, before: dict[str, float]) -> float:
    """The forecast from a calibration made now over what the run took, scaled by how fast the machine is now.

    Only rates are taken from the calibration: in this folder there is no benchmark file to copy from.
    """
    factor = slowdown(folder / "again")
    print(f"the machine computes {factor:.2f} times as long as in the run")
    assert 0.5 < factor < 2  # more is no machine's change of speed, but files that are read wrongly
    expected = {name: factor * seconds for name, seconds in before.items()}
    for part in ("config", "notebooks"):
        shutil.copytree(ROOT / part, folder / part)
    calibrate(folder, "cpu", 1.0, print)
    plan = forecast(load(folder / "config", {"scale": "quick"}), folder)
    rows = {row.name: row.seconds or 0.0 for row in plan.rows}
    assert all(row.source == "rates" for row in plan.rows)
    assert set(rows) == set(expected)
    for name, seconds in rows.items():
        print(
            f"{name:<28} forecast {seconds:8.1f} s  measured {expected[name]:8.1f} s  {seconds / expected[name]:5.2f}"
        )
    return plan.total("seconds") / sum(expected.values())


@pytest.mark.timeout(3000)
def test_the_forecast_of_quick_is_within_30_percent_of_its_benchmark_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both sides are the seconds that cores computed: on a busy machine the clock would measure the others.

    A calibration of this machine, by the jobs that the workflow runs, has to foretell the whole run; single experiments
    are printed. One out of two has to: others on a shared machine may slow down a part of one.
    """
    before = benchmarked()
    monkeypatch.setenv("MIRRORSYM_CACHE", str(ROOT / "results" / ".cache"))
    ratios = []
    for attempt in range(2):
        (tmp_path / str(attempt)).mkdir()
        ratios.append(forecast_over_measured(tmp_path / str(attempt), before))
        if ratios[-1] == pytest.approx(1, rel=TOLERANCE):
            return
    pytest.fail(f"the forecast is {ratios} times what the run took")
