"""Commands on what runs have left: status, report, export, archive, board, compare; on other tables: analyze, import."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from bystander.cli.app import NOTHING, JsonOption, PageOption, RunArg, VerboseOption, app
from bystander.cli.console import console, print_json
from bystander.cli.outputs import check_folder, check_page
from bystander.core.errors import DataError

if TYPE_CHECKING:
    import polars as pl

LOOK_AGAIN = 2.0  # seconds between two looks of `status --follow`


@app.command()
def status(
    run: RunArg,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show it anew every two seconds until it ends.")
    ] = False,
    page: Annotated[bool, typer.Option("--serve", help="Show it as a page that keeps itself up to date.")] = False,
    host: Annotated[str, typer.Option(help="Where --serve listens; everybody who reaches it can read.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8765,
    as_json: JsonOption = False,
) -> None:
    """Phases, cells, spend against forecast, time left and the last events of a run; also while it runs."""
    from bystander.cli.plan_text import print_jobs, print_status
    from bystander.engine.slurm_jobs import jobs_of
    from bystander.results.status import status as status_of
    from bystander.study.store.run_dir import RunDir

    if page:
        from bystander.cli.serve import serve

        status_of(RunDir(run))  # a folder that holds no run is told before a port is taken
        serve(run, host, port)
        return
    while True:
        found = status_of(RunDir(run))
        if as_json:
            times = [event.time.isoformat(timespec="milliseconds") for event in found.events]
            value = asdict(found)
            value["events"] = [event | {"time": time} for event, time in zip(value["events"], times, strict=True)]
            value["jobs"] = [asdict(job) for job in jobs_of(run)]
            print_json(value)
        else:
            print_status(console, found)
            print_jobs(console, jobs_of(run))
        if not follow or not found.holder:
            return
        try:
            time.sleep(LOOK_AGAIN)
        except KeyboardInterrupt:  # the run that is looked at goes on
            return
        if not as_json:
            console.clear()


@app.command()
def report(
    run: RunArg,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE.html|DIR", help="The page elsewhere than in the run directory."),
    ] = None,
    verbose: VerboseOption = False,
) -> None:
    """Make a run's report again from its records, and its tables where a stop left them behind."""
    from bystander.cli.story import print_story
    from bystander.engine.collect import bring_up_to_date
    from bystander.results.results import Results
    from bystander.study.store.lock import holder
    from bystander.study.store.run_dir import RunDir

    if out is not None:
        check_page("--out", out)
    elif RunDir(run).is_run:
        check_folder("RUN", run)
    # A process that runs makes them itself.
    if RunDir(run).is_run and os.access(run, os.W_OK) and not holder(RunDir(run)):
        bring_up_to_date(RunDir(run))
    results = Results.open(run)
    page = results.report(out)
    print_story(results, page, verbose=verbose)


def _wrote(what: str, path: Path) -> None:
    """Where something lies; a path is never read as markup."""
    console.print(f"{what}: [bold]{escape(str(path))}[/]", soft_wrap=True)


@app.command()
def export(
    run: RunArg, folder: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where the tables go.")]
) -> None:
    """Every table of a run as CSV and Parquet, with a data dictionary."""
    from bystander.results.many_runs import export as export_tables

    check_folder("--to", folder)
    written = export_tables(run, folder)
    where = escape(str(folder))
    console.print(f"{len(written)} files in [bold]{where}[/], described in {written[-1].name}", soft_wrap=True)


@app.command()
def archive(run: RunArg) -> None:
    """Mark a run as archived: it moves to the board's last column, and nothing else changes."""
    from bystander.results.status import status as status_of
    from bystander.study.store.events import Events
    from bystander.study.store.run_dir import RunDir

    folder = RunDir(run)
    found = status_of(folder)
    if found.holder:
        raise DataError(f"{run} is being written by {found.holder}; archive it when that is over")
    Events(folder.events_file, found.plan).write("archived")
    _wrote("archived", run)


