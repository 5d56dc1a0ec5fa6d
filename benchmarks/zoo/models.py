"""The zoo: networks of torchvision, transformers and timm, and some by hand, each small and at random parameters.

All are made from configurations, never from a hub. ``SMALL`` are those whose symmetries are checked one by one,
``FULL`` are networks at the sizes that people train, which are timed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@dataclass(frozen=True)
class Entry:
    """A network of the zoo.

    Args:
        name: how the table calls it.
        package: what it is made with; "" for one that is written here.
        build: makes it.
        inputs: makes what its forward takes, a batch.
        keywords: makes what its forward takes by name.
    """

    name: str
    package: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Any, ...]]
    keywords: Callable[[], Mapping[str, Any]] = field(default=dict)

    def make(self) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
        """Return the network in evaluation mode and a batch for it, the same ones each time."""
        torch.manual_seed(0)
        model = self.build().eval()
        torch.manual_seed(1)
        return model, self.inputs(), dict(self.keywords())


def pictures(size: int, samples: int = 4, channels: int = 3) -> Callable[[], tuple[Tensor]]:
    return lambda: (torch.randn(samples, channels, size, size),)


def sequences(*shape: int) -> Callable[[], tuple[Tensor]]:
    return lambda: (torch.randn(*shape),)


def tokens(vocabulary: int = 50, length: int = 7, samples: int = 3) -> Callable[[], tuple[Tensor]]:
    return lambda: (torch.randint(3, vocabulary, (samples, length)),)


# --- torchvision ---


def _torchvision(name: str, size: int, label: str = "", samples: int = 4, **options: Any) -> Entry:
    def build() -> nn.Module:
        import torchvision

        # The constructors' initial values take seconds, and the zoo gives the networks values of its own.
        return getattr(torchvision.models, name)(weights=None, **{"num_classes": 10, **options})

    return Entry(label or name, "torchvision", build, pictures(size, samples))


def _narrow(family: str, cls: str, size: int, name: str, *args: Any, **options: Any) -> Entry:
    def build() -> nn.Module:
        import importlib

        return getattr(importlib.import_module(f"torchvision.models.{family}"), cls)(*args, **options)

    return Entry(name, "torchvision", build, pictures(size))


def _resnet(block: str, layers: Sequence[int], name: str, **options: Any) -> Entry:
    def build() -> nn.Module:
        from torchvision.models import resnet

        return resnet.ResNet(getattr(resnet, block), list(layers), num_classes=10, **options)

    return Entry(name, "torchvision", build, pictures(32))


def _alexnet() -> nn.Module:
    from torchvision.models import AlexNet

    network = AlexNet(num_classes=10)
    network.classifier = nn.Sequential(nn.Dropout(), nn.Linear(256 * 36, 20), nn.ReLU(), nn.Linear(20, 10))
    return network


def _convnext() -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    sizes = [CNBlockConfig(12, 24, 1), CNBlockConfig(24, 36, 2), CNBlockConfig(36, None, 1)]
    return ConvNeXt(sizes, layer_scale=1.0, num_classes=10)


def _vgg() -> nn.Module:
    from torchvision.models.vgg import VGG, make_layers

    network = VGG(make_layers([8, "M", 12, 16, "M"], batch_norm=True), num_classes=10, init_weights=False)
    network.classifier = nn.Sequential(nn.Linear(16 * 49, 20), nn.ReLU(), nn.Dropout(), nn.Linear(20, 10))
    return network


def _narrow_resnet18() -> nn.Module:
    """Return torchvision's ResNet18 with an eighth of the channels, which its class cannot have."""
    from torchvision.models import ResNet
    from torchvision.models.resnet import BasicBlock

    network = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=10)
    network.inplanes = 8
    network.conv1, network.bn1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8)
    network.layer1 = network._make_layer(BasicBlock, 8, 2)
    network.layer2 = network._make_layer(BasicBlock, 16, 2, stride=2)
    network.layer3 = network._make_layer(BasicBlock, 32, 2, stride=2)
    network.layer4 = network._make_layer(BasicBlock, 64, 2, stride=2)
    network.fc = nn.Linear(64, 10)
    return network


