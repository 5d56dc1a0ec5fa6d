"""The report says what the files say: its numbers, its claims and its figures, in the PDF and in the page."""

from __future__ import annotations

import base64
import json
import re
import shutil
import time
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from reproduction import formatting
from reproduction.analysis.claims import load_all
from reproduction.analysis.verdict_file import ClaimError, JudgedClaim
from reproduction.files import FileError, read_yaml
from reproduction.pipeline import store
from reproduction.pipeline.config import SCALES, Config, FigureConfig, Origin, load, load_experiment, merge
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.points import points_of
from reproduction.report import plotting, prose
from reproduction.report.content import figure_of, gather
from reproduction.report.gallery import caption
from reproduction.report.render import make_paper, render_pdf, render_template
from reproduction.report.verdicts import ReportError

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "paper"

CLAIM: dict[str, Any] = {
    "id": "fig3-left.sparse",
    "place": "Figure 3, left",
    "kind": "figure",
    "statement": "Rescaling <makes> weights vanish & stay",
    "statistic": "median difference of fractions",
    "supports": "the interval lies above 0.5",
    "refutes": "the interval lies below 0.1",
    "units": "1",
    "effect": 0.73456,
    "interval": [0.70123, 0.78987],
    "confidence": 0.95,
    "samples": 2,
    "controls": [
        {
            "statement": "more steps agree",
            "passes": "<= 1e-1",
            "effect": 0.01,
            "interval": [0.0, 0.02],
            "samples": 1,
            "passed": True,
        }
    ],
    "verdict": "supported",
    "reason": "The fraction is 0.73 higher.",
    "decided_at": "tiny",
    "change_our_mind": "an interval below 0.5",
    "experiments": ["sparsity"],
}


def claims_of(*changes: dict[str, Any]) -> dict[str, Any]:
    return {"scale": "tiny", "claims": [{**CLAIM, **change} for change in changes], "verdicts": {}, "sources": {}}


def sparsity_results() -> xr.Dataset:
    """Vanilla never sparse and diverged at the largest rate, rescaled 10 %, 50 % and 100 % with a spread over seeds."""
    sparsity = np.zeros((2, 1, 3, 3, 1))
    sparsity[1, 0, :, :, 0] = [[0.1, 0.1, 0.1], [0.4, 0.5, 0.55], [1, 1, 1]]
    status = np.zeros((2, 1, 3, 3), np.int8)
    status[0, 0, 2, 1] = 1
    dims = ("parameterization", "noise_std", "learning_rate", "seed")
    return xr.Dataset(
        {"sparsity": ((*dims, "threshold"), sparsity), "status": (dims, status)},
        {
            "parameterization": ["vanilla", "rescaled"],
            "noise_std": [0.3],
            "learning_rate": [1.6e-4, 0.01, 1.0],
            "seed": [0, 1, 2],
            "threshold": [1e-6],
        },
        {
            "experiment": "sparsity",
            "scale": "tiny",
            "scale_note": "tiny: 500 steps only",
            "settings": json.dumps({"features": 200, "steps": 25_000, "initial_variance": 0.005, "thresholds": [1e-6]}),
            "config_hash": "0123456789ab",
            "fingerprint": "f" * 64,
            "code_version": "abc123",
            "software": "python 3.11.7, numpy 2.4.6",
            "device": "CPU of a test",
        },
    )


CONFIG = Config.model_validate(
    {
        "scale": "tiny",
        "cifar10": {"url": "https://example.org", "checksum": "md5:" + "0" * 32},
        "experiments": {
            "sparsity": {
                "settings": {"features": 200, "steps": 25_000},
                "seeds": 3,
                "sweep": [
                    {
                        "parameterization": ["vanilla", "rescaled"],
                        "noise_std": [0.3],
                        "learning_rate": [1.6e-4, 0.01, 1.0],
                    }
                ],
            }
        },
        "figures": {
            "fig3_left": {
                "title": "rescaling makes SGD sparse",
                "see": "See it rise.",
                "caption": "After {sparsity.steps} steps at λ of {sparsity.learning_rate}, {sparsity.seeds} seeds.",
                "text": "See [#fig3_left].",
                "open": [{"what": "start", "chosen": "variance {sparsity.initial_variance}"}],
                "experiments": ["sparsity"],
            },
            "extra": {"title": "a figure without words", "experiments": ["sparsity"]},
        },
    }
)


