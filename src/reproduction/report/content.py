"""Everything that the report says, as one JSON-like mapping: words, figures, claims, headline numbers, compute.

Numbers leave this module as text, in one format, so that the PDF and the page lay out and compute nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirrorsym import measures
from reproduction import formatting
from reproduction.analysis.verdict_file import (
    MENDED,
    NOT_SUPPORTED,
    UNDECIDED,
    WEIGHTS,
    JudgedClaim,
    JudgedControl,
    Verdicts,
    by_weight,
    read_verdicts,
)
from reproduction.files import FileError, read_yaml
from reproduction.pipeline import store
from reproduction.pipeline.config import Config, load_experiment
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.notes import by_origin
from reproduction.pipeline.notes import words as words_of
from reproduction.report import prose
from reproduction.report.closing import seconds_by_part
from reproduction.report.findings import Words, at_any_scale, read_words
from reproduction.report.verdicts import MARKS, ReportError, counts_of

if TYPE_CHECKING:
    import xarray as xr

KINDS = {"theory": "Theory", "text": "Text", "appendix": "Appendix", "figure": "Other figures"}
EXTENSIONS = ("extension",)
PAGE_WIDTH = 300
"""Points from which a figure takes both columns."""


def gather(config: Config, layout: Layout, sources: Path | None = None) -> dict[str, Any]:
    """Return the report of a scale.

    Args:
        config: the configuration at that scale.
        layout: the project's paths; its folder has the scale's result files, claims and figures.
        sources: the folder of ``text.yaml``, ``findings.yaml`` and ``references.bib``; ``paper`` if nothing is said.

    Raises:
        FileError: if a figure, a result file or the claims are missing.
        StoreError: if a result file cannot be read.
        ConfigError: if the words are missing.
        ProseError: if the words ask for a value or a reference that is not there.
        ClaimError: if the claims file does not hold what it should.
        ReportError: if it is of another scale.
    """
    sources = sources or layout.root / "paper"
    words = read_yaml(sources / "text.yaml", dict)
    path = layout.claims(config.scale)
    claims = read_verdicts(path)
    if claims.scale != config.scale:
        raise ReportError(f"{path} is of the scale {claims.scale}, not {config.scale}; make it again")
    results = {name: store.read(layout.result(config.scale, name)) for name in config.experiments}
    labels = prose.figure_labels(config.figures)
    asserted = by_weight(claim for claim in claims.claims if claim.nature == "claim")
    places = {claim.id: figure_of(claim, config) for claim in asserted}
    groups = _groups(asserted, places, config, labels)
    numbers = _numbers(groups, claims)
    writer = _Writer({**_values(config, results), **counts_of(claims), "scale": config.scale}, labels, numbers)
    entries = {
        name: _figure(name, config, layout, results, writer)
        | {"claims": [claim.id for claim in asserted if places[claim.id] == name]}
        for name in config.figures
    }
    report: dict[str, Any] = {
        "title": prose.fill(words["title"], writer.numbers),
        "subtitle": prose.fill(words["subtitle"], writer.numbers),
        "author": words["author"],
        "scale": config.scale,
        "abstract": writer.paragraphs(words["abstract"]),
        "formulas": words["method"]["formulas"],
        "headlines": [row for claim in asserted for row in _headlines(claim, places[claim.id] or "", labels)],
        "figures": entries,
        "sections": _sections(words, config),
        "findings": _told(read_words(sources / "findings.yaml"), claims, writer),
        "claims_by_id": {
            claim.id: entry_of(claim) | {"number": numbers[claim.id]} for claim in (*claims.claims, *claims.own)
        },
        "verdicts_of_core": _by_verdict((claim for claim in asserted if claim.weight == WEIGHTS[0]), numbers),
        "elsewhere": {
            "title": words["elsewhere"],
            "claims": [claim.id for claim in asserted if places[claim.id] is None],
        },
        "mended": _part(words["mended"], claims, MENDED, writer),
        "extensions": _part(words["extensions"], claims, EXTENSIONS, writer),
        "own": {"title": words["own"], "claims": [claim.id for claim in claims.own], "figure": ""},
        "choices": _choices(config, writer),
        "deviating": _deviations(words, results, writer),
        "set_by": _settings(claims, results, config),
        "seconds": _compute(config, layout, results),
        "hashes": [{"experiment": name, **_provenance(data)} for name, data in results.items()],
        "software": _merged(results.values(), "software"),
        "code": _merged(results.values(), "code_version"),
        "verdicts": _verdicts(claims),
        "apart": [prose.fill(words[part]["counted"], writer.numbers) for part in ("mended", "extensions")],
        "groups": groups,
    }
    report["groups"] += [report[part] for part in ("mended", "extensions", "own") if report[part]["claims"]]
    report["theory_findings"] = [
        {"head": one["head"], "text": writer.runs(one["text"])} for one in words["theory"]["findings"]
    ]
    report["failed_claims"] = _findings(claim for claim in asserted if claim.verdict == NOT_SUPPORTED)
    report["undecided_claims"] = [
        name for name in numbers if name in places and report["claims_by_id"][name]["verdict"] == UNDECIDED
    ]
    parts = (
        "introduction",
        "method",
        "core",
        "results",
        "theory",
        "failed",
        "undecided",
        "open",
        "deviations",
        "settings",
        "compute",
        "reproducibility",
        "claims",
    )
    for part in parts:
        text = words[part].get("text" if report.get(f"{part}_claims", True) else "none", [])
        report[part] = {"title": words[part]["title"], "text": writer.paragraphs(text)}
    report["references"] = _references(words["references"], prose.cited(report), sources)
    return report


def _part(words: Mapping[str, Any], claims: Verdicts, natures: Iterable[str], writer: _Writer) -> Any:
    """A section of claims that are none of the paper's own: its words, and the ids in the order of their weight."""
    return {
        "title": words["title"],
        "text": writer.paragraphs(words["text"]),
        "claims": _of_nature(claims, natures),
        "figure": "",
    }


