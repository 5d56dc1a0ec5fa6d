"""What the terminal shows of a job: one line with its point's name, and why it runs."""

from __future__ import annotations

from typing import Any

import pytest

from reproduction.pipeline.snakemake.messages import REASON_LENGTH, ShortMessages


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
    assert shown() == ["Job 7: sparsity: 0.1 3", "Reason: Missing output files"]


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