@pytest.fixture
def project(tmp_path: Path, drawn: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "project"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of two figures, one experiment and two claims, with the real layout."""
    tmp_path = tmp_path_factory.mktemp("drawn")
    (tmp_path / "paper").mkdir()
    for name in ("main.typ", "index.html.j2", "references.bib", "text.yaml", "findings.yaml"):
        shutil.copy(PAPER / name, tmp_path / "paper" / name)
    data = sparsity_results()
    store.write(data, tmp_path / "results" / "tiny" / "sparsity.nc")
    write_claims(
        tmp_path, claims_of({}, {"id": "theorem-9", "place": "Theorem 9", "kind": "theory", "experiments": []})
    )
    for name, width in (("fig3_left", "page"), ("extra", "column")):
        fig, ax = plotting.figure(width, ratio=0.5)
        ax.plot([0, 1], [0, 1])
        folder = tmp_path / "paper" / "figures" / "tiny"
        plotting.save(fig, folder, name, data=pd.DataFrame({"a": [1.5]}), drawn=[data[["sparsity"]]])
        plt.close(fig)
    return tmp_path


def write_claims(project: Path, claims: dict[str, Any]) -> None:
    (project / "results" / "tiny" / "claims.json").write_text(json.dumps(claims))


class Page(HTMLParser):
    """What a page shows and where it points."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images: list[dict[str, str]] = []
        self.feed(text)
        self.text = " ".join("".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if "href" in given else []
        self.images += [given] if tag == "img" else []

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def page(project: Path) -> Page:
    return Page(render_template(gather(CONFIG, Layout(project)), project / "paper" / "index.html.j2"))


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0, 3, "0"),
        (0.73456, 3, "0.735"),
        (-3.0, 3, "−3"),
        (1e-6, 3, "10⁻⁶"),
        (1.6e-4, 3, "1.6·10⁻⁴"),
        (0.00123456, 3, "0.00123"),
        (0.99951, 3, "1"),
        (1234.5, 3, "1,234"),
        (25_000, 6, "25,000"),
        (1e5, 6, "10⁵"),
        (123_456, 3, "123,456"),
        (1.125e7, 3, "1.12·10⁷"),
        (float("nan"), 3, "none"),
        (float("inf"), 3, "∞"),
    ],
)
def test_numbers_have_one_format(value: float, digits: int, text: str) -> None:
    assert formatting.number(value, digits) == text


def test_a_number_reads_back_as_itself() -> None:
    powers = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹−", "-0123456789-")
    for value in np.random.default_rng(0).standard_normal(300) * 10.0 ** np.linspace(-12, 12, 300):
        text = formatting.number(value, 6).replace(",", "")
        plain = re.sub(r"(?:(?<=\d)·)?10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)$", r"e\1", text).translate(powers)
        plain = re.sub(r"^(-?)e", r"\g<1>1e", plain)
        assert float(plain) == pytest.approx(value, rel=1e-5), text


@pytest.mark.parametrize(
    ("text", "typeset"),
    [
        ("below 1e-6 at 1e+05 steps, >= 0.5", "below 10⁻⁶ at 10⁵ steps, ≥ 0.5"),
        ("-3.2e-07 (in [-0.01, 2], <= -2)", "−3.2·10⁻⁷ (in [−0.01, 2], ≤ −2)"),
        ("0-1, ResNet-18, x2e-3y, v1.2e3.nc, (a)-1", "0-1, ResNet-18, x2e-3y, v1.2e3.nc, (a)-1"),
    ],
)
def test_numbers_in_sentences_are_typeset(text: str, typeset: str) -> None:
    assert formatting.typeset(text) == typeset


def test_the_gallery_says_where_settings_come_from(project: Path) -> None:
    layout = Layout(project)
    origin = Origin(paper=["features"], open=["thresholds"])
    entry = CONFIG.experiments["sparsity"].model_copy(update={"origin": origin})
    changed = CONFIG.model_copy(update={"experiments": {"sparsity": entry}})
    ours = caption(layout.result("tiny", "sparsity"), CONFIG.origins_of("sparsity"))
    assert ours.startswith("`sparsity` (tiny: 500 steps only; 3 seeds) an experiment of ours: ")
    said = caption(layout.result("tiny", "sparsity"), changed.origins_of("sparsity"))
    assert "as in the paper: features 200; left open there: thresholds" in said
    assert "ours: steps 25000" in said