def _regnet() -> nn.Module:
    from torchvision.models.regnet import BlockParams, RegNet

    sizes = BlockParams(
        depths=[1, 2], widths=[16, 32], group_widths=[8, 8], bottleneck_multipliers=[1.0, 1.0], strides=[2, 2],
        se_ratio=0.25,
    )  # fmt: skip
    return RegNet(sizes, num_classes=10, stem_width=8)


TORCHVISION = [
    Entry("alexnet", "torchvision", _alexnet, pictures(96, 2)),
    Entry("convnext", "torchvision", _convnext, pictures(32)),
    _narrow("densenet", "DenseNet", 32, "densenet", 8, (2, 3), 12, 2, num_classes=10),
    _torchvision("efficientnet_b0", 64),
    _torchvision("googlenet", 64, aux_logits=False, init_weights=False),
    _torchvision("inception_v3", 96, samples=2, aux_logits=False, init_weights=False),
    _narrow("maxvit", "MaxVit", 64, "maxvit", (64, 64), 8, 4, [16, 16], [1, 1], 8, 0.0, num_classes=10),
    _torchvision("mnasnet0_5", 64),
    _torchvision("mobilenet_v2", 64, "mobilenet_v2 ×0.25", width_mult=0.25),
    _torchvision("mobilenet_v3_small", 64),
    Entry("regnet", "torchvision", _regnet, pictures(32)),
    _torchvision("resnet18", 32),
    Entry("resnet18 ×1/8", "torchvision", _narrow_resnet18, pictures(64)),
    _resnet("Bottleneck", (1, 2, 1, 1), "resnext", groups=4, width_per_group=4),
    _torchvision("shufflenet_v2_x0_5", 64),
    _torchvision("squeezenet1_1", 64),
    _narrow(
        "swin_transformer", "SwinTransformer", 32, "swin (torchvision)", [4, 4], 16, [2, 2], [2, 4], [4, 4],
        num_classes=10,
    ),
    Entry("vgg", "torchvision", _vgg, pictures(32)),
    _narrow("vision_transformer", "VisionTransformer", 32, "vit (torchvision)", 32, 8, 2, 3, 24, 48, num_classes=10),
]  # fmt: skip
"""One of each family of torchvision's classifiers."""


# --- transformers ---

_SMALL = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_DENSE = {**_SMALL, "intermediate_size": 48}
_PICTURE = {**_DENSE, "image_size": 16, "patch_size": 4, "num_labels": 10}


def _transformers(
    name: str,
    model: str,
    config: str,
    inputs: Callable[[], tuple[Any, ...]] | None = None,
    keywords: Callable[[], Mapping[str, Any]] = dict,
    **options: Any,
) -> Entry:
    def build() -> nn.Module:
        import transformers

        made = getattr(transformers, config)(**options)
        made.use_cache = False
        return getattr(transformers, model)(made)

    return Entry(name, "transformers", build, inputs or tokens(), keywords)


def _clip() -> nn.Module:
    import transformers

    text = {**_DENSE, "projection_dim": 16, "eos_token_id": 49, "bos_token_id": 1, "pad_token_id": 0}
    vision = {**_PICTURE, "projection_dim": 16}
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))


def _padded() -> dict[str, Tensor]:
    """Return a batch in which the first text is shorter than the others."""
    mask = torch.ones(3, 7, dtype=torch.long)
    mask[0, 5:] = 0
    return {"input_ids": tokens()()[0], "attention_mask": mask}


def _translation() -> dict[str, Tensor]:
    return {"input_ids": tokens()()[0], "decoder_input_ids": tokens(length=5)()[0]}


