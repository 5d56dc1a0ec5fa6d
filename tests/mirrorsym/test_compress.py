"""Compression: networks with a planted structure of known size are cut to exactly it, and compute the same."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import mirrorsym
from benchmarks.zoo.models import SMALL
from mirrorsym.compression import Compression

EXACT = 1e-10


@pytest.fixture(autouse=True)
def in_double() -> Iterator[None]:
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.double)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(default)


def compressed(model: nn.Module, batch: Tensor, far: float = 5.0) -> tuple[nn.Module, Compression]:
    """Compress a model, and ask what holds of all that is compressed."""
    before = copy.deepcopy(model.state_dict())
    small, report = mirrorsym.compress(model, batch)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), "the model was changed"
    assert small.training == model.training
    once, twice = copy.deepcopy(model).eval(), copy.deepcopy(small).eval()
    held_out = far * torch.randn(16, *batch.shape[1:]) if batch.is_floating_point() else batch.flip(0)
    with torch.no_grad():
        assert (once(held_out) - twice(held_out)).abs().max() < EXACT * once(held_out).abs().max()
    copy.deepcopy(twice).load_state_dict(small.state_dict())
    for module in small.modules():  # what a module says of itself is what it is
        if isinstance(module, nn.Linear):
            assert module.weight.shape == (module.out_features, module.in_features)
        if isinstance(module, nn.Conv2d):
            shape = (module.out_channels, module.in_channels // module.groups)
            assert module.weight.shape[:2] == shape
        if isinstance(module, nn.BatchNorm2d):
            assert len(module.weight) == len(module.running_mean) == module.num_features  # type: ignore[arg-type]
    numbers = [sum(p.numel() for p in m.parameters()) for m in (model, small)]
    assert report.parameters[1] == numbers[1]
    assert report.parameters[0] == numbers[0] or any(parametrize.is_parametrized(m) for m in model.modules())
    assert report.found <= EXACT
    assert report.held_out <= EXACT
    return small, report


def cut(report: Compression, where: str) -> tuple[int, int, int, int, int]:
    """Return the numbers of one line: before, after, zero, constant, copies."""
    (found,) = [c for c in report.cuts if c.where == where]
    return found.before, found.after, found.zero, found.constant, found.copies


def rows(layer: nn.Linear | nn.Conv2d) -> Tensor:
    """Return the weights of a layer's units with their biases, to be written into, shape (units, weights)."""
    return layer.weight.data


@pytest.mark.parametrize(
    ("activation", "factors"),
    [(nn.ReLU(), (2.0, 0.5)), (nn.Tanh(), (-1.0, 1.0)), (nn.GELU(), (1.0, 1.0)), (nn.Sigmoid(), (1.0, 1.0))],
)
def test_zero_constant_and_copied_neurons_go(activation: nn.Module, factors: tuple[float, float]) -> None:
    model = nn.Sequential(nn.Linear(5, 16), activation, nn.Linear(16, 3))
    first = model[0]
    with torch.no_grad():
        first.weight[:5] = 0
        if not isinstance(activation, nn.Sigmoid):
            first.bias[:2] = 0
        for unit, factor in zip((10, 12), factors, strict=True):
            first.weight[unit], first.bias[unit] = factor * first.weight[11], factor * first.bias[11]
        model[2].weight[:, 15] = 0
    small, report = compressed(model, torch.randn(32, 5))
    zero = {"Sigmoid": 1}.get(
        type(activation).__name__, 3 + int((first.bias[2:5] < 0).sum() if isinstance(activation, nn.ReLU) else 0)
    )
    assert cut(report, "0, 2") == (16, 8, zero, 6 - zero, 2)
    assert small[0].out_features == 8


@pytest.mark.parametrize(
    ("activation", "factor"), [(nn.ReLU(), -1.0), (nn.Tanh(), 2.0), (nn.GELU(), 2.0), (nn.GELU(), -1.0)]
)
def test_what_is_no_copy_as_a_function_stays(activation: nn.Module, factor: float) -> None:
    model = nn.Sequential(nn.Linear(5, 8), activation, nn.Linear(8, 3))
    with torch.no_grad():
        model[0].weight[1], model[0].bias[1] = factor * model[0].weight[0], factor * model[0].bias[0]
    small, report = compressed(model, torch.randn(32, 5))
    assert not report.cuts
    assert "Nothing was cut" in str(report)
    assert small.state_dict().keys() == model.state_dict().keys()


