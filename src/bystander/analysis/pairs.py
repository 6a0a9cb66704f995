"""From the long table of measurements to paired grids: before and after on the same question, persona by persona.

A `PairedGrid` holds one outcome of one training design, NaN where a side failed or is missing. Several samples of one
question are averaged before anything is paired, so that the question is the resampling unit: the column `question` says
which items are one. Questions and contexts are numbered once for each outcome; what follows is done on those numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bystander.analysis.consistency import compact, refuse_contradictions, same_prompt_same_role
from bystander.analysis.grid import PairedGrid
from bystander.analysis.keys import BENIGN, KEYS, MIRRORED, OUTCOME, RECIPE, UNIT, OutcomeKey, TrainingKey
from bystander.analysis.stats.means import Floats
from bystander.core.errors import DataError, few_names
from bystander.core.metrics import metric as declared_metric
from bystander.core.records import MEASUREMENT_COLUMNS

OPTIONAL = ("reason", "sample", "context_hash", "weights_hash")  # columns that a table of measurements may lack
Key = tuple[Any, ...]


def prepared(measurements: pl.DataFrame, personas: pl.DataFrame | None = None) -> tuple[pl.DataFrame, list[str]]:
    """The table with one row per question, roles checked, and notes on what was put right. `personas`: who shares a prompt.

    Raises DataError where columns are missing, and as `refuse_contradictions` does.
    """
    missing = [name for name in MEASUREMENT_COLUMNS if name not in (*measurements.columns, *OPTIONAL)]
    if missing:
        raise DataError(
            f"the measurements table lacks the columns {', '.join(missing)}; a table of measurements has "
            f"{', '.join(MEASUREMENT_COLUMNS)}. For a table of leakage by persona use `bystander analyze TABLE`"
        )
    frame = compact(measurements)
    refuse_contradictions(frame)
    frame = frame.with_columns(pl.col(name).fill_null("") for name in ("config", "behavior", "arm"))
    frame, notes = same_prompt_same_role(frame, _prompts(personas))
    return _by_question(frame), notes


def _prompts(personas: pl.DataFrame | None) -> dict[str, str]:
    if personas is None or not {"persona", "prompt"} <= set(personas.columns):
        return {}
    return {name: prompt for name, prompt in personas.select("persona", "prompt").iter_rows() if prompt}


def _by_question(frame: pl.DataFrame) -> pl.DataFrame:
    """One row per question: its samples are averaged over those that are ok.

    `bad` counts failed and truncated values, `refused` answers that have no score because they are a class of their own
    (code, a refusal): those are no fault of the measurement and do not count against it.
    """
    keys = [*KEYS, *RECIPE, "seed", "role", *OUTCOME, *UNIT, "checkpoint"]
    status = pl.col("status")
    sampled = (pl.col("question") != "") & (pl.col("question") != pl.col("item"))
    counted = [
        status.is_in(["failed", "truncated"]).cast(pl.UInt32).alias("bad"),
        (status == "refused").cast(pl.UInt32).alias("refused"),
        pl.lit(1, pl.UInt32).alias("rows"),
    ]
    columns = [*keys, "question", "value", "rows", "bad", "refused"]
    if not frame.select(sampled.any()).item():
        return frame.with_columns(*counted, pl.col("item").alias("question")).select(columns)
    frame = frame.with_columns(
        *counted,
        pl.when(pl.col("question") == "").then("item").otherwise("question").alias("question"),
        sampled=sampled,
    )
    single = frame.filter(~pl.col("sampled")).select(columns)
    counts = [pl.col(name).sum() for name in ("rows", "bad", "refused")]
    several = frame.filter("sampled").group_by([*keys, "question"]).agg(pl.col("value").mean(), *counts)
    return pl.concat([single, several.select(columns)])


@dataclass(frozen=True)
class Outcome:
    """One outcome: its units and questions in order, and the untrained model's answers to them."""

    key: OutcomeKey
    units: tuple[tuple[str, str], ...]
    questions: tuple[str, ...]
    before: Floats  # [units, questions]
    bad_before: Floats  # [units, questions]: share of the values that failed; NaN: not asked of the untrained model
    trained: (
        pl.DataFrame
    )  # the trainings' rows: KEYS, RECIPE, seed, role, checkpoint, unit, question (numbers), value, bad


