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

from mirrorsym import cluster

GROUPS = GroupSettings(overwrite_groups={"train_a": "a", "train_b": "b"}, group_components={"a": 5})


@pytest.mark.parametrize(
    ("rule", "points", "expected"), [("train_a", 12, 5), ("train_a", 3, 3), ("train_b", 12, 1), ("train_c", 12, 1)]
)
def test_a_job_runs_as_many_points_as_the_profile_packs(rule: str, points: int, expected: int) -> None:
    assert cluster.points_of_a_job(GROUPS, rule, points) == expected
    assert cluster.points_of_a_job(None, rule, points) == 1


@pytest.mark.parametrize("keep_going", [True, False])
def test_a_job_keeps_going_as_its_workflow_does(monkeypatch: pytest.MonkeyPatch, keep_going: bool) -> None:
    monkeypatch.setattr(SpawnedJobArgsFactory, "general_args", lambda self, settings: f"--force {settings}")
    monkeypatch.setattr(GroupJob, "log_error", None)
    monkeypatch.setattr(GroupJob, "rule", None, raising=False)
    cluster.mend_groups()
    settings = SimpleNamespace(execution_settings=SimpleNamespace(keep_going=keep_going))
    said = SpawnedJobArgsFactory(settings).general_args(executor_common_settings="--nolock")
    assert said == ("--force --nolock --keep-going" if keep_going else "--force --nolock")


def test_the_states_are_those_of_tasks_and_one_word_each(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    async def query(command: str, log: logging.Logger) -> tuple[dict[str, str], float]:
        asked.append(command)
        return {"7_1": "FAILED", "7_2": "CANCELLED by 1000"}, 0.1

    plugin = SimpleNamespace(query_job_status=query)
    monkeypatch.setitem(sys.modules, "snakemake_executor_plugin_slurm", plugin)
    cluster.mend_slurm_states()
    found = asyncio.run(plugin.query_job_status("sacct --format=JobIdRaw,State", logging.getLogger()))
    assert found == ({"7_1": "FAILED", "7_2": "CANCELLED"}, 0.1)
    assert asked == ["sacct --format=JobID,State"]
