"""The gate: after the sweep, which configuration phase 2 uses, and whether there is a phase 2.

Both rules are data in the study file; the decision is a record with every number that it rests on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import polars as pl

from bystander.analysis import Analysis, AnalysisSettings, analyze
from bystander.core.metrics import Outcome, is_control
from bystander.engine.collect import persona_table
from bystander.study.config.study import ResolvedStudy, StudySettings
from bystander.study.plan.cells import Plan, config_label, swept_behaviors
from bystander.study.plan.picked_items import LEFT, PICKED_ON, gate_outcomes, half_of, questions_in, splits_items
from bystander.study.store.cell_dir import MEASUREMENT_SCHEMA, CellDir
from bystander.study.store.records import GateDecision

PERMUTATIONS, RESAMPLES = (
    999,
    500,
)  # the gate compares an estimate with a threshold: the report's analysis is the full one


def decide(plan: Plan, needed: Sequence[CellDir]) -> GateDecision:
    """The decision, from the cells that the gate needs."""
    frames = [directory.measurements() for directory in needed]
    measurements = pl.concat(frames) if frames else pl.DataFrame(schema=MEASUREMENT_SCHEMA)
    geometry = next(directory for directory in needed if directory.similarities_file.is_file())
    similarities = pl.read_parquet(geometry.similarities_file.read_bytes())
    personas = persona_table(plan.study.personas, geometry.manifest().prompt_tokens)
    spec = plan.study.spec
    settings = AnalysisSettings(
        method=spec.geometry.method, layer=spec.geometry.layer, permutations=PERMUTATIONS, resamples=RESAMPLES, control_limit=spec.select.within,
        bystander_roles=("held-out",) if spec.arms[0] == "contrastive" else ("held-out", "mixed"),
    )  # fmt: skip
    found: list[Swept] = []
    phase: list[Mapping[str, Any]] = []
    picked_on: dict[str, list[str]] = {}
    for behavior in swept_behaviors(plan.study):
        outcome = measured_outcome(plan.study, behavior, measurements)
        rows, questions = reading(measurements, behavior, outcome, spec)
        analysis = analyze(rows, similarities, personas, settings=settings, hypotheses=())
        one = _behavior(analysis, behavior, spec)
        if questions and one.pick:
            picked_on[behavior] = questions["picking"]
            counts = {
                f"{behavior} {PICKED_ON}": len(questions["picking"]),
                f"{behavior} {LEFT}": len(questions["left"]),
            }
            one = replace(one, numbers=dict(one.numbers) | counts)
        found.append(one)
        phase += analysis.phase.to_dicts()
    decision, reason = rule(found, spec)
    return GateDecision(
        decision, reason, {one.behavior: one.pick for one in found if one.pick},
        {k: v for one in found for k, v in one.numbers.items()}, phase, picked_on,
    )  # fmt: skip


def measured_outcome(study: ResolvedStudy, behavior: str, measurements: pl.DataFrame) -> Outcome | None:
    """What the gate reads of a behavior: by default what its hypothesis is judged by. None where nothing was measured."""
    measured = set(measurements.select("probe", "dataset", "metric").unique().iter_rows())
    return next((outcome for outcome in gate_outcomes(study, behavior) if outcome in measured), None)


def reading(
    measurements: pl.DataFrame, behavior: str, outcome: Outcome | None, spec: StudySettings
) -> tuple[pl.DataFrame, dict[str, list[str]]]:
    """The rows that the gate decides on: this behavior's trainings and the untrained model, of the outcome and of the
    controls; and where they are split the questions for "picking" and those "left" to test on."""
    sets = measurements.select("probe", "dataset", "metric").unique().rows()
    asked = [one for one in sets if one == outcome or is_control(*one)]
    rows = measurements.filter(
        (pl.col("behavior") == behavior) | pl.col("source").is_null(),
        pl.struct("probe", "dataset", "metric").is_in(
            [dict(zip(("probe", "dataset", "metric"), one, strict=True)) for one in asked]
        ),
    )
    if outcome is None or not splits_items(spec):
        return rows, {}
    picking = half_of(rows, outcome, "picking")
    on = questions_in(picking, outcome)
    return picking, {"picking": on, "left": [one for one in questions_in(rows, outcome) if one not in on]}


@dataclass(frozen=True, slots=True)
class Swept:
    """What the sweep says of one behavior. `pick` "": the rule found no configuration. `value`: the gate's statistic
    at the pick, NaN where it could not be estimated."""

    behavior: str
    pick: str
    value: float
    why: str
    numbers: dict[str, float | int | str | None]


def _behavior(analysis: Analysis, behavior: str, spec: StudySettings) -> Swept:
    phase = analysis.phase.to_dicts()
    rows = [row for row in phase if row["behavior"] == behavior and row["arm"] == spec.arms[0]]
    assert spec.sweep is not None
    order = {config_label(c.lr, c.epochs): i for i, c in enumerate(spec.sweep.points())}
    rows.sort(key=lambda row: order.get(row["config"], len(order)))
    picked, why = select(rows, spec)
    numbers: dict[str, float | int | str | None] = {f"{behavior} configuration": picked["config"] if picked else None}
    if picked is None:
        return Swept(behavior, "", math.nan, why, numbers)
    outcome = {key: picked[key] for key in ("behavior", "source", "arm", "config", "probe", "dataset", "metric")}
    gradient = _gradient(analysis, outcome, spec)
    numbers |= {
        f"{behavior} outcome": "/".join(str(outcome[key]) for key in ("probe", "dataset", "metric")),
        f"{behavior} source effect": picked["source_effect"],
        f"{behavior} mean bystander leakage": picked["mean_bystander"],
        f"{behavior} control change": picked["control_change"],
        f"{behavior} rho": gradient.get("rho"),
        f"{behavior} rho low": gradient.get("low"),
        f"{behavior} rho high": gradient.get("high"),
        f"{behavior} bystanders": gradient.get("n"),
    }
    assert spec.gate is None or spec.gate.statistic in ("rho", "low", "high")
    value = gradient.get(spec.gate.statistic if spec.gate else "rho")
    return Swept(behavior, picked["config"], math.nan if value is None else float(value), why, numbers)


def _gradient(analysis: Analysis, outcome: Mapping[str, object], spec: StudySettings) -> dict[str, Any]:
    """The gradient of that training and outcome at the study's layer; {} where there is none."""
    frame = analysis.similarity_correlation.filter(
        pl.col("seed").is_null(), pl.col("method") == spec.geometry.method, pl.col("layer") == spec.geometry.layer,
        *(pl.col(key) == value for key, value in outcome.items()),
    )  # fmt: skip
    return frame.row(0, named=True) if frame.height else {}


