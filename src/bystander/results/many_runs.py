"""Many runs side by side: the cards of the board, the analyses of a comparison, and what `export` writes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import polars as pl

from bystander.core.errors import DataError, StoreError
from bystander.core.files import write_bytes, write_parquet
from bystander.results.results import Results
from bystander.results.run_records import cost
from bystander.results.status import RunStatus, status
from bystander.study.plan.preregistration import registered
from bystander.study.store.records import Event
from bystander.study.store.run_dir import RunDir

if TYPE_CHECKING:
    from bystander.report.inputs import BoardCard, BoardEvent, BoardState

TIMELINE = 40  # events a card: the bookkeeping of single cells is left out
SHOWN = (
    "clarified",
    "planned",
    "reviewed",
    "approved",
    "preflight",
    "launched",
    "gated",
    "cell failed",
    "reported",
    "archived",
)


def run_folders(places: Sequence[Path]) -> list[Path]:
    """The run directories among `places` and one level below them. Raises StoreError for a place without any."""
    found: list[Path] = []
    for place in places:
        inside = [place, *sorted(p for p in place.iterdir() if p.is_dir())] if place.is_dir() else []
        runs = [folder for folder in inside if RunDir(folder).is_run]
        if not runs:
            raise StoreError(f"no run directory at {place}, nor one level below it")
        found += runs
    return list(dict.fromkeys(found))


def card(folder: Path, page: Path) -> BoardCard:
    """A run's card; links are relative to the folder of `page`."""
    from bystander.report.inputs import BoardCard

    run = RunDir(folder)
    found = status(run) if run.plan_file.is_file() else None
    counts = {s: sum(phase.counts[s] for phase in found.phases) for s in ("done", "running", "failed")} if found else {}
    total = sum(sum(phase.counts.values()) for phase in found.phases) if found else 0
    results = Results.open(folder) if run.measurements_file.is_file() else None
    verdicts, report = _verdicts(run), run.report_file
    return BoardCard(
        study=str(run.provenance()["study"]),
        state=_state(found),
        question=results.study.spec.question if results else "",
        directory=str(folder),
        hypotheses=verdicts,
        verdict=_verdict(found, verdicts),
        cost=cost(run),
        cells_done=counts.get("done", 0),
        cells_running=counts.get("running", 0),
        cells_failed=counts.get("failed", 0),
        cells_total=total,
        report=Path(os.path.relpath(report, page)).as_posix() if report.is_file() else "",
        timeline=_timeline(run.events()),
    )


def _state(found: RunStatus | None) -> BoardState:
    if found is None:
        return "planned"
    state = "approved" if found.state == "stopped" else found.state  # cells are left, and nobody runs them now
    return cast("BoardState", state)


def _verdicts(run: RunDir) -> list[tuple[str, str]]:
    """The verdicts of the last report; "open" for hypotheses that were registered and have none yet."""
    from bystander.analysis import Analysis

    path = run.analysis_file
    verdicts = Analysis.from_json(path.read_text(encoding="utf-8"), path).verdicts if path.is_file() else ()
    found = [(verdict.hypothesis, str(verdict.outcome)) for verdict in verdicts]
    registration = registered(run)
    named = [str(one["name"]) for one in registration["declaration"]["hypotheses"]] if registration else []
    decided = {name.split("/")[0] for name, _ in found}
    return [*found, *((name, "open") for name in named if name not in decided)]


def _verdict(found: RunStatus | None, verdicts: Sequence[tuple[str, str]]) -> str:
    if found is not None and found.gate == "stop":
        return f"stopped at the gate: {found.gate_reason}"
    return ", ".join(f"{name} {outcome}" for name, outcome in verdicts if outcome != "open")


def _timeline(events: Sequence[Event]) -> list[BoardEvent]:
    from bystander.report.inputs import BoardEvent

    chosen = [event for event in events if event.kind in SHOWN][-TIMELINE:]
    return [BoardEvent(event.time.isoformat(timespec="milliseconds"), event.kind, _detail(event)) for event in chosen]


def _detail(event: Event) -> str:
    shown = {
        key: value
        for key, value in event.details.items()
        if key not in ("key", "checks", "defaults", "pid") and not isinstance(value, dict | list)
    }
    return ", ".join(
        f"{key} {value:z.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in shown.items()
    )[:200]


def board(places: Sequence[Path], out: Path) -> Path:
    """Write the board of all runs at `places`; returns its path."""
    from datetime import UTC, datetime

    from bystander.report import write_board

    page = out.parent if out.suffix == ".html" else out
    cards = [card(folder, page) for folder in run_folders(places)]
    return write_board(cards, out, datetime.now(UTC).isoformat(timespec="seconds"))


def compare(places: Sequence[Path], out: Path, style: str = "screen") -> Path:
    """Write the comparison of the runs at `places`; returns its path. Raises DataError for fewer than two runs or one
    that is given twice."""
    from bystander.report import write_compare

    given = [folder.resolve() for folder in places]
    for folder, real in zip(places, given, strict=True):
        if given.count(real) > 1:
            raise DataError(f"the run at {folder} is given twice; compare it with another one")
    runs = [Results.open(folder) for folder in places]
    titles = _titles([run.study.spec.name for run in runs], places)
    studies = [(title, run.analysis, run.report_input()) for title, run in zip(titles, runs, strict=True)]
    return write_compare(studies, out, style)


def _titles(names: Sequence[str], places: Sequence[Path]) -> list[str]:
    """What tells runs apart: the study's name, or, where studies share it, the run's folder with as many of its parents
    as it takes."""
    parts = [folder.absolute().parts for folder in places]
    titles = list(names)
    for depth in range(1, max(map(len, parts), default=0) + 1):
        titles = [
            name if names.count(name) == 1 else "/".join(part[-depth:]) for name, part in zip(names, parts, strict=True)
        ]
        if len(set(titles)) == len(titles):
            break
    return titles


def export(folder: Path, target: Path) -> list[Path]:
    """Every table of a run as CSV and Parquet, with a data dictionary; returns what was written."""
    from bystander.results.data_dictionary import dictionary

    results = Results.open(folder)
    raw = {"measurements": results.measurements, "similarities": results.similarities, "personas": results.personas}
    tables = raw | results.analysis.tables()
    written: list[Path] = []
    for name, frame in tables.items():
        write_parquet(target / f"{name}.parquet", frame)
        flat = frame.with_columns(pl.col(pl.List(pl.String)).list.join("; "))  # CSV has no lists
        write_bytes(target / f"{name}.csv", flat.write_csv().encode())
        written += [target / f"{name}.parquet", target / f"{name}.csv"]
    write_bytes(target / "DICTIONARY.md", dictionary(tables).encode())
    return [*written, target / "DICTIONARY.md"]
