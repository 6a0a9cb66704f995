"""Commands on a study: run, plan, preflight, audit, rows, studies."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from bystander.cli.app import (
    NOTHING,
    JsonOption,
    OutOption,
    SetOption,
    StudyArg,
    VerboseOption,
    app,
    interruptible,
    run_folder,
)
from bystander.cli.console import console, print_json, screen_for
from bystander.cli.outputs import check_folder
from bystander.cli.progress import terminal_bar

if TYPE_CHECKING:
    from bystander.analysis import Analysis
    from bystander.engine.run import RunSummary


@app.command()
def run(
    study: StudyArg,
    overrides: SetOption = NOTHING,
    out: OutOption = None,
    approve: Annotated[str, typer.Option(metavar="PLAN_HASH", help="Approve a plan above the budget.")] = "",
    override: Annotated[
        str, typer.Option(metavar="REASON", help="Go on where the review or the gate said stop; recorded.")
    ] = "",
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a study: audit, train, probe, analyze, report. Run it again to go on where it stopped."""
    from bystander.study.config.study import load

    loaded = load(study, overrides)  # a faulty file is told before anything heavy is imported
    from bystander.engine.run import RunOptions, run_study
    from bystander.results.run_report import report_run

    folder = run_folder(loaded.spec.name, out)
    screen = screen_for(as_json)
    screen.print(f"[bold]{loaded.spec.name}[/]  {escape(loaded.spec.question)}")
    with interruptible(f"what was complete is kept in {folder}; run the same command again to go on"):
        with terminal_bar(screen) as bar:
            ran = run_study(loaded, folder, bar, RunOptions(approve, override))
        page, analysis = (None, None) if ran.was_stopped else report_run(ran)
    if as_json:
        _print_as_json(ran, page, analysis)
    else:
        _print_ran(ran, page, verbose)
    if ran.failed or ran.left:
        raise SystemExit(130 if ran.was_stopped else 1)


def _print_as_json(ran: RunSummary, page: Path | None, analysis: Analysis | None) -> None:

    tables = analysis.tables() if analysis else {}
    print_json(
        {
            "run": str(ran.folder), "report": str(page or ""), "done": ran.done_now, "found": ran.found, "left": ran.left,
            "failed": dict(ran.failed), "stopped": ran.stopped, "gate": ran.gate, "gate_reason": ran.gate_reason,
            **{name: tables[name].to_dicts() for name in ("verdicts", "leakage_ratio", "similarity_correlation") if name in tables},
        }
    )  # fmt: skip


def _print_ran(ran: RunSummary, page: Path | None, verbose: bool) -> None:
    """What failed and how to go on, then what came out."""
    lines = [
        f"[yellow]warning[/]: {one.check}: {escape(one.message)}" for one in ran.findings if one.level == "warning"
    ]
    if ran.gate:
        lines.append(f"gate: [bold]{ran.gate}[/], {escape(ran.gate_reason)}")
    lines += [f"[red]failed[/]: {name}: {escape(why)}" for name, why in ran.failed.items()]
    if ran.stopped:
        lines.append(f"[yellow]stopped[/]: {escape(ran.stopped)}")
    found = f", {ran.found} found complete" if ran.found else ""
    left = f", {ran.left} left: run the same command again to go on" if ran.left else ""
    lines.append(f"{ran.done_now} cells done{found}{left}\n")
    if ran.was_stopped:
        again = escape(f"bystander report {ran.folder}")
        lines.append(f"tables and report: [bold]{again}[/] makes them of what is complete")
    for line in lines:
        console.print(line, soft_wrap=True)
    if page:
        from bystander.cli.story import print_story
        from bystander.results.results import Results

        print_story(Results.open(ran.folder), page, verbose=verbose)


