"""The rule of the verdicts: from the numbers of a claim and of its controls to one of four words.

A statistic (:mod:`reproduction.analysis.statistics`) makes one number a seed from the result files; :func:`judge` turns
the numbers of a claim and of its controls into a verdict.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reproduction.analysis.claims import Claim, Control, Interval, Region, Statistic, claimed_experiments, load_all
from reproduction.analysis.verdict_file import (
    CONFIDENCE,
    LIMITED,
    NATURES,
    NOT_SUPPORTED,
    SUPPORTED,
    UNDECIDED,
    JudgedClaim,
    JudgedControl,
    Over,
    Verdicts,
    counted,
)

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Measured:
    """The numbers of a statistic; ``problem`` says why where there are none.

    Args:
        effect: the mean of the samples, or the largest or smallest where all of them have to be so.
        interval: of the mean.
        samples: their number.
        over: which of the three.
        instances: how many the samples are shares of, all together; 0 where they are no shares.
        counted: how many of these they count.
    """

    effect: float | None
    interval: tuple[float, float] | None
    samples: int
    problem: str = ""
    over: Over = "mean"
    instances: int = 0
    counted: int = 0

    @property
    def range(self) -> Interval:
        """The interval, or the effect alone where one sample gives no interval."""
        assert self.effect is not None
        return Interval(*(self.interval or (self.effect, self.effect)))

    def _bound(self) -> str:
        """What the count of instances says, where there is one."""
        if not self.instances:
            return ""
        most = share_at_most(self.counted, self.instances)
        bound = f", a share below {most:.2g} at 95 %" if most < 1 else ""
        return f"; {self.counted} of {self.instances} instances{bound}"

    def __str__(self) -> str:
        if self.effect is None:
            return self.problem
        if self.samples == 1:
            return f"{self.effect:.3g} (one sample)"
        if self.interval is None:
            return f"{self.effect:.3g} ({EXTREMES[self.over]} of {self.samples} samples{self._bound()})"
        return f"{self.effect:.3g} [{self.interval[0]:.3g}, {self.interval[1]:.3g}], {self.samples} samples"


def share_at_most(counted: int, instances: int) -> float:
    """Return the binomial bound at 95 % confidence on the share of all instances, of which some were counted in a draw.

    It is Clopper and Pearson's, one-sided: a larger share would have shown more of them with 95 % probability.
    """
    from scipy.stats import beta

    return 1.0 if counted >= instances else float(beta.ppf(CONFIDENCE, counted + 1, instances - counted))


EXTREMES = {"max": "the largest", "min": "the smallest"}


def summarize(samples: ArrayLike, over: Over = "mean", lowest: float = -math.inf) -> Measured:
    """Return the mean of the samples and its t-interval at 95 % confidence, or their largest or smallest.

    Samples that are NaN are left out.

    Args:
        samples: shape (samples,), one number a seed.
        over: ``max`` or ``min`` where each sample counts: what holds always, one instance refutes, and a mean over
            instances has no meaning.
        lowest: what the statistic cannot fall below; neither does its interval.
    """
    import numpy as np
    from scipy.stats import t

    values = np.asarray(samples, dtype=float)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return Measured(None, None, 0, "no run of it finished", over)
    if over != "mean" or values.size == 1:
        return Measured(float(getattr(values, over)()), None, values.size, over=over)
    mean = float(values.mean())
    half = float(t.ppf((1 + CONFIDENCE) / 2, values.size - 1) * values.std(ddof=1) / np.sqrt(values.size))
    return Measured(mean, (max(mean - half, lowest), mean + half), values.size)


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
    # What stands for the record, the statistic that was registered first, is shown and decides nothing.
    outcomes = [
        control.record or outcome(one, control.passes) for one, control in zip(controls, claim.controls, strict=True)
    ]
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
    if measured.samples == 1 and not claim.deterministic:
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
    used = sum(not control.record for control in claim.controls)
    count = f"all {used} controls pass" if used > 1 else "its control passes" if used else ""
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
        verdicts=counted(judged, ["claim"]),
        others={nature: counted(judged, [nature]) for nature in NATURES if nature != "claim"},
        sources={name: str(data.attrs.get("config_hash", "")) for name, data in sorted(results.items())},
        notes={name: note for name, note in notes.items() if note},
    )


def _judged(claim: Claim, results: Mapping[str, xr.Dataset], scale: str) -> JudgedClaim:
    measured = _measure(claim.statistic, results)
    controls = [_measure(control.statistic, results) for control in claim.controls]
    found = judge(claim, measured, controls, scale, _obstacle(claim, results))
    said = {
        *("id", "place", "kind", "nature", "weight", "statement", "quote", "as_printed", "consequence_of"),
        *("headline", "units", "change_our_mind", "amended"),
    }
    return JudgedClaim(
        **claim.model_dump(include=said),
        **_numbers(measured),
        statistic=claim.meaning,
        supports=claim.supported.text,
        refutes=claim.refuted.text,
        confidence=CONFIDENCE,
        controls=[
            JudgedControl(
                **control.model_dump(include={"statement", "headline", "passes", "decisive", "record"}),
                **_numbers(one),
                passed=outcome(one, control.passes),
            )
            for control, one in zip(claim.controls, controls, strict=True)
        ],
        verdict=found.verdict,
        reason=found.reason,
        decided_at=None if found.verdict == UNDECIDED else scale,
        experiments=claim.all_experiments,
    )


def _numbers(measured: Measured) -> dict[str, Any]:
    return {name: getattr(measured, name) for name in ("effect", "interval", "samples", "over")}


def _measure(statistic: Statistic, results: Mapping[str, xr.Dataset]) -> Measured:
    import numpy as np

    from reproduction.analysis.statistics import NoDataError, evaluate, lowest

    try:
        samples = evaluate(statistic.function, statistic.arguments, results)
        found = summarize(samples, statistic.over, lowest(statistic.function, statistic.arguments))
        if not statistic.count:
            return found
        instances = evaluate(statistic.function, {**statistic.arguments, "variable": statistic.count}, results)
        known = np.isfinite(samples) & np.isfinite(instances)
        counted = round(float((samples * instances)[known].sum()))
        return replace(found, instances=round(float(instances[known].sum())), counted=counted)
    except NoDataError as error:
        return Measured(None, None, 0, str(error), statistic.over)


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
    found = compute(claims, datasets, scale, others)
    contents = {name: hashlib.sha256((results / f"{name}.nc").read_bytes()).hexdigest() for name in named}
    write_atomically(out, found.model_copy(update={"contents": contents}).model_dump_json(indent=1) + "\n")
