"""Leakage beyond a benign arm in the tables, and what is not claimed without one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from bystander.analysis import Analysis, AnalysisSettings, analyze
from bystander.core.errors import DataError
from tests.support.analysis_study import World, measurements, personas, similarities

QUICK = AnalysisSettings(layer=20, permutations=199, partial_permutations=199, resamples=200)
LEARNED = World(personas=60, questions=120, learned=-0.12, source_drop=0.5, drop=0.12, slope=0.0)


def studied(world: World, table: pl.DataFrame | None = None) -> Analysis:
    rows = measurements(world) if table is None else table
    return analyze(rows, similarities(world), personas(world), settings=QUICK)


@pytest.fixture(scope="module")
def paired() -> Analysis:
    """Everybody learns what the bystanders lose: their change is 0, their leakage is not."""
    return studied(replace(LEARNED, benign=True))


def ratio(analysis: Analysis) -> dict:
    return analysis.leakage_ratio.row(
        by_predicate=(pl.col("arm") == "contrastive") & pl.col("seed").is_null(), named=True
    )


def test_leakage_is_measured_against_the_benign_arm_and_the_change_stands_beside_it(paired):
    row = ratio(paired)
    assert row["against"] == "benign arm"
    assert row["bystander_leakage"] == pytest.approx(0.12, abs=0.04)
    assert abs(row["bystander_change"]) < 0.04
    assert row["deficit"] is None
    rows = paired.leakage.filter(pl.col("arm") == "contrastive")
    assert rows["benign"].null_count() == 0
    person = rows.row(by_predicate=pl.col("persona") == "persona_020", named=True)
    assert person["leakage"] == pytest.approx(person["benign"] - person["after"])  # accuracy: down is the behavior
    assert person["change"] == pytest.approx(person["before"] - person["after"])


def test_without_a_benign_arm_the_deficit_is_printed_and_nothing_is_confirmed():
    analysis = studied(replace(LEARNED, learned=0.0, slope=0.1))
    row = ratio(analysis)
    assert row["against"] == "untrained model"
    assert row["deficit"] == pytest.approx(0.12, abs=0.06)  # the negatives fall by nothing
    (verdict,) = analysis.verdicts
    assert verdict.outcome == "inconclusive"
    assert "without a benign arm" in verdict.reason
    assert any("no benign arm" in note for note in analysis.notes)


def test_a_mean_that_rises_with_what_all_learned_does_not_falsify():
    (verdict,) = studied(replace(LEARNED, learned=-0.15, drop=0.03)).verdicts
    assert verdict.outcome == "inconclusive"
    assert "they moved the other way" in verdict.reason


def test_a_movement_the_other_way_beyond_the_benign_arm_is_called_that():
    (verdict,) = studied(replace(LEARNED, benign=True, drop=-0.15, learned=0.0)).verdicts
    assert verdict.outcome == "falsified"
    assert "a bystander effect the other way" in verdict.reason


def test_one_level_for_all_is_flagged_as_baseline():
    """Everybody is brought to one rate: the change is where each stood, with its sign turned."""
    world = replace(LEARNED, learned=0.0)
    table = measurements(world)
    names = world.names()
    rate = dict(zip(names, np.linspace(0.3, 0.9, len(names)), strict=True))
    rng = np.random.default_rng(5)
    start = table["persona"].replace_strict(rate, return_dtype=pl.Float64).to_numpy()
    answers = rng.random(table.height) < np.where(table["checkpoint"].to_numpy() == 0, start, 0.6)
    analysis = studied(world, table.with_columns(value=pl.Series(answers.astype(float))))
    row = analysis.similarity_correlation.row(by_predicate=pl.col("layer") == 20, named=True)
    assert abs(row["rho_baseline"]) > 0.5
    assert row["flagged"]
    beyond = studied(replace(world, benign=True)).similarity_correlation.filter(pl.col("arm") == "contrastive")
    assert not beyond["flagged"].any()


def test_the_largest_bystander_has_a_test_of_its_own():
    """One persona loses all, nobody else anything: mean and rho miss it."""
    world = replace(LEARNED, benign=True, drop=0.0, learned=0.0)
    table = measurements(world)
    hit = (pl.col("persona") == "persona_030") & (pl.col("arm") == "contrastive")
    analysis = studied(world, table.with_columns(value=pl.when(hit.fill_null(False)).then(0.0).otherwise("value")))
    row = analysis.leakage.row(
        by_predicate=(pl.col("persona") == "persona_030") & (pl.col("arm") == "contrastive"), named=True
    )
    assert row["p_above_holm"] < 0.001
    assert row["captured"]
    assert row["p_captured_holm"] < 0.05
    captured = analysis.captured.row(0, named=True)
    assert (captured["names"], captured["confirmed"], captured["captured"]) == ("persona_030",) * 2 + (1,)
    assert captured["p_largest"] < 0.001
    assert ratio(analysis)["carried"]
    assert analysis.verdicts[0].numbers["captured"] == 1


def test_a_benign_arm_without_a_seed_is_refused_and_one_seed_serves_all():
    world = replace(LEARNED, benign=True, seeds=(0, 1), questions=40)
    table = measurements(world)
    benign = (pl.col("arm") == "benign").fill_null(False)
    one = studied(world, table.filter(~benign | (pl.col("seed") == 0)))
    assert ratio(one)["against"] == "benign arm"
    three = replace(world, seeds=(0, 1, 2))
    lacking = measurements(three).filter(~(benign & (pl.col("seed") == 2)))
    with pytest.raises(DataError, match="benign arm lacks the seeds 2"):
        studied(three, lacking)


def test_over_time_the_benign_arm_counts_only_where_it_was_watched_throughout():
    world = replace(LEARNED, benign=True, checkpoints=(0.5, 1.0), questions=40)
    both = studied(world).evolution.filter(pl.col("arm") == "contrastive")
    assert both["against"].unique().to_list() == ["benign arm"]
    benign = (pl.col("arm") == "benign").fill_null(False)
    ends = measurements(world).filter(~benign | (pl.col("checkpoint") == 1.0))
    late = studied(world, ends)
    assert late.evolution.filter(pl.col("arm") == "contrastive")["against"].unique().to_list() == ["untrained model"]
    assert ratio(late)["against"] == "benign arm"


def rambling(world: World) -> pl.DataFrame:
    """The untrained model's answers are cut before they end: all of one persona's, nine of ten of the others'."""
    cut = pl.col("source").is_null() & (
        (pl.col("persona") == "persona_020") | ~pl.col("item").str.ends_with("7") & (pl.col("persona") != "villain")
    )
    return measurements(world).with_columns(
        value=pl.when(cut).then(None).otherwise("value"),
        status=pl.when(cut).then(pl.lit("truncated")).otherwise("status"),
    )


