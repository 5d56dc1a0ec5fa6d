"""A data set of labelled pictures, as every training reads it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Images:
    """Labelled pictures, split into training and test.

    Args:
        train_images: shape (pictures, channels, height, width), uint8.
        train_labels: classes from 0, shape (pictures,), int64.
        test_images: as ``train_images``.
        test_labels: as ``train_labels``.
        source: where the pictures come from, kept as ``data_source`` in every result made from them.

    Raises:
        ValueError: if an array has another shape or type than that.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    source: str

    def __post_init__(self) -> None:
        for part, images, labels in (
            ("train", self.train_images, self.train_labels),
            ("test", self.test_images, self.test_labels),
        ):
            if images.dtype != np.uint8 or images.ndim != 4:
                raise ValueError(
                    f"{part}_images is {images.dtype} of shape {images.shape}; it has to be uint8 of shape "
                    "(pictures, channels, height, width)"
                )
            if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
                raise ValueError(
                    f"{part}_labels is {labels.dtype} of shape {labels.shape}; it has to be int64 of shape "
                    f"{images.shape[:1]}, one label a picture"
                )
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise ValueError(
                f"training pictures have shape {self.train_images.shape[1:]} and test pictures "
                f"{self.test_images.shape[1:]}; they have to agree"
            )

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.train_labels.max()) + 1
