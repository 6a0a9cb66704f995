"""Each statistic against scipy, statsmodels, pingouin, or the plain way to compute it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from bystander.analysis.stats.intervals import (
    bca,
    bounded,
    crossed,
    fieller,
    resampled_means,
    resampling_counts,
)
from bystander.analysis.stats.multiplicity import benjamini_hochberg, holm
from bystander.analysis.stats.ranks import (
    indicators,
    partial_spearman,
    permutation_p,
    permutations,
    spearman,
    within_category,
)
from bystander.analysis.stats.uncertainty import (
    bootstrap_spearman,
    jackknife_spearman,
    measurement_error,
    reliability,
)
from bystander.analysis.tables.leakage import mcnemar


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def tied(rng: np.random.Generator, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Two related variables with many ties, as rates of few samples have."""
    x = np.round(rng.normal(size=n), 1)
    return x, np.round(0.6 * x + rng.normal(size=n), 0)


def pingouin():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pingouin

        return pingouin


def test_spearman_with_ties_is_scipys(rng):
    x, y = tied(rng)
    assert spearman(x[None], y)[0] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_permutation_p_is_scipys_exact_one(rng):
    x, y = rng.normal(size=6), rng.normal(size=6)
    x += y  # 6! = 720 permutations: all of them
    exact = stats.permutation_test(
        (x,),
        lambda v: stats.spearmanr(v, y).statistic,
        permutation_type="pairings",
        n_resamples=np.inf,
        vectorized=False,
    ).pvalue
    p = permutation_p(x[None], y, 19_999, 0)[0]
    assert p == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 20_000) ** 0.5)


def test_permutation_p_close_to_the_t_approximation_on_110_personas(rng):
    x = rng.normal(size=110)
    y = 0.2 * x + rng.normal(size=110)
    assert permutation_p(x[None], y, 9_999, 0)[0] == pytest.approx(stats.spearmanr(x, y).pvalue, abs=0.01)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_no_test_below_four_personas(n):
    x, y = np.arange(n, dtype=float), np.arange(n, dtype=float)
    assert np.isnan(permutation_p(x[None], y, 99, 0)).all()
    assert np.isnan(within_category(x[None], y, ["a"] * n, 99, 0)[1]).all()
    assert np.isnan(partial_spearman(x[None], y, np.zeros((1, n)), 99, 0)[1]).all()


def test_constant_leakage_has_no_correlation():
    x = np.arange(10.0)
    assert np.isnan(spearman(x[None], np.full(10, 0.1 + 0.2)))
    assert np.isnan(permutation_p(x[None], np.zeros(10), 99, 0))


def test_permutations_within_groups_stay_within_them():
    groups = (0, 1, 0, 2, 1, 0, 2)
    drawn = permutations(7, 200, 0, groups)
    assert (np.asarray(groups)[drawn] == np.asarray(groups)).all()
    assert len({tuple(row) for row in drawn}) == 3 * 2 * 2 * 2  # 3! 2! 2!: every one of them is reached


