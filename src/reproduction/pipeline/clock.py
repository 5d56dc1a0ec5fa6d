"""How long a run on this machine takes by the clock: what is left of the targets' jobs, on a number of cores."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reproduction.errors import check_names
from reproduction.pipeline.config import Config
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.points import points_of
from reproduction.pipeline.schedule import Job, wall_seconds

START = 4.0
"""Seconds of Snakemake before its first job: imports, the fingerprints of the code, the graph of jobs."""
EACH = 0.15
"""Seconds around each job: Snakemake's own work, the shell, and what passes the job on to a process that is there."""


@dataclass(frozen=True)
class Wall:
    """What a run takes by the clock.

    Args:
        cores: that it has; each job takes one.
        jobs: how many are left.
        seconds: until the last of them ends.
        unknown: those of which nothing tells the seconds; they count nothing.
    """

    cores: int
    jobs: int
    seconds: float
    unknown: list[str]


@dataclass(frozen=True)
class Goal:
    """What targets ask for: experiments, to be collected, and the rules that read their results."""

    experiments: list[str]
    rules: list[str]


def goal_of(config: Config, layout: Layout, targets: Sequence[str] = ()) -> Goal:
    """Return what the targets of a command need, all of the configuration where there are none.

    Args:
        config: the configuration at a scale.
        layout: the project's paths.
        targets: figures, ``collect_EXPERIMENT``, ``claims``, ``paper`` or ``all``, as Snakemake takes them.

    Raises:
        ConfigError: with the nearest valid name, where there is no such target.
    """
    collected = {f"collect_{name}": name for name in config.experiments}
    check_names(targets, [*config.figures, *collected, "all", "claims", "paper"], "figure or rule")
    asked = set(targets or ["all"])
    everything = bool(asked & {"all", "paper"})
    judged = ["claims"] if config.own_claims or layout.paper_claims else []
    rules = [name for name in [*config.figures, *judged] if everything or name in asked]
    rules += ["paper"] if "paper" in asked else []
    read = {name for rule in rules for name in _read_by(config, rule)} | {collected.get(name) for name in asked}
    return Goal([name for name in config.experiments if everything or name in read], rules)


def _read_by(config: Config, rule: str) -> Iterable[str]:
    """The experiments whose results a rule reads."""
    return config.figures[rule].experiments if rule in config.figures else config.experiments


def wall(
    config: Config,
    layout: Layout,
    goal: Goal,
    seconds_per_job: Mapping[str, Sequence[float]],
    rules: Mapping[str, float],
    cores: int,
) -> Wall:
    """Return how long what is left of a goal takes.

    Args:
        config: the configuration at a scale.
        layout: the project's paths.
        goal: what is asked for.
        seconds_per_job: of each experiment's points in the sweep's order; empty where not known.
        rules: seconds of the jobs that are no points; those of one that never ran are the mean of its kind.
        cores: at least 1.
    """
    told: dict[str, float | None] = {}
    needs: dict[str, list[str]] = {}
    outputs: dict[str, Path] = {}
    for rule in goal.rules:
        needs[rule] = [f"collect_{name}" for name in _read_by(config, rule)]
        outputs[rule] = _output(config, layout, rule)
        told[rule] = rules.get(rule, _mean(rules, config.figures) if rule in config.figures else None)
    if "paper" in goal.rules:
        needs["paper"] += [rule for rule in goal.rules if rule != "paper"]
    for name in goal.experiments:
        rule = f"collect_{name}"
        points = [str(point.name) for point in points_of(config, name)]
        needs[rule], outputs[rule] = points, layout.result(config.scale, name)
        told[rule] = rules.get(rule, _mean(rules, [f"collect_{other}" for other in config.experiments]))
        outputs |= {point: layout.point(Path(point)) for point in points}
        told |= dict.fromkeys(points) | dict(zip(points, seconds_per_job[name], strict=False))
    left: dict[str, bool] = {}

    def is_left(name: str) -> bool:
        if name not in left:
            left[name] = not outputs[name].is_file() or any(map(is_left, needs.get(name, ())))
        return left[name]

    # As Snakemake does: what has more input, a collection or a figure, starts before points.
    jobs = {name: Job(EACH + (told[name] or 0), needs.get(name, ())) for name in outputs if is_left(name)}
    unknown = [name for name in jobs if told[name] is None]
    return Wall(cores, len(jobs), START + wall_seconds(jobs, cores) if jobs else 0.0, unknown)


def _output(config: Config, layout: Layout, rule: str) -> Path:
    if rule in config.figures:
        return layout.figure(config.scale, rule, "pdf")
    return layout.claims(config.scale) if rule == "claims" else layout.pdf(config.scale)


def _mean(seconds: Mapping[str, float], names: Iterable[str]) -> float | None:
    known = [seconds[name] for name in names if name in seconds]
    return statistics.fmean(known) if known else None
