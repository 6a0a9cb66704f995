"""Which contexts will move, by how much: a hierarchical regression of leakage on what is known before training.

Within a source, leakage (or its rank) goes with a few features of the context; weights are shared by all sources, each
source has a level and slopes of its own around them (partial pooling, the likelihood of statsmodels' MixedLM). A source
that nobody has seen is foretold by the shared part alone. Features come standardized within source, so that a weight is
leakage per standard deviation of the feature over the source's personas. Slopes of all features have one spread: with five
sources a spread for each cannot be told, and the likelihood has no maximum that an optimizer finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from statsmodels.regression.mixed_linear_model import MixedLM, MixedLMParams, VCSpec

from bystander.analysis.stats.finite import require_finite, require_shape
from bystander.core.errors import DataError

Floats = NDArray[np.float64]
SMALLEST, LARGEST = -5.0, 3.0  # log of a spread over the noise: at 0.7 % of it there is none, 20 times is no bound
MIN_ROWS_A_WEIGHT = 10  # of the regression: fewer personas than that foretell nothing


@dataclass(frozen=True, slots=True)
class LeakageModel:
    """`level` and `weights` (leakage per standard deviation of each feature) are shared; `between`, `slopes` and `within`
    are standard deviations: of sources around the level, around the weights, and of personas around their source's
    line. `note` says what could not be fitted."""

    features: tuple[str, ...]
    level: float
    weights: tuple[float, ...]
    between: float
    slopes: float
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
    varies = features.std(axis=0) > 1e-12
    if not varies.all():  # a constant feature has no weight that data could tell
        chosen = [name for name, one in zip(names, varies, strict=True) if one]
        known, weights = fit(features[:, varies], leakage, source, chosen), np.zeros(count)
        weights[varies] = known.weights
        return replace(known, features=tuple(names), weights=tuple(map(float, weights)))
    if len(np.unique(source)) > 1:
        return _mixed(features, leakage, source, tuple(names))
    design = np.column_stack([np.ones(n), features])
    solved, *_ = np.linalg.lstsq(design, leakage, rcond=None)
    within = float((leakage - design @ solved).std())
    level, *weights = map(float, solved)
    note = "one source: how sources differ is not known"
    return LeakageModel(tuple(names), level, tuple(weights), 0.0, 0.0, within, note)


def _mixed(features: Floats, leakage: Floats, source: NDArray[np.int64], names: tuple[str, ...]) -> LeakageModel:
    """Maximum likelihood over two spreads, the rest profiled out. MixedLM's own search over them starts at 1, runs off or
    stops short of the maximum, and inverts a Hessian for standard errors that nobody reads here."""
    design = np.column_stack([np.ones(len(leakage)), features])
    model: Any = MixedLM(leakage, design, source, exog_vc=_components(features, source, names))
    model.reml, model.cov_pen, model.fe_pen, model._cov_sing = False, None, None, 0

    def loss(logs: Floats) -> float:
        params: Any = MixedLMParams(model.k_fe, 0, model.k_vc)
        params.fe_params, params.cov_re, params.vcomp = np.zeros(model.k_fe), np.zeros((0, 0)), np.exp(2 * logs)
        return -float(model.loglike(params)) / len(leakage)

    start = [-1.0] * model.k_vc
    found = minimize(
        loss,
        start,
        method="Nelder-Mead",
        bounds=[(SMALLEST, LARGEST)] * model.k_vc,
        options={"xatol": 1e-2, "fatol": 1e-7},
    )
    ratios = np.exp(2 * found.x)
    level, *weights = map(float, model.get_fe_params(np.zeros((0, 0)), ratios)[0])
    within = float(model.get_scale(np.array([level, *weights]), np.zeros((0, 0)), ratios)) ** 0.5
    between, *slopes = (within * float(np.exp(log)) if log > SMALLEST + 1e-2 else 0.0 for log in found.x)
    note = "" if found.success else "how sources differ could not be fitted: the likelihood's maximum was not found"
    return LeakageModel(names, level, tuple(weights), between, slopes[0] if slopes else 0.0, within, note)


def _components(features: Floats, source: NDArray[np.int64], names: tuple[str, ...]) -> VCSpec:
    """The random part: a level for each source and, where there are features, slopes around their weights."""
    parts = {"level": np.ones((len(source), 1))} | ({"slopes": features} if names else {})
    groups = [source == one for one in np.unique(source)]
    matrices = [[part[group] for group in groups] for part in parts.values()]
    columns = [[[str(k) for k in range(part.shape[1])] for _ in groups] for part in parts.values()]
    return VCSpec(list(parts), columns, matrices)


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
