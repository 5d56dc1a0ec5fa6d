"""Claims, each with the statistic that decides it, and the values that support and that refute it.

The folder ``claims`` holds those of the paper, a file a section: what supports and what refutes each was written before
the results were looked at. Own ones lie in files of their own. The rule that judges them is in
:mod:`reproduction.analysis.verdicts`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, ValidationError, model_validator

from reproduction.analysis.verdict_file import MENDED, ClaimError, Nature, Over, Weight
from reproduction.errors import describe
from reproduction.files import read_yaml


@dataclass(frozen=True)
class Interval:
    """A connected set of real numbers; an infinite end is open."""

    low: float
    high: float
    low_open: bool = False
    high_open: bool = False

    def holds(self, other: Interval) -> bool:
        """Return whether ``other`` lies wholly inside."""
        above = other.low > self.low or (other.low == self.low and (not self.low_open or other.low_open))
        below = other.high < self.high or (other.high == self.high and (not self.high_open or other.high_open))
        return above and below

    def meets(self, other: Interval) -> bool:
        """Return whether the two share a number."""
        low, high = max(self.low, other.low), min(self.high, other.high)
        if low != high:
            return low < high
        open_ends = (
            (self.low_open and self.low == low)
            or (self.high_open and self.high == low)
            or (other.low_open and other.low == low)
            or (other.high_open and other.high == low)
        )
        return not open_ends


@dataclass(frozen=True)
class Region:
    """A set of real numbers as the file writes it: ``>= 0.9``, ``< 3``, ``in [0, 1)`` or ``outside [0, 1]``."""

    text: str
    parts: tuple[Interval, ...]

    @classmethod
    def parse(cls, text: Any) -> Region:
        """Return the region of a text.

        Raises:
            ValueError: if it is none of the four forms, or holds nothing.
        """
        if isinstance(text, Region):
            return text
        number = r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*"
        if ray := re.fullmatch(rf"\s*(<=|<|>=|>){number}", str(text)):
            sign, end = ray[1], float(ray[2])
            is_open = len(sign) == 1
            if sign[0] == "<":
                return cls(str(text), (Interval(-math.inf, end, True, is_open),))
            return cls(str(text), (Interval(end, math.inf, is_open, True),))
        if between := re.fullmatch(rf"\s*(in|outside)\s*([\[(]){number},{number}([\])])\s*", str(text)):
            word, left, low, high, right = between.groups()
            inner = Interval(float(low), float(high), left == "(", right == ")")
            if inner.low < inner.high or (inner.low == inner.high and not inner.low_open and not inner.high_open):
                if word == "in":
                    return cls(str(text), (inner,))
                below = Interval(-math.inf, inner.low, True, not inner.low_open)
                return cls(str(text), (below, Interval(inner.high, math.inf, not inner.high_open, True)))
        raise ValueError(f"{text!r} is no set of numbers; write '>= 0.9', '< 3', 'in [0, 1)' or 'outside [0, 1]'")

    def holds(self, interval: Interval) -> bool:
        """Return whether an interval lies wholly inside."""
        return any(part.holds(interval) for part in self.parts)

    def meets(self, interval: Interval) -> bool:
        """Return whether an interval reaches in."""
        return any(part.meets(interval) for part in self.parts)

    def overlaps(self, other: Region) -> bool:
        """Return whether two regions share a number."""
        return any(self.meets(part) for part in other.parts)


NumberSet = Annotated[
    Region,
    PlainValidator(Region.parse, json_schema_input_type=str),
    PlainSerializer(lambda region: region.text, return_type=str),
]
Text = Annotated[str, Field(min_length=1)]
Headline = Annotated[str, Field(description="Words for the number in the report's table of headline numbers, if any.")]
Scale = Literal["tiny", "quick", "laptop", "overnight", "paper"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class Statistic(BaseModel):
    """A function of :mod:`reproduction.analysis.statistics`, with its arguments beside its name."""

    model_config = ConfigDict(extra="allow", frozen=True)

    function: Text = Field(description="Name of a function of reproduction.analysis.statistics.")
    over: Over = Field(
        "mean", description="Of the samples: their mean, or, where all of them count, the largest or smallest."
    )
    count: str = Field("", description="Variable with the number of instances that each sample is a share of.")

    @property
    def arguments(self) -> dict[str, Any]:
        """What the file writes beside the name."""
        return dict(self.model_extra or {})


class Control(_Model):
    """A check that could refute a claim although its own statistic supports it."""

    statement: Text = Field(description="What is tested, and what failing would mean.")
    statistic: Statistic
    headline: Headline = ""
    passes: NumberSet = Field(description="The values with which the claim stands.")
    decisive: bool = Field(False, description="True where failing refutes the claim; else it limits it.")
    record: bool = Field(
        False, description="True where it is shown and decides nothing, as the statistic that was registered first."
    )


class Claim(_Model):
    """A claim, of the paper or of somebody's own, and what decides it."""

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    place: str = Field("own", description="Where it is said.")
    kind: str = "own"
    nature: Nature = Field(
        "claim", description="Whether the paper asserts it, slips in printing it, or we ask for more."
    )
    weight: Weight = Field("supporting", description="How much of what the paper is about stands or falls with it.")
    as_printed: str = Field("", description="Of a misprint or slip: what is printed, and what its reader gets wrong.")
    consequence_of: str = Field("", description="The claim with the finding that this one follows from, if any.")
    statement: Text = Field(description="The claim in our words.")
    quote: str = Field("", description="A few of the words in which it was made, fewer than 20.")
    experiments: list[Text] = Field(min_length=1, description="Experiments whose results the statistic reads.")
    control_experiments: list[Text] = Field([], description="Further experiments that only controls read.")
    statistic: Statistic
    meaning: Text = Field(description="What the statistic is, in words.")
    headline: Headline = ""
    units: str = Field("1", description="Units of the statistic, '1' where it has none.")
    supported: NumberSet = Field(description="Values of the statistic that support the claim.")
    refuted: NumberSet = Field(description="Values of the statistic that refute it.")
    controls: list[Control] = []
    scales: list[Scale] = Field(min_length=1, description="Scales whose data can decide the claim.")
    limited: list[Scale] = Field([], description="Of these, the ones that can support it with limits, never refute it.")
    requires: dict[str, dict[str, Any]] = Field({}, description="Settings that an experiment must have been run with.")
    needs: Text = Field(description="Which scale (or which further runs) would decide it where this one does not, why.")
    deterministic: bool = Field(False, description="True where the statistic has no chance in it: one sample decides.")
    change_our_mind: str = Field("", description="The experiment that would change the verdict, if one could.")
    amended: str = Field("", description="What was changed after the results were seen, and why. Thresholds never are.")

    @property
    def all_experiments(self) -> list[str]:
        """The experiments of the statistic and of the controls."""
        return [*self.experiments, *self.control_experiments]

    @model_validator(mode="after")
    def _consistent(self) -> Claim:
        if len(self.quote.split()) >= 20:
            raise ValueError(f"the quote of {self.id} has {len(self.quote.split())} words; keep it under 20")
        if self.supported.overlaps(self.refuted):
            raise ValueError(f"{self.id}: supported {self.supported.text!r} and refuted {self.refuted.text!r} overlap")
        if bool(self.as_printed) != (self.nature in MENDED):
            raise ValueError(f"{self.id}: as_printed belongs to misprints and slips, and to all of them")
        if wrong := set(self.limited) - set(self.scales):
            raise ValueError(f"{self.id}: {wrong.pop()!r} is in limited and not in scales")
        if any(control.decisive and control.record for control in self.controls):
            raise ValueError(f"{self.id}: a control for the record decides nothing")
        if wrong_names := set(self.requires) - set(self.all_experiments):
            raise ValueError(f"{self.id}: requires names {wrong_names.pop()!r}, which is not among its experiments")
        return self


