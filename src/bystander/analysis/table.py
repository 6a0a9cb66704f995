"""`analyze_table`: the statistics on anyone's table, one row per source and persona.

Columns are found by their names, or named by the caller. What the table does not hold (error of measurement, lengths,
categories, the source's own value) is left null in the result rather than guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from bystander.analysis.analyze import final_rows, packed
from bystander.analysis.grid import PairedGrid
from bystander.analysis.keys import OutcomeKey, TrainingKey
from bystander.analysis.predictors import Covariates, SimilarityTable
from bystander.analysis.results import Analysis
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.table_checks import copies, refuse_lost, refuse_tables, trained_twins
from bystander.core.errors import DataError

NAMES: dict[str, tuple[str, ...]] = {
    "source": ("source", "source_persona", "trained_persona"),
    "persona": ("persona", "bystander", "target", "target_persona", "persona_name"),
    "leakage": ("leakage", "leakage_rate", "leak", "leak_rate"),
    "category": ("category", "persona_category", "group"),
    "role": ("role",),
    "prompt_length": ("prompt_tokens", "prompt_length", "prompt_len", "prompt_length_tokens"),
    "baseline": ("baseline", "before", "baseline_rate"),
    "context_hash": ("context_hash", "prompt_hash"),
}
SIMILARITY = re.compile(
    r"^(cosine|cos|similarity|sim|js|jensen|lexical|centroid|whitened|centered|raw)(_|$|\d)", re.IGNORECASE
)
LAYER = re.compile(r"^(?P<method>.*?)_?(?:layer_?|l)(?P<layer>\d+)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """Which column is what. Empty: the table has none."""

    source: str
    persona: str
    leakage: str
    similarity: tuple[str, ...]
    category: str = ""
    role: str = ""
    prompt_length: str = ""
    baseline: str = ""
    context_hash: str = ""


def _advice(part: str) -> str:
    """How a column is named: on the command line only the leakage and the similarities are."""
    option = f"name it by --{part} COLUMN" if part == "leakage" else f"rename it to {part}"
    return f"{option} (in Python: {part}=COLUMN)"


def find_columns(frame: pl.DataFrame, similarity: Sequence[str] = (), **named: str | None) -> ColumnNames:
    """Columns by the caller's word, else by name. Raises DataError where one is missing, or two would do."""
    given = {part: name for part, name in named.items() if name}
    for name in (*given.values(), *similarity):
        if name not in frame.columns:
            raise DataError(f"the table has no column {name!r}; it has {', '.join(frame.columns)}")
    found = {part: given.get(part) or _by_name(frame, part) for part in NAMES}
    for part in ("source", "persona", "leakage"):
        if not found[part]:
            raise DataError(
                f"no column for the {part}: looked for {', '.join(NAMES[part])} in {', '.join(frame.columns)}; "
                f"{_advice(part)}"
            )
    chosen = tuple(similarity) or tuple(
        name
        for name in frame.columns
        if SIMILARITY.match(name) and name not in found.values() and frame[name].dtype.is_numeric()
    )
    if not chosen:
        raise DataError(
            f"no similarity column: looked for numbers under names like cosine_layer10 or similarity in "
            f"{', '.join(frame.columns)}; name them (--similarity COLUMN, or similarity=[...])"
        )
    return ColumnNames(similarity=chosen, **found)


def _by_name(frame: pl.DataFrame, part: str) -> str:
    hits = [name for name in frame.columns if name.lower() in NAMES[part]]
    if part == "leakage" and not hits:
        hits = [name for name in frame.columns if name.lower().startswith("leakage")]
    if len(hits) > 1:
        raise DataError(f"the {part} could be any of {', '.join(hits)}; {_advice(part)}")
    return hits[0] if hits else ""


