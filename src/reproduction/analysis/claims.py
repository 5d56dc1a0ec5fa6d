"""Claims, each with the statistic that decides it, and the verdict that the results give.

``claims.yaml`` holds those of the paper: what supports and what refutes each was written before the results were
looked at. Own ones lie in files of their own. A statistic (:mod:`reproduction.analysis.statistics`) makes one number a
seed from the result files; :func:`judge` turns the numbers of a claim and of its controls into a verdict.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, ValidationError, model_validator

from reproduction.analysis.verdicts import (
    CONFIDENCE,
    LIMITED,
    NOT_SUPPORTED,
    SUPPORTED,
    UNDECIDED,
    VERDICTS,
    ClaimError,
    JudgedClaim,
    JudgedControl,
    Verdicts,
)
from reproduction.errors import describe
from reproduction.files import read_yaml

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import ArrayLike


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
Scale = Literal["tiny", "quick", "laptop", "paper"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class Statistic(BaseModel):
    """A function of :mod:`reproduction.analysis.statistics`, with its arguments beside its name."""

    model_config = ConfigDict(extra="allow", frozen=True)

    function: Text = Field(description="Name of a function of reproduction.analysis.statistics.")

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


class Claim(_Model):
    """A claim, of the paper or of somebody's own, and what decides it."""

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    place: str = Field("own", description="Where it is said.")
    kind: str = "own"
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
    change_our_mind: Text = Field(description="The check that would change the verdict.")
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
        if wrong := set(self.limited) - set(self.scales):
            raise ValueError(f"{self.id}: {wrong.pop()!r} is in limited and not in scales")
        if wrong_names := set(self.requires) - set(self.all_experiments):
            raise ValueError(f"{self.id}: requires names {wrong_names.pop()!r}, which is not among its experiments")
        return self


class PaperClaim(Claim):
    """A claim of the paper, which says where the paper makes it and in which words."""

    place: Text = Field(description="Where the paper says so: 'Figure 3, left; Section 3.1'.")
    kind: Literal["figure", "text", "appendix", "theory"]
    quote: Text = Field(description="A few of the paper's own words, fewer than 20.")


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


@dataclass(frozen=True)
class Measured:
    """The numbers of a statistic: mean, interval and sample count; ``problem`` says why where there are none."""

    effect: float | None
    interval: tuple[float, float] | None
    samples: int
    problem: str = ""

    @property
    def range(self) -> Interval:
        """The interval, or the effect alone where one sample gives no interval."""
        assert self.effect is not None
        return Interval(*(self.interval or (self.effect, self.effect)))

    def __str__(self) -> str:
        if self.effect is None:
            return self.problem
        if self.interval is None:
            return f"{self.effect:.3g} (one sample)"
        return f"{self.effect:.3g} [{self.interval[0]:.3g}, {self.interval[1]:.3g}], {self.samples} samples"


def summarize(samples: ArrayLike) -> Measured:
    """Return the mean of the samples and its t-interval at 95 % confidence; samples that are NaN are left out.

    Args:
        samples: shape (samples,), one number a seed.
    """
    import numpy as np
    from scipy.stats import t

    values = np.asarray(samples, dtype=float)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return Measured(None, None, 0, "no run of it finished")
    mean = float(values.mean())
    if values.size == 1:
        return Measured(mean, None, 1)
    half = float(t.ppf((1 + CONFIDENCE) / 2, values.size - 1) * values.std(ddof=1) / np.sqrt(values.size))
    return Measured(mean, (mean - half, mean + half), values.size)


def outcome(measured: Measured, passes: Region) -> bool | None:
    """Return whether a control passed: True inside, False outside, None where its interval reaches over the edge."""
    if measured.effect is None:
        return None
    if passes.holds(measured.range):
        return True
    return None if passes.meets(measured.range) else False


@dataclass(frozen=True)
class Verdict:
    """One of the four verdicts, with the reason in one sentence."""

    verdict: str
    reason: str


