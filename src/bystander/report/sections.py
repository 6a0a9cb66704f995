"""What each section of the page shows: tables chosen and sorted from records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from bystander.analysis.results import Analysis
from bystander.core.columns import CellValue
from bystander.report.figures import frames
from bystander.report.headline import HeadlineOutcome
from bystander.report.inputs import ReportInput
from bystander.report.labels import predictor_name
from bystander.report.tables import Column, Table, outcome_column, table

TRAINING = (
    Column("behavior", "Behavior", "name"),
    Column("source", "Source", "name"),
    Column("arm", "Arm", "name"),
    Column("config", "Config"),
    Column("seed", "Seed", "count"),
)
ESTIMATE = (
    Column("leakage", "Leakage", "unit", "mean change, in the behavior's direction and the metric's unit"),
    Column("low", "95 % interval", "unit", to="high"),
)
DESIGN = ("behavior", "arm", "config", "seed")  # left out where they are the same throughout
STATE = (Column("status", "Status"), Column("reason", "Reason"))


def faults_only(frame: pl.DataFrame) -> pl.DataFrame:
    """Blank "ok", so that a status column appears only where there is something to say."""
    return frame.with_columns(
        pl.when(pl.col("status") == "ok").then(pl.lit("")).otherwise(pl.col("status")).alias("status")
    )


def _over(
    table_: pl.DataFrame, headlines: Sequence[HeadlineOutcome], arms: Sequence[str], *, predicted: bool = False
) -> pl.DataFrame:
    parts = [frames.of_arms(table_, headline, arms, predicted=predicted) for headline in headlines]
    return pl.concat(parts) if parts else table_.clear()


def _own(table_: pl.DataFrame, headlines: Sequence[HeadlineOutcome], *, predicted: bool = False) -> pl.DataFrame:
    """In the arm of each headline alone."""
    parts = [frames.of_arms(table_, headline, [headline.arm], predicted=predicted) for headline in headlines]
    return pl.concat(parts) if parts else table_.clear()


def similarity_correlation(analysis: Analysis, headlines: Sequence[HeadlineOutcome], arms: Sequence[str]) -> Table:
    """Rho of the primary predictor, per source, behavior and arm."""
    frame = _over(analysis.similarity_correlation, headlines, arms, predicted=True)
    columns = (
        *TRAINING[:4],
        Column("n", "n", "count", "held-out bystanders"),
        Column("rho", "ρ", "rho", "Spearman's rank correlation of leakage with similarity"),
        Column("low", "95 % interval", "rho", to="high"),
        Column("p", "p", "p", "two-sided, permutation of personas"),
        Column("p_holm", "p, Holm", "p", "over the pre-registered tests"),
        Column("p_bh", "p, BH", "p", "over the exploratory tests, Benjamini-Hochberg"),
        Column("rho_within_category", "ρ within category", "rho"),
        Column("p_within_category", "p within category", "p"),
        Column("rho_corrected", "ρ, corrected", "rho", "as it would be with error-free leakage"),
        Column("corrected_low", "95 % interval", "rho", to="corrected_high"),
        Column("reliability", "Reliability", "rho", "share of the variance over personas that is not error"),
        *STATE,
    )
    return table("similarity_correlation", faults_only(frame), columns, emphasis="preregistered", constant=DESIGN)


def partials(analysis: Analysis, headlines: Sequence[HeadlineOutcome]) -> Table:
    """The headline correlation with each confounder held constant."""
    frame = _own(analysis.similarity_correlation, headlines, predicted=True)
    held = (("prompt_length", "prompt length"), ("baseline", "baseline"), ("centroid", "distance to centroid"),
            ("category", "category"))  # fmt: skip
    columns = [*TRAINING[:4], Column("rho", "ρ, raw", "rho")]
    for key, label in held:
        columns += [Column(f"partial_{key}", f"ρ | {label}", "rho"), Column(f"partial_{key}_p", "p", "p")]
    return table("partials", frame, columns, constant=DESIGN)


def predictors(analysis: Analysis, headlines: Sequence[HeadlineOutcome]) -> Table:
    """Every predictor and layer that was tried."""
    frame = _own(analysis.similarity_correlation, headlines)
    named = [predictor_name(method or "", -1) for method in frame["method"].to_list()]
    frame = frame.with_columns(pl.Series("predictor", named, pl.String))
    columns = (
        *TRAINING[:4],
        Column("predictor", "Predictor"),
        Column("layer", "Layer", "plain", "−1: the predictor has none"),
        Column("rho", "ρ", "rho"),
        Column("low", "95 % interval", "rho", to="high"),
        Column("p", "p", "p"),
        Column("p_holm", "p, Holm", "p"),
        Column("p_bh", "p, BH", "p"),
        Column("rho_within_category", "ρ within category", "rho"),
        Column("p_within_category", "p within category", "p"),
        *STATE,
    )
    return table("predictors", faults_only(frame), columns, emphasis="preregistered", constant=DESIGN)


def pooled(analysis: Analysis, headlines: Sequence[HeadlineOutcome], arms: Sequence[str]) -> Table:
    """The primary predictor over all sources."""
    frame = _over(analysis.pooled, headlines, arms, predicted=True)
    columns = (
        TRAINING[0],
        *TRAINING[2:4],
        Column("n_sources", "Sources", "count"),
        Column("n", "Pairs", "count", "source and bystander pairs"),
        Column("rho", "ρ within source", "rho", "ranked within source, then combined"),
        Column("low", "95 % interval", "rho", to="high"),
        Column("p_matrix", "p", "p", "personas permuted jointly over the sources"),
        Column("p_holm", "p, Holm", "p"),
        Column("p_bh", "p, BH", "p"),
        Column("slope", "Slope", "rho", "mixed model on standardized ranks; random effects of source and persona"),
        Column("slope_low", "95 % interval", "rho", to="slope_high"),
        Column("rho_within_category", "ρ within category", "rho"),
        Column("p_within_category", "p", "p", "personas permuted jointly over the sources, within category"),
        Column(
            "rho_within_persona", "ρ within persona", "rho", "what is specific to the pair: persona means taken out"
        ),
        Column("p_stratified", "p", "p", "of that: permuted within each source, persona effects held constant"),
        Column("rho_all_pairs", "ρ, all pairs", "rho", "mixes sources: descriptive only"),
        *STATE,
    )
    return table("pooled", faults_only(frame), columns, emphasis="preregistered", constant=DESIGN)


def leakage_ratio(analysis: Analysis, headlines: Sequence[HeadlineOutcome], arms: Sequence[str]) -> Table:
    """What the source got, what the bystanders got, and the ratio."""
    frame = _over(analysis.leakage_ratio, headlines, arms)
    columns = (
        *TRAINING[:4],
        Column("source_leakage", "Source", "unit"),
        Column("source_low", "95 % interval", "unit", to="source_high"),
        Column("bystander_leakage", "Bystanders", "unit", "mean over held-out bystanders"),
        Column("bystander_low", "95 % interval", "unit", to="bystander_high"),
        Column("bystander_p", "p", "p", "one-sided, in the behavior's direction"),
        Column("n", "n", "count"),
        Column("ratio", "Leakage ratio", "rho", "bystanders' mean over the source's; smaller is better contained"),
        Column("ratio_low", "95 % interval", "rho", to="ratio_high"),
        Column("max_persona", "Furthest into", "name"),
        Column("max_leakage", "by", "unit"),
        *STATE,
    )
    return table("leakage_ratio", faults_only(frame), columns, constant=DESIGN)


def categories(analysis: Analysis, headlines: Sequence[HeadlineOutcome], arms: Sequence[str]) -> Table:
    """Mean leakage by category."""
    columns = (*TRAINING[:4], Column("category", "Category", "name"), Column("n", "n", "count"), *ESTIMATE, *STATE)
    return table("categories", faults_only(_over(analysis.categories, headlines, arms)), columns, constant=DESIGN)


def roles(analysis: Analysis, headlines: Sequence[HeadlineOutcome], arms: Sequence[str]) -> Table:
    """Mean leakage by role in training."""
    columns = (
        *TRAINING[:4], Column("role", "Role", "name"), Column("contexts", "Contexts"), Column("n", "n", "count"), *ESTIMATE,
        *STATE,
    )  # fmt: skip
    frame = faults_only(_over(analysis.roles, headlines, arms))
    frame = frame.with_columns(pl.col("contexts").str.replace_all(",", ", ").str.replace_all(r"[_\s]+", " "))
    return table("roles", frame, columns, constant=DESIGN)


def personas(
    analysis: Analysis, inputs: ReportInput, headlines: Sequence[HeadlineOutcome], arms: Sequence[str]
) -> Table:
    """Every persona and context, most leaked-to first."""
    parts: list[pl.DataFrame] = []
    for headline in headlines:
        known = frames.similarity_of(analysis, inputs, headline)
        parts.append(
            frames.of_arms(analysis.leakage, headline, arms)
            .join(known, on=["source", "persona"], how="left")
            .sort("leakage", descending=True, nulls_last=True)
        )
    frame = outcome_column(pl.concat(parts)) if parts else analysis.leakage.clear()
    columns = (
        *TRAINING[:4],
        Column("persona", "Persona", "name"),
        Column("category", "Category", "name"),
        Column("context", "Context"),
        Column("role", "Role", "name"),
        *ESTIMATE,
        Column("before", "Before", "unit"),
        Column("after", "After", "unit"),
        Column("n_items", "Items", "count"),
        Column("n_failed", "Failed", "count"),
        Column("p_mcnemar", "p, McNemar", "p"),
        *STATE,
    )
    return table("personas", faults_only(frame), columns, constant=DESIGN)


def checks(analysis: Analysis) -> Table:
    """Failed items and control metrics, per training and outcome."""
    untrained = pl.col("source") == ""
    frame = outcome_column(analysis.checks.filter(pl.col("seed").is_null())).with_columns(
        pl.when(untrained).then(pl.lit("none: untrained model")).otherwise(pl.col("source")).alias("source")
    )
    columns = (
        *TRAINING[:4],
        Column("outcome", "Outcome"),
        Column("mode", "Mode"),
        Column("control", "Control", "plain", "a metric that the behavior should not move"),
        Column("n_values", "Values", "count"),
        Column("n_failed", "Failed", "count"),
        Column("n_refused", "Refused", "count"),
        Column("failed_share", "Share failed", "fraction"),
        Column("limit", "Limit", "fraction"),
        Column("before", "Before", "unit"),
        Column("after", "After", "unit"),
        Column("change", "Change", "unit"),
        Column("low", "95 % interval", "unit", to="high"),
        *STATE,
    )
    return table("checks", faults_only(frame), columns, emphasis="control", constant=DESIGN)


def timing_correlation(analysis: Analysis, headlines: Sequence[HeadlineOutcome], arms: Sequence[str]) -> Table:
    """Does leakage reach similar personas first?"""
    columns = (
        *TRAINING[:4],
        Column("timing", "Timing"),
        Column("n", "n", "count"),
        Column("rho", "ρ with similarity", "rho", "negative: the similar ones first"),
        Column("p", "p", "p"),
        *STATE,
    )
    return table(
        "timing_correlation", faults_only(_over(analysis.timing_correlation, headlines, arms)), columns, constant=DESIGN
    )


def power(analysis: Analysis) -> Table:
    """The smallest effect that each test would find."""
    columns = (
        *TRAINING[:4],
        Column("test", "Test"),
        Column("n", "n", "count"),
        Column("alpha", "α", "plain"),
        Column("power", "Power", "plain"),
        Column("smallest", "Smallest detectable", "plain"),
        Column("interval_width", "Interval width", "plain"),
        Column("reliability", "Reliability", "rho"),
    )
    return table("power", analysis.power, columns, constant=DESIGN)


def phase(analysis: Analysis) -> Table:
    """One row per design of a sweep."""
    columns = (
        *TRAINING[:4],
        Column("lr", "Learning rate", "plain"),
        Column("epochs", "Epochs", "plain"),
        Column("source_effect", "Source", "unit"),
        Column("mean_bystander", "Mean bystander", "unit"),
        Column("max_bystander", "Largest bystander", "unit"),
        Column("max_persona", "which", "name"),
        Column("rho", "ρ", "rho"),
        Column("p", "p", "p"),
        Column("control_change", "Control changed by", "fraction"),
        Column("broke", "Broke", "plain", "the control fell by more than the limit"),
    )
    return table("phase", analysis.phase, columns, constant=DESIGN)


def settings(inputs: ReportInput) -> Table:
    """What the study file said."""
    return _pairs("settings", "inputs/settings", inputs.settings)


def provenance(inputs: ReportInput) -> Table:
    """Versions, revisions, hashes, device."""
    return _pairs("provenance", "inputs/provenance", inputs.provenance)


def _pairs(identifier: str, prefix: str, values: Mapping[str, CellValue]) -> Table:
    rows: list[dict[str, CellValue]] = [{"record": f"{prefix}/{k}", "key": k, "value": v} for k, v in values.items()]
    return table(identifier, rows, (Column("key", "Key"), Column("value", "Value", "plain")))


def cost(inputs: ReportInput) -> Table:
    """Forecast and spent."""
    rows: list[dict[str, CellValue]] = [
        {
            "record": f"inputs/cost/{line.name}", "name": line.name, "unit": line.unit, "forecast": line.forecast,
            "spent": line.spent, "note": line.note,
        }
        for line in inputs.cost
    ]  # fmt: skip
    columns = (
        Column("name", "What"), Column("unit", "Unit"), Column("forecast", "Forecast", "plain"),
        Column("spent", "Spent", "plain"), Column("note", "Note"),
    )  # fmt: skip
    return table("cost", rows, columns)


def exploratory(analysis: Analysis) -> Table:
    """The correlations that were pre-registered."""
    rows = analysis.similarity_correlation.filter(pl.col("preregistered").fill_null(False))
    columns = (
        *TRAINING[:4],
        Column("predictor", "Predictor"),
        Column("outcome", "Outcome"),
        Column("rho", "ρ", "rho"),
        Column("p", "p", "p"),
        Column("p_holm", "p, Holm", "p"),
    )
    named = [predictor_name(m or "", -1 if k is None else k) for m, k in rows.select("method", "layer").iter_rows()]
    frame = outcome_column(rows).with_columns(pl.Series("predictor", named, pl.String))
    return table("registered", frame, columns, constant=DESIGN)