@app.command()
def plan(
    study: StudyArg,
    overrides: SetOption = NOTHING,
    out: OutOption = None,
    gpu: Annotated[str | None, typer.Option(help="Use the published figures of this GPU kind, e.g. h100.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Wall time on so many workers.")] = None,
    prior: Annotated[
        list[str], typer.Option(metavar="FILE", help="A table of `bystander import`; prior/ is looked in anyway.")
    ] = NOTHING,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="First measure this machine, about a minute; kept.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """What a study will do, cost and find, and whether it is worth it. Trains nothing, writes no run."""
    from bystander.cli.plan_text import print_plan
    from bystander.study.config.study import load
    from bystander.study.forecast.plan_report import plan_report
    from bystander.study.store.run_dir import RunDir

    loaded = load(study, overrides)
    if calibrate:
        from bystander.study.forecast.calibrate import calibrate as measure
        from bystander.study.forecast.throughput import calibration_file, keep_calibration

        check_folder("--calibrate", calibration_file(loaded.spec.model).parent)
        keep_calibration(loaded.spec.model, measure(loaded.spec.model))
    folder = run_folder(loaded.spec.name, out)
    found = plan_report(loaded, RunDir(folder), gpu_kind=gpu, workers=workers, prior=[Path(file) for file in prior])
    if as_json:
        print_json(found.to_dict())
        return
    sets = [word for text in overrides for word in ("--set", text)]
    print_plan(console, found, shlex.join(["bystander", "run", study, *sets, *(["--out", str(out)] if out else [])]))


@app.command()
def preflight(
    study: StudyArg, overrides: SetOption = NOTHING, out: OutOption = None, as_json: JsonOption = False
) -> None:
    """Check all that would stop a run, from disk to template; what is not checked is said. Exit code 2 if one fails."""
    from bystander.cli.plan_text import print_checks
    from bystander.core.errors import BystanderError
    from bystander.engine.preflight import Check, passed
    from bystander.engine.preflight import preflight as check_all
    from bystander.study.config.study import load
    from bystander.study.forecast.assess import forecast_of
    from bystander.study.plan.cells import plan_cells
    from bystander.study.store.run_dir import RunDir

    loaded = load(study, overrides)
    folder = run_folder(loaded.spec.name, out)
    try:
        run, plan = RunDir(folder), plan_cells(loaded)
        checks = check_all(plan, run, forecast_of(plan, run), holding=False)
    except BystanderError as error:  # the plan cannot even be made
        checks = [Check("plan", False, str(error))]
    ok = passed(checks)
    if as_json:
        print_json({"ok": ok, "checks": [asdict(check) for check in checks]})
    else:
        print_checks(console, checks)
    if not ok:
        raise SystemExit(2)


@app.command()
def audit(study: StudyArg, overrides: SetOption = NOTHING, as_json: JsonOption = False) -> None:
    """Check a study's design before anything is trained: the rows, the loss mask, the contexts, the overlap."""

    from bystander.design.audit import refuse
    from bystander.study.config.study import load
    from bystander.study.plan.audit import audit_study
    from bystander.study.plan.cells import plan_cells

    findings = audit_study(plan_cells(load(study, overrides)), None)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        colors = {"error": "red", "warning": "yellow", "info": "dim"}
        for one in findings:
            head = f"[{colors[one.level]}]{one.level:8}[/] [bold]{one.check}[/]"
            console.print(f"{head}  {escape(one.message)}", soft_wrap=True)
            for row in one.rows:
                console.print(f"           [dim]{escape(row)}[/]", soft_wrap=True)
        errors = sum(finding.level == "error" for finding in findings)
        console.print(f"{len(findings)} findings, {errors} errors")
    refuse(findings)


@app.command()
def rows(
    study: StudyArg,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the files.")],
    overrides: SetOption = NOTHING,
) -> None:
    """Write the rows that a study would train on, one file a training, and the halves of its question set."""
    from bystander.study.config.study import load
    from bystander.study.plan.export_rows import write_rows
    from bystander.study.plan.parts import StudyParts

    loaded = load(study, overrides)
    check_folder("--out", out)
    for path in write_rows(StudyParts(loaded), out):
        console.print(str(path), soft_wrap=True, markup=False)


@app.command()
def studies(as_json: JsonOption = False) -> None:
    """List the built-in studies."""
    from bystander.study.config.study import built_in, load

    specs = {name: load(name).spec for name in built_in()}
    if as_json:
        print_json({name: spec.resolved() for name, spec in specs.items()})
        return
    for name, spec in specs.items():
        console.print(f"[bold]{name}[/]  {spec.model.name}: {', '.join(spec.behaviors)} on {', '.join(spec.sources)}")
        console.print(f"    {spec.question}", style="dim", markup=False)
