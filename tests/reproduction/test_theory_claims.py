"""The theoretical claims: each is supported by one feed, refuted by another, and limited where its control fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from reproduction.analysis import claims, verdicts
from reproduction.experiments.theory_checks import EXPERIMENT, NAMES

ROOT = Path(__file__).parents[2]
PAPER, _ = claims.load_all(sorted((ROOT / "claims").glob("*.yaml")), [])
THEORY = [claim for claim in PAPER if set(claim.experiments) <= {"theory_checks", "hessian_structure"}]
CLAIMS = [claim for claim in THEORY if claim.statistic.function == "value" and not claim.control_experiments]
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
        {name: (("check", "seed"), np.full((len(NAMES), len(SEEDS)), np.nan)) for name in EXPERIMENT.variables},
        coords={"check": list(NAMES), "seed": list(SEEDS)},
    )
    dims, shape = ("batch_size", "seed", "mirror"), (3, len(SEEDS), 2)
    hessians = xr.Dataset(
        {
            "sector_coupling": (dims[:2], np.full(shape[:2], np.nan)),
            "displaced_coupling": (dims, np.full(shape, np.nan)),
            "curvature_across": (dims, np.full(shape, np.nan)),
            "gradient_norm": (dims[:2], np.full(shape[:2], np.nan)),
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


def test_every_check_is_read_by_a_claim() -> None:
    used = [statistic for claim in PAPER for statistic in (claim.statistic, *(one.statistic for one in claim.controls))]
    read = {statistic.arguments["at"]["check"] for statistic in used if "check" in statistic.arguments.get("at", {})}
    assert read == set(NAMES)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_feeds_that_support_refute_and_fail_a_control(claim) -> None:
    supporting, refuting = inside(claim.supported.text), inside(claim.refuted.text)
    assert verdict(claim, world(claim, supporting)) == "supported"
    assert verdict(claim, world(claim, refuting)) == "not supported"
    for number, control in enumerate(claim.controls):
        without = "supported" if control.record else "supported with limits"
        expected = "not supported" if control.decisive else without
        assert verdict(claim, world(claim, supporting, failing=number)) == expected


def across(shape: np.ndarray) -> dict[str, xr.Dataset]:
    """Results whose loss on the lines across both mirrors is a function of the distance."""
    seeds, mirrors, distance = list(SEEDS), ["permutation", "sign"], np.linspace(-1.5, 1.5, 121)
    data = xr.Dataset(
        {
            "loss_across": (("batch_size", "seed", "mirror", "distance"), np.tile(shape, (1, len(seeds), 2, 1))),
            "curvature_across": (("batch_size", "seed", "mirror"), np.full((1, len(seeds), 2), -1.0)),
        },
        coords={"batch_size": [64.0], "seed": seeds, "mirror": mirrors, "distance": distance},
    )
    return {"hessian_structure": data}


def test_wells_on_both_sides_support_and_a_well_on_the_mirror_refutes() -> None:
    (claim,) = (one for one in THEORY if one.id == "theory_fig2_wells")
    distance = np.linspace(-1.5, 1.5, 121)
    assert verdict(claim, across(distance**4 - distance**2 / 2)) == "supported"
    assert verdict(claim, across(distance**2)) == "not supported"
    # Wells so deep that twice the decay of Theorem 1 does not move them onto the mirror.
    assert verdict(claim, across(distance**4 - 5 * distance**2)) == "not supported"


def test_many_small_negative_eigenvalues_support_and_large_or_no_negative_ones_refute() -> None:
    (claim,) = (one for one in PAPER if one.id == "small_negative_eigenvalues")

    def spectrum(*values: float) -> dict[str, xr.Dataset]:
        hessians = np.tile(np.diag(values), (1, len(SEEDS), 1, 1))
        data = xr.Dataset({"hessian": (("batch_size", "seed", "parameter", "parameter_2"), hessians)})
        return {"hessian_structure": data.assign_coords(batch_size=[64.0], seed=list(SEEDS))}

    assert verdict(claim, spectrum(1.0, 0.5, -0.01, -0.02)) == "supported"
    assert verdict(claim, spectrum(1.0, 0.5, -0.4, 1e-15)) == "not supported"
    assert verdict(claim, spectrum(1.0, 0.5, 0.01, -1e-15)) == "not supported"