TRANSFORMERS = [
    _transformers("bert", "BertForSequenceClassification", "BertConfig", tuple, _padded, **_DENSE),
    _transformers("roberta", "RobertaForMaskedLM", "RobertaConfig", **_DENSE, max_position_embeddings=32),
    _transformers(
        "distilbert", "DistilBertForSequenceClassification", "DistilBertConfig",
        vocab_size=50, dim=32, n_layers=2, n_heads=4, hidden_dim=48,
    ),
    _transformers("albert", "AlbertForMaskedLM", "AlbertConfig", **_DENSE, embedding_size=16),
    _transformers(
        "gpt2", "GPT2LMHeadModel", "GPT2Config", vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=16
    ),
    _transformers("gpt_neox", "GPTNeoXForCausalLM", "GPTNeoXConfig", **_DENSE),
    _transformers(
        "opt", "OPTForCausalLM", "OPTConfig", **_SMALL, ffn_dim=48, word_embed_proj_dim=32, max_position_embeddings=32
    ),
    _transformers("bloom", "BloomForCausalLM", "BloomConfig", vocab_size=50, hidden_size=32, n_layer=2, n_head=4),
    _transformers("phi", "PhiForCausalLM", "PhiConfig", **_DENSE, partial_rotary_factor=0.5),
    _transformers("llama", "LlamaForCausalLM", "LlamaConfig", **_DENSE, num_key_value_heads=2),
    _transformers("llama, one key and value", "LlamaForCausalLM", "LlamaConfig", **_DENSE, num_key_value_heads=1),
    _transformers(
        "mixtral", "MixtralForCausalLM", "MixtralConfig",
        **_DENSE, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2,
    ),
    _transformers("gemma2", "Gemma2ForCausalLM", "Gemma2Config", **_DENSE, num_key_value_heads=2, head_dim=8),
    _transformers("qwen3", "Qwen3ForCausalLM", "Qwen3Config", **_DENSE, num_key_value_heads=2, head_dim=8),
    _transformers(
        "mamba", "MambaForCausalLM", "MambaConfig", vocab_size=50, hidden_size=32, num_hidden_layers=2, state_size=4
    ),
    _transformers(
        "t5", "T5ForConditionalGeneration", "T5Config", tuple, _translation,
        vocab_size=50, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0,
    ),
    _transformers(
        "bart", "BartForConditionalGeneration", "BartConfig", tuple, _translation,
        vocab_size=50, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=32,
    ),
    _transformers("vit", "ViTForImageClassification", "ViTConfig", pictures(16), **_PICTURE),
    _transformers(
        "swin", "SwinForImageClassification", "SwinConfig", pictures(32),
        image_size=32, patch_size=4, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4, num_labels=10,
    ),
    Entry("clip", "transformers", _clip, tuple, lambda: {**_padded(), "pixel_values": pictures(16, 3)()[0]}),
]  # fmt: skip
"""Language and vision models, each with its usual attention (that of PyTorch, where there is one)."""


# --- timm ---


def _timm(name: str, cls: str, size: int, label: str = "", samples: int = 4, **options: Any) -> Entry:
    def build() -> nn.Module:
        import timm

        made = getattr(timm.models, cls)
        return made(num_classes=10, **options)

    return Entry(label or name, "timm", build, pictures(size, samples))


TIMM = [
    _timm("timm vit", "VisionTransformer", 32, img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3),
    _timm("timm mixer", "MlpMixer", 32, img_size=32, patch_size=8, embed_dim=24, num_blocks=2),
    _timm("timm resnetv2", "ResNetV2", 32, layers=(1, 1), channels=(128, 256), stem_chs=32),
    _timm("timm convmixer", "ConvMixer", 32, dim=24, depth=2, kernel_size=3, patch_size=4),
    _timm("timm beit", "Beit", 32, img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, init_values=0.1),
    _timm("timm cait", "Cait", 32, img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3),
]


