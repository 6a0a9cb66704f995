"""What a run says of itself for the report: gate, registration, cost, and what was picked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from bystander.core.errors import StoreError
from bystander.core.files import read_json, read_lines
from bystander.core.records import Completion, Finding, StepLog
from bystander.study.config.study import Study
from bystander.study.engine.budget import spent_so_far
from bystander.study.plan.preregistration import kept
from bystander.study.store.cell_dir import STAMPED, CellDir, Sampled
from bystander.study.store.events import read_events

if TYPE_CHECKING:
    from bystander.report.inputs import ContextRendering, CostLine, Declaration, GateResult, TrainingCurve


def gate_manifest(folder: Path) -> Mapping[str, Any] | None:
    """What the gate of a run found; None where it has not decided or there is none."""
    found = sorted((folder / "cells").glob("gate-*/manifest.json"))
    return read_json(found[-1])["gate"] if found else None


def gate_result(folder: Path) -> GateResult | None:
    """The gate's decision for the report."""
    from bystander.report.inputs import GateResult
    from bystander.study.engine.gate import overridden

    found = gate_manifest(folder)
    if found is None:
        return None
    why = overridden(folder)
    stopped = found["decision"] == "stop"
    decision = "overridden" if stopped and why else str(found["decision"])
    reason = f"{found['reason']}; overridden: {why}" if stopped and why else str(found["reason"])
    return GateResult(decision, reason, dict(found["numbers"]))


def created(folder: Path) -> str:
    """When the run was begun, to the minute: the time of its first event; "" for a run without events."""
    first = next(read_events(folder / "events.jsonl"), None)
    if first is None:
        return ""
    return f"{datetime.fromisoformat(str(first['time'])).astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def audited(folder: Path) -> tuple[list[Finding], list[ContextRendering]]:
    """What the audit found, and how each kind of context renders. Where the renderings are kept by themselves, the audit's
    notes of the same are left out."""
    from bystander.report.inputs import ContextRendering

    path = folder / "audit.json"
    said = read_json(path) if path.is_file() else {"findings": []}
    findings = [Finding(f["level"], f["check"], f["message"], tuple(f["rows"])) for f in said["findings"]]
    shown = [ContextRendering(r["kind"], r["name"], r["system"], r["text"]) for r in said.get("renderings", ())]
    if shown:
        findings = [f for f in findings if f.level != "info" or f.check != "context rendering"]
    return findings, shown


def curves(folder: Path) -> list[TrainingCurve]:
    """The steps of every training of the run, in the order of its cells' folders. The configuration that the gate picked
    is trained twice, from the same seed: it is one curve."""
    from bystander.report.inputs import TrainingCurve

    found: dict[str, TrainingCurve] = {}
    for path in sorted((folder / "cells").glob("*/steps.parquet")):
        cell = CellDir(path.parent)
        if not cell.complete:
            continue
        named = _training(cell)
        steps = [StepLog(**row) for row in pl.read_parquet(path).to_dicts()]
        words = [str(named[key]) for key in ("source", "behavior", "arm", "config")]
        label = ", ".join(word.replace("_", " ") for word in words if word)
        label += f", seed {named['seed']}"
        found[label] = TrainingCurve(label, steps, **named)
    return list(found.values())


def sampled(cell: CellDir) -> list[Sampled]:
    """The kept answers of a cell, each with what it is of. An older run's answers do not say it themselves; there it is
    what was measured on the answer: the k-th one of a persona to an item belongs to the k-th checkpoint.

    Raises StoreError for an answer of which nothing says what training and checkpoint it is of."""
    path = cell.path / "completions.jsonl.zst"
    lines = read_lines(path) if path.is_file() else []
    if all("stamp" in line for line in lines):
        return cell.sampled()
    measured: dict[tuple[str, str], list[dict[str, Any]]] = {}
    rows = cell.measurements().select("persona", "item", "probe", *STAMPED).unique(maintain_order=True)
    for row in rows.iter_rows(named=True):
        measured.setdefault((row["persona"], row["item"]), []).append(row)
    found: list[Sampled] = []
    for line in lines:
        answer = Completion(**line)
        left = measured.get((answer.persona, f"{answer.item}/{answer.sample}"))
        if not left:
            raise StoreError(
                f"{path}: nothing says which checkpoint the answer {answer.id!r} is of; remove that folder and run the study "
                "again"
            )
        found.append(Sampled(answer, left.pop(0)))
    return found


