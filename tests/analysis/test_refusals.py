"""Tables that must be refused or flagged: each fault as it really was."""

from __future__ import annotations

import polars as pl
import pytest

from bystander.analysis import AnalysisSettings, analyze, analyze_table
from bystander.core.errors import DataError
from tests.support.analysis_study import World, measurements, personas, similarities

QUICK = AnalysisSettings(layer=20, permutations=99, partial_permutations=99, resamples=100)
WORLD = World(personas=24, questions=20)


def table(**changes: object) -> pl.DataFrame:
    columns: dict[str, object] = {
        "source": ["villain"] * 12,
        "persona": [f"p{i}" for i in range(12)],
        "cosine_layer3": [0.05 * i + 0.0123457 * (i % 3) for i in range(12)],
        "leakage": [(i * 7 % 5) / 50 + i / 120 for i in range(12)],
        **changes,
    }
    return pl.DataFrame(columns)


def studied(rows: pl.DataFrame, world: World = WORLD, **tables: pl.DataFrame):
    facts = tables.get("personas", personas(world))
    return analyze(rows, tables.get("similarities", similarities(world)), facts, settings=QUICK)


@pytest.mark.parametrize("spelled", ["Villain", "villain ", "VILLAIN"])
def test_the_source_under_another_spelling_is_refused(spelled):
    with pytest.raises(DataError, match="one name in two spellings"):
        analyze_table(table(persona=[spelled, *(f"p{i}" for i in range(1, 12))]), settings=QUICK)
    renamed = pl.when(pl.col("persona") == "persona_012").then(pl.lit(spelled)).otherwise("persona")
    with pytest.raises(DataError, match="one name in two spellings"):
        studied(measurements(WORLD).with_columns(persona=renamed))


def test_a_spelling_that_differs_between_tables_is_refused():
    renamed = pl.col("persona").replace({"persona_012": "Persona 012"})
    with pytest.raises(DataError, match="'Persona 012' and 'persona_012'"):
        studied(measurements(WORLD), similarities=similarities(WORLD).with_columns(persona=renamed))


def test_a_cosine_of_one_that_is_not_the_source_is_refused():
    with pytest.raises(DataError, match="p3 has a cosine of 1 with villain"):
        analyze_table(
            table(cosine_layer3=[0.1 * i if i != 3 else 1.0 for i in range(10)] + [0.33, 0.44]), settings=QUICK
        )


def test_copies_in_a_table_count_once():
    frame = table()
    copy = frame.filter(pl.col("persona") == "p5").with_columns(persona=pl.lit("p5_again"))
    found = analyze_table(pl.concat([frame, copy]), settings=QUICK)
    assert found.similarity_correlation["n"].to_list() == [12]
    assert any("copies, counted once" in note and "p5_again" in note for note in found.notes)


def test_copies_in_measurements_count_once():
    facts = personas(WORLD)
    prompts = pl.when(pl.col("persona") == "persona_015").then(pl.lit("You are persona_014.")).otherwise("prompt")
    found = studied(measurements(WORLD), personas=facts.with_columns(prompt=prompts))
    assert found.similarity_correlation["n"].unique().to_list() == [24 - 1 - 2 - 1]
    assert any("copies, counted once: persona_015" in note for note in found.notes)
    assert found.leakage.row(by_predicate=pl.col("persona") == "persona_015", named=True)["role"] == "copy"


def test_twins_of_a_trained_persona_by_context_hash_are_taken_out_of_a_table():
    hashes = [f"h{i}" for i in range(12)]
    hashes[7] = "h2"
    roles = ["negative" if i == 2 else "held-out" for i in range(12)]
    found = analyze_table(table(role=roles, context_hash=hashes), settings=QUICK)
    assert found.similarity_correlation["n"].to_list() == [10]
    assert any("villain x p7" in note and "very prompt of a trained persona" in note for note in found.notes)


def test_one_persona_that_carries_the_mean_is_flagged():
    found = analyze_table(table(leakage=[0.9] + [0.001 * i for i in range(11)]), settings=QUICK)
    row = found.leakage_ratio.row(0, named=True)
    assert row["carried"]
    assert row["mean_without_max"] == pytest.approx(0.005)
    assert not analyze_table(table(), settings=QUICK).leakage_ratio["carried"].item()


def test_all_but_one_alike_gets_no_interval():
    found = analyze_table(table(leakage=[0.0] * 11 + [0.4]), settings=QUICK)
    row = found.similarity_correlation.row(0, named=True)
    assert row["rho"] is not None
    assert (row["low"], row["high"]) == (None, None)
    assert "fewer than 4 bystanders differ" in row["reason"]


def test_more_missing_than_the_limit_is_refused():
    with pytest.raises(DataError, match=r"2 of 12 rows have no leakage, above 5%"):
        analyze_table(table(leakage=[None, float("nan"), *(i / 50 for i in range(10))]), settings=QUICK)