def judge(claim: Claim, measured: Measured, controls: Sequence[Measured], scale: str, obstacle: str = "") -> Verdict:
    """Return the verdict on a claim.

    In this order:

    1. Not decidable: the scale is not among those that can decide, something is missing (``obstacle``), or no run of
       the statistic finished.
    2. Not supported: the interval lies wholly inside ``refuted``, or the effect does and nothing reaches ``supported``,
       or a decisive control lies wholly outside of what passes. At a limited scale it is not decidable instead.
    3. Not decidable: the interval reaches from ``supported`` to ``refuted``.
    4. Supported: the interval lies wholly inside ``supported`` and all controls inside of what passes, unless the scale
       is a limited one or one sample of something random is all there is.
    5. Supported with limits: the rest, and the reason says which limits.

    Args:
        claim: with its regions and controls.
        measured: what the claim's statistic gives.
        controls: what those of its controls give, in their order.
        scale: the results' scale.
        obstacle: why the data cannot decide, where it is not the scale: a missing experiment, another setting.
    """
    numbers = f"{measured}; {claim.supported.text} supports, {claim.refuted.text} refutes"
    if scale not in claim.scales:
        return Verdict(UNDECIDED, f"scale {scale} cannot decide ({measured}): {claim.needs}")
    if obstacle or measured.effect is None:
        return Verdict(UNDECIDED, f"{obstacle or measured.problem}: {claim.needs}")
    limits = [f"scale {scale} decides with limits only ({claim.needs})"] if scale in claim.limited else []
    outcomes = [outcome(one, control.passes) for one, control in zip(controls, claim.controls, strict=True)]
    failed = [_about(claim.controls[i], controls[i]) for i, passed in enumerate(outcomes) if passed is False]
    decisive = [i for i, passed in enumerate(outcomes) if passed is False and claim.controls[i].decisive]
    supports, refutes = claim.supported.meets(measured.range), claim.refuted.meets(measured.range)
    effect = Interval(measured.effect, measured.effect)
    if claim.refuted.holds(measured.range) or (claim.refuted.holds(effect) and not supports):
        against = numbers
    elif decisive:
        against = f"{numbers}; but {_about(claim.controls[decisive[0]], controls[decisive[0]])}"
    else:
        against = ""
    if against:
        return Verdict(UNDECIDED, f"{against}; {limits[0]}") if limits else Verdict(NOT_SUPPORTED, against)
    if supports and refutes:
        return Verdict(UNDECIDED, f"the interval reaches from support to refutation: {numbers}; {claim.needs}")
    limits += failed
    limits += [f"open: {_about(claim.controls[i], controls[i])}" for i, passed in enumerate(outcomes) if passed is None]
    if measured.interval is None and not claim.deterministic:
        limits.append("one sample gives no interval")
    if not claim.supported.holds(measured.range):
        if claim.supported.holds(effect):
            limits.append("the interval reaches out of what supports")
        elif supports:
            limits.append("the effect lies in between")
        else:
            limits.append("the effect lies in between, and the interval excludes what supports")
    if limits:
        return Verdict(LIMITED, f"{numbers}; limits: {'; '.join(limits)}")
    count = f"all {len(controls)} controls pass" if len(controls) > 1 else "its control passes" if controls else ""
    return Verdict(SUPPORTED, "; ".join(filter(None, [numbers, count])))


def _about(control: Control, measured: Measured) -> str:
    return f"control “{control.statement.rstrip('.')}” gives {measured}, {control.passes.text} passes"