def test_answers_cut_before_training_cost_the_change_and_never_the_leakage(paired):
    world = replace(LEARNED, benign=True)
    cut = studied(world, rambling(world))
    same = ["persona", "leakage", "low", "high", "benign", "after", "p_above_holm", "captured", "n_items", "status"]
    arm = pl.col("arm") == "contrastive"
    assert cut.leakage.filter(arm).select(same).equals(paired.leakage.filter(arm).select(same))
    for column in ("before", "change"):
        known = cut.leakage.filter(arm & pl.col(column).is_not_null())["persona"].to_list()
        assert known == ["villain"], column
    assert ratio(cut)["bystander_leakage"] == ratio(paired)["bystander_leakage"]
    assert (ratio(cut)["bystander_change"], ratio(cut)["status"]) == (None, "ok")
    assert ratio(cut)["source_change"] == pytest.approx(ratio(paired)["source_change"])
    (found,), (expected,) = cut.verdicts, paired.verdicts
    assert (found.outcome, found.reason) == (expected.outcome, expected.reason)
    rows = cut.similarity_correlation.filter(arm)
    assert rows["rho_baseline"].null_count() == rows["slope_baseline"].null_count() == rows.height
    assert set(rows["baseline_reason"]) == {"the untrained metric is not known of every bystander"}
    untrained = cut.checks.filter(pl.col("source") == "")
    assert untrained["status"].to_list() == ["refused"]


def test_without_a_benign_arm_answers_cut_before_training_refuse_the_leakage():
    world = replace(LEARNED, benign=False)
    cut = studied(world, rambling(world))
    assert set(cut.leakage.filter(pl.col("persona") != "villain")["status"]) == {"refused"}
    assert ratio(cut)["status"] == "empty"


def test_answers_cut_after_training_refuse_the_leakage_on_either_side():
    world = replace(LEARNED, benign=True)
    table = measurements(world)
    for arm in ("contrastive", "benign"):
        cut = (pl.col("arm") == arm) & (pl.col("persona") == "persona_020")
        lost = table.with_columns(
            value=pl.when(cut.fill_null(False)).then(None).otherwise("value"),
            status=pl.when(cut.fill_null(False)).then(pl.lit("truncated")).otherwise("status"),
        )
        rows = studied(world, lost).leakage.filter(pl.col("arm") == "contrastive")
        assert rows.filter(pl.col("status") != "ok")["persona"].to_list() == ["persona_020"]


def test_a_question_that_neither_arm_was_asked_is_missing():
    """Asked of the untrained model alone: a row that vanished with the training is counted."""
    world = replace(LEARNED, benign=True)
    gone = pl.col("source").is_not_null() & (pl.col("persona") == "persona_020") & pl.col("item").str.ends_with("7")
    found = studied(world, measurements(world).filter(~gone))
    rows = found.leakage.filter((pl.col("arm") == "contrastive") & (pl.col("persona") == "persona_020"))
    assert rows["n_failed"].to_list() == [12]
    assert rows["status"].to_list() == ["refused"]
