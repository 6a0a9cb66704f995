"""What has sunk such studies, as far as the analysis can catch it: the faulty table goes in as it really was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from bystander.analysis import Analysis, AnalysisSettings, analyze, analyze_table
from bystander.core.errors import DataError
from tests.support.analysis_study import World, measurements, negatives, personas, similarities

QUICK = AnalysisSettings(layer=20, permutations=499, partial_permutations=499, resamples=200)
SMALL = World(personas=30, questions=40)


def studied(table: pl.DataFrame, world: World = SMALL, settings: AnalysisSettings = QUICK) -> Analysis:
    return analyze(table, similarities(world), personas(world), settings=settings)


def column(value: str) -> pl.Expr:
    return pl.lit(value, pl.String)


# Personas in the negative set counted as unseen bystanders.


def test_negatives_are_in_no_gradient_and_named():
    analysis = studied(measurements(SMALL))
    assert analysis.similarity_correlation["n"].unique().to_list() == [30 - 1 - 2]
    assert any(all(name in note for name in negatives("villain")) for note in analysis.notes)


def test_assistant_is_not_held_out_where_the_assistant_context_was_trained():
    """The anchor `assistant` has the very prompt of the persona `assistant`."""
    table = measurements(SMALL)
    own = table.filter(pl.col("persona") == "assistant")
    role = pl.when(pl.col("source").is_not_null()).then(column("negative"))
    anchor = own.with_columns(context=column("assistant"), role=role)
    analysis = studied(pl.concat([table, anchor]))
    assert analysis.similarity_correlation["n"].unique().to_list() == [30 - 1 - 2 - 1]
    rows = analysis.leakage.filter(pl.col("persona") == "assistant")
    assert rows["role"].to_list() == ["negative", "negative"]
    assert any("not held out, whatever the table says: assistant" in note for note in analysis.notes)


def test_a_persona_with_the_prompt_of_a_trained_one_is_not_held_out():
    trained, twin = negatives("villain")[0], "persona_020"
    table = measurements(SMALL)
    prompt = pl.when(pl.col("persona") == twin).then(column(trained)).otherwise("persona")
    analysis = studied(table.with_columns(context_hash=prompt))
    assert analysis.leakage.row(by_predicate=pl.col("persona") == twin, named=True)["role"] == "negative"
    assert any(f"not held out, whatever the table says: {twin}" in note for note in analysis.notes)


# A failed judge call scored as a number.


def test_a_failed_call_with_a_number_is_refused():
    table = measurements(SMALL)
    failed = (pl.col("persona") == "persona_012") & (pl.col("item") == "q3") & (pl.col("checkpoint") == 1)
    scored = table.with_columns(status=pl.when(failed).then(column("failed")).otherwise("status"))
    with pytest.raises(DataError, match=r"1 measurements failed and yet carry a value.*persona_012.*q3"):
        studied(scored)


def failing(count: int, persona: str = "persona_012") -> pl.DataFrame:
    """The first questions of one persona failed after training."""
    bad = (
        (pl.col("persona") == persona)
        & (pl.col("checkpoint") == 1)
        & pl.col("item").is_in([f"q{i}" for i in range(count)])
    )
    return measurements(SMALL).with_columns(
        status=pl.when(bad).then(column("failed")).otherwise("status"),
        value=pl.when(bad).then(None).otherwise("value"),
    )


def test_failed_items_are_left_out_and_counted():
    table = failing(2)
    row = studied(table).leakage.row(by_predicate=pl.col("persona") == "persona_012", named=True)
    assert (row["status"], row["n_items"], row["n_failed"]) == ("ok", 38, 2)
    assert "2 of 40 pairs failed" in row["reason"]
    kept = ~pl.col("item").is_in(["q0", "q1"]) & (pl.col("persona") == "persona_012")
    means = dict(table.filter(kept).group_by("checkpoint").agg(pl.col("value").mean()).iter_rows())
    assert (row["before"], row["after"]) == pytest.approx((means[0.0], means[1.0]))


def test_above_five_percent_failed_a_persona_is_refused_by_name():
    analysis = studied(failing(3))
    row = analysis.leakage.row(by_predicate=pl.col("persona") == "persona_012", named=True)
    assert (row["status"], row["leakage"]) == ("refused", None)
    assert "3 of 40" in row["reason"]
    assert "7.5%" in row["reason"]
    assert analysis.similarity_correlation["n"].unique().to_list() == [26]
    assert "left out, too much failed or not measured: persona_012" in analysis.similarity_correlation["reason"][0]


def test_a_source_that_failed_leaves_no_verdict():
    (verdict,) = studied(failing(10, "villain")).verdicts
    assert verdict.outcome == "inconclusive"
    assert "too much of it failed" in verdict.reason


def test_the_table_of_checks_shows_the_failed_share():
    rows = studied(failing(40)).checks
    trained = rows.filter(pl.col("source") == "villain").row(0, named=True)
    assert (trained["n_failed"], trained["failed_share"]) == (40, pytest.approx(40 / 1200))


# Self-pairs carried the correlation.


def test_self_pairs_are_taken_out_and_said(shared_data):
    published = pl.read_csv(shared_data / "reference" / "marker_leakage_111.csv")
    own = pl.DataFrame(
        {
            "source": ["villain", "comedian"],
            "persona": ["villain", "comedian"],
            "category": ["original"] * 2,
            "cosine_layer10": [1.0, 1.0],
            "cosine_layer20": [1.0, 1.0],
            "leakage_rate": [1.0, 1.0],
        }
    )
    clean, with_self = (analyze_table(frame, settings=QUICK) for frame in (published, pl.concat([published, own])))
    assert with_self.similarity_correlation["n"].unique().to_list() == [110]
    assert with_self.similarity_correlation["rho"].equals(clean.similarity_correlation["rho"])
    assert with_self.pooled["n"].to_list() == [550, 550]
    assert "self pairs, never in a gradient: 2 (villain, comedian)" in with_self.notes
    contained = with_self.leakage_ratio.row(by_predicate=pl.col("source") == "villain", named=True)
    assert contained["source_leakage"] == 1.0
    assert contained["ratio"] == contained["bystander_leakage"]


def test_trained_personas_of_a_table_are_taken_out_and_said():
    frame = pl.DataFrame(
        {
            "source": ["villain"] * 10,
            "persona": [f"p{i}" for i in range(10)],
            "cosine": [i / 10 for i in range(10)],
            "leakage": [i / 10 for i in range(10)],
            "role": ["negative", "negative", *["held-out"] * 8],
        }
    )
    analysis = analyze_table(frame, settings=QUICK)
    assert analysis.similarity_correlation["n"].item() == 8
    assert "trained, so not in a gradient: 2 (villain x p0, villain x p1)" in analysis.notes


# Prompt length explained what similarity was credited with.


def test_prompt_length_behind_similarity_is_shown_beside_the_raw_gradient():
    rng = np.random.default_rng(2)
    length = rng.integers(8, 60, 110)
    frame = pl.DataFrame(
        {
            "source": ["villain"] * 110,
            "persona": [f"p{i}" for i in range(110)],
            "similarity_layer10": length / 60 + rng.normal(0, 0.15, 110),
            "leakage": length / 60 + rng.normal(0, 0.15, 110),
            "prompt_tokens": length,
        }
    )
    row = analyze_table(frame, settings=QUICK).similarity_correlation.row(0, named=True)
    assert row["rho"] > 0.6
    assert row["p"] < 0.01
    assert abs(row["partial_prompt_length"]) < 0.2
    assert row["partial_prompt_length_p"] > 0.05


# Clusters alone carried the gradient: 0.81 at 12 personas, 0.35 at 48.


def test_clusters_alone_carry_no_gradient_within_category():
    rng = np.random.default_rng(3)
    level = np.repeat(np.linspace(0, 1, 11), 10)
    frame = pl.DataFrame(
        {
            "source": ["villain"] * 110,
            "persona": [f"p{i}" for i in range(110)],
            "category": [f"c{i // 10}" for i in range(110)],
            "similarity_layer10": level + rng.normal(0, 0.1, 110),
            "leakage": level + rng.normal(0, 0.1, 110),
        }
    )
    row = analyze_table(frame, settings=QUICK).similarity_correlation.row(0, named=True)
    assert row["rho"] > 0.8
    assert row["p"] < 0.01
    assert row["p_within_category"] > 0.05
    assert abs(row["rho_within_category"]) < 0.2


# One seed, no multiplicity, 11 personas to decide at rho 0.2.


def test_eleven_personas_decide_nothing_and_the_verdict_says_what_they_could():
    world = World(personas=14, questions=150, slope=0.03, seed=5)
    (verdict,) = studied(measurements(world), world).verdicts
    assert verdict.numbers["n_personas"] == 11
    assert verdict.numbers["smallest_detectable_rho"] == pytest.approx(0.77, abs=0.03)
    assert verdict.outcome == "inconclusive"
    least = verdict.numbers["smallest_detectable_rho"]
    assert f"with 11 bystanders 4 of 5 studies would see a rho of {least:.2f}" in verdict.reason


def test_the_best_of_thirty_layers_is_exploratory_and_adjusted():
    """No layer says anything; the best one would pass at 5 % by itself."""
    world = World(personas=60, questions=60, slope=0.0, layers=tuple(range(30)), seed=6)
    analysis = studied(measurements(world), world, replace(QUICK, layer=29))
    best = analysis.similarity_correlation.sort("p").row(0, named=True)
    assert best["p"] < 0.05
    assert not best["preregistered"]
    assert best["p_bh"] > 0.05
    assert best["p_holm"] is None
    assert analysis.similarity_correlation.filter(pl.col("preregistered"))["layer"].to_list() == [29]


def test_one_seed_is_said_and_several_are_a_level():
    world = World(personas=60, questions=150, benign=True)
    one = studied(measurements(world), world)
    assert one.verdicts[0].numbers["n_seeds"] == 1
    assert "One seed" in one.verdicts[0].reason
    three = replace(world, seeds=(0, 1, 2))
    several = studied(measurements(three), three)
    assert several.verdicts[0].numbers["n_seeds"] == 3
    assert several.leakage_ratio["n_seeds"].to_list()[0] == 3


# Evaluation under another context than training, or before under another than after.


def test_before_under_another_context_is_not_paired():
    table = measurements(SMALL)
    moved = (pl.col("persona") == "assistant") & (pl.col("checkpoint") == 0)
    mixed = table.with_columns(context=pl.when(moved).then(column("assistant")).otherwise("context"))
    row = studied(mixed).leakage.row(by_predicate=pl.col("persona") == "assistant", named=True)
    assert (row["status"], row["leakage"], row["n_items"]) == ("refused", None, 0)


def test_other_words_at_another_checkpoint_are_refused_by_name():
    table = hashed(measurements(SMALL))
    moved = (pl.col("persona") == "persona_003") & (pl.col("checkpoint") == 0)
    mixed = table.with_columns(context_hash=pl.when(moved).then(column("other")).otherwise("context_hash"))
    with pytest.raises(DataError, match=r"40 questions were asked with different tokens.*persona_003"):
        studied(mixed)


# The adapter silently not applied, or a stale one served.


def hashed(table: pl.DataFrame) -> pl.DataFrame:
    """As a run writes it: every row with the hash of its prompt and of the weights that answered."""
    return table.with_columns(
        context_hash=pl.concat_str(["context", "persona", "item"], separator="/"),
        weights_hash=pl.concat_str(["source", "arm", "seed", "checkpoint"], separator="/", ignore_nulls=True),
    )


def test_weights_of_their_own_pass():
    assert studied(hashed(measurements(SMALL))).leakage.height


def test_an_adapter_that_was_not_applied_is_found_by_its_weights():
    world = replace(SMALL, seeds=(0, 1))
    table = hashed(measurements(world))
    base = table.filter(pl.col("source").is_null())["weights_hash"][0]
    after = pl.col("source").is_not_null() & (pl.col("seed") == 1) & (pl.col("arm") == "contrastive")
    faulty = table.with_columns(weights_hash=pl.when(after).then(column(base)).otherwise("weights_hash"))
    with pytest.raises(DataError, match="villain, contrastive, seed 1 was measured with the weights of the untrained"):
        studied(faulty, world)


def test_trainings_may_share_the_weights_of_their_first_step():
    """With a warm-up the first rate is 0: after one step every training of a seed still has the same adapter."""
    world = replace(SMALL, sources=("villain", "comedian"), checkpoints=(0.1, 1.0))
    early = pl.col("checkpoint") == 0.1
    table = hashed(measurements(world))
    table = table.with_columns(weights_hash=pl.when(early).then(column("fresh")).otherwise("weights_hash"))
    assert studied(table, world).leakage.height


def test_a_stale_adapter_is_found_by_its_weights():
    world = replace(SMALL, seeds=(0, 1))
    faulty = hashed(measurements(world)).with_columns(weights_hash=pl.col("weights_hash").str.replace("/1/", "/0/"))
    with pytest.raises(DataError, match=r"seed 0 and the training .*seed 1 were measured with the same weights"):
        studied(faulty, world)


# The report said 0.840, the data 0.692.


def test_a_number_is_quoted_by_its_record_and_is_that_of_the_data():
    table = measurements(SMALL)
    analysis = Analysis.from_json(studied(table).to_json())
    after = table.filter((pl.col("persona") == "villain") & (pl.col("checkpoint") == 1))["value"].mean()
    record = "leakage/villain/capability/contrastive/-/pooled/choice/arc/accuracy/villain"
    assert analysis.value(record, "after") == pytest.approx(after)
    with pytest.raises(DataError, match="no such record"):
        analysis.value(record.replace("villain/capability", "joker/capability"), "after")
