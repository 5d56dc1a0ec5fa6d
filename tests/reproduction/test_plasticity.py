"""Continual regression: the kernel against torch.optim.Adam, and what the paper's symmetry argument implies exactly."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest

from reproduction.contract import DIVERGED, FINISHED, Context
from reproduction.experiments.plasticity import EXPERIMENT, VARIANTS, PlasticitySettings, gradients
from reproduction.kernels.plasticity import train

STEPS, DIMENSION, POINTS = 1013, 100, 100
BETA2, EPSILON = 0.999, 1e-8


def _problem(factors, dtype="float64", batch_size=16, steps=STEPS, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((POINTS, DIMENSION))
    return {
        "x": x.astype(dtype),
        "y": (x.mean(axis=1) + 0.1 * rng.standard_normal(POINTS)).astype(dtype),
        "batches": rng.integers(POINTS, size=(steps, batch_size), dtype=np.int32),
        "noise": rng.standard_normal((steps, 2, DIMENSION), dtype=np.float32),
        "bias": (0.01 * rng.standard_normal((factors, DIMENSION))).astype(dtype),
        "weights": (0.1 * rng.standard_normal((factors, DIMENSION))).astype(dtype),
    }


def _kernel(problem, learning_rate=1e-2, noise_std=0.0, first=1, steps=slice(None), second_moment=None):
    weights = problem["weights"].copy()
    moment = np.zeros_like(weights) if second_moment is None else second_moment
    batches = np.ascontiguousarray(problem["batches"][steps])
    counts = np.arange(first, first + len(batches))
    corrections = ((1 - BETA2**counts) ** -0.5).astype(weights.dtype)
    train(
        problem["x"], problem["y"], batches, problem["noise"][steps], noise_std, problem["bias"],
        learning_rate, BETA2, EPSILON, corrections, weights, moment,
    )  # fmt: skip
    return weights


def _torch(problem, learning_rate=1e-2, noise_std=0.0):
    """The same training, as a PyTorch user would write it."""
    torch = pytest.importorskip("torch")
    x, y, bias = (torch.from_numpy(problem[name]) for name in ("x", "y", "bias"))
    noise = torch.from_numpy(problem["noise"]).to(x.dtype)
    weights = torch.from_numpy(problem["weights"].copy()).requires_grad_()
    optimizer = torch.optim.Adam([weights], lr=learning_rate, betas=(0.0, BETA2), eps=EPSILON)
    for step, batch in enumerate(torch.from_numpy(problem["batches"]).long()):
        optimizer.zero_grad()
        loss = ((x[batch] @ (weights + bias).prod(dim=0) - y[batch]) ** 2).mean()
        loss.backward()
        if noise_std > 0:
            weights.grad += noise_std * noise[step, : len(weights)]
        optimizer.step()
    return weights.detach().numpy()


# At λ = 1e-2 trainings are chaotic: the last bit grows to 1e-4 within 1000 steps, whoever computes it.
@pytest.mark.parametrize(("learning_rate", "steps"), [(1e-3, STEPS), (1e-2, 211)])
@pytest.mark.parametrize(
    ("factors", "noise_std", "biased", "batch_size"),
    [(1, 0.0, False, 16), (2, 0.0, False, 16), (2, 0.01, False, 16), (2, 0.0, True, 16), (2, 0.0, True, 7)],
)
def test_kernel_equals_torch_adam_in_double_precision(factors, noise_std, biased, batch_size, learning_rate, steps):
    problem = _problem(factors, batch_size=batch_size, steps=steps)
    if not biased:
        problem["bias"][:] = 0
    ours, theirs = (train_with(problem, learning_rate, noise_std) for train_with in (_kernel, _torch))
    assert np.abs(ours - problem["weights"]).max() > 0.05
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)


def test_splitting_a_training_changes_no_bit_when_adam_keeps_its_state():
    problem, cut = _problem(2), 337
    moment = np.zeros((2, DIMENSION))
    half = problem | {"weights": _kernel(problem, steps=slice(cut), second_moment=moment)}
    resumed = _kernel(half, first=cut + 1, steps=slice(cut, None), second_moment=moment)
    np.testing.assert_array_equal(resumed, _kernel(problem))


def test_collapsed_weights_freeze_where_torch_freezes_them():
    """In float32 learning_rate * gradient rounds to 0 for weights of 1e-43, so they stay, although ε is larger."""
    problem = _problem(2, dtype="float32", steps=50)
    problem["bias"][:] = 0
    tiny = slice(0, 40)
    problem["weights"][:, tiny] = np.float32(1e-43)
    ours, theirs = _kernel(problem), _torch(problem)
    np.testing.assert_array_equal(ours[:, tiny], problem["weights"][:, tiny])
    np.testing.assert_array_equal(theirs[:, tiny], problem["weights"][:, tiny])
    double = problem | {name: problem[name].astype(float) for name in ("x", "y", "bias", "weights")}
    assert (np.abs(_kernel(double)[:, tiny]) > 1e-20).all()


def test_both_factors_at_zero_are_absorbing_unless_noise_is_injected():
    problem = _problem(2)
    problem["bias"][:] = 0
    problem["weights"][:, ::3] = 0
    assert not _kernel(problem)[:, ::3].any()
    assert _kernel(problem, noise_std=0.01)[:, ::3].all()


def test_a_fixed_bias_only_moves_the_mirror():
    """(w + β)(u + β') trains like w u from a start moved by the bias: the symmetry is about -β instead of 0."""
    problem = _problem(2)
    moved = problem | {"weights": problem["weights"] + problem["bias"], "bias": np.zeros_like(problem["bias"])}
    np.testing.assert_allclose(_kernel(problem, 1e-3) + problem["bias"], _kernel(moved, 1e-3), rtol=0, atol=1e-10)


@pytest.mark.parametrize("factors", [1, 2])
def test_gradients_equal_autograd_on_every_point(factors):
    torch = pytest.importorskip("torch")
    problem = _problem(factors)
    weights = torch.from_numpy(problem["weights"]).requires_grad_()
    errors = torch.from_numpy(problem["x"]) @ weights.prod(dim=0) - torch.from_numpy(problem["y"])
    each = np.stack([torch.autograd.grad(e**2, weights, retain_graph=True)[0].numpy().ravel() for e in errors])
    largest, full, loss = gradients(problem["weights"], problem["x"], problem["y"])
    np.testing.assert_allclose(largest, np.abs(each).max(axis=0), rtol=1e-12)
    np.testing.assert_allclose(full, np.abs(each.mean(axis=0)), rtol=1e-9, atol=1e-15)
    assert loss == pytest.approx((errors**2).mean().item())


GRID = {
    "variant": list(VARIANTS),
    "precision": ["float32", "float64"],
    "adam_state": ["reset", "kept"],
    "noise_std": [0.1, 1.0],
    "learning_rate": [1e-3, 1e-2],
}
SMALL = PlasticitySettings(tasks=3, steps=41, dimension=10, points=12)


@pytest.fixture(scope="module")
def whole():
    return EXPERIMENT.run(SMALL, GRID, 3, Context())


def test_result_follows_the_contract(whole):
    over = [axis.name for axis in EXPERIMENT.axes] + ["seed"]
    for name, variable in EXPERIMENT.variables.items():
        assert whole[name].dims == (*over, *variable.dims)
        assert whole[name].dtype == float
    assert whole["status"].dims == tuple(over)
    assert (whole["status"] == FINISHED).all()
    assert whole["task"].values.tolist() == [0, 1, 2, 3]
    plain = whole.sel(variant="vanilla")["gradient_max"]
    assert plain[..., :10].notnull().all()
    assert plain[..., 10:].isnull().all()
    assert whole.sel(variant="rescaled")["gradient_max"].notnull().all()


def test_numbers_do_not_depend_on_how_the_sweep_is_cut(whole):
    for point in itertools.product(*GRID.values()):
        at = dict(zip(GRID, point, strict=True))
        if at["noise_std"] == 0.1 and at["learning_rate"] == 1e-2:
            single = EXPERIMENT.run(SMALL, {name: [value] for name, value in at.items()}, 3, Context())
            same = whole.sel({name: [value] for name, value in at.items()})
            assert single.identical(same.drop_attrs()), at


def test_tasks_continue_from_the_last_weights_and_state(whole):
    """On each task, torch.optim.Adam, made anew or kept, gives the losses that the experiment stores."""
    torch = pytest.importorskip("torch")
    from reproduction.streams import stream

    def drawn(purpose):
        return stream("plasticity", 3, purpose)

    x_stream, noise_stream, batch_stream = drawn("x"), drawn("noise"), drawn("batches")
    tasks = [
        (
            x_stream.standard_normal((12, 10)),
            noise_stream.standard_normal(12),
            batch_stream.integers(12, size=(41, 16), dtype=np.int32),
        )
        for _ in range(3)
    ]
    for state in ("reset", "kept"):
        weights = torch.from_numpy(0.1 * drawn("initial").standard_normal((2, 10))).requires_grad_()
        for number, (x, unit, batches) in enumerate(tasks):
            if number == 0 or state == "reset":
                optimizer = torch.optim.Adam([weights], lr=1e-2, betas=(0.0, BETA2), eps=EPSILON)
            inputs, targets = torch.from_numpy(x), torch.from_numpy(x.mean(axis=1) + 0.1 * unit)
            for batch in torch.from_numpy(batches).long():
                optimizer.zero_grad()
                ((inputs[batch] @ weights.prod(dim=0) - targets[batch]) ** 2).mean().backward()
                optimizer.step()
            loss = ((inputs @ weights.prod(dim=0) - targets) ** 2).mean().item()
            ours = whole["train_loss"].sel(
                variant="rescaled", precision="float64", adam_state=state, noise_std=0.1, learning_rate=1e-2, seed=3
            )
            assert float(ours.sel(task=number + 1)) == pytest.approx(loss, rel=1e-10)


def test_dead_parameters_counts_gradients_below_the_threshold():
    settings = SMALL.model_copy(update={"dead_threshold": 0.5})
    grid = {name: values[:1] for name, values in GRID.items()} | {"variant": ["rescaled"]}
    result = EXPERIMENT.run(settings, grid, 0, Context())
    expected = (result["gradient_max"] < 0.5).sum("parameter")
    assert 0 < int(expected.sum()) < result["gradient_max"].size
    np.testing.assert_array_equal(result["dead_parameters"], expected)


def test_a_run_that_diverges_is_recorded_without_warnings():
    grid = {name: values[:1] for name, values in GRID.items()} | {
        "variant": ["rescaled"],
        "precision": ["float32", "float64"],
        "learning_rate": [1e-2, 1e200],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = EXPERIMENT.run(SMALL, grid, 0, Context())
    diverged = result.sel(learning_rate=1e200)
    assert (diverged["status"] == DIVERGED).all()
    for name in EXPERIMENT.variables:
        assert diverged[name].isnull().all()
    assert (result.sel(learning_rate=1e-2)["status"] == FINISHED).all()