def test_a_failed_claim_stands_once_with_its_consequences_under_it(project: Path) -> None:
    failed = {"verdict": "not supported"}
    write_claims(
        project,
        claims_of(
            {"id": "first", "consequence_of": "head", **failed},
            {"id": "head", **failed},
            {"id": "alone", "consequence_of": "fine", **failed},
            {"id": "fine"},
            {"id": "later", "nature": "extension", "consequence_of": "earlier", "weight": "core"},
            {"id": "between", "nature": "extension"},
            {"id": "earlier", "nature": "extension", "weight": "detail"},
        ),
    )
    assert gather(CONFIG, Layout(project))["failed_claims"] == [
        {"claim": "head", "consequences": ["first"]},
        {"claim": "alone", "consequences": []},
    ]
    assert gather(CONFIG, Layout(project))["extensions"]["claims"] == ["between", "earlier", "later"]


def test_only_what_the_paper_asserts_is_counted_and_heads_the_report(project: Path) -> None:
    natures = {"said": "claim", "typo": "misprint", "step": "slip", "more": "extension"}
    write_claims(
        project,
        claims_of(
            {"id": "minor", "weight": "detail"},
            *({"id": name, "nature": nature, "headline": f"of {name}"} for name, nature in natures.items()),
        ),
    )
    report = gather(CONFIG, Layout(project))
    text = " ".join(run.get("text", "") for paragraph in report["abstract"] for run in paragraph)
    assert "judge 2 of its claims" in text
    assert [entry["count"] for entry in report["verdicts"]] == ["2", "0", "0", "0"]
    assert report["apart"][0] == "apart: misprints and slips, which fail as printed; mended, 2 of 2 hold"
    assert report["apart"][1] == "apart: extensions of ours, 1"
    assert [row["what"] for row in report["headlines"]] == ["of said"]
    assert report["figures"]["fig3_left"]["claims"] == ["said", "minor"]
    assert report["mended"]["claims"] == ["typo", "step"]
    assert report["extensions"]["claims"] == ["more"]
    assert [group["claims"] for group in report["groups"]] == [["said", "minor"], ["typo", "step"], ["more"]]


def test_settings_axes_and_notes_are_those_of_the_result_file(project: Path) -> None:
    figure = gather(CONFIG, Layout(project))["figures"]["fig3_left"]
    assert figure["see"] == [{"text": "See it rise."}]
    assert figure["caption"] == [{"text": "After 25,000 steps at λ of 1.6·10⁻⁴, 0.01 and 1, 3 seeds."}]
    assert figure["notes"] == ["tiny: 500 steps only"]
    assert figure["wide"]
    assert figure["width"] == pytest.approx(6.75 * 72)
    changed = sparsity_results().isel(seed=[0, 1], learning_rate=[0, 1])
    changed.attrs["settings"] = json.dumps({**json.loads(changed.attrs["settings"]), "steps": 10**6})
    store.write(changed, project / "results" / "tiny" / "sparsity.nc")
    caption = gather(CONFIG, Layout(project))["figures"]["fig3_left"]["caption"]
    assert caption == [{"text": "After 10⁶ steps at λ of 1.6·10⁻⁴ and 0.01, 2 seeds."}]


def test_headline_numbers_are_those_of_the_claims_and_controls_that_are_marked(project: Path) -> None:
    control = {**CLAIM["controls"][0], "headline": "The same, longer"}
    marked = {"headline": "Weights below 1e-6", "controls": [CLAIM["controls"][0], control]}
    unknown = {"id": "theorem-9", "place": "Theorem 9", "experiments": [], "headline": "Not run", "effect": None}
    write_claims(project, claims_of(marked, {"id": "unmarked"}, unknown))
    label = prose.figure_labels(CONFIG.figures)["fig3_left"]
    place = {"figure": "fig3_left", "label": label}
    assert gather(CONFIG, Layout(project))["headlines"] == [
        {"what": "Weights below 10⁻⁶", "value": "0.735 [0.701, 0.79]", **place},
        {"what": "The same, longer", "value": "0.01 [0, 0.02]", **place},
    ]
    assert "Weights below 10⁻⁶ (Figure 3, left)" in page(project).text


