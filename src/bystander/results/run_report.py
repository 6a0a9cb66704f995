"""The end of a run, from the command line and from Python alike: its report, and what is left of it in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bystander.core.errors import StudyError
from bystander.engine.run import RunSummary
from bystander.results.rejudge import write_logs
from bystander.results.results import Results
from bystander.study.store.events import Events
from bystander.study.store.run_dir import RunDir

if TYPE_CHECKING:
    from bystander.analysis import Analysis


def report_run(ran: RunSummary) -> tuple[Path | None, Analysis | None]:
    """The report of a run, made anew if it is older than the tables; (None, None) while nothing trained was measured."""
    run = RunDir(ran.folder)
    if not run.similarities_file.is_file():
        return None, None
    results = Results.open(ran.folder)
    if not results.trained:
        return None, None
    page, newest = run.report_file, run.measurements_file.stat().st_mtime
    if ran.done_now or any(not f.is_file() or f.stat().st_mtime < newest for f in (page, run.analysis_file)):
        page = results.report()
        write_logs(run, results.study)
        plan = run.plan()
        Events(run.events_file, plan.hash if plan else "").write("reported", path=page.name)
    return page, results.analysis


def refuse_incomplete(ran: RunSummary) -> None:
    """Raises StudyError where cells failed or are left, with every reason. A gate that said stop leaves nothing."""
    if not (ran.failed or ran.left):
        return
    stopped = f", stopped: {ran.stopped}" if ran.stopped else ""
    raise StudyError(
        f"{ran.folder} is not complete: cells that failed: {len(ran.failed)}, cells left: {ran.left}{stopped}. What is complete is "
        "kept, and `Results.open` reads it; run the study again into the same directory to go on",
        [f"{name}: {why}" for name, why in ran.failed.items()],
    )
