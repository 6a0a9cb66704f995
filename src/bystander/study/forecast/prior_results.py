"""Prior results: earlier tables taken in by `bystander import`, and the gradient that `plan` shows in them for free."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from bystander.analysis import AnalysisSettings, analyze_table
from bystander.analysis.table import SIMILARITY
from bystander.core.errors import DataError
from bystander.core.files import write_parquet
from bystander.core.metrics import declared
from bystander.core.records import Persona

FOLDER = Path("prior")  # beside the runs: results belong to a question, not to one run
COLUMNS = ("source", "persona", "metric", "value")
ALSO_CALLED: dict[str, tuple[str, ...]] = {
    "source": ("source_persona", "trained_persona"),
    "persona": ("bystander", "target", "target_persona", "persona_name"),
    "metric": ("measure",),
    "value": ("leakage", "leakage_rate", "leak_rate", "score", "rate", "marker_rate"),
}


@dataclass(frozen=True, slots=True)
class PriorGradient:
    """The gradient in one prior file: per source and predictor, and over sources where there are several."""

    origin: str
    metric: str
    source: str
    predictor: str
    n: int
    rho: float | None
    low: float | None
    high: float | None
    p: float | None


def import_results(files: Sequence[Path], mapping: Mapping[str, str], folder: Path = FOLDER) -> list[Path]:
    """Take in tables (Parquet, CSV, JSON, JSONL; our own `measurements.parquet` too); returns what was written.

    `mapping`: our column -> the file's; `metric` may map to "=NAME" where the file has one metric and no column for it.
    All files are read before one is written. Raises DataError for a missing column, naming those that are there, and for
    two files that would be kept under one name.
    """
    targets = {path: folder / f"{path.stem}.parquet" for path in files}
    for index, path in enumerate(files):
        same = next((other for other in files[:index] if targets[other] == targets[path]), None)
        if same is not None:
            raise DataError(f"{same} and {path} would both be kept as {targets[path]}; rename one of them")
    tables = {path: normalized(path, mapping) for path in files}
    written: list[Path] = []
    for path, table in tables.items():
        write_parquet(targets[path], table)
        written.append(targets[path])
    return written


def normalized(path: Path, mapping: Mapping[str, str]) -> pl.DataFrame:
    """A file as source, persona, metric, value, origin, and whatever similarity columns it has."""
    frame = _read(path)
    if {"checkpoint", "status", "probe", "item"} <= set(frame.columns):
        return _own(frame, path)
    unknown = sorted(set(mapping) - set(COLUMNS))
    if unknown:
        raise DataError(f"--map {', '.join(unknown)}: no such column of ours; map {', '.join(COLUMNS)}")
    columns: dict[str, pl.Expr] = {}
    for ours in COLUMNS:
        theirs = mapping.get(ours) or next((n for n in (ours, *ALSO_CALLED[ours]) if n in frame.columns), "")
        if theirs.startswith("="):
            columns[ours] = pl.lit(theirs[1:])
        elif theirs in frame.columns:
            columns[ours] = pl.col(theirs)
        elif ours == "metric":
            columns[ours] = pl.lit("value")
        else:
            raise DataError(
                f"{path}: no column for {ours!r}; it has {', '.join(frame.columns)}; say which with --map {ours}=COLUMN"
            )
    similar = [n for n in frame.columns if SIMILARITY.match(n) and frame[n].dtype.is_numeric()]
    try:
        table = frame.select(
            *(columns[name].cast(pl.String).alias(name) for name in COLUMNS[:3]),
            columns["value"].cast(pl.Float64).alias("value"),
            *similar,
        )
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: the values are not numbers: {str(error).splitlines()[0]}") from error
    if table.is_empty():
        raise DataError(f"{path} has no rows")
    return table.with_columns(pl.lit(path.name).alias("origin"))


def _read(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise DataError(f"no results at {path}")
    try:  # bytes, never the path: polars takes one with `[`, `*` or `?` for a pattern
        if path.suffix == ".parquet":
            return pl.read_parquet(path.read_bytes())
        if path.suffix in (".jsonl", ".ndjson"):
            return pl.read_ndjson(path.read_bytes(), infer_schema_length=None)
        if path.suffix == ".json":
            value: Any = json.loads(path.read_text(encoding="utf-8"))
            rows = value if isinstance(value, list) else next((v for v in value.values() if isinstance(v, list)), None)
            if not rows:
                raise DataError(f"{path}: no list of results in it; give a list of objects, one a result")
            return pl.DataFrame(rows, infer_schema_length=None)
        return pl.read_csv(path.read_bytes(), infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read as a table: {str(error).splitlines()[0]}") from error


def _own(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Our own measurements: leakage per training and persona, signed in the behavior's direction."""
    unit = ["probe", "dataset", "metric", "persona", "item"]
    ok = frame.filter(pl.col("status") == "ok")
    before = ok.filter(pl.col("source").is_null()).group_by(unit).agg(pl.col("value").mean().alias("before"))
    after = ok.filter(pl.col("source").is_not_null(), pl.col("checkpoint") == 1.0)
    paired = after.join(before, on=unit, how="inner")
    if paired.is_empty():
        raise DataError(f"{path}: no item was measured both before and after a training")
    sign = {f"{probe}/{name}": metric.direction for (probe, name), metric in declared().items()}
    direction = pl.concat_str(["probe", "metric"], separator="/").replace_strict(sign, default=1)
    name = pl.concat_str(["probe", "dataset", "metric"], separator="/")
    table = paired.with_columns(((pl.col("value") - pl.col("before")) * direction).alias("leak"), name.alias("metric"))
    grouped = table.group_by("source", "persona", "metric", maintain_order=True).agg(
        pl.col("leak").mean().alias("value")
    )
    return grouped.with_columns(pl.lit(path.name).alias("origin"))


