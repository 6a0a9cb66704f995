"""What a table of measurements must not say: each is the trace of a fault that has sunk a study."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from bystander.analysis.keys import KEYS, RECIPE, ROLES, UNIT
from bystander.core.errors import DataError, few_names
from bystander.core.metrics import declared

RANGES = {"fraction": 1.0, "score": 100.0}  # by the metric's unit: values lie between 0 and this
OVER = 1e-6  # rounding of a mean of ones


def compact(measurements: pl.DataFrame) -> pl.DataFrame:
    """The same with texts as categories: a quarter of the memory, and what is grouped by them in a tenth of the time."""
    return measurements.with_columns(
        pl.col(name).cast(pl.Categorical) for name, kind in measurements.schema.items() if kind == pl.String
    )


def refuse_contradictions(frame: pl.DataFrame) -> None:
    """Raises DataError where values and status disagree, a value is impossible, a metric or role is unknown, a trained row
    has no role, before and after are mixed up, one name is spelled in two ways, or a training was measured with weights
    that are not its own."""
    ok = pl.col("status") == "ok"
    numeric = pl.col("value").is_not_null() & pl.col("value").is_not_nan()
    base, end = pl.col("source").is_null(), pl.col("checkpoint") == 0
    for fault, what in (
        (ok & ~numeric, "have status ok and no value"),
        (~ok & pl.col("value").is_not_null(), "failed and yet carry a value: a failed call must never be scored"),
        (
            pl.col("value").is_infinite().fill_null(False),
            "are infinite: a log-probability of 0 is a failed measurement",
        ),
        (~base & pl.col("role").is_null(), "belong to a training and have no role"),
        (
            ~base & ~pl.col("role").cast(pl.String).is_in(ROLES),
            f"have a role that nobody knows; roles are {', '.join(ROLES)}",
        ),
        (base & ~end, "are of no training and not at checkpoint 0: are before and after mixed up?"),
        (~base & end, "are of a training and at checkpoint 0: are before and after mixed up?"),
    ):
        bad = frame.filter(fault)
        if bad.height:
            first = bad.select("probe", "dataset", "metric", "persona", "item", "status", "value").row(0)
            raise DataError(f"{bad.height} measurements {what}; the first: {first}. Measure or judge them again")
    known = {f"{probe}/{name}" for probe, name in declared()}
    unknown = sorted(
        {f"{probe}/{name}" for probe, name in frame.select("probe", "metric").unique().iter_rows()} - known
    )
    if unknown:
        raise DataError(f"unknown metrics {', '.join(unknown)}: no probe that is installed declares them")
    _refuse_impossible(frame)
    refuse_spellings(frame["persona"].unique().to_list(), frame["source"].drop_nulls().unique().to_list())
    _refuse_two_recipes(frame)
    if "context_hash" in frame.columns:
        _refuse_changed_prompts(frame)
    if "weights_hash" in frame.columns:
        _refuse_foreign_weights(frame)


def _refuse_impossible(frame: pl.DataFrame) -> None:
    """Fractions beyond [0, 1] (percent?) and scores beyond [0, 100]."""
    ends = frame.group_by("probe", "metric").agg(
        pl.col("value").min().alias("low"), pl.col("value").max().alias("high")
    )
    for probe, name, low, high in ends.sort("probe", "metric").iter_rows():
        unit = declared()[probe, name].unit
        most = RANGES.get(unit)
        if most is None or low is None or (low >= -OVER and high <= most + OVER):
            continue
        percent = " Percent? Divide by 100." if unit == "fraction" and low >= 0 and 1 < high <= 100 else ""
        raise DataError(f"{probe}/{name} is a {unit} in [0, {most:g}]; the table has {low:g} to {high:g}.{percent}")


def refuse_spellings(*lists: Iterable[str | None]) -> None:
    """Raises DataError where two names are one but for case, spaces, hyphens or underscores: what belongs to one persona
    would be counted as two, and a source as its own bystander."""
    seen: dict[str, str] = {}
    for name in sorted({name for names in lists for name in names if name is not None}):
        plain = re.sub(r"[\s_\-]+", "_", name.strip().casefold())
        other = seen.setdefault(plain, name)
        if other != name:
            raise DataError(f"{other!r} and {name!r} are one name in two spellings: give it one in all tables")


def _refuse_two_recipes(frame: pl.DataFrame) -> None:
    """One label of a configuration must mean one learning rate and number of epochs."""
    recipes = _distinct(frame, [*KEYS, *RECIPE]).sort(*KEYS, *RECIPE)
    several = recipes.filter(pl.len().over(KEYS) > 1)
    if several.height:
        same = several.filter(pl.struct(KEYS) == several.select(pl.struct(KEYS)).to_series()[0])
        raise DataError(
            f"{_training(same.row(0, named=True))} has {same.height} recipes (columns {', '.join(RECIPE)}): "
            f"{same.select(RECIPE).rows()}. Give each its own `config`"
        )


def _refuse_changed_prompts(frame: pl.DataFrame) -> None:
    """The same question to the same persona must be the same tokens before, during and after."""
    item = [*UNIT, "probe", "dataset", "item"]
    number = pl.col("context_hash").to_physical()
    asked = frame.filter(pl.col("context_hash") != "")
    if not asked.height:
        return
    changed = asked.group_by(item).agg(number.min().alias("low"), number.max().alias("high"))
    changed = changed.filter(pl.col("low") != pl.col("high")).sort(item)
    if changed.height:
        names = few_names(changed["persona"].unique().cast(pl.String).sort().to_list())
        raise DataError(
            f"{changed.height} questions were asked with different tokens in different states of the model (their "
            f"context_hash differs), under {names}; the first: {changed.select(item).row(0)}. Measure all with one probe and one template"
        )


def _refuse_foreign_weights(frame: pl.DataFrame) -> None:
    """An adapter that was not applied answers as the untrained model, and a stale one as another training.

    Two trainings are compared at their ends alone: after a first step, at a rate of 0, all of one seed are the same.
    """
    training = [*KEYS, "seed"]
    known = frame.filter(pl.col("weights_hash") != "").select(*training, "checkpoint", "weights_hash").unique()
    untrained = known.filter(pl.col("source").is_null())["weights_hash"]
    trained = known.filter(pl.col("source").is_not_null()).sort(training, nulls_last=True)
    bare = trained.filter(pl.col("weights_hash").is_in(untrained.implode()))
    if bare.height:
        raise DataError(
            f"{_training(bare.row(0, named=True))} was measured with the weights of the untrained model: its adapter was not "
            f"applied ({bare.height} in all). Evaluate it again"
        )
    ends = trained.filter(pl.col("checkpoint") == pl.col("checkpoint").max().over(training))
    shared = (
        ends.select(*training, "weights_hash")
        .unique(maintain_order=True)
        .filter(pl.col("weights_hash").is_duplicated())
    )
    if shared.height:
        first = shared.filter(pl.col("weights_hash") == shared["weights_hash"][0])
        raise DataError(
            f"{' and '.join(_training(row) for row in first.head(2).to_dicts())} were measured with the same weights: one "
            "adapter was served in place of the other. Evaluate both again"
        )


def _training(row: dict[str, Any]) -> str:
    words = [str(row[name]) for name in KEYS if row[name]]
    return "the training " + ", ".join(words) + (f", seed {row['seed']}" if row.get("seed") is not None else "")


def same_prompt_same_role(
    frame: pl.DataFrame, prompts: Mapping[str, str] | None = None
) -> tuple[pl.DataFrame, list[str]]:
    """A persona whose prompt was trained under another name (the persona `assistant` and the context of that name) was
    not held out, whatever its role says: it takes the role of the trained one. Of several held-out personas with one
    prompt the first counts, the others are copies."""
    columns = [*KEYS, *UNIT, "role"] + (["context_hash"] if "context_hash" in frame.columns else [])
    known = _distinct(frame, columns)
    known = known.with_columns(pl.col(*UNIT, "role", *columns[7:]).cast(pl.String))
    trained, held_out = (
        known.filter(pl.col("role").is_in(["source", "negative", "mixed"])),
        known.filter(pl.col("role") == "held-out"),
    )
    twins = [_twins(trained, held_out, pl.when(pl.col("persona") == "assistant").then(pl.lit("assistant")))]
    hashed = pl.when(pl.col("context_hash") != "").then("context_hash")
    if "context_hash" in columns:
        twins += [_twins(trained, held_out, hashed), _copies(held_out, hashed)]
    if prompts:
        said = pl.col("persona").replace_strict(prompts, default=None, return_dtype=pl.String)
        person = pl.col("context") == "persona"
        twins += [_twins(trained.filter(person), held_out.filter(person), said), _copies(held_out, said)]
    faulty = pl.concat(twins).sort((pl.col("twin_role") == "copy").cast(pl.Int8), "twin_role", descending=[False, True])
    faulty = faulty.unique([*KEYS, *UNIT], keep="first", maintain_order=True)
    if not faulty.height:
        return frame, []
    faulty = faulty.with_columns(pl.col(*UNIT, "twin_role").cast(pl.Categorical))
    frame = frame.join(faulty, on=[*KEYS, *UNIT], how="left", nulls_equal=True)
    frame = frame.with_columns(pl.coalesce("twin_role", "role").alias("role")).drop("twin_role")
    copies = pl.col("twin_role") == "copy"
    notes: list[str] = []
    for part, said in (
        (faulty.filter(~copies), "not held out, whatever the table says: {} had the very prompt of a context that was "
         "trained ({} training x persona); given the role of that context"),
        (faulty.filter(copies), "copies, counted once: {} had the very prompt of another held-out persona ({} training x persona)"),
    ):  # fmt: skip
        if part.height:
            named = ", ".join(part["persona"].cast(pl.String).unique().sort().to_list())
            notes.append(said.format(named, part.height))
    return frame, notes


def _distinct(frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """The different rows of the trainings, found in pieces: of millions of rows there are a few thousand."""
    rows = frame.lazy().filter(pl.col("source").is_not_null())
    return rows.select(columns).unique().collect(engine="streaming")


def _twins(trained: pl.DataFrame, held_out: pl.DataFrame, twin: pl.Expr) -> pl.DataFrame:
    """Held-out units that share `twin` with a trained unit of the same training, with that unit's role."""
    known = trained.with_columns(twin.alias("twin")).drop_nulls("twin").select(*KEYS, "twin", twin_role="role").unique()
    claimed = held_out.with_columns(twin.alias("twin")).drop_nulls("twin").select(*KEYS, *UNIT, "twin").unique()
    return claimed.join(known, on=[*KEYS, "twin"]).select(*KEYS, *UNIT, "twin_role")


def _copies(held_out: pl.DataFrame, twin: pl.Expr) -> pl.DataFrame:
    """Held-out personas that share `twin` with another of the same training that comes before them by name."""
    people = held_out.filter(pl.col("context") == "persona").with_columns(twin.alias("twin")).drop_nulls("twin")
    later = people.filter(pl.col("persona") != pl.col("persona").min().over(*KEYS, "twin"))
    return later.select(*KEYS, *UNIT, twin_role=pl.lit("copy")).unique()