def select(rows: Sequence[Mapping[str, Any]], spec: StudySettings) -> tuple[Mapping[str, Any] | None, str]:
    """The row of the phase diagram that the declared rule picks, and why; None where it can pick none."""
    if spec.select.rule == "given":
        assert spec.select.config is not None
        name = config_label(spec.select.config.lr, spec.select.config.epochs)
        return next((row for row in rows if row["config"] == name), None), "given in the study file"
    sound = [row for row in rows if row["control_change"] is None or row["control_change"] >= -spec.select.within]
    measured = [row for row in sound if row["source_effect"] is not None]
    if not sound:
        return None, f"in every configuration the control fell by more than the {spec.select.within:g} of select.within"
    if not measured:
        return None, f"the source's change was not measured in any of {len(sound)} sound configurations"
    best = max(measured, key=lambda row: row["source_effect"])  # the first of equals
    return best, f"the largest source effect ({best['source_effect']:z.3g}) of {len(measured)} sound configurations"


def rule(found: Sequence[Swept], spec: StudySettings) -> tuple[Literal["go", "stop"], str]:
    """go or stop, with the reason in words and numbers."""
    if not any(one.pick for one in found):
        return "stop", "; ".join(f"{one.behavior}: {one.why}" for one in found)
    if spec.gate is None:
        return "go", "the study has no gate; " + "; ".join(f"{one.behavior}: {one.pick}, {one.why}" for one in found)
    gate = spec.gate
    below = [one for one in found if not one.value >= gate.threshold]  # NaN is below: nothing was shown
    values = "; ".join(_value(one, spec) for one in found)
    stops = len(below) == len(found) if gate.stop_if == "all_below" else bool(below)
    which = "every behavior is" if gate.stop_if == "all_below" else "a behavior is"
    if stops:
        return "stop", f"{which} below the threshold of {gate.threshold:g}: {values}"
    return "go", f"{values} (threshold {gate.threshold:g})"


def _value(one: Swept, spec: StudySettings) -> str:
    if not one.pick:
        return f"{one.behavior}: {one.why}"
    statistic = spec.gate.statistic if spec.gate else "rho"
    name = "rho" if statistic == "rho" else f"the interval's {statistic} end"
    low, high = one.numbers.get(f"{one.behavior} rho low"), one.numbers.get(f"{one.behavior} rho high")
    interval = f" [{low:z.2f}, {high:z.2f}]" if isinstance(low, float) and isinstance(high, float) else ""
    number = "not estimable" if math.isnan(one.value) else f"{one.value:z.2f}"
    return f"{one.behavior}: {name} {number}{interval if statistic == 'rho' else ''} at {one.pick}"
