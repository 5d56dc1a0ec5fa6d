"""scikit-learn's handwritten digits, which come with the package: pictures to train on without a download."""

from __future__ import annotations

import numpy as np

from reproduction.data.images import Images


def load() -> Images:
    """Return the 1797 digits of 8x8 grey pixels (0 to 16): every fifth one is a test picture, 360 of them."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images.astype(np.uint8)[:, None]
    labels = digits.target.astype(np.int64)
    test = np.arange(len(images)) % 5 == 0
    source = "scikit-learn's digits (UCI Optical Recognition of Handwritten Digits, test part), every fifth as test"
    return Images(images[~test], labels[~test], images[test], labels[test], source)