def test_distances_are_refused():
    frame = table().rename({"cosine_layer3": "distance_layer3"})
    with pytest.raises(DataError, match="is a distance by its name"):
        analyze_table(frame, similarity=["distance_layer3"], settings=QUICK)
    own = table(
        persona=["villain", *(f"p{i}" for i in range(1, 12))], cosine_layer3=[0.0, *(0.1 + i / 20 for i in range(11))]
    )
    with pytest.raises(DataError, match="Distances"):
        analyze_table(own, settings=QUICK)


def test_cosines_beyond_one_are_refused():
    with pytest.raises(DataError, match=r"1\.2 for villain x p11 is no cosine"):
        analyze_table(table(cosine_layer3=[*(i / 20 for i in range(11)), 1.2]), settings=QUICK)


def test_two_layers_in_one_column_are_refused():
    with pytest.raises(DataError, match="two layers in one column"):
        analyze_table(table(layer=[10] * 6 + [20] * 6), settings=QUICK)


def test_percent_in_place_of_fractions_is_refused():
    frame = table(leakage=[3.0 * i for i in range(12)]).rename({"leakage": "leakage_rate"})
    with pytest.raises(DataError, match="Percent"):
        analyze_table(frame, settings=QUICK)
    with pytest.raises(DataError, match=r"choice/accuracy is a fraction in \[0, 1\].*Percent"):
        studied(measurements(WORLD).with_columns(pl.col("value") * 100))


def test_infinite_margins_are_refused():
    world = World(personas=24, questions=20, metric="margin")
    rows = measurements(world)
    infinite = rows.with_columns(value=pl.when(pl.int_range(pl.len()) == 7).then(float("-inf")).otherwise("value"))
    with pytest.raises(DataError, match="are infinite"):
        studied(infinite, world)


def test_a_constant_similarity_says_so():
    found = analyze_table(table(cosine_layer3=[0.3] * 12), settings=QUICK)
    row = found.similarity_correlation.row(0, named=True)
    assert (row["status"], row["rho"]) == ("constant", None)
    assert "equally similar" in row["reason"]


def test_items_missing_after_training_are_counted():
    rows = measurements(WORLD)
    gone = (pl.col("checkpoint") == 1) & (pl.col("persona") == "persona_012") & pl.col("item").is_in(["q0", "q1"])
    found = studied(rows.filter(~gone))
    row = found.leakage.row(by_predicate=pl.col("persona") == "persona_012", named=True)
    assert (row["n_failed"], row["status"]) == (2, "refused")
    check = found.checks.row(by_predicate=pl.col("source") == "villain", named=True)
    assert check["n_missing"] == 2
    assert "never asked after it" in check["reason"]
    everybody = (pl.col("checkpoint") == 1) & (pl.col("item") == "q3")
    assert studied(rows.filter(~everybody)).checks["n_missing"].max() == 24


def test_personas_that_lack_a_checkpoint_are_named():
    world = World(personas=24, questions=20, checkpoints=(0.25, 0.5, 1.0))
    rows = measurements(world)
    watched = rows.filter(pl.col("checkpoint") == 0.5)["persona"].unique().sort().to_list()
    lost = next(name for name in watched if name.startswith("persona"))
    found = studied(rows.filter(~((pl.col("checkpoint") == 0.5) & (pl.col("persona") == lost))), world)
    assert any(lost in note and "at some checkpoints and not at others" in note for note in found.notes)
    never = studied(rows.filter((pl.col("checkpoint") == 0) | (pl.col("persona") != lost)), world)
    assert any(lost in note and "never after it" in note for note in never.notes)


def test_roles_that_nobody_knows_are_refused():
    with pytest.raises(DataError, match="roles that nobody knows: bystander"):
        analyze_table(table(role=["bystander"] * 12), settings=QUICK)
    odd = pl.when(pl.col("role") == "held-out").then(pl.lit("heldout")).otherwise("role")
    with pytest.raises(DataError, match="a role that nobody knows"):
        studied(measurements(WORLD).with_columns(role=odd))


def test_before_and_after_swapped_are_refused_or_said():
    rows = measurements(WORLD)
    with pytest.raises(DataError, match="before and after mixed up"):
        studied(rows.with_columns(checkpoint=1.0 - pl.col("checkpoint")))
    before = rows.filter(pl.col("checkpoint") == 0).select("persona", "item", before="value")
    trained = rows.filter(pl.col("checkpoint") == 1).join(before, on=["persona", "item"])
    swapped = trained.with_columns(value="before").drop("before")
    base = rows.filter(pl.col("checkpoint") == 0).with_columns(value=trained["value"])
    row = studied(pl.concat([base, swapped])).leakage_ratio.row(0, named=True)
    assert "the source moved against the behavior" in row["reason"]
