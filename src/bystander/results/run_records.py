"""What a run says of itself for the report: gate, registration, cost, and what was picked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC
from functools import cache
from typing import TYPE_CHECKING, Any

import polars as pl

from bystander.analysis.keys import BENIGN
from bystander.core import doors
from bystander.core.files import read_json, read_lines
from bystander.core.records import Finding, StepLog
from bystander.study.plan.preregistration import registered
from bystander.study.store.records import GateDecision
from bystander.study.store.run_dir import RunDir

if TYPE_CHECKING:
    from bystander.report.inputs import ContextRendering, CostLine, Declaration, GateResult, TrainingCurve, TrainingRows


def gate_result(run: RunDir) -> GateResult | None:
    """The gate's decision for the report."""
    from bystander.report.inputs import GateResult

    state = run.gate()
    return GateResult(state.decision, state.reason, dict(state.found.numbers)) if state.found else None


def created(run: RunDir) -> str:
    """When the run was begun, to the minute: the time of its first event; "" for a run without events."""
    first = next(iter(run.events()), None)
    return "" if first is None else f"{first.time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def audited(run: RunDir) -> tuple[list[Finding], list[ContextRendering]]:
    """What the audit found, and how each kind of context renders. Where there are renderings, the audit's notes of
    the same are left out."""
    from bystander.report.inputs import ContextRendering

    path = run.audit_file
    saved = read_json(path) if path.is_file() else {"findings": [], "renderings": []}
    findings = [Finding(f["level"], f["check"], f["message"], tuple(f["rows"])) for f in saved["findings"]]
    shown = [
        ContextRendering(r["kind"], r["name"], r["system"], r["text"], r.get("context_hash", ""))
        for r in saved["renderings"]
    ]
    if shown:
        findings = [f for f in findings if f.level != "info" or f.check != "context rendering"]
    return findings, shown


def blind(run: RunDir) -> dict[str, str]:
    """Outcome (probe/dataset/metric) -> why there is nothing to lose: neither has the untrained model anything, nor the
    benign arm, which may have learned to answer; by the details of their measurements."""
    untrained = _blind(run, {manifest.base_hash for manifest in run.manifests("evaluate")})
    if not untrained:
        return {}
    trained = run.manifests("train")
    benign = _blind(run, {one.weights_hash for one in trained if one.training and one.training.arm == BENIGN})
    return {outcome: why for outcome, why in untrained.items() if benign is None or outcome in benign}


def _blind(run: RunDir, weights: Collection[str]) -> dict[str, str] | None:
    """Of the evaluations of these weights, by hash; None where none has details."""
    details: dict[str, list[dict[str, Any]]] = {}
    for cell in run.complete_cells():
        manifest = cell.manifest()
        if manifest.kind == "evaluate" and manifest.weights_hash in weights and (kept := cell.details()):
            details.setdefault(str(cell.measurements()["probe"][0]), []).extend(kept)
    if not details:
        return None
    return {
        "/".join((name, *outcome)): why
        for name, kept in details.items()
        if name in doors.names("probe")
        for outcome, why in doors.load("probe", name).blind(kept).items()
    }


def blind_findings(found: Mapping[str, str]) -> list[Finding]:
    """The same as warnings."""
    return [
        Finding(
            "warning", "nothing to lose", f"{outcome}: {why}; a claim on it can see neither leakage nor its absence"
        )
        for outcome, why in found.items()
    ]


def adapter_findings(run: RunDir) -> list[Finding]:
    """What a reader must know of adapters that were trained elsewhere; [] for a run that trains its own."""
    given = run.adapters()
    found = [Finding("warning", "base of an adapter", f"{one.label}: {note}") for one in given for note in one.notes]
    if given:
        said = "; ".join(f"{a.label}: source {a.source}, negatives {', '.join(a.negatives) or 'none'}" for a in given)
        found.append(Finding("info", "roles", f"as the user says them: {said}"))
    return found


def adapter_provenance(run: RunDir) -> dict[str, str]:
    """Folder and weights of each adapter that was trained elsewhere."""
    return {f"adapter {one.label}": f"{one.path}, with its base {one.weights_hash[:16]}" for one in run.adapters()}


# Keys of a study file that say what a training is: of adapters that were trained elsewhere they tell nothing.
OF_TRAINING = (
    "arms", "design", "recipe", "for_behavior", "sweep", "gate", "select", "checkpoints", "seeds", "budget", "executor",
    "hypotheses",
)  # fmt: skip


