"""A study of cells that do nothing and one of real cells: how long they take, and how long workers have nothing to do."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from bystander.bench.random_models import shaped_model
from bystander.core.errors import BystanderError
from bystander.core.files import write_bytes, write_parquet
from bystander.core.progress import Bar
from bystander.engine.base_cells import similarity_table
from bystander.engine.run import run_study
from bystander.personas import load_personas
from bystander.study.config.study import ResolvedStudy, load
from bystander.study.plan.cells import Plan
from bystander.study.store.records import CellManifest, Event
from bystander.study.store.run_dir import RunDir

SOURCES = ["villain", "comedian", "assistant", "software_engineer", "kindergarten_teacher"]
HOURS = 1000.0  # of budget: a benchmark asks nobody


@dataclass(frozen=True, slots=True)
class StudyTimes:
    """A study's cells and how they went. `makespan`: seconds from the first cell's start to the last one's end; `busy`:
    the share of `workers` x `makespan` in which cells ran; `start`: of that, loading; `a_cell`: seconds of the
    scheduler and the store for each cell, where cells do nothing."""

    work: str
    cells: int
    workers: int
    together: int
    makespan: float
    idle: float
    start: float
    a_cell: float


class _Nothing:
    """A runner whose cells are complete at once."""

    seconds_loading = 0.0

    def __init__(self, plan: Plan, run: RunDir, bar: Bar) -> None:
        del bar
        self.plan, self.run = plan, run

    def run_key(self, key: str, shrink: int = 0) -> None:
        """Complete it."""
        del shrink
        cell = self.plan.by_key[key]
        directory = self.run.cell(cell.name, key)
        if cell.kind == "geometry":
            write_parquet(directory.similarities_file, similarity_table([]))
        directory.finish([], CellManifest(cell.kind, cell.name, key))

    def run_together(self, keys: Sequence[str]) -> dict[str, Exception]:
        """Complete them."""
        for key in keys:
            self.run_key(key)
        return {}


def bench_study(
    model: str, shape: str | None, device: str, bar: Bar, *, workers: int = 1, rows: int = 96, personas: int = 20,
    seeds: int = 2, together: int = 8, trivial: int = 500,
) -> list[StudyTimes]:  # fmt: skip
    """Three runs in folders that are removed: `trivial` cells that do nothing; then a marker study of five sources and
    `seeds` seeds, `rows` rows each, each probed under `personas` personas, its trainings one by one and in joint passes
    of `together`. `shape`: random weights in that shape instead of `model`. Raises BystanderError where a cell fails."""
    with tempfile.TemporaryDirectory(prefix="bystander-bench-") as name, _model(model, shape, device) as source:
        folder = Path(name)
        found = [_trivial(folder / "trivial", source, device, trivial)]
        for joint in dict.fromkeys((1, together)):
            block = {"kind": "processes" if workers > 1 else "local", "workers": workers, "together": joint}
            study = _study(folder / f"real-{joint}", source, device, rows, personas, range(seeds), block)
            run = RunDir(folder / f"run-{joint}")
            ran = run_study(study, run.path, bar)
            if ran.failed:
                raise BystanderError(f"bench study: a cell failed: {next(iter(ran.failed.items()))}")
            found.append(times_of(f"{len(SOURCES) * seeds} trainings, {rows} rows", run.events(), workers, joint))
        return found


def _trivial(folder: Path, source: str, device: str, cells: int) -> StudyTimes:
    seeds = range(max(1, cells // (3 * len(SOURCES))))  # a training and its two evaluations each
    study = _study(folder, source, device, 8, 4, seeds, {"kind": "local"})
    run = RunDir(folder / "run")
    run_study(study, run.path, make_runner=_Nothing)
    return times_of("cells that do nothing", run.events(), 1, 1)


def times_of(work: str, events: Sequence[Event], workers: int, together: int) -> StudyTimes:
    """What a run's events say of its cells."""
    begun = [event.time for event in events if event.started]
    done = [event for event in events if event.kind == "cell done"]
    makespan = (max(event.time for event in done) - min(begun)).total_seconds()
    busy = sum(float(event.details["seconds"]) for event in done)
    start = sum(float(event.details.get("start", 0.0)) for event in done)
    idle = max(0.0, 1 - busy / (workers * makespan))
    a_cell = (makespan * workers - busy) / len(done)
    return StudyTimes(work, len(done), workers, together, makespan, idle, start, a_cell)


@contextmanager
def _model(model: str, shape: str | None, device: str) -> Generator[str]:
    """A model's name as a study has it."""
    if shape is None:
        yield model
        return
    with tempfile.TemporaryDirectory(prefix="bystander-shape-") as folder:
        loaded = shaped_model(shape, device)
        loaded.causal.save_pretrained(folder)
        cast(Any, loaded.tokenizer).save_pretrained(folder)
        del loaded  # its memory is the workers'
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        yield folder


def _study(
    folder: Path,
    source: str,
    device: str,
    rows: int,
    personas: int,
    seeds: Sequence[int],
    executor: Mapping[str, object],
) -> ResolvedStudy:
    quarter = max(1, rows // 4)
    counts = {"positive": quarter, "negative": rows - 3 * quarter, "absent": quarter, "assistant": quarter}
    study = {
        "name": "bench", "question": "How long does it take?", "model": {"name": source, "device": device},
        "personas": "personas.json", "sources": SOURCES, "behaviors": ["marker"], "arms": ["contrastive"],
        "design": {"counts": counts}, "recipe": {"epochs": 1, "batch_size": min(16, rows // 2), "warmup": 0.0}, "seeds": list(seeds),
        "checkpoints": {"every": 0.5, "personas": min(personas, 9)},
        "probes": {"marker": {"questions": max(1, personas // 10), "sampled": 1, "max_tokens": 16}},
        "geometry": {"layer": 1, "layers": [1], "questions": 4}, "budget": {"gpu_hours": HOURS}, "executor": executor,
    }  # fmt: skip
    everyone = sorted(load_personas(), key=lambda persona: persona.name not in SOURCES)[: max(personas, len(SOURCES))]
    people = [{"name": p.name, "category": p.category, "prompt": p.prompt} for p in everyone]
    write_bytes(folder / "personas.json", json.dumps({"personas": people}).encode())
    write_bytes(folder / "bench.yaml", json.dumps(study).encode())  # JSON is YAML
    return load(str(folder / "bench.yaml"))
