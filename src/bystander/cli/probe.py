"""`bystander probe`: measure a model, or an adapter that one already has, outside any study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bystander.cli.app import NOTHING, JsonOption, ModelOption, SetOption, app, interruptible
from bystander.cli.console import Grid, number, print_json, screen_for
from bystander.cli.outputs import check_file
from bystander.cli.progress import terminal_bar

if TYPE_CHECKING:
    import polars as pl

ENDINGS = (".parquet", ".csv")


@app.command()
def probe(
    model: ModelOption,
    probe_name: Annotated[str, typer.Option("--probe", help="Which probe: marker, choice, ...")],
    adapter: Annotated[Path | None, typer.Option(help="A PEFT adapter directory.")] = None,
    personas: Annotated[Path | None, typer.Option(help="A persona file; the 111 built-in ones otherwise.")] = None,
    data: Annotated[
        str | None, typer.Option(metavar="arc|hellaswag|bank|FILE", help="Questions of the choice probe.")
    ] = None,
    items: Annotated[int | None, typer.Option(help="How many of them; 40, or all of a file.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the measurements to this .parquet or .csv file.")] = None,
    overrides: SetOption = NOTHING,
    as_json: JsonOption = False,
) -> None:
    """Measure a model, or an adapter that you already have, under every persona."""

    if out is not None:
        check_file("--out", out, ENDINGS)
    import polars as pl

    from bystander.core.files import write_bytes, write_parquet
    from bystander.core.records import as_dict
    from bystander.study.engine.probe_model import probe_model

    screen = screen_for(as_json)
    with interruptible("nothing is kept; a probe is written when all of it is measured"), terminal_bar(screen) as bar:
        found = probe_model(model, probe_name, adapter, personas, overrides, bar, data=data, items=items)
    for note in found.notes:
        screen.print(note, soft_wrap=True, markup=False)
    frame = pl.DataFrame([as_dict(m) for m in found.measurements])
    if out is not None and out.suffix == ".parquet":
        write_parquet(out, frame)
    elif out is not None:
        write_bytes(out, frame.write_csv().encode())
    _print_means(frame, as_json)


def _print_means(frame: pl.DataFrame, as_json: bool) -> None:
    import polars as pl

    by = ("persona", "dataset", "metric")
    means = frame.group_by(*by, maintain_order=True).agg(pl.col("value").mean(), pl.len().alias("items"))
    if as_json:
        print_json(means.to_dicts())
        return
    grid = Grid(("persona", "metric"), ("mean", "items"))
    for row in means.sort("metric", "value", descending=[False, True]).iter_rows(named=True):
        grid.add(row["persona"], row["metric"], number(row["value"], 4), str(row["items"]))
    grid.print()
