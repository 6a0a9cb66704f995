"""Trainings at the same dose: which are compared, and that one trained half as far differs at the end alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from bystander.analysis import AnalysisSettings, analyze
from bystander.analysis.stats.multiplicity import holm
from tests.support.analysis_study import World, measurements, personas, similarities

FAR = World(
    sources=("villain",), arms=("contrastive", "non_contrastive"), questions=150, checkpoints=(0.25, 0.5, 0.75, 1.0),
    watched=38, source_drop=0.6, drop=0.3, slope=0.02,
)  # fmt: skip
NEAR = replace(FAR, sources=("comedian",), source_drop=0.3, drop=0.15, slope=0.01)


@pytest.fixture(scope="module")
def analysis():
    table = pl.concat([measurements(FAR), measurements(NEAR).filter(pl.col("source").is_not_null())])
    return analyze(table, similarities(FAR), personas(FAR), settings=AnalysisSettings(layer=20), hypotheses=())


def test_arms_of_a_source_and_sources_of_an_arm_are_compared_once(analysis):
    found = analysis.matched_dose
    pairs = found.select("source", "arm", "other_source", "other_arm").sort(pl.all()).rows()
    assert pairs == [
        ("comedian", "contrastive", "comedian", "non_contrastive"),
        ("comedian", "contrastive", "villain", "contrastive"),
        ("comedian", "non_contrastive", "villain", "non_contrastive"),
        ("villain", "contrastive", "villain", "non_contrastive"),
    ]
    assert found["record"].n_unique() == 4
    np.testing.assert_allclose(found["p_holm"].to_numpy(), holm(found["p"].to_numpy()))


def test_a_source_on_the_same_curve_differs_at_the_end_and_not_at_the_dose_of_both(analysis):
    row = analysis.matched_dose.filter((pl.col("other_source") == "villain") & (pl.col("source") == "comedian")).row(
        0, named=True
    )
    assert 0.1 < row["dose"] < 0.35  # nine tenths of what the comedian reached
    assert row["low"] < 0 < row["high"]
    mean = analysis.leakage_ratio.filter(pl.col("arm") == "contrastive").select("source", "bystander_leakage")
    ends = dict(mean.rows())
    assert ends["villain"] - ends["comedian"] > 0.1
    assert abs(row["difference"]) < 0.05
