"""What was found, in five sentences: ``paper/findings.yaml`` has the words, ``claims.json`` of a scale the numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from reproduction.analysis.verdict_file import JudgedClaim, Verdicts, read_verdicts
from reproduction.errors import check_names, describe
from reproduction.files import read_yaml, write_atomically
from reproduction.formatting import number, typeset
from reproduction.pipeline.config import Config
from reproduction.pipeline.layout import Layout
from reproduction.report import prose
from reproduction.report.verdicts import ReportError, counts_of

START, END = "<!-- findings: made by `mirrorsym findings` -->", "<!-- end of the findings -->"
DIGITS = 2
"""Of a number in a sentence; the evidence under it has more."""
NOTE = "Made by `mirrorsym findings` from the verdicts of the scale {}; the words are those of paper/findings.yaml."


class Finding(BaseModel):
    """A sentence, what it presumes, the figure (or figures) that shows it and the claims that carry it."""

    model_config = ConfigDict(extra="forbid")
    head: str
    verdict: str
    text: str
    figure: str
    other_figures: list[str] = []
    claims: list[str]

    @property
    def figures(self) -> list[str]:
        """All its figures, the first one first."""
        return [self.figure, *self.other_figures]


class Words(BaseModel):
    """The file ``paper/findings.yaml``."""

    model_config = ConfigDict(extra="forbid")
    title: str
    before: str
    findings: list[Finding]


def read_words(path: Path) -> Words:
    """Return the words.

    Raises:
        ConfigError: if the file is missing or holds no mapping.
        ReportError: if it does not hold what it should.
    """
    try:
        return Words.model_validate(read_yaml(path, dict))
    except ValidationError as error:
        raise ReportError(describe(error, str(path), Words)) from None


def told(words: Words, verdicts: Verdicts) -> Words:
    """Return the words with their numbers, if the verdicts are those that the words presume.

    Raises:
        ReportError: if a claim has another verdict than its sentence presumes.
        ConfigError: if there is no such claim.
        ProseError: if a sentence asks for a number that is not there.
    """
    claims = {claim.id: claim for claim in verdicts.claims}
    for finding in words.findings:
        check_names(finding.claims, claims, "claim", "paper/findings.yaml: ")
        for name in finding.claims:
            if (said := claims[name].verdict) != finding.verdict:
                raise ReportError(
                    f"paper/findings.yaml: “{finding.head}” presumes that {name} is {finding.verdict}, and at scale "
                    f"{verdicts.scale} it is {said}; write the sentence anew"
                )
    return filled(words, verdicts)


def at_any_scale(words: Words, verdicts: Verdicts) -> Words:
    """Return the words with their numbers; in place of a sentence that the verdicts contradict, what the claims say."""
    claims = {claim.id: claim for claim in verdicts.claims}
    findings = []
    for one in words.findings:
        named = [claims[name] for name in one.claims if name in claims]
        said = " ".join(f"{claim.statement} ({claim.verdict})" for claim in named)
        fits = len(named) == len(one.claims) and all(claim.verdict == one.verdict for claim in named)
        findings.append(
            one if fits else one.model_copy(update={"head": f"At the scale {verdicts.scale}", "text": said})
        )
    return filled(words.model_copy(update={"findings": findings}), verdicts)


def filled(words: Words, verdicts: Verdicts) -> Words:
    """Return the words with their numbers.

    Raises:
        ProseError: if a sentence asks for a number that is not there.
    """
    numbers = numbers_of(verdicts)
    findings = [one.model_copy(update={"text": prose.fill(one.text, numbers)}) for one in words.findings]
    return words.model_copy(update={"before": prose.fill(words.before, numbers), "findings": findings})


def numbers_of(verdicts: Verdicts) -> dict[str, str]:
    """Return what a sentence may refer to: the number of each claim that has one, and the counts of verdicts."""
    found = {name.replace("claims.", "verdicts."): count for name, count in counts_of(verdicts).items()}
    for claim in verdicts.claims:
        if claim.effect is not None:
            found[claim.id] = number(claim.effect, DIGITS)
            found[f"{claim.id}.percent"] = number(100 * claim.effect, DIGITS)
    return found


def lines_of_claims(layout: Layout) -> dict[str, tuple[Path, int]]:
    """Return where each of the paper's claims stands: its file, relative to the project's folder, and the line."""
    found = {}
    for path in layout.paper_claims:
        for place, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if named := re.match(r"- id: (\S+)", line):
                found[named[1]] = (path.relative_to(layout.root), place)
    return found


def page(words: Words, verdicts: Verdicts, labels: Mapping[str, str], places: Mapping[str, tuple[Path, int]]) -> str:
    """Return ``docs/findings.md``: each sentence with its figure and, folded, the claims that carry it.

    Args:
        words: with their numbers.
        verdicts: what carries them.
        labels: what the report calls each figure.
        places: where each claim stands.
    """
    claims = {claim.id: claim for claim in verdicts.claims}
    lines = [f"# {words.title}", "", NOTE.format(verdicts.scale), "", words.before, ""]
    for place, one in enumerate(words.findings, start=1):
        lines += [f"## {place}. {one.head}", "", one.text, ""]
        for figure in one.figures:
            lines += [f"![{labels[figure]}](gallery/{figure}.png)", "", f"{labels[figure]}.", ""]
        lines[-2] += " The evidence:"
        lines += [_evidence(claims[name], places[name]) for name in one.claims] + [""]
    return "\n".join(lines).rstrip() + "\n"


def _evidence(claim: JudgedClaim, place: tuple[Path, int]) -> str:
    path, line = place
    where = f"[{claim.id}](../{path.as_posix()}#L{line})"
    said = f"**{claim.verdict}**: {claim.reason}. Measured: {claim.statistic} ({claim.place}; {where})."
    return f"- {claim.statement} {typeset(said)}"


def opening(words: Words) -> str:
    """Return the README's beginning: the sentences, and the first one's figure."""
    first = words.findings[0].figure
    listed = [f"{place}. **{one.head}.** {one.text}" for place, one in enumerate(words.findings, start=1)]
    more = "[docs/findings.md](docs/findings.md) has a figure and the evidence for each sentence."
    return "\n".join([words.before, "", *listed, "", f"![{first}](docs/gallery/{first}.png)", "", more])


def write_findings(config: Config, layout: Layout) -> list[Path]:
    """Write ``docs/findings.md``, and the README's beginning between two markers, from the verdicts of a scale.

    Raises:
        FileError: if the verdicts are missing, or a file cannot be written.
        ReportError: if the words do not fit the verdicts, or the README has no markers.
        ConfigError: if a sentence names a figure or claim that is not there.
    """
    verdicts = read_verdicts(layout.claims(config.scale))
    words = told(read_words(layout.root / "paper" / "findings.yaml"), verdicts)
    check_names(
        [figure for one in words.findings for figure in one.figures], config.figures, "figure", "paper/findings.yaml: "
    )
    labels, readme = prose.figure_labels(config.figures), layout.root / "README.md"
    text = readme.read_text(encoding="utf-8")
    if text.count(START) != 1 or text.count(END) != 1:
        raise ReportError(f"{readme} lacks the lines {START} and {END}, between which the findings go")
    before, rest = text.split(START)
    document = layout.root / "docs" / "findings.md"
    write_atomically(document, page(words, verdicts, labels, lines_of_claims(layout)))
    write_atomically(readme, f"{before}{START}\n\n{opening(words)}\n\n{END}{rest.split(END)[1]}")
    return [document, readme]
