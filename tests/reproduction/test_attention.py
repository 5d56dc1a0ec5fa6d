"""The compiled loops of attention equal autograd on the plain model, and the experiment keeps its contract."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.in_context_regressor import InContextRegressor
from reproduction.contract import Context
from reproduction.experiments import attention as experiment
from reproduction.kernels import attention as one_layer
from reproduction.kernels import attention_two_layers as two_layers
from reproduction.kernels.attention import Descent, Problem, pad

LOOPS = {1: one_layer, 2: two_layers}
WIDTH, TOKENS = 101, 50  # the paper's


def data(points, tokens=TOKENS, width=WIDTH):
    drawn = experiment.AttentionSettings(features=width - 1, tokens=tokens)
    return experiment.in_context_data(drawn, points, seed=0)


def model_of(width, layers, seed=0):
    model = InContextRegressor(width, layers).double()
    with torch.no_grad():
        for number, layer in enumerate(model.layers, start=1):
            weights = experiment.initial_weights(width, number, seed)
            for matrix, weight in zip((layer.key, layer.query, layer.value), weights, strict=True):
                matrix.weight.copy_(torch.from_numpy(weight))
    return model


def flat(model, of=lambda parameter: parameter):
    """The model's parameters (or what ``of`` makes of them) as the loops hold them."""
    matrices = [
        [of(m.weight).detach().numpy() for m in (layer.key, layer.query, layer.value)] for layer in model.layers
    ]
    kept = [matrix for layer in matrices[:-1] for matrix in layer] + matrices[-1][:2]
    return np.concatenate([*(pad(matrix, (0, 1)).ravel() for matrix in kept), pad(matrices[-1][2][-1], (0,))])


def loss_and_gradient(layers, problem, parameters):
    gradient = np.full_like(parameters, np.nan)
    return LOOPS[layers].loss_and_gradient(problem, parameters, gradient), gradient


def autograd(model, tokens, targets):
    loss = ((model(torch.from_numpy(tokens)) - torch.from_numpy(targets)) ** 2).mean()
    model.zero_grad()
    loss.backward()
    return loss.item()


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("points", [1, 47])
def test_gradient_is_autograds_at_the_papers_size(layers, points):
    tokens, targets = data(points)
    model = model_of(WIDTH, layers)
    loss, gradient = loss_and_gradient(layers, Problem.of(tokens, targets), flat(model))
    expected = autograd(model, tokens, targets)
    assert loss == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(gradient, flat(model, lambda weight: weight.grad), rtol=0, atol=1e-10)


@settings(max_examples=25)
@given(st.sampled_from([1, 2]), st.integers(1, 23), st.integers(2, 11), st.integers(2, 19), st.floats(0.1, 3))
def test_gradient_is_autograds_at_any_size(layers, points, tokens, width, gain):
    x, targets = data(points, tokens, width)
    model = model_of(width, layers)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= gain
    _, gradient = loss_and_gradient(layers, Problem.of(x, targets), flat(model))
    autograd(model, x, targets)
    expected = flat(model, lambda weight: weight.grad)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-11 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("layers", [1, 2])
def test_single_precision_is_as_good_as_its_rounding(layers):
    tokens, targets = data(47)
    parameters = flat(model_of(WIDTH, layers))
    _, double = loss_and_gradient(layers, Problem.of(tokens, targets), parameters)
    problem = Problem.of(tokens.astype("f4"), targets.astype("f4"))
    _, single = loss_and_gradient(layers, problem, parameters.astype("f4"))
    assert single.dtype == np.float32
    assert np.abs(single - double).max() < 1e-5 * np.abs(double).max()


def optimizer_of(descent, parameters):
    kind = torch.optim.SGD if not descent.adam else torch.optim.AdamW if descent.decoupled else torch.optim.Adam
    return kind(parameters, lr=descent.learning_rate, weight_decay=descent.weight_decay)


