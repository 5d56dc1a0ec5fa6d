"""The file ``claims.json``: what :mod:`reproduction.analysis.verdicts` writes, and report and command line read."""

from __future__ import annotations

from pathlib import Path

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


class ClaimError(UserError, ValueError):
    """claims.yaml or claims.json cannot be used."""


class JudgedControl(BaseModel):
    """A control of a claim with its numbers; ``passed`` is None where its interval reaches over the edge."""

    statement: str
    headline: str = ""
    passes: str = ""
    decisive: bool = False
    effect: float | None = None
    interval: tuple[float, float] | None = None
    samples: int = 0
    passed: bool | None = None


class JudgedClaim(BaseModel):
    """A claim with its numbers and its verdict; texts are those of ``claims.yaml``."""

    id: str = Field(pattern=r"^\S+$")
    place: str
    kind: str
    statement: str
    quote: str = ""
    statistic: str
    headline: str = ""
    supports: str
    refutes: str
    units: str = "1"
    effect: float | None = None
    interval: tuple[float, float] | None = None
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

    ``own`` are claims that are not the paper's: judged by the same rule, and counted nowhere.
    """

    scale: str
    claims: list[JudgedClaim]
    own: list[JudgedClaim] = []
    verdicts: dict[str, int] = {}
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


def counts(found: Verdicts) -> str:
    """Return how often each verdict was given on the paper's claims."""
    return "; ".join(f"{verdict}: {count}" for verdict, count in found.verdicts.items())
