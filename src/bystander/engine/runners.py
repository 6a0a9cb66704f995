"""What an executor makes its workers with."""

from __future__ import annotations

from pathlib import Path

from bystander.core.progress import Bar, Silent
from bystander.engine.executor import CellRunner
from bystander.study.config.study import ResolvedStudy
from bystander.study.plan.cells import Plan, plan_cells
from bystander.study.store.run_dir import RunDir


def local_runner(plan: Plan, run: RunDir, bar: Bar) -> CellRunner:
    """A worker in this process."""
    from bystander.engine.worker import Worker

    return Worker(plan, run, bar)


def remote_runner(study: ResolvedStudy, folder: Path) -> CellRunner:
    """A worker in another process: it makes the plan anew, so that no plan travels."""
    from bystander.engine.worker import Worker

    return Worker(plan_cells(study), RunDir(folder), Silent())
