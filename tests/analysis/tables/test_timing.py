"""When leakage came: timings of single curves, and whether they follow similarity."""

from __future__ import annotations

import numpy as np
import pytest

from bystander.analysis.tables.timing import timing

TIMES = np.array([0.25, 0.5, 0.75, 1.0])
SMALL = np.full(4, 0.01)


def test_half_lies_between_two_checkpoints():
    found = timing(TIMES, np.array([0.1, 0.2, 0.6, 0.8]), SMALL)
    assert (found.half_after, found.half_by) == (0.5, 0.75)
    assert found.half_point == pytest.approx(0.5 + 0.25 * (0.4 - 0.2) / 0.4)
    assert found.onset == 0.25


def test_half_before_the_first_checkpoint_is_censored_at_zero():
    found = timing(TIMES, np.array([0.7, 0.8, 0.8, 0.8]), SMALL)
    assert (found.half_after, found.half_by) == (0.0, 0.25)


def test_half_does_not_depend_on_how_much_leaks():
    curve = np.array([0.1, 0.2, 0.6, 0.8])
    assert timing(TIMES, curve, SMALL).half_point == pytest.approx(timing(TIMES, curve / 8, SMALL / 8).half_point)


def test_leakage_that_cannot_be_told_from_zero_has_no_half():
    found = timing(TIMES, np.array([0.01, 0.0, 0.02, 0.015]), SMALL)
    assert np.isnan([found.half_after, found.half_by, found.half_point, found.onset]).all()


def test_onset_must_last():
    found = timing(TIMES, np.array([0.3, 0.0, 0.3, 0.4]), SMALL)
    assert found.onset == 0.75


def test_a_dip_does_not_move_half_behind_it():
    smooth = timing(TIMES, np.array([0.1, 0.42, 0.42, 0.8]), SMALL)
    dented = timing(TIMES, np.array([0.1, 0.42, 0.35, 0.8]), SMALL)
    assert (dented.half_after, dented.half_by, dented.half_point) == (
        smooth.half_after,
        smooth.half_by,
        smooth.half_point,
    )


def test_spread_is_found_when_the_similar_come_first():
    from bystander.analysis import AnalysisSettings, analyze
    from tests.support.analysis_study import World, measurements, personas, similarities

    world = World(checkpoints=(0.25, 0.5, 0.75, 1.0), questions=200, drop=0.3, slope=0.0, watched=30, source_drop=0.5)
    table = measurements(world)
    settings = AnalysisSettings(layer=20, permutations=499, partial_permutations=99, resamples=100)
    steady = analyze(table, similarities(world), personas(world), settings=settings)
    rows = {row["timing"]: row for row in steady.timing_correlation.iter_rows(named=True)}
    assert rows["half"]["n"] > 20
    assert rows["half"]["p"] > 0.01  # everybody in step
    assert "grows with the size" in rows["onset"]["reason"]
    rng = np.random.default_rng(0)
    late = {  # the less similar half of the personas shows nothing before the last checkpoint
        name
        for name, value in similarities(world).filter(layer=20, source="villain").select("persona", "value").iter_rows()
        if value < 0
    }
    import polars as pl

    early = (pl.col("checkpoint").is_in([0.25, 0.5, 0.75])) & pl.col("persona").is_in(sorted(late))
    untrained = pl.Series((rng.random(table.height) < 0.8).astype(float))
    staged = table.with_columns(value=pl.when(early).then(untrained).otherwise("value"))
    outwards = analyze(staged, similarities(world), personas(world), settings=settings)
    row = outwards.timing_correlation.row(by_predicate=pl.col("timing") == "half", named=True)
    assert row["rho"] < -0.4
    assert row["p"] < 0.01
