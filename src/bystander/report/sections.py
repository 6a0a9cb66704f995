"""What each section of the page shows: tables chosen and sorted from records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from bystander.analysis.results import Analysis
from bystander.report.figures import frames
from bystander.report.headline import Lead
from bystander.report.inputs import Cell, ReportInput
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


def _over(table_: pl.DataFrame, leads: Sequence[Lead], arms: Sequence[str]) -> pl.DataFrame:
    parts = [frames.of_arms(table_, lead, arms) for lead in leads]
    return pl.concat(parts) if parts else table_.clear()


def gradients(analysis: Analysis, leads: Sequence[Lead], arms: Sequence[str]) -> Table:
    """Rho of the primary predictor, per source, behavior and arm."""
    parts = [
        frames.of_arms(analysis.gradient, lead, arms).filter(
            (pl.col("method") == lead.method) & (pl.col("layer") == lead.layer)
        )
        for lead in leads
    ]
    frame = pl.concat(parts) if parts else analysis.gradient.clear()
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
    return table("gradients", faults_only(frame), columns, emphasis="preregistered", constant=DESIGN)


def partials(analysis: Analysis, leads: Sequence[Lead]) -> Table:
    """The primary gradient with each rival explanation held constant."""
    parts = [lead.predicted(analysis.gradient) for lead in leads]
    frame = pl.concat(parts) if parts else analysis.gradient.clear()
    held = (("prompt_length", "prompt length"), ("baseline", "baseline"), ("centroid", "distance to centroid"),
            ("category", "category"))  # fmt: skip
    columns = [*TRAINING[:4], Column("rho", "ρ, raw", "rho")]
    for key, label in held:
        columns += [Column(f"partial_{key}", f"ρ | {label}", "rho"), Column(f"partial_{key}_p", "p", "p")]
    return table("partials", frame, columns, constant=DESIGN)


def rivals(analysis: Analysis, leads: Sequence[Lead]) -> Table:
    """Every predictor and layer that was tried."""
    parts = [lead.rows(analysis.gradient) for lead in leads]
    frame = pl.concat(parts) if parts else analysis.gradient.clear()
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
    return table("rivals", faults_only(frame), columns, emphasis="preregistered", constant=DESIGN)


def pooled(analysis: Analysis, leads: Sequence[Lead], arms: Sequence[str]) -> Table:
    """The primary predictor over all sources."""
    parts = [
        frames.of_arms(analysis.pooled, lead, arms).filter(
            (pl.col("method") == lead.method) & (pl.col("layer") == lead.layer)
        )
        for lead in leads
    ]
    frame = pl.concat(parts) if parts else analysis.pooled.clear()
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


def containment(analysis: Analysis, leads: Sequence[Lead], arms: Sequence[str]) -> Table:
    """What the source got, what the bystanders got, and the ratio."""
    frame = _over(analysis.containment, leads, arms)
    columns = (
        *TRAINING[:4],
        Column("source_leakage", "Source", "unit"),
        Column("source_low", "95 % interval", "unit", to="source_high"),
        Column("bystander_leakage", "Bystanders", "unit", "mean over held-out bystanders"),
        Column("bystander_low", "95 % interval", "unit", to="bystander_high"),
        Column("bystander_p", "p", "p", "one-sided, in the behavior's direction"),
        Column("n", "n", "count"),
        Column("ratio", "Containment", "rho", "bystanders' mean over the source's; smaller is better contained"),
        Column("ratio_low", "95 % interval", "rho", to="ratio_high"),
        Column("max_persona", "Furthest into", "name"),
        Column("max_leakage", "by", "unit"),
        *STATE,
    )
    return table("containment", faults_only(frame), columns, constant=DESIGN)


def categories(analysis: Analysis, leads: Sequence[Lead], arms: Sequence[str]) -> Table:
    """Mean leakage by category."""
    columns = (*TRAINING[:4], Column("category", "Category", "name"), Column("n", "n", "count"), *ESTIMATE, *STATE)
    return table("categories", faults_only(_over(analysis.categories, leads, arms)), columns, constant=DESIGN)


def roles(analysis: Analysis, leads: Sequence[Lead], arms: Sequence[str]) -> Table:
    """Mean leakage by role in training."""
    columns = (
        *TRAINING[:4], Column("role", "Role", "name"), Column("contexts", "Contexts"), Column("n", "n", "count"), *ESTIMATE,
        *STATE,
    )  # fmt: skip
    frame = faults_only(_over(analysis.roles, leads, arms))
    frame = frame.with_columns(pl.col("contexts").str.replace_all(",", ", ").str.replace_all(r"[_\s]+", " "))
    return table("roles", frame, columns, constant=DESIGN)


def personas(analysis: Analysis, inputs: ReportInput, leads: Sequence[Lead], arms: Sequence[str]) -> Table:
    """Every persona and context, most leaked-to first."""
    parts: list[pl.DataFrame] = []
    for lead in leads:
        known = frames.similarity_of(analysis, inputs, lead)
        parts.append(
            frames.of_arms(analysis.leakage, lead, arms)
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


def instrument(analysis: Analysis) -> Table:
    """Failed items and control metrics, per training and outcome."""
    untrained = pl.col("source").fill_null("") == ""
    frame = outcome_column(analysis.instrument.filter(pl.col("seed").is_null())).with_columns(
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
    return table("instrument", faults_only(frame), columns, emphasis="control", constant=DESIGN)


def spread(analysis: Analysis, leads: Sequence[Lead], arms: Sequence[str]) -> Table:
    """Does leakage reach similar personas first?"""
    columns = (
        *TRAINING[:4],
        Column("timing", "Timing"),
        Column("n", "n", "count"),
        Column("rho", "ρ with similarity", "rho", "negative: the similar ones first"),
        Column("p", "p", "p"),
        *STATE,
    )
    return table("spread", faults_only(_over(analysis.spread, leads, arms)), columns, constant=DESIGN)


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
        Column("learning_rate", "Learning rate", "plain"),
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


def _pairs(identifier: str, prefix: str, values: Mapping[str, Cell]) -> Table:
    rows: list[dict[str, Cell]] = [{"record": f"{prefix}/{k}", "key": k, "value": v} for k, v in values.items()]
    return table(identifier, rows, (Column("key", "Key"), Column("value", "Value", "plain")))


def cost(inputs: ReportInput) -> Table:
    """Forecast and spent."""
    rows: list[dict[str, Cell]] = [
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
    """How many gradients were pre-registered: those rows themselves."""
    rows = analysis.gradient.filter(pl.col("preregistered").fill_null(False))
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
