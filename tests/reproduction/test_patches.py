"""What is changed in Snakemake and its SLURM plugin for the jobs of a cluster, and that other versions are let be."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import threading
from types import SimpleNamespace

import pytest
from snakemake.jobs import GroupJob
from snakemake.scheduling.job_scheduler import JobScheduler
from snakemake.settings.types import GroupSettings
from snakemake.spawn_jobs import SpawnedJobArgsFactory
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

from reproduction.pipeline.snakemake import patches
from reproduction.pipeline.snakemake.command_line import points_of_a_job
from reproduction.pipeline.snakemake.patches import ELSEWHERE, EVERYWHERE, Patch, apply

PATCHES = (*EVERYWHERE, *ELSEWHERE)
GROUPS = GroupSettings(overwrite_groups={"train_a": "a", "train_b": "b"}, group_components={"a": 5, "simulations": 7})
VERSIONS = {
    "snakemake": "9.27.1",
    "snakemake-executor-plugin-slurm": "2.8.0",
    "snakemake-interface-executor-plugins": "9.4.0",
}


@pytest.mark.parametrize(
    ("rule", "points", "kind", "expected"),
    [
        ("train_a", 12, "simulations", 5),
        ("train_a", 3, "simulations", 3),
        ("train_b", 12, "simulations", 1),
        ("train_c", 12, "simulations", 7),
        ("train_c", 3, "simulations", 7),  # the points of another rule may share its job
        ("train_c", 12, None, 1),
    ],
)
def test_a_job_runs_as_many_points_as_the_profile_packs(rule: str, points: int, kind: str, expected: int) -> None:
    assert points_of_a_job(GROUPS, rule, points, kind) == expected
    assert points_of_a_job(None, rule, points, kind) == 1


def applied(monkeypatch: pytest.MonkeyPatch, **versions: str) -> tuple[list[str], list[str]]:
    """Return the names of the patches that are applied under some versions, and the warnings."""
    monkeypatch.setitem(sys.modules, "snakemake_executor_plugin_slurm", SimpleNamespace())
    installed = VERSIONS | {name.replace("_", "-"): version for name, version in versions.items()}
    done: list[str] = []
    said: list[str] = []

    def stand_in(patch: Patch) -> Patch:
        def change() -> None:
            done.append(patch.change.__name__)

        change.__name__ = patch.change.__name__
        return Patch(change, patch.made_for)

    apply(map(stand_in, PATCHES), installed.__getitem__, said.append)
    return done, said


def test_all_are_applied_under_the_versions_they_were_made_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert applied(monkeypatch) == ([patch.change.__name__ for patch in PATCHES], [])
    assert applied(monkeypatch, snakemake="9.27.9", snakemake_interface_executor_plugins="9.99.0")[1] == []


@pytest.mark.parametrize(
    ("versions", "left", "says"),
    [
        (
            {"snakemake": "9.28.0"},
            ["understand_who_cancelled", "cancel_all_jobs_of_the_run"],
            "snakemake is 9.28.0, not 9.27: patches look_again_once, name_groups_after_their_rule,",
        ),
        ({"snakemake": "9.2.7"}, ["understand_who_cancelled", "cancel_all_jobs_of_the_run"], "snakemake is 9.2.7,"),
        (
            {"snakemake_executor_plugin_slurm": "2.80.0"},
            ["look_again_once", "report_the_points_that_failed", "keep_going_in_groups"],
            "snakemake-executor-plugin-slurm is 2.80.0, not 2.8: patches name_groups_after_their_rule, understand",
        ),
        (
            {"snakemake_interface_executor_plugins": "10.0.0"},
            [patch.change.__name__ for patch in PATCHES[:-1]],
            "snakemake-interface-executor-plugins is 10.0.0, not 9: patches cancel_all_jobs_of_the_run left out",
        ),
        (
            {"snakemake": "10.0", "snakemake_executor_plugin_slurm": "3.0"},
            [],
            "snakemake is 10.0, not 9.27 and snakemake-",
        ),
    ],
)
def test_another_version_is_let_be_and_one_sentence_says_so(
    monkeypatch: pytest.MonkeyPatch, versions: dict[str, str], left: list[str], says: str
) -> None:
    done, (said,) = applied(monkeypatch, **versions)
    assert done == left
    assert said.startswith(f"mirrorsym: {says}")
    assert all((patch.change.__name__ in said) != (patch.change.__name__ in left) for patch in PATCHES)


def test_a_plugin_that_is_not_there_needs_no_patch_and_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "snakemake_executor_plugin_slurm", raising=False)
    apply([Patch(lambda: pytest.fail("applied"), patches.SLURM)], {}.__getitem__, pytest.fail)


def test_each_patch_says_what_is_wrong_and_when_it_goes() -> None:
    for patch in PATCHES:
        assert patch.made_for
        assert "Fault: " in str(patch.change.__doc__)
        assert "Goes when " in str(patch.change.__doc__)


@pytest.mark.parametrize("keep_going", [True, False])
def test_a_job_keeps_going_as_its_workflow_does(monkeypatch: pytest.MonkeyPatch, keep_going: bool) -> None:
    monkeypatch.setattr(SpawnedJobArgsFactory, "general_args", lambda self, settings: f"--force {settings}")
    patches.keep_going_in_groups()
    settings = SimpleNamespace(execution_settings=SimpleNamespace(keep_going=keep_going))
    said = SpawnedJobArgsFactory(settings).general_args(executor_common_settings="--nolock")
    assert said == ("--force --nolock --keep-going" if keep_going else "--force --nolock")


class Job(SimpleNamespace):
    """Stands for a job of a group: keeps what it is told."""

    def log_error(self, msg: str | None, **more: object) -> None:
        self.said.append(msg)


def test_of_a_group_only_what_left_no_result_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GroupJob, "log_error", None)
    monkeypatch.setattr(GroupJob, "rule", None, raising=False)
    patches.report_the_points_that_failed()
    patches.name_groups_after_their_rule()
    done, failed = (Job(said=[], rule="train_a", output=[name]) for name in (__file__, "/nowhere/point.nc"))
    group = SimpleNamespace(jobs=[done, failed])
    GroupJob.log_error(group, "no such account")
    assert (done.said, failed.said) == ([], ["no such account"])
    assert GroupJob.rule.fget(group) == "train_a"


class Plugin(SimpleNamespace):
    """Stands for the SLURM plugin: keeps what it is asked."""

    def __init__(self) -> None:
        class Executor:
            run_uuid = "a-run"

            def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
                cancelled.extend(job.external_jobid for job in active_jobs)

        cancelled: list[str | None] = []
        super().__init__(asked=[], cancelled=cancelled, Executor=Executor, query_job_status=self.query)

    async def query(self, command: str, log: logging.Logger) -> tuple[dict[str, str] | None, float | None]:
        self.asked.append(command)
        return ({"7": "FAILED", "8": "CANCELLED by 1000"}, 0.1) if len(self.asked) == 1 else (None, None)

    def states(self) -> tuple[dict[str, str] | None, float | None]:
        return asyncio.run(self.query_job_status("sacct", logging.getLogger()))


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Plugin:
    plugin = Plugin()
    monkeypatch.setitem(sys.modules, "snakemake_executor_plugin_slurm", plugin)
    patches.understand_who_cancelled()
    patches.cancel_all_jobs_of_the_run()
    return plugin


def test_a_state_is_one_word_and_silence_stays_silence(plugin: Plugin) -> None:
    assert plugin.states() == ({"7": "FAILED", "8": "CANCELLED"}, 0.1)
    assert plugin.states() == (None, None)


def test_all_jobs_of_a_run_are_cancelled_and_nothing_is_asked_after_it(plugin: Plugin) -> None:
    plugin.Executor().cancel_jobs([])
    assert plugin.cancelled == ["--name=a-run"]
    assert plugin.states() == ({}, 0.0)
    assert not plugin.asked


def test_a_scheduler_has_one_appointment_however_often_it_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobScheduler, "_schedule_reevalutation", None)
    patches.look_again_once()
    scheduler = Scheduler()
    before = threading.active_count()
    for _ in range(100):
        JobScheduler._schedule_reevalutation(scheduler, 0.2)
    assert threading.active_count() <= before + 1
    assert scheduler._open_jobs.acquire(timeout=60)  # it comes,
    assert not scheduler._open_jobs.acquire(timeout=0.3)  # once,
    JobScheduler._schedule_reevalutation(scheduler, 0)
    assert scheduler._open_jobs.acquire(timeout=60)  # and the next one can be made


class Scheduler:
    """Stands for Snakemake's scheduler: what it waits for."""

    def __init__(self) -> None:
        self._open_jobs = threading.Semaphore(0)


def test_a_kept_signature_is_the_one_that_would_be_found() -> None:
    def resource(wildcards: object, attempt: int) -> int:
        return attempt

    found = inspect.signature(resource)
    assert inspect.signature(patches.keep_signature(resource)) == found
    assert patches.keep_signature(resource)(None, attempt=2) == 2
