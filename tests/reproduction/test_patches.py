"""What is changed in Snakemake and its SLURM plugin for the jobs of a cluster."""

from __future__ import annotations

import asyncio
import logging
import sys
from types import SimpleNamespace

import pytest
from snakemake.jobs import GroupJob
from snakemake.settings.types import GroupSettings
from snakemake.spawn_jobs import SpawnedJobArgsFactory
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

from reproduction.pipeline.snakemake import patches

GROUPS = GroupSettings(overwrite_groups={"train_a": "a", "train_b": "b"}, group_components={"a": 5, "simulations": 7})


@pytest.mark.parametrize(
    ("rule", "points", "kind", "expected"),
    [
        ("train_a", 12, "simulations", 5),
        ("train_a", 3, "simulations", 3),
        ("train_b", 12, "simulations", 1),
        ("train_c", 12, "simulations", 7),
        ("train_c", 3, "simulations", 7),  # the points of another rule may share its job
        ("train_c", 12, "trainings", 1),
    ],
)
def test_a_job_runs_as_many_points_as_the_profile_packs(rule: str, points: int, kind: str, expected: int) -> None:
    assert patches.points_of_a_job(GROUPS, rule, points, kind) == expected
    assert patches.points_of_a_job(None, rule, points, kind) == 1


@pytest.mark.parametrize("keep_going", [True, False])
def test_a_job_keeps_going_as_its_workflow_does(monkeypatch: pytest.MonkeyPatch, keep_going: bool) -> None:
    monkeypatch.setattr(SpawnedJobArgsFactory, "general_args", lambda self, settings: f"--force {settings}")
    monkeypatch.setattr(GroupJob, "log_error", None)
    monkeypatch.setattr(GroupJob, "rule", None, raising=False)
    patches.mend_groups()
    settings = SimpleNamespace(execution_settings=SimpleNamespace(keep_going=keep_going))
    said = SpawnedJobArgsFactory(settings).general_args(executor_common_settings="--nolock")
    assert said == ("--force --nolock --keep-going" if keep_going else "--force --nolock")


class Plugin(SimpleNamespace):
    """Stands for the SLURM plugin: keeps what it is asked."""

    def __init__(self) -> None:
        class Executor:
            run_uuid = "a-run"

            def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
                cancelled.extend(job.external_jobid for job in active_jobs)

        cancelled: list[str | None] = []
        super().__init__(asked=[], cancelled=cancelled, Executor=Executor, query_job_status=self.query)

    async def query(self, command: str, log: logging.Logger) -> tuple[dict[str, str], float]:
        self.asked.append(command)
        return {"7_1": "FAILED", "7_2": "CANCELLED by 1000"}, 0.1

    def states(self) -> tuple[dict[str, str], float]:
        return asyncio.run(self.query_job_status("sacct --format=JobIdRaw,State", logging.getLogger()))


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Plugin:
    plugin = Plugin()
    monkeypatch.setitem(sys.modules, "snakemake_executor_plugin_slurm", plugin)
    patches.mend_slurm()
    return plugin


def test_the_states_are_those_of_tasks_and_one_word_each(plugin: Plugin) -> None:
    assert plugin.states() == ({"7_1": "FAILED", "7_2": "CANCELLED"}, 0.1)
    assert plugin.asked == ["sacct --format=JobID,State"]


def test_all_jobs_of_a_run_are_cancelled_and_nothing_is_asked_after_it(plugin: Plugin) -> None:
    plugin.Executor().cancel_jobs([])
    assert plugin.cancelled == ["--name=a-run"]
    assert plugin.states() == ({}, 0.0)
    assert not plugin.asked