def _training(cell: CellDir) -> dict[str, Any]:
    """The columns that name a training: from its manifest, or from what it measured where the manifest is an older one."""
    names = ("source", "behavior", "arm", "config", "seed")
    kept = cell.manifest().get("training")
    if kept is None:
        kept = cell.measurements().row(0, named=True)
    return {name: kept[name] for name in names}


def modes(folder: Path, spec: Study) -> dict[str, str]:
    """Probe -> how it measures, for the probes that have more than one way: as its check on the untrained model decided,
    or as the study says."""
    found = (
        {} if spec.probes.choice is None or spec.probes.choice.mode == "auto" else {"choice": spec.probes.choice.mode}
    )
    for path in (folder / "cells").glob("instrument-*/manifest.json"):
        manifest = read_json(path)
        found[str(manifest["name"]).removeprefix("instrument-")] = manifest["instrument"]["mode"]
    return found


def instrument_findings(folder: Path) -> list[Finding]:
    """How the probes that are checked on the untrained model measure, and a warning for each that may be blind."""
    found: list[Finding] = []
    for path in sorted((folder / "cells").glob("instrument-*/manifest.json")):
        manifest = read_json(path)
        check, probe = manifest["instrument"], manifest["name"].removeprefix("instrument-")
        message = f"{probe} probe: {check['mode']} mode; {check['reason']}"
        found.append(Finding("info", "instrument check", message))
        if check["warning"]:
            found.append(Finding("warning", "instrument check", check["warning"]))
    return found


def picked(folder: Path) -> dict[str, str]:
    """Behavior -> the configuration that the gate picked."""
    found = gate_manifest(folder)
    return dict(found["picks"]) if found else {}


def main_rows(measurements: pl.DataFrame, folder: Path) -> pl.DataFrame:
    """The measurements that the claim is about: those of phase 2's trainings, and of the untrained model. The sweep's
    other configurations were looked at by the gate; tested again they would only weaken the correction for many tests.
    All rows where phase 2 has none."""
    found = gate_manifest(folder)
    if found is None:
        return measurements
    swept = pl.struct("behavior", "config").is_in(
        [{"behavior": row["behavior"], "config": row["config"]} for row in found["phase"]]
    )
    picks = [{"behavior": behavior, "config": config} for behavior, config in found["picks"].items()]
    chosen = pl.struct("behavior", "config").is_in(picks) if picks else pl.lit(False)
    main = measurements.filter(pl.col("source").is_null() | ~swept | chosen)
    evolved = main.filter(pl.col("source").is_not_null())
    gated = evolved.group_by("behavior").agg(pl.col("checkpoint").n_unique(), pl.col("source").n_unique())
    return (
        main if gated.height and evolved["persona"].n_unique() > _swept_personas(measurements, found) else measurements
    )


def _swept_personas(measurements: pl.DataFrame, found: Mapping[str, Any]) -> int:
    """How many personas the sweep's configurations that were not picked were probed under."""
    picks = dict(found["picks"])
    others = [row["config"] for row in found["phase"] if picks.get(row["behavior"]) != row["config"]]
    frame = measurements.filter(pl.col("config").is_in(others))
    return frame["persona"].n_unique() if frame.height else 0


def registered(folder: Path) -> tuple[list[Declaration], str]:
    """The pre-registration line by line, and its hash."""
    from bystander.report.inputs import Declaration

    found = kept(folder)
    if found is None:
        return [], ""
    lines = [Declaration("frozen", str(found["frozen"]))]
    for name, value in found["declaration"].items():
        if name == "hypotheses":
            lines += [Declaration(f"hypothesis {one['name']}", _hypothesis(one)) for one in value]
        elif value not in (None, "", []):
            lines.append(Declaration(name, value if isinstance(value, str) else _plain(value)))
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


def cost(folder: Path) -> list[CostLine]:
    """Forecast against spent."""
    from bystander.report.inputs import CostLine

    events = list(read_events(folder / "events.jsonl"))
    planned = next((event for event in events if event["event"] == "planned"), None)
    if planned is None:
        return []
    spent = spent_so_far(events)
    source = str(read_json(folder / "plan.json")["rates"]) if (folder / "plan.json").is_file() else ""
    lines = [CostLine("device hours", "h", float(planned["hours"]), spent.hours, source)]
    if planned.get("dollars") or spent.dollars:
        lines.append(CostLine("judge", "$", float(planned.get("dollars") or 0), spent.dollars))
    return lines
