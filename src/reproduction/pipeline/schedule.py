"""How long jobs take together on a number of cores, by the order in which a run starts them."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """A job of one core: its seconds, and the names of the jobs that it waits for."""

    seconds: float
    needs: Collection[str] = ()


def wall_seconds(jobs: Mapping[str, Job], cores: int) -> float:
    """Return when the last job ends, if each starts as soon as a core is free and all that it needs has ended.

    Of several that could start, the first of the mapping does (list scheduling; Graham 1966).

    Args:
        jobs: by their names; what a job needs and is not among them has ended before.
        cores: at least 1.

    Raises:
        ValueError: if there is no core, or jobs wait for each other.
    """
    if cores < 1:
        raise ValueError(f"{cores} cores run no job; give at least 1")
    order = {name: place for place, name in enumerate(jobs)}
    missing = {name: {need for need in job.needs if need in jobs} for name, job in jobs.items()}
    ready = [order[name] for name, needs in missing.items() if not needs]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    names, now = list(jobs), 0.0
    while ready or running:
        while ready and len(running) < cores:
            place = heapq.heappop(ready)
            heapq.heappush(running, (now + jobs[names[place]].seconds, place))
        now, ended = heapq.heappop(running)
        for name, needs in missing.items():
            if names[ended] in needs:
                needs.remove(names[ended])
                if not needs:
                    heapq.heappush(ready, order[name])
    if circle := [name for name, needs in missing.items() if needs]:
        raise ValueError(f"these jobs wait for each other: {', '.join(circle)}")
    return now
