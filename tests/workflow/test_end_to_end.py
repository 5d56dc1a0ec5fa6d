"""The whole paper at scale tiny, from nothing: every rule once, and the numbers in the files."""

from __future__ import annotations

import json
import os
import random
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from links import Page, broken
from project import ROOT, Project, make_project

from reproduction.analysis.claims import load_all
from reproduction.analysis.verdict_file import UNDECIDED
from reproduction.contract import DIVERGED, FINISHED, NOT_IN_SWEEP
from reproduction.pipeline import store
from reproduction.pipeline.config import load, load_experiment
from reproduction.pipeline.layout import Layout
from reproduction.report.findings import lines_of_claims
from reproduction.report.render import make_paper
from reproduction.report.trace import trace
from reproduction.site.build import build

CONFIG = load(ROOT / "config", {"scale": "tiny"})
TINY = ("--config", "scale=tiny")


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project with its own configuration, after one run. No test changes what is in it."""
    project = make_project(tmp_path_factory.mktemp("paper") / "project")
    for source in [ROOT / "config" / "config.yaml", *(ROOT / "config" / "scales").glob("*.yaml")]:
        (project.folder / source.relative_to(ROOT)).write_text(source.read_text())
    shutil.copytree(ROOT / "claims", project.folder / "claims")
    project.snakemake(*TINY)
    return project


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", CONFIG.experiments)
def test_every_result_keeps_the_contract(paper: Project, name: str) -> None:
    result, experiment = paper.result(name, "tiny"), load_experiment(CONFIG.module_of(name))
    store.check(result, experiment)
    assert set(np.unique(result.status)) <= {FINISHED, DIVERGED, NOT_IN_SWEEP}
    assert {"Conventions", "title", "history", "config_hash", "code_version", "created", "software"} <= set(
        result.attrs
    )
    assert (result.attrs["experiment"], result.attrs["scale"]) == (name, "tiny")
    for variable in (*result.data_vars.values(), *result.coords.values()):
        assert {"units", "long_name"} <= set(variable.attrs), variable.name
    for variable in experiment.variables:
        away = result[variable].where(result.status != FINISHED)
        start = variable.startswith("initial_")  # of a run that diverged as well
        assert start or np.isnan(away).all(), f"{variable} has numbers where no run finished"
        if name != "theory_checks" or variable == "violation":  # most checks have no edge and nothing printed otherwise
            assert np.isfinite(result[variable].where(result.status == FINISHED)).any(), variable


def test_sparsity_is_what_the_weights_say(paper: Project) -> None:
    result = paper.result("sparsity", "tiny")
    for threshold in result.threshold.values:
        recounted = (np.abs(result.weight) < threshold).mean("feature").where(result.status == FINISHED)
        np.testing.assert_allclose(result.sparsity.sel(threshold=threshold), recounted)
    assert (result.status.sel(parameterization="vanilla", learning_rate=1) == DIVERGED).all()


def test_correlations_are_correlations(paper: Project) -> None:
    result = paper.result("homogeneity", "tiny")
    for name in ("correlation_pre", "correlation_post"):
        matrices = result[name].values.reshape(-1, 128, 128)
        assert np.nanmax(np.abs(matrices)) <= 1 + 1e-5
        np.testing.assert_allclose(matrices, matrices.swapaxes(1, 2), atol=1e-5)
        diagonal = matrices.diagonal(axis1=1, axis2=2)
        np.testing.assert_allclose(diagonal[np.isfinite(diagonal)], 1, atol=1e-5)
    assert sorted(result.order_pre.values[0, 0].astype(int)) == list(range(128))


def test_claims_are_not_decided_by_a_scale_for_tests(paper: Project) -> None:
    content = json.loads((paper.folder / "results" / "tiny" / "claims.json").read_text())
    assert {entry["verdict"] for entry in content["claims"]} == {UNDECIDED}
    asserted = sum(entry["nature"] == "claim" for entry in content["claims"])
    assert f"{UNDECIDED}: {asserted}" in paper.mirrorsym("claims", "--scale", "tiny").stdout


def _is_text_with_holes(column: Any) -> bool:
    return not pd.api.types.is_numeric_dtype(column) and bool(column.isna().any())


@pytest.mark.parametrize("figure", CONFIG.figures)
def test_every_figure_shows_what_the_results_hold(paper: Project, figure: str) -> None:
    for name in CONFIG.figures[figure].files(figure):
        assert (paper.folder / "paper/figures/tiny" / name).stat().st_size > 50
        if name.endswith(".csv"):  # one kind of row: no column of words or places has holes
            table = pd.read_csv(paper.folder / "paper/figures/tiny" / name, keep_default_na=False, na_values=[""])
            holes = [
                str(column) for column in table if table[column].isna().all() or _is_text_with_holes(table[column])
            ]
            assert holes == [], name
    assert trace(figure, paper.folder / "paper/figures/tiny", paper.folder / "results/tiny") == []


def test_a_remade_figure_has_the_same_bytes_and_then_nothing_is_left_to_do(paper: Project) -> None:
    folder = paper.folder / "paper/figures/tiny"
    before = {path.name: path.read_bytes() for path in folder.glob("fig3_left.*")}
    paper.snakemake("-f", "fig3_left", *TINY)
    assert {path.name: path.read_bytes() for path in folder.glob("fig3_left.*")} == before
    assert paper.planned(*TINY) == {}
    assert "show what the result files hold" in paper.mirrorsym("trace", "fig3_left", "--scale", "tiny").stdout
    report = paper.mirrorsym("summary", "--scale", "tiny").stdout
    assert f"{len(CONFIG.figures)} of {len(CONFIG.figures)} figures" in report


def test_a_clone_beside_its_results_has_nothing_to_do(paper: Project, tmp_path: Path) -> None:
    """Elsewhere, by other times, without Snakemake's own folder, and called through a link."""
    clone = Project(tmp_path / "thèse de Zoé (v2)" / "{x}")
    shutil.copytree(paper.folder, clone.folder, ignore=shutil.ignore_patterns(".snakemake", "__pycache__", ".cache"))
    files = sorted(path for path in clone.folder.rglob("*") if path.is_file())
    for seconds, path in enumerate(random.Random(0).sample(files, len(files))):
        os.utime(path, (1e9 + seconds, 1e9 + seconds))
    (tmp_path / "link").symlink_to(clone.folder)
    assert clone.planned("--snakefile", str(tmp_path / "link" / "Snakefile"), *TINY) == {}


