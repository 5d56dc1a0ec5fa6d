"""What was found: the words are those of paper/findings.yaml, the numbers those of the verdicts, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from reproduction.analysis.claims import PaperClaim, load_all
from reproduction.analysis.verdict_file import JudgedClaim, Verdicts
from reproduction.errors import ConfigError
from reproduction.pipeline.config import load
from reproduction.pipeline.layout import Layout
from reproduction.report import findings, prose
from reproduction.report.findings import (
    END,
    START,
    lines_of_claims,
    opening,
    page,
    read_words,
    told,
    write_findings,
)
from reproduction.report.verdicts import ReportError

ROOT = Path(__file__).parents[2]
WORDS = ROOT / "paper" / "findings.yaml"
NUMBER = r"−?[\d.,]+(?:·?10[⁻⁰-⁹¹²³]+)?"


def judged(**changes: Any) -> Verdicts:
    """All of the paper's claims, each as the words presume it; the n-th has the effect n/1000."""
    presumed = {name: one.verdict for one in read_words(WORDS).findings for name in one.claims}
    claims = []
    for place, claim in enumerate(load_all(Layout(ROOT).paper_claims, [])[0]):
        assert isinstance(claim, PaperClaim)
        one = {name: getattr(claim, name) for name in ("id", "place", "kind", "nature", "weight", "statement")}
        one |= {"statistic": claim.meaning, "supports": "a", "refutes": "b", "effect": place / 1000}
        one |= {"verdict": presumed.get(claim.id, "supported"), "reason": "REASON"}
        claims.append(JudgedClaim(**one | changes.get(claim.id, {})))
    return Verdicts(scale="tiny", claims=claims)


def test_a_sentence_has_the_number_of_its_claim() -> None:
    verdicts = judged(rescaling_loses_plasticity={"effect": 0.123456}, attention_rank_falls_with_decay={"effect": 41.6})
    one = {finding.head: finding.text for finding in told(read_words(WORDS), verdicts).findings}
    assert "after ten tasks 12 % of the parameters" in one["What it costs"]
    assert "takes 42 of 101 ranks" in one["What holds within limits"]
    counted = told(read_words(WORDS), verdicts).before
    assert f"{sum(c.verdict == 'not supported' for c in verdicts.claims if c.nature == 'claim')} do not hold" in counted


def test_words_that_the_verdicts_contradict_are_refused() -> None:
    with pytest.raises(ReportError, match="presumes that vanilla_never_sparse is supported, and at scale tiny it is"):
        told(read_words(WORDS), judged(vanilla_never_sparse={"verdict": "not supported"}))
    words = read_words(WORDS)
    words.findings[0].claims.append("no_such_claim")
    with pytest.raises(ConfigError, match="there is no claim 'no_such_claim'"):
        told(words, judged())
    words = read_words(WORDS)
    words.findings[0].text = "{vanilla_never_spars}"
    with pytest.raises(prose.ProseError, match="did you mean 'vanilla_never_sparse'"):
        told(words, judged())


def test_no_number_is_typed_in_the_words() -> None:
    """But what is no result: names of figures, networks and data, and how large something is that has a rank."""
    for one in read_words(WORDS).findings:
        plain = re.sub(r"\{[\w.]+\}|ResNet18|CIFAR-10|of (?:101|200)", "", one.text)
        assert not re.search(r"\d", plain), plain


def test_the_committed_page_and_readme_are_what_the_words_give(monkeypatch: pytest.MonkeyPatch) -> None:
    """With any numbers: those of a run are of the machine that ran it."""
    verdicts = judged()
    masked = dict.fromkeys(findings.numbers_of(verdicts), "NUMBER")
    monkeypatch.setattr(findings, "numbers_of", lambda verdicts: masked)
    words = told(read_words(WORDS), verdicts)
    labels = prose.figure_labels(load(ROOT / "config").figures)
    document = page(words, verdicts, labels, lines_of_claims(Layout(ROOT)))
    assert re.fullmatch(_pattern(document), (ROOT / "docs" / "findings.md").read_text(encoding="utf-8"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = readme.split(START)[1].split(END)[0].strip()
    assert re.fullmatch(_pattern(opening(words)), block)
    for one in words.findings:
        assert (ROOT / "docs" / "gallery" / f"{one.figure}.png").is_file()


def _pattern(text: str) -> str:
    """The text with any number in place of each result, and any reason; all else is as it is."""
    text = re.escape(text)
    for word, admitted in {"NUMBER": NUMBER, "REASON": r"[^\n]*?", "scale\\ tiny": r"scale \w+"}.items():
        text = text.replace(word, admitted)
    return text


def test_the_lines_of_claims_are_theirs() -> None:
    places = lines_of_claims(Layout(ROOT))
    assert len(places) == len(load_all(Layout(ROOT).paper_claims, [])[0])
    for name, (path, line) in places.items():
        assert (ROOT / path).read_text(encoding="utf-8").splitlines()[line - 1] == f"- id: {name}"


def test_the_command_writes_both(tmp_path: Path) -> None:
    for part in ("claims", "config", "paper"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("tiny", "quick", "figures"))
    (tmp_path / "README.md").write_text(f"before\n{START}\nas it was\n{END}\nafter\n", encoding="utf-8")
    layout = Layout(tmp_path)
    layout.scale("tiny").mkdir(parents=True)
    layout.claims("tiny").write_text(json.dumps(judged().model_dump()), encoding="utf-8")
    config = load(tmp_path / "config", {"scale": "tiny"})
    written = write_findings(config, layout)
    assert written == [tmp_path / "docs" / "findings.md", tmp_path / "README.md"]
    readme = written[1].read_text(encoding="utf-8")
    assert readme.startswith(f"before\n{START}\n\n")
    assert readme.endswith(f"{END}\nafter\n")
    assert "as it was" not in readme
    assert written[0].read_text(encoding="utf-8").startswith("# What was found\n")
    written[1].write_text("nothing", encoding="utf-8")
    with pytest.raises(ReportError, match="lacks the lines"):
        write_findings(config, layout)
