"""Attention whose heads may be of any number and size, in place of nn.MultiheadAttention, which cannot hold them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """What an ``nn.MultiheadAttention`` computes, with queries and keys of one size and values of another.

    Args:
        original: the module whose parameters it takes.
    """

    in_proj_bias = None
    _qkv_same_embed_dim = False  # so that nn.TransformerEncoderLayer calls it in place of its own fast path

    def __init__(self, original: nn.MultiheadAttention) -> None:
        super().__init__()
        width = original.embed_dim
        self.num_heads = original.num_heads
        self.batch_first = original.batch_first
        self.dropout = original.dropout
        self.scale = original.head_dim**-0.5
        if original.in_proj_weight is not None:
            weights = original.in_proj_weight.detach().chunk(3)
        else:
            weights = tuple(getattr(original, f"{part}_proj_weight").detach() for part in "qkv")
        biases = (None,) * 3 if original.in_proj_bias is None else original.in_proj_bias.detach().chunk(3)
        self.query, self.key, self.value = (_linear(weight, bias) for weight, bias in zip(weights, biases, strict=True))
        out = original.out_proj
        self.out = _linear(out.weight.detach(), None if out.bias is None else out.bias.detach())
        assert self.out.out_features == width
        self.train(original.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the outputs and, where asked for, the attention's weights, as ``nn.MultiheadAttention`` does."""
        single = query.dim() == 2
        if single:
            query, key, value = (part.unsqueeze(0) for part in (query, key, value))
        elif not self.batch_first:
            query, key, value = (part.transpose(0, 1) for part in (query, key, value))
        q, k, v = (
            project(part).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for project, part in ((self.query, query), (self.key, key), (self.value, value))
        )
        mask = self._mask(attn_mask, key_padding_mask, q)
        dropout = self.dropout if self.training else 0.0
        seen = None
        if need_weights or q.shape[-1] != v.shape[-1]:  # for which PyTorch's own has no fast way on every machine
            logits = self.scale * q @ k.transpose(-2, -1)
            weights = nn.functional.dropout((logits if mask is None else logits + mask).softmax(-1), dropout)
            if need_weights:
                seen = weights.mean(1) if average_attn_weights else weights
            mixed = weights @ v
        else:
            mixed = nn.functional.scaled_dot_product_attention(q, k, v, mask, dropout, scale=self.scale)
        joined = self.out(mixed.transpose(1, 2).flatten(2))
        if single:
            return joined.squeeze(0), None if seen is None else seen.squeeze(0)
        return joined if self.batch_first else joined.transpose(0, 1), seen

    def _mask(self, attn_mask: Tensor | None, padding: Tensor | None, like: Tensor) -> Tensor | None:
        """Return what is added to the logits, in a shape that broadcasts to (samples, heads, queries, keys)."""
        masks = []
        if attn_mask is not None:
            masks.append(attn_mask.unflatten(0, (-1, self.num_heads)) if attn_mask.dim() == 3 else attn_mask)
        if padding is not None:
            masks.append(padding.reshape(-1, 1, 1, padding.shape[-1]))
        total = None
        for mask in masks:
            if mask.dtype == torch.bool:
                mask = torch.zeros(mask.shape, dtype=like.dtype, device=mask.device).masked_fill(mask, -torch.inf)
            total = mask if total is None else total + mask
        return total


def replaceable(module: nn.Module) -> bool:
    """Return whether a module is an attention that :class:`Attention` can stand for."""
    return type(module) is nn.MultiheadAttention and module.bias_k is None and not module.add_zero_attn


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone())
    return layer


def replace_attentions(model: nn.Module) -> dict[str, nn.MultiheadAttention]:
    """Put attention that can be cut in the place of nn.MultiheadAttention; return what was there, by name."""
    found = {n: m for n, m in model.named_modules(remove_duplicate=False) if isinstance(m, nn.MultiheadAttention)}
    replaced = {name: module for name, module in found.items() if replaceable(module)}
    new = {id(module): Attention(module) for module in replaced.values()}
    for name, module in replaced.items():
        _set_module(model, name, new[id(module)])
    return replaced


def restore_attentions(model: nn.Module, originals: Mapping[str, nn.MultiheadAttention]) -> None:
    """Put nn.MultiheadAttention back where nothing was cut."""
    for name, original in originals.items():
        now, before = model.get_submodule(name).state_dict(), Attention(original).state_dict()
        if all(torch.equal(now[key], before[key]) for key in now):
            _set_module(model, name, original)


def _set_module(model: nn.Module, name: str, module: nn.Module) -> None:
    owner, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(owner), attribute, module)
