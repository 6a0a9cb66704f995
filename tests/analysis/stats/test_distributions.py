"""The quick distributions and ranks against those of `scipy.stats`."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bystander.analysis.stats import distributions as quick

DF = np.array([0.5, 1.0, 2.7, 9.0, 44.4, 1000.0, 1e6])
X = np.array([-40.0, -3.0, -1e-9, 0.0, 0.7, 2.0, 8.0])


def test_student_and_normal():
    for df in DF:
        assert quick.t.sf(X, df) == pytest.approx(stats.t.sf(X, df), rel=1e-12)
        assert quick.t.cdf(X, df) == pytest.approx(stats.t.cdf(X, df), rel=1e-12)
    for q in (0.001, 0.5, 0.95, 0.975):
        assert quick.t.ppf(q, DF) == pytest.approx(stats.t.ppf(q, DF), rel=1e-9, abs=1e-9)
        assert quick.norm.ppf(q) == pytest.approx(stats.norm.ppf(q), abs=1e-15)
    assert quick.norm.sf(X) == pytest.approx(stats.norm.sf(X), rel=1e-13)
    assert quick.norm.cdf(X) == pytest.approx(stats.norm.cdf(X), rel=1e-13)
    assert np.isnan([quick.t.ppf(0.975, 0.0), quick.t.ppf(0.975, -1.0), quick.t.sf(1.0, np.nan)]).all()


@pytest.mark.parametrize("p", [0.5, 0.1])
def test_binomial(p):
    n = np.array([0, 1, 7, 40, 1000])
    for share in (0.0, 0.3, 1.0):
        k = np.floor(share * n).astype(int)
        for name in ("pmf", "cdf", "sf"):
            ours, theirs = (getattr(one, name)(k, n, p) for one in (quick.binom, stats.binom))
            assert ours == pytest.approx(theirs, rel=1e-10, abs=1e-300), (name, share)


def test_noncentral_t():
    for df, shift, x in ((3.0, 1.0, 2.0), (30.0, 2.5, 1.7), (200.0, 0.0, 1.65)):
        assert quick.nct.sf(x, df, shift) == pytest.approx(stats.nct.sf(x, df, shift), rel=1e-9)


@pytest.mark.parametrize("shape", [(9,), (1,), (4, 9), (2, 3, 30), (3, 1)])
def test_midranks(shape):
    values = np.random.default_rng(len(shape)).integers(0, 5, shape).astype(float)
    assert np.array_equal(quick.rankdata(values), stats.rankdata(values, axis=-1))
    values.flat[0] = np.inf
    assert np.array_equal(quick.rankdata(values), stats.rankdata(values, axis=-1))
    values.flat[0] = np.nan
    assert np.array_equal(quick.rankdata(values), stats.rankdata(values, axis=-1), equal_nan=True)
    assert quick.rankdata(np.zeros((2, 0))).shape == (2, 0)
