"""How a scale differs from the paper, in words, from the settings that its file overrides: "width 8, 13 epochs"."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from reproduction import formatting
from reproduction.contract import Settings

PRECISION = "precision"
"""This setting leaves open what ran; :func:`with_precision` says it."""
DATA_SETS = {"digits": "scikit-learn's digits", "cifar10": "CIFAR-10"}


@dataclass(frozen=True)
class Origins:
    """The settings of an experiment by where each comes from, name by value in the order of the fields.

    Args:
        paper: those that the paper gives.
        changed: those that it gives and that are others at this scale.
        open: those that an experiment of the paper has, and that it leaves open.
        ours: those of which it knows nothing.
    """

    paper: dict[str, Any]
    changed: dict[str, Any]
    open: dict[str, Any]
    ours: dict[str, Any]

    @property
    def in_paper(self) -> bool:
        """Whether it is an experiment of the paper."""
        return bool(self.paper or self.changed or self.open)


def by_origin(found: Origins) -> list[tuple[str, dict[str, Any]]]:
    """Return the settings with words for where they come from."""
    ours = "ours" if found.in_paper else "an experiment of ours"
    return [
        ("as in the paper", found.paper),
        ("not as in the paper", found.changed),
        ("left open there", found.open),
        (ours, found.ours),
    ]


def origins(here: Settings, paper: Settings, given: Container[str], left_open: Container[str]) -> Origins:
    """Sort settings by their origin.

    Args:
        here: the settings of this scale.
        paper: those of ``config.yaml``.
        given: names of those that the paper gives.
        left_open: names of those that it leaves open.
    """
    kept = type(here) is type(paper)
    stored = here.model_dump()  # without a choice that came later and is as before
    same = {name for name, value in here if not kept or value == getattr(paper, name)}
    return Origins(
        paper={name: value for name, value in here if name in given and name in same},
        changed={name: value for name, value in here if name in given and name not in same},
        open={name: value for name, value in here if name in left_open and name not in given},
        ours={name: value for name, value in here if name in stored and name not in given and name not in left_open},
    )


def note(here: Settings, paper: Settings, swept: Mapping[str, tuple[Any, ...]] | None = None) -> str:
    """Return what is not the paper's, in the order of the fields; an empty text where nothing differs.

    Seeds are not part of it, and a sweep that leaves values out is not: every figure shows them. Nor is the precision,
    of which the paper says nothing.

    Args:
        here: the settings of this scale.
        paper: those of ``config.yaml``.
        swept: the values of each axis that has some of its own.
    """
    if type(here) is not type(paper):
        return ""
    changed = [(name, value) for name, value in here if name != PRECISION and value != getattr(paper, name)]
    return ", ".join(words(name, value) for name, value in [*changed, *(swept or {}).items()])


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
