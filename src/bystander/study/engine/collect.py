"""The tables of a run: measurements, similarities and personas of all complete cells, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from bystander.core.files import write_parquet
from bystander.core.records import Persona
from bystander.study.plan.cells import Cell, Plan
from bystander.study.store.cell_dir import CELLS_KEPT, MEASUREMENT_SCHEMA
from bystander.study.store.run_dir import RunDir

PERSONA_SCHEMA = {
    "persona": pl.String, "category": pl.String, "related_to": pl.List(pl.String), "prompt": pl.String,
    "prompt_tokens": pl.Int64,
}  # fmt: skip


def collect(plan: Plan, run: RunDir) -> None:
    """Write the three tables from the cells of `plan` that are complete, in the plan's order."""
    directories = {cell: run.cell(cell.name, cell.key) for cell in plan.cells}
    complete = {cell for cell, directory in directories.items() if directory.complete}
    frames = [
        directories[cell].measurements() for cell in plan.cells if cell in complete and not _superseded(cell, complete)
    ]
    frames = [frame for frame in frames if frame.height]
    measured = pl.concat(frames) if frames else pl.DataFrame(schema=MEASUREMENT_SCHEMA)
    write_parquet(run.measurements_file, measured, CELLS_KEPT)
    tokens: dict[str, int] = {}
    geometry = plan.of_kind("geometry")[0]
    if geometry in complete:
        table = run.table(directories[geometry].similarities_file)
        write_parquet(run.similarities_file, table, CELLS_KEPT)
        tokens = dict(directories[geometry].manifest().prompt_tokens)
    write_parquet(run.personas_file, persona_table(plan.study.personas, tokens), CELLS_KEPT)


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
