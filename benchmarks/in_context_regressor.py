"""Self-attention without MLP, position or mask (Section B.6), written the plain way in PyTorch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class SelfAttentionLayer(nn.Module):
    """One head of self-attention with a skip connection: ``H + softmax(H W_Qᵀ W_K Hᵀ / √d) H W_Vᵀ``.

    Rotations of ``W_K`` and ``W_Q`` by one orthogonal matrix leave it unchanged: the double rotation symmetry.

    Args:
        width: length d of a token, and of its key and query.
        init_std: standard deviation of the entries at the start; None for 1/√d.
    """

    def __init__(self, width: int, init_std: float | None = None) -> None:
        super().__init__()
        self.key = nn.Linear(width, width, bias=False)
        self.query = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        for matrix in (self.key, self.query, self.value):
            nn.init.normal_(matrix.weight, std=width**-0.5 if init_std is None else init_std)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return what the layer makes of ``tokens``, both of shape (points, tokens, width)."""
        scores = self.query(tokens) @ self.key(tokens).transpose(-1, -2) / math.sqrt(tokens.shape[-1])
        attended: Tensor = torch.softmax(scores, dim=-1) @ self.value(tokens)
        return tokens + attended


class InContextRegressor(nn.Module):
    """Layers of self-attention that read the target of the last token, whose label is masked by 0.

    Args:
        width: length of a token: the features and, last, the label.
        layers: number of attention layers.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(SelfAttentionLayer(width) for _ in range(layers))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the predictions, shape (points,), for ``tokens`` of shape (points, tokens, width)."""
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens[:, -1, -1]
