"""The run directory: the one place that knows its paths and what lies at them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from bystander.core.errors import StoreError
from bystander.core.files import read_json, write_json
from bystander.core.records import Finding, Persona, as_dict
from bystander.study.store.cell_dir import CellDir, cell_folder
from bystander.study.store.events import read_events
from bystander.study.store.records import (
    AdapterGiven,
    CellManifest,
    Event,
    GateState,
    ModeDecision,
    SavedPlan,
    Spent,
)


@dataclass(frozen=True, slots=True)
class RunDir:
    """A run directory, there or not yet. Everything that is read is read anew."""

    path: Path

    # Paths.

    @property
    def cells_folder(self) -> Path:
        """A folder a cell."""
        return self.path / "cells"

    @property
    def measurements_file(self) -> Path:
        """The long table of all cells."""
        return self.path / "measurements.parquet"

    @property
    def similarities_file(self) -> Path:
        """Similarity of every persona to every source."""
        return self.path / "similarities.parquet"

    @property
    def personas_file(self) -> Path:
        """What is known of each persona."""
        return self.path / "personas.parquet"

    @property
    def tables_file(self) -> Path:
        """Which cells the tables hold."""
        return self.path / "tables.json"

    @property
    def stop_file(self) -> Path:
        """There while a stop is asked for: workers in other processes keep what they have and end."""
        return self.path / "stop"

    @property
    def events_file(self) -> Path:
        """What happened, a line an event."""
        return self.path / "events.jsonl"

    @property
    def study_file(self) -> Path:
        """The resolved study."""
        return self.path / "study.yaml"

    @property
    def provenance_file(self) -> Path:
        """Where the run came from; its presence makes the folder a run directory."""
        return self.path / "provenance.json"

    @property
    def personas_json(self) -> Path:
        """The personas of the study, as they were loaded."""
        return self.path / "personas.json"

    @property
    def plan_file(self) -> Path:
        """The plan that the run follows."""
        return self.path / "plan.json"

    @property
    def audit_file(self) -> Path:
        """What the audit found."""
        return self.path / "audit.json"

    @property
    def registration_file(self) -> Path:
        """The pre-registration."""
        return self.path / "preregistration.json"

    @property
    def forecast_file(self) -> Path:
        """The forecast of leakage, frozen before the first training."""
        return self.path / "forecast.json"

    @property
    def override_file(self) -> Path:
        """Why the gate was overridden."""
        return self.path / "override.json"

    @property
    def analysis_file(self) -> Path:
        """The analysis that the report shows."""
        return self.path / "analysis.json"

    @property
    def report_file(self) -> Path:
        """The report."""
        return self.path / "report.html"

    @property
    def lock_file(self) -> Path:
        """Who writes here now."""
        return self.path / "lock"

    @property
    def judged_folder(self) -> Path:
        """What `bystander judge` gave: a folder a judge, and which of them the report reads."""
        return self.path / "judged"

    @property
    def adapters_file(self) -> Path:
        """The adapters of others that were measured, where nothing was trained."""
        return self.path / "adapters.json"

    @property
    def files_folder(self) -> Path:
        """Copies of the files that the study names."""
        return self.path / "files"

    @property
    def files_file(self) -> Path:
        """Which they are."""
        return self.path / "files.json"

    @property
    def logs_folder(self) -> Path:
        """Inspect's logs of what the run's own judge has judged."""
        return self.path / "logs"

    # What lies there.

    def ask_to_stop(self) -> None:
        """Tell whoever works on a cell, in any process, to keep what it has and end."""
        self.stop_file.touch()

    @property
    def is_run(self) -> bool:
        """Whether it is a run directory."""
        return self.provenance_file.is_file()

    def cell(self, name: str, key: str) -> CellDir:
        """The folder of the cell of that name and key."""
        return CellDir(self.cells_folder / cell_folder(name, key))

    def complete_folders(self) -> set[str]:
        """Names of the folders of complete cells: quick on ten thousand of them."""
        if not self.cells_folder.is_dir():
            return set()
        with os.scandir(self.cells_folder) as entries:
            return {entry.name for entry in entries if CellDir(Path(entry.path)).complete}

    def complete_cells(self) -> Iterator[CellDir]:
        """Complete cells, by the names of their folders."""
        return (CellDir(self.cells_folder / name) for name in sorted(self.complete_folders()))

    def manifests(self, kind: str) -> Iterator[CellManifest]:
        """Manifests of the complete cells of one kind that the saved plan lists, in its order."""
        plan = self.plan()
        for planned in plan.cells if plan else ():
            if planned.kind == kind and (cell := self.cell(planned.name, planned.key)).complete:
                yield cell.manifest()

    def plan(self) -> SavedPlan | None:
        """The plan that the run follows; None before it has one."""
        return SavedPlan.from_dict(read_json(self.plan_file)) if self.plan_file.is_file() else None

    def save_plan(self, plan: SavedPlan) -> None:
        """Put it in place."""
        write_json(self.plan_file, asdict(plan))

    def events(self) -> list[Event]:
        """What happened, oldest first."""
        return list(read_events(self.events_file))

    def spent(self) -> Spent:
        """What all processes of the run have spent."""
        return spent_in(self.events())

    def gate(self) -> GateState:
        """Where the gate stands."""
        manifest = next(self.manifests("gate"), None)
        if manifest is None or manifest.gate is None:
            return GateState("", "", None)
        found, why = manifest.gate, self.override_reason()
        if found.decision == "stop" and why and found.picks:
            return GateState("overridden", f"{found.reason}; overridden: {why}", found)
        return GateState(found.decision, found.reason, found)

    def override_reason(self) -> str:
        """Why the gate is overridden; "" where it is not."""
        return str(read_json(self.override_file)["reason"]) if self.override_file.is_file() else ""

    def override_gate(self, reason: str) -> None:
        """Record that the gate is overridden, and why. Raises StoreError without a reason."""
        if not reason.strip():
            raise StoreError("--override needs a reason: it is recorded and stands in the report")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(self.override_file, {"reason": reason.strip(), "time": now})

    def modes(self) -> list[ModeDecision]:
        """How each checked probe measures."""
        return [manifest.mode for manifest in self.manifests("mode check") if manifest.mode is not None]

    def mode_findings(self) -> list[Finding]:
        """The same as findings, with a warning for each probe that may be blind."""
        found: list[Finding] = []
        for one in self.modes():
            found.append(Finding("info", "mode check", f"{one.probe} probe: {one.mode} mode; {one.reason}"))
            if one.warning:
                found.append(Finding("warning", "mode check", one.warning))
        return found

    def adapters(self) -> tuple[AdapterGiven, ...]:
        """The adapters of others that were measured here; () for a run that trains its own."""
        if not self.adapters_file.is_file():
            return ()
        rows: list[dict[str, Any]] = read_json(self.adapters_file)
        return tuple(AdapterGiven.from_dict(row) for row in rows)

    def save_adapters(self, adapters: Sequence[AdapterGiven]) -> None:
        """Put them in place."""
        write_json(self.adapters_file, [as_dict(adapter) for adapter in adapters])

    def provenance(self) -> dict[str, Any]:
        """Which study the run is of, and what made it. Raises StoreError for a damaged file."""
        return read_json(
            self.provenance_file,
            "it says which study the run is of: put it back, or run the study in another directory with --out",
        )

    def personas(self) -> tuple[Persona, ...]:
        """The personas of the study."""
        rows: list[dict[str, Any]] = read_json(self.personas_json)
        return tuple(Persona(r["name"], r["prompt"], r["category"], tuple(r["related_to"])) for r in rows)

    def save_personas(self, personas: Sequence[Persona]) -> None:
        """Put them in place."""
        write_json(self.personas_json, [as_dict(persona) for persona in personas])

    def table(self, path: Path, *, categories: bool = False) -> pl.DataFrame:
        """One of its tables. `categories`: texts as categories, read in pieces, a fifth of the memory. Raises StoreError
        where it is missing or damaged."""
        try:
            if not categories:
                return pl.read_parquet(path.read_bytes())  # bytes: a path with `[` in it would be taken for a pattern
            lazy = pl.scan_parquet(path, glob=False)
            texts = [name for name, kind in lazy.collect_schema().items() if kind == pl.String]
            return lazy.with_columns(pl.col(texts).cast(pl.Categorical)).collect(engine="streaming")
        except (OSError, pl.exceptions.PolarsError) as error:
            raise StoreError(
                f"{path} cannot be read ({error}); `bystander run` the study again into that folder: it writes the tables "
                "anew from the cells that are complete"
            ) from error


def spent_in(events: Sequence[Event]) -> Spent:
    """The sum of what events say was spent."""
    paid = [event.details for event in events if event.kind == "spent"]
    return Spent(
        sum((float(one.get("hours", 0.0)) for one in paid), 0.0),
        sum((float(one.get("dollars", 0.0)) for one in paid), 0.0),
    )