def analyze_table(
    frame: pl.DataFrame,
    *,
    source: str | None = None,
    persona: str | None = None,
    leakage: str | None = None,
    similarity: Sequence[str] = (),
    category: str | None = None,
    role: str | None = None,
    prompt_length: str | None = None,
    baseline: str | None = None,
    settings: AnalysisSettings | None = None,
) -> Analysis:
    """Similarity correlations, pooled too, leakage ratio and categories of a table with one row per source and persona.

    Leakage must already be signed: more of the behavior is higher. Self pairs (persona = source), rows with a role other
    than held-out, copies of a persona and twins of a trained one (by a column `context_hash`) never enter a correlation;
    `notes` says how many there were. Raises DataError for missing or ambiguous columns, text or infinity where a number
    belongs, a pair that is there twice, an empty table, more missing values than `settings.failed_limit`, and as
    `table_checks.refuse_tables` does.
    """
    settings = settings or AnalysisSettings()
    if frame.is_empty():
        raise DataError("the table has no rows")
    columns = find_columns(
        frame, similarity, source=source, persona=persona, leakage=leakage, category=category, role=role,
        prompt_length=prompt_length, baseline=baseline,
    )  # fmt: skip
    table = _numbers(frame, columns)
    layer = next((name for name in frame.columns if name.lower() == "layer"), None)
    layers = frame[layer].unique().sort().to_list() if layer is not None and layer not in columns.similarity else []
    refuse_tables(table, columns.leakage, columns.similarity, layers)
    _refuse_twice(table)
    refuse_lost(table, settings.failed_limit)
    table, said = _same_prompt(table, columns)
    notes = [*_notes(table, columns), *said]
    grids = [_grid(part, columns) for part in table.partition_by("source", maintain_order=True)]
    similarities = SimilarityTable.read(_similarities(table, columns))
    return packed(final_rows(grids, similarities, _covariates(table), settings), settings, notes)


def _numbers(frame: pl.DataFrame, columns: ColumnNames) -> pl.DataFrame:
    """The columns under our names, numbers checked."""
    picked: dict[str, pl.Series] = {}
    for part in ("source", "persona", "category", "role", "context_hash"):
        name = getattr(columns, part)
        picked[part] = frame[name].cast(pl.String) if name else pl.Series([None] * frame.height, dtype=pl.String)
    for part in ("leakage", "prompt_length", "baseline"):
        name = getattr(columns, part)
        picked[part] = _number(frame, name) if name else pl.Series([None] * frame.height, dtype=pl.Float64)
    for name in columns.similarity:
        picked[f"similarity:{name}"] = _number(frame, name)
    table = pl.DataFrame({name: series.alias(name) for name, series in picked.items()})
    for part in ("source", "persona"):
        empty = table.with_row_index("row", offset=1).filter(pl.col(part).is_null() | (pl.col(part) == ""))
        if empty.height:
            raise DataError(f"{empty.height} rows have no {part}; the first is row {empty['row'][0]} of the table")
    return table


def _number(frame: pl.DataFrame, name: str) -> pl.Series:
    series = frame[name]
    number = series.cast(pl.Float64, strict=False).fill_nan(None)
    text = series.is_not_null() & number.is_null() & ~(series.cast(pl.String).str.to_lowercase() == "nan")
    infinite = number.is_infinite().fill_null(False)
    for bad, what in ((text, "not a number"), (infinite, "infinite")):
        if bad.any():
            row = bad.arg_true()[0]
            raise DataError(
                f"column {name!r}, row {row + 1}: {series[int(row)]!r} is {what}; a missing value is left empty"
            )
    return number


def _refuse_twice(table: pl.DataFrame) -> None:
    twice = table.with_row_index("row", offset=1).filter(pl.struct("source", "persona").is_duplicated())
    if twice.height:
        first = twice.row(0, named=True)
        rows = twice.filter((pl.col("source") == first["source"]) & (pl.col("persona") == first["persona"]))[
            "row"
        ].to_list()
        raise DataError(
            f"{twice.height} rows share source and persona; {first['source']} x {first['persona']} is in rows "
            f"{', '.join(map(str, rows))}. Average them, or filter one seed, arm or checkpoint first"
        )


