"""docs/theory.md: each number of the page is one of its table, and the table is what code computes."""

from __future__ import annotations

import re

import numpy as np
import pytest
import xarray as xr

from benchmarks import theory_numbers

PAGE = theory_numbers.PAGE.read_text(encoding="utf-8")
PROSE, _ = PAGE.split("## The numbers")


@pytest.fixture(scope="module")
def table() -> dict[str, str]:
    return theory_numbers.numbers_of(PAGE)


def test_what_needs_no_results_is_what_the_table_says(table: dict[str, str]) -> None:
    computed = theory_numbers.computed()
    assert computed == {what: table[what] for what in computed}


def test_the_prose_quotes_each_number_of_the_table(table: dict[str, str]) -> None:
    for what, value in table.items():
        for number in re.split(r", | and ", value):
            assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.]*\d)", PROSE), f"{what}: {number}"


def test_the_prose_has_no_measured_number_that_is_not_in_the_table(table: dict[str, str]) -> None:
    """Percentages and numbers of three digits or more are measured; labels, formulas and settings are not."""
    known = set(re.findall(r"\d[\d.]*", " ".join([*table, *table.values()])))
    places = r"0\.003|0\.007|0\.05|0\.01|0\.4|2\.5"  # settings and exponents
    found = set(re.findall(r"(?<![\w.])\d+\.\d+|\d{2,}(?= %)|(?<![\w.-])\d{3,}(?![\w.])", PROSE))
    assert {number for number in found if number not in known and not re.fullmatch(places, number)} <= section_numbers()


def section_numbers() -> set[str]:
    """Numbers of sections and formulas of the paper."""
    return set(re.findall(r"(?:Section|Sections|Appendix B|Appendix C)\s*\.?(\d\.\d)", PROSE))


def test_the_numbers_of_results_follow_from_them() -> None:
    """Two noises and rates, two seeds; at the second place SGD is slower and one seed has not settled."""
    signal, rate = np.array([0.003, 0.3]), np.array([0.007])
    descent = np.log1p(2 * signal * 0.007)
    sweep = ("signal", "learning_rate", "seed")
    shape = (2, 1, 2)
    growth = (descent * [3, 0.5])[:, None, None] * np.ones(shape)
    exponents = np.stack([growth, np.broadcast_to([[[-1.0, -1.0]], [[1e-9, 1e-9]]], shape)], axis=-1)
    data = xr.Dataset(
        {
            "lyapunov_exponent": ((*sweep, "mode"), exponents),
            "escape_rate": (sweep, growth),
            "escape_error": (sweep, growth * [0.01, 2.0]),
            "settled": (sweep, np.array([[[1.0, 1.0]], [[1.0, 0.0]]])),
        },
        {"signal": signal, "learning_rate": rate, "seed": [0, 1]},
    )
    checks = xr.Dataset(
        {
            "violation": (("check", "seed"), [[0.5, 0.7], [1.0, 0.8]]),
            "violation_edge": (("check", "seed"), [[0.1, 0.3], [np.nan, np.nan]]),
        },
        {"check": ["diagonal_approximation", "trained_escape"], "seed": [0, 1]},
    )
    found = theory_numbers.measured({"factorization_stability": data, "theory_checks": checks})
    assert list(found.values()) == ["2, 2", "1", "25 %", "3", "1", "2", "1", "1", "90 %", "60 %", "20 %"]