def _of_nature(claims: Verdicts, natures: Iterable[str]) -> list[str]:
    """The ids of the claims of some natures in the order of their weight, with what follows from one after it."""
    wanted = set(natures)
    findings = _findings(by_weight(claim for claim in claims.claims if claim.nature in wanted))
    return [name for finding in findings for name in (finding["claim"], *finding["consequences"])]


def _numbers(groups: Iterable[Mapping[str, Any]], claims: Verdicts) -> dict[str, str]:
    """The claims' numbers in the report, by id, in the order in which their evidence stands."""
    own = [claim.id for claim in claims.own]
    order = [name for group in groups for name in group["claims"]]
    order += [*_of_nature(claims, MENDED), *_of_nature(claims, EXTENSIONS), *own]
    return {name: str(number) for number, name in enumerate(order, start=1)}


def _by_verdict(claims: Iterable[JudgedClaim], numbers: Mapping[str, str]) -> list[dict[str, Any]]:
    listed = sorted(claims, key=lambda claim: int(numbers[claim.id]))
    groups = [
        {**mark, "verdict": verdict, "claims": [claim.id for claim in listed if claim.verdict == verdict]}
        for verdict, mark in MARKS.items()
    ]
    return [group for group in groups if group["claims"]]


def _told(words: Words, claims: Verdicts, writer: _Writer) -> list[dict[str, Any]]:
    """What was found, in the words for a stranger; of a sentence only where the results have its claims."""
    known = {claim.id for claim in claims.claims}
    return [
        {
            "head": one.head,
            "text": writer.runs(one.text),
            "figure": one.figure if one.figure in writer.labels else "",
            "label": writer.labels.get(one.figure, ""),
            "claims": [name for name in one.claims if name in known],
        }
        for one in at_any_scale(words, claims).findings
        if known & set(one.claims)
    ]


def _findings(claims: Iterable[JudgedClaim]) -> list[dict[str, Any]]:
    """Each finding once: a claim, with those among the others that follow from it."""
    listed = {claim.id: claim for claim in claims}
    heads = [claim for claim in listed.values() if claim.consequence_of not in listed]
    return [
        {"claim": head.id, "consequences": [one.id for one in listed.values() if one.consequence_of == head.id]}
        for head in heads
    ]


