"""The mirror of a run in a tracker: a process of its own that reads the run directory and tells the tracker.

`python -m bystander.engine.track_mirror RUN TRACKER PROJECT FD`. It ends when the other end of the pipe FD closes,
which happens however the study's process ends. It writes nothing into the run but below `track/`.
"""

from __future__ import annotations

import math
import os
import select
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from bystander.engine.trackers import TRACKERS, Config, Tracker
from bystander.study.plan.cell import Training
from bystander.study.store.cell_dir import CellDir
from bystander.study.store.records import PlannedCell, SavedPlan, TrainingName
from bystander.study.store.run_dir import RunDir
from bystander.study.store.train_steps import steps_of

LOOK = 2.0  # seconds between looks at the run
SWEEP_PHASE = 1
STUDY_RUN = "study"  # the run of the study itself, beside one for each training


@dataclass
class Mirror:
    """What of a run the tracker has been told."""

    run: RunDir
    tracker: Tracker
    events: int = 0
    cells: set[str] = field(default_factory=set[str])
    steps: dict[str, int] = field(default_factory=dict[str, int])

    def look(self) -> None:
        """Tell what is new."""
        plan = self.run.plan()
        if plan is None:
            return
        self._study(plan)
        for cell in plan.cells:
            directory = self.run.cell(cell.name, cell.key)
            if cell.kind == "train":
                self._losses(plan, cell.name, directory)
            if cell.key not in self.cells and directory.complete:
                self.cells.add(cell.key)
                self._probes(plan, cell, directory)

    def _study(self, plan: SavedPlan) -> None:
        """Cells done, hours and dollars against the forecast, at each new event."""
        events = self.run.events()
        if len(events) == self.events:
            return
        self.tracker.open(
            STUDY_RUN, plan.study, {"study": plan.study, "plan": plan.hash[:16], "cells": len(plan.cells)}
        )
        done = hours = dollars = failed = 0.0
        for at, event in enumerate(events):
            done += event.kind == "cell done"
            failed += event.kind == "cell failed"
            if event.kind == "spent":
                hours += float(event.details.get("hours", 0))
                dollars += float(event.details.get("dollars", 0))
            if at >= self.events:
                numbers = {"cells done": done, "failures": failed, "device hours": hours, "dollars": dollars}
                self.tracker.log(numbers | {"forecast hours": plan.hours, "forecast dollars": plan.dollars or 0.0}, at)
        self.tracker.end()
        self.events = len(events)

    def _losses(self, plan: SavedPlan, name: str, directory: CellDir) -> None:
        """Steps that are on disk and were not told: all of a training that is done, those of its last state before."""
        rows = steps_of(directory)
        told = self.steps.get(name, 0)
        if len(rows) <= told:
            return
        self.tracker.open(name, plan.study, {"study": plan.study})
        for row in rows[told:]:
            self.tracker.log({key: float(row[key]) for key in ("loss", "learning_rate", "grad_norm")}, int(row["step"]))
        self.tracker.end()
        self.steps[name] = len(rows)

    def _probes(self, plan: SavedPlan, cell: PlannedCell, directory: CellDir) -> None:
        """Means by role of what a cell measured, in the run of its training."""
        frame = directory.measurements()
        if frame.is_empty() or frame["source"].null_count() == frame.height:
            return
        for name, checkpoint, values, config in summaries(frame):
            # The sweep's training and that of phase 2 may be of one configuration: two runs of one label.
            phase = "sweep" if cell.phase == SWEEP_PHASE else "train"
            training = f"{phase}-{name}"
            total = max(self.steps.get(training, 0), 1)
            self.tracker.open(training, plan.study, {"study": plan.study, **config})
            self.tracker.log(values, round(checkpoint * total))
            self.tracker.end()


def summaries(frame: pl.DataFrame) -> Iterator[tuple[str, float, Mapping[str, float], Config]]:
    """(label of the training, checkpoint, mean of each metric by role, what the training is) of measurements; failed items are left
    out of the means, as in every table."""
    keys = [name for name in TrainingName.__dataclass_fields__ if name in frame.columns]
    kept = frame.filter(pl.col("source").is_not_null() & pl.col("value").is_not_null() & pl.col("role").is_not_null())
    for group, part in kept.group_by([*keys, "checkpoint"], maintain_order=True):
        config = dict(zip(keys, group[:-1], strict=True))
        means = part.group_by("probe", "dataset", "metric", "role", maintain_order=True).agg(pl.col("value").mean())
        values = {
            f"{row['probe']}/{row['dataset']}/{row['metric']}/{row['role']}": float(row["value"])
            for row in means.iter_rows(named=True)
            if math.isfinite(row["value"])
        }
        training = Training(**{name: config[name] for name in Training.__dataclass_fields__})
        yield training.label, float(group[-1] or 0.0), values, config


def main() -> None:
    """Look until the study's process closes its end of the pipe, and once more."""
    folder, name, project, pipe = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    os.nice(10)
    place = folder / "track"
    place.mkdir(parents=True, exist_ok=True)
    mirror = Mirror(RunDir(folder), TRACKERS[name](project, place))
    going = True
    while going:
        going = not select.select([pipe], [], [], LOOK)[0]
        mirror.look()


if __name__ == "__main__":
    main()
