"""Patches of Snakemake and its SLURM plugin: for jobs that are packed, refused or cancelled, and for idle scheduling.

Each is made for some versions and says what is wrong in them and when it can go. Under another version it is left out,
and one sentence says so.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakSet

from snakemake.jobs import GroupJob
from snakemake.logging import logger
from snakemake.scheduling.job_scheduler import JobScheduler
from snakemake.spawn_jobs import SpawnedJobArgsFactory
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.settings import CommonSettings

SNAKEMAKE = {"snakemake": "9.27"}
SLURM = {"snakemake-executor-plugin-slurm": "2.8"}
INTERFACE = {"snakemake-interface-executor-plugins": "9"}


@dataclass(frozen=True)
class Patch:
    """A change of one thing in Snakemake or a plugin.

    Args:
        change: makes it.
        made_for: the distributions that it depends on, each with the first numbers of the versions that were tried.
    """

    change: Callable[[], None]
    made_for: Mapping[str, str]

    def in_use(self) -> bool:
        """True where all that it is about has been imported; Snakemake imports each plugin that is installed."""
        return all(name.replace("-", "_") in sys.modules for name in self.made_for)

    def others(self, version_of: Callable[[str], str]) -> list[str]:
        """Return the distributions of another version, each with what it is and what the patch is made for."""
        installed = {name: version_of(name) for name in self.made_for}
        return [
            f"{name} is {installed[name]}, not {wanted}"
            for name, wanted in self.made_for.items()
            if not f"{installed[name]}.".startswith(f"{wanted}.")
        ]


def apply(
    patches: Iterable[Patch],
    version_of: Callable[[str], str] = importlib.metadata.version,
    warn: Callable[[str], None] = logger.warning,
) -> None:
    """Apply the patches of what is in use; leave out those made for another version, and say so once."""
    left_out: list[str] = []
    reasons: dict[str, None] = {}
    for patch in patches:
        if not patch.in_use():
            continue
        others = patch.others(version_of)
        if others:
            left_out.append(patch.change.__name__)
            reasons |= dict.fromkeys(others)
        else:
            patch.change()
    if left_out:
        what = f"{', '.join(left_out)} left out ({__name__} says what each is for)"
        warn(f"mirrorsym: {' and '.join(reasons)}: patches {what}")


def name_groups_after_their_rule() -> None:
    """Let a group of jobs have a rule, that of its points.

    Fault: the plugin asks a job whose submission was refused for its rule, and a group has none, so that a wrong
    account ends the run with an AttributeError. Not reported upstream as far as we found.
    Goes when the plugin reports a refused group by itself.
    """
    GroupJob.rule = property(lambda group: next(iter(group.jobs)).rule)


def report_the_points_that_failed() -> None:
    """Let a failed group report those of its jobs that left no result, each with what the scheduler said.

    Fault: Snakemake reports every job of the group, and drops the scheduler's message. Not reported upstream as far as
    we found.
    Goes when ``GroupJob.log_error`` passes its message on, and leaves out jobs that succeeded.
    """

    def log_error(group: GroupJob, msg: str | None = None, aux_logs: list[str] | None = None, **more: Any) -> None:
        for job in group.jobs:
            if not all(Path(str(path)).exists() for path in job.output):
                job.log_error(msg, aux_logs=aux_logs, **more)

    GroupJob.log_error = log_error


def keep_going_in_groups() -> None:
    """Let a job of several points go on after one failed, as the workflow does.

    Fault: Snakemake does not tell jobs to keep going, so that the points packed behind a failing one never start:
    https://github.com/snakemake/snakemake/issues/2508
    Goes when that is solved.
    """
    general_args = SpawnedJobArgsFactory.general_args

    def with_keep_going(factory: SpawnedJobArgsFactory, executor_common_settings: CommonSettings) -> str:
        keep_going = factory.workflow.execution_settings.keep_going
        return f"{general_args(factory, executor_common_settings)}{' --keep-going' if keep_going else ''}"

    SpawnedJobArgsFactory.general_args = with_keep_going


def understand_who_cancelled() -> None:
    """Let the plugin understand ``sacct``'s state of a job that ``scancel`` ended.

    Fault: ``sacct`` says "CANCELLED by 1000"; the plugin knows "CANCELLED" only and waits for such a job for ever. An
    older SLURM profile had the same: https://github.com/Snakemake-Profiles/slurm/pull/22
    Goes when the plugin reads the first word of a state.
    """
    plugin = sys.modules["snakemake_executor_plugin_slurm"]
    query = plugin.query_job_status

    async def first_words(command: str, log: logging.Logger) -> tuple[dict[str, str] | None, float | None]:
        states, seconds = await query(command, log)
        return states and {job: state.partition(" ")[0] for job, state in states.items()}, seconds

    plugin.query_job_status = first_words  # type: ignore[attr-defined]


def cancel_all_jobs_of_the_run() -> None:
    """Let Ctrl-C cancel all jobs of a run by its id, which is the name of them all, and ask for no state after it.

    Fault: while ``sacct`` is asked, the executor interface's list of active jobs is empty; Ctrl-C then cancels none,
    and waits for the answer. Not reported upstream as far as we found.
    Goes when the list holds jobs whose state is being asked for, and a question ends with the run.
    """
    plugin = sys.modules["snakemake_executor_plugin_slurm"]
    query = plugin.query_job_status
    cancel = plugin.Executor.cancel_jobs
    cancelled = threading.Event()

    async def until_cancelled(command: str, log: logging.Logger) -> tuple[dict[str, str] | None, float | None]:
        states, seconds = ({}, 0.0) if cancelled.is_set() else await query(command, log)
        return states, seconds

    def cancel_all(executor: Any, active_jobs: list[SubmittedJobInfo]) -> None:
        cancelled.set()
        cancel(executor, [SubmittedJobInfo(job=None, external_jobid=f"--name={executor.run_uuid}")])

    plugin.query_job_status = until_cancelled  # type: ignore[attr-defined]
    plugin.Executor.cancel_jobs = cancel_all


def look_again_once() -> None:
    """Let the scheduler have one appointment to look for jobs again, not one more for each job that ended.

    Fault: with a limit of jobs per timespan, which is its default, each look makes an appointment for the next one a
    second later, and so does each end of a job; after a hundred jobs it looks a hundred times a second, at all that is
    ready. Not reported upstream as far as we found.
    Goes when ``_schedule_reevalutation`` keeps one timer.
    """
    waiting: WeakSet[JobScheduler] = WeakSet()

    def once(scheduler: JobScheduler, delay: float) -> None:
        def look() -> None:
            waiting.discard(scheduler)  # before it looks, since it then makes the next appointment
            scheduler._open_jobs.release()

        if scheduler not in waiting:
            waiting.add(scheduler)
            timer = threading.Timer(delay, look)
            timer.daemon = True
            timer.start()

    JobScheduler._schedule_reevalutation = once


EVERYWHERE = (Patch(look_again_once, SNAKEMAKE),)
ELSEWHERE = (
    Patch(name_groups_after_their_rule, SNAKEMAKE | SLURM),
    Patch(report_the_points_that_failed, SNAKEMAKE),
    Patch(keep_going_in_groups, SNAKEMAKE),
    Patch(understand_who_cancelled, SLURM),
    Patch(cancel_all_jobs_of_the_run, SLURM | INTERFACE),
)


def keep_signature(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with its signature worked out: Snakemake asks for it several times for each job (PEP 362).

    It changes nothing of Snakemake, whatever its version, and can go when Snakemake asks once.
    """
    function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return function
