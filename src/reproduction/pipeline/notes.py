"""How a scale differs from the paper, in words, from the settings that its file overrides: "width 8, 13 epochs"."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from reproduction import formatting
from reproduction.contract import Settings

PRECISION = "precision"
"""This setting leaves open what ran; :func:`with_precision` says it."""
DATA_SETS = {"digits": "scikit-learn's digits", "cifar10": "CIFAR-10"}


def note(here: Settings, paper: Settings) -> str:
    """Return the settings that are not the paper's, in the order of their fields; an empty text where none differs.

    Sweep and seeds are not part of it: every figure shows them. Nor is the precision, of which the paper says nothing.
    """
    if type(here) is not type(paper):
        return ""
    changed = ((name, value) for name, value in here if name != PRECISION and value != getattr(paper, name))
    return ", ".join(words(name, value) for name, value in changed)


def with_precision(note: str, precisions: Iterable[str]) -> str:
    """Return a note with what trainings computed in, where that is not float32 alone."""
    found = sorted(set(precisions))
    return note if found in ([], ["float32"]) else ", ".join(filter(None, (note, " and ".join(found))))


def words(name: str, value: Any) -> str:
    """Return a setting as one says it: ``width 8``, ``13 epochs``, ``500 and 100 points``, ``no flip``."""
    if name == "dataset":
        return DATA_SETS.get(value, str(value))
    plain = name.replace("_", " ")
    if isinstance(value, bool):
        return plain if value else f"no {plain}"
    values = value if isinstance(value, tuple) else (value,)
    text = formatting.setting(values if len(set(values)) > 1 else values[0])
    if (
        all(isinstance(part, int) for part in values)
        and " " not in plain
        and plain.endswith("s")
        and not plain.endswith(("as", "is", "ss", "us"))
    ):
        return f"{text} {plain.removesuffix('s') if value == 1 else plain}"
    return f"{plain} {text}"
