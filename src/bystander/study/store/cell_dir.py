"""The run directory: where a study's cells, tables and report live.

A file is written under a temporary name and renamed; a cell is complete when, and only when, its `manifest.json` has
been renamed into place. A kill at any moment leaves complete cells complete and half-done ones resumable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from bystander.core.columns import schema_of
from bystander.core.files import compressed_lines, read_json, read_lines, write_bytes, write_json, write_parquet
from bystander.core.hashing import stable_hash
from bystander.core.records import Completion, Measurement, as_dict
from bystander.probe.base import ProbeUnit

# What says which weights a measurement or a completion comes from.
STAMPED = ("behavior", "source", "arm", "config", "seed", "role", "checkpoint", "weights_hash")
MEASUREMENT_SCHEMA = schema_of(Measurement)


class CellDir:
    """One cell's folder. Units are kept one file each until `finish` merges them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def complete(self) -> bool:
        """Whether the manifest is in place."""
        return (self.path / "manifest.json").is_file()

    def manifest(self) -> dict[str, Any]:
        """What the cell said when it was done."""
        return read_json(self.path / "manifest.json")

    def keep_unit(self, unit: ProbeUnit, stamp: Callable[[Measurement], Measurement], probe: str) -> None:
        """Keep what one unit of `probe` gave. `stamp` fills in the training's columns, on completions too: a kept answer
        says by itself which weights gave it."""
        value = {
            "key": unit.key,
            "measurements": [as_dict(stamp(m)) for m in unit.measurements],
            "completions": [{**as_dict(c), "stamp": _stamped(c, stamp, probe)} for c in unit.completions],
            "details": unit.details,
        }
        write_json(self.path / "units" / f"{stable_hash(unit.key)[:24]}.json", value)

    def kept_keys(self) -> set[str]:
        """The keys of the units kept so far."""
        return set(self.kept_units())

    def tidy(self) -> None:
        """Remove what writes that were killed left behind under temporary names."""
        for leftover in self.path.glob("**/.*.tmp"):
            leftover.unlink(missing_ok=True)

    def kept_units(self) -> dict[str, dict[str, Any]]:
        """Key -> content of every unit kept so far."""
        units = (read_json(path) for path in sorted((self.path / "units").glob("*.json")))
        return {unit["key"]: unit for unit in units}

    def finish(self, order: list[str], manifest: Mapping[str, object]) -> None:
        """Merge the units in `order` into tables, put the manifest in place, remove the units."""
        units = self.kept_units()
        measurements = [m for key in order for m in units[key]["measurements"]]
        completions = [c for key in order for c in units[key]["completions"]]
        details = [d for key in order for d in units[key]["details"]]
        if measurements:
            write_parquet(self.path / "measurements.parquet", pl.DataFrame(measurements, schema=MEASUREMENT_SCHEMA))
        if completions:
            write_bytes(self.path / "completions.jsonl.zst", compressed_lines(completions))
        if details:
            write_bytes(self.path / "details.jsonl.zst", compressed_lines(details))
        write_json(self.path / "manifest.json", dict(manifest))
        for path in (self.path / "units").glob("*.json"):
            path.unlink(missing_ok=True)
        if (self.path / "units").is_dir():
            (self.path / "units").rmdir()

    def measurements(self) -> pl.DataFrame:
        """The cell's measurements; an empty table if it has none."""
        path = self.path / "measurements.parquet"
        return pl.read_parquet(path) if path.is_file() else pl.DataFrame(schema=MEASUREMENT_SCHEMA)

    def sampled(self) -> list[Sampled]:
        """Every completion that the cell sampled, in the order of its units."""
        path = self.path / "completions.jsonl.zst"
        if not path.is_file():
            return []
        lines = read_lines(path)
        return [Sampled(stamp=line.pop("stamp"), completion=Completion(**line)) for line in lines]


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
