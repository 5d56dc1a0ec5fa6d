"""What Snakemake and its SLURM plugin lack for jobs that are packed, refused, cancelled, or tasks of an array."""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path
from typing import Any

from snakemake.jobs import GroupJob
from snakemake.settings.types import GroupSettings
from snakemake.spawn_jobs import SpawnedJobArgsFactory
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.settings import CommonSettings


def points_of_a_job(groups: GroupSettings | None, rule: str, points: int, kind: str = "") -> int:
    """Return how many of a rule's points one job runs, after a profile's ``groups`` and ``group-components``.

    Args:
        groups: of the profile, None where there is none.
        rule: the rule's name.
        points: how many it has.
        kind: the group of a rule that the profile does not name; the points of such rules go together.
    """
    if groups is None:
        return 1
    named = groups.overwrite_groups.get(rule)
    packed: int = groups.group_components.get(named or kind, 1)
    return min(points, packed) if named else packed


def log_group_error(group: GroupJob, msg: str | None = None, aux_logs: list[str] | None = None, **more: Any) -> None:
    """Report the jobs of a failed group that left no result, each with what the scheduler said of the group.

    Snakemake's own method reports every job of the group, and drops the scheduler's message.
    """
    for job in group.jobs:
        if not all(Path(str(path)).exists() for path in job.output):
            job.log_error(msg, aux_logs=aux_logs, **more)


def mend_groups() -> None:
    """Let a group name its rule, report what failed in it only, and go on after a point failed as the workflow does.

    The SLURM plugin 2.8 asks a job whose submission was refused for its rule; Snakemake 9 does not tell jobs to keep
    going, so that the points packed behind a failing one would never start.
    """
    GroupJob.log_error = log_group_error
    GroupJob.rule = property(lambda group: next(iter(group.jobs)).rule)
    general_args = SpawnedJobArgsFactory.general_args

    def with_keep_going(factory: SpawnedJobArgsFactory, executor_common_settings: CommonSettings) -> str:
        keep_going = factory.workflow.execution_settings.keep_going
        return f"{general_args(factory, executor_common_settings)}{' --keep-going' if keep_going else ''}"

    SpawnedJobArgsFactory.general_args = with_keep_going


def mend_slurm() -> None:
    """Let the SLURM plugin, where it is in use, see the states that ``sacct`` tells, and cancel all jobs of a run.

    ``sacct`` says "CANCELLED by 1000"; plugin 2.8 knows "CANCELLED" only, and would wait for such a job for ever. It
    asks for ``JobIdRaw``, which never is the ``ARRAY_TASK`` that it looks for, and then takes the state of the array's
    last task for that of all.

    While ``sacct`` is asked, the list of active jobs is empty (executor interface 9), so that Ctrl-C would cancel none,
    and then wait for the answer. The run's id is the name of all its jobs.
    """
    plugin = sys.modules.get("snakemake_executor_plugin_slurm")
    if plugin is None:
        return
    query = plugin.query_job_status
    cancel = plugin.Executor.cancel_jobs
    cancelled = threading.Event()

    async def states_of_jobs(command: str, log: logging.Logger) -> tuple[dict[str, str] | None, float | None]:
        if cancelled.is_set():
            return {}, 0.0
        states, seconds = await query(command.replace("JobIdRaw", "JobID"), log)
        return states and {job: state.partition(" ")[0] for job, state in states.items()}, seconds

    def cancel_all_jobs(executor: Any, active_jobs: list[SubmittedJobInfo]) -> None:
        cancelled.set()
        cancel(executor, [SubmittedJobInfo(job=None, external_jobid=f"--name={executor.run_uuid}")])

    plugin.query_job_status = states_of_jobs  # type: ignore[attr-defined]
    plugin.Executor.cancel_jobs = cancel_all_jobs