class _Writer:
    """Turns the words into runs, with the report's numbers and its names of figures."""

    def __init__(self, numbers: Mapping[str, str], labels: Mapping[str, str], claims: Mapping[str, str]) -> None:
        self.numbers, self.labels, self.claims = numbers, labels, claims

    def runs(self, text: str) -> list[prose.Run]:
        return prose.runs(text, self.numbers, self.labels, self.claims)

    def paragraphs(self, texts: Iterable[str | dict[str, str]]) -> list[list[prose.Run]]:
        return [[dict(text)] if isinstance(text, dict) else self.runs(text) for text in texts]


def figure_of(claim: JudgedClaim, config: Config) -> str | None:
    """Return the figure under which a claim is reported.

    It is the one that its place begins with; else the one that reads just its experiments, or them among others; else
    one that its place names further on ("Section 3.3; Figure 6"); else one that reads the first of its experiments.
    """
    if claim.place.startswith("Fig"):
        return _named_figure(claim, config)
    own = set(claim.experiments)
    same = [name for name, figure in config.figures.items() if own and own == set(figure.experiments)]
    reading = [name for name, figure in config.figures.items() if own and own <= set(figure.experiments)]
    partly = [name for name, figure in config.figures.items() if set(claim.experiments[:1]) & set(figure.experiments)]
    named = _named_figure(claim, config)
    return next(iter([*same, *reading, *filter(None, [named]), *partly]), None)


def _named_figure(claim: JudgedClaim, config: Config) -> str | None:
    named = re.search(r"\bFig(?:ure|\.)\s*(\d+)\W*(left|mid|right)?", claim.place)
    if named is None:
        return None
    number, side = named.groups()
    candidates = [name for name in config.figures if re.fullmatch(rf"fig{number}(_\w+)?", name)]
    exact = [name for name in candidates if name == (f"fig{number}_{side}" if side else f"fig{number}")]
    shared = [name for name in candidates if set(claim.experiments) & set(config.figures[name].experiments)]
    return next(iter([*exact, *shared, *candidates]), None)


def _values(config: Config, results: Mapping[str, xr.Dataset]) -> dict[str, str]:
    """What the words may refer to: settings, axes and seeds of every result file, and the measures' thresholds."""
    found = {
        "measures.rank_relative": formatting.setting(measures.RELATIVE_RANK_THRESHOLD),
        "measures.rank_absolute": formatting.setting(measures.ABSOLUTE_RANK_THRESHOLD),
        "measures.homogeneous": formatting.setting(measures.HOMOGENEOUS_CORRELATION),
        "measures.constant": formatting.setting(measures.CONSTANT_THRESHOLD),
    }
    for name, data in results.items():
        settings: dict[str, Any] = json.loads(data.attrs["settings"])
        axes = {axis.name: data[axis.name].values.tolist() for axis in load_experiment(config.module_of(name)).axes}
        for key, value in {**settings, **axes, "seeds": data.sizes["seed"]}.items():
            found[f"{name}.{key}"] = formatting.setting(value)
            if isinstance(value, list) and value:
                found[f"{name}.{key}.first"] = formatting.setting(value[0])
                found[f"{name}.{key}.last"] = formatting.setting(value[-1])
    return found


def _verdicts(claims: Verdicts) -> list[dict[str, str]]:
    counts = counts_of(claims)
    return [
        {**entry, "verdict": verdict, "count": counts[f"claims.{entry['key']}"]} for verdict, entry in MARKS.items()
    ]


_AS_IT_IS = ("id", "place", "quote", "verdict", "decided_at", "nature", "weight", "consequence_of")


def entry_of(claim: JudgedClaim) -> dict[str, Any]:
    """Return a claim as report and page show it: sentences and numbers as text."""
    sentences = ("statement", "statistic", "supports", "refutes", "reason", "change_our_mind", "amended", "as_printed")
    return {
        **{name: formatting.typeset(getattr(claim, name)).rstrip(".") for name in sentences},
        **{name: getattr(claim, name) for name in _AS_IT_IS},
        "symbol": MARKS[claim.verdict]["symbol"],
        "key": MARKS[claim.verdict]["key"],
        "effect": _effect(claim, claim.units),
        "samples": _samples(claim.samples),
        "controls": [
            {
                "statement": formatting.typeset(control.statement).rstrip("."),
                "passes": formatting.typeset(control.passes),
                "effect": _effect(control, "1"),
                "samples": _samples(control.samples),
                "mark": "·" if control.record else {True: "✓", False: "✗", None: "?"}[control.passed],
                "word": _word(control),
                "asked": "would pass" if control.record else "passes",
            }
            for control in claim.controls
        ],
    }


