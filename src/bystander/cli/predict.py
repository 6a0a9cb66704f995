"""`bystander predict`: which contexts will move, by how much, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from bystander.cli.app import NOTHING, JsonOption, OutOption, SetOption, StudyArg, app, interruptible, run_folder
from bystander.cli.console import Grid, console, number, print_json, screen_for
from bystander.cli.progress import terminal_bar

if TYPE_CHECKING:
    from bystander.analysis.leakage_fit import SkillNumbers
    from bystander.analysis.leakage_forecast import ContextForecast, FittedOn, Forecast

NO_RUNS: list[Path] = []  # as NOTHING
SHOWN = 10  # bystanders of each source; the file has all


@app.command()
def predict(
    study: StudyArg,
    overrides: SetOption = NOTHING,
    fit: Annotated[
        list[Path],
        typer.Option(
            "--fit", metavar="RUN", help="Fit on this run, or folder of published tables; several are fitted together."
        ),
    ] = NO_RUNS,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forecast each context's leakage, without training. Kept in the run directory; `run` registers it, the report scores
    it."""
    from bystander.study.config.study import load

    loaded = load(study, overrides)
    from bystander.results.leakage_forecast import predict_leakage
    from bystander.study.store.run_dir import RunDir

    folder = run_folder(loaded.spec.name, out)
    screen = screen_for(as_json)
    kept = f"what was measured is kept in {folder}; give the same command again to go on"
    with interruptible(kept), terminal_bar(screen) as bar:
        found = predict_leakage(loaded, RunDir(folder), bar, fit)
    if as_json:
        print_json({"run": str(folder), **found.to_dict()})
    else:
        _print_forecast(found, RunDir(folder).forecast_file)


def _print_forecast(found: Forecast, kept: Path) -> None:
    for of in found.fits:
        console.print(f"[bold]{escape(of.behavior)}[/]  {escape(of.outcome)}", soft_wrap=True)
        for line in fit_lines(of):
            console.print(f"  {line}", soft_wrap=True, markup=False)
        rows = [row for row in found.rows if row.behavior == of.behavior and row.role == "held-out"]
        for source in dict.fromkeys(row.source for row in rows):
            _print_source(source, [row for row in rows if row.source == source], found.level)
    for note in found.notes:
        console.print(note, style="yellow", soft_wrap=True, markup=False)
    console.print(f"all contexts: [bold]{escape(str(kept))}[/]", soft_wrap=True)


def fit_lines(of: FittedOn) -> list[str]:
    """What a forecast rests on, and whether that had skill where it can be told."""
    lines = [f"fitted on {len(of.made_of)} sources: {'; '.join(of.made_of)}"] if of.made_of else []
    if of.unknown:
        lines.append(f"not known of this study, taken as the mean: {', '.join(of.unknown)}")
    if of.note:
        lines.append(of.note)
    if of.skill:
        told = ", ".join(f"over {name.replace('_', ' ')} {_skill(one)}" for name, one in of.skill.items())
        lines.append(f"skill of ranks on those sources, each left out: {told}: {'skill' if of.has_skill else 'none'}")
    return lines


def _skill(one: SkillNumbers) -> str:
    if one.value is None or one.low is None or one.high is None:
        return "not told"
    return f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]"


def _print_source(source: str, rows: list[ContextForecast], level: float) -> None:
    beside = [row for row in rows if row.context != "persona"]
    people = sorted((row for row in rows if row.context == "persona"), key=lambda row: -row.rank)
    grid = Grid((f"source {source}",), ("before", "expected leakage", f"{level:.0%} interval", "rank"))
    for row in [*beside, *people[:SHOWN]]:
        interval = f"{_end(row.low)} to {_end(row.high)}"
        grid.add(row.name, number(row.before, 4), _end(row.expected), interval, f"{row.rank:+.2f}")
    grid.print()
    if len(people) > SHOWN:
        console.print(f"  and {len(people) - SHOWN} more personas, further down the order", style="dim")


def _end(value: float | None) -> str:
    return "open" if value is None else f"{value:.3f}"