def trajectories(layers, points, steps, descent):
    """Losses and last parameters of the loops, in two calls, and of torch.optim."""
    tokens, targets = data(points)
    model = model_of(WIDTH, layers)
    problem, parameters = Problem.of(tokens, targets), flat(model)
    moments = np.zeros((2, parameters.size))
    for first, count in ((0, steps // 3), (steps // 3, steps - steps // 3)):
        one_layer.train(LOOPS[layers].loss_and_gradient, problem, parameters, moments, first, count, descent)
    optimizer = optimizer_of(descent, model.parameters())
    for _ in range(steps):
        autograd(model, tokens, targets)
        optimizer.step()
    return (loss_and_gradient(layers, problem, parameters)[0], parameters), (
        autograd(model, tokens, targets),
        flat(model),
    )


@pytest.mark.parametrize(
    ("layers", "points", "descent"),
    [
        (1, 2, Descent(4e-4, 1e-2)),
        (1, 2, Descent(4e-4, 1.0, decoupled=True)),
        (1, 2, Descent(5e-4, 1e-1, adam=False)),
        (2, 2, Descent(4e-4, 1e-1)),
    ],
)
def test_trajectory_is_torchs_over_a_thousand_steps(layers, points, descent):
    ours, theirs = trajectories(layers, points, 1003, descent)
    assert ours[0] == pytest.approx(theirs[0], abs=1e-10)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("layers", [1, 2])
def test_double_rotation_symmetry(layers):
    """Only W_Kᵀ W_Q enters, so the loss is that of turned keys and queries, and G_K W_Kᵀ = W_Q G_Qᵀ in every layer."""
    tokens, targets = data(9, 8, 16)
    problem, parameters = Problem.of(tokens, targets), flat(model_of(16, layers))
    loss, gradient = loss_and_gradient(layers, problem, parameters)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((16, 16)))[0]
    for layer in range(layers):
        place = slice(3 * layer * 256, (3 * layer + 2) * 256)
        key, query = parameters[place].reshape(2, 16, 16)
        key_slope, query_slope = gradient[place].reshape(2, 16, 16)
        np.testing.assert_allclose(key_slope @ key.T, query @ query_slope.T, atol=1e-11)
        parameters[place] = np.concatenate([(turn @ key).ravel(), (turn @ query).ravel()])
    assert loss_and_gradient(layers, problem, parameters)[0] == pytest.approx(loss, rel=1e-12)


def test_decay_balances_key_and_query_under_small_steps():
    """Under the flow, W_K W_Kᵀ - W_Q W_Qᵀ shrinks as exp(-2 weight_decay t)."""
    tokens, targets = data(9, 8, 16)
    problem, parameters = Problem.of(tokens, targets), flat(model_of(16, 1))

    def imbalance():
        key, query = parameters[: 2 * 256].reshape(2, 16, 16)
        return key @ key.T - query @ query.T

    before = imbalance()
    descent = Descent(1e-5, 10.0, adam=False)
    one_layer.train(one_layer.loss_and_gradient, problem, parameters, np.zeros((2, parameters.size)), 0, 4000, descent)
    np.testing.assert_allclose(imbalance(), np.exp(-2 * 10 * 4000 * 1e-5) * before, atol=1e-3 * np.abs(before).max())


def test_data_is_the_papers():
    tokens, targets = data(200)
    assert tokens.shape == (200, 50, 101)
    assert (tokens[:, -1, -1] == 0).all()
    # 49 shown labels determine the part of w in the span of their features: it must explain them exactly.
    x, y = tokens[3, :-1, :-1], tokens[3, :-1, -1]
    assert np.linalg.lstsq(x, y)[0] @ x.T == pytest.approx(y)
    assert targets.std() == pytest.approx(10, rel=0.15)  # |w|² is 100
    np.testing.assert_array_equal(data(20)[0], tokens[:20])


SMALL = experiment.AttentionSettings(features=7, tokens=6, points=(12, 9), steps=(40, 20), measure_every=10)
GRID = {"layers": [1.0, 2.0], "decay": ["coupled", "decoupled"], "weight_decay": [0.0, 0.1]}


@pytest.fixture(scope="module")
def result():
    return experiment.run(SMALL, GRID, 3, Context())


def test_result_keeps_the_contract(result):
    sweep = ("layers", "decay", "weight_decay", "seed")
    expected = {name: sweep + variable.dims for name, variable in experiment.EXPERIMENT.variables.items()}
    assert {name: variable.dims for name, variable in result.items()} == {**expected, "status": sweep}
    assert result.step.values.tolist() == [0, 10, 20, 30, 40]
    assert result["layers"].dtype == result["weight_decay"].dtype == np.float64
    assert result["status"].dtype == np.int8
    assert (result["status"] == 0).all()
    one, two = result.sel(layers=1), result.sel(layers=2)
    assert one["rank"].sel(layer=2).isnull().all()
    assert one["rank"].sel(layer=1).notnull().all()
    assert two["rank"].sel(step=[0, 10, 20]).notnull().all()
    assert two["train_loss"].sel(step=[30, 40]).isnull().all()
    spectrum = result["singular_value"].sel(layers=2, step=0, layer=2, matrix="query")[0, 0, 0]
    np.testing.assert_allclose(spectrum, np.linalg.svd(experiment.initial_weights(8, 2, 3)[1])[1], rtol=1e-5)


def test_result_is_what_the_plain_model_does(result):
    for layers in (1, 2):
        tokens, targets = experiment.in_context_data(SMALL, SMALL.points[layers - 1], 3)
        model = model_of(8, layers, seed=3)
        optimizer = torch.optim.Adam(model.parameters(), lr=4e-3, weight_decay=0.1)
        for _ in range(20):
            autograd(model, tokens, targets)
            optimizer.step()
        here = result.sel(layers=layers, decay="coupled", weight_decay=0.1, seed=3, step=20)
        assert float(here["train_loss"]) == pytest.approx(autograd(model, tokens, targets), rel=1e-4)
        for number, layer in enumerate(model.layers, start=1):
            for name in ("key", "query"):
                spectrum = torch.linalg.svdvals(getattr(layer, name).weight.detach())
                measured = here["singular_value"].sel(layer=number, matrix=name)
                np.testing.assert_allclose(measured, spectrum, atol=1e-4)


def test_bits_do_not_depend_on_the_cut(result):
    for layers in GRID["layers"]:
        for decay in GRID["decay"]:
            alone = experiment.run(SMALL, {"layers": [layers], "decay": [decay], "weight_decay": [0.1]}, 3, Context())
            there = result.sel(layers=[layers], decay=[decay], weight_decay=[0.1])
            assert alone.identical(there)


def test_divergence_is_a_result():
    wild = experiment.AttentionSettings(
        features=7,
        tokens=6,
        points=(12, 9),
        steps=(40, 20),
        measure_every=10,
        learning_rate=30,
        optimizer="gradient_descent",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = experiment.run(wild, {**GRID, "decay": ["coupled"]}, 0, Context())
    assert (result["status"] == 1).all()
    assert all(result[name].isnull().all() for name in experiment.EXPERIMENT.variables)


def test_steps_that_measurements_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="measure_every"):
        experiment.AttentionSettings(steps=(100, 90), measure_every=50)
