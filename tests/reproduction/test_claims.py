"""The file of claims, its number sets, and the verdict."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from reproduction.analysis import claims, verdict_file, verdicts
from reproduction.analysis.claims import Claim, Interval, Region, load_claims
from reproduction.analysis.statistics import lowest
from reproduction.analysis.verdict_file import LIMITED, NOT_SUPPORTED, SUPPORTED, UNDECIDED, VERDICTS, ClaimError
from reproduction.analysis.verdicts import Measured, judge, outcome, summarize
from reproduction.errors import ConfigError
from reproduction.files import FileError

CLAIM: dict[str, Any] = {
    "id": "a_claim",
    "place": "Figure 3",
    "kind": "figure",
    "nature": "claim",
    "weight": "core",
    "statement": "It rises.",
    "quote": "it rises",
    "experiments": ["made_up"],
    "statistic": {"function": "value", "experiment": "made_up", "variable": "height"},
    "meaning": "height",
    "supported": ">= 1",
    "refuted": "<= 0",
    "controls": [
        {
            "statement": "It is there.",
            "statistic": {"function": "value", "experiment": "made_up", "variable": "depth"},
            "passes": "in [0, 1]",
            "decisive": True,
        },
        {
            "statement": "It is small.",
            "statistic": {"function": "value", "experiment": "made_up", "variable": "depth"},
            "passes": "< 2",
        },
    ],
    "scales": ["quick", "laptop", "paper"],
    "limited": ["laptop"],
    "needs": "scale paper, which is larger",
    "change_our_mind": "a fall",
}
NUMBERS = st.floats(-10, 10)
GOOD = Measured(0.5, (0.4, 0.6), 5)


def claim(**changes: Any) -> Claim:
    return Claim.model_validate({**CLAIM, **changes})


def measured(low: float, high: float) -> Measured:
    return Measured((low + high) / 2, (low, high), 5)


@st.composite
def regions(draw: st.DrawFn) -> tuple[Region, Any]:
    """A region and the test of membership that its text says, written out."""
    low, high = sorted((draw(NUMBERS), draw(NUMBERS)))
    assume(low < high)
    forms = {
        f">= {low!r}": lambda x: x >= low,
        f"> {low!r}": lambda x: x > low,
        f"<= {low!r}": lambda x: x <= low,
        f"< {low!r}": lambda x: x < low,
        f"in [{low!r}, {high!r}]": lambda x: low <= x <= high,
        f"in ({low!r}, {high!r}]": lambda x: low < x <= high,
        f"in [{low!r}, {high!r})": lambda x: low <= x < high,
        f"outside [{low!r}, {high!r}]": lambda x: x < low or x > high,
        f"outside ({low!r}, {high!r})": lambda x: x <= low or x >= high,
    }
    text = draw(st.sampled_from(sorted(forms)))
    return Region.parse(text), forms[text]


@given(regions(), NUMBERS)
def test_a_region_holds_the_numbers_that_its_text_says(region: tuple[Region, Any], x: float) -> None:
    parsed, contains = region
    point = Interval(x, x)
    assert parsed.holds(point) == parsed.meets(point) == contains(x)


@given(regions(), NUMBERS, NUMBERS)
def test_a_region_holds_an_interval_only_if_it_holds_all_of_it(region: tuple[Region, Any], a: float, b: float) -> None:
    parsed, contains = region
    interval = Interval(min(a, b), max(a, b))
    edges = [end for part in parsed.parts for end in (part.low, part.high) if interval.low <= end <= interval.high]
    near = [math.nextafter(end, way) for end in edges for way in (-math.inf, math.inf)]
    probes = [x for x in [interval.low, interval.high, *edges, *near] if interval.low <= x <= interval.high]
    inside = [contains(x) for x in probes]
    assert parsed.holds(interval) == all(inside)
    assert parsed.meets(interval) == any(inside)


@given(regions(), regions())
def test_overlap_is_symmetric(one: tuple[Region, Any], other: tuple[Region, Any]) -> None:
    assert one[0].overlaps(other[0]) == other[0].overlaps(one[0])
    assert one[0].overlaps(one[0])


@pytest.mark.parametrize("text", ["0.9", "=> 1", "in [2, 1]", "in (1, 1)", "in [1 2]", "above 3", ">= nan", None])
def test_what_is_no_region_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="no set of numbers"):
        Region.parse(text)


@given(st.lists(NUMBERS, min_size=2, max_size=12))
def test_the_interval_is_the_t_interval(values: list[float]) -> None:
    found = summarize(values)
    assert found.effect is not None
    assert found.interval is not None
    assert found.samples == len(values)
    assume(np.std(values) > 1e-9)
    expected = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    np.testing.assert_allclose(found.interval, expected, atol=1e-9)


def test_samples_that_are_not_there_do_not_count() -> None:
    assert summarize([1.0, np.nan, 3.0]).samples == 2
    assert summarize([np.nan, 2.0]) == Measured(2.0, None, 1)
    nothing = summarize([np.nan])
    assert (nothing.effect, nothing.interval, nothing.samples) == (None, None, 0)


def test_what_holds_always_is_decided_by_its_worst_sample() -> None:
    values = [0.0, 1e-9, 3.0, np.nan]
    largest, smallest = summarize(values, "max"), summarize(values, "min")
    assert (largest.effect, largest.interval, largest.samples) == (3.0, None, 3)
    assert smallest.effect == 0.0
    assert "the largest of 3 samples" in str(largest)
    assert "the smallest of 3 samples" in str(smallest)
    universal = claim(supported="<= 0.1", refuted=">= 1", controls=[])
    assert judge(universal, largest, [], "quick").verdict == NOT_SUPPORTED
    assert judge(universal, summarize(values[:2], "max"), [], "quick").verdict == SUPPORTED
    assert judge(universal, summarize(values[:1], "max"), [], "quick").verdict == LIMITED
    assert summarize([np.nan], "max").effect is None


@pytest.mark.parametrize(("counted", "instances"), [(0, 1), (0, 100), (3, 40), (39, 40)])
def test_the_binomial_bound_is_the_share_that_would_rarely_show_so_few(counted: int, instances: int) -> None:
    most = verdicts.share_at_most(counted, instances)
    assert stats.binom.cdf(counted, instances, most) == pytest.approx(0.05)
    assert verdicts.share_at_most(instances, instances) == 1


def test_a_share_says_how_many_instances_it_is_of() -> None:
    results = {"made_up": dataset([0.0, 0.0], [0.1, 0.1])}
    results["made_up"]["drawn"] = ("seed", [60.0, 40.0])
    statistic = {"function": "value", "experiment": "made_up", "variable": "height", "over": "max", "count": "drawn"}
    subject = claim(statistic=statistic, supported="<= 0", refuted="> 0.01", controls=[])
    (entry,) = verdicts.compute([subject], results, "quick").claims
    assert entry.verdict == SUPPORTED
    assert "0 of 100 instances, a share below 0.03 at 95 %" in entry.reason
    results["made_up"]["height"] = ("seed", [0.5, 0.0])
    (entry,) = verdicts.compute([subject], results, "quick").claims
    assert entry.verdict == NOT_SUPPORTED
    assert "30 of 100 instances" in entry.reason


@given(st.lists(st.floats(0, 10), min_size=2, max_size=12))
def test_no_interval_of_a_size_reaches_below_zero(values: list[float]) -> None:
    bounded, free = summarize(values, lowest=0.0), summarize(values)
    assert bounded.interval is not None
    assert free.interval is not None
    assert bounded.interval == (max(free.interval[0], 0.0), free.interval[1])


def test_which_statistics_are_sizes() -> None:
    assert lowest("value", {"variable": "rank"}) == 0
    assert lowest("ratio", {"variable": {"name": "dead_fraction"}}) == 0
    assert lowest("difference", {"variable": "rank", "absolute": True}) == 0
    for function, arguments in (
        ("difference", {"variable": "rank"}),
        ("trend", {"variable": "rank"}),
        ("value", {"variable": "curvature_across"}),
        ("value", {"variable": {"name": "sparsity_gain"}}),
        ("phase_agreement_over_power_law", {"experiment": "sparsity_phase"}),
        ("noise_features_ignored", {"experiment": "sparsity"}),
    ):
        assert lowest(function, arguments) == -math.inf


def test_the_interval_covers_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    found = [summarize(generator.normal(3, 2, size=4)).interval for _ in range(4000)]
    covered = np.mean([interval is not None and interval[0] <= 3 <= interval[1] for interval in found])
    assert 0.94 < covered < 0.96


@pytest.mark.parametrize(
    ("low", "high", "scale", "control", "verdict", "said"),
    [
        (1.1, 1.3, "quick", GOOD, SUPPORTED, "all 2 controls pass"),
        (0.9, 1.3, "quick", GOOD, LIMITED, "reaches out"),
        (0.4, 0.6, "quick", GOOD, LIMITED, "in between, and the interval excludes what supports"),
        (0.4, 1.2, "quick", GOOD, LIMITED, "the effect lies in between"),
        (-0.1, 1.5, "quick", GOOD, UNDECIDED, "from support to refutation"),
        (-0.5, -0.1, "quick", GOOD, NOT_SUPPORTED, "-0.3"),
        (-0.9, 0.5, "quick", GOOD, NOT_SUPPORTED, "-0.2"),
        (1.1, 1.3, "quick", measured(3, 4), NOT_SUPPORTED, "It is there"),
        (1.1, 1.3, "quick", measured(1.2, 1.4), NOT_SUPPORTED, "It is there"),
        (1.1, 1.3, "quick", measured(0.9, 1.4), LIMITED, "open: control “It is there”"),
        (1.1, 1.3, "quick", Measured(None, None, 0, "no data"), LIMITED, "no data"),
        (1.1, 1.3, "laptop", GOOD, LIMITED, "scale laptop"),
        (-0.5, -0.1, "laptop", GOOD, UNDECIDED, "scale paper, which is larger"),
        (1.1, 1.3, "laptop", measured(3, 4), UNDECIDED, "scale paper, which is larger"),
        (1.1, 1.3, "tiny", GOOD, UNDECIDED, "scale paper, which is larger"),
    ],
)
def test_verdicts(low: float, high: float, scale: str, control: Measured, verdict: str, said: str) -> None:
    found = judge(claim(), measured(low, high), [control, GOOD], scale)
    assert found.verdict == verdict, found.reason
    assert said in found.reason
    assert "\n" not in found.reason


def test_a_control_that_is_not_decisive_limits() -> None:
    found = judge(claim(), measured(1.1, 1.3), [GOOD, measured(5, 6)], "quick")
    assert found.verdict == LIMITED
    assert "It is small" in found.reason


def test_what_was_registered_first_is_shown_and_decides_nothing() -> None:
    controls = [{**CLAIM["controls"][0], "decisive": False, "record": True}, CLAIM["controls"][1]]
    found = judge(claim(controls=controls), measured(1.1, 1.3), [measured(3, 4), GOOD], "quick")
    assert found.verdict == SUPPORTED
    assert "its control passes" in found.reason
    with pytest.raises(ValueError, match="decides nothing"):
        claim(controls=[{**CLAIM["controls"][0], "record": True}])


def test_one_sample_decides_only_where_there_is_no_chance() -> None:
    one = Measured(1.5, None, 1)
    assert judge(claim(), one, [GOOD, GOOD], "quick").verdict == LIMITED
    assert judge(claim(deterministic=True), one, [GOOD, GOOD], "quick").verdict == SUPPORTED
    assert judge(claim(), Measured(-1.0, None, 1), [GOOD, GOOD], "quick").verdict == NOT_SUPPORTED


def test_an_obstacle_or_no_number_leaves_it_undecided() -> None:
    assert judge(claim(), measured(2, 3), [GOOD, GOOD], "quick", "no such experiment").verdict == UNDECIDED
    found = judge(claim(), Measured(None, None, 0, "no run of it finished"), [GOOD, GOOD], "quick")
    assert found.verdict == UNDECIDED
    assert "no run of it finished" in found.reason


INTERVALS = st.tuples(NUMBERS, st.floats(0, 5)).map(lambda pair: measured(pair[0] - pair[1], pair[0] + pair[1]))
CONTROLS = st.tuples(INTERVALS, INTERVALS)
ANY_SCALE = st.sampled_from(["tiny", "quick", "laptop", "overnight", "paper"])


@given(INTERVALS, CONTROLS, ANY_SCALE)
def test_what_a_verdict_says_is_so(one: Measured, controls: tuple[Measured, Measured], scale: str) -> None:
    subject = claim()
    verdict = judge(subject, one, controls, scale).verdict
    outcomes = [outcome(found, control.passes) for found, control in zip(controls, subject.controls, strict=True)]
    assert verdict in VERDICTS
    assert one.interval is not None
    if verdict == SUPPORTED:
        assert one.interval[0] >= 1
        assert outcomes == [True, True]
        assert scale in ("quick", "paper")
    if verdict == NOT_SUPPORTED:
        assert one.effect is not None
        assert one.effect <= 0 or outcomes[0] is False
        assert scale in ("quick", "paper")
    if verdict in (SUPPORTED, LIMITED):
        assert outcomes[0] is not False
        assert not (one.interval[0] <= 0 and one.interval[1] >= 1)


@given(INTERVALS, CONTROLS, st.floats(0.01, 1))
def test_a_narrower_interval_never_turns_support_around(
    one: Measured, controls: tuple[Measured, Measured], share: float
) -> None:
    assert one.effect is not None
    assert one.interval is not None
    half = share * (one.interval[1] - one.interval[0]) / 2
    narrower = measured(one.effect - half, one.effect + half)
    before, after = (judge(claim(), numbers, controls, "paper").verdict for numbers in (one, narrower))
    if before in (SUPPORTED, NOT_SUPPORTED):
        assert after == before
    if before == LIMITED:
        assert after != UNDECIDED


@given(INTERVALS, CONTROLS, ANY_SCALE)
def test_passing_controls_never_lower_a_verdict(one: Measured, controls: tuple[Measured, Measured], scale: str) -> None:
    order = {NOT_SUPPORTED: 0, UNDECIDED: 1, LIMITED: 2, SUPPORTED: 3}
    worse, better = (judge(claim(), one, found, scale).verdict for found in (controls, (GOOD, GOOD)))
    assert order[better] >= order[worse] or worse == UNDECIDED == better


def dataset(height: list[float], depth: list[float], **attributes: Any) -> xr.Dataset:
    seeds = {"seed": np.arange(len(height))}
    variables = {"height": ("seed", np.array(height, float)), "depth": ("seed", np.array(depth, float))}
    return xr.Dataset({**variables, "status": ("seed", np.zeros(len(height), np.int8))}, seeds, attributes)


def test_the_file_that_others_read(tmp_path: Path) -> None:
    results = {"made_up": dataset([1.5, 1.6, 1.7], [0.1, 0.1, 0.1], config_hash="abc", scale_note="quick: smaller")}
    found = verdicts.compute([claim()], results, "quick")
    content = json.loads(found.model_dump_json())
    assert content["scale"] == "quick"
    assert content["verdicts"] == {SUPPORTED: 1, LIMITED: 0, NOT_SUPPORTED: 0, UNDECIDED: 0}
    assert content["others"] == {nature: dict.fromkeys(VERDICTS, 0) for nature in ("misprint", "slip", "extension")}
    assert content["sources"] == {"made_up": "abc"}
    assert content["notes"] == {"made_up": "quick: smaller"}
    (entry,) = content["claims"]
    wanted = {
        "id", "place", "kind", "nature", "weight", "statement", "statistic", "supports", "refutes", "units", "effect",
        "interval",
        "confidence", "samples", "controls", "verdict", "reason", "decided_at", "change_our_mind", "experiments",
    }  # fmt: skip
    assert wanted <= set(entry)
    assert (entry["effect"], entry["samples"], entry["decided_at"]) == (pytest.approx(1.6), 3, "quick")
    assert {"statement", "effect", "interval", "samples", "passed"} <= set(entry["controls"][0])
    (tmp_path / "claims.json").write_text(json.dumps(content))
    again = verdict_file.read_verdicts(tmp_path / "claims.json")
    assert again == found
    first, second = verdict_file.table(again.claims)
    assert first == "supported: a_claim (Figure 3)"
    assert second.strip() == entry["reason"]
    assert verdict_file.counts(again).startswith("supported: 1")


def test_the_words_of_headline_numbers_go_with_their_numbers() -> None:
    marked = [{**control, "headline": f"Control {number}"} for number, control in enumerate(CLAIM["controls"])]
    results = {"made_up": dataset([1.5, 1.6, 1.7], [0.1, 0.1, 0.1])}
    subjects = [claim(headline="Height", controls=marked), claim()]
    first, second = verdicts.compute(subjects, results, "quick").claims
    assert first.headline == "Height"
    assert [one.headline for one in first.controls] == ["Control 0", "Control 1"]
    assert {second.headline, *(one.headline for one in second.controls)} == {""}
    assert first.model_copy(update={"headline": "", "controls": second.controls}) == second


def test_misprints_slips_and_extensions_are_counted_apart() -> None:
    results = {"made_up": dataset([1.5, 1.6, 1.7], [0.1, 0.1, 0.1])}
    printed = {"as_printed": "a sign is wrong"}
    natures = ["claim", "claim", "misprint", "slip", "extension", "extension"]
    subjects = [
        claim(id=f"claim_{n}", nature=nature, **(printed if nature in ("misprint", "slip") else {}))
        for n, nature in enumerate(natures)
    ]
    found = verdicts.compute(subjects, results, "quick")
    assert found.verdicts[SUPPORTED] == 2
    assert {nature: counted[SUPPORTED] for nature, counted in found.others.items()} == {
        "misprint": 1, "slip": 1, "extension": 2,
    }  # fmt: skip
    line = verdict_file.counts(found)
    assert line.startswith("supported: 2; supported with limits: 0")
    assert "misprints, mended: supported: 1 | slips, mended: supported: 1 | our extensions: supported: 2" in line
    lines = verdict_file.listing(found)
    heads = [line for line in lines if line.endswith(":")]
    assert heads == ["what the paper claims:", "misprints and slips, judged mended:", "our extensions, not counted:"]
    assert lines.index("supported: claim_0 (Figure 3)") < lines.index(heads[1]) < lines.index(heads[2])
    assert lines[-1] == line


def test_what_fails_for_one_reason_is_said_to_be_one_finding() -> None:
    results = {"made_up": dataset([-0.1, -0.1, -0.1], [0.1, 0.1, 0.1])}
    subjects = [claim(id="head"), claim(id="other")]
    subjects += [claim(id=f"follows_{n}", consequence_of="head") for n in range(2)]
    found = verdicts.compute(subjects, results, "quick")
    assert found.verdicts[NOT_SUPPORTED] == 4
    assert verdict_file.largest_finding(found.claims) == 3
    assert "not supported: 4 (3 of them one finding)" in verdict_file.counts(found)
    assert verdict_file.largest_finding(found.claims[1:]) == 2  # also where what they follow from is not counted
    assert verdict_file.largest_finding([]) == 0


def test_the_heaviest_claims_come_first() -> None:
    results = {"made_up": dataset([1.5, 1.6, 1.7], [0.1, 0.1, 0.1])}
    weights = ["detail", "core", "supporting", "core"]
    subjects = [claim(id=f"claim_{n}", weight=weight) for n, weight in enumerate(weights)]
    ordered = verdict_file.by_weight(verdicts.compute(subjects, results, "quick").claims)
    assert [one.id for one in ordered] == ["claim_1", "claim_3", "claim_2", "claim_0"]


def test_settings_that_a_claim_requires() -> None:
    subject = claim(requires={"made_up": {"steps": 100}})
    for steps, verdict in ((100, SUPPORTED), (10, UNDECIDED)):
        found = dataset([1.5, 1.6, 1.7], [0.1, 0.1, 0.1], settings=json.dumps({"steps": steps}))
        assert verdicts.compute([subject], {"made_up": found}, "quick").claims[0].verdict == verdict


def test_a_run_that_diverged_everywhere_is_said() -> None:
    (entry,) = verdicts.compute([claim()], {"made_up": dataset([np.nan] * 2, [0.1, 0.1])}, "quick").claims
    assert entry.verdict == UNDECIDED
    assert "no run of it finished" in entry.reason


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"supportd": "> 1"}, "a_claim: there is no field 'supportd'.*did you mean 'supported'"),
        ({"supported": "much"}, "a_claim: supported: 'much' is no set of numbers"),
        ({"refuted": "<= 2"}, "a_claim: supported '>= 1' and refuted '<= 2' overlap"),
        ({"quote": "a " * 25}, "25 words"),
        ({"scales": ["huge"]}, "a_claim: scales"),
        ({"limited": ["tiny"]}, "'tiny' is in limited and not in scales"),
        ({"requires": {"other": {}}}, "requires names 'other'"),
        ({"statement": None}, "a_claim: statement"),
        ({"kind": "rumour"}, "a_claim: kind"),
        ({"nature": "rumour"}, "a_claim: nature"),
        ({"weight": "heavy"}, "a_claim: weight"),
        ({"nature": "slip"}, "as_printed belongs to misprints and slips"),
        ({"as_printed": "2"}, "as_printed belongs to misprints and slips"),
        ({"quote": ""}, "quote the paper's words; only an extension has none"),
        ({"statistic": {"experiment": "x"}}, "a_claim: statistic.function"),
    ],
)
def test_a_mistake_is_one_clear_sentence(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump([{**CLAIM, **changes}]))
    with pytest.raises(ClaimError, match=said) as caught:
        load_claims(tmp_path / "claims.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1", "should hold a list, not dict"),
        ("- 3", "claim 1: a claim is a mapping"),
        ("- {id: [", "not valid YAML"),
        (yaml.safe_dump([CLAIM, CLAIM]), "2 claims have the id 'a_claim'"),
    ],
)
def test_what_is_no_file_of_claims(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "claims.yaml").write_text(text)
    with pytest.raises((ClaimError, ConfigError), match=said):
        load_claims(tmp_path / "claims.yaml")


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is missing"):
        load_claims(tmp_path / "claims.yaml")
    with pytest.raises(FileError, match="is missing"):
        verdict_file.read_verdicts(tmp_path / "claims.json")
    (tmp_path / "claims.json").write_text("{")
    with pytest.raises(ClaimError, match="delete the file"):
        verdict_file.read_verdicts(tmp_path / "claims.json")


def test_own_claims_need_no_place_in_the_paper_and_are_counted_apart(tmp_path: Path) -> None:
    entry = {name: value for name, value in CLAIM.items() if name not in ("place", "kind", "quote", "nature", "weight")}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump([{**entry, "id": "ours"}]))
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump([CLAIM]))
    paper, own = claims.load_all([tmp_path / "claims.yaml"], [tmp_path / "own.yaml"])
    results = {"made_up": dataset([1.5, 1.6, 1.7], [0.1, 0.1, 0.1])}
    found = verdicts.compute(paper, results, "quick", own)
    assert sum(found.verdicts.values()) == len(found.claims) == 1
    assert [(one.id, one.kind, one.verdict) for one in found.own] == [("ours", "own", found.claims[0].verdict)]
    for field in ("place", "nature", "weight"):
        with pytest.raises(ClaimError, match=f"a_claim: {field}"):
            load_claims_without(tmp_path, field)


def load_claims_without(folder: Path, field: str) -> None:
    (folder / "claims.yaml").write_text(yaml.safe_dump([{key: value for key, value in CLAIM.items() if key != field}]))
    load_claims(folder / "claims.yaml")


def test_a_consequence_follows_from_a_claim(tmp_path: Path) -> None:
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump([{**CLAIM, "consequence_of": "nothing"}]))
    with pytest.raises(ClaimError, match="a_claim: consequence_of names 'nothing', which is no claim"):
        claims.load_all([tmp_path / "claims.yaml"], [])


def test_an_own_claim_with_the_name_of_one_of_the_papers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump([CLAIM]))
    with pytest.raises(ClaimError, match="2 claims have the id 'a_claim'"):
        claims.load_all([tmp_path / "claims.yaml"], [tmp_path / "claims.yaml"])
