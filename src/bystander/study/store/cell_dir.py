"""One cell's folder in a run directory.

A file is written under a temporary name and renamed; a cell is complete when, and only when, its `manifest.json` has
been renamed into place. A kill at any moment leaves complete cells complete and half-done ones resumable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from bystander.core.columns import schema_of
from bystander.core.files import (
    compressed_lines,
    explained,
    read_json,
    read_lines,
    write_bytes,
    write_json,
    write_parquet,
)
from bystander.core.hashing import stable_hash
from bystander.core.records import Completion, Measurement, as_dict
from bystander.probe.base import ProbeUnit
from bystander.study.store.records import CellManifest

# What says which weights a measurement or a completion comes from.
STAMPED = ("behavior", "source", "arm", "config", "lr", "epochs", "seed", "role", "checkpoint", "weights_hash")
MEASUREMENT_SCHEMA = schema_of(Measurement)
CELLS_KEPT = "complete cells are kept"


def cell_folder(name: str, key: str) -> str:
    """Name of the folder of a cell."""
    return f"{name}-{key[:12]}"


class CellDir:
    """One cell's folder. Units are kept one file each until `finish` merges them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def complete(self) -> bool:
        """Whether the manifest is in place."""
        return self.manifest_file.is_file()

    @property
    def manifest_file(self) -> Path:
        """What makes the cell complete."""
        return self.path / "manifest.json"

    def manifest(self) -> CellManifest:
        """What the cell said when it was done."""
        return CellManifest.from_dict(read_json(self.manifest_file))

    @property
    def adapter(self) -> Path:
        """The folder of a training's adapter."""
        return self.path / "adapter"

    @property
    def similarities_file(self) -> Path:
        """A geometry's table."""
        return self.path / "similarities.parquet"

    @property
    def beside_file(self) -> Path:
        """A geometry's table of the contexts beside the personas, under their labels."""
        return self.path / "similarities_beside.parquet"

    @property
    def steps_file(self) -> Path:
        """A training's steps."""
        return self.path / "steps.parquet"

    def last_written(self) -> float:
        """When anything was last written in it, in seconds since 1970; 0 for never."""
        return max((path.stat().st_mtime for path in self.path.rglob("*") if path.is_file()), default=0.0)

    def keep_unit(self, unit: ProbeUnit, stamp: Callable[[Measurement], Measurement], probe: str) -> None:
        """Keep what one unit of `probe` gave. `stamp` fills in the training's columns, on completions too: a kept answer
        says by itself which weights gave it."""
        value = {
            "key": unit.key,
            "measurements": _compact([as_dict(stamp(m)) for m in unit.measurements]),
            "completions": [{**as_dict(c), "stamp": _stamped(c, stamp, probe)} for c in unit.completions],
            "details": unit.details,
        }
        write_json(self.path / "units" / f"{stable_hash(unit.key)[:24]}.json", value, CELLS_KEPT)

    def kept_keys(self) -> set[str]:
        """The keys of the units kept so far."""
        return set(self.kept_units())

    def begin(self) -> None:
        """Make the folder, and remove what writes that were killed left behind under temporary names."""
        with explained(self.path, CELLS_KEPT):
            self.path.mkdir(parents=True, exist_ok=True)
        for leftover in self.path.glob("**/.*.tmp"):
            leftover.unlink(missing_ok=True)

    def kept_units(self) -> dict[str, dict[str, Any]]:
        """Key -> content of every unit kept so far."""
        units = (read_json(path) for path in sorted((self.path / "units").glob("*.json")))
        return {unit["key"]: unit for unit in units}

    def finish(self, order: list[str], manifest: CellManifest) -> None:
        """Merge the units in `order` into tables, put the manifest in place, remove the units."""
        units = self.kept_units()
        frames = [frame for key in order if (frame := _frame(units[key]["measurements"])).height]
        completions = [c for key in order for c in units[key]["completions"]]
        details = [d for key in order for d in units[key]["details"]]
        if frames:
            write_parquet(self.path / "measurements.parquet", pl.concat(frames, rechunk=True), CELLS_KEPT)
        if completions:
            write_bytes(self.path / "completions.jsonl.zst", compressed_lines(completions), CELLS_KEPT)
        if details:
            write_bytes(self.path / "details.jsonl.zst", compressed_lines(details), CELLS_KEPT)
        write_json(self.manifest_file, manifest.to_dict(), CELLS_KEPT)
        for path in (self.path / "units").glob("*.json"):
            path.unlink(missing_ok=True)
        if (self.path / "units").is_dir():
            (self.path / "units").rmdir()

    def measurements(self) -> pl.DataFrame:
        """The cell's measurements; an empty table if it has none."""
        path = self.path / "measurements.parquet"
        return pl.read_parquet(path.read_bytes()) if path.is_file() else pl.DataFrame(schema=MEASUREMENT_SCHEMA)

    def sampled(self) -> list[Sampled]:
        """Every completion that the cell sampled, in the order of its units."""
        path = self.path / "completions.jsonl.zst"
        if not path.is_file():
            return []
        lines = read_lines(path)
        return [Sampled(stamp=line.pop("stamp"), completion=Completion(**line)) for line in lines]

    def details(self) -> list[dict[str, Any]]:
        """What its measurements were made from, in the order of its units."""
        path = self.path / "details.jsonl.zst"
        return read_lines(path) if path.is_file() else []


def _compact(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows by column: what all of them share once, of the other texts each once and where it stands."""
    constant: dict[str, Any] = {}
    columns: dict[str, Any] = {}
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows]
        if all(value == values[0] and type(value) is type(values[0]) for value in values):
            constant[name] = values[0]
        elif MEASUREMENT_SCHEMA[name] == pl.String:
            texts = list(dict.fromkeys(values))
            place = {text: at for at, text in enumerate(texts)}
            columns[name] = {"texts": texts, "at": [place[value] for value in values]}
        else:
            columns[name] = {"values": values}
    return {"rows": len(rows), "constant": constant, "columns": columns}


def _frame(kept: dict[str, Any]) -> pl.DataFrame:
    """What `_compact` was given, as a table."""
    found: dict[str, Any] = {name: [value] * kept["rows"] for name, value in kept["constant"].items()}
    for name, column in kept["columns"].items():
        values = column.get("values")
        found[name] = values if values is not None else [column["texts"][at] for at in column["at"]]
    return pl.DataFrame(found, schema=MEASUREMENT_SCHEMA)


@dataclass(frozen=True, slots=True)
class Sampled:
    """A kept completion with the columns of `STAMPED` and its `probe`."""

    completion: Completion
    stamp: dict[str, Any]


def _stamped(completion: Completion, stamp: Callable[[Measurement], Measurement], probe: str) -> dict[str, Any]:
    row = as_dict(
        stamp(Measurement("", probe, "", "", completion.context, completion.persona, completion.item, value=None))
    )
    return {"probe": probe} | {name: row[name] for name in STAMPED}
