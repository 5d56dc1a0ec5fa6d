"""The workflow's verdicts: they follow the results and the file of claims, and need no experiment that is not there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from project import ROOT, Project

from reproduction.analysis.verdict_file import NOT_SUPPORTED, SUPPORTED, UNDECIDED

CLAIM: dict[str, Any] = {
    "id": "it_ran",
    "place": "Figure 3",
    "kind": "figure",
    "nature": "claim",
    "weight": "core",
    "statement": "It ran.",
    "quote": "it ran",
    "experiments": ["sparsity"],
    "statistic": {
        "function": "value",
        "experiment": "sparsity",
        "variable": "finished",
        "at": {"parameterization": "rescaled", "noise_std": 1},
        "reduce": {"learning_rate": "mean"},
    },
    "meaning": "share of learning rates that finish",
    "supported": ">= 0.9",
    "refuted": "<= 0.1",
    "scales": ["quick"],
    "needs": "another scale",
    "change_our_mind": "another run",
}


def write(project: Project, *claims: dict[str, Any]) -> None:
    (project.folder / "claims").mkdir(exist_ok=True)
    (project.folder / "claims" / "claims.yaml").write_text(yaml.safe_dump(list(claims)))


def verdicts(project: Project) -> dict[str, str]:
    content = json.loads((project.folder / "results" / "quick" / "claims.json").read_text())
    return {entry["id"]: entry["verdict"] for entry in content["claims"]}


@pytest.fixture(scope="module")
def once(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The small project after a run with one claim."""
    project = finished.copy(tmp_path_factory.mktemp("judged") / "project")
    write(project, CLAIM)
    project.snakemake()
    return project


@pytest.fixture
def judged(once: Project, tmp_path: Path) -> Project:
    """A copy of it for a test of its own."""
    return once.copy(tmp_path / "project")


def test_a_claim_is_judged_once_and_printed(judged: Project) -> None:
    assert verdicts(judged) == {"it_ran": SUPPORTED}
    assert judged.planned() == {}
    assert "supported: it_ran (Figure 3)" in judged.mirrorsym("claims").stdout


def test_another_threshold_is_judged_anew_and_trains_nothing(judged: Project) -> None:
    write(judged, {**CLAIM, "supported": ">= 2", "refuted": "<= 1"})
    assert judged.planned() == {"claims": 1}
    judged.snakemake("claims")
    assert verdicts(judged) == {"it_ran": NOT_SUPPORTED}


def test_the_papers_claims_without_their_experiments(judged: Project) -> None:
    shutil.rmtree(judged.folder / "claims")
    shutil.copytree(ROOT / "claims", judged.folder / "claims")
    assert judged.planned() == {"claims": 1}
    judged.snakemake("claims")
    content = json.loads((judged.folder / "results" / "quick" / "claims.json").read_text())
    assert {entry["verdict"] for entry in content["claims"]} == {UNDECIDED}
    reasons = {entry["id"]: entry["reason"] for entry in content["claims"]}
    assert "no experiment plasticity" in reasons["vanilla_keeps_plasticity"]
    assert "steps 500" in reasons["vanilla_never_sparse"]
    assert list(content["sources"]) == ["sparsity"]


def test_a_mistake_in_the_claims_ends_the_run_with_a_sentence(judged: Project) -> None:
    write(judged, {**CLAIM, "suported": ">= 2"})
    done = judged.snakemake("-n", check=False)
    assert done.returncode != 0
    assert "claim it_ran: there is no field 'suported' (did you mean 'supported'?)" in done.stdout + done.stderr
    write(judged, {**CLAIM, "statistic": {"function": "valeu"}})
    done = judged.snakemake("claims", check=False)
    assert "there is no statistic 'valeu' (did you mean 'value'?)" in done.stdout + done.stderr


def test_a_project_without_claims_judges_none(judged: Project) -> None:
    shutil.rmtree(judged.folder / "claims")
    assert judged.planned() == {}
