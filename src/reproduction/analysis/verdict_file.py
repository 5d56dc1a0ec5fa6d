"""The file ``claims.json``: what :mod:`reproduction.analysis.verdicts` writes, and report and command line read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, Field, ValidationError

from reproduction.errors import UserError
from reproduction.files import FileError

SUPPORTED = "supported"
LIMITED = "supported with limits"
NOT_SUPPORTED = "not supported"
UNDECIDED = "not decidable at this scale"
CONFIDENCE = 0.95
"""Of the intervals over seeds."""
VERDICTS = (SUPPORTED, LIMITED, NOT_SUPPORTED, UNDECIDED)

Nature = Literal["claim", "misprint", "slip", "extension"]
"""What stands before a verdict: the paper asserts it; a symbol, index or reference is wrong that nothing else uses; a
formula or step fails as printed while what rests on it stands mended; or it is we who ask for more than the paper."""
NATURES = get_args(Nature)
MENDED = ("misprint", "slip")
"""Judged in their mended form."""
Weight = Literal["core", "supporting", "detail"]
WEIGHTS = get_args(Weight)
"""What the paper is about first, a matrix in a caption last."""
Over = Literal["mean", "max", "min"]


class ClaimError(UserError, ValueError):
    """A file of claims or claims.json cannot be used."""


class JudgedControl(BaseModel):
    """A control of a claim with its numbers; ``passed`` is None where its interval reaches over the edge."""

    statement: str
    headline: str = ""
    passes: str = ""
    decisive: bool = False
    record: bool = False
    effect: float | None = None
    interval: tuple[float, float] | None = None
    over: Over = "mean"
    samples: int = 0
    passed: bool | None = None


class JudgedClaim(BaseModel):
    """A claim with its numbers and its verdict; texts are those of the files of claims."""

    id: str = Field(pattern=r"^\S+$")
    place: str
    kind: str
    nature: Nature = "claim"
    weight: Weight = "supporting"
    as_printed: str = ""
    consequence_of: str = ""
    statement: str
    quote: str = ""
    statistic: str
    headline: str = ""
    supports: str
    refutes: str
    units: str = "1"
    effect: float | None = None
    interval: tuple[float, float] | None = None
    over: Over = "mean"
    confidence: float = CONFIDENCE
    samples: int = 0
    controls: list[JudgedControl] = []
    verdict: str
    reason: str
    decided_at: str | None = None
    change_our_mind: str = ""
    experiments: list[str] = []
    amended: str = ""


class Verdicts(BaseModel):
    """The verdicts at a scale, their counts, hashes of each result's settings and file, and how the scale differs.

    ``verdicts`` counts what the paper asserts; ``others`` its misprints, slips and our extensions, each apart. ``own``
    are claims of somebody's own: judged by the same rule, and counted nowhere.
    """

    scale: str
    claims: list[JudgedClaim]
    own: list[JudgedClaim] = []
    verdicts: dict[str, int] = {}
    others: dict[str, dict[str, int]] = {}
    sources: dict[str, str] = {}
    contents: dict[str, str] = {}
    notes: dict[str, str] = {}


def read_verdicts(path: Path) -> Verdicts:
    """Return a file of verdicts.

    Raises:
        FileError: if it is missing.
        ClaimError: if it does not hold what it should.
    """
    from reproduction.errors import describe

    if not path.is_file():
        raise FileError(f"{path} is missing; make it with snakemake --cores all claims")
    try:
        found = Verdicts.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ClaimError(f"{describe(error, str(path), Verdicts)}; delete the file and make it again") from None
    for claim in (*found.claims, *found.own):
        if claim.verdict not in VERDICTS:
            raise ClaimError(f"{path}: claim {claim.id}: there is no verdict {claim.verdict!r}")
    return found


def table(claims: list[JudgedClaim]) -> list[str]:
    """Return each claim's verdict and its reason, two lines each."""
    pairs = ((f"{claim.verdict}: {claim.id} ({claim.place})", f"    {claim.reason}") for claim in claims)
    return [line for pair in pairs for line in pair]


def counted(claims: Iterable[JudgedClaim], natures: Iterable[str]) -> dict[str, int]:
    """Return how often each verdict was given on the claims of some natures."""
    wanted = set(natures)
    chosen = [claim.verdict for claim in claims if claim.nature in wanted]
    return {verdict: chosen.count(verdict) for verdict in VERDICTS}


def largest_finding(claims: Iterable[JudgedClaim]) -> int:
    """Return how many of the claims that are not supported are one finding: a claim, and what follows from it."""
    refuted = [claim for claim in claims if claim.nature == "claim" and claim.verdict == NOT_SUPPORTED]
    heads = [claim.consequence_of or claim.id for claim in refuted]
    return max((heads.count(head) for head in heads), default=0)


def by_weight(claims: Iterable[JudgedClaim]) -> list[JudgedClaim]:
    """Return the claims in the order of their weight, else in their own."""
    return sorted(claims, key=lambda claim: WEIGHTS.index(claim.weight))


def listing(found: Verdicts) -> list[str]:
    """Return all claims as lines: the paper's by their weight, its misprints and slips, extensions, and own ones."""
    parts = {
        "what the paper claims:": [claim for claim in found.claims if claim.nature == "claim"],
        "misprints and slips, judged mended:": [claim for claim in found.claims if claim.nature in MENDED],
        "our extensions, not counted:": [claim for claim in found.claims if claim.nature == "extension"],
        "own claims, not counted:": found.own,
    }
    lines = [line for head, claims in parts.items() if claims for line in (head, *table(by_weight(claims)), "")]
    return [*lines, counts(found)]


def counts(found: Verdicts) -> str:
    """Return how often each verdict was given on what the paper asserts, and on the rest.

    Where several that are not supported are one finding, their number stands beside.
    """
    same = largest_finding(found.claims)
    shared = f" ({same} of them one finding)" if same > 1 else ""
    lines = [("", found.verdicts), *((f"{nature}s, mended: ", found.others.get(nature, {})) for nature in MENDED)]
    lines.append(("our extensions: ", found.others.get("extension", {})))
    return " | ".join(
        head
        + "; ".join(
            f"{verdict}: {count}{shared if verdict == NOT_SUPPORTED and not head else ''}"
            for verdict, count in verdicts.items()
            if count or not head
        )
        for head, verdicts in lines
        if any(verdicts.values()) or not head
    )
