"""What each section of the page shows: tables chosen and sorted from records.

A column's label and format are below, once for all tables; its tooltip is what the record that fills it says it means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from bystander.analysis.results import Analysis
from bystander.analysis.schemas import meanings
from bystander.core.columns import CellValue
from bystander.report.figures import frames
from bystander.report.headline import HeadlineOutcome
from bystander.report.inputs import ReportInput
from bystander.report.labels import bare_names, first_names, predictor_name
from bystander.report.tables import Column, Table, outcome_column, table

COLUMNS: dict[str, tuple[str, str]] = {  # label and format; "unit" is that of the row's outcome
    "behavior": ("Behavior", "name"), "source": ("Source", "name"), "arm": ("Arm", "name"), "config": ("Config", "text"),
    "seed": ("Seed", "count"), "persona": ("Persona", "name"), "category": ("Category", "name"), "role": ("Role", "name"),
    "context": ("Context", "text"), "contexts": ("Contexts", "text"), "predictor": ("Predictor", "text"),
    "outcome": ("Outcome", "text"), "layer": ("Layer", "plain"), "mode": ("Mode", "text"), "test": ("Test", "text"),
    "timing": ("Timing", "text"), "n": ("n", "count"), "n_sources": ("Sources", "count"), "n_items": ("Items", "count"),
    "n_failed": ("Failed", "count"), "n_refused": ("Refused", "count"), "n_values": ("Values", "count"),
    "failed_share": ("Share failed", "fraction"), "limit": ("Limit", "fraction"), "control": ("Control", "plain"),
    "leakage": ("Leakage", "unit"), "before": ("Before", "unit"), "after": ("After", "unit"), "change": ("Change", "unit"),
    "source_leakage": ("Source", "unit"), "bystander_leakage": ("Bystanders", "unit"), "ratio": ("Leakage ratio", "rho"),
    "max_persona": ("Furthest into", "name"), "max_leakage": ("by", "unit"), "rho": ("rho", "rho"), "p": ("p", "p"),
    "p_holm": ("p, Holm", "p"), "p_bh": ("p, BH", "p"), "p_mcnemar": ("p, McNemar", "p"), "p_matrix": ("p, permuted", "p"),
    "bystander_p": ("p", "p"), "p_stratified": ("p within persona", "p"), "p_within_category": ("p within category", "p"),
    "rho_within_category": ("rho within category", "rho"), "rho_within_persona": ("rho within persona", "rho"),
    "rho_all_pairs": ("rho, all pairs", "rho"), "rho_corrected": ("rho, corrected", "rho"), "slope": ("Slope", "rho"),
    "reliability": ("Reliability", "rho"), "partial_prompt_length": ("rho | prompt length", "rho"),
    "partial_baseline": ("rho | true baseline", "rho"), "slope_baseline": ("Slope | true baseline", "plain"),
    "slope_baseline_p": ("p", "p"), "rho_baseline": ("rho with baseline", "rho"), "flagged": ("Baseline?", "plain"),
    "p_specific": ("p, specific", "p"), "p_specific_attainable": ("least p", "p"), "p_layers": ("p over layers", "p"),
    "p_specific_prompt_length": ("p, specific", "p"), "against": ("Measured against", "text"),
    "rho_log_odds": ("rho, log-odds", "rho"), "p_log_odds": ("p", "p"), "auc": ("AUC, captured", "rho"),
    "auc_p_specific": ("p, specific", "p"), "captured": ("Captured", "count"), "share": ("Share", "fraction"),
    "names": ("Who", "text"), "confirmed": ("Shown, Holm", "text"), "bare": ("Bare contexts captured", "text"),
    "n_bare": ("Bare contexts", "count"), "p_largest": ("p of the largest", "p"), "dip_p": ("p of the dip", "p"),
    "groups": ("Groups", "text"), "half": ("Half captured at", "rho"), "spread": ("Spread of sources", "rho"),
    "deficit": ("Deficit to negatives", "unit"), "benign": ("After benign", "unit"), "source_change": ("Source changed", "unit"),
    "bystander_change": ("Bystanders changed", "unit"), "mean_without_max": ("Mean without it", "unit"),
    "carried": ("Carried by it", "plain"), "source_rate": ("Source's rate", "fraction"), "saturated": ("Saturated", "plain"),
    "floor": ("At floor", "fraction"), "ceiling": ("At ceiling", "fraction"), "smallest_excluded": ("Excluded beyond", "unit"),
    "bound": ("Bound", "unit"), "value": ("Mean bystander", "unit"), "sentence": ("In words", "text"),
    "p_above_holm": ("p, Holm", "p"), "p_below_holm": ("p below, Holm", "p"), "p_captured_holm": ("p captured, Holm", "p"),
    "dose": ("Source's leakage", "unit"), "area": ("Area", "rho"), "turned_back": ("Turned back", "count"),
    "other_arm": ("Other arm", "name"), "other_source": ("Other source", "name"), "difference": ("Difference", "unit"), "n_checkpoints": ("Checkpoints", "count"),
    "scale": ("Scale", "text"), "baseline": ("Against", "text"), "skill": ("R²", "rho"), "first": ("A", "name"),
    "second": ("B", "name"), "forth": ("A → B", "unit"), "back": ("B → A", "unit"), "n_missing": ("Missing", "count"),
    "control_state": ("Control", "text"), "partial_centroid": ("rho | distance to centroid", "rho"),
    "partial_category": ("rho | category", "rho"), "partial_prompt_length_p": ("p", "p"), "partial_baseline_p": ("p", "p"),
    "partial_centroid_p": ("p", "p"), "partial_category_p": ("p", "p"), "alpha": ("α", "plain"), "power": ("Power", "plain"),
    "smallest": ("Smallest detectable", "plain"), "interval_width": ("Interval width", "plain"),
    "lr": ("Learning rate", "plain"), "epochs": ("Epochs", "plain"), "source_effect": ("Source", "unit"),
    "mean_bystander": ("Mean bystander", "unit"), "max_bystander": ("Largest bystander", "unit"),
    "control_change": ("Control changed by", "fraction"), "broke": ("Broke", "plain"), "status": ("Status", "text"),
    "reason": ("Reason", "text"),
}  # fmt: skip
ENDS = {"low": "high", "corrected_low": "corrected_high", "source_low": "source_high", "bystander_low": "bystander_high",
        "ratio_low": "ratio_high", "slope_low": "slope_high", "auc_low": "auc_high", "half_low": "half_high",
        "share_low": "share_high", "slope_baseline_low": "slope_baseline_high"}  # fmt: skip
NAMED = 12  # captured personas that a cell names
DESIGN = ("behavior", "arm", "config", "seed")  # left out where they are the same throughout
OF_RHO = (
    "similarity_correlation",
    "pooled",
    "ratio_low",
    "half_low",
    "skill",
    "dose",
)  # tables and columns whose intervals are of no outcome's unit


def columns(analyzed: str, keys: str) -> list[Column]:
    """The columns of that table of the analysis, by name; of an interval its lower end."""
    about = meanings(analyzed)
    found: list[Column] = []
    for key in keys.split():
        if key in ENDS:
            form = "fraction" if key == "share_low" else "rho" if analyzed in OF_RHO or key in OF_RHO else "unit"
            found.append(Column(key, "95 % interval", form, to=ENDS[key]))
        else:
            label, form = COLUMNS[key]
            permuted = key == "p" and analyzed == "similarity_correlation"
            found.append(Column(key, "p, permuted" if permuted else label, form, about.get(key, "")))
    return found


def _table(identifier: str, frame: pl.DataFrame, analyzed: str, keys: str, emphasis: str = "") -> Table:
    """Status and reason are in it only where there is something to say."""
    if "status" in frame.columns:
        ok = pl.col("status") == "ok"
        frame = frame.with_columns(pl.when(ok).then(pl.lit("")).otherwise("status").alias("status"))
        keys += " status reason"
    chosen = columns(analyzed, "behavior source arm config " + keys)
    return table(identifier, frame, chosen, emphasis=emphasis, constant=DESIGN)


def _over(
    table_: pl.DataFrame, headlines: Sequence[HeadlineOutcome], arms: Sequence[str] = (), *, predicted: bool = False
) -> pl.DataFrame:
    """The rows of these headlines in these arms (none: each in its own); of their predictor alone where asked."""
    parts = [frames.of_arms(table_, one, arms or [one.arm], predicted=predicted) for one in headlines]
    return pl.concat(parts) if parts else table_.clear()


def similarity_correlation(analysis: Analysis, headlines: Sequence[HeadlineOutcome], arms: Sequence[str]) -> Table:
    """Rho of the primary predictor, per source, behavior and arm."""
    frame = _over(analysis.similarity_correlation, headlines, arms, predicted=True)
    keys = "against n rho low p_specific p_specific_attainable p_layers p p_holm p_bh rho_baseline flagged "
    keys += "rho_within_category p_within_category rho_log_odds p_log_odds rho_corrected corrected_low reliability"
    return _table("similarity_correlation", frame, "similarity_correlation", keys, "preregistered")


def partials(analysis: Analysis, headlines: Sequence[HeadlineOutcome]) -> Table:
    """The headline correlation with each confounder held constant."""
    frame = _over(analysis.similarity_correlation, headlines, predicted=True).drop("status", "reason")
    held = "prompt_length", "baseline", "centroid", "category"
    p = {"prompt_length": "partial_prompt_length_p p_specific_prompt_length", "baseline": "slope_baseline_p"}
    keys = " ".join(["rho", *(f"partial_{name} {p.get(name, f'partial_{name}_p')}" for name in held)])
    return _table("partials", frame, "similarity_correlation", keys)


def predictors(analysis: Analysis, headlines: Sequence[HeadlineOutcome]) -> Table:
    """Every predictor and layer that was tried."""
    frame = _named_predictor(_over(analysis.similarity_correlation, headlines), with_layer=False)
    keys = "predictor layer rho low p_specific p_layers p p_holm p_bh rho_within_category p_within_category "
    keys += "auc auc_low auc_p_specific"
    return _table("predictors", frame, "similarity_correlation", keys, "preregistered")


def _named_predictor(frame: pl.DataFrame, *, with_layer: bool) -> pl.DataFrame:
    named = [predictor_name(m, k if with_layer else -1) for m, k in frame.select("method", "layer").iter_rows()]
    return frame.with_columns(pl.Series("predictor", named, pl.String))


def pooled(analysis: Analysis, headlines: Sequence[HeadlineOutcome], arms: Sequence[str]) -> Table:
    """The primary predictor over all sources."""
    frame = _over(analysis.pooled, headlines, arms, predicted=True)
    keys = "against n_sources n rho low p_specific p_specific_attainable p_layers p_matrix p_holm p_bh slope slope_low rho_within_category p_within_category "
    return _table("pooled", frame, "pooled", keys + "rho_within_persona p_stratified rho_all_pairs", "preregistered")


def leakage_ratio(analysis: Analysis, headlines: Sequence[HeadlineOutcome], arms: Sequence[str]) -> Table:
    """What the source got, what the bystanders got, and the ratio."""
    keys = (
        "against source_leakage source_low bystander_leakage bystander_low bystander_p n ratio ratio_low max_persona "
    )
    keys += "max_leakage mean_without_max carried source_change bystander_change deficit source_rate saturated floor ceiling"
    return _table("leakage_ratio", _over(analysis.leakage_ratio, headlines, arms), "leakage_ratio", keys)


def captured(analysis: Analysis, headlines: Sequence[HeadlineOutcome], arms: Sequence[str]) -> Table:
    """Who is captured, how many, and what tells them from the others."""
    keys = "against n captured share share_low names confirmed bare p_largest groups dip_p half half_low"
    return _table("captured", _readable(_over(analysis.captured, headlines, arms)), "captured", keys)


def captured_over_sources(analysis: Analysis, headlines: Sequence[HeadlineOutcome], arms: Sequence[str]) -> Table:
    """The same over sources, with the similarity at which half are captured."""
    frame = _over(analysis.captured_over_sources, headlines, arms)
    keys = "n_sources n captured share half half_low spread"
    return _table("captured_over_sources", frame, "captured_over_sources", keys)


def _readable(frame: pl.DataFrame) -> pl.DataFrame:
    """Names as words, the first of them where they are many: who else it is the table of leakage says."""
    told = {"names": _people, "confirmed": _people, "bare": _bare}
    return frame.with_columns(
        pl.col(name).map_elements(say, pl.String) for name, say in told.items() if name in frame.columns
    )


def _people(cell: str) -> str:
    return first_names(cell, NAMED)


def _bare(cell: str) -> str:
    return ", ".join(bare_names(cell))


def equivalence(analysis: Analysis, headlines: Sequence[HeadlineOutcome], arms: Sequence[str]) -> Table:
    """The smallest mean change that is excluded."""
    frame = _over(analysis.equivalence, headlines, arms)
    frame = frame.with_columns(pl.when(pl.col("source") == "").then(pl.lit("all")).otherwise("source").alias("source"))
    return _table("equivalence", frame, "equivalence", "against value smallest_excluded bound p sentence")


def dose(analysis: Analysis, headlines: Sequence[HeadlineOutcome], arms: Sequence[str]) -> Table:
    """Area under the dose curve."""
    frame = _over(analysis.dose, headlines, arms)
    return _table("dose", frame, "dose", "against n n_checkpoints dose turned_back area low p")


def matched_dose(analysis: Analysis, headlines: Sequence[HeadlineOutcome], arms: Sequence[str]) -> Table:
    """Arms and sources compared at the same dose."""
    frame = _over(analysis.matched_dose, headlines, arms)
    return _table("matched_dose", frame, "matched_dose", "other_source other_arm n dose difference low p p_holm")


def skill(analysis: Analysis, headlines: Sequence[HeadlineOutcome]) -> Table:
    """Leave-one-source-out skill of the predictors."""
    frame = _named_predictor(_over(analysis.skill, headlines), with_layer=True)
    return _table("skill", frame, "skill", "predictor scale baseline n_sources skill low")


def asymmetry(analysis: Analysis, headlines: Sequence[HeadlineOutcome]) -> Table:
    """Pairs of sources, both ways."""
    frame = _over(analysis.asymmetry, headlines)
    return _table("asymmetry", frame, "asymmetry", "first second forth back difference low p p_holm")


def categories(analysis: Analysis, headlines: Sequence[HeadlineOutcome], arms: Sequence[str]) -> Table:
    """Mean leakage by category."""
    return _table("categories", _over(analysis.categories, headlines, arms), "categories", "category n leakage low")


def roles(analysis: Analysis, headlines: Sequence[HeadlineOutcome], arms: Sequence[str]) -> Table:
    """Mean leakage by role in training."""
    frame = _over(analysis.roles, headlines, arms)
    frame = frame.with_columns(pl.col("contexts").str.replace_all(",", ", ").str.replace_all(r"[_\s]+", " "))
    return _table("roles", frame, "roles", "role contexts n leakage low")


def personas(
    analysis: Analysis, inputs: ReportInput, headlines: Sequence[HeadlineOutcome], arms: Sequence[str]
) -> Table:
    """Every persona, most leaked-to first; the other contexts have a table of their own."""
    parts: list[pl.DataFrame] = []
    for headline in headlines:
        known = frames.similarity_of(analysis, inputs, headline)
        parts.append(
            frames.of_arms(analysis.leakage.filter(context="persona"), headline, arms)
            .join(known, on=["source", "persona"], how="left")
            .sort("leakage", descending=True, nulls_last=True)
        )
    frame = outcome_column(pl.concat(parts)) if parts else analysis.leakage.clear()
    keys = "persona category role leakage low p_above_holm captured p_captured_holm against change before after "
    keys += "benign deficit n_items n_failed p_mcnemar"
    return _table("personas", frame, "leakage", keys)


def checks(analysis: Analysis) -> Table:
    """Failed items and control metrics, per training and outcome."""
    untrained = pl.col("source") == ""
    frame = outcome_column(analysis.checks.filter(pl.col("seed").is_null())).with_columns(
        pl.when(untrained).then(pl.lit("none: untrained model")).otherwise("source").alias("source")
    )
    keys = "outcome mode control n_values n_failed n_missing n_refused failed_share limit before after change low"
    return _table("checks", frame, "checks", keys, "control")


def timing_correlation(analysis: Analysis, headlines: Sequence[HeadlineOutcome], arms: Sequence[str]) -> Table:
    """Does leakage reach similar personas first?"""
    frame = _over(analysis.timing_correlation, headlines, arms)
    return _table("timing_correlation", frame, "timing_correlation", "timing n rho p")


def power(analysis: Analysis) -> Table:
    """The smallest effect that each test would find."""
    return _table("power", analysis.power, "power", "test n alpha power smallest interval_width reliability")


def phase(analysis: Analysis) -> Table:
    """One row per design of a sweep."""
    keys = "lr epochs source_effect mean_bystander max_bystander max_persona rho p control_change control_state broke"
    return _table("phase", analysis.phase, "phase", keys)


def exploratory(analysis: Analysis) -> Table:
    """The correlations that were pre-registered."""
    rows = analysis.similarity_correlation.filter(pl.col("preregistered").fill_null(False)).drop("status", "reason")
    frame = _named_predictor(outcome_column(rows), with_layer=True)
    return _table("registered", frame, "similarity_correlation", "predictor outcome rho p p_holm")


def settings(inputs: ReportInput) -> Table:
    """The settings of the study file."""
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
