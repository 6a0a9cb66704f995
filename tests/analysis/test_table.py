"""`analyze_table` on the published study, and on tables that are not as they should be."""

from __future__ import annotations

import json
from dataclasses import replace

import polars as pl
import pytest

from bystander.analysis import Analysis, AnalysisSettings, analyze_table, phase_of_table
from bystander.analysis.schemas import TABLES
from bystander.analysis.table import method_and_layer
from bystander.core.errors import DataError

QUICK = AnalysisSettings(permutations=199, partial_permutations=199, resamples=200)


def small(**changes: object) -> pl.DataFrame:
    """Twelve personas of one source."""
    columns: dict[str, object] = {
        "source": ["villain"] * 12,
        "persona": [f"p{i}" for i in range(12)],
        "cosine_layer3": [i / 12 for i in range(12)],
        "leakage": [(i * 7 % 5) / 5 + i / 12 for i in range(12)],
        **changes,
    }
    return pl.DataFrame(columns)


@pytest.fixture(scope="module")
def published(shared_data) -> tuple[Analysis, dict]:
    folder = shared_data / "reference"
    expected = json.loads((folder / "marker_leakage_111.expected.json").read_text())
    return analyze_table(pl.read_csv(folder / "marker_leakage_111.csv")), expected


def test_published_correlations_are_reached_to_0_002(published):
    analysis, expected = published
    for layer, by_source in expected.items():
        at = int(layer.removeprefix("layer"))
        for source, numbers in by_source.items():
            if source == "_aggregate":
                row = analysis.pooled.row(by_predicate=pl.col("layer") == at, named=True)
                assert row["rho_all_pairs"] == pytest.approx(numbers["spearman_rho"], abs=0.002)
            else:
                row = analysis.similarity_correlation.row(
                    by_predicate=(pl.col("layer") == at) & (pl.col("source") == source), named=True
                )
                assert row["rho"] == pytest.approx(numbers["spearman_rho"], abs=0.002)
                assert row["p"] < 0.01
            assert row["n"] == numbers["n_pairs"]


def test_published_gradient_survives_categories_and_persona_effects(published):
    analysis, _ = published
    assert analysis.similarity_correlation["p_within_category"].max() < 0.01
    assert analysis.pooled["p_matrix"].max() < 0.01
    assert analysis.pooled["p_stratified"].max() < 0.01
    assert analysis.pooled["slope_p"].max() < 0.01
    assert (analysis.similarity_correlation["low"] < analysis.similarity_correlation["rho"]).all()
    assert (analysis.similarity_correlation["rho"] < analysis.similarity_correlation["high"]).all()


def test_published_table_has_no_error_of_measurement_to_correct_for(published):
    analysis, _ = published
    assert analysis.similarity_correlation["reliability"].null_count() == analysis.similarity_correlation.height
    assert analysis.similarity_correlation["rho_corrected"].null_count() == analysis.similarity_correlation.height
    assert not analysis.similarity_correlation["preregistered"].any()


def test_analysis_reads_back_to_the_same_bits(published):
    analysis, _ = published
    again = Analysis.from_json(analysis.to_json())
    for name, table in analysis.tables().items():
        assert again.tables()[name].equals(table), name
    assert again.notes == analysis.notes
    assert again.settings == analysis.settings


def test_every_record_is_named_once_and_resolves(published):
    analysis, _ = published
    records = pl.concat([table.select("record") for table in analysis.tables().values()])["record"]
    assert records.n_unique() == records.len() > 100
    record = "similarity_correlation/villain/-/-/-/pooled/table/-/leakage_rate/cosine/20"
    assert analysis.value(record, "rho") == pytest.approx(0.704, abs=0.002)
    with pytest.raises(DataError, match="no such record"):
        analysis.value("gradient/villain/99", "rho")
    with pytest.raises(DataError, match="no such column"):
        analysis.value(record, "rhoo")


def test_tables_have_exactly_their_columns(published):
    analysis, _ = published
    for name, schema in TABLES.items():
        assert analysis.tables()[name].schema == pl.Schema(schema)


