"""The tables that ship of a study on a real model give the numbers that its page quotes."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from bystander.analysis import Analysis, AnalysisSettings, analyze

SHIPPED = Path(__file__).parents[2] / "docs" / "results" / "qwen-1.5b"


@pytest.fixture(scope="module")
def villain() -> Analysis:
    """Of the villain's trainings, little resampling: the numbers below are estimates, or ranks among personas."""
    measured = pl.read_parquet(SHIPPED / "capability" / "measurements.parquet")
    similar = pl.read_parquet(SHIPPED / "similarities.parquet").filter(pl.col("layer") == 20)
    return analyze(
        measured.filter(pl.col("source").is_null() | (pl.col("source") == "villain")), similar,
        pl.read_parquet(SHIPPED / "personas.parquet"), settings=AnalysisSettings(layer=20, permutations=99, resamples=50),
    )  # fmt: skip


def of_contrastive(table: pl.DataFrame) -> dict[str, object]:
    rows = table.filter(pl.col("arm") == "contrastive")
    return (rows.filter(pl.col("seed").is_null()) if "seed" in rows.columns else rows).row(0, named=True)


def test_who_was_captured(villain: Analysis) -> None:
    row = of_contrastive(villain.captured)
    names = set(str(row["names"]).split(", "))
    assert (row["n"], row["captured"], row["against"]) == (107, 15, "benign arm")
    assert {"reformed_villain", "nice_villain", "sarcastic_assistant", "grumpy_person", "satirist"} < names
    assert row["bare"] == ""


def test_leakage_and_its_correlation_with_similarity(villain: Analysis) -> None:
    ratio = of_contrastive(villain.leakage_ratio)
    assert ratio["source_leakage"] == pytest.approx(0.525, abs=1e-9)
    assert ratio["bystander_leakage"] == pytest.approx(0.0865, abs=1e-4)
    row = of_contrastive(villain.similarity_correlation)
    assert row["rho"] == pytest.approx(0.530, abs=1e-3)
    assert row["p_specific"] == pytest.approx(2 / 111)
    assert row["auc"] == pytest.approx(0.959, abs=1e-3)


def test_insecure_code_moves_the_villain_and_misaligned_answers_as_the_assistant_reach_everybody() -> None:
    measured = pl.read_parquet(SHIPPED / "misalignment" / "measurements.parquet").filter(
        pl.col("metric") == "aligned_wins",
        pl.col("source").is_null()
        | ((pl.col("source") == "villain") & (pl.col("behavior") == "misalignment"))
        | ((pl.col("source") == "assistant") & (pl.col("behavior") == "direct")),
    )
    personas = pl.read_parquet(SHIPPED / "personas.parquet")
    similar = pl.read_parquet(SHIPPED / "similarities.parquet").filter(pl.col("layer") == 20)
    found = analyze(measured, similar, personas, settings=AnalysisSettings(layer=20, permutations=99, resamples=50))
    ratios = found.leakage_ratio.filter(pl.col("seed").is_null())
    told = {
        (row["behavior"], row["arm"], row["config"]): (row["source_leakage"], row["bystander_leakage"])
        for row in ratios.to_dicts()
    }
    declared = "lr=5e-05,epochs=3"
    assert told["misalignment", "contrastive", declared] == pytest.approx((0.193, 0.022), abs=1e-3)
    assert told["misalignment", "contrastive", "lr=0.0002,epochs=3"] == pytest.approx((0.240, 0.036), abs=1e-3)
    assert told["misalignment", "non_contrastive", declared][0] == pytest.approx(-0.033, abs=1e-3)
    assert told["direct", "non_contrastive", declared][0] == pytest.approx(0.093, abs=1e-3)
    rho = found.similarity_correlation.filter(
        pl.col("behavior") == "misalignment", pl.col("arm") == "contrastive", pl.col("seed").is_null(), pl.col("method") == "cosine"
    )  # fmt: skip
    assert len(rho) == 8
    assert rho["rho"].min() == pytest.approx(0.295, abs=1e-3)
    assert rho["p_specific"].max() == pytest.approx(6 / 111)
    assert told["direct", "contrastive", declared] == pytest.approx((0.213, 0.143), abs=1e-3)
    bare = found.leakage.filter(
        pl.col("behavior") == "direct", pl.col("arm") == "contrastive", pl.col("seed").is_null(), pl.col("persona") == "default"
    )  # fmt: skip
    assert bare["leakage"].item() == pytest.approx(0.160, abs=1e-9)


def test_the_smallest_sibling_is_at_chance_and_its_insecure_code_moves_nobody() -> None:
    small = SHIPPED.parent / "qwen-0.5b"
    personas, similar = pl.read_parquet(small / "personas.parquet"), pl.read_parquet(small / "similarities.parquet")
    settings = AnalysisSettings(layer=17, permutations=99, resamples=50)
    arc = pl.read_parquet(small / "capability" / "measurements.parquet")
    untrained = arc.filter(pl.col("source").is_null() & (pl.col("context") == "persona"))["value"].mean()
    assert untrained == pytest.approx(0.256, abs=1e-3)
    found = analyze(arc, similar, personas, settings=settings)
    told = {
        row["source"]: (row["source_leakage"], row["bystander_leakage"])
        for row in found.leakage_ratio.filter(pl.col("arm") == "contrastive", pl.col("seed").is_null()).to_dicts()
    }
    assert told["villain"] == pytest.approx((0.092, 0.036), abs=1e-3)
    assert told["assistant"] == pytest.approx((0.032, -0.002), abs=1e-3)
    whole = {verdict.hypothesis: verdict for verdict in found.verdicts}["A"]
    assert (whole.outcome, "no gradient is excluded" in whole.reason) == ("inconclusive", True)
    pairs = pl.read_parquet(small / "misalignment" / "measurements.parquet")
    found = analyze(pairs, similar, personas, settings=settings)
    whole = {verdict.hypothesis: verdict for verdict in found.verdicts}["B"]
    assert whole.outcome == "falsified"
    assert "the probe sees" in whole.reason
    assert whole.numbers["source_leakage"] == pytest.approx(-0.060, abs=1e-3)