class Paired:
    """The measurements of every outcome, paired with the untrained model's and with the benign arm's."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes = outcomes
        self._by_key = {one.key: one for one in outcomes}

    @cached_property
    def checkpoints(self) -> list[float]:
        """All of them after the untrained model, rising."""
        return sorted({float(c) for one in self.outcomes for c in one.trained["checkpoint"].unique().to_list()})

    @cached_property
    def one_end(self) -> bool:
        """Whether every training of every outcome ends at the same checkpoint."""
        ends = {
            end
            for one in self.outcomes
            for end in one.trained.group_by(*KEYS, "seed").agg(pl.col("checkpoint").max())["checkpoint"]
        }
        return len(ends) == 1

    def people(self, key: OutcomeKey) -> list[str]:
        """The personas that the untrained model was measured under."""
        one = self._by_key[key]
        asked = np.flatnonzero(np.isfinite(one.bad_before).any(axis=1)).tolist()
        return [one.units[i][1] for i in asked if one.units[i][0] == "persona"]

    def lacking(self, design: tuple[str, str, str, str], key: OutcomeKey) -> list[str]:
        """Personas of a training that were measured at some checkpoints before its end and not at all of them."""
        one = self._by_key[key]
        own = one.trained.filter(pl.col(name) == value for name, value in zip(KEYS, design, strict=True))
        during = own.filter(pl.col("checkpoint") < pl.col("checkpoint").max()).select("unit", "checkpoint").unique()
        counts = during.group_by("unit").len().filter(pl.col("len") < during["checkpoint"].n_unique())
        return sorted(one.units[unit][1] for unit in counts["unit"].to_list())

    def grids(self, checkpoint: float | None = None) -> Iterator[PairedGrid]:
        """Grids of every training design and outcome at `checkpoint` (None: each training's last), in a fixed order.

        Raises DataError where a training holds two values of one question.
        """
        found: list[tuple[str, PairedGrid]] = []
        for outcome in self.outcomes:
            last = pl.col("checkpoint") == pl.col("checkpoint").max().over([*KEYS, "seed"])
            chosen = outcome.trained.filter(last if checkpoint is None else pl.col("checkpoint") == checkpoint)
            parts = {tuple(map(str, key)): part for key, part in chosen.partition_by(KEYS, as_dict=True).items()}
            for (behavior, source, arm, config), part in parts.items():
                twin = parts.get((behavior, source, BENIGN, config)) if arm == MIRRORED else None
                grid = _grid(outcome, part, twin)
                found.append((str((behavior, source, arm, config, *outcome.key)), grid))
        yield from (grid for _, grid in sorted(found, key=lambda pair: pair[0]))


def paired(table: pl.DataFrame) -> Paired:
    """Pairs of a table from `prepared`.

    Raises DataError where there is nothing to be paired with, or two untrained values of one question.
    """
    if table["source"].null_count() == 0 and table.height:
        raise DataError("no measurement of the untrained model (checkpoint 0): leakage is a change and cannot be known")
    keys = table.select(OUTCOME).unique().rows()  # one outcome at a time: all parts at once are the table once more
    found = [_outcome(OutcomeKey(*map(str, key)), _part(table, key)) for key in keys]
    return Paired(sorted((one for one in found if one.trained.height), key=lambda one: one.key))


def _part(table: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    return table.filter(pl.col(name) == value for name, value in zip(OUTCOME, key, strict=True)).drop(OUTCOME)


def _outcome(key: OutcomeKey, part: pl.DataFrame) -> Outcome:
    questions, question = _numbered(part["question"])
    names, unit = _numbered(part.select(pl.concat_str(UNIT, separator="\0").alias("unit"))["unit"])
    units = tuple((kind, name) for kind, _, name in (one.partition("\0") for one in names))
    part = part.select(
        *KEYS,
        *RECIPE,
        "seed",
        "role",
        "checkpoint",
        "value",
        (pl.col("bad") / pl.col("rows")).alias("bad"),
        unit,
        question,
    )
    base = part.filter(pl.col("source").is_null())
    before, bad = np.full((2, len(units), len(questions)), np.nan)
    at = base["unit"].to_numpy(), base["question"].to_numpy()
    bad[at] = base["bad"].to_numpy()
    before[at] = base["value"].fill_null(np.nan).to_numpy()
    if int(np.isfinite(bad).sum()) < base.height:
        twice = base.filter(base.select("unit", "question").is_duplicated()).row(0, named=True)
        shown = (*key, *units[twice["unit"]], questions[twice["question"]])
        raise DataError(
            f"checkpoint 0 holds several values of one question under one context (two runs in one table?); "
            f"the first: {shown}"
        )
    trained = part.filter(pl.col("source").is_not_null())
    if trained.height and not base.height:
        raise DataError(
            f"no measurement of the untrained model (checkpoint 0) of {'/'.join(key)}: leakage is a change and cannot be known"
        )
    return Outcome(key, units, tuple(questions), before, bad, trained)


def _numbered(values: pl.Series) -> tuple[list[str], pl.Series]:
    """The values in order, and each as its place among them."""
    ordered = values.unique().cast(pl.String).sort().to_list()
    return ordered, values.cast(pl.Enum(ordered)).to_physical().cast(pl.Int32).alias(values.name)


def _grid(outcome: Outcome, part: pl.DataFrame, benign: pl.DataFrame | None) -> PairedGrid:
    first = part.row(0, named=True)
    training = TrainingKey(*(first[name] for name in TrainingKey._fields))
    seeds = tuple(sorted(part["seed"].unique().to_list(), key=lambda seed: (seed is None, seed)))
    roles = _roles(part)
    after, bad = _dense(outcome, part, seeds, training)
    units = np.array(sorted(roles), dtype=np.intp)
    asked = np.isfinite(bad[:, units]).any(axis=(0, 1)) | np.isfinite(outcome.bad_before[units]).any(axis=0)
    chosen = np.ix_(np.arange(len(seeds)), units, np.flatnonzero(asked))
    after, bad = after[chosen], bad[chosen]
    before = np.broadcast_to(outcome.before[chosen[1:]], after.shape)
    bad_before = np.broadcast_to(outcome.bad_before[chosen[1:]], after.shape)
    lost, lost_change, other = _worst([bad, bad_before]), None, None
    if benign is not None:
        other, bad_benign = (values[chosen] for values in _as_seeds(outcome, benign, seeds, training))
        lost, lost_change = _worst([bad, bad_benign], np.isfinite(bad_before)), lost
    absent = int((np.isnan(bad) & np.isfinite(bad_before)).sum())
    metric = declared_metric(outcome.key.probe, outcome.key.metric)
    binary = metric.binary and bool(np.isin(after[~np.isnan(after)], (0.0, 1.0)).all())
    return PairedGrid(
        training, outcome.key, seeds, tuple(outcome.units[u][0] for u in units), tuple(outcome.units[u][1] for u in units),
        tuple(roles[u] for u in units), before, after, lost, metric.direction, binary, metric.unit, other,
        tuple(outcome.questions[q] for q in np.flatnonzero(asked)), absent, lost_change,
    )  # fmt: skip


def _worst(sides: Sequence[Floats], asked: NDArray[np.bool_] | None = None) -> Floats:
    """Share of a pair that is lost: on its worse side, all of it where one side is missing, NaN where none was asked.
    `asked`: also of whom else a question was asked, without being a side of the pair."""
    known = np.isfinite(sides)
    worst = np.where(known, sides, 0.0).max(axis=0)
    wanted = known.any(axis=0) if asked is None else known.any(axis=0) | asked
    return np.where(known.all(axis=0), worst, np.where(wanted, 1.0, np.nan))


def _dense(
    outcome: Outcome, part: pl.DataFrame, seeds: Sequence[int | None], training: TrainingKey
) -> tuple[Floats, Floats]:
    """Values and failed shares [seeds, all units, all questions]; NaN where there is no row."""
    place = {seed: index for index, seed in enumerate(seeds)}
    at = (
        _places(part["seed"], place),
        part["unit"].to_numpy(),
        part["question"].to_numpy(),
    )
    values, bad = np.full((2, len(seeds), len(outcome.units), len(outcome.questions)), np.nan)
    bad[at] = part["bad"].to_numpy()
    values[at] = part["value"].fill_null(np.nan).to_numpy()
    if int(np.isfinite(bad).sum()) < part.height:
        raise DataError(
            f"{'/'.join((*training.design, *outcome.key))}: several values of one question under one context (two runs in "
            "one table?)"
        )
    return values, bad


def _places(seeds: pl.Series, place: Mapping[int | None, int]) -> NDArray[np.intp]:
    if len(place) == 1:
        return np.zeros(len(seeds), dtype=np.intp)
    return np.array([place[seed] for seed in seeds.to_list()], dtype=np.intp)


def _as_seeds(
    outcome: Outcome, benign: pl.DataFrame, seeds: Sequence[int | None], training: TrainingKey
) -> tuple[Floats, Floats]:
    """The benign arm's values and failed shares under the seeds of the trained arm; one seed serves all."""
    own = tuple(sorted(benign["seed"].unique().to_list(), key=lambda seed: (seed is None, seed)))
    values, bad = _dense(outcome, benign, own, training._replace(arm=BENIGN))
    places = [0 if len(own) == 1 else own.index(seed) if seed in own else -1 for seed in seeds]
    if -1 in places:
        missing = [str(seed) for seed, place in zip(seeds, places, strict=True) if place < 0]
        raise DataError(
            f"{'/'.join(training.design)}: the benign arm lacks the seeds {few_names(missing)}. Train it under the same "
            "seeds, or under one for all"
        )
    return values[places], bad[places]


def _roles(part: pl.DataFrame) -> dict[int, str]:
    """The role of each unit over all seeds: what was trained under any seed was not held out."""
    rank: Mapping[str, int] = {"source": 0, "negative": 1, "mixed": 2, "held-out": 3, "copy": 4}
    roles: dict[int, str] = {}
    for unit, role in part.select("unit", pl.col("role").cast(pl.String)).unique().iter_rows():
        known = roles.get(unit, "copy")
        roles[unit] = min(known, role, key=lambda r: rank[r])
    return roles