def prior_files(folder: Path = FOLDER) -> list[Path]:
    """What was imported, in order."""
    return sorted(folder.glob("*.parquet")) if folder.is_dir() else []


def gradients(files: Sequence[Path], personas: Sequence[Persona]) -> list[PriorGradient]:
    """The gradient in every prior file and metric. Similarity is the file's own; where it has none, the lexical overlap
    of the prompts, which costs nothing."""
    return [found for path in files for found in _gradients_of(pl.read_parquet(path.read_bytes()), path, personas)]


def _gradients_of(table: pl.DataFrame, path: Path, personas: Sequence[Persona]) -> list[PriorGradient]:
    similar = [name for name in table.columns if SIMILARITY.match(name)]
    found: list[PriorGradient] = []
    for (metric,), part in table.group_by("metric", maintain_order=True):
        frame = part.rename({"value": "leakage"}).drop("metric", "origin")
        frame = frame.group_by("source", "persona", maintain_order=True).mean()
        if not similar:
            frame = _with_lexical(frame, personas)
        frame = frame.filter(pl.col("source") != pl.col("persona"))
        names = similar or ["similarity_lexical"]
        if frame.height < 4:
            continue
        analysis = analyze_table(frame, similarity=names, settings=AnalysisSettings(permutations=999, resamples=500))
        rows = [
            *analysis.similarity_correlation.to_dicts(),
            *(_over(row) for row in analysis.pooled.to_dicts() if row["n_sources"] > 1),
        ]
        found += [
            PriorGradient(
                path.name, str(metric), row["source"], row["method"] + (f" {row['layer']}" if row["layer"] >= 0 else ""),
                row["n"], row["rho"], row["low"], row["high"], row["p"],
            )
            for row in rows
        ]  # fmt: skip
    return found


def _over(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "source": "over sources", "p": row["p_matrix"]}


def _with_lexical(frame: pl.DataFrame, personas: Sequence[Persona]) -> pl.DataFrame:
    words = {p.name: set(p.prompt.lower().replace(".", " ").replace(",", " ").split()) for p in personas}

    def overlap(source: str, persona: str) -> float | None:
        a, b = words.get(source), words.get(persona)
        return len(a & b) / len(a | b) if a and b else None

    values = [overlap(s, p) for s, p in zip(frame["source"], frame["persona"], strict=True)]
    return frame.with_columns(pl.Series("similarity_lexical", values, dtype=pl.Float64)).drop_nulls()