# --- by hand ---


class UNet(nn.Module):
    """Two levels, with a concatenation on the way up."""

    def __init__(self) -> None:
        super().__init__()
        self.down_1, self.down_2 = self.block(3, 8, 1), self.block(8, 12, 2)
        self.up = nn.ConvTranspose2d(12, 6, 2, stride=2)
        self.merge, self.out = self.block(14, 8, 1), nn.Conv2d(8, 2, 1)

    @staticmethod
    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        fine = self.down_1(x)
        return self.out(self.merge(torch.cat([fine, self.up(self.down_2(fine))], dim=1)))


class Recurrent(nn.Module):
    """An embedding, a recurrent layer, a readout of its last state."""

    def __init__(self, cls: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.recurrent = cls(8, 10, batch_first=True, **options)
        self.read = nn.Linear(10 * (1 + bool(options.get("bidirectional"))), 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.recurrent(self.embed(x))[0][:, -1])


class Block(nn.Module):
    """A transformer's block with one projection for queries, keys and values, split in heads by a view."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.expand, self.contract = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.attend(self.norm_1(x)).split(width, dim=2)
        q, k, v = (part.view(batch, length, self.heads, -1).transpose(1, 2) for part in (q, k, v))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.project(y.transpose(1, 2).contiguous().view(batch, length, width))
        return x + self.contract(functional.gelu(self.expand(self.norm_2(x))))


class MinimalGPT(nn.Module):
    """A small language model whose readout is its embedding."""

    def __init__(self, vocabulary: int = 50, width: int = 24, heads: int = 3, layers: int = 2) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(vocabulary, width), nn.Embedding(16, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.read = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        self.read.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.place(torch.arange(x.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.read(self.norm(x))


class EinsumAttention(nn.Module):
    """Attention whose heads are axes of an einsum, gated, between a readin and a readout."""

    def __init__(self, width: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.heads = heads
        self.read_in, self.read_out = nn.Linear(5, width), nn.Linear(width, 2)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.read_in(x)
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)) for f in (self.q, self.k, self.v))
        weights = torch.einsum("bthd,bshd->bhts", q, k).div(2.0).softmax(-1)
        x = x + self.o(torch.einsum("bhts,bshd->bthd", weights, v).flatten(2))
        return self.read_out(x)


class VariationalAutoencoder(nn.Module):
    """Its encoder's last layer is split in means and logarithms of variances."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(8, 16), nn.Linear(16, 12), nn.Linear(6, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.b(torch.relu(self.a(x))).chunk(2, dim=-1)
        kl = (mean.square() + log_variance.exp() - log_variance - 1).sum(dim=-1) / 2
        return self.d(torch.relu(self.c(mean))), kl


class ThreeFactors(nn.Module):
    """(u ⊙ v ⊙ w)ᵀ x."""

    def __init__(self) -> None:
        super().__init__()
        self.u, self.v, self.w = (nn.Parameter(torch.randn(6)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.u * self.v * self.w)


class RootMeanSquare(nn.Module):
    """A residual stream behind a norm without weights, written by hand: all of the stream can be rotated."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embed, self.read = nn.Embedding(50, width), nn.Linear(width, 50, bias=False)
        self.gate, self.up = nn.Linear(width, 12, bias=False), nn.Linear(width, 12, bias=False)
        self.down = nn.Linear(12, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        x = x + self.down(functional.silu(self.gate(y)) * self.up(y))
        return self.read(x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class Encoder(nn.Module):
    """PyTorch's own transformer encoder between linear layers."""

    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, norm_first=norm_first)
        self.embed, self.read = nn.Linear(5, 16), nn.Linear(16, 3)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.encoder(self.embed(x)).mean(dim=1))


