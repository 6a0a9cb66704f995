"""What a table of leakage by persona must not say, and what of it a reader must be told. Columns are those of `table`."""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

from bystander.analysis.consistency import refuse_spellings
from bystander.analysis.keys import ROLES
from bystander.core.errors import DataError, few_names

COSINE = re.compile(r"cos", re.IGNORECASE)
DISTANCE = re.compile(r"dist", re.IGNORECASE)
RATE = re.compile(r"rate|share|frac|prob|accuracy", re.IGNORECASE)
SAME = 1e-9  # cosines closer to 1 than this are of one prompt with itself


def refuse_tables(table: pl.DataFrame, leakage: str, similarity: Sequence[str], layers: Sequence[int | None]) -> None:
    """Raises DataError for a table that cannot be what it says. `leakage`: the column's own name; `layers`: what a column
    `layer` holds."""
    refuse_spellings(table["source"].unique().to_list(), table["persona"].unique().to_list())
    unknown = sorted(set(table["role"].drop_nulls().unique().to_list()) - set(ROLES))
    if unknown:
        raise DataError(f"roles that nobody knows: {', '.join(unknown)}; roles are {', '.join(ROLES)}")
    if len(set(layers)) > 1:
        raise DataError(
            f"the column `layer` holds {', '.join(map(str, layers))}: two layers in one column of similarity. Keep one, or "
            "give each a column of its own (cosine_layer10, cosine_layer20)"
        )
    if RATE.search(leakage):
        for column in ("leakage", "baseline"):
            most = table.select(pl.col(column).abs().max()).item()
            if most is not None and most > 1:
                raise DataError(
                    f"{leakage!r} is a rate by its name, and {column} reaches {most:g}: fractions in [0, 1] are meant. Percent? "
                    "Divide by 100"
                )
    for name in similarity:
        _refuse_similarity(table, name)


def _refuse_similarity(table: pl.DataFrame, name: str) -> None:
    column = pl.col(f"similarity:{name}")
    own = pl.col("source") == pl.col("persona")
    if DISTANCE.search(name):
        raise DataError(f"{name!r} is a distance by its name: give similarities, larger for more alike (1 - distance)")
    ranked = table.with_columns(column.rank("min").over("source").alias("rank"), pl.len().over("source").alias("n"))
    far = ranked.filter(own & (pl.col("rank") == 1) & (pl.col("n") > 3) & (column < column.max().over("source")))
    if far.height:
        raise DataError(
            f"{name!r}: nobody is less similar to {far['source'][0]} than {far['source'][0]} itself. Distances? Give similarities"
        )
    if not COSINE.search(name):
        return
    beyond = table.filter(column.abs() > 1 + 1e-6)
    if beyond.height:
        row = beyond.row(0, named=True)
        raise DataError(
            f"{name!r}: {row[f'similarity:{name}']:g} for {row['source']} x {row['persona']} is no cosine, which lies in [-1, 1]"
        )
    same = table.filter(~own & (column > 1 - SAME))
    if same.height:
        row = same.row(0, named=True)
        raise DataError(
            f"{name!r}: {row['persona']} has a cosine of 1 with {row['source']}: it is the source under another name, no "
            f"bystander ({same.height} such rows). Leave it out, or give it the source's name"
        )


def copies(table: pl.DataFrame, similarity: Sequence[str]) -> pl.DataFrame:
    """Rows (source, persona) of held-out personas that share every number with one before them, or its context hash."""
    held_out = (pl.col("role").fill_null("held-out") == "held-out") & (pl.col("source") != pl.col("persona"))
    people = table.filter(held_out & pl.col("leakage").is_not_null())
    numbers = [f"similarity:{name}" for name in similarity] + ["leakage", "baseline", "prompt_length"]
    enough = pl.all_horizontal(pl.col(numbers[0]).is_not_null(), pl.col(numbers[0]).round(4) != pl.col(numbers[0]))
    fine = people.filter(enough)  # of rounded numbers, equal ones say nothing
    found = [_later(fine, numbers)] if fine.height else []
    hashed = people.filter(pl.col("context_hash").is_not_null() & (pl.col("context_hash") != ""))
    found += [_later(hashed, ["context_hash"])] if hashed.height else []
    empty = table.select("source", "persona").clear()
    return pl.concat([empty, *found]).unique(maintain_order=True)


def _later(people: pl.DataFrame, shared: Sequence[str]) -> pl.DataFrame:
    same = ["source", *shared]
    return people.filter(pl.col("persona") != pl.col("persona").min().over(same)).select("source", "persona")


def trained_twins(table: pl.DataFrame) -> pl.DataFrame:
    """Rows (source, persona) of personas whose context hash is that of the source or of a trained persona."""
    trained = (pl.col("role").fill_null("held-out") != "held-out") | (pl.col("source") == pl.col("persona"))
    hashed = table.filter(pl.col("context_hash").is_not_null() & (pl.col("context_hash") != ""))
    known = hashed.filter(trained).select("source", "context_hash").unique()
    return hashed.filter(~trained).join(known, on=["source", "context_hash"], how="semi").select("source", "persona")


def refuse_lost(table: pl.DataFrame, limit: float) -> None:
    """Raises DataError where more leakages are missing than `limit` of the rows."""
    lost = table.filter(pl.col("leakage").is_null())
    if lost.height > limit * table.height:
        pairs = [f"{source} x {persona}" for source, persona in lost.select("source", "persona").iter_rows()]
        raise DataError(
            f"{lost.height} of {table.height} rows have no leakage, above {limit:.0%}: {few_names(pairs)}. What is missing "
            "may be what leaked most: measure it again"
        )
