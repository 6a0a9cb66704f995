"""The tables of a run: measurements, similarities and personas of all complete cells, put together."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from bystander.core.files import write_parquet
from bystander.study.plan.cells import Cell, Plan
from bystander.study.store.cell_dir import MEASUREMENT_SCHEMA, CellDir

PERSONA_SCHEMA = {
    "persona": pl.String, "category": pl.String, "related_to": pl.List(pl.String), "prompt": pl.String,
    "prompt_tokens": pl.Int64,
}  # fmt: skip


def collect(plan: Plan, folder: Path) -> None:
    """Write the three tables from the cells of `plan` that are complete, in the plan's order."""
    directories = {cell: CellDir(folder / "cells" / cell.folder) for cell in plan.cells}
    complete = {cell for cell, directory in directories.items() if directory.complete}
    frames = [
        directories[cell].measurements() for cell in plan.cells if cell in complete and not _superseded(cell, complete)
    ]
    frames = [frame for frame in frames if frame.height]
    write_parquet(
        folder / "measurements.parquet", pl.concat(frames) if frames else pl.DataFrame(schema=MEASUREMENT_SCHEMA)
    )
    tokens: dict[str, int] = {}
    geometry = plan.of_kind("geometry")[0]
    if geometry in complete:
        table = pl.read_parquet(directories[geometry].path / "similarities.parquet")
        write_parquet(folder / "similarities.parquet", table)
        tokens = directories[geometry].manifest()["prompt_tokens"]
    facts = [
        {
            "persona": p.name, "category": p.category, "related_to": list(p.related_to), "prompt": p.prompt,
            "prompt_tokens": tokens.get(p.name),
        }
        for p in plan.study.personas
    ]  # fmt: skip
    write_parquet(folder / "personas.parquet", pl.DataFrame(facts, schema=PERSONA_SCHEMA))


def _superseded(cell: Cell, complete: set[Cell]) -> bool:
    """The configuration that the gate picked is trained again in phase 2, with probes on its way: its few personas of
    the sweep then stand among the many of phase 3, and counting both would pair a persona with itself."""
    return (
        cell.group == "swept"
        and any(
            other.training == cell.training and other.probe == cell.probe and other.group == "all" for other in complete
        )
        and cell.training is not None
    )
