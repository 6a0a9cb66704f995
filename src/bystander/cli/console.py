"""What the commands print: for a person by default, for a program with --json."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bystander.core.errors import DataError
from bystander.core.records import Finding, as_dict
from bystander.study.config.study import built_in, load

if TYPE_CHECKING:
    from bystander.analysis import Analysis
    from bystander.study.engine.run import RunSummary

WIDE = 120  # columns where there is no terminal to ask: tables are cut at fewer
console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
COLORS = {"error": "red", "warning": "yellow", "info": "dim"}


def print_json(value: object) -> None:
    """JSON on standard output, for a program to read."""
    console.print_json(json.dumps(value, ensure_ascii=False))


def run_in_terminal(
    study: str, overrides: Sequence[str], out: Path | None, approve: str, override: str, as_json: bool
) -> None:
    """`bystander run`. Exit code 1 where cells failed or are left."""
    loaded = load(study, overrides)  # a faulty file is told before anything heavy is imported
    from bystander.cli.progress import terminal
    from bystander.study.engine.run import RunOptions, run_study

    folder = out or Path("runs") / loaded.spec.name
    screen = Console(stderr=True) if as_json else console
    screen.print(f"[bold]{loaded.spec.name}[/]  {loaded.spec.question}")
    with terminal(screen) as bar:
        ran = run_study(loaded, folder, bar, RunOptions(approve, override))
    path, analysis = reported(ran)
    if as_json:
        tables = analysis.tables() if analysis else {}
        summary = {
            name: tables[name].to_dicts()
            for name in ("verdicts", "leakage_ratio", "similarity_correlation")
            if name in tables
        }
        print_json(
            {
                "run": str(folder), "report": str(path or ""), "done": ran.done_now, "found": ran.found, "left": ran.left,
                "failed": dict(ran.failed), "stopped": ran.stopped, "gate": ran.gate, "gate_reason": ran.gate_reason,
                **summary,
            }
        )  # fmt: skip
    else:
        print_ran(ran, path, analysis)
    if ran.failed or ran.left:
        raise SystemExit(130 if ran.stopped in ("Ctrl-C", "SIGTERM") else 1)


def reported(ran: RunSummary) -> tuple[Path | None, Analysis | None]:
    """The report of a run, made anew if anything was done; (None, None) while nothing trained was measured."""
    from bystander.study.results.rejudge import write_logs
    from bystander.study.results.results import Results
    from bystander.study.store.events import Events
    from bystander.study.store.run_dir import RunDir

    run = RunDir(ran.folder)
    if not run.similarities_file.is_file():
        return None, None
    results = Results.open(ran.folder)
    if results.measurements["source"].null_count() == results.measurements.height:
        return None, None
    path = run.report_file
    if ran.done_now or not path.is_file() or not run.analysis_file.is_file():
        path = results.report()
        write_logs(run, results.study)
        plan = run.plan()
        Events(run.events_file, plan.hash if plan else "").write("reported", path=path.name)
    return path, results.analysis


def print_ran(ran: RunSummary, path: Path | None, analysis: Analysis | None) -> None:
    """What came out, what failed, and how to go on."""
    from bystander.cli.result_tables import control_lines, headline_table

    if analysis is not None:
        console.print(headline_table(analysis))
        for line in control_lines(analysis):
            console.print(escape(line), soft_wrap=True)
        for verdict in analysis.verdicts:
            console.print(
                f"hypothesis {verdict.hypothesis}: [bold]{verdict.outcome}[/], {escape(verdict.reason)}", soft_wrap=True
            )
            for name, number in verdict.numbers.items():
                shown = f"{number:.4g}" if isinstance(number, float) else escape(str(number))
                console.print(f"  {name}: {shown}", soft_wrap=True)
    for finding in ran.findings:
        if finding.level == "warning":
            console.print(f"[yellow]warning[/]: {finding.check}: {escape(finding.message)}", soft_wrap=True)
    if ran.gate:
        console.print(f"gate: [bold]{ran.gate}[/], {escape(ran.gate_reason)}", soft_wrap=True)
    for name, why in ran.failed.items():
        console.print(f"[red]failed[/]: {name}: {escape(why)}", soft_wrap=True)
    if ran.stopped:
        console.print(f"[yellow]stopped[/]: {escape(ran.stopped)}", soft_wrap=True)
    found = f", {ran.found} found complete" if ran.found else ""
    left = f", {ran.left} left: run the same command again to go on" if ran.left else ""
    console.print(f"\n{ran.done_now} cells done{found}{left}")
    if path:
        console.print(f"report: [bold]{path}[/]", soft_wrap=True)


def audit_in_terminal(study: str, overrides: Sequence[str], as_json: bool) -> None:
    """`bystander audit`: all findings, then exit code 2 if one is an error."""
    from bystander.design.audit import refuse
    from bystander.study.plan.audit import audit_study
    from bystander.study.plan.cells import plan_cells

    findings = audit_study(plan_cells(load(study, overrides)), None)
    print_findings(findings, as_json)
    refuse(findings)


def print_findings(findings: Sequence[Finding], as_json: bool) -> None:
    """Findings, errors first."""
    if as_json:
        print_json([as_dict(finding) for finding in findings])
        return
    for finding in findings:
        console.print(
            f"[{COLORS[finding.level]}]{finding.level:8}[/] [bold]{finding.check}[/]  {escape(finding.message)}",
            soft_wrap=True,
        )
        for row in finding.rows:
            console.print(f"           [dim]{escape(row)}[/]", soft_wrap=True)
    errors = sum(finding.level == "error" for finding in findings)
    console.print(f"{len(findings)} findings, {errors} errors")


def analyze_in_terminal(table: Path, leakage: str | None, similarity: Sequence[str], as_json: bool) -> None:
    """`bystander analyze`."""
    from bystander.analysis import analyze_table
    from bystander.cli.result_tables import table_of_gradients

    analysis = analyze_table(read_table(table), leakage=leakage, similarity=similarity)
    if as_json:
        typed = {name: frame.to_dicts() for name, frame in analysis.tables().items() if frame.height}
        print_json(typed)
        return
    console.print(table_of_gradients(analysis))
    for note in analysis.notes:
        console.print(f"[dim]{note}[/]")


def read_table(path: Path) -> pl.DataFrame:
    """A CSV or Parquet file. Raises DataError for anything else."""
    if not path.is_file():
        raise DataError(f"no table at {path}")
    try:
        return pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read as a {'Parquet' if path.suffix == '.parquet' else 'CSV'} table: {error}"
        ) from error


def report_in_terminal(folder: Path) -> None:
    """`bystander report`."""
    from bystander.study.results.results import Results

    console.print(f"report: [bold]{Results.open(folder).report()}[/]")


def probe_in_terminal(
    model: str, name: str, adapter: Path | None, personas: Path | None, out: Path | None, overrides: Sequence[str], as_json: bool,
    data: str | None = None, items: int | None = None,
) -> None:  # fmt: skip
    """`bystander probe`."""
    from bystander.cli.progress import terminal
    from bystander.study.engine.probe_model import probe_model

    screen = Console(stderr=True) if as_json else console
    with terminal(screen) as bar:
        probed = probe_model(model, name, adapter, personas, overrides, bar, data=data, items=items)
    for note in probed.notes:
        screen.print(note, soft_wrap=True)
    frame = pl.DataFrame([as_dict(m) for m in probed.measurements])
    if out:
        frame.write_parquet(out) if out.suffix == ".parquet" else frame.write_csv(out)
    means = frame.group_by("persona", "dataset", "metric", maintain_order=True).agg(
        pl.col("value").mean(), pl.len().alias("items")
    )
    if as_json:
        print_json(means.to_dicts())
        return
    wide = Table("persona", "metric", "mean", "items", box=None)
    for row in means.sort("metric", "value", descending=[False, True]).iter_rows(named=True):
        wide.add_row(row["persona"], row["metric"], f"{row['value']:.4f}", str(row["items"]))
    console.print(wide)


def rows_in_terminal(study: str, out: Path, overrides: Sequence[str]) -> None:
    """`bystander rows`."""
    from bystander.study.config.study import load
    from bystander.study.plan.export_rows import write_rows
    from bystander.study.plan.parts import StudyParts

    for path in write_rows(StudyParts(load(study, overrides)), out):
        console.print(str(path), soft_wrap=True)


def personas_in_terminal(file: Path | None, as_json: bool) -> None:
    """`bystander personas`."""
    from bystander.personas import load_personas

    found = load_personas(file)
    if as_json:
        print_json([as_dict(persona) for persona in found])
        return
    table = Table("persona", "category", "related to", "prompt", box=None)
    for persona in found:
        table.add_row(persona.name, persona.category, ", ".join(persona.related_to), persona.prompt)
    console.print(table)


def studies_in_terminal(as_json: bool) -> None:
    """`bystander studies`."""
    specs = {name: load(name) for name in built_in()}
    if as_json:
        print_json({name: study.spec.resolved() for name, study in specs.items()})
        return
    table = Table("study", "model", "sources", "behaviors", "question", box=None)
    for name, study in specs.items():
        spec = study.spec
        table.add_row(name, spec.model.name, ", ".join(spec.sources), ", ".join(spec.behaviors), spec.question)
    console.print(table)