def test_snakemakes_report_says_of_each_figure_what_to_see(paper: Project) -> None:
    paper.snakemake("--report", "report.zip", *TINY)
    with zipfile.ZipFile(paper.folder / "report.zip") as archive:
        (page,) = (name for name in archive.namelist() if name.endswith("report.html"))
        text = archive.read(page).decode()
    missing = [name for name, figure in CONFIG.figures.items() if json.dumps(figure.see)[1:-1] not in text]
    assert missing == []


@pytest.fixture(scope="module")
def site(paper: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the tiny paper."""
    folder = tmp_path_factory.mktemp("site") / "project"
    folder.mkdir()
    for part in ("docs", "claims", "config", "envs", "notebooks", "src", "benchmarks"):
        (folder / part).symlink_to(ROOT / part)
    for file in ROOT.glob("*.md"):
        (folder / file.name).symlink_to(file)
    (folder / "paper").mkdir()
    for file in (path for path in (ROOT / "paper").iterdir() if path.is_file()):
        shutil.copy(file, folder / "paper")
    shutil.copytree(paper.folder / "paper/figures/tiny", folder / "paper/figures/tiny")
    shutil.copytree(paper.folder / "results/tiny", folder / "results/tiny")
    make_paper(CONFIG, Layout(folder))
    return build(CONFIG, Layout(folder))


def test_every_link_within_the_page_leads_somewhere_and_nothing_comes_from_elsewhere(site: Path) -> None:
    assert broken(site) == []


def test_every_claim_has_an_address_and_leads_to_its_evidence(site: Path) -> None:
    listed = Page(site / "claims.html")
    claims = load_all(Layout(ROOT).paper_claims, [])[0]
    assert {f"claim-{claim.id}" for claim in claims} <= listed.places
    assert {"report/index.html#fig3_left", "figures/tiny/fig3_left_theory.csv", "results/tiny/sparsity.nc"} <= set(
        listed.links
    )
    place, line = lines_of_claims(Layout(ROOT))["vanilla_never_sparse"]
    assert f"code/{place}.html#L-{line}" in listed.links
    for file in ("notebooks/fig3_left.ipynb", "src/reproduction/experiments/sparsity.py"):
        assert f"code/{file}.html" in listed.links


def test_the_page_says_what_was_found_only_where_the_verdicts_do(site: Path) -> None:
    """At a scale for tests nothing is decided."""
    text = (site / "index.html").read_text()
    assert "Without the symmetry no learning rate gives a sparse regressor. (not decidable at this scale)" in text
    assert "What holds." not in text