def test_a_claim_is_reported_with_its_numbers(project: Path) -> None:
    report = gather(CONFIG, Layout(project))
    claim = report["claims_by_id"][CLAIM["id"]]
    assert claim["effect"] == "0.735 [0.701, 0.79]"
    assert claim["controls"] == [
        {
            "statement": "more steps agree",
            "passes": "≤ 0.1",
            "effect": "0.01 [0, 0.02]",
            "samples": "1",
            "mark": "✓",
            "word": "passes",
            "asked": "passes",
        }
    ]
    assert report["figures"]["fig3_left"]["claims"] == [CLAIM["id"]]
    assert report["elsewhere"]["claims"] == ["theorem-9"]
    assert {entry["verdict"]: entry["count"] for entry in report["verdicts"]}["supported"] == "2"
    listed = [name for group in report["groups"] for name in group["claims"]]
    assert sorted(listed) == sorted(report["claims_by_id"])


def test_claims_are_numbered_in_the_order_of_their_evidence_and_named_by_their_numbers(project: Path) -> None:
    changes = [
        {"id": "theorem", "place": "Theorem 9", "kind": "theory", "experiments": [], "weight": "core"},
        {"id": "typo", "nature": "misprint"},
        {"id": "minor", "weight": "detail", "verdict": "not decidable at this scale"},
        {"id": "main", "weight": "core"},
    ]
    write_claims(project, claims_of(*changes))
    report = gather(saying("As [%theorem] and [%nothing] say."), Layout(project))
    order = [name for group in report["groups"] for name in group["claims"]]
    assert order == ["main", "minor", "theorem", "typo"]
    assert [report["claims_by_id"][name]["number"] for name in order] == ["1", "2", "3", "4"]
    assert report["figures"]["fig3_left"]["text"] == [
        {"text": "As "},
        {"claim": "theorem", "text": "claim 3"},
        {"text": " and "},
        {"text": "claim nothing"},
        {"text": " say."},
    ]
    assert [(group["key"], group["claims"]) for group in report["verdicts_of_core"]] == [
        ("supported", ["main", "theorem"])
    ]
    assert report["undecided_claims"] == ["minor"]


def test_what_was_found_stands_in_the_report_where_its_claims_do(project: Path) -> None:
    assert gather(CONFIG, Layout(project))["findings"] == []
    write_claims(project, claims_of({"id": "vanilla_never_sparse", "verdict": "supported"}))
    told = gather(CONFIG, Layout(project))["findings"]
    assert [(one["figure"], one["claims"]) for one in told] == [("fig3_left", ["vanilla_never_sparse"])]
    assert told[0]["text"] == [{"text": "Rescaling <makes> weights vanish & stay (supported)"}]


def test_own_claims_have_a_section_of_their_own_and_are_counted_nowhere(project: Path) -> None:
    before = gather(CONFIG, Layout(project))
    ours = {**CLAIM, "id": "ours", "place": "own", "kind": "own", "verdict": "not supported"}
    judged = json.loads((project / "results" / "tiny" / "claims.json").read_text())
    write_claims(project, {**judged, "own": [ours]})
    report = gather(CONFIG, Layout(project))
    assert report["own"]["claims"] == ["ours"]
    assert report["claims_by_id"]["ours"]["verdict"] == "not supported"
    assert report["groups"][-1] == report["own"]
    for part in ("abstract", "verdicts", "failed_claims", "figures"):
        assert report[part] == before[part]
    page = make_paper(CONFIG, Layout(project))[2].read_text()
    assert page.count('id="claim-ours"') == 1
    assert report["own"]["title"] in page