def test_within_category_ignores_what_differs_between_categories(rng):
    labels = [str(i // 10) for i in range(60)]
    jump = 100.0 * np.repeat(np.arange(6), 10)
    x, y = rng.normal(size=60), rng.normal(size=60)
    apart, _ = within_category((x + jump)[None], y + jump, labels, 99, 0)
    ranked = [stats.rankdata(v + jump) for v in (x, y)]
    centered = [r - np.repeat(r.reshape(6, 10).mean(axis=1), 10) for r in ranked]
    assert apart[0] == pytest.approx(np.corrcoef(*centered)[0, 1], abs=1e-12)
    assert spearman((x + jump)[None], y + jump)[0] > 0.9 > abs(apart[0])


def test_partial_spearman_is_pingouins(rng):
    x, y = tied(rng)
    length, baseline = np.round(rng.normal(size=40) + x), rng.normal(size=40)
    frame = pd.DataFrame({"x": x, "y": y, "length": length, "baseline": baseline})
    expected = pingouin().partial_corr(frame, "x", "y", ["length", "baseline"], method="spearman")
    rho, p = partial_spearman(x[None], y, np.array([length, baseline]), 9_999, 0)
    assert rho[0] == pytest.approx(float(expected["r"].iloc[0]), abs=1e-9)
    column = next(name for name in expected.columns if name.startswith("p"))
    assert p[0] == pytest.approx(float(expected[column].iloc[0]), abs=0.02)


def test_partial_on_itself_is_undefined(rng):
    x, y = rng.normal(size=(2, 30))
    rho, p = partial_spearman(x[None], y, x[None], 99, 0)
    assert np.isnan(rho).all()
    assert np.isnan(p).all()


def test_partial_on_category_is_the_correlation_of_residuals(rng):
    labels = [str(i % 5) for i in range(50)]
    x, y = rng.normal(size=(2, 50))
    rho, _ = partial_spearman(x[None], y, indicators(labels), 99, 0)
    residual = [r - pd.Series(r).groupby(labels).transform("mean").to_numpy() for r in map(stats.rankdata, (x, y))]
    assert rho[0] == pytest.approx(np.corrcoef(*residual)[0, 1], abs=1e-9)


def test_mcnemar_is_the_exact_one_less_the_observed_split(rng):
    before, after = (rng.random((2, 6, 40)) < [[[0.8]], [[0.6]]]).astype(float)
    for row, p in enumerate(mcnemar(before, after)):
        table = (
            pd.crosstab(before[row], after[row]).reindex(index=[0.0, 1.0], columns=[0.0, 1.0], fill_value=0).to_numpy()
        )
        exact = statsmodels_mcnemar(table, exact=True).pvalue
        up, down = table[0, 1], table[1, 0]
        assert p == pytest.approx(min(exact - stats.binom.pmf(min(up, down), up + down, 0.5), 1), abs=1e-12)


def test_mcnemar_where_nothing_changed_and_where_nothing_is_known():
    assert mcnemar(np.ones((1, 5)), np.ones((1, 5)))[0] == 1
    assert np.isnan(mcnemar(np.full((1, 5), np.nan), np.ones((1, 5))))[0]


def test_bca_is_scipys_on_many_skewed_questions(rng):
    values = rng.exponential(size=(1, 400))
    expected = stats.bootstrap((values[0],), np.mean, n_resamples=9_999, method="BCa", rng=rng).confidence_interval
    low, high = bca(values, 9_999, 0)
    width = expected.high - expected.low
    assert low[0] == pytest.approx(expected.low, abs=0.05 * width)
    assert high[0] == pytest.approx(expected.high, abs=0.05 * width)


def test_bca_leans_with_the_skew(rng):
    values = np.concatenate([np.zeros(90), np.ones(10)])[None] + rng.normal(0, 1e-3, (1, 100))
    low, high = bca(values, 2_000, 0)
    assert high[0] - values.mean() > values.mean() - low[0]


@pytest.mark.parametrize("n", [0, 1])
def test_intervals_of_nothing_and_of_one(n):
    for low, high in (bca(np.ones((2, n)), 50, 0), bounded(np.ones((2, n)))):
        assert np.isnan(low).all()
        assert np.isnan(high).all()


def test_crossed_intervals_of_nothing_and_of_one():
    one = crossed(np.full((1, 1), 2.0), (0, 1))
    assert (one.n, one.value) == (1, 2.0)
    assert np.isnan([one.low, one.high]).all()
    nothing = crossed(np.full((1, 1), np.nan), (0, 1))
    assert nothing.n == 0
    assert np.isnan([nothing.value, nothing.low, nothing.high]).all()


def test_missing_questions_are_left_out_not_imputed(rng):
    values = rng.normal(size=(2, 30))
    values[0, :10] = np.nan
    drawn = resampled_means(values, 500, 0)
    counts = resampling_counts(30, 500, 0)
    expected = (counts[:, 10:] @ values[0, 10:]) / counts[:, 10:].sum(axis=1)
    assert np.allclose(drawn[:, 0], expected)


def test_bounded_interval_of_one_sided_changes():
    low, high = bounded(np.zeros((1, 50)))
    assert low[0] < 0 < high[0] < 0.1
    low, high = bounded(np.ones((1, 8)))
    assert 0.3 < low[0] < 1 == high[0]


def test_no_interval_reaches_beyond_what_a_change_can_be():
    wide = crossed(np.array([[0.9, 1.0]]), (0, 1))
    assert wide.high > 1.5
    cut = wide.within("fraction")
    assert (cut.high, cut.low) == (1.0, max(-1.0, wide.low))
    assert (cut.value, cut.standard_error, cut.p) == (wide.value, wide.standard_error, wide.p)
    assert wide.within("nats") == wide
    assert crossed(np.array([[90.0, 99.0]]), (0, 1)).within("score").high == 100.0


def test_crossed_on_one_axis_is_students(rng):
    values = rng.normal(size=25)
    estimate = crossed(values[None], (0, 1))
    expected = stats.ttest_1samp(values, 0, alternative="greater")
    interval = stats.ttest_1samp(values, 0).confidence_interval()
    assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high))
    assert estimate.p == pytest.approx(expected.pvalue)
    assert estimate.p_above(0.3) == pytest.approx(stats.ttest_1samp(values, 0.3, alternative="greater").pvalue)


