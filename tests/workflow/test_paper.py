"""The report as a rule: made from a small project, again when what it says changes, one sentence when it cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from project import ROOT, Project

CLAIM = {
    "id": "made_up",
    "place": "Section 1",
    "kind": "text",
    "statement": "A claim for a test",
    "statistic": "a number",
    "supports": "above 0",
    "refutes": "below 0",
    "verdict": "supported",
    "reason": "It is above 0",
}


@pytest.fixture(scope="module")
def made(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The small project with the report's files and a claim, after one run."""
    project = finished.copy(tmp_path_factory.mktemp("report") / "project")
    (project.folder / "paper").mkdir()
    for name in ("main.typ", "index.html.j2", "references.bib", "text.yaml", "findings.yaml"):
        shutil.copy(ROOT / "paper" / name, project.folder / "paper" / name)
    write_claims(project, CLAIM)
    project.snakemake("paper")
    return project


@pytest.fixture
def paper(made: Project, tmp_path: Path) -> Project:
    """A copy of it for a test of its own."""
    return made.copy(tmp_path / "project")


def write_claims(project: Project, *claims: dict[str, str]) -> None:
    path = project.folder / "results" / "quick" / "claims.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"scale": "quick", "claims": claims}))


@pytest.mark.timeout(900)
def test_the_report_is_made_once(paper: Project) -> None:
    folder = paper.folder / "paper" / "quick"
    assert (folder / "paper.pdf").read_bytes().startswith(b"%PDF")
    assert "A claim for a test" in (folder / "index.html").read_text()
    assert paper.planned("paper") == {}


def test_the_report_of_results_in_another_folder(paper: Project, tmp_path: Path) -> None:
    """With --directory the results lie elsewhere, with the records that travel with them; the words stay."""
    there = tmp_path / "else where"
    shutil.copytree(paper.folder / "results", there / "results")
    done = paper.snakemake("paper", "--directory", str(there))
    assert (there / "paper" / "quick" / "paper.pdf").read_bytes().startswith(b"%PDF")
    assert "1 of 1 steps" in done.stdout + done.stderr


def test_other_words_make_the_report_again_and_nothing_else(paper: Project) -> None:
    words = paper.folder / "paper" / "text.yaml"
    words.write_text(words.read_text().replace("title: Mirror symmetry", "title: Mirrors and what they do"))
    assert paper.planned("paper") == {"paper": 1}
    paper.snakemake("paper")
    assert "Mirrors and what they do" in (paper.folder / "paper" / "quick" / "index.html").read_text()


def test_a_report_that_cannot_be_made_is_one_sentence(paper: Project) -> None:
    write_claims(paper, {**CLAIM, "verdict": "maybe"})
    done = paper.snakemake("paper", check=False)
    assert done.returncode != 0
    (said,) = (line for line in (done.stdout + done.stderr).splitlines() if line.startswith("mirrorsym: "))
    assert "paper failed" in said
    assert "claim made_up: there is no verdict 'maybe'" in said
