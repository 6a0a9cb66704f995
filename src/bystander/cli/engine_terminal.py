"""What the commands of `cli_study` do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bystander.cli.console import console, print_json
from bystander.core.errors import DataError
from bystander.study.results.status import RunStatus
from bystander.study.store.run_dir import RunDir


def run_folder(name: str, out: Path | None) -> Path:
    """Where a study runs unless told otherwise."""
    return out or Path("runs") / name


def plan_in_terminal(
    study: str, overrides: Sequence[str], out: Path | None, gpu: str | None, workers: int | None,
    prior: Sequence[Path], calibrate: bool, as_json: bool,
) -> None:  # fmt: skip
    """`bystander plan`."""
    from bystander.cli.plan_text import print_plan
    from bystander.study.config.study import load
    from bystander.study.forecast.plan_report import plan_report

    loaded = load(study, overrides)
    if calibrate:
        from bystander.study.forecast.calibrate import calibrate as measure
        from bystander.study.forecast.throughput import keep_calibration

        keep_calibration(loaded.spec.model, measure(loaded.spec.model))
    found = plan_report(loaded, RunDir(run_folder(loaded.spec.name, out)), gpu_kind=gpu, workers=workers, prior=prior)
    if as_json:
        print_json(found.to_dict())
    else:
        print_plan(console, found)


def preflight_in_terminal(study: str, overrides: Sequence[str], out: Path | None, as_json: bool) -> None:
    """`bystander preflight`."""
    from bystander.cli.plan_text import print_checks
    from bystander.study.config.study import load
    from bystander.study.engine.preflight import Check, preflight
    from bystander.study.forecast.assess import forecast_of
    from bystander.study.plan.cells import plan_cells

    loaded = load(study, overrides)
    folder = run_folder(loaded.spec.name, out)
    try:
        run, plan = RunDir(folder), plan_cells(loaded)
        checks = preflight(plan, run, forecast_of(plan, run), holding=False)
    except DataError as error:  # the plan cannot even be made
        checks = [Check("data", False, str(error))]
    ok = all(check.ok for check in checks)
    if as_json:
        print_json({"ok": ok, "checks": [asdict(check) for check in checks]})
    else:
        print_checks(console, checks)
    if not ok:
        raise SystemExit(2)


def status_in_terminal(folder: Path, follow: bool, as_json: bool) -> None:
    """`bystander status`."""
    from bystander.cli.plan_text import print_status
    from bystander.study.results.status import status

    while True:
        found = status(RunDir(folder))
        if as_json:
            print_json(status_json(found))
        else:
            print_status(console, found)
        if not follow or not found.holder:
            return
        time.sleep(2)
        if not as_json:
            console.clear()


def import_in_terminal(files: Sequence[Path], mapping: Sequence[str], folder: Path, as_json: bool) -> None:
    """`bystander import`."""
    from bystander.study.forecast.prior_results import import_results

    pairs: dict[str, str] = {}
    for text in mapping:
        ours, separator, theirs = text.partition("=")
        if not separator or not theirs:
            raise DataError(f"--map {text!r}: expected OURS=THEIRS, e.g. --map value=leakage_rate")
        pairs[ours] = theirs
    written = import_results(files, pairs, folder)
    if as_json:
        print_json([str(path) for path in written])
    else:
        for path in written:
            console.print(f"imported: {path}", soft_wrap=True)


def archive_in_terminal(folder: Path) -> None:
    """`bystander archive`."""
    from bystander.study.results.status import status
    from bystander.study.store.events import Events

    run = RunDir(folder)
    found = status(run)
    if found.holder:
        raise DataError(f"{folder} is being written by {found.holder}; archive it when that is over")
    Events(run.events_file, found.plan).write("archived")
    console.print(f"archived: {folder}")


def board_in_terminal(places: Sequence[Path], out: Path) -> None:
    """`bystander board`."""
    from bystander.study.results.many_runs import board

    console.print(f"board: [bold]{board(places, out)}[/]", soft_wrap=True)


def compare_in_terminal(runs: Sequence[Path], out: Path, style: str) -> None:
    """`bystander compare`."""
    from bystander.study.results.many_runs import compare

    console.print(f"comparison: [bold]{compare(runs, out, style)}[/]", soft_wrap=True)


def export_in_terminal(run: Path, folder: Path) -> None:
    """`bystander export`."""
    from bystander.study.results.many_runs import export

    written = export(run, folder)
    console.print(f"{len(written)} files in [bold]{folder}[/], described in {written[-1].name}", soft_wrap=True)


def status_json(found: RunStatus) -> dict[str, object]:
    """A status as JSON."""
    value = asdict(found)
    for event in value["events"]:
        event["time"] = event["time"].isoformat(timespec="milliseconds")
    return value
