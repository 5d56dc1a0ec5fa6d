"""Theorem 1, part 2, on a real network, and Eq. 2."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from reproduction.contract import Context  # noqa: E402
from reproduction.experiments import hessian_structure as module  # noqa: E402
from reproduction.experiments.hessian_structure import EXPERIMENT, HessianStructureSettings  # noqa: E402

SETTINGS = HessianStructureSettings(steps=200)
GRID = {"batch_size": [1.0, 8.0, 64.0]}


@pytest.fixture(scope="module")
def data():
    return EXPERIMENT.run(SETTINGS, GRID, 0, Context())


def test_the_network_has_both_mirrors_and_no_other_pairing() -> None:
    x, y = module.training_set(SETTINGS, 0)
    theta = torch.from_numpy(np.random.default_rng(0).standard_normal(module.parameters(SETTINGS)))

    def loss(point: torch.Tensor) -> float:
        return float(module.sample_loss(point, x[:1], y[:1], SETTINGS)[0])

    for mirror in module.network_mirrors(SETTINGS):
        assert mirror.is_symmetric(loss, theta)
        assert mirror.distance(theta) > 0.5
    wrong = module.permutation_mirror(6).embed(
        [*module.neuron(0, SETTINGS), *reversed(module.neuron(1, SETTINGS))], module.parameters(SETTINGS)
    )
    assert not wrong.is_symmetric(loss, theta)
    weight, bias, outgoing = theta[:15].reshape(5, 3), theta[15:20], theta[20:].reshape(2, 5)
    expected = torch.tensor([*weight[3], bias[3], *outgoing[:, 3]])
    torch.testing.assert_close(theta[module.neuron(3, SETTINGS)], expected)


def test_hessian_against_finite_differences(data) -> None:
    x, y = module.training_set(SETTINGS, 0)
    theta, _, _ = module.train(SETTINGS, x, y, 0)
    gradient = torch.func.grad(lambda point: module.sample_loss(point, x[0], y[0], SETTINGS))
    step = 1e-5
    shifts = step * torch.eye(len(theta), dtype=torch.float64)
    numeric = torch.stack([(gradient(theta + e) - gradient(theta - e)) / (2 * step) for e in shifts]).numpy()
    np.testing.assert_allclose(data.hessian.sel(batch_size=1, seed=0), numeric, atol=1e-7)


def test_blocks_for_every_sample_and_batch_on_the_mirrors_only(data) -> None:
    assert (data.coupling < 1e-13).all()
    assert (data.sector_coupling < 1e-13).all()
    assert (data.displaced_coupling.sel(batch_size=64) > 0.01).all()
    assert (data.gradient_across < 1e-10).all()
    sector = data.sector.isel(batch_size=0, seed=0).values
    assert np.bincount(sector.astype(int)).tolist() == [6, 6, 18]
    rotated = data.rotated_hessian.isel(seed=0).values
    between = sector[:, None] != sector[None, :]
    assert np.abs(rotated[:, between]).max() < 1e-12
    np.testing.assert_allclose(
        np.linalg.eigvalsh(rotated), np.linalg.eigvalsh(data.hessian.isel(seed=0).values), atol=1e-10
    )


def test_loss_across_is_even_and_bends_by_the_hessian(data) -> None:
    loss = data.loss_across.isel(seed=0)
    np.testing.assert_allclose(loss, loss.isel(distance=slice(None, None, -1)), atol=1e-10)
    middle = loss.sizes["distance"] // 2
    step = float(data.distance[middle + 1])
    fourth_order = (-loss[..., middle + 2] + 16 * loss[..., middle + 1] - 15 * loss[..., middle]) / (6 * step**2)
    np.testing.assert_allclose(fourth_order, data.curvature_across.isel(seed=0), atol=1e-3)
    assert (data.curvature_across.sel(batch_size=64) < 0).all()


def test_eq_2(data) -> None:
    assert (data.scalar_formula_error < 1e-14).all()
    assert (data.scalar_eigenvector_error < 1e-14).all()
    x, y = module._scalar_data(SETTINGS, 0)
    first = data.scalar_hessian.sel(batch_size=1).isel(seed=0).values
    np.testing.assert_allclose(first[:2, :2], [[0, -x[0] * y[0]], [-x[0] * y[0], 0]], atol=1e-15)
    assert np.abs(first[:2, 2:]).max() == 0


def test_contract_cut_and_divergence(data) -> None:
    alone = EXPERIMENT.run(SETTINGS, {"batch_size": [8]}, 0, Context())
    for name, variable in EXPERIMENT.variables.items():
        assert data[name].dims == ("batch_size", "seed", *variable.dims)
        np.testing.assert_array_equal(data[name].sel(batch_size=[8]), alone[name])
    assert set(data.coords) == {"batch_size", "seed", *EXPERIMENT.coords}
    diverged = EXPERIMENT.run(SETTINGS.model_copy(update={"learning_rate": 1e200, "steps": 5}), GRID, 0, Context())
    assert (diverged.status == 1).all()
    assert diverged.status.dtype == np.int8
    for name in EXPERIMENT.variables:
        assert diverged[name].isnull().all()
    with pytest.raises(ValueError, match="whole number from 1 to 64"):
        EXPERIMENT.run(SETTINGS, {"batch_size": [65]}, 0, Context())
