"""Adjusted p-values. NaN stays NaN and is not counted among the tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.multitest import multipletests

Floats = NDArray[np.float64]


def holm(p: Floats) -> Floats:
    """Holm (1979): the chance of any false rejection among these tests is held. Empty in, empty out."""
    return _adjusted(p, "holm")


def benjamini_hochberg(p: Floats) -> Floats:
    """Benjamini and Hochberg (1995): the expected share of false ones among the rejections is held."""
    return _adjusted(p, "fdr_bh")


def _adjusted(p: Floats, method: str) -> Floats:
    adjusted = np.full(p.shape, np.nan)
    known = np.isfinite(p)
    if known.any():
        adjusted[known] = multipletests(p[known], method=method)[1]
    return adjusted


def adjust(rows: list[dict[str, object]], column: str) -> None:
    """Fill `p_holm` over the pre-registered rows and `p_bh` over the exploratory ones, in place, from p in `column`.

    Rows by seed are the parts of a pooled row, not tests of their own: they get neither.
    """
    whole = [row for row in rows if row.get("seed") is None]
    for preregistered, name, method in ((True, "p_holm", holm), (False, "p_bh", benjamini_hochberg)):
        family = [row for row in whole if bool(row.get("preregistered")) is preregistered]
        p = np.array([row.get(column, np.nan) for row in family], dtype=float)
        for row, value in zip(family, method(p), strict=True):
            row[name] = float(value)
