"""The report's words: a YAML file in which numbers stand as references, and the references that it cites.

A text may hold ``{sparsity.steps}`` (a value of an experiment), ``[@key]`` (a citation), ``[#fig3_left]`` (a figure),
``[%id]`` (a claim), ``[words](#compute)`` (a section) and code between backticks. It is parsed once, into runs; PDF and
HTML lay them out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from reproduction.errors import UserError, nearest

Run = dict[str, Any]
"""One of {"text"}, {"cite"}, {"code"}, {"figure", "text"}, {"claim", "text"} and {"anchor", "text"}."""

_VALUE = re.compile(r"\{([\w.]+)\}")
_TOKEN = re.compile(
    r"\[@(?P<cite>\w+)\]|\[#(?P<figure>\w+)\]|\[%(?P<claim>\w+)\]|`(?P<code>[^`]+)`"
    r"|\[(?P<text>[^\]]+)\]\(#(?P<anchor>\w+)\)"
)
_ENTRY = re.compile(r"@(\w+)\s*\{\s*(\w+)\s*,(.*?)\n\}", re.DOTALL)
_FIELD = re.compile(r"(\w+)\s*=\s*\{(.*?)\}\s*(?:,|$)\s*(?=\w+\s*=|$)", re.DOTALL)


class ProseError(UserError, ValueError):
    """The report's text asks for something that is not there."""


def fill(text: str, numbers: Mapping[str, str]) -> str:
    """Return the text with every ``{name}`` replaced by its formatted value.

    Raises:
        ProseError: if there is no such value.
    """

    def value(found: re.Match[str]) -> str:
        if found[1] not in numbers:
            raise ProseError(
                f"the report's text asks for {{{found[1]}}}, which is not there{nearest(found[1], numbers)}"
            )
        return numbers[found[1]]

    return " ".join(_VALUE.sub(value, text).split())


def runs(
    text: str, numbers: Mapping[str, str], labels: Mapping[str, str], claims: Mapping[str, str] | None = None
) -> list[Run]:
    """Return a paragraph as runs of plain text, citations, figures, claims, links and code.

    Args:
        text: the paragraph.
        numbers: the formatted values that it may refer to.
        labels: what the figures are called, by id; a figure that is not among them is named and not linked.
        claims: the numbers of the claims, by id; with one that is not among them the same.

    Raises:
        ProseError: if a value is not there.
    """
    filled = fill(text, numbers)
    found: list[Run] = []
    end = 0
    for match in _TOKEN.finditer(filled):
        if match.start() > end:
            found.append({"text": filled[end : match.start()]})
        given = {kind: value for kind, value in match.groupdict().items() if value is not None}
        if "figure" in given:
            name = given["figure"]
            given = {"figure": name, "text": labels[name]} if name in labels else {"text": _paper_label(name) or name}
        if "claim" in given:
            name, known = given["claim"], claims or {}
            given = {"claim": name, "text": f"claim {known[name]}"} if name in known else {"text": f"claim {name}"}
        found.append(given)
        end = match.end()
    return [*found, {"text": filled[end:]}] if end < len(filled) else found


def figure_labels(figures: Iterable[str]) -> dict[str, str]:
    """Return what the report calls each figure: by the paper's own number, or a letter where the paper has none."""
    labels, letters = {}, iter("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    for figure in figures:
        labels[figure] = _paper_label(figure) or f"Figure {next(letters, figure)}"
    return labels


def _paper_label(figure: str) -> str:
    match = re.fullmatch(r"fig(\d+)(?:_(left|mid|right))?", figure)
    if match is None:
        return ""
    return f"Figure {match[1]}" + {"left": ", left", "mid": ", middle", "right": ", right"}.get(match[2] or "", "")


def bibliography(path: Path) -> dict[str, dict[str, str]]:
    """Return the entries of a BibTeX file with braced fields, by key.

    Raises:
        ProseError: if the file is missing.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ProseError(f"{path} is missing; run in the project's folder") from None
    return {
        key: {"type": kind.lower()} | {name.lower(): _plain(value) for name, value in _FIELD.findall(body)}
        for kind, key, body in _ENTRY.findall(text)
    }


def _plain(value: str) -> str:
    return " ".join(value.replace("{", "").replace("}", "").replace("--", "–").split())


def cited(content: Any) -> list[str]:
    """Return the keys that runs anywhere in the content cite, in order, each once."""
    if isinstance(content, dict):
        found = [content["cite"]] if isinstance(content.get("cite"), str) else []
        return list(dict.fromkeys([*found, *(key for value in content.values() for key in cited(value))]))
    if isinstance(content, list):
        return list(dict.fromkeys(key for value in content for key in cited(value)))
    return []
