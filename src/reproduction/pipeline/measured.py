"""What Snakemake's benchmark files say of a job: seconds by the clock, and seconds that a core computed for it."""

from __future__ import annotations

import csv
from pathlib import Path

SHORT, SAMPLES, LONG = 0.5, 30, 30.0
"""Snakemake looks at a job this many times in steps of SHORT seconds, and in steps of LONG seconds after that."""

LATE = 1.04
"""Each look takes a while, so that the timer runs late: by 0.5 to 4 % for spinning jobs of 20 and 50 s."""


def clock_seconds(path: Path) -> float | None:
    """Return the seconds by the clock, None where the file is missing or holds none."""
    row = _row(path)
    return None if row is None else float(row["s"])


def busy_seconds(path: Path) -> float | None:
    """Return the seconds that a core computed for a job, None where the file is missing or holds none.

    ``cpu_time`` is what was computed when Snakemake last looked, which may be half a minute before the end. What came
    after it is added at the same share of a core. On a machine with a free core for each job the result is the seconds
    by the clock; on a busy one it is what they would be with a free core.
    """
    row = _row(path)
    if row is None:
        return None
    seconds = float(row["s"])
    looked = last_look(seconds / LATE)
    return (
        seconds if looked == 0 or row["cpu_time"] == "NA" else min(seconds, float(row["cpu_time"]) * seconds / looked)
    )


def last_look(seconds: float) -> float:
    """Return when Snakemake last looked at a job that took ``seconds``."""
    early = SHORT * SAMPLES
    return SHORT * (seconds // SHORT) if seconds < early + SHORT else early + LONG * ((seconds - early) // LONG)


def _row(path: Path) -> dict[str, str] | None:
    try:
        with open(path) as file:
            return next(csv.DictReader(file, delimiter="\t"), None)
    except OSError:
        return None