def _same_prompt(table: pl.DataFrame, columns: ColumnNames) -> tuple[pl.DataFrame, list[str]]:
    """The table with twins of trained personas and copies of held-out ones taken out of what is counted."""
    notes: list[str] = []
    for found, role, said in (
        (
            trained_twins(table),
            "negative",
            "not held out, whatever the table says: the very prompt of a trained persona",
        ),
        (
            copies(table, columns.similarity),
            "copy",
            "copies, counted once: the very prompt, or every number, of another persona",
        ),
    ):
        if found.height:
            pairs = [f"{source} x {persona}" for source, persona in found.iter_rows()]
            notes.append(f"{said}: {len(pairs)} ({', '.join(pairs)})")
            marked = table.join(found.with_columns(twin=pl.lit(role)), on=["source", "persona"], how="left")
            table = marked.with_columns(pl.coalesce("twin", "role").alias("role")).drop("twin")
    return table, notes


def _notes(table: pl.DataFrame, columns: ColumnNames) -> list[str]:
    notes = [f"leakage: {columns.leakage}; similarity: {', '.join(columns.similarity)}"]
    own = table.filter(pl.col("source") == pl.col("persona"))["source"].to_list()
    if own:
        notes.append(f"self pairs, never in a gradient: {len(own)} ({', '.join(own)})")
    trained = table.filter(
        ~pl.col("role").fill_null("held-out").is_in(["held-out", "copy"]) & (pl.col("source") != pl.col("persona"))
    )
    if trained.height:
        pairs = [f"{source} x {persona}" for source, persona in trained.select("source", "persona").iter_rows()]
        notes.append(f"trained, so not in a gradient: {len(pairs)} ({', '.join(pairs)})")
    lost = table.filter(pl.col("leakage").is_null())
    if lost.height:
        pairs = [f"{source} x {persona}" for source, persona in lost.select("source", "persona").iter_rows()]
        notes.append(f"without a leakage, left out: {lost.height} of {table.height} rows ({', '.join(pairs)})")
    return notes


def _grid(part: pl.DataFrame, columns: ColumnNames) -> PairedGrid:
    source = str(part["source"][0])
    own = (part["persona"] == source).to_list()
    given = part["role"].fill_null("held-out").to_list()
    roles = tuple("source" if same else str(role) for same, role in zip(own, given, strict=True))
    before = part["baseline"].fill_null(np.nan).to_numpy()[None, :, None]
    change = part["leakage"].fill_null(np.nan).to_numpy()[None, :, None]
    start = np.where(np.isfinite(before), before, 0.0)
    lost = np.isnan(change).astype(float)
    names = tuple(part["persona"].to_list())
    return PairedGrid(
        TrainingKey("", source, "", ""), OutcomeKey("table", "", columns.leakage), (None,), ("persona",) * len(names), names, roles,
        start, start + change, lost, 1, binary=False,
    )  # fmt: skip


def _similarities(table: pl.DataFrame, columns: ColumnNames) -> pl.DataFrame:
    parts = [
        table.select(
            "source", "persona", pl.lit(method).alias("method"), pl.lit(layer, dtype=pl.Int64).alias("layer"),
            pl.col(f"similarity:{name}").alias("value"),
        )
        for name, (method, layer) in ((name, method_and_layer(name)) for name in columns.similarity)
    ]  # fmt: skip
    return pl.concat(parts).drop_nulls("value")


def method_and_layer(column: str) -> tuple[str, int]:
    """ "cosine_layer10" -> ("cosine", 10); a name without a layer -> (name, -1)."""
    match = LAYER.match(column)
    return (match["method"] or column, int(match["layer"])) if match else (column, -1)


def _covariates(table: pl.DataFrame) -> Covariates:
    category = {p: c for p, c in table.select("persona", "category").iter_rows() if c is not None}
    length = {p: float(n) for p, n in table.select("persona", "prompt_length").iter_rows() if n is not None}
    return Covariates(category, length)
