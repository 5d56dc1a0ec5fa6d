"""What the terminal shows of a job: one line with its point's name, and why it runs."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from reproduction.pipeline.snakemake.messages import REASON_LENGTH, STOPPED, ShortMessages


def shown(dryrun: bool = False, **changes: Any) -> list[str]:
    """Return the lines of a job below the one with the time."""
    formatter = ShortMessages(None, False)
    formatter.dryrun = dryrun
    message = {
        "jobid": 7,
        "rule_name": "train_sparsity",
        "rule_msg": None,
        "wildcards": {"noise_std": "0.1", "seed": "3"},
        "reason": "Missing output files",
    }
    return formatter.format_job_info({**message, **changes}).splitlines()[1:]


def test_a_training_is_named_by_its_point() -> None:
    assert shown() == ["Job 7: sparsity: noise_std 0.1, seed 3", "Reason: Missing output files"]


@pytest.mark.parametrize(
    ("wildcards", "named"),
    [
        ({"parameterization": "2xd5ee1d8d", "noise_std": "3x0a1b2c3d", "rate": "24x2ca67bd9", "seed": "7"}, "144 runs"),
        ({"parameterization": "rescaled", "noise_std": "1.0", "rate": "4x2ca67bd9", "seed": "7"}, "4 runs, "),
    ],
)
def test_a_block_is_named_by_its_runs_and_no_hash(wildcards: dict[str, str], named: str) -> None:
    name = shown(wildcards=wildcards)[0].removeprefix("Job 7: sparsity: ")
    assert name == {"144 runs": "144 runs, seed 7", "4 runs, ": "4 runs, parameterization rescaled, seed 7"}[named]


def test_a_run_that_is_stopped_is_no_failure() -> None:
    formatter = ShortMessages(None, False)
    failed = {"rule_name": "train_sparsity", "log": [], "rule_msg": "it was killed"}
    assert "train_sparsity failed: it was killed" in formatter.format_job_error(failed)
    asked = logging.LogRecord("snakemake", logging.INFO, "", 0, f"{STOPPED}, this might take some time.", None, None)
    assert formatter.format(asked) == "mirrorsym: stopped as asked; the same command goes on from here"
    assert formatter.format_job_error(failed) == ""


def test_other_jobs_have_a_message_of_their_own() -> None:
    assert shown(rule_msg="CIFAR-10: fetch")[0] == "Job 7: CIFAR-10: fetch"


def test_a_rule_that_is_no_training_shows_its_files() -> None:
    files = {"input": ["paper/fig1.pdf"], "output": [], "log": [], "benchmark": None}
    scheduling = {"local": True, "is_checkpoint": False, "priority": 0, "threads": 1, "resources": {}}
    lines = shown(rule_name="all", wildcards={}, **files, **scheduling)
    assert lines[:2] == ["localrule all:", "    input: paper/fig1.pdf"]


@pytest.mark.parametrize(("dryrun", "length"), [(False, len("Reason: ") + REASON_LENGTH + 2), (True, 508)])
def test_only_a_dry_run_shows_the_whole_of_a_long_reason(dryrun: bool, length: int) -> None:
    assert len(shown(dryrun, reason="x" * 500)[1]) == length
