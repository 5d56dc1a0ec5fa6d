"""What the page is put together from: arrays that come back as they were, links to lines of code, words of a scale."""

from __future__ import annotations

import base64
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from reproduction.analysis.claims import load_all
from reproduction.analysis.verdict_file import JudgedControl
from reproduction.files import FileError
from reproduction.pipeline.config import load
from reproduction.pipeline.layout import Layout
from reproduction.report.content import _word
from reproduction.site.build import SiteError, build, linked
from reproduction.site.claims import AT, explored
from reproduction.site.code import Code
from reproduction.site.code import page as page_of
from reproduction.site.explorer.cubes import MISSING, cube

ROOT = Path(__file__).parents[2]


def read_back(made: dict[str, object]) -> np.ndarray:
    """An array of the explorer as the page decodes it."""
    stored = np.frombuffer(base64.b64decode(str(made["data"])), np.uint8)
    values = np.where(stored == MISSING, np.nan, float(str(made["low"])) + stored * float(str(made["step"])))
    dims = made["dims"]
    assert isinstance(dims, list)
    return values.reshape([len(one["values"]) for one in dims])


def test_ranks_and_shares_come_back_exactly_and_what_is_missing_stays_so() -> None:
    ranks = xr.DataArray(
        np.array([[0, 57, 200], [np.nan, 1, 199]]), {"seed": [0, 1], "rate": [0.1, 0.2, 0.4]}, ("seed", "rate")
    )
    np.testing.assert_array_equal(read_back(cube(ranks, 0, 200, 200)), ranks.values)
    np.testing.assert_allclose(read_back(cube(ranks / 200, 0, 1, 200)), ranks.values / 200, atol=1e-12)
    assert cube(ranks, 0, 200, 200)["dims"][1]["edges"] == pytest.approx(
        [0.0707107, 0.141421, 0.282843, 0.565685], rel=1e-5
    )
    assert "edges" not in cube(ranks, 0, 200, 200)["dims"][0]  # 0 has no place on a logarithmic axis


def test_other_numbers_come_back_within_half_a_step_and_those_beyond_the_ends_on_them() -> None:
    values = xr.DataArray(np.random.default_rng(0).uniform(-1, 1, 500), dims="neuron")
    assert np.abs(read_back(cube(values, -1, 1)) - values.values).max() <= 1 / 254 + 1e-12
    beyond = xr.DataArray([-np.inf, -30.0, 5.0, np.nan], dims="feature")
    np.testing.assert_array_equal(read_back(cube(beyond, -20, 2)), [-20, -20, 2, np.nan])


def test_links_to_what_is_no_document_lead_to_its_page() -> None:
    code = Code(ROOT)
    text = "[a `b`](../claims/rescaling.yaml#L3), [guide](guide.md#x), [here](#y), [all](../README.md)"
    text += ", ![p](gallery/fig1.png)"
    turned = linked(text, "docs/findings.md", {"docs/guide.md": ""}, code)
    assert turned == (
        '<a href="../code/claims/rescaling.yaml.html#L-3">a `b`</a>, [guide](guide.md#x), [here](#y), '
        "[all](../index.md), ![p](gallery/fig1.png)"
    )
    assert code.files == {"claims/rescaling.yaml"}
    with pytest.raises(FileError, match=r"nothing\.py is missing, and the page links to it"):
        linked("[x](../nothing.py)", "docs/findings.md", {}, code)


def test_a_page_of_code_has_an_address_for_each_line_and_shows_what_the_file_says() -> None:
    shown = page_of("src/a.py", "x = 1\ny = x < 2\n")
    assert 'name="L-1"' in shown
    assert 'name="L-2"' in shown
    assert "&lt;" in shown
    assert 'href="../../index.html"' in shown
    file, line = Code(ROOT).function("difference").split("#L-")  # type: ignore[union-attr]
    assert file == "code/src/reproduction/analysis/statistics/general.py.html"
    source = (ROOT / "src/reproduction/analysis/statistics/general.py").read_text(encoding="utf-8")
    assert source.splitlines()[int(line) - 1].startswith("def difference(")
    assert Code(ROOT).function("no_such_function") is None


def test_a_claim_that_is_seen_elsewhere_in_a_view_leads_there() -> None:
    config = load(ROOT / "config")
    claims = {claim.id: claim for claim in load_all(Layout(ROOT).paper_claims, [])[0]}
    assert explored(["sparsity"], config) == {"sparsity": "explorer/index.html#sparsity"}
    for name, places in AT.items():
        found = explored(claims[name].experiments, config, [name])
        for view, place in places.items():
            assert found[view] == f"explorer/index.html#{view}?{place}"
    both = explored(["plasticity"], config, ["fixed_bias_restores_plasticity", "rescaling_loses_plasticity"])
    assert both["plasticity"].endswith("?variant=rescaled_bias")  # the first one's


def test_a_control_that_decides_nothing_does_not_read_as_one_that_passes() -> None:
    words = {
        _word(JudgedControl(statement="s", record=record, passed=passed)): (record, passed)
        for record in (True, False)
        for passed in (True, False, None)
    }
    assert words == {
        "shown only, decides nothing": (True, None),
        "passes": (False, True),
        "fails": (False, False),
        "open": (False, None),
    }


def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(ROOT / "config", {"scale": "tiny"})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SiteError, match=r"^the page needs sphinx; pip install '\.\[site\]'"):
        build(config, Layout(tmp_path))
