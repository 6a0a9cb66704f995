"""The library's `Study`: what the command line does, from Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bystander.core.records import Finding
from bystander.results.results import Results
from bystander.study.config.study import ResolvedStudy, load


@dataclass(frozen=True, slots=True)
class Study:
    """A study that can be audited and run."""

    resolved: ResolvedStudy

    @classmethod
    def load(cls, where: str | Path, overrides: Sequence[str] = ()) -> Study:
        """Load a built-in study by name, or a YAML file. Raises StudyError with every fault of the file."""
        return cls(load(str(where), overrides))

    def audit(self) -> list[Finding]:
        """What the audit says of the design, errors first; loads the model's tokenizer."""
        from bystander.study.plan.audit import audit_study
        from bystander.study.plan.cells import plan_cells

        return audit_study(plan_cells(self.resolved), None)

    def run(self, out: str | Path, *, approve: str = "", override: str = "") -> Results:
        """Run into a directory, or go on where an earlier run stopped, and write the report: what `bystander run` does,
        with its `--approve` and `--override`. Results of a study that its gate stopped are those until there.

        Raises DesignError if the audit refuses it, StudyError where cells failed or are left, with the reasons; what is
        complete is kept and reported all the same."""
        from bystander.engine.run import RunOptions, run_study
        from bystander.results.run_report import refuse_incomplete, report_run

        ran = run_study(self.resolved, Path(out), options=RunOptions(approve, override))
        if not ran.was_stopped:
            report_run(ran)
        refuse_incomplete(ran)
        return Results.open(out)
