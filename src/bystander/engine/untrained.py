"""What can be measured before anything is trained: the cells of the untrained model, done by themselves. They are the run's
own cells, so that the run finds them complete and measures nothing twice."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from bystander.core.errors import StoreError
from bystander.core.progress import Bar
from bystander.core.records import Context, Role
from bystander.core.work import Work
from bystander.design.arms import Design
from bystander.design.audit import refuse
from bystander.design.render import context_roles
from bystander.engine.base_cells import prompt_tokens
from bystander.engine.own_answers import filled
from bystander.engine.worker import Worker
from bystander.study.config.study import ResolvedStudy
from bystander.study.forecast.open_settings import open_settings, refuse_open
from bystander.study.plan.audit import audit_study
from bystander.study.plan.cells import Cell, Plan, plan_cells
from bystander.study.store.events import Events
from bystander.study.store.lock import claimed
from bystander.study.store.run_dir import RunDir


@dataclass
class Untrained:
    """The untrained model of a study, measured: its tables, and what each context will be in a training."""

    worker: Worker

    @property
    def plan(self) -> Plan:
        """The plan of the study."""
        return self.worker.plan

    @cached_property
    def similarities(self) -> pl.DataFrame:
        """Similarities to every source, of the contexts beside the personas under their labels. Those are missing where
        the geometry is of a version that did not compare them."""
        folder = self.worker.cell_dir(self.plan.of_kind("geometry")[0])
        files = [folder.similarities_file, folder.beside_file]
        return pl.concat([self.worker.run.table(path) for path in files if path.is_file()])

    @cached_property
    def measurements(self) -> pl.DataFrame:
        """All measurements before training."""
        return pl.concat([self.worker.cell_dir(cell).measurements() for cell in untrained_cells(self.plan)])

    @property
    def contexts(self) -> list[Context]:
        """All that is measured: the personas, then the contexts beside them."""
        return [*self.plan.contexts, *self.worker.beside]

    @cached_property
    def tokens(self) -> dict[str, int]:
        """Label -> length of the context's own text in tokens."""
        return {context.label: prompt_tokens(self.worker.loaded, [context])[context.name] for context in self.contexts}

    def roles(self, design: Design) -> dict[str, Role]:
        """Label -> the context's role in a training of that design."""
        beside = context_roles(design, self.worker.loaded.tokenizer, self.worker.beside)
        found: dict[str, Role] = {context.name: design.roles[context.name] for context in self.plan.contexts}
        for context in self.worker.beside:
            found[context.label] = beside[context.kind, context.name]
        return found


def untrained_cells(plan: Plan) -> list[Cell]:
    """The evaluations of the untrained model that cost nothing beside the device: a judge is not paid for a forecast."""
    paid = {name for name, probe in plan.probes.items() if probe.dollars(Work())[1]}
    return [cell for cell in plan.of_kind("evaluate") if cell.training is None and cell.probe not in paid]


@contextmanager
def measured_untrained(study: ResolvedStudy, run: RunDir, bar: Bar) -> Generator[Untrained]:
    """Do the cells of the untrained model into the run directory, and hold it while the block looks at them. Raises what
    `run` would raise before its first cell, and StoreError for a run whose pre-registration is frozen already."""
    refuse_open(open_settings(study))
    plan = plan_cells(study)
    with claimed(run, study):
        if run.registration_file.is_file():
            raise StoreError(
                f"{run.path} was registered already, and a forecast is made before the first training: give a new run "
                "directory with --out"
            )
        worker, events = Worker(plan, run, bar), Events(run.events_file, plan.hash)
        refuse(audit_study(filled(plan, run), run))
        first = [cell for kind in ("answers", "geometry", "mode check") for cell in plan.of_kind(kind)]
        for cell in [*first, *untrained_cells(plan)]:
            if not worker.cell_dir(cell).complete:
                begun = time.monotonic()
                worker.do(cell)
                hours = (time.monotonic() - begun) / 3600
                events.write(
                    "spent", key=cell.key, hours=hours, dollars=0.0, note="before the run: forecast of leakage"
                )
        yield Untrained(worker)