class PaperClaim(Claim):
    """A claim of the paper, which says where the paper makes it and in which words."""

    place: Text = Field(description="Where the paper says so: 'Figure 3, left; Section 3.1'.")
    kind: Literal["figure", "text", "appendix", "theory"]
    nature: Nature
    weight: Weight
    quote: str = Field("", description="A few of the paper's own words, fewer than 20; an extension may have none.")

    @model_validator(mode="after")
    def _quoted(self) -> PaperClaim:
        if not self.quote and self.nature != "extension":
            raise ValueError(f"{self.id}: quote the paper's words; only an extension has none")
        return self


def load_claims(path: Path, kind: type[Claim] = PaperClaim) -> list[Claim]:
    """Read and validate a file of claims, a YAML list; the functions of the statistics are not looked up yet.

    Args:
        path: the file.
        kind: what its entries are: claims of the paper, or :class:`Claim` for those of somebody's own.

    Raises:
        ClaimError: with one sentence that names the claim, the field and what is wrong.
        ConfigError: if the file is missing or holds no list.
    """
    content = read_yaml(path, list)
    claims = [_validated(entry, number, path, kind) for number, entry in enumerate(content, start=1)]
    refuse_twins(claims, str(path))
    return claims


def refuse_twins(claims: Iterable[Claim], where: str) -> None:
    """Refuse claims that share an id.

    Raises:
        ClaimError: with the id.
    """
    for name, count in Counter(claim.id for claim in claims).items():
        if count > 1:
            raise ClaimError(f"{where}: {count} claims have the id {name!r}; each needs its own")


def load_all(paper: Iterable[Path], own: Iterable[Path]) -> tuple[list[Claim], list[Claim]]:
    """Read the files of the paper's claims, and those of somebody's own.

    Raises:
        ClaimError: if a claim is not valid, or two share an id.
        ConfigError: if a file is missing or holds no list.
    """
    ours = [claim for path in paper for claim in load_claims(path)]
    others = [claim for path in own for claim in load_claims(path, Claim)]
    refuse_twins([*ours, *others], "the files of claims")
    known = {claim.id for claim in (*ours, *others)}
    for claim in (*ours, *others):
        if claim.consequence_of and claim.consequence_of not in known:
            raise ClaimError(f"{claim.id}: consequence_of names {claim.consequence_of!r}, which is no claim")
    return ours, others


def claimed_experiments(claims: Iterable[Claim], configured: Iterable[str]) -> list[str]:
    """Return the configured experiments that a claim or a control reads, in the configuration's order."""
    named = {name for claim in claims for name in claim.all_experiments}
    return [name for name in configured if name in named]


def _validated(entry: Any, number: int, path: Path, kind: type[Claim]) -> Claim:
    known = isinstance(entry, dict) and isinstance(entry.get("id"), str)
    where = f"{path}: claim {entry['id'] if known else number}"
    if not isinstance(entry, dict):
        raise ClaimError(f"{where}: a claim is a mapping, not {type(entry).__name__}")
    try:
        return kind.model_validate(entry)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["loc"]:
            raise ClaimError(describe(error, where, kind)) from None
        raise ClaimError(f"{path}: claim {first['msg'].removeprefix('Value error, ')}") from None
