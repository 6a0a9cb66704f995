"""From the long table of measurements to paired grids: before and after on the same question, persona by persona.

A `PairedGrid` holds one outcome of one training design: `change` [seeds, units, questions] in the behavior's direction, NaN
where a side failed or is missing. A unit is a context (kind and name). Several samples of one question are averaged
before anything is paired, so that the question is the resampling unit: the column `question` says which items are one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bystander.analysis.consistency import refuse_contradictions, same_prompt_same_role
from bystander.analysis.keys import KEYS, OUTCOME, RECIPE, UNIT, OutcomeKey, SeedRowKey, TrainingKey
from bystander.analysis.stats.means import Floats
from bystander.core.errors import DataError
from bystander.core.metrics import metric as declared_metric
from bystander.core.records import MEASUREMENT_COLUMNS

OPTIONAL = ("reason", "sample", "context_hash", "weights_hash")  # columns that a table of measurements may lack


@dataclass(frozen=True)
class PairedGrid:
    """One outcome of one training design at one checkpoint. `before` and `after` are as measured, `change` is signed."""

    training: TrainingKey
    outcome: OutcomeKey
    seeds: tuple[int | None, ...]
    kinds: tuple[str, ...]  # context kind of each unit
    names: tuple[str, ...]  # persona or context name of each unit
    roles: tuple[str, ...]
    before: Floats  # [seeds, units, questions]
    after: Floats  # [seeds, units, questions]
    lost: Floats  # [seeds, units, questions]: share of a pair's values that failed or are missing, on its worse side
    direction: int
    binary: bool
    unit: str = ""  # of the metric: fraction, nats, nats/token, score

    @property
    def change(self) -> Floats:
        """[seeds, units, questions] in the behavior's direction."""
        return self.direction * (self.after - self.before)

    def record(self, table: str, seed: int | None, *more: object) -> str:
        """The stable name of a row about this grid: table / source / behavior / arm / config / seed / outcome / more."""
        behavior, source, arm, config = self.training.design
        named = f"seed{seed}" if seed is not None else "pooled"
        return "/".join(
            str(part) or "-" for part in (table, source, behavior, arm, config, named, *self.outcome, *more)
        )

    def key(self, table: str, seed: int | None, *more: object) -> SeedRowKey:
        """What begins a row about this grid."""
        record = self.record(table, seed, *more)
        return SeedRowKey(record=record, training=self.training, outcome=self.outcome, seed=seed)

    def pick(self, units: NDArray[np.bool_]) -> PairedGrid:
        """The same for some of the units."""
        chosen = np.flatnonzero(units)
        return replace(
            self,
            kinds=tuple(self.kinds[i] for i in chosen),
            names=tuple(self.names[i] for i in chosen),
            roles=tuple(self.roles[i] for i in chosen),
            before=self.before[:, chosen],
            after=self.after[:, chosen],
            lost=self.lost[:, chosen],
        )

    def one_seed(self, index: int) -> PairedGrid:
        """The same for one seed."""
        one = slice(index, index + 1)
        return replace(
            self, seeds=(self.seeds[index],), before=self.before[one], after=self.after[one], lost=self.lost[one]
        )

    @property
    def failed(self) -> Floats:
        """[units]: pairs lost to failed or missing values, over seeds; of sampled questions, parts of a pair."""
        return self.lost.sum(axis=(0, 2))

    def sound(self, limit: float) -> NDArray[np.bool_]:
        """[units]: at most `limit` of a unit's pairs are lost, and some pair is left."""
        pairs = self.before.shape[0] * self.before.shape[2]
        return (self.failed <= limit * pairs) & np.isfinite(self.change).any(axis=(0, 2))

    def bystanders(self, roles: Sequence[str]) -> NDArray[np.bool_]:
        """Personas (not bare contexts) in one of `roles`, never the source."""
        source = self.training.source
        return np.array(
            [
                kind == "persona" and role in roles and name != source and role != "source"
                for kind, name, role in zip(self.kinds, self.names, self.roles, strict=True)
            ],
            dtype=bool,
        )