def test_compute_is_the_sum_of_the_benchmark_files(project: Path) -> None:
    """Two jobs of 30.5 s and 90 s for the points, one of 2 s to collect: 122.5 s."""
    benchmarks = project / "results" / "benchmarks"
    points = points_of(CONFIG, "sparsity")
    seconds = {benchmarks / "points" / points[0].name: 30.5, benchmarks / "points" / points[1].name: 90.0}
    for path, value in {**seconds, benchmarks / "tiny" / "collect_sparsity.nc": 2.0}.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".tsv").write_text(f"s\th:m:s\n{value}\t0:00:00\n")
    compute = gather(CONFIG, Layout(project))["seconds"]
    assert [(row["part"], row["jobs"], row["time"]) for row in compute["rows"]] == [
        ("sparsity", "2", "2 min"),
        ("collect", "1", "2 s"),
    ]
    assert (compute["jobs"], compute["time"], compute["devices"]) == ("3", "2 min", ["CPU of a test"])


@pytest.mark.parametrize(
    ("place", "experiments", "figure"),
    [
        ("Figure 3, left", ["sparsity"], "fig3_left"),
        ("Figure 3-right", [], "fig3_right"),
        ("Figure 3, middle, inset", ["matrix_factorization"], "fig3_mid"),
        ("Figure 3", ["homogeneity"], "fig3_right"),
        ("Figure 10", ["attention"], "fig10"),
        ("Fig. 1", [], "fig1"),
        ("Section 2.4", ["sparsity_batch"], "sparsity_batch"),
        ("Section 3.4", ["plasticity"], "fig4"),
        ("Section 2.4; Figure 3, middle", ["matrix_factorization_phase"], "phase_factorization"),
        ("Section 3.3; Figure 6", [], "fig6"),
        ("Appendix B.3", ["plasticity", "of_no_figure"], "fig4"),
        ("Appendix B.3", ["of_no_figure", "plasticity"], None),
        ("Theorem 1", [], None),
        ("Figure 77", [], None),
    ],
)
def test_a_claim_stands_under_the_figure_that_its_place_names(
    place: str, experiments: list[str], figure: str | None
) -> None:
    claim = JudgedClaim.model_validate({**CLAIM, "place": place, "experiments": experiments})
    assert figure_of(claim, load(ROOT / "config")) == figure


def test_the_page_shows_every_figure_and_every_claim(project: Path) -> None:
    shown = page(project)
    for name in CONFIG.figures:
        assert name in shown.ids
    assert [image["src"] for image in shown.images] == [f"../figures/tiny/{name}.svg" for name in CONFIG.figures]
    assert all(len(image["alt"]) > 20 for image in shown.images)
    assert "After 25,000 steps" in shown.images[0]["alt"]
    for name in (CLAIM["id"], "theorem-9"):
        assert f"claim-{name}" in shown.ids
        assert shown.text.count(name) >= 2  # beside its reason and in the table
    assert "Rescaling <makes> weights vanish & stay" in shown.text
    assert "0.735 [0.701, 0.79]" in shown.text
    assert "variance 0.005" in shown.text


def test_every_link_of_the_page_leads_somewhere(project: Path) -> None:
    make_paper(CONFIG, Layout(project))
    shown = Page((project / "paper" / "tiny" / "index.html").read_text())
    assert len(set(shown.ids)) == len(shown.ids)
    for name, image in zip(CONFIG.figures, shown.images, strict=True):  # the page carries its figures
        kind, _, content = image["src"].partition(",")
        assert kind == "data:image/svg+xml;base64"
        assert base64.b64decode(content) == (project / f"paper/figures/tiny/{name}.svg").read_bytes()
    for link in shown.links:
        if link.startswith("#"):
            assert link[1:] in shown.ids
        elif not link.startswith("https://"):
            assert (project / "paper" / "tiny" / link).is_file(), link


def test_a_changed_claim_changes_the_page_and_the_pdf(project: Path) -> None:
    before = page(project).text
    numbers, pdf, _ = make_paper(CONFIG, Layout(project))
    first = pdf.read_bytes()
    write_claims(
        project, claims_of({"verdict": "not supported", "reason": "The fraction is 0.01 lower.", "effect": -0.01})
    )
    after = page(project).text
    assert "Not supported (median difference of fractions): The fraction is 0.01 lower." in after
    assert "Not supported (median difference of fractions): The fraction is 0.01 lower." not in before
    assert "−0.01 [0.701, 0.79]" in after
    assert "theorem-9" not in after
    make_paper(CONFIG, Layout(project))
    assert pdf.read_bytes() != first
    assert "0.01 lower" in numbers.read_text()


