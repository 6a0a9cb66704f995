"""The flags of a half that lies beyond the similarities it was read from."""

from __future__ import annotations

import polars as pl
import pytest

from bystander.analysis import AnalysisSettings, analyze
from tests.support.analysis_study import World, measurements, personas, similarities

QUICK = AnalysisSettings(layer=20, permutations=99, partial_permutations=99, resamples=100)
FLAGS = "half_beyond", "half_low_beyond", "half_high_beyond"


@pytest.mark.parametrize(("drop", "slope", "beyond"), [(0.2, 0.12, False), (0.05, 0.07, True)])
def test_a_half_beyond_every_similarity_that_was_seen_is_flagged(drop: float, slope: float, beyond: bool) -> None:
    world = World(personas=60, questions=200, layers=(20,), drop=drop, slope=slope)
    known = similarities(world)
    found = analyze(measurements(world), known, personas(world), settings=QUICK)
    (row,) = found.captured.to_dicts()
    (over,) = found.captured_over_sources.to_dicts()
    held_out = found.leakage.filter(role="held-out", context="persona")["persona"]
    seen = known.filter(pl.col("source") == "villain", pl.col("persona").is_in(held_out.implode()))["value"]
    for one in (row, over):
        for flag in FLAGS:
            value = one[flag.removesuffix("_beyond")]
            assert one[flag] is not (seen.min() <= value <= seen.max()), flag
    assert row["half_beyond"] is beyond


def test_where_there_is_no_half_nothing_is_flagged() -> None:
    world = World(personas=24, layers=(20,), source_drop=0.7, drop=0.0, slope=0.0)
    found = analyze(measurements(world), similarities(world), personas(world), settings=QUICK)
    (row,) = found.captured.to_dicts()
    assert row["half"] is None
    assert [row[flag] for flag in FLAGS] == [None] * 3