def compute(
    claims: Iterable[Claim], results: Mapping[str, xr.Dataset], scale: str, own: Iterable[Claim] = ()
) -> Verdicts:
    """Return the content of ``claims.json``.

    Args:
        claims: the paper's claims.
        results: result files by experiment; claims about others are not decidable.
        scale: the results' scale.
        own: claims of somebody's own, judged by the same rule and counted nowhere.

    Raises:
        ClaimError: if a statistic is unknown or its arguments do not fit.
    """
    judged = [_judged(claim, results, scale) for claim in claims]
    notes = {name: str(data.attrs.get("scale_note", "")) for name, data in sorted(results.items())}
    return Verdicts(
        scale=scale,
        claims=judged,
        own=[_judged(claim, results, scale) for claim in own],
        verdicts={verdict: sum(claim.verdict == verdict for claim in judged) for verdict in VERDICTS},
        sources={name: str(data.attrs.get("config_hash", "")) for name, data in sorted(results.items())},
        notes={name: note for name, note in notes.items() if note},
    )


def _judged(claim: Claim, results: Mapping[str, xr.Dataset], scale: str) -> JudgedClaim:
    measured = _measure(claim.statistic, results)
    controls = [_measure(control.statistic, results) for control in claim.controls]
    found = judge(claim, measured, controls, scale, _obstacle(claim, results))
    return JudgedClaim(
        id=claim.id,
        place=claim.place,
        kind=claim.kind,
        statement=claim.statement,
        quote=claim.quote,
        statistic=claim.meaning,
        headline=claim.headline,
        supports=claim.supported.text,
        refutes=claim.refuted.text,
        units=claim.units,
        effect=measured.effect,
        interval=measured.interval,
        confidence=CONFIDENCE,
        samples=measured.samples,
        controls=[
            JudgedControl(
                statement=control.statement,
                headline=control.headline,
                passes=control.passes.text,
                decisive=control.decisive,
                effect=one.effect,
                interval=one.interval,
                samples=one.samples,
                passed=outcome(one, control.passes),
            )
            for control, one in zip(claim.controls, controls, strict=True)
        ],
        verdict=found.verdict,
        reason=found.reason,
        decided_at=None if found.verdict == UNDECIDED else scale,
        change_our_mind=claim.change_our_mind,
        experiments=claim.all_experiments,
        amended=claim.amended,
    )


def _measure(statistic: Statistic, results: Mapping[str, xr.Dataset]) -> Measured:
    from reproduction.analysis.statistics import NoDataError, evaluate

    try:
        return summarize(evaluate(statistic.function, statistic.arguments, results))
    except NoDataError as error:
        return Measured(None, None, 0, str(error))


def _obstacle(claim: Claim, results: Mapping[str, xr.Dataset]) -> str:
    """Why the results cannot decide the claim, or an empty text."""
    for name in claim.experiments:
        if name not in results:
            return f"the configuration has no experiment {name}"
    for name, wanted in claim.requires.items():
        settings = json.loads(results[name].attrs.get("settings", "{}")) if name in results else {}
        for setting, value in wanted.items():
            if settings and settings.get(setting) != value:
                return f"{name} was run with {setting} {settings.get(setting)}, and the claim is about {value}"
    return ""


def compute_file(
    paper: Sequence[Path], own: Sequence[Path], results: Path, scale: str, experiments: Sequence[str], out: Path
) -> None:
    """Compute ``claims.json`` from files of claims and a folder of result files.

    Args:
        paper: the files of the paper's claims.
        own: the files of somebody's own.
        results: the scale's folder.
        scale: its name.
        experiments: those that are configured; of these the ones that a claim names are read.
        out: where the JSON goes.

    Raises:
        ClaimError: if the claims cannot be used.
        FileError: if a result file is missing, or ``out`` cannot be written.
        StoreError: if a result file is damaged.
    """
    from reproduction.files import write_atomically
    from reproduction.pipeline import store

    claims, others = load_all(paper, own)
    named = claimed_experiments([*claims, *others], experiments)
    datasets = {name: store.read(results / f"{name}.nc") for name in named}
    write_atomically(out, compute(claims, datasets, scale, others).model_dump_json(indent=1) + "\n")
