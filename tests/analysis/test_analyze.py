"""`analyze` on simulated studies whose truth is known."""

from __future__ import annotations

import polars as pl
import pytest

from bystander.analysis import Analysis, AnalysisSettings, analyze
from bystander.core.errors import DataError
from tests.support.analysis_study import World, measurements, negatives, personas, similarities

QUICK = AnalysisSettings(layer=20, permutations=499, partial_permutations=199, resamples=400)


def studied(world: World, settings: AnalysisSettings = QUICK) -> Analysis:
    return analyze(measurements(world), similarities(world), personas(world), settings=settings)


@pytest.fixture(scope="module")
def one() -> Analysis:
    """One source, one seed, five checkpoints."""
    return studied(World(checkpoints=(0.25, 0.5, 0.75, 1.0), questions=100, personas=60))


@pytest.fixture(scope="module")
def several() -> Analysis:
    """Two sources, two arms, two seeds."""
    return studied(World(sources=("villain", "comedian"), arms=("contrastive", "non_contrastive"), seeds=(0, 1)))


def test_planted_effects_are_found(one):
    row = one.leakage_ratio.row(0, named=True)
    assert row["source_low"] < row["source_leakage"] < row["source_high"]
    assert row["source_leakage"] == pytest.approx(0.4 * 0.9, abs=0.15)  # questions differ: less than the drop of logits
    assert row["bystander_p"] < 0.001
    assert row["ratio"] == pytest.approx(row["bystander_leakage"] / row["source_leakage"])
    assert row["ratio_low"] < row["ratio"] < row["ratio_high"]
    true = one.similarity_correlation.row(by_predicate=pl.col("layer") == 20, named=True)
    other = one.similarity_correlation.row(by_predicate=pl.col("layer") == 10, named=True)
    assert true["rho"] > 0.4
    assert true["p"] < 0.01
    assert abs(other["rho"]) < 0.3
    assert true["rho_corrected"] > true["rho"], "noise of the items hides a part of the correlation"


def test_leakage_is_the_mean_paired_change(one):
    world = World(checkpoints=(0.25, 0.5, 0.75, 1.0), questions=100, personas=60)
    table = measurements(world).filter(pl.col("persona") == "persona_020")
    before = table.filter(pl.col("checkpoint") == 0)["value"].mean()
    after = table.filter(pl.col("checkpoint") == 1)["value"].mean()
    row = one.leakage.row(by_predicate=pl.col("persona") == "persona_020", named=True)
    assert (row["before"], row["after"]) == pytest.approx((before, after))
    assert row["leakage"] == pytest.approx(before - after)  # accuracy: down is the behavior's direction
    assert row["n_items"] == 100
    assert 0 <= row["p_mcnemar"] <= 1


def test_source_and_negatives_are_never_in_a_gradient(one):
    assert one.similarity_correlation["n"].unique().to_list() == [60 - 1 - 2]
    assert one.leakage_ratio["n"].item() == 57
    assert any(all(name in note for name in negatives("villain")) for note in one.notes)
    roles = dict(one.roles.select("role", "n").iter_rows())
    assert roles == {"source": 1, "negative": 2, "held-out": 57}
    assert one.categories["n"].sum() == 57


def test_every_record_is_named_once(one, several):
    for analysis in (one, several):
        records = pl.concat([table.select("record") for table in analysis.tables().values()])["record"]
        assert records.n_unique() == records.len()
        assert records.null_count() == 0


def test_no_number_is_nan(one, several):
    for analysis in (one, several):
        for name, table in analysis.tables().items():
            floats = table.select(pl.selectors.float())
            assert floats.select(pl.all().is_nan().any()).row(0).count(True) == 0 if floats.width else True, name


