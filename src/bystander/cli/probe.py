"""`bystander probe`: measure a model, or adapters that one already has, outside any study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bystander.cli.app import NOTHING, JsonOption, ModelOption, SetOption, VerboseOption, app, interruptible, run_folder
from bystander.cli.console import Grid, number, print_json, screen_for
from bystander.cli.outputs import check_file, check_folder
from bystander.cli.progress import terminal_bar
from bystander.core.errors import DataError, StoreError

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console

    from bystander.analysis import Analysis
    from bystander.engine.probe_request import ProbeRequest
    from bystander.engine.probe_roles import Trained
    from bystander.study.store.run_dir import RunDir

ENDINGS = (".parquet", ".csv")


@app.command()
def probe(
    model: ModelOption,
    probe_name: Annotated[str, typer.Option("--probe", help="Which probe: marker, choice, ...")],
    adapters: Annotated[
        list[str],
        typer.Option(
            "--adapter",
            metavar="DIR|OWNER/NAME",
            help="A PEFT adapter's folder, or one on the Hub (OWNER/NAME[:FOLDER][@REVISION]); may be given several times.",
        ),
    ] = NOTHING,
    sources: Annotated[
        list[str],
        typer.Option(
            "--source", metavar="PERSONA", help="Whom the adapter was trained as: compare with the untrained model."
        ),
    ] = NOTHING,
    negatives: Annotated[
        list[str],
        typer.Option(metavar="A,B", help="Personas it was trained not to show it as; they are no bystanders."),
    ] = NOTHING,
    behavior: Annotated[str, typer.Option(help="What was coupled; told by the probe otherwise.")] = "",
    base_ok: Annotated[
        bool, typer.Option("--base-ok", help="Put an adapter on although its own base has other weights.")
    ] = False,
    personas: Annotated[Path | None, typer.Option(help="A persona file; the 111 built-in ones otherwise.")] = None,
    data: Annotated[
        str | None, typer.Option(metavar="arc|hellaswag|bank|FILE", help="Questions of the choice probe.")
    ] = None,
    items: Annotated[int | None, typer.Option(help="How many of them; 40, or all of a file.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the measurements to this .parquet or .csv file; with --source, all to this folder."),
    ] = None,
    overrides: SetOption = NOTHING,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure a model, or adapters that you already have, under every persona; with --source all that a run gives."""

    if not sources and (negatives or behavior):
        raise DataError("--negatives and --behavior are roles in a training: say its --source too")
    if out is not None:
        _check_out(out, compared=bool(sources))
    from bystander.engine.probe_request import ProbeRequest
    from bystander.engine.probe_roles import told
    from bystander.engine.published_adapters import adapter_places

    places = adapter_places(adapters)
    asked = ProbeRequest(
        model, probe_name, tuple(one.path for one in places), personas, tuple(overrides), data, items, base_ok=base_ok,
        published={one.path: one.name for one in places if one.name},
    )  # fmt: skip
    if sources:
        named = {one.path: one.label for one in places if one.label}
        trained = told(asked.adapters, sources, negatives, named)
        _compare(asked, trained, behavior, out, as_json=as_json, verbose=verbose)
    else:
        _measure(asked, out, as_json)


def _check_out(out: Path, *, compared: bool) -> None:
    if not compared:
        check_file("--out", out, ENDINGS)
        return
    if out.suffix in (*ENDINGS, ".html", ".json") and not out.is_dir():
        raise StoreError(f"--out {out}: with --source a folder of tables and a report is written; name a folder")
    check_folder("--out", out)


def _measure(asked: ProbeRequest, out: Path | None, as_json: bool) -> None:
    """The bare means, with nothing to compare them to."""
    import polars as pl

    from bystander.core.files import write_bytes, write_parquet
    from bystander.core.records import as_dict
    from bystander.engine.probe_model import probe_model

    screen = screen_for(as_json)
    with interruptible("nothing is kept; a probe is written when all of it is measured"), terminal_bar(screen) as bar:
        found, notes = probe_model(asked, bar)
    for note in notes:
        screen.print(note, soft_wrap=True, markup=False)
    frame = pl.DataFrame([{"adapter": one.adapter, **as_dict(m)} for one in found for m in one.measurements])
    if out is not None and out.suffix == ".parquet":
        write_parquet(out, frame)
    elif out is not None:
        write_bytes(out, frame.write_csv().encode())
    _print_means(frame, as_json)


def _print_means(frame: pl.DataFrame, as_json: bool) -> None:
    import polars as pl

    by = ("adapter", "persona", "dataset", "metric")
    means = frame.group_by(*by, maintain_order=True).agg(pl.col("value").mean(), pl.len().alias("items"))
    if as_json:
        print_json(means.to_dicts())
        return
    several = frame["adapter"].n_unique() > 1
    grid = Grid(("adapter", "persona", "metric") if several else ("persona", "metric"), ("mean", "items"))
    for row in means.sort("adapter", "metric", "value", descending=[False, False, True]).iter_rows(named=True):
        names = (row["persona"], row["metric"])
        grid.add(*((row["adapter"], *names) if several else names), number(row["value"], 4), str(row["items"]))
    grid.print()


def _compare(
    asked: ProbeRequest, trained: tuple[Trained, ...], behavior: str, out: Path | None, *, as_json: bool,
    verbose: bool,
) -> None:  # fmt: skip
    """Untrained against trained, as at the end of a run."""
    from bystander.engine.probe_adapters import probe_adapters
    from bystander.engine.probe_roles import probe_name
    from bystander.results.results import Results

    folder = run_folder(probe_name(trained), out)
    check_folder("--out", folder)
    screen = screen_for(as_json)
    with interruptible(f"what was measured is kept in {folder}; give the same command again to go on"):
        with terminal_bar(screen) as bar:
            run = probe_adapters(asked, trained, folder, bar, behavior=behavior)
        results = Results.open(folder)
        judged = results.measurements["source"].null_count() < results.measurements.height
        page = results.report() if judged else None
    _print_notes(run, screen)
    if page is None:
        what = f"nothing is scored yet: `bystander judge {folder} --model ...` judges the answers that were kept"
        screen.print(what, soft_wrap=True, markup=False)
    if as_json:
        _print_as_json(run, page, results.analysis if page else None)
    elif page:
        from bystander.cli.story import print_story

        print_story(results, page, verbose=verbose)


def _print_notes(run: RunDir, screen: Console) -> None:
    """What was compared of the adapters' bases, and how probes came to measure."""
    for one in run.adapters():
        for note in one.notes:
            screen.print(f"{one.label}: {note}", style="yellow", soft_wrap=True, markup=False)
    for finding in run.mode_findings():
        screen.print(finding.message, style="dim", soft_wrap=True, markup=False)


def _print_as_json(run: RunDir, page: Path | None, analysis: Analysis | None) -> None:
    from bystander.core.records import as_dict

    tables = analysis.tables() if analysis else {}
    shown = ("leakage", "leakage_ratio", "similarity_correlation", "pooled")
    print_json(
        {
            "run": str(run.path), "report": str(page or ""), "adapters": [as_dict(one) for one in run.adapters()],
            "notes": list(analysis.notes) if analysis else [],
            **{name: tables[name].to_dicts() for name in shown if name in tables},
        }
    )  # fmt: skip
