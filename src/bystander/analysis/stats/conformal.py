"""Prediction intervals for a source that nobody has seen: conformal, over sources, never over personas of one source.

Personas of one source share its level and its slope, so that their residuals are no sample of what a new source brings. The
residuals of every source come from a model that was fitted without it, and each source counts once, however many
personas it has: Dunn, Wasserman and Ramdas 2023 (Distribution-free prediction sets for two-layer hierarchical models,
JASA, arXiv 1809.07441), pooling of CDFs. With K sources the new one holds a share 1 / (K + 1) of the weight, at
infinity: where the level asks for more than K / (K + 1), the interval has no end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.stats.finite import require_finite
from bystander.core.errors import DataError

Floats = NDArray[np.float64]


def half_width(residuals: Sequence[Floats], level: float) -> float:
    """Half of the width of an interval that covers a share `level` of a new source's personas.

    `residuals`: by source, observed minus foretold by a model fitted without it. inf with too few sources for the level
    (fewer than `level / (1 - level)`). Raises DataError for no residuals, NaN, or a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise DataError(f"an interval's level is {level}: it must lie between 0 and 1.")
    sources = [np.abs(one) for one in residuals if len(one)]
    if not sources:
        raise DataError("no residuals to make an interval of: give at least one source with personas.")
    for one in sources:
        require_finite(residuals=one)
    sizes = np.concatenate([np.full(len(one), 1 / len(one)) for one in sources]) / (len(sources) + 1)
    values = np.concatenate(sources)
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(sizes[order])
    place = int(np.searchsorted(reached, level - 1e-12))
    return float(values[order][place]) if place < len(values) else float("inf")


def covered(residuals: Floats, half: float) -> float:
    """Share of a source's personas whose value lay within the interval."""
    return float((np.abs(residuals) <= half).mean())