def test_seeds_are_pooled_first_and_then_shown(several):
    assert several.similarity_correlation.filter(pl.col("seed").is_null()).height == 2 * 2 * 2
    assert several.similarity_correlation.filter(pl.col("seed").is_not_null()).height == 2 * 2 * 2 * 2
    pooled = several.leakage.filter(pl.col("seed").is_null() & (pl.col("persona") == "persona_020")).row(0, named=True)
    by_seed = several.leakage.filter(
        pl.col("seed").is_not_null()
        & (pl.col("persona") == "persona_020")
        & (pl.col("arm") == pooled["arm"])
        & (pl.col("source") == pooled["source"])
    )
    assert pooled["n_seeds"] == 2
    assert pooled["leakage"] == pytest.approx(by_seed["leakage"].mean())
    assert pooled["p_mcnemar"] is None  # the seeds share their untrained answers: pairs are not independent


def test_preregistered_tests_are_adjusted_by_holm_and_the_rest_by_bh(several):
    rows = several.similarity_correlation.filter(pl.col("preregistered"))
    assert rows.select("arm", "layer", "seed").unique().rows() == [("contrastive", 20, None)]
    assert rows.height == 2
    assert (rows["p_holm"] >= rows["p"]).all()
    assert rows["p_bh"].null_count() == 2
    rest = several.similarity_correlation.filter(~pl.col("preregistered") & pl.col("seed").is_null())
    assert rest["p_holm"].null_count() == rest.height
    assert (rest["p_bh"] >= rest["p"]).all()


def test_gradient_is_in_the_contrastive_arm_only(several):
    rows = {row["arm"]: row for row in several.pooled.filter(pl.col("layer") == 20).iter_rows(named=True)}
    assert rows["contrastive"]["rho"] > 0.5
    assert rows["contrastive"]["p_matrix"] < 0.01
    assert rows["contrastive"]["p_stratified"] < 0.01
    assert abs(rows["non_contrastive"]["rho"]) < 0.35
    assert rows["contrastive"]["n_sources"] == 2


def test_no_layer_declared_means_nothing_is_preregistered_and_no_verdict():
    analysis = studied(World(), AnalysisSettings(permutations=99, partial_permutations=99, resamples=100))
    assert not analysis.similarity_correlation["preregistered"].any()
    (verdict,) = analysis.verdicts
    assert verdict.outcome == "inconclusive"
    assert "no layer was declared" in verdict.reason


def test_evolution_starts_at_zero_and_watches_nine(one):
    assert one.evolution.filter(pl.col("checkpoint") == 0)["leakage"].unique().to_list() == [0.0]
    counts = dict(one.evolution.group_by("checkpoint").len().iter_rows())
    assert counts == {0.0: 60, 0.25: 9, 0.5: 9, 0.75: 9, 1.0: 60}
    assert sorted(one.evolution["quintile"].drop_nulls().unique().to_list()) == [1, 2, 3, 4, 5]
    assert one.quintiles.group_by("checkpoint").agg(pl.col("n").sum())["n"].unique().to_list() == [8]


def test_power_names_what_this_study_could_have_found(one):
    rows = {row["test"]: row for row in one.power.iter_rows(named=True)}
    assert 0.3 < rows["similarity correlation"]["smallest"] < 0.7
    assert 0.05 < rows["source change"]["smallest"] < 0.25
    assert rows["source change"]["n"] == 100
    assert rows["mean bystander change"]["smallest"] < rows["source change"]["smallest"]


def test_same_records_give_the_same_bits():
    world = World(personas=24, questions=30)
    assert studied(world).to_json() == studied(world).to_json()


def test_rows_in_another_order_give_the_same_numbers():
    world = World(personas=24, questions=30)
    shuffled = measurements(world).sample(fraction=1.0, shuffle=True, seed=3)
    first = studied(world)
    second = analyze(shuffled, similarities(world).reverse(), personas(world).reverse(), settings=QUICK)
    assert first.to_json() == second.to_json()