def prepared(measurements: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """The table with one row per question, roles checked, and notes on what was put right.

    Raises DataError where columns are missing, and as `refuse_contradictions` does.
    """
    missing = [name for name in MEASUREMENT_COLUMNS if name not in (*measurements.columns, *OPTIONAL)]
    if missing:
        raise DataError(
            f"the measurements table lacks the columns {', '.join(missing)}; a table of measurements has "
            f"{', '.join(MEASUREMENT_COLUMNS)}. For a table of leakage by persona use `bystander analyze TABLE`"
        )
    refuse_contradictions(measurements)
    frame = measurements.with_columns(
        pl.col("config").fill_null(""), pl.col("behavior").fill_null(""), pl.col("arm").fill_null("")
    )
    frame, notes = same_prompt_same_role(frame)
    return _by_question(frame), notes


def _by_question(frame: pl.DataFrame) -> pl.DataFrame:
    """One row per question: its samples are averaged over those that are ok.

    `bad` counts failed and truncated values, `refused` answers that have no score because they are a class of their own
    (code, a refusal): those are no fault of the measurement and do not count against it.
    """
    keys = [*KEYS, *RECIPE, "seed", "role", *OUTCOME, *UNIT, "checkpoint"]
    status = pl.col("status")
    frame = frame.with_columns(
        pl.when(pl.col("question") == "").then("item").otherwise("question").alias("question"),
        pl.col("value").cast(pl.Float64),
        status.is_in(["failed", "truncated"]).cast(pl.UInt32).alias("bad"),
        (status == "refused").cast(pl.UInt32).alias("refused"),
        pl.lit(1, pl.UInt32).alias("rows"),
    )
    columns = [*keys, "question", "value", "rows", "bad", "refused"]
    sampled = pl.col("question") != pl.col("item")
    single = frame.filter(~sampled).select(columns)
    counts = [pl.col(name).sum() for name in ("rows", "bad", "refused")]
    several = frame.filter(sampled).group_by([*keys, "question"]).agg(pl.col("value").mean(), *counts)
    return pl.concat([single, several.select(columns)])


def paired(table: pl.DataFrame) -> pl.DataFrame:
    """Trained rows of a table from `prepared`, each with the untrained model's value on the same question (`before`).

    Raises DataError where there is nothing to be paired with, or two untrained values of one question.
    """
    base = table.filter((pl.col("checkpoint") == 0) & pl.col("source").is_null())
    trained = table.filter(pl.col("source").is_not_null())
    if trained.height and not base.height:
        raise DataError("no measurement of the untrained model (checkpoint 0): leakage is a change and cannot be known")
    asked = [*OUTCOME, *UNIT, "question"]
    before = base.select(*asked, pl.col("value").alias("before"), (pl.col("bad") / pl.col("rows")).alias("bad_before"))
    twice = before.filter(before.select(asked).is_duplicated())
    if twice.height:
        raise DataError(
            f"checkpoint 0 holds several values of one question under one context (two runs in one table?); "
            f"the first: {twice.select(asked).row(0)}"
        )
    return trained.join(before, on=asked, how="left")


def grids(pairs: pl.DataFrame, checkpoint: float | None = None) -> Iterator[PairedGrid]:
    """Grids of every training design and outcome at `checkpoint` (None: each training's last), in a fixed order.

    `pairs` comes from `paired`. Raises DataError where a training holds two values of one question.
    """
    if checkpoint is None:
        last = pl.col("checkpoint").max().over([*KEYS, "seed", *OUTCOME])
        pairs = pairs.filter(pl.col("checkpoint") == last)
    else:
        pairs = pairs.filter(pl.col("checkpoint") == checkpoint)
    parts = pairs.partition_by([*KEYS, *OUTCOME], as_dict=True)
    for _, part in sorted(parts.items(), key=lambda item: str(item[0])):
        yield _grid(part)


def _grid(part: pl.DataFrame) -> PairedGrid:
    first = part.row(0, named=True)
    training = TrainingKey(*(first[name] for name in TrainingKey._fields))
    outcome = OutcomeKey(*(first[name] for name in OUTCOME))
    seeds = sorted(part["seed"].unique().to_list(), key=lambda seed: (seed is None, seed))
    roles = _roles(part)
    units = sorted(roles)
    questions = part["question"].unique().sort().to_list()
    shape = (len(seeds), len(units), len(questions))
    unit = part.select(pl.concat_str(UNIT, separator="|")).to_series()
    index = np.ravel_multi_index(
        (
            np.array([seeds.index(seed) for seed in part["seed"].to_list()]),
            _positions(unit, ["|".join(unit) for unit in units]),
            _positions(part["question"], questions),
        ),
        shape,
    )
    if len(np.unique(index)) < part.height:
        raise DataError(
            f"{'/'.join((*training.design, *outcome))}: several values of one question under one context (two runs in "
            "one table?)"
        )
    worse = pl.max_horizontal(pl.col("bad") / pl.col("rows"), pl.col("bad_before").fill_null(1.0))
    before, after, lost = np.full((3, int(np.prod(shape))), np.nan)
    before[index] = part["before"].fill_null(np.nan).to_numpy()
    after[index] = part["value"].fill_null(np.nan).to_numpy()
    lost[index] = part.select(worse).to_series().to_numpy()
    lost = np.where(np.isnan(lost), 1.0, lost)  # a missing row has failed
    metric = declared_metric(outcome.probe, outcome.metric)
    binary = metric.binary and bool(np.isin(after[~np.isnan(after)], (0.0, 1.0)).all())
    return PairedGrid(
        training, outcome, tuple(seeds), tuple(u[0] for u in units), tuple(u[1] for u in units),
        tuple(roles[u] for u in units), before.reshape(shape), after.reshape(shape), lost.reshape(shape),
        metric.direction, binary, metric.unit,
    )  # fmt: skip


def _positions(values: pl.Series, order: Sequence[str]) -> NDArray[np.intp]:
    return values.cast(pl.Enum(order)).to_physical().to_numpy().astype(np.intp)


def _roles(part: pl.DataFrame) -> dict[tuple[str, str], str]:
    """The role of each unit over all seeds: what was trained under any seed was not held out."""
    rank: Mapping[str, int] = {"source": 0, "negative": 1, "mixed": 2, "held-out": 3}
    roles: dict[tuple[str, str], str] = {}
    for kind, name, role in part.select(*UNIT, "role").unique().iter_rows():
        known = roles.get((kind, name), "held-out")
        roles[kind, name] = min(known, role, key=lambda r: rank.get(r, 0))
    return roles
