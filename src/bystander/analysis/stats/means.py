"""Means and variances over what is known: NaN is left out, and where nothing is known the answer is NaN, silently."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Axis = int | tuple[int, ...] | None


def mean_of(values: Floats, axis: Axis = None) -> Floats:
    """Mean over `axis` of the values that are not NaN; NaN for none."""
    count = np.isfinite(values).sum(axis=axis)
    total = np.where(np.isfinite(values), values, 0.0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def variance_of(values: Floats, axis: int) -> Floats:
    """Sample variance (n - 1) over `axis` of the values that are not NaN; NaN for fewer than two."""
    count = np.isfinite(values).sum(axis=axis)
    deviation = values - np.expand_dims(mean_of(values, axis), axis)
    square = np.where(np.isfinite(deviation), deviation, 0.0) ** 2
    return np.where(count > 1, square.sum(axis=axis) / np.maximum(count - 1, 1), np.nan)