def test_what_is_missing_is_one_sentence(project: Path) -> None:
    (project / "paper" / "figures" / "tiny" / "extra.svg").unlink()
    with pytest.raises(FileError, match=r"^\S*extra\.svg is missing; make it with snakemake --cores all extra$"):
        gather(CONFIG, Layout(project))
    (project / "results" / "tiny" / "claims.json").unlink()
    with pytest.raises(FileError, match=r"^\S*claims\.json is missing; make it with snakemake --cores all claims$"):
        gather(CONFIG, Layout(project))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdict": "maybe"}, "no verdict 'maybe'"),
        ({"effect": "large"}, r"claims\.0\.effect"),
        ({"id": "two words"}, "id"),
    ],
)
def test_a_wrong_claim_is_one_sentence(project: Path, change: dict[str, Any], message: str) -> None:
    write_claims(project, claims_of(change))
    with pytest.raises(ClaimError, match=message) as error:
        gather(CONFIG, Layout(project))
    assert "\n" not in str(error.value)


def test_claims_of_another_scale_are_refused(project: Path) -> None:
    write_claims(project, {**claims_of({}), "scale": "quick"})
    with pytest.raises(ReportError, match="of the scale quick, not tiny"):
        gather(CONFIG, Layout(project))


def saying(text: str) -> Config:
    """The configuration with this text beside its first figure."""
    return Config.model_validate(merge(CONFIG.model_dump(), {"figures": {"fig3_left": {"text": text}}}))


def test_a_number_or_a_reference_that_is_not_there_is_named(project: Path) -> None:
    with pytest.raises(prose.ProseError, match=r"sparsity\.step\}.*did you mean 'sparsity\.steps'"):
        gather(saying("Over {sparsity.step} steps."), Layout(project))
    with pytest.raises(prose.ProseError, match="nobody2000"):
        gather(saying("As in [@nobody2000]."), Layout(project))


def test_the_pdf_is_the_same_twice_holds_its_fonts_and_is_made_in_seconds(project: Path) -> None:
    began = time.monotonic()
    numbers, pdf, _ = make_paper(CONFIG, Layout(project))
    assert time.monotonic() - began < 30
    first = pdf.read_bytes()
    assert first.startswith(b"%PDF")
    assert b"/CreationDate" not in first
    plain = b"".join(streams(first)) + first
    fonts = re.findall(rb"/FontName\s*/(?:[A-Z]{6}\+)?([\w-]+)", plain)
    assert any(name.startswith(b"LibertinusSerif") for name in fonts)
    assert len(re.findall(rb"/FontFile[23]?\b", plain)) == len(fonts)
    assert render_pdf(numbers, project / "paper" / "main.typ", project) == first


def test_the_layout_asks_only_for_fonts_that_come_with_the_compiler() -> None:
    import typst

    asked = set(re.findall(r'font: "([^"]+)"', (PAPER / "main.typ").read_text()))
    assert asked
    assert asked <= set(typst.Fonts(include_system_fonts=False).families())


def streams(pdf: bytes) -> Iterator[bytes]:
    """The decompressed streams of a PDF."""
    for found in re.finditer(rb"stream\r?\n", pdf):
        try:
            yield zlib.decompressobj().decompress(pdf[found.end() :])
        except zlib.error:
            continue


def test_the_pdf_holds_every_figure_and_every_claim(project: Path) -> None:
    import typst

    make_paper(CONFIG, Layout(project))
    compiler = typst.Compiler(
        str(project / "paper" / "main.typ"),
        root=str(project),
        ignore_system_fonts=True,
        sys_inputs={"report": "/results/tiny/report.json"},
    )
    assert json.loads(compiler.query("metadata", field="value")) == [CLAIM["id"], "theorem-9"]
    labels = [figure.get("label") for figure in json.loads(compiler.query("figure"))]
    assert {"<fig3_left>", "<extra>"} <= set(labels)


def test_an_error_of_typst_is_one_sentence(project: Path) -> None:
    numbers = make_paper(CONFIG, Layout(project))[0]
    main = project / "paper" / "main.typ"
    main.write_text(main.read_text() + "\n#nowhere\n")
    with pytest.raises(ReportError, match=r"^typst: .*main\.typ:\d+: unknown variable: nowhere$"):
        render_pdf(numbers, main, project)


