"""What a run says while it runs, as data for a page: its status, losses, and the scatter as it fills."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl

from bystander.core.metrics import metric, outcomes_of
from bystander.core.yamlfile import read_yaml
from bystander.engine.slurm_jobs import jobs_of
from bystander.results.event_words import in_words
from bystander.results.status import status
from bystander.study.plan.picked_items import left_to_test
from bystander.study.store.run_dir import RunDir
from bystander.study.store.train_steps import steps_of

MOST_POINTS = 200  # of a loss curve: a page draws no more than a screen shows
TRAINING = ("behavior", "source", "arm", "config", "seed")
PICK: dict[str, type[pl.String]] = {"behavior": pl.String, "config": pl.String}


@dataclass
class Live:
    """A run that is looked at again and again; cells that are complete are read once."""

    run: RunDir
    _values: dict[str, pl.DataFrame] = field(default_factory=dict[str, pl.DataFrame])

    def look(self) -> dict[str, Any]:
        """Everything that the page shows, as JSON-able data. Raises StoreError where there is no run."""
        found = status(self.run)
        value = asdict(found)
        for event, shown in zip(found.events, value["events"], strict=True):
            shown |= {"time": event.time.isoformat(timespec="seconds"), "words": in_words(event)}
        return value | {
            "jobs": [asdict(job) for job in jobs_of(self.run.path)],
            "losses": self.losses(),
            "scatter": self.scatter(),
        }

    def losses(self) -> list[dict[str, Any]]:
        """Every training that has begun: its name and (step, loss), thinned out evenly."""
        plan, curves = self.run.plan(), list[dict[str, Any]]()
        for cell in plan.cells if plan else ():
            rows = steps_of(self.run.cell(cell.name, cell.key)) if cell.kind == "train" else []
            if rows:
                every = -(-len(rows) // MOST_POINTS)
                kept = rows[::every] if rows[-1] in rows[::every] else [*rows[::every], rows[-1]]
                curves.append({"name": cell.name, "points": [[row["step"], row["loss"]] for row in kept]})
        return curves

    def scatter(self) -> list[dict[str, Any]]:
        """For every training that was probed at its end: (persona, similarity to the source, change in the behavior's
        direction, role), by the predictor that the study chose. What the gate picked is drawn on the questions that are
        left to test it on, as in the tables."""
        similar = self._similarities()
        frames = self._measured()
        if not frames or not similar:
            return []
        frame = pl.concat(frames).filter(pl.col("value").is_not_null() & (pl.col("context") == "persona"))
        joined = self._before_and_after(frame)
        drawn: list[dict[str, Any]] = []
        for group, part in joined.group_by(TRAINING, maintain_order=True):
            training = dict(zip(TRAINING, group, strict=True))
            measured = set(part.select("probe", "dataset", "metric").iter_rows())
            outcome = next((one for one in outcomes_of(str(training["behavior"])) if one in measured), None)
            if outcome is None:
                continue
            rows = part.filter(pl.struct("probe", "dataset", "metric") == pl.lit({"probe": outcome[0], "dataset": outcome[1], "metric": outcome[2]}))  # fmt: skip
            sign = metric(outcome[0], outcome[2]).direction
            points = [
                {"persona": row["persona"], "role": row["role"], "similarity": similar[str(training["source"]), row["persona"]],
                 "change": sign * (row["value"] - row["before"])}
                for row in rows.iter_rows(named=True)
                if (str(training["source"]), row["persona"]) in similar
            ]  # fmt: skip
            name = f"{training['behavior']}, {training['source']}, {training['arm']}, {training['config']}, seed {training['seed']}"
            drawn.append({"name": name, "outcome": "/".join(outcome), "points": points})
        return drawn

    def _before_and_after(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Mean at the end (`value`) and of the untrained model (`before`), of every training, outcome and persona."""
        gate = self.run.gate().found
        if gate is None:
            return _means(frame, frame)
        picks = pl.DataFrame(list(gate.picks.items()), schema=PICK, orient="row")
        left = left_to_test(frame, gate)
        others = frame.join(picks, on=list(PICK), how="anti", maintain_order="left")
        picked = left.join(picks, on=list(PICK), how="semi", maintain_order="left")
        return pl.concat([_means(frame, others), _means(left, picked)])

    def _measured(self) -> list[pl.DataFrame]:
        plan = self.run.plan()
        for cell in plan.cells if plan else ():
            directory = self.run.cell(cell.name, cell.key)
            if cell.kind == "evaluate" and cell.key not in self._values and directory.complete:
                self._values[cell.key] = directory.measurements()
        return [frame for frame in self._values.values() if frame.height]

    def _similarities(self) -> Mapping[tuple[str, str], float]:
        plan = self.run.plan()
        cell = next((one for one in (plan.cells if plan else ()) if one.kind == "geometry"), None)
        directory = self.run.cell(cell.name, cell.key) if cell else None
        if directory is None or not directory.complete:
            return {}
        spec: Any = read_yaml(self.run.study_file.read_text(encoding="utf-8")).data
        frame = self.run.table(directory.similarities_file).filter(pl.col("method") == spec["geometry"]["method"])
        if frame["layer"].n_unique() > 1:
            frame = frame.filter(pl.col("layer") == spec["geometry"]["layer"])
        return {(row["source"], row["persona"]): row["value"] for row in frame.iter_rows(named=True)}


def _means(untrained: pl.DataFrame, trained: pl.DataFrame) -> pl.DataFrame:
    keys = ["probe", "dataset", "metric", "persona"]
    base = untrained.filter(pl.col("source").is_null()).group_by(keys).agg(pl.col("value").mean().alias("before"))
    ended = trained.filter(pl.col("checkpoint") == 1.0).group_by([*TRAINING, *keys, "role"], maintain_order=True)
    return ended.agg(pl.col("value").mean()).join(base, on=keys)