def test_published_sweep_gives_the_phase_diagram(shared_data):
    sweep = pl.read_csv(shared_data / "reference" / "marker_sweep.csv")
    phase = phase_of_table(sweep, control="arc_c_accuracy")
    assert phase.height == 25
    for row in phase.iter_rows(named=True):
        own = sweep.filter((pl.col("lr") == row["lr"]) & (pl.col("epochs") == row["epochs"]))
        others = own.filter(pl.col("persona") != "villain")
        assert row["source_effect"] == own.filter(pl.col("persona") == "villain")["marker_rate"].item()
        assert row["max_bystander"] == others["marker_rate"].max()
        assert row["n"] == 10
    strongest = phase.sort("source_effect", descending=True).row(0, named=True)
    assert strongest["source_effect"] > 0.9


def test_sweep_without_its_source_is_refused():
    sweep = pl.DataFrame(
        {"source": ["villain"], "lr": [1e-5], "epochs": [1], "persona": ["joker"], "marker_rate": [0.1]}
    )
    with pytest.raises(DataError, match="no row of the source"):
        phase_of_table(sweep)


def test_same_table_twice_gives_the_same_bits():
    assert analyze_table(small(), settings=QUICK).to_json() == analyze_table(small(), settings=QUICK).to_json()


def test_rows_in_another_order_give_the_same_numbers():
    first = analyze_table(small(), settings=QUICK).similarity_correlation
    second = analyze_table(small().reverse(), settings=QUICK).similarity_correlation
    assert first["rho"].item() == pytest.approx(second["rho"].item(), abs=1e-12)


def test_columns_can_be_named():
    frame = small().rename({"source": "trained", "persona": "who", "cosine_layer3": "closeness", "leakage": "got"})
    with pytest.raises(DataError, match=r"no column for the source.*rename it to source"):
        analyze_table(frame)
    analysis = analyze_table(
        frame, source="trained", persona="who", leakage="got", similarity=["closeness"], settings=QUICK
    )
    row = analysis.similarity_correlation.row(0, named=True)
    assert (row["method"], row["layer"], row["metric"]) == ("closeness", -1, "got")


def test_layers_are_read_from_names():
    assert method_and_layer("cosine_layer10") == ("cosine", 10)
    assert method_and_layer("cosine_L3") == ("cosine", 3)
    assert method_and_layer("lexical") == ("lexical", -1)


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (small().clear(), "no rows"),
        (small().drop("leakage"), "no column for the leakage"),
        (small().drop("cosine_layer3"), "no similarity column"),
        (small(leakage_b=[0.0] * 12).rename({"leakage": "leakage_a"}), "could be any of leakage_a, leakage_b"),
        (small(leakage=["0.1"] * 11 + ["error"]), "row 12: 'error' is not a number"),
        (small(leakage=[0.1] * 11 + [float("inf")]), "row 12: inf is infinite"),
        (small(persona=[f"p{i}" for i in range(11)] + ["p3"]), "villain x p3 is in rows 4, 12"),
        (small(persona=[f"p{i}" for i in range(11)] + [""]), "1 rows have no persona; the first is row 12"),
    ],
)
def test_faulty_tables_are_refused_with_what_and_where(frame, says):
    with pytest.raises(DataError, match=says):
        analyze_table(frame, settings=QUICK)


def test_a_column_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(DataError, match="no column 'cos'; it has source, persona, cosine_layer3, leakage"):
        analyze_table(small(), similarity=["cos"])


def test_missing_leakage_is_left_out_and_said():
    frame = small(leakage=[None, *[i / 12 for i in range(11)]])
    analysis = analyze_table(frame, settings=replace(QUICK, failed_limit=0.1))
    assert analysis.similarity_correlation["n"].item() == 11
    assert any("villain x p0" in note for note in analysis.notes)
    assert "p0" in analysis.similarity_correlation["reason"].item()


def test_few_personas_and_constant_leakage_have_a_status_and_no_numbers():
    few = analyze_table(small().head(3), settings=QUICK).similarity_correlation.row(0, named=True)
    assert (few["status"], few["p"], few["low"]) == ("few", None, None)
    constant = analyze_table(small(leakage=[0.2] * 12), settings=QUICK).similarity_correlation.row(0, named=True)
    assert (constant["status"], constant["rho"], constant["p"]) == ("constant", None, None)


def test_what_is_not_an_analysis_is_refused():
    for text in ("{}", "[]", "not json", '{"format": 99}'):
        with pytest.raises(DataError, match=r"run\.json"):
            Analysis.from_json(text, "run.json")
