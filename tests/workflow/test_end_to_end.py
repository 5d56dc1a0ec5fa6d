"""The whole paper at scale tiny, from nothing: every rule once, and the numbers in the files."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from browser import chromium, opened
from links import Page, broken
from project import ROOT, Project, make_project

from reproduction.analysis.claims import load_all
from reproduction.analysis.verdict_file import UNDECIDED
from reproduction.contract import DIVERGED, FINISHED, NOT_IN_SWEEP
from reproduction.experiments import stationary_conditions
from reproduction.pipeline import store
from reproduction.pipeline.config import load, load_experiment
from reproduction.pipeline.layout import Layout
from reproduction.report.findings import lines_of_claims
from reproduction.report.render import make_paper
from reproduction.report.trace import trace
from reproduction.site.build import build
from reproduction.site.explorer.views import VIEWS
from reproduction.theory import two_neurons

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
    assert "1. What holds" not in text
    assert "1. At the scale tiny" in text


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


def explorer(site: Path, state: str) -> str:
    return f"{(site / 'explorer' / 'index.html').as_uri()}#{state}"


@pytest.fixture(scope="module")
def loaded(site: Path, browser: Any) -> Iterator[Any]:
    """The explorer, loaded once for the tests that go through it, and each looks at another view or moves on."""
    with opened(browser, explorer(site, "sparsity")) as page:
        yield page


def go(page: Any, state: str) -> dict[str, Any]:
    """Turn the explorer to a view, as its links do, and return what it then says."""
    page.evaluate("state => { location.hash = state; }", state)
    return numbers(page)


def numbers(page: Any) -> dict[str, Any]:
    """What the explorer says of where it is, once its charts are drawn."""
    page.wait_for_function("document.getElementById('view').dataset.ready === location.hash")
    found: dict[str, Any] = json.loads(page.locator("#readout").get_attribute("data-numbers"))
    return found


def move(page: Any, name: str, place: int) -> None:
    """Put a slider or a choice at its n-th value."""
    page.locator(f"#knobs [name={name}]").evaluate(
        "(knob, place) => { knob.value = place; knob.dispatchEvent(new Event('input', { bubbles: true })); }", place
    )


def test_the_sliders_of_the_explorer_show_what_the_result_file_holds(paper: Project, loaded: Any) -> None:
    data = paper.result("sparsity_phase", "tiny").isel(parameterization=0)
    shares = data.sparsity.where(data.status == FINISHED)
    go(loaded, "sparsity")
    stands: dict[str, int] = {}
    for noise, rate, threshold in itertools.product(
        range(data.sizes["noise_std"]), range(data.sizes["learning_rate"]), range(data.sizes["threshold"])
    ):
        wanted = {"noise_std": noise, "learning_rate": rate, "threshold": threshold}
        for name in (name for name in wanted if stands.get(name) != wanted[name]):
            move(loaded, name, wanted[name])
        stands = wanted
        here = shares.isel(noise_std=noise, learning_rate=rate, threshold=threshold)
        said = numbers(loaded)
        assert said["finished"] == int(here.count())
        assert (said["median"] is None) == bool(here.isnull().all())
        if said["median"] is not None:
            assert said["median"] == pytest.approx(float(here.median("seed")), abs=1e-6)
    assert loaded.locator("#charts svg, #charts canvas").count() == 3


def test_a_screen_reader_finds_names_and_no_thousand_marks(loaded: Any) -> None:
    """In Chromium's own tree, which follows a label to its first child that may have one."""
    go(loaded, "sparsity")
    session = loaded.context.new_cdp_session(loaded)
    nodes = [node for node in session.send("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes]
    assert {name for role, name in named if role == "slider"} == {"label noise σ", "learning rate λ"}
    assert all(name for role, name in named if role in ("slider", "combobox", "button", "link", "image"))
    pictures = [name for role, name in named if role == "image"]
    assert len(pictures) == loaded.locator(".chart").count()
    assert [role for role, _ in named if role.startswith("graphics")] == []


def test_every_view_of_the_explorer_draws_and_reacts(loaded: Any) -> None:
    loaded.set_viewport_size({"width": 380, "height": 900})
    ids = loaded.locator("nav a").evaluate_all("links => links.map((link) => link.id.slice(3))")
    assert ids == list(VIEWS)
    for name in ids:
        loaded.locator(f"#to-{name}").click()
        loaded.wait_for_function(
            "document.getElementById('view').dataset.ready?.startsWith(location.hash.split('?')[0])"
        )
        assert loaded.locator("#charts svg, #charts canvas").count() == loaded.locator(".chart").count() > 0
        assert loaded.evaluate("document.documentElement.scrollWidth") <= 380, name
        before = loaded.evaluate("location.hash")
        knob = loaded.locator("#knobs select, #knobs input").last
        move(loaded, str(knob.get_attribute("name")), 0 if knob.input_value() != "0" else 1)
        assert loaded.evaluate("location.hash") != before


def test_the_dynamics_of_the_page_are_those_of_the_experiment(loaded: Any) -> None:
    settings = stationary_conditions.StationaryConditionsSettings()
    rng = np.random.default_rng(0)
    for landscape in stationary_conditions.LANDSCAPES:
        samples = settings.mean + 0.5 * rng.standard_normal(60)
        for start in rng.uniform(-1.2, 1.2, (4, 2)):
            theta, path = start, [start]
            for sample in samples:
                theta = theta - 0.05 * stationary_conditions.gradient(landscape, theta, float(sample))
                path.append(theta)
            given = [landscape, start.tolist(), 0.05, samples.tolist()]
            shown = loaded.evaluate("(given) => dynamics.trajectory(...given)", given)
            np.testing.assert_allclose(shown, path, rtol=1e-10, atol=1e-12)
    for w in rng.uniform(-2, 2, (5, 2)):
        samples = list(zip(two_neurons.INPUTS.tolist(), two_neurons.TARGETS.tolist(), strict=True))
        given = {"at": w.tolist(), "samples": samples}
        script = "({ at, samples }) => samples.map((sample) => dynamics.%s('exchange', at, sample))"
        np.testing.assert_allclose(
            loaded.evaluate(script % "gradient", given), two_neurons.sample_gradients(w), rtol=1e-12
        )
        np.testing.assert_allclose(loaded.evaluate(script % "loss", given), two_neurons.sample_losses(w), rtol=1e-12)
    noise = np.array(loaded.evaluate("dynamics.normal(3, 20000)"))
    assert abs(noise.mean()) < 0.03
    assert abs(noise.std() - 1) < 0.03


def test_a_start_on_a_condition_stays_and_one_off_it_does_not(loaded: Any) -> None:
    at = "plane?landscape={}&learning_rate=0.05&noise_std=0.5&seed=1&u={}&w={}"
    for landscape, u, w, stays in (
        ("rescaling", 1.2, 1.2, True),
        ("rescaling", 0.5, -0.5, True),
        ("rescaling", 1.2, 0.9, False),
        ("exchange", 0.5, 0.5, True),
        ("exchange", 0.5, -0.5, False),
    ):
        state = at.format(landscape, u, w)
        assert go(loaded, state)["stays"] is stays, state


def test_an_address_that_is_sent_shows_the_same(site: Path, browser: Any, loaded: Any) -> None:
    go(loaded, "sparsity")
    move(loaded, "learning_rate", 1)
    move(loaded, "threshold", 1)
    said = numbers(loaded)
    with opened(browser, str(loaded.evaluate("location.href"))) as again:
        assert numbers(again) == said
        assert serious(again) == {}


def test_an_address_off_the_grid_goes_to_the_nearest_stop_and_says_so(paper: Project, loaded: Any) -> None:
    data = paper.result("sparsity_phase", "tiny")
    rates = data["learning_rate"].values
    wanted = float(rates[0] + 0.3 * (rates[1] - rates[0]))
    go(loaded, f"sparsity?learning_rate={wanted}&threshold={data['threshold'].values[-1]:e}")
    shown = dict(part.split("=") for part in loaded.evaluate("location.hash.split('?')[1]").split("&"))
    assert float(shown["learning_rate"]) == rates[0]
    assert float(shown["threshold"]) == data["threshold"].values[-1]
    said = loaded.locator("#readout").inner_text()
    assert said.startswith(f"learning rate λ {wanted} is no stop here")
    assert "threshold" not in said  # which is one, written otherwise
    move(loaded, "learning_rate", 1)
    assert "no stop" not in loaded.locator("#readout").inner_text()


def test_what_was_not_run_is_told_from_what_diverged(paper: Project, loaded: Any) -> None:
    go(loaded, "rank")
    names = ["parameterization", "initial_std", "signal", "learning_rate"]
    states = paper.result("matrix_factorization", "tiny")["status"]
    states = states.transpose(*names, "seed")
    for place in np.ndindex(states.shape[:-1]):
        at = {name: states[name].values[k].item() for name, k in zip(names, place, strict=True)}
        go(loaded, "rank?" + "&".join(f"{name}={value}" for name, value in at.items()))
        said = loaded.locator("#readout").inner_text()
        assert said.startswith("Not run here") == bool((states.values[place] == NOT_IN_SWEEP).all()), at
        assert (said == "Here every run diverged.") == bool((states.values[place] == DIVERGED).all()), at


def test_only_layers_that_the_model_has_are_offered(loaded: Any) -> None:
    go(loaded, "attention?layers=1&layer=2")
    assert "layer=1&" in loaded.evaluate("location.hash")
    offered = "#knobs [name=layer] option:not([disabled])"
    assert loaded.locator(offered).all_inner_texts() == ["1"]
    assert "layer shown 2 is no stop here" in loaded.locator("#readout").inner_text()


def test_claims_are_filtered_sorted_and_found_and_without_javascript_read(site: Path, browser: Any) -> None:
    listed = "#claims .claim:not([hidden])"
    address = (site / "claims.html").as_uri()
    total = len(load_all(Layout(ROOT).paper_claims, [])[0])
    with opened(browser, f"{address}#claim-vanilla_never_sparse") as page:
        assert page.locator(listed).count() == total
        assert page.locator("#claim-vanilla_never_sparse details").get_attribute("open") is not None
        assert page.evaluate("document.activeElement.id") == "claim-vanilla_never_sparse"
        page.locator("#claim-tools [name=weight]").select_option("core")
        core = page.locator(listed).count()
        assert 0 < core < total
        page.locator("#claim-tools [name=search]").fill("plain regressor")
        assert 0 < page.locator(listed).count() < core
        assert page.locator("#claim-count").inner_text().startswith(f"{page.locator(listed).count()} of {total}")
        page.locator("#claim-tools [name=search]").fill("")
        page.locator("#claim-tools [name=sort]").select_option("section")
        sections = page.locator(listed).evaluate_all("claims => claims.map((claim) => claim.dataset.section)")
        assert sections == sorted(sections)
        page.locator("#claim-tools [name=search]").fill("no such words")
        assert page.locator(listed).count() == 0
        page.get_by_role("button", name="show all").click()
        assert page.locator(listed).count() == total
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(address)
    assert plain.locator("#claims .claim summary").count() == total
    assert plain.locator("#claims .claim summary").first.is_visible()
    context.close()


FEWER = """() => {
  for (const parent of document.querySelectorAll("main *"))
    for (const child of [...parent.children].slice(8))
      if (child.tagName === parent.children[0].tagName && child.tagName !== "SECTION") child.remove();
}"""
"""Leaves the first eight of many alike, such as rows of a table: axe takes a minute for thousands."""


def serious(page: Any) -> dict[str, str]:
    """What axe minds most in a page."""
    from axe_playwright_python.sync_playwright import Axe

    page.evaluate(FEWER)
    # Without the style sheets: axe would load them again, which a page on disk may not.
    found = Axe().run(page, options={"preload": False, "resultTypes": ["violations"]}).response["violations"]
    return {one["id"]: one["nodes"][0]["html"] for one in found if one["impact"] in ("serious", "critical")}


@pytest.mark.parametrize("address", ["claims.html", "report/index.html", "code/notebooks/fig1.ipynb.html"])
def test_axe_finds_nothing_serious(site: Path, browser: Any, address: str) -> None:
    """On a page of each kind; the explorer is looked at where it is loaded."""
    with opened(browser, (site / address).as_uri()) as page:
        assert serious(page) == {}
