"""The commands of the study engine and of many runs: plan, preflight, status, import, archive, board, compare, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

StudyArg = Annotated[str, typer.Argument(metavar="STUDY", help="A built-in study's name or a YAML file.")]
SetOption = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. recipe.lr=1e-4.")
]
OutOption = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Run directory; default runs/<study>.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
RunArg = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]


def plan(
    study: StudyArg,
    overrides: SetOption = [],  # noqa: B006
    out: OutOption = None,
    gpu: Annotated[str | None, typer.Option(help="Use the published figures of this GPU kind, e.g. h100.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Wall time on so many workers.")] = None,
    prior: Annotated[
        list[Path], typer.Option(help="A table that `bystander import` made; prior/ is looked in anyway.")
    ] = [],  # noqa: B006
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="First measure this machine, about a minute; kept.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """What a study will do, cost and find, and whether it is worth it. Trains nothing, writes no run."""
    from bystander.cli.engine_terminal import plan_in_terminal

    plan_in_terminal(study, overrides, out, gpu, workers, prior, calibrate, as_json)


def preflight(study: StudyArg, overrides: SetOption = [], out: OutOption = None, as_json: JsonOption = False) -> None:  # noqa: B006
    """Check disk, memory, model, data, judge, versions, clock and the run directory. Exit code 2 if one fails."""
    from bystander.cli.engine_terminal import preflight_in_terminal

    preflight_in_terminal(study, overrides, out, as_json)


def status(
    run: RunArg,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show it anew every two seconds until it ends.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Phases, cells, spend against forecast, time left and the last events of a run; also while it runs."""
    from bystander.cli.engine_terminal import status_in_terminal

    status_in_terminal(run, follow, as_json)


def import_results(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Parquet, CSV, JSON or JSONL tables.")],
    mapping: Annotated[
        list[str], typer.Option("--map", metavar="OURS=THEIRS", help="source, persona, metric or value = a column.")
    ] = [],  # noqa: B006
    folder: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where they are kept.")] = Path("prior"),
    as_json: JsonOption = False,
) -> None:
    """Take in earlier results; `bystander plan` then shows the gradient in them, at no cost."""
    from bystander.cli.engine_terminal import import_in_terminal

    import_in_terminal(files, mapping, folder, as_json)


def archive(run: RunArg) -> None:
    """Mark a run as archived: it moves to the board's last column, and nothing else changes."""
    from bystander.cli.engine_terminal import archive_in_terminal

    archive_in_terminal(run)


def board(
    places: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Run directories, or folders that hold them.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The page.")] = Path("board.html"),
) -> None:
    """One page over many studies: a column per state, a card each, the timeline of each."""
    from bystander.cli.engine_terminal import board_in_terminal

    board_in_terminal(places, out)


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Two or more run directories.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The page.")] = Path("compare.html"),
    style: Annotated[str, typer.Option(help="screen, or paper for a column's width.")] = "screen",
) -> None:
    """Studies side by side: a forest plot of gradients with intervals, and what differs in their settings."""
    from bystander.cli.engine_terminal import compare_in_terminal

    compare_in_terminal(runs, out, style)


def export(
    run: RunArg, folder: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where the tables go.")]
) -> None:
    """Every table of a run as CSV and Parquet, with a data dictionary."""
    from bystander.cli.engine_terminal import export_in_terminal

    export_in_terminal(run, folder)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(plan)
    app.command()(preflight)
    app.command()(status)
    app.command("import")(import_results)
    app.command()(archive)
    app.command()(board)
    app.command()(compare)
    app.command()(export)
