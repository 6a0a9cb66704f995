"""The slope with two crossed random effects: against the covariance written out, against statsmodels, and its edges."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from bystander.analysis.stats.crossed_effects import crossed_slope
from tests.reference import crossed


def world(seed: int, of_source: float, of_persona: float, personas: int = 30):
    rng = np.random.default_rng(seed)
    sources, people = (index.ravel() for index in np.indices((5, personas)))
    keep = rng.random(sources.size) > 0.05  # each source lacks some
    sources, people = sources[keep], people[keep]
    x = rng.standard_normal(sources.size)
    y = 0.2 * x + rng.standard_normal(sources.size)
    y += of_source * rng.standard_normal(5)[sources] + of_persona * rng.standard_normal(personas)[people]
    return y, x, sources, people


@pytest.mark.parametrize(
    ("seed", "of_source", "of_persona"), [(0, 0.0, 0.0), (1, 1.0, 0.5), (2, 0.0, 1.0), (3, 1.0, 0.0)]
)
def test_it_is_the_best_of_all_covariances(seed, of_source, of_persona):
    data = world(seed, of_source, of_persona)
    found = crossed_slope(*data)
    _, slope, error = crossed.slope(*data)
    assert found.value == pytest.approx(slope, abs=0.003)  # the grid is 0.05 wide
    assert found.high - found.low == pytest.approx(2 * 1.959964 * error, rel=0.01)
    assert found.reason == ""


def test_it_agrees_with_statsmodels_where_that_converges():
    import pandas as pd
    from statsmodels.regression.mixed_linear_model import MixedLM

    y, x, sources, people = world(5, 1.0, 1.0, personas=40)
    frame = pd.DataFrame({"y": y, "x": x, "source": sources, "persona": people, "whole": 1})
    parts = {"source": "0 + C(source)", "persona": "0 + C(persona)"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = MixedLM.from_formula("y ~ x", groups="whole", vc_formula=parts, data=frame).fit()
    assert fit.converged
    found = crossed_slope(y, x, sources, people)
    assert found.value == pytest.approx(fit.params["x"], abs=1e-4)
    assert (found.low, found.high) == pytest.approx(tuple(fit.conf_int().loc["x"]), abs=2e-3)
    assert found.p == pytest.approx(fit.pvalues["x"], rel=0.05)


def test_what_has_no_slope():
    y, x, sources, people = world(1, 1.0, 1.0)
    for found in (
        crossed_slope(y, np.ones_like(x), sources, people),
        crossed_slope(y[:3], x[:3], sources[:3], people[:3]),
    ):
        assert np.isnan([found.value, found.low, found.high, found.p]).all()
        assert "too few" in found.reason
