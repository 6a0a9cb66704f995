"""The tables of a run: measurements, similarities and personas of all complete cells, put together.

Made from the saved plan and the cells' folders alone, so that a run that was stopped owes them to nobody: the next run
makes them, or `bystander report`. Cells are written a few at a time: memory does not grow with the study.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from bystander.core.files import explained, read_json, write_json, write_parquet
from bystander.core.hashing import stable_hash
from bystander.core.records import Persona
from bystander.study.store.cell_dir import CELLS_KEPT, MEASUREMENT_SCHEMA, cell_folder
from bystander.study.store.records import PlannedCell, SavedPlan
from bystander.study.store.run_dir import RunDir

PERSONA_SCHEMA = {
    "persona": pl.String, "category": pl.String, "related_to": pl.List(pl.String), "prompt": pl.String,
    "prompt_tokens": pl.Int64,
}  # fmt: skip
ROWS_AT_ONCE = 200_000  # of a row group: about 40 MB while they are put together


def behind(run: RunDir) -> bool:
    """Whether cells are complete that the tables do not have yet."""
    plan = run.plan()
    if plan is None:
        return False
    if not run.tables_file.is_file() or not run.measurements_file.is_file():
        return True
    return bool(read_json(run.tables_file)["cells"] != _digest(_counted(plan, run)))


def bring_up_to_date(run: RunDir) -> None:
    """Write the tables where they are behind."""
    if behind(run):
        collect(run)


def collect(run: RunDir) -> None:
    """Write the three tables from the cells of the saved plan that are complete, in the plan's order."""
    plan = run.plan()
    assert plan is not None, "a run has a plan before it has cells"
    cells = _counted(plan, run)
    folders = [run.cell(cell.name, cell.key) for cell in cells]
    write_tables(run.measurements_file, (folder.measurements() for folder in folders))
    tokens: dict[str, int] = {}
    geometry = next((folder for cell, folder in zip(cells, folders, strict=True) if cell.kind == "geometry"), None)
    if geometry is not None:
        write_parquet(run.similarities_file, run.table(geometry.similarities_file), CELLS_KEPT)
        tokens = dict(geometry.manifest().prompt_tokens)
    write_parquet(run.personas_file, persona_table(run.personas(), tokens), CELLS_KEPT)
    write_json(run.tables_file, {"cells": _digest(cells)}, CELLS_KEPT)


def write_tables(path: Path, frames: Iterable[pl.DataFrame]) -> None:
    """Measurements of many cells as one Parquet file, whole or not at all; the same frames give the same bytes."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    schema = pl.DataFrame(schema=MEASUREMENT_SCHEMA).to_arrow().schema
    with explained(path, CELLS_KEPT):
        try:
            with pq.ParquetWriter(temporary, schema, compression="zstd", store_schema=False) as writer:
                for frame in _row_groups(frames):
                    writer.write_table(_arrow(frame, schema), row_group_size=frame.height)
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _row_groups(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    some: list[pl.DataFrame] = []
    for frame in frames:
        if frame.height:
            some.append(frame)
        if sum(one.height for one in some) >= ROWS_AT_ONCE:
            yield pl.concat(some)
            some = []
    if some:
        yield pl.concat(some)


def _arrow(frame: pl.DataFrame, schema: Any) -> Any:
    return frame.to_arrow().cast(schema)


def _counted(plan: SavedPlan, run: RunDir) -> list[PlannedCell]:
    """The complete cells whose rows stand in the tables. The configuration that the gate picked is trained again in
    phase 2, with probes on its way: its few personas of the sweep then stand among the many of phase 3, and counting
    both would pair a persona with itself."""
    folders = run.complete_folders()
    complete = {cell.key: cell for cell in plan.cells if cell_folder(cell.name, cell.key) in folders}
    return [cell for cell in complete.values() if cell.replaced_by not in complete]


def _digest(cells: Sequence[PlannedCell]) -> str:
    return stable_hash([cell.key for cell in cells])


def persona_table(personas: Sequence[Persona], tokens: Mapping[str, int]) -> pl.DataFrame:
    """What is known of each persona; `tokens`: lengths of their prompts."""
    facts = [
        {
            "persona": p.name, "category": p.category, "related_to": list(p.related_to), "prompt": p.prompt,
            "prompt_tokens": tokens.get(p.name),
        }
        for p in personas
    ]  # fmt: skip
    return pl.DataFrame(facts, schema=PERSONA_SCHEMA)
