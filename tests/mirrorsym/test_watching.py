"""What the monitor counts: units modulo their symmetries, near copies exactly, products by their values, features."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mirrorsym
from mirrorsym import measures
from mirrorsym.features import DORMANT, counts, entering
from mirrorsym.units import distances, smallest_distance

ROWS = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))


def last(monitor: mirrorsym.CollapseMonitor, kind: str, quantity: str) -> float:
    (value,) = [r.value for r in monitor.records if (r.kind, r.quantity, r.step) == (kind, quantity, 0)]
    return value


def layers(activation: nn.Module, units: int = 32) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, units), activation, nn.Linear(units, 3))


def make_copies(model: nn.Sequential, factors: Tensor, outgoing: Tensor) -> None:
    """Every unit computes what the first does, times a factor; its outgoing weights too."""
    with torch.no_grad():
        model[0].weight.copy_(factors[:, None] * model[0].weight[:1])
        model[0].bias.copy_(factors * model[0].bias[:1])
        model[2].weight.copy_(outgoing * model[2].weight[:, :1])


def test_relu_units_that_are_one_function_up_to_a_factor_are_one() -> None:
    model = layers(nn.ReLU())
    factors = torch.logspace(-1, 1, 32)
    make_copies(model, factors, 1 / factors)
    monitor = mirrorsym.watch(model, ROWS)
    assert last(monitor, "permutation", "effective_units") == 1
    assert last(monitor, "rescaling", "effective_units") == 32, "what is small on one side is large on the other"
    with torch.no_grad():
        model[0].weight[3:5] = torch.randn(2, 4)
        model[0].weight[7], model[0].bias[7] = 0, 0
    monitor = mirrorsym.watch(model, ROWS)
    assert last(monitor, "permutation", "effective_units") == 3
    assert last(monitor, "permutation", "identical_pairs") == pytest.approx((29 * 28 / 2) / (31 * 30 / 2))


def test_tanh_units_are_one_up_to_the_sign_and_gelu_units_are_not() -> None:
    signs = torch.where(torch.arange(32) % 3 == 0, -1.0, 1.0)
    for activation, left in ((nn.Tanh(), 1), (nn.GELU(), 2)):
        model = layers(activation)
        make_copies(model, signs, signs)
        assert last(mirrorsym.watch(model, ROWS), "permutation", "effective_units") == left


def test_channels_behind_batch_norm_are_one_whatever_their_scales() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 3))
    filters, slopes, out = torch.rand(3, 8) + 0.5
    with torch.no_grad():
        model[0].weight.copy_(filters[:, None, None, None] * model[0].weight[:1])
        model[0].bias.copy_(filters * model[0].bias[:1])
        model[1].weight.copy_(slopes / filters)
        model[1].bias.copy_(0.3 * slopes)
        model[1].running_mean.copy_(0.1 * filters)
        model[3].weight.copy_(out[:, None, None] * model[3].weight[:, :1])
    pictures = torch.randn(4, 2, 6, 6)
    assert last(mirrorsym.watch(model, pictures), "permutation", "effective_units") == 1
    with torch.no_grad():
        model[1].bias[5] += 1
    assert last(mirrorsym.watch(model, pictures), "permutation", "effective_units") == 2


def test_a_gram_matrix_finds_the_nearest_pair_and_its_distance_is_exact() -> None:
    rows = torch.randn(60, 500, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    rows[41] = rows[17] + 3e-9 * rows[3]
    expected = measures.weight_distance(rows.numpy())
    apart = distances(rows)
    np.testing.assert_allclose(apart[~np.eye(60, dtype=bool)], expected[~np.eye(60, dtype=bool)], atol=2e-8)
    assert smallest_distance(rows, apart) == pytest.approx(expected[17, 41], rel=1e-12)
    assert 1e-9 < expected[17, 41] < 4e-9


def test_what_enters_a_layer_is_counted_and_the_model_is_left_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(96, 3)
    )
    model[3].eval()
    pictures = torch.randn(5, 1, 6, 6)
    with torch.no_grad():
        model[1].bias[2] = -100
        model[1].weight[4], model[1].bias[4] = 1e-3, 1e-3
    state, modes, random = (
        copy.deepcopy(model.state_dict()),
        [m.training for m in model.modules()],
        torch.get_rng_state(),
    )
    found = entering(model, (pictures,), {})
    assert torch.equal(torch.get_rng_state(), random)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert set(found) == {"5"}, "what enters the first layer is the data"
    expected = copy.deepcopy(model).eval()[:5](pictures).detach().double()
    torch.testing.assert_close(found["5"], expected)
    numbers = counts(found["5"])
    size = expected.abs().mean(dim=0).numpy()
    dead = int((expected == 0).all(dim=0).sum())
    assert numbers["dead_units"] == dead >= 16
    assert numbers["dormant_units"] == (size <= DORMANT * size.mean()).sum() >= 32
    monitor = mirrorsym.watch(model, pictures)
    singular = np.linalg.svd(expected.numpy(), compute_uv=False)
    assert last(monitor, "features", "rank") == (singular > 0.01 * singular[0]).sum()
    assert f"into 5: {dead} of 96 units are 0 on the whole batch" in monitor.summary()


def test_channels_of_a_convolution_are_units_at_every_place() -> None:
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 3))
    pictures = torch.randn(5, 1, 8, 8)
    rows = entering(model, (pictures,), {})["2"]
    expected = model[:2](pictures).detach().double().permute(0, 2, 3, 1).reshape(-1, 6)
    torch.testing.assert_close(rows, expected)


def test_a_product_is_measured_by_its_value_under_the_name_that_it_had() -> None:
    model = layers(nn.Tanh(), 6)
    plain = mirrorsym.watch(model, ROWS)
    products = mirrorsym.watch(mirrorsym.constrain_all(copy.deepcopy(model)), ROWS, symmetries=[])
    of_weights = [r for r in plain.records if r.kind == "weight"]
    assert [(r.name, r.quantity) for r in products.records if r.kind == "weight"] == [
        (r.name, r.quantity) for r in of_weights
    ]
    values = [r.value for r in products.records if r.kind == "weight"]
    np.testing.assert_allclose(values, [r.value for r in of_weights], rtol=1e-5)


def test_it_measures_the_start_and_at_each_so_many_steps_and_logs_the_numbers() -> None:
    said: list[tuple[int, dict[str, float]]] = []
    model = layers(nn.Tanh(), 6)
    monitor = mirrorsym.watch(model, {"input": ROWS}, every=5, log=lambda numbers, step: said.append((step, numbers)))
    for _ in range(12):
        monitor.step()
    assert [step for step, _ in said] == [0, 5, 10] == sorted({r.step for r in monitor.records})
    assert said[0][1]["0, 2 (permutation) effective_units"] == 6
    assert said[0][1]["2 (features) rank"] <= said[0][1]["2 (features) full_rank"] == 6
    with pytest.raises(ValueError, match="every is 0"):
        mirrorsym.watch(model, ROWS, every=0)


def test_the_dataset_and_the_plot_hold_what_the_records_do() -> None:
    pytest.importorskip("xarray", reason="records become a Dataset")
    monitor = mirrorsym.watch(layers(nn.Tanh(), 6), ROWS, every=1)
    monitor.step()
    data = monitor.to_dataset()
    for r in monitor.records:
        series = np.flatnonzero((data["name"].values == r.name) & (data["kind"].values == r.kind))
        np.testing.assert_equal(data[r.quantity].values[series, list(data["step"].values).index(r.step)], [r.value])
    pytest.importorskip("matplotlib", reason="records are drawn")
    lines = monitor.plot().axes[0].lines
    expected = [[1.0, 1.0], [1.0, 1.0]]
    assert [list(line.get_ydata()) for line in lines] == expected


def test_a_network_in_bfloat16_is_watched() -> None:
    monitor = mirrorsym.watch(layers(nn.ReLU()).bfloat16(), ROWS.bfloat16())
    assert {r.value for r in monitor.records if r.quantity == "sparsity"} == {0.0}


def test_to_look_at_a_spectral_norm_does_not_change_it() -> None:
    model = layers(nn.ReLU())
    nn.utils.parametrizations.spectral_norm(model[0])
    before = copy.deepcopy(model.state_dict())
    mirrorsym.watch(model, ROWS)
    assert model.training
    assert model[0].parametrizations.weight[0].training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_an_expert_that_no_sample_was_sent_to_is_left_out() -> None:
    class Routed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.used, self.unused = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.first(x))
            return torch.cat([self.used(x), self.unused(x[:0])])

    monitor = mirrorsym.watch(Routed(), ROWS, symmetries=())
    assert {r.name for r in monitor.records if r.kind == "features"} == {"used"}


def test_a_buffer_that_the_forward_writes_into_stays_as_it_is() -> None:
    class Counting(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(*layers(nn.ReLU()))
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x)

    model = Counting()
    mirrorsym.watch(model, ROWS)
    assert model.calls == 0


def test_symmetries_of_one_name_are_counted_apart() -> None:
    model = mirrorsym.constrain(nn.Linear(4, 7), "weight")
    monitor = mirrorsym.watch(model, ROWS)
    sizes = [(r.name, r.kind, r.value) for r in monitor.records if r.quantity == "units"]
    assert len({(name, kind) for name, kind, _ in sizes}) == len(sizes) > 1
    assert monitor.summary() == f"{len(sizes)} symmetries have lost nothing"


def test_sparse_gradients_are_those_of_the_same_embedding_with_dense_ones() -> None:
    found = []
    for sparse in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(9, 6, sparse=sparse), nn.Tanh(), nn.Linear(6, 2))
        words = torch.arange(8).reshape(4, 2)
        model(words).square().sum().backward()
        found.append([(r.name, r.kind, r.quantity, r.value) for r in mirrorsym.watch(model, words).records])
    assert found[0] == found[1]
    assert ("0, 2", "permutation", "vanishing_units", 0.0) in found[0]
