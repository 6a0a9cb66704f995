"""What a table of measurements must not say: each is the trace of a fault that has sunk a study."""

from __future__ import annotations

from typing import Any

import polars as pl

from bystander.analysis.keys import KEYS, RECIPE, UNIT
from bystander.core.errors import DataError, few_names
from bystander.core.metrics import declared


def refuse_contradictions(frame: pl.DataFrame) -> None:
    """Raises DataError where values and status disagree, a metric is unknown, a trained row has no role, one prompt is
    under two names, or a training was measured with weights that are not its own."""
    ok = pl.col("status") == "ok"
    numeric = pl.col("value").is_not_null() & pl.col("value").is_not_nan()
    for fault, what in (
        (ok & ~numeric, "have status ok and no value"),
        (~ok & pl.col("value").is_not_null(), "failed and yet carry a value: a failed call must never be scored"),
        (pl.col("source").is_not_null() & pl.col("role").is_null(), "belong to a training and have no role"),
    ):
        bad = frame.filter(fault)
        if bad.height:
            first = bad.select("probe", "dataset", "metric", "persona", "item", "status", "value").row(0)
            raise DataError(f"{bad.height} measurements {what}; the first: {first}. Measure or judge them again")
    known = {f"{probe}/{name}" for probe, name in declared()}
    found = frame.select(pl.concat_str(["probe", "metric"], separator="/").unique()).to_series().to_list()
    unknown = sorted(set(found) - known)
    if unknown:
        raise DataError(f"unknown metrics {', '.join(unknown)}: no probe that is installed declares them")
    _refuse_two_recipes(frame)
    if "context_hash" in frame.columns:
        _refuse_changed_prompts(frame)
    if "weights_hash" in frame.columns:
        _refuse_foreign_weights(frame)


def _refuse_two_recipes(frame: pl.DataFrame) -> None:
    """One label of a configuration must mean one learning rate and number of epochs."""
    recipes = frame.filter(pl.col("source").is_not_null()).select(*KEYS, *RECIPE).unique(maintain_order=True)
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
    asked = frame.filter(pl.col("context_hash") != "")
    changed = asked.group_by(item).agg(pl.col("context_hash").n_unique()).filter(pl.col("context_hash") > 1).sort(item)
    if changed.height:
        names = few_names(changed["persona"].unique().sort().to_list())
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


def same_prompt_same_role(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """A persona whose prompt was trained under another name (the persona `assistant` and the context of that name) was
    not held out, whatever its role says: it takes the role of the trained one."""
    trained = pl.col("role").is_in(["source", "negative", "mixed"])
    final = frame.filter(pl.col("source").is_not_null())
    same_name = pl.when(pl.col("persona") == "assistant").then(pl.lit("assistant"))
    twins = [_twins(final.filter(trained), final.filter(pl.col("role") == "held-out"), same_name)]
    if "context_hash" in frame.columns:
        same_prompt = pl.when(pl.col("context_hash") != "").then(pl.concat_str(["context_hash", "item"], separator="|"))
        twins.append(_twins(final.filter(trained), final.filter(pl.col("role") == "held-out"), same_prompt))
    faulty = pl.concat(twins).sort("twin_role", descending=True).unique([*KEYS, *UNIT], keep="first")
    if not faulty.height:
        return frame, []
    frame = frame.join(faulty, on=[*KEYS, *UNIT], how="left", nulls_equal=True)
    frame = frame.with_columns(pl.coalesce("twin_role", "role").alias("role")).drop("twin_role")
    named = ", ".join(sorted(set(faulty["persona"].to_list())))
    note = (
        f"not held out, whatever the table says: {named} had the very prompt of a context that was trained "
        f"({faulty.height} training x persona); given the role of that context"
    )
    return frame, [note]


def _twins(trained: pl.DataFrame, held_out: pl.DataFrame, twin: pl.Expr) -> pl.DataFrame:
    """Held-out units that share `twin` with a trained unit of the same training, with that unit's role."""
    known = trained.with_columns(twin.alias("twin")).drop_nulls("twin").select(*KEYS, "twin", twin_role="role").unique()
    claimed = held_out.with_columns(twin.alias("twin")).drop_nulls("twin").select(*KEYS, *UNIT, "twin").unique()
    return claimed.join(known, on=[*KEYS, "twin"]).select(*KEYS, *UNIT, "twin_role")