def _word(control: JudgedControl) -> str:
    """What became of a control, so that none that decides nothing reads as one that passes."""
    if control.record:
        return "shown only, decides nothing"
    return {True: "passes", False: "fails", None: "open"}[control.passed]


def _headlines(claim: JudgedClaim, figure: str, labels: Mapping[str, str]) -> list[dict[str, str]]:
    """The numbers of a claim and its controls that are marked as headlines, where the scale has them."""
    place = {"figure": figure, "label": labels.get(figure, "")}
    numbers: list[tuple[JudgedClaim | JudgedControl, str]] = [
        (claim, claim.units),
        *((control, "1") for control in claim.controls),
    ]
    return [
        {"what": formatting.typeset(one.headline), "value": _effect(one, units), **place}
        for one, units in numbers
        if one.headline and one.effect is not None
    ]


def _effect(one: JudgedClaim | JudgedControl, units: str) -> str:
    """The mean with its interval, or the largest or smallest sample where each of them counts."""
    if one.effect is None:
        return "–"
    text = formatting.number(one.effect)
    if one.interval is not None:
        text += f" [{formatting.number(one.interval[0])}, {formatting.number(one.interval[1])}]"
    elif one.over != "mean":
        text = {"max": "at most ", "min": "at least "}[one.over] + text
    return formatting.with_unit(text, units)


def _samples(samples: int) -> str:
    return formatting.number(samples, formatting.EXACT_DIGITS) if samples else "–"


def _figure(
    name: str, config: Config, layout: Layout, results: Mapping[str, xr.Dataset], writer: _Writer
) -> dict[str, Any]:
    entry = config.figures[name]
    for file in entry.files(name):
        if not (path := layout.figures(config.scale) / file).is_file():
            raise FileError(f"{path} is missing; make it with snakemake --cores all {name}")
    width, height = _size(layout.figure(config.scale, name, "svg"))
    notes = [results[part].attrs["scale_note"] for part in entry.experiments]
    see, caption = writer.runs(entry.see), writer.runs(entry.caption)
    plain = " ".join("".join(run.get("text", "") for run in part) for part in (see, caption))
    return {
        "id": name,
        "label": writer.labels[name],
        "title": entry.title[:1].upper() + entry.title[1:],
        "see": see,
        "caption": caption,
        "alt": f"{writer.labels[name]}: {entry.title}. {plain.strip()}".strip(),
        "text": writer.runs(entry.text),
        "notes": [note for note in dict.fromkeys(notes) if note],
        "experiments": list(entry.experiments),
        "tables": list(entry.tables),
        "notebook": config.notebook_of(name).as_posix(),
        "wide": width > PAGE_WIDTH,
        "width": width,
        "height": height,
    }


def _size(svg: Path) -> tuple[float, float]:
    """Width and height in points, as matplotlib writes them."""
    head = svg.read_text(encoding="utf-8")[:4000]
    width, height = (re.search(rf'<svg [^>]*\b{side}="([\d.]+)pt"', head) for side in ("width", "height"))
    if width is None or height is None:
        raise ReportError(f"{svg} does not say how large it is; make it again with snakemake")
    return float(width[1]), float(height[1])


def _sections(words: Mapping[str, Any], config: Config) -> list[dict[str, Any]]:
    """The sections of the results with their figures, those that no section names in one of their own."""
    sections = [
        {"title": section["title"], "figures": [name for name in section["figures"] if name in config.figures]}
        for section in words["sections"]
    ]
    named = {name for section in words["sections"] for name in section["figures"]}
    sections.append({"title": words["further"], "figures": [name for name in config.figures if name not in named]})
    return [section for section in sections if section["figures"]]


def _choices(config: Config, writer: _Writer) -> list[dict[str, Any]]:
    found = []
    for name, figure in config.figures.items():
        rows = [{"what": row.what, "chosen": writer.runs(row.chosen)} for row in figure.open]
        if rows:
            found.append({"figure": name, "label": writer.labels[name], "rows": rows})
    return found


