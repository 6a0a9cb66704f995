"""Skill of a forecast of leakage, against what needs no model: every fit is made without the source and without the persona.

Skill is R2 = 1 - squared error of the forecast / squared error of a baseline, over all left-out rows. A baseline is
fitted as the forecast is, so that it is never worse than no knowledge by its own noise: the mean of a persona over
sources, taken as it is, errs by more than the level alone where personas do not differ, and anything would seem to beat it.

Estimand: what a study of these sources foretells on average in the population of personas. Resampling unit: the persona
with all its sources (delete-one jackknife of the log ratio of errors, fits held; t). Below 0: worse than the baseline.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.stats.distributions import rankdata, t
from bystander.analysis.stats.intervals import TAIL
from bystander.analysis.stats.leakage_model import fit
from bystander.analysis.stats.ranks import MIN_PERSONAS
from bystander.analysis.stats.skill import Skill

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
FOLDS = 5  # of personas: who is foretold was in no fit under another source either


def ranks_within(values: Floats, source: Places) -> Floats:
    """Mid-ranks within each source [n], from -1 to 1."""
    found = np.empty(len(values))
    for one in np.unique(source):
        own = source == one
        count = int(own.sum())
        found[own] = (2 * rankdata(values[own]) - count - 1) / count
    return found


def folds_of(persona: Places) -> Places:
    """The fold of every row [n]: all rows of a persona lie in one, and folds hold as many personas as they can."""
    unique, place = np.unique(persona, return_inverse=True)
    order = np.random.default_rng(0).permutation(len(unique))
    return (order % FOLDS)[place].astype(np.int64)


def foretold_apart(features: Floats, leakage: Floats, source: Places, persona: Places, names: Sequence[str]) -> Floats:
    """Every row [n] foretold by a model that saw neither its source nor, under any source, its persona. `features`
    [n, K], none for the level alone."""
    fold, found = folds_of(persona), np.empty(len(leakage))
    for one in np.unique(source):
        for part in range(FOLDS):
            out, seen = (source == one) & (fold == part), (source != one) & (fold != part)
            if out.any():
                found[out] = fit(features[seen], leakage[seen], source[seen], names).foretell(features[out])
    return found


def mean_elsewhere(leakage: Floats, source: Places, persona: Places, without: int | None = None) -> Floats:
    """A persona's mean over the other sources [n], each source centered; `without` leaves one source out for everybody
    else. 0 where a persona has no other."""
    centered, used = leakage.copy(), np.ones(len(leakage), dtype=bool)
    for one in np.unique(source):
        centered[source == one] -= leakage[source == one].mean()
    if without is not None:
        used = source != without
    _, place = np.unique(persona, return_inverse=True)
    total = np.bincount(place, np.where(used, centered, 0.0))
    count = np.bincount(place, used.astype(float))
    others = count[place] - used
    return np.where(others > 0, (total[place] - np.where(used, centered, 0.0)) / np.maximum(others, 1), 0.0)


def persona_mean_foretold(leakage: Floats, source: Places, persona: Places) -> Floats:
    """The baseline that knows personas: a line on the mean over other sources, fitted without the source foretold [n]."""
    found, own = np.empty(len(leakage)), mean_elsewhere(leakage, source, persona)
    for one in np.unique(source):
        out = source == one
        known = mean_elsewhere(leakage, source, persona, without=int(one))[~out, None]
        found[out] = fit(known, leakage[~out], source[~out], ["mean"]).foretell(own[out, None])
    return found


def skill_over(foretold: Floats, base: Floats, leakage: Floats, source: Places, persona: Places) -> Skill:
    """Skill of one forecast over another, both [n]. NaN for fewer than 4 personas or a baseline without error."""
    model, other = (leakage - foretold) ** 2, (leakage - base) ** 2
    which, place = np.unique(persona, return_inverse=True)
    n, sources = len(which), np.unique(source)
    if n < MIN_PERSONAS or not other.sum() > 0:
        return Skill(np.nan, np.nan, np.nan, np.full(len(sources), np.nan))
    with np.errstate(divide="ignore", invalid="ignore"):
        by_source = np.array([1 - model[source == one].sum() / other[source == one].sum() for one in sources])
        left = [np.log(error.sum() - np.bincount(place, error)) for error in (model, other)]
        whole = float(np.log(model.sum() / other.sum()))
    logs = left[0] - left[1]
    error = float(((n - 1) / n * ((logs - logs.mean()) ** 2).sum()) ** 0.5)
    half = float(t.ppf(1 - TAIL, n - 1)) * error
    return Skill(float(1 - np.exp(whole)), float(1 - np.exp(whole + half)), float(1 - np.exp(whole - half)), by_source)
