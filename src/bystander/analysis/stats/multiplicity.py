"""Adjusted p-values. NaN stays NaN and is not counted among the tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.stats.means import Floats


def holm(p: Floats) -> Floats:
    """Holm (1979): the chance of any false rejection among these tests is held. Empty in, empty out."""
    known, ordered, place = _ordered(p)
    stepped = ordered * np.arange(ordered.size, 0, -1)
    return _back(p, known, place, np.minimum(np.maximum.accumulate(stepped), 1.0))


def benjamini_hochberg(p: Floats) -> Floats:
    """Benjamini and Hochberg (1995): the expected share of false ones among the rejections is held."""
    known, ordered, place = _ordered(p)
    stepped = ordered * ordered.size / np.arange(1, ordered.size + 1)
    return _back(p, known, place, np.minimum(np.minimum.accumulate(stepped[::-1])[::-1], 1.0))


def _ordered(p: Floats) -> tuple[NDArray[np.bool_], Floats, NDArray[np.intp]]:
    """Which p are known, those in order, and their order. (statsmodels' multipletests collects garbage at every call.)"""
    known = np.isfinite(p)
    place = np.argsort(p[known], kind="stable")
    return known, p[known][place], place


def _back(p: Floats, known: NDArray[np.bool_], place: NDArray[np.intp], ordered: Floats) -> Floats:
    found, adjusted = np.empty(ordered.size), np.full(p.shape, np.nan)
    found[place] = ordered
    adjusted[known] = found
    return adjusted


def adjusted(p: Floats, preregistered: NDArray[np.bool_], whole: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Holm's p over the pre-registered tests and Benjamini and Hochberg's over the exploratory ones -> ([n], [n]).

    Only tests that are `whole` count: rows by seed are the parts of a pooled row, not tests of their own. NaN elsewhere.
    """
    registered, exploratory = whole & preregistered, whole & ~preregistered
    return holm(np.where(registered, p, np.nan)), benjamini_hochberg(np.where(exploratory, p, np.nan))