def _generator() -> nn.Module:
    """Return the generator of a DCGAN."""
    return nn.Sequential(
        nn.ConvTranspose2d(6, 12, 4), nn.BatchNorm2d(12), nn.ReLU(),
        nn.ConvTranspose2d(12, 8, 4, 2, 1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip


def _perceptron(activation: type[nn.Module]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        layers = [nn.Linear(5, 8), activation(), nn.Linear(8, 6), activation(), nn.Linear(6, 2)]
        return nn.Sequential(*layers)

    return build


OWN = [
    Entry("tanh perceptron", "", _perceptron(nn.Tanh), sequences(6, 5)),
    Entry("relu perceptron", "", _perceptron(nn.ReLU), sequences(6, 5)),
    Entry("u-net", "", UNet, pictures(16)),
    Entry("dcgan generator", "", _generator, pictures(1, channels=6)),
    Entry("vae", "", VariationalAutoencoder, sequences(6, 8)),
    Entry("u⊙v⊙w", "", ThreeFactors, sequences(8, 6)),
    Entry("lstm", "", lambda: Recurrent(nn.LSTM), tokens()),
    Entry("lstm, two layers, both ways", "", lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True), tokens()),
    Entry("gru", "", lambda: Recurrent(nn.GRU), tokens()),
    Entry("rnn", "", lambda: Recurrent(nn.RNN), tokens()),
    Entry("minimal gpt", "", MinimalGPT, tokens()),
    Entry("einsum attention", "", EinsumAttention, sequences(3, 6, 5)),
    Entry("rms stream", "", RootMeanSquare, tokens()),
    Entry("encoder, norm first", "", lambda: Encoder(True), sequences(3, 6, 5)),
    Entry("encoder, norm last", "", lambda: Encoder(False), sequences(3, 6, 5)),
]

SMALL = {entry.name: entry for entry in [*OWN, *TORCHVISION, *TRANSFORMERS, *TIMM]}
"""The networks whose symmetries are checked."""


# --- at the sizes that people train ---


def _gpt2_full() -> nn.Module:
    import transformers

    return transformers.GPT2LMHeadModel(transformers.GPT2Config(use_cache=False))


def _multilayer(width: int) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        layers: list[nn.Module] = [nn.Linear(32, width), nn.Tanh()]
        for _ in range(8):
            layers += [nn.Linear(width, width), nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(width, 10))

    return build


def _llama(width: int, layers: int) -> Entry:
    sizes = {
        "vocab_size": 4000, "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": width // 64,
        "num_key_value_heads": width // 128, "intermediate_size": 3 * width,
    }  # fmt: skip
    label = f"llama {width}×{layers}"
    return _transformers(label, "LlamaForCausalLM", "LlamaConfig", tokens(4000, 16, 2), **sizes)


FULL = {
    entry.name: entry
    for entry in [
        _torchvision("resnet18", 32, "ResNet18, 32 pixels", 2),
        _torchvision("resnet50", 64, "ResNet50, 64 pixels", 2),
        _torchvision("efficientnet_b0", 64, "EfficientNet-B0, 64 pixels", 2),
        _torchvision("convnext_tiny", 64, "ConvNeXt-Tiny, 64 pixels", 2),
        _torchvision("vit_b_16", 224, "ViT-B/16, 224 pixels", 2),
        Entry("GPT-2, 16 tokens", "transformers", _gpt2_full, tokens(50257, 16, 2)),
    ]
}
"""The networks that the goals for time name, and one language model."""

SERIES = {
    entry.name: entry
    for entry in [
        Entry("tanh, 8 × 350", "", _multilayer(350), sequences(2, 32)),
        Entry("tanh, 8 × 1118", "", _multilayer(1118), sequences(2, 32)),
        Entry("tanh, 8 × 3535", "", _multilayer(3535), sequences(2, 32)),
        _llama(128, 4),
        _llama(384, 5),
        _llama(1024, 7),
    ]
}
"""From one to a hundred million parameters, for how time grows."""