@app.command()
def board(
    places: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Run directories, or folders that hold them.")],
    out: PageOption = Path("board.html"),
) -> None:
    """One page over many studies: a column per state, a card each, the timeline of each."""
    from bystander.results.many_runs import board as write_board

    check_page("--out", out)
    _wrote("board", write_board(places, out))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Two or more run directories.")],
    out: PageOption = Path("compare.html"),
    style: Annotated[str, typer.Option(help="screen, or paper for a column's width.")] = "screen",
) -> None:
    """Studies side by side: a forest plot of gradients with intervals, and what differs in their settings."""
    from bystander.results.many_runs import compare as write_comparison

    if style not in ("screen", "paper"):
        raise DataError(f"--style is {style!r}; use screen or paper")
    check_page("--out", out)
    _wrote("comparison", write_comparison(runs, out, style))


@app.command()
def analyze(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE|RUN",
            help="CSV or Parquet: a row a source and persona, with leakage and similarity; or a run.",
        ),
    ],
    leakage: Annotated[
        str | None, typer.Option(help="Column that holds the leakage; found by its name otherwise.")
    ] = None,
    similarity: Annotated[
        list[str], typer.Option(help="Columns that hold similarities; found by name otherwise.")
    ] = NOTHING,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """The correlations of leakage with similarity in anyone's table; of a run everything, and nothing is written."""
    from bystander.analysis import analyze_table
    from bystander.cli.result_tables import gradient_table

    if table.is_dir():
        _analyze_run(table, verbose=verbose, as_json=as_json)
        return
    analysis = analyze_table(_read_table(table), leakage=leakage, similarity=similarity)
    if as_json:
        print_json({name: frame.to_dicts() for name, frame in analysis.tables().items() if frame.height})
        return
    gradient_table(analysis).print()
    for note in analysis.notes:
        console.print(note, style="dim", markup=False)


def _analyze_run(run: Path, *, verbose: bool, as_json: bool) -> None:
    from bystander.cli.story import print_story
    from bystander.results.results import Results

    results = Results.open(run)
    found = results.analyze()
    if as_json:
        print_json({name: frame.to_dicts() for name, frame in found.tables().items() if frame.height})
    else:
        print_story(results, None, verbose=verbose)


def _read_table(path: Path) -> pl.DataFrame:
    """A CSV or Parquet file. Raises DataError for anything else."""
    import polars as pl

    if not path.is_file():
        raise DataError(f"no table at {path}")
    form = "Parquet" if path.suffix == ".parquet" else "CSV"
    try:
        data = path.read_bytes()  # never the path: polars takes one with `[`, `*` or `?` for a pattern
        if form == "Parquet":
            return pl.read_parquet(data)
        return pl.read_csv(data, infer_schema_length=None, separator=_separator(path))
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read as a {form} table, which its name says it is (.parquet; all else is CSV): {error}"
        ) from error


def _separator(path: Path) -> str:
    """What parts the columns of a CSV file's first line: a comma, or else the semicolon or tab that spreadsheets write."""
    with path.open("rb") as file:
        first = file.readline(100_000)
    return next((one for one in (",", ";", "\t") if one.encode() in first), ",")


@app.command("import")
def import_results(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Parquet, CSV, JSON or JSONL tables.")],
    mapping: Annotated[
        list[str], typer.Option("--map", metavar="OURS=THEIRS", help="source, persona, metric or value = a column.")
    ] = NOTHING,
    folder: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where they are kept.")] = Path("prior"),
    as_json: JsonOption = False,
) -> None:
    """Take in earlier results; `bystander plan` then shows the gradient in them, at no cost."""
    from bystander.study.forecast.prior_results import import_results as take_in

    pairs: dict[str, str] = {}
    for text in mapping:
        ours, separator, theirs = text.partition("=")
        if not separator or not theirs:
            raise DataError(f"--map {text!r}: expected OURS=THEIRS, e.g. --map value=leakage_rate")
        pairs[ours] = theirs
    check_folder("--to", folder)
    written = take_in(files, pairs, folder)
    if as_json:
        print_json([str(path) for path in written])
    else:
        for path in written:
            _wrote("imported", path)