def settings_shown(run: RunDir, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decided what the run measured."""
    trained_here = not run.adapters_file.is_file()
    return {key: value for key, value in settings.items() if trained_here or key not in OF_TRAINING}


def curves(run: RunDir) -> list[TrainingCurve]:
    """The steps of every training of the run, in the order of its cells' folders. The configuration that the gate picked
    is trained twice, from the same seed: it is one curve."""
    from bystander.report.inputs import TrainingCurve

    found: dict[str, TrainingCurve] = {}
    for cell in run.complete_cells():
        training = cell.manifest().training
        if training is None or not cell.steps_file.is_file():
            continue
        steps = [StepLog(**row) for row in run.table(cell.steps_file).to_dicts()]
        words = (training.source, training.behavior, training.arm, training.config)
        label = ", ".join(word.replace("_", " ") for word in words) + f", seed {training.seed}"
        found[label] = TrainingCurve(
            label, steps, source=training.source, behavior=training.behavior, arm=training.arm, config=training.config,
            seed=training.seed,
        )  # fmt: skip
    return list(found.values())


def trained(run: RunDir) -> list[TrainingRows]:
    """What every design of the run was trained on, in the plan's order; [] where the trainings are somebody else's."""
    from bystander.report.inputs import TrainingRows

    plan = run.plan()
    data = next((cell for cell in (plan.cells if plan else ()) if cell.kind == "data"), None)
    if data is None:
        return []
    folder, rows_of = run.cell(data.name, data.key).path, cache(read_lines)
    seeds: dict[TrainingRows, list[int]] = {}
    for manifest in run.manifests("train"):
        one = manifest.training
        path = folder / f"{one.behavior}-{one.source}-{one.arm}.jsonl" if one else None
        if one is None or path is None or not path.is_file():
            continue
        rows = rows_of(path)
        shape = TrainingRows(one.behavior, one.source, one.arm, one.config, len(rows), one.epochs, _negatives_in(rows))
        found = seeds.setdefault(shape, [])
        if one.seed not in found:
            found.append(one.seed)
    return [replace(shape, seeds=tuple(sorted(found))) for shape, found in seeds.items()]


def _negatives_in(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The personas that rows teach not to show the behavior, in their order."""
    names = [str(row["persona"]) for row in rows if row["role"] == "negative" and row["context"] == "persona"]
    return tuple(dict.fromkeys(names))


def picked(run: RunDir) -> dict[str, str]:
    """Behavior -> the configuration that the gate picked."""
    found = run.gate().found
    return dict(found.picks) if found else {}


def main_rows(measurements: pl.DataFrame, gate: GateDecision | None) -> pl.DataFrame:
    """The measurements that the claim is about: those of phase 2's trainings, and of the untrained model. The sweep's
    other configurations were looked at by the gate; tested again they would only weaken the correction for many tests.
    All rows where phase 2 has none."""
    if gate is None:
        return measurements
    swept = pl.struct("behavior", "config").is_in(
        [{"behavior": row["behavior"], "config": row["config"]} for row in gate.phase]
    )
    picks = [{"behavior": behavior, "config": config} for behavior, config in gate.picks.items()]
    chosen = pl.struct("behavior", "config").is_in(picks) if picks else pl.lit(False)
    main = measurements.filter(pl.col("source").is_null() | ~swept | chosen)
    trained = main.filter(pl.col("source").is_not_null())
    later = trained.height and _personas(trained) > _swept_personas(measurements, gate)
    return main if later else measurements


def _swept_personas(measurements: pl.DataFrame, gate: GateDecision) -> int:
    """How many personas the sweep's configurations that were not picked were probed under."""
    others = [row["config"] for row in gate.phase if gate.picks.get(row["behavior"]) != row["config"]]
    frame = measurements.filter(pl.col("config").is_in(others))
    return _personas(frame)


def _personas(frame: pl.DataFrame) -> int:
    return frame.filter(pl.col("context") == "persona")["persona"].n_unique()


def registration(run: RunDir) -> tuple[list[Declaration], str]:
    """The pre-registration line by line, and its hash."""
    from bystander.report.inputs import Declaration

    found = registered(run)
    if found is None:
        return [], ""
    lines = [Declaration("frozen", str(found["frozen"]))]
    for name, value in found["declaration"].items():
        if name == "hypotheses":
            lines += [Declaration(f"hypothesis {one['name']}", _hypothesis(one)) for one in value]
        elif value not in (None, "", []):
            lines.append(Declaration(name, value if isinstance(value, str) else _plain(value)))
    if found.get("forecast"):
        lines.append(Declaration("forecast of leakage", f"{run.forecast_file.name}, hash {found['forecast']}"))
    return lines, str(found["hash"])


def _hypothesis(one: Mapping[str, Any]) -> str:
    bars = "; ".join(
        f"{'/'.join(t['outcome'])}: source at least {t['source']:g}, bystanders more than {t['bystanders']:g}"
        for t in one["thresholds"]
    )
    return f"{bars}; rho above {one['rho']:g}, p below {one['alpha']:g}"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_plain(inner)}" for key, inner in value.items())
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)


def cost(run: RunDir) -> list[CostLine]:
    """Forecast against spent."""
    from bystander.report.inputs import CostLine

    planned = next((event.details for event in run.events() if event.kind == "planned"), None)
    if planned is None:
        return []
    spent, plan = run.spent(), run.plan()
    lines = [CostLine("device hours", "h", float(planned["hours"]), spent.hours, plan.rates if plan else "")]
    if planned.get("dollars") or spent.dollars:
        lines.append(CostLine("judge", "$", float(planned.get("dollars") or 0), spent.dollars))
    return lines