def test_where_typst_cannot_tag_the_pdf_is_made_without_tags(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import typst

    numbers = make_paper(CONFIG, Layout(project))[0]
    real = typst.Compiler

    class Untagged:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self.compiler = real(*arguments, **options)

        def compile(self, pdf_tags: bool = True, **options: Any) -> Any:
            if pdf_tags:
                error = typst.TypstError("internal error: expected link ancestor in logical tree")
                error.message = str(error)
                raise error
            return self.compiler.compile(pdf_tags=False, **options)

    tagged = render_pdf(numbers, project / "paper" / "main.typ", project)
    monkeypatch.setattr(typst, "Compiler", Untagged)
    untagged = render_pdf(numbers, project / "paper" / "main.typ", project)
    assert untagged.startswith(b"%PDF")
    assert b"/StructTreeRoot" in tagged
    assert b"/StructTreeRoot" not in untagged


def test_a_failed_report_leaves_the_old_one(project: Path) -> None:
    _, pdf, html = make_paper(CONFIG, Layout(project))
    before = pdf.read_bytes(), html.read_bytes()
    main = project / "paper" / "main.typ"
    main.write_text("#nowhere")
    write_claims(project, claims_of({}))
    with pytest.raises(ReportError):
        make_paper(CONFIG, Layout(project))
    assert (pdf.read_bytes(), html.read_bytes()) == before
    assert sorted(path.name for path in pdf.parent.iterdir()) == ["index.html", "paper.pdf"]


def words_of(figure: FigureConfig) -> dict[str, Any]:
    return figure.model_dump(include={"see", "caption", "text", "open"})


FIGURE_WORDS = {name: words_of(figure) for name, figure in load(ROOT / "config").figures.items()}
WORDS = {**read_yaml(PAPER / "text.yaml", dict), "figures": FIGURE_WORDS}


def texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict):
        for key, value in content.items():
            if key not in ("formulas", "sections"):
                yield from texts(value)
    elif isinstance(content, list):
        for value in content:
            yield from texts(value)


NAMES = re.compile(r"\{[\w.]+\}|\[[@#%]\w+\]|CIFAR-10|Oᵀw = 0|2E\[h\]|E\[h\] < 0|E\[h²\]")
"""What may hold a digit: references, names, and formulas."""


def test_no_number_is_typed_in_the_words() -> None:
    for text in texts(WORDS):
        assert not re.search(r"\d", NAMES.sub("", text)), text


def test_every_citation_has_an_entry_and_every_named_figure_is_there() -> None:
    known = prose.bibliography(PAPER / "references.bib")
    keys = {key for text in texts(WORDS) for key in re.findall(r"\[@(\w+)\]", text)}
    assert keys == set(known)
    assert all(entry["author"] and entry["title"] and entry["year"] for entry in known.values())
    assert known["snakemake"]["author"] == "Köster, Johannes and Rahmann, Sven"
    named = {key for text in texts(WORDS) for key in re.findall(r"\[#(\w+)\]", text)}
    assert named <= set(FIGURE_WORDS)
    claims = {key for text in texts(WORDS) for key in re.findall(r"\[%(\w+)\]", text)}
    assert claims <= {claim.id for claim in load_all(Layout(ROOT).paper_claims, [])[0]}


@pytest.mark.parametrize("scale", SCALES)
def test_the_words_of_a_figure_ask_only_for_what_its_experiments_have(scale: str) -> None:
    config = load(ROOT / "config", {"scale": scale})
    for figure, entry in config.figures.items():
        allowed = {"measures.rank_relative", "measures.rank_absolute", "measures.homogeneous", "measures.constant"}
        for name in entry.experiments:
            experiment = load_experiment(config.module_of(name))
            keys = [*experiment.settings.model_fields, *(axis.name for axis in experiment.axes), "seeds"]
            allowed |= {f"{name}.{key}" for key in keys}
        asked = {key for text in texts(words_of(entry)) for key in re.findall(r"\{([\w.]+)\}", text)}
        assert {re.sub(r"\.(first|last)$", "", key) for key in asked} <= allowed, figure
