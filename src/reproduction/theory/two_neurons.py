"""The loss of Figure 1: two hidden tanh neurons that can change places, so that w₁ = w₂ is a mirror."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

INPUTS: Array = np.array([-2.0, -1.3, -0.6, 0.3, 0.8, 1.5, 2.2])
"""Of seven samples."""
TARGETS: Array = np.tanh(1.5 * INPUTS) + np.tanh(-0.4 * INPUTS) + 0.15 * np.random.default_rng(0).standard_normal(7)
"""Of a network of two other neurons, with noise."""


def sample_losses(w: Array) -> Array:
    """Return the squared loss of each sample.

    Args:
        w: weights of the two neurons, shape (..., 2).

    Returns:
        Shape (..., samples).
    """
    return np.asarray((np.tanh(w[..., None, :] * INPUTS[:, None]).sum(-1) - TARGETS) ** 2)


def sample_gradients(w: Array) -> Array:
    """Return the gradient of each sample's loss at weights of shape (2,), shape (samples, 2)."""
    hidden = np.tanh(w * INPUTS[:, None])
    return np.asarray(2 * (hidden.sum(-1) - TARGETS)[:, None] * (1 - hidden**2) * INPUTS[:, None])


def loss(w: Array) -> Array:
    """Return the mean loss at weights of shape (..., 2)."""
    found: Array = sample_losses(w).mean(-1)
    return found