def test_crossed_error_is_that_of_the_simulation(rng):
    means, errors = [], []
    for _ in range(400):
        values = 0.2 * rng.normal(size=(1, 30, 1)) + 0.3 * rng.normal(size=(1, 1, 20)) + rng.normal(size=(1, 30, 20))
        estimate = crossed(values, (0, 1, 2))
        means.append(estimate.value)
        errors.append(estimate.standard_error)
    assert np.mean(np.square(errors)) ** 0.5 == pytest.approx(np.std(means), rel=0.12)


def test_fieller_against_the_ratio_it_inverts(rng):
    top, bottom = rng.normal(0.1, 0.2, 50), rng.normal(0.6, 0.2, 50)
    covariance = np.cov(top, bottom) / 50
    low, high = fieller(top.mean(), bottom.mean(), covariance[0, 0], covariance[1, 1], covariance[0, 1], 49)
    for ratio in (low, high):  # at its ends, top - ratio x bottom is just significant at 5 %
        assert stats.ttest_1samp(top - ratio * bottom, 0).pvalue == pytest.approx(0.05, abs=1e-9)


def test_fieller_is_unbounded_where_the_source_may_not_have_changed():
    assert np.isnan(fieller(0.1, 0.05, 0.01, 0.01, 0.0, 50)).all()


def test_bootstrap_of_ranks_is_the_plain_one(rng):
    x, y = tied(rng, 15)
    counts = resampling_counts(15, 40, 0)
    for weights, rho in zip(counts, bootstrap_spearman(x[None], y, counts)[:, 0], strict=True):
        drawn = np.repeat(np.arange(15), weights.astype(int))
        assert rho == pytest.approx(stats.spearmanr(x[drawn], y[drawn]).statistic, abs=1e-5)


def test_jackknife_of_ranks_is_the_plain_one(rng):
    x, y = tied(rng, 12)
    expected = [stats.spearmanr(np.delete(x, j), np.delete(y, j)).statistic for j in range(12)]
    assert np.allclose(jackknife_spearman(x[None], y)[:, 0], expected)


def test_reliability_is_pingouins_cronbach_alpha(rng):
    changes = rng.normal(size=(30, 1)) + rng.normal(size=(1, 12)) + 2 * rng.normal(size=(30, 12))
    assert reliability(changes) == pytest.approx(pingouin().cronbach_alpha(pd.DataFrame(changes))[0], abs=1e-9)
    assert measurement_error(changes).shape == (30,)
    assert np.isnan(reliability(changes[:, :1]))
    assert np.isnan(reliability(changes[:1]))


def test_adjusted_p_are_pingouins():
    p = np.array([0.001, 0.02, np.nan, 0.04, 0.3])
    known = p[np.isfinite(p)]
    for ours, method in ((holm, "holm"), (benjamini_hochberg, "fdr_bh")):
        adjusted = ours(p)
        assert np.isnan(adjusted[2])
        assert np.allclose(adjusted[np.isfinite(p)], pingouin().multicomp(known, method=method)[1])
    assert holm(np.array([])).size == 0