@pytest.mark.parametrize(
    "world",
    [
        World(personas=24, questions=30, probe="marker", dataset="bank", metric="marker_rate", behavior="marker"),
        World(personas=24, questions=30),  # of any probe, whatever its items are called
    ],
)
def test_samples_of_one_question_are_one_question(world):
    table = measurements(world)
    twice = pl.concat([table.with_columns(item=pl.col("item") + f"#{i}", question=pl.col("item")) for i in range(2)])
    analysis = analyze(twice, similarities(world), personas(world), settings=QUICK)
    assert analysis.leakage["n_items"].unique().to_list() == [30]
    assert analysis.leakage["standard_error"].equals(studied(world).leakage["standard_error"])
    assert analysis.leakage["p_mcnemar"].equals(studied(world).leakage["p_mcnemar"])
    apart = analyze(twice.with_columns(question=pl.lit("")), similarities(world), personas(world), settings=QUICK)
    assert apart.leakage["n_items"].unique().to_list() == [60]  # without a question each item is one


def test_ids_of_questions_that_end_in_numbers_stay_apart():
    world = World(personas=24, questions=30)
    table = measurements(world).with_columns(item="arc/" + pl.col("item").str.strip_prefix("q"))
    analysis = analyze(table, similarities(world), personas(world), settings=QUICK)
    assert analysis.leakage["n_items"].unique().to_list() == [30]


def test_paraphrases_of_a_judged_question_are_one_and_refusals_are_not_failures():
    world = World(personas=24, questions=20, probe="judged", dataset="open", metric="aligned", behavior="misalignment")
    table = measurements(world).with_columns(value=100 * pl.col("value"))
    refused = (pl.col("persona") == "persona_012") & pl.col("item").is_in([f"q{i}" for i in range(6)])
    table = table.with_columns(
        status=pl.when(refused & (pl.col("checkpoint") == 1)).then(pl.lit("refused")).otherwise("status"),
        value=pl.when(refused & (pl.col("checkpoint") == 1)).then(None).otherwise("value"),
    )
    twice = pl.concat([table.with_columns(item=pl.col("item") + f"/{i}/0", question=pl.col("item")) for i in (0, 1)])
    analysis = analyze(twice, similarities(world), personas(world), settings=QUICK)
    row = analysis.leakage.row(by_predicate=pl.col("persona") == "persona_012", named=True)
    assert (row["status"], row["n_items"], row["n_failed"]) == ("ok", 14, 0)
    assert "6 of 20 pairs have no score" in row["reason"]
    trained = analysis.checks.row(by_predicate=pl.col("source") == "villain", named=True)
    assert (trained["n_failed"], trained["n_refused"]) == (0, 12)


def test_one_question_has_a_value_and_no_interval():
    analysis = studied(World(personas=24, questions=1))
    row = analysis.leakage.row(0, named=True)
    assert (row["status"], row["low"], row["standard_error"]) == ("single", None, None)
    assert row["leakage"] is not None
    assert analysis.verdicts[0].outcome == "inconclusive"


def test_sweep_is_a_phase_diagram():
    worlds = [
        World(config=f"{name} rate", lr=lr, epochs=3, source_drop=drop, seed=i)
        for i, (name, lr, drop) in enumerate((("low", 1e-6, 0.0), ("high", 1e-5, 0.5)))
    ]
    table = pl.concat([measurements(worlds[0]), measurements(worlds[1]).filter(pl.col("source").is_not_null())])
    analysis = analyze(table, similarities(worlds[0]), personas(worlds[0]), settings=QUICK)
    phase = analysis.phase.sort("lr")
    assert phase["lr"].to_list() == [1e-6, 1e-5]
    assert phase["epochs"].to_list() == [3, 3]
    assert phase["source_effect"][0] < 0.25 < phase["source_effect"][1]
    assert analysis.verdicts[0].numbers["config"] == "high rate"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.drop("item", "question"), "lacks the columns item, question"),
        (lambda t: t.with_columns(lr=pl.when(pl.col("item") == "q1").then(0.1).otherwise("lr")), "has 2 recipes"),
        (lambda t: t.filter(pl.col("checkpoint") > 0), "no measurement of the untrained model"),
        (lambda t: pl.concat([t, t.filter(pl.col("checkpoint") == 0)]), "several values of one question.*two runs"),
        (lambda t: pl.concat([t, t.filter(pl.col("checkpoint") == 1)]), "several values of one question.*two runs"),
        (lambda t: t.with_columns(metric=pl.lit("niceness")), "unknown metrics choice/niceness"),
        (lambda t: t.with_columns(role=pl.lit(None, pl.String)), "belong to a training and have no role"),
        (lambda t: t.with_columns(value=pl.lit(None, pl.Float64)), "have status ok and no value"),
    ],
)
def test_tables_that_contradict_themselves_are_refused(change, says):
    world = World(personas=18, questions=5)
    with pytest.raises(DataError, match=says):
        analyze(change(measurements(world)), similarities(world), personas(world), settings=QUICK)


