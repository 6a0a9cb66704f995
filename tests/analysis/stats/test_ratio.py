"""The leakage ratio's interval against its definition: the ratios for which bystander - R x source may have mean 0."""

import numpy as np
import pytest
from scipy.stats import t

from bystander.analysis.stats.intervals import crossed
from bystander.analysis.stats.ratio import leakage_ratio
from bystander.core.errors import DataError


def study(seeds=3, seed=0):
    rng = np.random.default_rng(seed)
    common = 0.2 * rng.standard_normal((seeds, 1, 40))
    bystanders = 0.1 + common + 0.05 * rng.standard_normal((1, 12, 1)) + 0.2 * rng.standard_normal((seeds, 12, 40))
    return bystanders, 0.5 + 2 * common[:, 0] + 0.2 * rng.standard_normal((seeds, 40))


@pytest.mark.parametrize("seeds", [1, 3])
def test_ends_are_where_the_difference_is_just_significant(seeds):
    bystanders, source = study(seeds)
    found = leakage_ratio(bystanders, source)
    assert found.value == pytest.approx(bystanders.mean() / source.mean())
    assert found.low < found.value < found.high
    for end in (found.low, found.high):
        difference = crossed(bystanders - end * source[:, None], (0, 1, 2))
        assert abs(difference.value) / difference.standard_error == pytest.approx(t.ppf(0.975, difference.df), rel=1e-6)


def test_a_source_that_cannot_be_told_from_nothing_has_no_interval():
    bystanders, source = study()
    found = leakage_ratio(bystanders, source - source.mean() + 0.001)
    assert np.isfinite(found.value)
    assert np.isnan([found.low, found.high]).all()


def test_nothing_to_divide():
    bystanders, source = study()
    assert np.isnan(leakage_ratio(bystanders[:, :0], source).value)
    assert np.isnan(leakage_ratio(bystanders, source * 0).value)
    single = leakage_ratio(bystanders[:1, :1, :1], source[:1, :1])
    assert np.isnan([single.low, single.high]).all()
    with pytest.raises(DataError, match="of one study"):
        leakage_ratio(bystanders, source[:, :5])
