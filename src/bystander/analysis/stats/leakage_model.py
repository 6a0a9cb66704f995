"""Which contexts will move, by how much: a hierarchical regression of leakage on what is known before training.

Within a source, leakage (or its rank) goes with a few features of the context; weights are shared by all sources, each
source has a level and slopes of its own around them (partial pooling, statsmodels' MixedLM, by maximum likelihood). A source
that nobody has seen is foretold by the shared part alone. Features come standardized within source, so that a weight is
leakage per standard deviation of the feature over the source's personas.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from statsmodels.regression.mixed_linear_model import MixedLM

from bystander.analysis.stats.finite import require_finite, require_shape
from bystander.core.errors import DataError

Floats = NDArray[np.float64]
EDGE = 0.03  # a spread below this share of the noise is none: the likelihood is flat there and its maximum not found
MIN_ROWS_A_WEIGHT = 10  # of the regression: fewer personas than that foretell nothing


@dataclass(frozen=True, slots=True)
class LeakageModel:
    """`level` and `weights` (leakage per standard deviation of each feature) are shared; `between`, `slopes` and `within`
    are standard deviations: of sources around the level, around each weight, and of personas around their source's
    line. `note` says what could not be fitted."""

    features: tuple[str, ...]
    level: float
    weights: tuple[float, ...]
    between: float
    slopes: tuple[float, ...]
    within: float
    note: str = ""

    def foretell(self, features: Floats) -> Floats:
        """Expected leakage [personas] of an unseen source from its standardized features [personas, features]."""
        return self.level + features @ np.array(self.weights)


def standardized(values: Floats) -> Floats:
    """Each feature over a source's personas [personas, features] with mean 0 and variance 1; 0 where it is constant."""
    centered = values - values.mean(axis=0)
    deviation = values.std(axis=0)
    return np.where(deviation > 1e-12, centered / np.where(deviation > 1e-12, deviation, 1.0), 0.0)


def fit(features: Floats, leakage: Floats, source: NDArray[np.int64], names: Sequence[str]) -> LeakageModel:
    """The model of all sources at once.

    `features` [n, K] standardized within source, `leakage` [n], `source` [n] a number for each. With one source, least
    squares, and `note` says so. Raises DataError for NaN and for fewer than ten rows a weight.
    """
    n, count = features.shape
    require_shape((n,), leakage=leakage, source=source)
    require_finite(features=features, leakage=leakage)
    if n < MIN_ROWS_A_WEIGHT * (count + 1):
        raise DataError(
            f"{n} personas over all sources are too few for {count} features: give fewer, or {MIN_ROWS_A_WEIGHT * (count + 1)}."
        )
    if len(np.unique(source)) > 1:
        return _mixed(features, leakage, source, tuple(names))
    design = np.column_stack([np.ones(n), features])
    solved, *_ = np.linalg.lstsq(design, leakage, rcond=None)
    within = float((leakage - design @ solved).std())
    level, *weights = map(float, solved)
    note = "one source: how sources differ is not known"
    return LeakageModel(tuple(names), level, tuple(weights), 0.0, (0.0,) * count, within, note)


def _mixed(features: Floats, leakage: Floats, source: NDArray[np.int64], names: tuple[str, ...]) -> LeakageModel:
    columns = [f"x{k}" for k in range(features.shape[1])]
    frame = pd.DataFrame(features, columns=columns).assign(y=leakage, source=source)
    # The level as a component like the slopes: as `re_formula`, a spread of 0 makes statsmodels drop the intercept too.
    parts = {"level": "1"} | {column: f"0 + {column}" for column in columns}
    formula = "y ~ " + " + ".join(["1", *columns])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # at a spread of 0 it warns of the edge; `note` says what matters
        model: Any = MixedLM.from_formula(formula, groups="source", vc_formula=parts, data=frame)
        found = model.fit(reml=False)
    spread = dict(zip(model.exog_vc.names, np.maximum(found.vcomp, 0.0) ** 0.5, strict=True))
    level, *weights = (float(found.fe_params[name]) for name in ["Intercept", *columns])
    within = float(found.scale) ** 0.5
    at_edge = min(spread.values()) < EDGE * within
    note = (
        "" if found.converged or at_edge else "how sources differ could not be fitted: the mixed model did not converge"
    )
    slopes = tuple(float(spread[column]) for column in columns)
    return LeakageModel(names, level, tuple(weights), float(spread["level"]), slopes, within, note)


def left_out(features: Floats, leakage: Floats, source: NDArray[np.int64], names: Sequence[str]) -> Floats:
    """What is foretold of every row by a model that was fitted without its source [n]. Raises DataError for one source."""
    which = np.unique(source)
    if len(which) < 2:
        raise DataError("one source: nothing is left to fit on where it is left out. Give a second.")
    found = np.empty(len(leakage))
    for one in which:
        out = source == one
        found[out] = fit(features[~out], leakage[~out], source[~out], names).foretell(features[out])
    return found
