"""A sweep while it runs: how many jobs are done, how many run, and how long the rest will take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from reproduction.formatting import duration
from reproduction.pipeline.config import Config
from reproduction.pipeline.costs import forecast
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.status import DONE, FAILED, RUNNING, Status, is_held, status_of, table

SECONDS = 10.0
"""Between two looks."""
CLEAR = "\033[H\033[2J"


def progress(found: Sequence[Status], seconds_left: float) -> str:
    """Return one line: jobs done, running and failed, and the time that the rest takes on as many lanes as run now.

    Args:
        found: where the parts of a scale stand.
        seconds_left: of all jobs that are left, one after the other, as far as such jobs have run; 0 if unknown.
    """
    jobs = sum(part.points for part in found)
    done, running, failed = (sum(part.counts[state] for part in found) for state in (DONE, RUNNING, FAILED))
    parts = [f"{done} of {jobs} jobs done", f"{running} running", *([f"{failed} failed"] if failed else [])]
    if seconds_left and running:
        parts.append(f"about {duration(seconds_left / running)} left")
    return ", ".join(parts)


def watch(
    config: Config,
    layout: Layout,
    experiments: Sequence[str],
    say: Callable[[str], None],
    terminal: bool,
    wait: Callable[[float], None] = time.sleep,
) -> list[Status]:
    """Say where a sweep stands until no run holds the folder any more; return what was found last.

    Args:
        config: the configuration at the scale.
        layout: the project's paths.
        experiments: their ids.
        say: prints a line.
        terminal: True where the whole table is drawn anew each time; else a line is added where something changed.
        wait: called between two looks.
    """
    last, targets = "", [f"collect_{name}" for name in experiments]
    while True:
        going = is_held(layout.lock)
        found = status_of(config, layout, experiments)
        line = progress(found, forecast(config, layout, targets=targets).total("seconds_left"))
        if terminal:
            say("\n".join([CLEAR + line, *table(found)]))
        elif line != last:
            say(line)
        if not going:
            return found
        last = line
        wait(SECONDS)
