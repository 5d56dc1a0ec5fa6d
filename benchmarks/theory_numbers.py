"""``python -m benchmarks.theory_numbers RESULTS``: remake the table of the numbers in docs/theory.md.

RESULTS is the folder of a scale's result files; what needs none is computed on the spot.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mirrorsym.stability import lyapunov_exponent
from reproduction.theory import factorization, rescaled_regressor

if TYPE_CHECKING:
    import xarray as xr

PAGE = Path(__file__).parents[1] / "docs" / "theory.md"
START, END = "<!-- numbers: made by python -m benchmarks.theory_numbers -->\n", "<!-- end of the numbers -->\n"


def computed() -> dict[str, str]:
    """Return the numbers that need no results, what they are by what the page says."""
    low, high = two_by_two()
    return {
        "error of exp(-ξ\\*t) at λ = 0.4 and ξ\\* = -1": f"{100 * abs(np.log(1.4) / 0.4 - 1):.0f} %",
        "learning rates with a negative exponent, h in {-1.2, 1, 0.01}": " and ".join(
            f"{shortest(start)} to {shortest(end)}" for start, end in negative_between([-1.2, 1, 0.01])
        ),
        "2 by 2, eigenvalues ∓0.5, unit noise, λ = 0.05: exponent (a simulation), and that of the diagonal": (
            f"{low:.4f}, {high:.4f}"
        ),
        "critical rate of Figure 3 (left), from a background at zero to one learnt, noise 1 and 0.1": " and ".join(
            f"{100 * abs(1 - moved(noise)):.2g} %" for noise in (1.0, 0.1)
        ),
        "directions that stay of 200 by the diagonal, μ = 0.003, λ = 0.007": str(
            int(factorization.diagonal_rank(0.003, 0.007))
        ),
    }


def moved(noise_std: float) -> float:
    """Return the critical rate of a feature with all others at zero, over that with all others learnt."""
    collapsed, learnt = (
        rescaled_regressor.critical_learning_rates(noise_std, where)[0] for where in ("collapsed", "learnt")
    )
    return collapsed / learnt


def negative_between(curvatures: list[float]) -> list[tuple[float, float]]:
    """Return the intervals of the learning rate, from 1e-3 to 1e4, in which the exponent of a law is negative."""
    from scipy.optimize import brentq

    rates = np.geomspace(1e-3, 1e4, 200_001)
    signs = np.sign(lyapunov_exponent(rates, curvatures))
    places = np.flatnonzero(np.diff(signs) != 0)
    exponent = lambda rate: float(lyapunov_exponent(rate, curvatures))  # noqa: E731
    zeros = [float(brentq(exponent, rates[place], rates[place + 1])) for place in places]
    return list(zip(zeros[::2], zeros[1::2], strict=True))


def shortest(rate: float) -> str:
    return f"{rate:.3g}" if rate < 10 else f"{rate:.3f}"


def two_by_two(runs: int = 4000, steps: int = 2000) -> tuple[float, float]:
    """Return the exponent of Hessians of mean diag(-0.5, 0.5) with unit noise in each entry, and the diagonal's own."""
    generator, rate = np.random.default_rng(0), 0.05
    vectors, growth = np.tile([1.0, 0.0], (runs, 1)), 0.0
    for step in range(steps):
        first, both, second = generator.standard_normal((3, runs))
        x, y = vectors.T
        vectors = np.stack(
            [x - rate * ((first - 0.5) * x + both * y), y - rate * (both * x + (second + 0.5) * y)], axis=1
        )
        sizes = np.linalg.norm(vectors, axis=1)
        vectors /= sizes[:, None]
        growth += float(np.log(sizes).mean()) if step >= steps // 4 else 0.0
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    diagonal = float(lyapunov_exponent(rate, nodes - 0.5, weights / weights.sum()))
    return growth / (steps - steps // 4), diagonal


def measured(results: Mapping[str, xr.Dataset]) -> dict[str, str]:
    """Return the numbers of result files.

    Args:
        results: those of ``factorization_stability`` and of ``theory_checks``.
    """
    data, checks = results["factorization_stability"], results["theory_checks"]
    diagonal, trained = (checks.sel(check=name) for name in ("diagonal_approximation", "trained_escape"))
    cells = ["signal", "learning_rate"]
    descent = np.log1p(2 * data["signal"] * data["learning_rate"])
    faster = data["escape_rate"].mean("seed") / descent
    sure = data["escape_rate"] - 2 * data["escape_error"] > descent
    positive = (data["lyapunov_exponent"] > 0).sum("mode").mean("seed")
    one = positive.sel(signal=0.003, learning_rate=0.007)
    mean = data["lyapunov_exponent"].mean(["mode", "seed"])
    return {
        "noises and learning rates of `factorization_stability`, seeds": f"{faster.size}, {data.sizes['seed']}",
        "of these, those at which SGD leaves zero faster than gradient descent (mean over seeds)": str(
            int((faster > 1).sum())
        ),
        "the same by more than two standard errors, share over seeds": f"{100 * float(sure.mean()):.0f} %",
        "times as fast, at most": f"{float(faster.max()):.0f}",
        "of these, with fewer than 200 positive exponents": str(int((positive < data.sizes["mode"]).sum())),
        "of these, with a mean of the leading 200 below gradient descent's": str(int((mean < descent).sum())),
        "positive exponents at μ = 0.003, λ = 0.007": f"{float(one):.0f}",
        "of these, not settled in some seed at the last step": str(int((data["settled"].mean("seed") < 1).sum(cells))),
        "trainings of WU of dimension 20 in which SGD leaves a small start first": share(trained["violation"]),
        "random laws of 3 by 3 Hessians, critical rates off by more than four": share(diagonal["violation"]),
        "the same, of the last direction": share(diagonal["violation_edge"]),
    }


def share(values: xr.DataArray) -> str:
    return f"{100 * float(values.mean()):.0f} %"


def table(numbers: Mapping[str, str]) -> str:
    rows = "".join(f"| {what} | {value} |\n" for what, value in numbers.items())
    return f"| what | number |\n|---|---|\n{rows}"


def numbers_of(page: str) -> dict[str, str]:
    """Return the table of the page."""
    rows = page.split(START)[1].split(END)[0].splitlines()[2:]
    return {what.strip(): value.strip() for _, what, value, _ in (row.split("|") for row in rows)}


def main() -> None:
    from reproduction.pipeline import store

    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results/quick")
    results = {name: store.read(folder / f"{name}.nc") for name in ("factorization_stability", "theory_checks")}
    head, rest = PAGE.read_text(encoding="utf-8").split(START)
    page = f"{head}{START}{table(computed() | measured(results))}{END}{rest.split(END)[1]}"
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
