"""The theoretical claims: each is supported by one feed, refuted by another, and limited where its control fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from reproduction.analysis import claims, verdicts
from reproduction.experiments.theory_checks import NAMES

ROOT = Path(__file__).parents[2]
CLAIMS = [claim for claim in claims.load_claims(ROOT / "claims.yaml") if claim.id.startswith("theory_")]
SEEDS = range(4)


def inside(region: str) -> float:
    """Return a number in a half line such as ``<= 0.1``, clearly inside."""
    sign, end = region.split()
    step = 0.5 * abs(float(end)) or 1.0
    return float(end) + (step if sign.startswith(">") else -step)


def world(claim, own: float, failing: int | None = None) -> dict[str, xr.Dataset]:
    """Return results in which the claim's statistic is ``own`` and its controls pass, but for one."""
    parts: dict[tuple[str, str, str], float] = {}
    for number, control in enumerate(claim.controls):
        value = inside(control.passes.text)
        if number == failing:
            value = (
                float(control.passes.text.split()[1]) * 0.5 - 1.0 if value > 0 and ">" in control.passes.text else 9.0
            )
        parts[place(control.statistic)] = value
    parts[place(claim.statistic)] = own
    checks = xr.Dataset(
        {
            name: (("check", "seed"), np.full((len(NAMES), len(SEEDS)), np.nan))
            for name in ("violation", "violation_mended", "violation_control")
        },
        coords={"check": list(NAMES), "seed": list(SEEDS)},
    )
    dims, shape = ("batch_size", "seed", "mirror"), (3, len(SEEDS), 2)
    hessians = xr.Dataset(
        {
            "sector_coupling": (dims[:2], np.full(shape[:2], np.nan)),
            "displaced_coupling": (dims, np.full(shape, np.nan)),
            "curvature_across": (dims, np.full(shape, np.nan)),
        },
        coords={"batch_size": [1.0, 8.0, 64.0], "seed": list(SEEDS), "mirror": ["permutation", "sign"]},
    )
    for (experiment, variable, check), value in parts.items():
        if experiment == "theory_checks":
            checks[variable].loc[{"check": check}] = value
        else:
            hessians[variable][:] = value
    return {"theory_checks": checks, "hessian_structure": hessians}


def place(statistic) -> tuple[str, str, str]:
    arguments = statistic.arguments
    return arguments["experiment"], arguments["variable"], arguments.get("at", {}).get("check", "")


def verdict(claim, results: dict[str, xr.Dataset]) -> str:
    return verdicts.compute([claim], results, "quick").claims[0].verdict


def test_every_check_decides_a_claim() -> None:
    assert {place(claim.statistic)[2] for claim in CLAIMS} >= set(NAMES)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_feeds_that_support_refute_and_fail_a_control(claim) -> None:
    supporting, refuting = inside(claim.supported.text), inside(claim.refuted.text)
    assert verdict(claim, world(claim, supporting)) == "supported"
    assert verdict(claim, world(claim, refuting)) == "not supported"
    for number, control in enumerate(claim.controls):
        expected = "not supported" if control.decisive else "supported with limits"
        assert verdict(claim, world(claim, supporting, failing=number)) == expected