def _deviations(words: Mapping[str, Any], results: Mapping[str, xr.Dataset], writer: _Writer) -> list[list[prose.Run]]:
    """The stand-ins of this scale, and what deviates at every scale."""
    part = words["deviations"]
    found = [
        writer.runs(entry["text"])
        for entry in part["conditional"]
        if entry["experiment"] in results
        and json.loads(results[entry["experiment"]].attrs["settings"]).get(entry["setting"]) == entry["value"]
    ]
    return [*found, *(writer.runs(text) for text in part["always"])]


def _settings(claims: Verdicts, results: Mapping[str, xr.Dataset], config: Config) -> list[list[prose.Run]]:
    """Where each experiment has its settings from, and how this scale differs."""
    found: list[list[prose.Run]] = []
    for name, data in results.items():
        note = data.attrs["scale_note"]
        said = claims.notes.get(name, "")
        texts = [note, said if said not in note else ""]
        sources = by_origin(config.origins_of(name))
        listed = [f"{head}: {', '.join(words_of(*one) for one in said.items())}" for head, said in sources if said]
        if any(texts) or listed:
            found.append([{"code": name}, {"text": f": {'; '.join(filter(None, [*texts, *listed]))}."}])
    return found


def _compute(config: Config, layout: Layout, results: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    parts = seconds_by_part(config, layout)
    rows = []
    for part, (jobs, seconds) in sorted(parts.items(), key=lambda entry: not entry[0].startswith("run ")):
        name = part.removeprefix("run ")
        attrs = results[name].attrs if name in results else {}
        rows.append(
            {
                "part": name,
                "jobs": formatting.number(jobs, formatting.EXACT_DIGITS),
                "time": formatting.duration(seconds),
                "device": attrs.get("device", ""),
                "data": attrs.get("data_source", ""),
            }
        )
    total = formatting.number(sum(jobs for jobs, _ in parts.values()), formatting.EXACT_DIGITS)
    return {
        "rows": rows,
        "jobs": total,
        "time": formatting.duration(sum(seconds for _, seconds in parts.values())),
        "devices": _merged(results.values(), "device", ";"),
        "data": _merged(results.values(), "data_source", ";"),
    }


def _provenance(data: xr.Dataset) -> dict[str, str]:
    names = {"settings": "config_hash", "code": "fingerprint", "version": "code_version"}
    return {key: str(data.attrs.get(name, ""))[:12] for key, name in names.items()}


def _merged(results: Iterable[xr.Dataset], attribute: str, separator: str = ",") -> list[str]:
    """The different parts of an attribute over result files, sorted."""
    texts = (str(data.attrs.get(attribute, "")) for data in results)
    return sorted({part.strip() for text in texts for part in text.split(separator) if part.strip()})


def _groups(
    claims: Sequence[JudgedClaim], places: Mapping[str, str | None], config: Config, labels: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The claims table: one group a figure, in the configuration's order, then what belongs to none, by kind."""
    found = []
    for name, figure in config.figures.items():
        chosen = [claim.id for claim in claims if places[claim.id] == name]
        found.append({"title": f"{labels[name]}: {figure.title}", "claims": chosen, "figure": name})
    rest = [claim for claim in claims if places[claim.id] is None]
    for kind in dict.fromkeys(claim.kind for claim in rest):
        chosen = [claim.id for claim in rest if claim.kind == kind]
        found.append({"title": KINDS.get(kind, kind), "claims": chosen, "figure": ""})
    return [group for group in found if group["claims"]]


def _references(title: str, keys: Iterable[str], sources: Path) -> dict[str, Any]:
    known = prose.bibliography(sources / "references.bib")
    entries = []
    for number, key in enumerate(keys, start=1):
        if key not in known:
            raise prose.ProseError(f"the report's text cites {key}, which is not in paper/references.bib")
        entry = known[key]
        venue = entry.get("booktitle") or entry.get("journal") or entry.get("institution", "")
        authors = _authors(entry["author"])
        text = f"{authors.rstrip('.')}. {entry['title']}. {venue}, {entry['year']}."
        entries.append({"key": key, "number": str(number), "text": text, "url": entry.get("url", "")})
    return {"title": title, "entries": entries}


def _authors(names: str) -> str:
    """The authors of a BibTeX field, of more than six the first."""
    listed = [" ".join(reversed(name.split(", ", 1))) for name in names.split(" and ")]
    return f"{listed[0]} et al." if len(listed) > 6 else ", ".join(listed)