def test_similarities_that_are_there_twice_are_refused():
    world = World(personas=18, questions=5)
    table = similarities(world)
    with pytest.raises(DataError, match="similarities are there twice"):
        analyze(measurements(world), pl.concat([table, table]), personas(world), settings=QUICK)
    with pytest.raises(DataError, match="lacks the columns layer"):
        analyze(measurements(world), table.drop("layer"), personas(world), settings=QUICK)


def test_a_persona_without_similarity_is_left_out_and_named():
    world = World(personas=24, questions=30)
    table = similarities(world).filter(pl.col("persona") != "persona_015")
    analysis = analyze(measurements(world), table, personas(world), settings=QUICK)
    assert analysis.similarity_correlation["n"].unique().to_list() == [20]
    assert "persona_015" in analysis.similarity_correlation["reason"][0]


def test_a_source_is_ranked_among_all_personas_where_some_predictors_know_the_sources_alone(several):
    rows = several.similarity_correlation.filter(pl.col("seed").is_null() & (pl.col("arm") == "contrastive"))
    assert rows["p_specific"].null_count() == 0
    assert rows["p_specific_attainable"].to_list() == [pytest.approx(1 / 40)] * rows.height
    assert (rows["p_layers"] >= rows["p_specific"]).all()
    world = World(questions=30, arms=("contrastive",))
    own = similarities(world).filter((pl.col("source") == "villain") & (pl.col("layer") == 20))
    few = own.with_columns(method=pl.lit("jensen_shannon"), layer=pl.lit(-1, pl.Int64))
    table = pl.concat([similarities(world), few])
    found = analyze(measurements(world), table, personas(world), settings=QUICK).similarity_correlation
    known = dict(found.select("method", "p_specific").unique().iter_rows())
    assert known["jensen_shannon"] is None
    assert known["cosine"] is not None


def test_two_sources_allow_no_p_below_a_half(several):
    rows = several.pooled.filter((pl.col("layer") == 20) & (pl.col("arm") == "contrastive"))
    assert rows["p_specific_attainable"].item() == 0.5
    assert rows["p_specific"].item() >= 0.5


@pytest.mark.parametrize("source", ["villain", "assistant"])
def test_a_bare_context_of_a_persona_s_name_is_not_taken_for_it(source):
    """`assistant` is a persona and a bare context; each has a number of its own in every table."""
    world = World(sources=(source,), categories=40)  # a category for each persona
    table = measurements(world)
    bare = table.filter(pl.col("persona") == "assistant").with_columns(
        context=pl.lit("assistant"),
        value=pl.when(pl.col("checkpoint") > 0).then(1.0 - pl.col("value")).otherwise("value"),
    )
    found = analyze(pl.concat([bare, table]), similarities(world), personas(world), settings=QUICK)
    plain = studied(world)
    for name in ("leakage", "categories"):
        own = getattr(found, name)
        if name == "leakage":
            own = own.filter(pl.col("context") == "persona")
        assert own.drop("record").equals(getattr(plain, name).drop("record")), name
    after = {row["context"]: row["after"] for row in found.leakage.filter(pl.col("persona") == "assistant").to_dicts()}
    assert after["assistant"] == pytest.approx(1 - after["persona"])
