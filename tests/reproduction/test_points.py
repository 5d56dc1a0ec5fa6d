"""A point is what it is: its name does not depend on how, where or in which order it was written down."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproduction.errors import ConfigError
from reproduction.pipeline.config import Config
from reproduction.pipeline.points import Plan, Point

RATES = st.lists(st.floats(1e-6, 10, allow_nan=False), min_size=1, max_size=5, unique=True)


def plan(sweep: list[dict[str, Any]], seeds: Any = 1, **settings: Any) -> Plan:
    entry = {"settings": settings, "seeds": seeds, "sweep": sweep}
    source = {"url": "https://example.org", "checksum": "md5:" + "0" * 32}
    config = Config.model_validate({"cifar10": source, "experiments": {"sparsity": entry}, "figures": {}})
    return Plan.of(config, "sparsity")


def product(rates: list[Any], noise: list[Any] | None = None) -> dict[str, Any]:
    return {"parameterization": ["rescaled", "vanilla"], "noise_std": noise or [1], "learning_rate": rates}


@given(RATES, st.randoms())
def test_a_name_does_not_depend_on_order_or_spelling(rates: list[float], random: Any) -> None:
    shuffled: list[Any] = [random.choice([rate, repr(rate)]) for rate in rates]
    random.shuffle(shuffled)
    assert plan([product(rates, [1])]).points()[0].name == plan([product(shuffled, [1.0])]).points()[0].name


@given(RATES, st.integers(0, 10**6))
def test_json_gives_the_same_point_back(rates: list[float], seed: int) -> None:
    point = plan([product(rates)], [seed]).points()[0]
    assert Point.from_json(point.to_json()) == point
    assert Point.from_json(point.to_json()).name == point.name


def test_the_name_says_everything() -> None:
    (point,) = plan([product([0.01])], seeds=[7]).points()
    assert (
        point.name.name
        == f"parameterization~{point.labels['parameterization']},noise_std~1.0,learning_rate~0.01,seed~7.nc"
    )
    others = [
        plan([product([0.01])], seeds=[7], steps=5),
        plan([product([0.01], [2])], seeds=[7]),
        plan([product([0.02])], seeds=[7]),
    ]
    assert len({point.name, *(other.points()[0].name for other in others)}) == 4


def test_seeds_and_jobs_multiply() -> None:
    points = plan([product([0.1, 0.2]), product([0.3])], seeds=3).points()
    assert [(point.grid["learning_rate"], point.seed) for point in points] == [
        (rates, seed) for rates in ([0.1, 0.2], [0.3]) for seed in range(3)
    ]


def test_a_cell_in_two_products_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"learning_rate 0\.2 stands in two products"):
        plan([product([0.1, 0.2]), product([0.2])]).points()


def test_a_plan_survives_its_file() -> None:
    before = plan([product([0.1])], seeds=[3, 1], steps=10)
    assert Plan.from_json(before.to_json()).points() == before.points()
