"""The flags of a half that lies beyond the similarities it was read from."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from bystander.analysis import AnalysisSettings, analyze
from bystander.analysis.tables.half_captured import _half
from tests.support.analysis_study import World, measurements, personas, similarities

QUICK = AnalysisSettings(layer=20, permutations=99, partial_permutations=99, resamples=100)
FLAGS = "half_beyond", "half_low_beyond", "half_high_beyond"


def test_the_flags_are_those_of_the_bystanders_similarities() -> None:
    world = World(personas=60, questions=200, layers=(20,), drop=0.2, slope=0.12)
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


@pytest.mark.parametrize(
    ("ends", "beyond"),
    [
        ((0.5, 0.3, 0.7), [False, False, False]), ((0.5, 0.1, 1.1), [False, True, True]), ((1.24, 0.83, 1.4), [True, False, True]),
        ((0.1, 0.0, 0.3), [True, True, False]), ((np.nan, np.nan, np.nan), [None, None, None]),
    ],
)  # fmt: skip
def test_what_lies_beyond_every_similarity_that_was_seen_is_flagged(
    ends: tuple[float, float, float], beyond: list[bool | None]
) -> None:
    found = _half(*ends, np.array([0.9, 0.2, 0.4]))
    assert [found[flag] for flag in FLAGS] == beyond


def test_where_there_is_no_half_nothing_is_flagged() -> None:
    world = World(personas=24, layers=(20,), source_drop=0.7, drop=0.0, slope=0.0)
    found = analyze(measurements(world), similarities(world), personas(world), settings=QUICK)
    (row,) = found.captured.to_dicts()
    assert row["half"] is None
    assert [row[flag] for flag in FLAGS] == [None] * 3
