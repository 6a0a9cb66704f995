"""What a pure statistic refuses: arrays that hold NaN or infinity, or do not fit each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bystander.core.errors import DataError

Floats = NDArray[np.float64]


def require_finite(**arrays: Floats | None) -> None:
    """Raises DataError naming the first array that holds NaN or infinity, and where; None is let through."""
    for name, values in arrays.items():
        if values is None:
            continue
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            place = tuple(int(index) for index in bad[0])
            raise DataError(
                f"{name} holds {len(bad)} values that are not numbers, the first at {place}: a statistic over personas has no "
                "room for missing ones. Leave those personas out of every array and name them"
            )


def require_shape(shape: tuple[int, ...], **arrays: NDArray[np.generic] | None) -> None:
    """Raises DataError naming the first array that has another shape; None is let through."""
    for name, values in arrays.items():
        if values is not None and values.shape != shape:
            raise DataError(f"{name} has the shape {values.shape} where {shape} was to be expected")
