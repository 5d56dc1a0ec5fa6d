"""How the report marks and counts the verdicts, and the error of all that it is made of."""

from __future__ import annotations

from reproduction import formatting
from reproduction.analysis.verdict_file import (
    LIMITED,
    MENDED,
    NOT_SUPPORTED,
    SUPPORTED,
    UNDECIDED,
    Verdicts,
    largest_finding,
)
from reproduction.errors import UserError

MARKS = {
    SUPPORTED: {"key": "supported", "symbol": "✓"},
    LIMITED: {"key": "limits", "symbol": "◐"},
    NOT_SUPPORTED: {"key": "refuted", "symbol": "✗"},
    UNDECIDED: {"key": "open", "symbol": "?"},
}
"""The verdicts with a short key and a symbol that needs no colour."""


class ReportError(UserError, ValueError):
    """The report cannot be made."""


def counts_of(claims: Verdicts) -> dict[str, str]:
    """Return how many of the claims have each verdict and nature, by the names that the words use."""
    verdicts = [claim.verdict for claim in claims.claims if claim.nature == "claim"]
    counts = {f"claims.{entry['key']}": str(verdicts.count(verdict)) for verdict, entry in MARKS.items()}
    for name, natures in {"misprints": ("misprint",), "slips": ("slip",), "extensions": ("extension",)}.items():
        counts[f"claims.{name}"] = str(sum(claim.nature in natures for claim in claims.claims))
    counts["claims.amended"] = str(sum(bool(claim.amended) for claim in claims.claims if claim.nature == "claim"))
    counts["claims.one_finding"] = str(largest_finding(claims.claims))
    held = [claim.verdict == SUPPORTED for claim in claims.claims if claim.nature in MENDED]
    counts |= {"claims.mended": str(sum(held)), "claims.printed": str(len(held))}
    confidence = sorted({claim.confidence for claim in claims.claims})
    percent = formatting.values([100 * value for value in confidence])
    return {**counts, "claims.total": str(len(verdicts)), "claims.confidence": percent}