def test_a_neuron_that_is_dead_on_the_batch_alone_stays() -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        model[0].bias[2] = -4 * model[0].weight[2].abs().sum()
    batch = torch.rand(32, 5)
    assert not model[:2](batch)[:, 2].any()
    assert not compressed(model, batch, far=20.0)[1].cuts


class Residual(nn.Module):
    """A residual network with BatchNorm, as ResNets are."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.inner, self.inner_norm = nn.Conv2d(width, 10, 3, padding=1, bias=False), nn.BatchNorm2d(10)
        self.outer, self.outer_norm = nn.Conv2d(10, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.read = nn.Linear(width, 4)
        for norm in (self.norm, self.inner_norm, self.outer_norm):
            for tensor in (norm.weight, norm.bias, norm.running_mean):
                nn.init.normal_(tensor)  # type: ignore[arg-type]
            nn.init.uniform_(norm.running_var, 0.5, 2)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        y = torch.relu(self.inner_norm(self.inner(x)))
        x = torch.relu(x + self.outer_norm(self.outer(y)))
        read: Tensor = self.read(x.mean((2, 3)))
        return read


def test_channels_are_judged_behind_their_batch_norm() -> None:
    model = Residual()
    with torch.no_grad():
        # Its slope is zero, whatever its weights are: two channels are constants, of which padding lets one stay.
        model.inner_norm.weight[:3] = 0
        model.inner_norm.bias[:3] = torch.tensor([1.0, 2.0, -1.0])
        # A copy by its function, with other weights and statistics.
        model.inner.weight[5] = 3 * model.inner.weight[4]
        model.inner_norm.running_mean[5] = 3 * model.inner_norm.running_mean[4]  # type: ignore[index]
        model.inner_norm.running_var[5] = 9 * (model.inner_norm.running_var[4] + 1e-5) - 1e-5  # type: ignore[index]
        model.inner_norm.weight[5] = 2 * model.inner_norm.weight[4]
        model.inner_norm.bias[5] = 2 * model.inner_norm.bias[4]
    small, report = compressed(model, torch.randn(8, 3, 6, 6), far=2.0)
    assert cut(report, "inner, inner_norm, outer") == (10, 7, 1, 0, 2)
    assert small.inner_norm.num_features == 7


def test_a_channel_of_the_stream_goes_from_all_that_write_and_read_it() -> None:
    model = Residual()
    with torch.no_grad():
        for norm in (model.norm, model.outer_norm):
            norm.weight[2] = norm.bias[2] = 0
    small, report = compressed(model, torch.randn(8, 3, 6, 6), far=2.0)
    (line,) = report.cuts
    assert (line.before, line.after, line.zero) == (6, 5, 1)
    assert small.stem.out_channels == small.outer.out_channels == small.inner.in_channels == 5


def test_constants_fold_into_a_bias_where_no_zeros_are_padded() -> None:
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3, bias=False), nn.Flatten(), nn.Linear(64, 2))
    with torch.no_grad():
        model[0].weight[1:4] = 0
        model[0].bias[1:4] = 1.0
    small, report = compressed(model, torch.randn(4, 2, 8, 8))
    assert cut(report, "0, 2") == (6, 3, 0, 3, 0)
    assert small[2].bias.shape == (4,)


def test_whole_groups_and_depthwise_channels_go() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 8, 1, groups=4), nn.ReLU(),
        nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 4, 3),
    )  # fmt: skip
    with torch.no_grad():
        for index in (0, 2, 4, 6, 8):
            model[index].bias.abs_()
        model[4].weight[2:4] = model[4].bias[2:4] = 0
        model[8].weight[1] = model[8].bias[1] = 0
    small, report = compressed(model, torch.randn(8, 3, 8, 8))
    assert (small[0].out_channels, small[2].groups, small[4].groups, small[6].in_channels) == (6, 6, 3, 6)
    assert (small[6].out_channels, small[8].groups, small[11].in_features) == (5, 5, 20)
    assert {c.what for c in report.cuts} == {"groups", "units"}


@pytest.mark.parametrize("side", [0, 1])
def test_factored_layers_become_factors_of_their_rank(side: int) -> None:
    model = nn.Sequential(nn.Linear(9, 6), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        low = torch.randn(6, 2) @ torch.randn(2, 6)
        if side:
            model[1].weight.copy_(model[1].weight @ low)
        else:
            model[0].weight.copy_(low @ model[0].weight)
            model[0].bias.copy_(low @ model[0].bias)
    small, report = compressed(model, torch.randn(16, 9))
    assert cut(report, "0, 1")[:2] == (6, 2)
    assert (small[0].out_features, small[1].in_features) == (2, 2)


class Layer(nn.Module):
    """A transformer's layer with attention of its own."""

    def __init__(self, norm: Callable[[int], nn.Module], width: int = 8, heads: int = 4, size: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = norm(width), norm(width)
        self.q, self.k, self.v = (nn.Linear(width, heads * size) for _ in range(3))
        self.out = nn.Linear(heads * size, width)
        self.up, self.gate, self.down = nn.Linear(width, 12), nn.Linear(width, 12), nn.Linear(12, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_1(x)
        q, k, v = (part(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        y = self.norm_2(x)
        out: Tensor = x + self.down(nn.functional.silu(self.gate(y)) * self.up(y))
        return out


def transformer(norm: Callable[[int], nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), Layer(norm), Layer(norm), norm(8), nn.Linear(8, 3))


def test_heads_and_their_ranks_and_gated_units_go() -> None:
    model = transformer(nn.LayerNorm)
    with torch.no_grad():
        first, second = model[1], model[2]
        first.v.weight[:4] = first.v.bias[:4] = 0  # a head without values
        for part in (first.q, first.k, first.v):  # and one that is another's copy
            part.weight[8:12], part.bias[8:12] = part.weight[12:16], part.bias[12:16]
        for head in range(4):  # keys and queries of rank 3, values of rank 2
            row = 4 * head
            second.k.weight[row], second.k.bias[row] = second.k.weight[row + 1], second.k.bias[row + 1]
            second.out.weight[:, row] = second.out.weight[:, row + 2] = 0
        second.up.weight[3] = second.up.bias[3] = 0
        second.up.weight[5], second.up.bias[5] = -2 * second.up.weight[4], -2 * second.up.bias[4]
        second.gate.weight[5], second.gate.bias[5] = second.gate.weight[4], second.gate.bias[4]
    small, report = compressed(model, torch.randn(8, 6, 5))
    assert (small[1].heads, small[1].q.out_features, small[1].out.in_features) == (2, 8, 8)
    assert (small[2].heads, small[2].k.out_features, small[2].v.out_features) == (4, 12, 8)
    (gated,) = [c for c in report.cuts if "2.gate" in c.where]
    assert (gated.before, gated.after, gated.zero, gated.constant, gated.copies) == (12, 10, 1, 0, 1)
    assert any("mean over the units" in kept.why for kept in report.kept)


def test_keys_and_values_in_one_parameter_become_of_one_size() -> None:
    class Fused(nn.Module):
        def __init__(self, width: int = 8, heads: int = 2) -> None:
            super().__init__()
            self.heads = heads
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, 3)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            out: Tensor = self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
            return out

    model = Fused()
    with torch.no_grad():
        rows = model.qkv.weight.unflatten(0, (3, 2, 4))
        rows[1, :, 2:] = rows[1, :, :2]  # keys of rank 2, values of rank 3
        model.qkv.bias.unflatten(0, (3, 2, 4))[1, :, 2:] = model.qkv.bias.unflatten(0, (3, 2, 4))[1, :, :2]
        model.out.weight.unflatten(1, (2, 4))[:, :, 1] = 0
    small, report = compressed(model, torch.randn(8, 6, 8))
    assert (small.qkv.out_features, small.out.in_features) == (18, 6)
    assert [(c.what, c.before, c.after) for c in report.cuts] == [("rank", 4, 3)]


def test_multihead_attention_is_replaced_where_it_cannot_hold_fewer_heads() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1, batch_first=True, norm_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    with torch.no_grad():
        attention = model.layers[0].self_attn
        attention.in_proj_weight[16:20] = attention.in_proj_bias[16:20] = 0
    small, report = compressed(model, torch.randn(8, 6, 8))
    assert [c.what for c in report.cuts] == ["heads"]
    assert small.layers[0].self_attn.num_heads == 1
    assert isinstance(small.layers[1].self_attn, nn.MultiheadAttention)
    mask = torch.ones(6, 6, dtype=torch.bool).triu(1)
    padding = torch.arange(6).expand(8, 6) > torch.arange(8)[:, None]
    x = torch.randn(8, 6, 8)
    for masks in ({"mask": mask}, {"src_key_padding_mask": padding}, {"mask": mask, "src_key_padding_mask": padding}):
        with torch.no_grad():
            assert (model.eval()(x, **masks) - small.eval()(x, **masks)).abs().max() < EXACT
    with torch.no_grad():
        for average in (True, False):
            y, seen = small.layers[0].self_attn(x, x, x, average_attn_weights=average)
            want, wanted = attention.eval()(x, x, x, average_attn_weights=average)
            assert (y - want).abs().max() < EXACT
            if not average:
                assert (seen - wanted[:, 1:]).abs().max() < EXACT


def test_a_stream_with_rms_norms_is_cut_with_their_gains_and_eps() -> None:
    model = transformer(lambda width: nn.RMSNorm(width, eps=0.1))
    with torch.no_grad():
        for norm in (m for m in model.modules() if isinstance(m, nn.RMSNorm)):
            norm.weight.normal_()
        for layer in (model[0], *(part for i in (1, 2) for part in (model[i].out, model[i].down))):
            layer.weight[3:5] = layer.bias[3:5] = 0
        model[3].weight[7] = 0  # a gain of zero hides what the norm still takes the mean of
    small, report = compressed(model, torch.randn(8, 6, 5))
    (line,) = report.cuts
    assert (line.before, line.after, line.zero) == (8, 6, 2)
    assert small[3].normalized_shape == (6,)


@pytest.mark.parametrize(
    ("name", "cuts"),
    [("u-net", 3), ("dcgan generator", 2), ("einsum attention", 1), ("rms stream", 1), ("minimal gpt", 2)],
)
def test_on_the_mirror_of_each_exchange_one_unit_goes(name: str, cuts: int) -> None:
    model, (batch,), _ = SMALL[name].make()
    model = model.double()
    batch = batch.double() if batch.is_floating_point() else batch
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    for symmetry in mirrorsym.find_symmetries(model, batch).of_kind("permutation"):
        for slot in symmetry.slots:
            block = slot.take(tensors[slot.name].data, symmetry.units)
            block[:2] = block[:2].mean(0)
            tensors[slot.name].data.copy_(slot.put(tensors[slot.name].data, block))
    _, report = compressed(model, batch)
    assert [(c.before - c.after, c.copies) for c in report.cuts] == [(1, 1)] * cuts
    assert all(kept.why for kept in report.kept)


def test_what_is_tied_is_cut_where_it_is_zero() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.read = nn.Embedding(7, 6), nn.Linear(6, 7)
            self.read.weight = self.embed.weight

        def forward(self, words: Tensor) -> Tensor:
            logits: Tensor = self.read(nn.functional.gelu(self.embed(words)))
            return logits

    model = Tied()
    with torch.no_grad():
        model.embed.weight[:, 2] = 0
        model.embed.weight[:, 3] = model.embed.weight[:, 4]
    small, report = compressed(model, torch.randint(7, (16, 4)))
    assert small.read.weight is small.embed.weight
    assert (small.embed.embedding_dim, small.read.in_features) == (5, 5)
    (line,) = report.cuts
    assert line.zero == 1


def test_a_constrained_network_is_cut_by_what_it_computes() -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    mirrorsym.constrain_all(model)
    with torch.no_grad():
        for name in ("weight", "bias"):
            for factor in model[0].parametrizations[name].parameters():
                factor[1:4] = 0
    small, report = compressed(model, torch.randn(16, 5))
    assert cut(report, "0, 2") == (8, 5, 3, 0, 0)
    assert list(small.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_what_cannot_be_cut_is_said() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.read = nn.GRU(4, 6, batch_first=True), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            read: Tensor = self.read(self.cell(x)[0])
            return read

    model = Recurrent()
    with torch.no_grad():
        for tensor in model.cell.parameters():
            tensor.unflatten(0, (3, 6))[:, 2] = 0
    small, report = compressed(model, torch.randn(4, 5, 4))
    assert not report.cuts
    assert "the gates of GRU are not cut" in str(report)
    assert small.cell.hidden_size == 6


def test_streams_with_group_norm_are_not_cut_and_that_is_said() -> None:
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.GroupNorm(2, 6), nn.ReLU(), nn.Conv2d(6, 2, 3))
    with torch.no_grad():
        for tensor in (model[0].weight, model[0].bias, model[1].weight, model[1].bias):
            tensor[1] = 0
    _, report = compressed(model, torch.randn(4, 2, 8, 8))
    assert not report.cuts
    assert "GroupNorm takes the mean over the units" in str(report)


def test_a_stream_under_rotations_is_not_cut_and_that_is_said() -> None:
    model = nn.Sequential(nn.Linear(3, 6), nn.RMSNorm(6, elementwise_affine=False), nn.Linear(6, 2))
    with torch.no_grad():
        model[0].weight[:2] = model[0].weight[2:4]
        model[0].bias[:2] = model[0].bias[2:4]
        model[2].weight[:, :2] = model[2].weight[:, 2:4]
    _, report = compressed(model, torch.randn(8, 3))
    assert not report.cuts
    assert any("directions of a stream are not cut" in kept.why for kept in report.kept)


def test_a_cut_that_changes_the_outputs_is_undone() -> None:
    class Mean(nn.Module):
        """Counts its units."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.read = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.tanh(self.first(x))
            read: Tensor = self.read(h) + h.mean(-1, keepdim=True) + 10 * h.shape[-1]
            return read

    model = Mean()
    with torch.no_grad():
        model.first.weight[1] = model.first.bias[1] = 0
    _, report = compressed(model, torch.randn(16, 4))
    assert not report.cuts
    assert any("change the outputs" in kept.why for kept in report.kept)


def test_the_error_stays_within_the_tolerance_where_units_are_nearly_copies() -> None:
    model = nn.Sequential(nn.Linear(5, 64), nn.ReLU(), nn.Linear(64, 3))
    with torch.no_grad():
        model[0].weight[32:] = model[0].weight[:32] + 1e-4 * torch.logspace(-2, 2, 32)[:, None] * torch.randn(32, 5)
        model[0].bias[32:] = model[0].bias[:32]
    for tolerance in (1e-2, 1e-3, 1e-7):
        small, report = mirrorsym.compress(model, torch.randn(32, 5), tolerance)
        x = torch.randn(1000, 5)
        change = (small(x) - model(x)).abs().max() / model(x).square().mean().sqrt()
        assert report.found <= tolerance
        assert change < 2 * tolerance
        assert report.promised <= tolerance
        assert bool(report.cuts) == (tolerance > 1e-7)


def test_what_is_small_is_exported() -> None:
    model = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=True).eval()
    with torch.no_grad():
        model.self_attn.in_proj_weight[16:20] = model.self_attn.in_proj_bias[16:20] = 0
        model.linear1.weight[1:4] = model.linear1.bias[1:4] = 0
    small, report = compressed(model, torch.randn(8, 6, 8))
    assert [c.what for c in report.cuts] == ["heads", "units"]
    exported = torch.export.export(small, (torch.randn(2, 6, 8),))
    x = torch.randn(2, 6, 8)
    assert (exported.module()(x) - small(x)).abs().max() < EXACT


def test_the_batch_is_taken_by_place_and_by_name() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.read = nn.Linear(3, 6), nn.Linear(2, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            return {"logits": self.read(torch.tanh(self.a(x) + self.b(y)))}

    model = Two()
    with torch.no_grad():
        model.a.weight[0] = model.b.weight[0] = 0
    x, y = torch.randn(8, 3), torch.randn(8, 2)
    for batch in ((x, y), {"x": x, "y": y}):
        small, report = mirrorsym.compress(model, batch)
        assert small.read.in_features == 5
        assert report.cuts[0].constant == 1


def test_a_tolerance_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="tolerance is 0; it has to be a positive number"):
        mirrorsym.compress(nn.Linear(2, 2), torch.randn(4, 2), tolerance=0)


@pytest.mark.parametrize("wrap", [lambda model: torch.compile(model, backend="eager"), nn.DataParallel])
def test_what_is_wrapped_is_cut_inside_of_its_wrapper(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    with torch.no_grad():
        model[2].weight[:, 1] = 0
    x = torch.randn(12, 4)
    small, report = mirrorsym.compress(wrap(model), x)
    assert type(small) is nn.Sequential
    assert [cut.zero for cut in report.cuts] == [1]
    torch.testing.assert_close(small(x), model(x))


def test_a_model_of_parameters_without_layers_is_left_whole() -> None:
    class Products(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(6, 2))

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x @ self.a) @ self.b

    _, report = mirrorsym.compress(Products(), torch.randn(12, 4))
    assert not report.cuts
    assert "no module that is known reads these units" in {kept.why for kept in report.kept}


def test_what_constraints_tie_stays_tied() -> None:
    model = nn.Module()
    model.embed, model.read = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
    model.read.weight = model.embed.weight
    with torch.no_grad():
        model.embed.weight[:, 0] = 0
    network = nn.Sequential(model.embed, nn.Tanh(), model.read)
    small, _ = mirrorsym.compress(mirrorsym.constrain_all(network), torch.randint(7, (5, 3)))
    assert small[0].weight is small[2].weight
    assert small[0].weight.shape == (7, 3)


class Experts(nn.Module):
    """Each sample goes to one expert; those to which none goes are called on nothing, or not at all."""

    def __init__(self, called: bool) -> None:
        super().__init__()
        self.called = called
        self.write, self.route, self.read = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 2)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 6)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.write(x))
        chosen = self.route(x).argmax(-1)
        y = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            rows = (chosen == index).nonzero()[:, 0]
            if index == 2 and not self.called:
                rows = rows[:0]
            if self.called or len(rows):
                y = y.index_add(0, rows, expert(x[rows]))
        return self.read(x + y)


@pytest.mark.parametrize("called", [True, False])
def test_an_expert_to_which_nothing_is_sent_stays_as_it_is_and_that_is_said(called: bool) -> None:
    torch.manual_seed(0)
    model = Experts(called).double()
    x = torch.randn(32, 4).double()
    with torch.no_grad():
        model.route.bias[2] = -1e3
        model.write.weight[0] = model.write.bias[0] = 0  # a zero unit of the stream, which the third expert reads too
        for expert in model.experts:
            expert[2].weight[0] = expert[2].bias[0] = 0
            expert[0].weight[1], expert[0].bias[1] = expert[0].weight[0], expert[0].bias[0]
    small, report = mirrorsym.compress(model, x)
    assert [(cut.where, cut.after) for cut in report.cuts] == [
        ("experts.0.0, experts.0.2", 4),
        ("experts.1.0, experts.1.2", 4),
    ]
    assert "did not run on the batch" in {kept.where: kept.why for kept in report.kept}[model_stream(report)]
    assert any(kept.where.startswith("experts.2") and "did not run" in kept.why for kept in report.kept)
    with torch.no_grad():
        model.route.bias[2] = small.route.bias[2] = 0  # now it has work
        assert (small(x) - model(x)).abs().max() < 1e-6


def model_stream(report: mirrorsym.Compression) -> str:
    """Return where the stream was kept."""
    return next(kept.where for kept in report.kept if kept.where.startswith("write"))
