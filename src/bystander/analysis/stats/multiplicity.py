"""Adjusted p-values. NaN stays NaN and is not counted among the tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.multitest import multipletests

from bystander.analysis.stats.means import Floats


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


def adjusted(p: Floats, preregistered: NDArray[np.bool_], whole: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Holm's p over the pre-registered tests and Benjamini and Hochberg's over the exploratory ones -> ([n], [n]).

    Only tests that are `whole` count: rows by seed are the parts of a pooled row, not tests of their own. NaN elsewhere.
    """
    registered, exploratory = whole & preregistered, whole & ~preregistered
    return holm(np.where(registered, p, np.nan)), benjamini_hochberg(np.where(exploratory, p, np.nan))
