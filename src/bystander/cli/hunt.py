"""`bystander hunt`: contexts nobody measured yet, searched for the most leakage."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bystander.cli.app import JsonOption, RunArg, app, interruptible
from bystander.cli.console import console, print_json, screen_for
from bystander.cli.progress import terminal_bar

if TYPE_CHECKING:
    from bystander.engine.hunt import HuntResult

SHOWN = 10


@app.command()
def hunt(
    run: RunArg,
    source: Annotated[str, typer.Option(help="Whose adapter; the run's first source otherwise.")] = "",
    behavior: Annotated[str, typer.Option(help="Of which behavior; the run's first otherwise.")] = "",
    budget: Annotated[int, typer.Option(min=1, help="Evaluations: contexts times questions that are read.")] = 200,
    contexts: Annotated[
        Path | None, typer.Option("--contexts", metavar="FILE", help="Contexts of yours, as `contexts:` of a study.")
    ] = None,
    benign: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A benign adapter: whether its best find is as large.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Search contexts that were not measured for those that leak most: tags, formats, wraps, a file of yours."""
    from bystander.engine.hunt import HuntRequest, hunt_run
    from bystander.results.results import Results

    results = Results.open(run)
    spec = results.study.spec
    asked = HuntRequest(behavior or spec.behaviors[0], source or spec.sources[0], budget, contexts, benign)
    with interruptible("a hunt keeps nothing until it is done"), terminal_bar(screen_for(as_json)) as bar:
        found = hunt_run(results.run, results.study, asked, bar)
    if as_json:
        print_json(asdict(found))
    else:
        _print_found(found)


def _print_found(found: HuntResult) -> None:
    console.print(f"most leakage: [bold]{found.contexts[0]}[/], {found.leakage:.3f} in {found.outcome}", soft_wrap=True)
    console.print(f"then: {', '.join(found.contexts[1:SHOWN])}", soft_wrap=True, markup=False)
    console.print(f"{found.evaluations} evaluations; {found.left_out} contexts beyond the budget", markup=False)
    if found.p is None:
        console.print("no benign adapter given (--benign): the best of many is large by chance alone", style="yellow")
    else:
        console.print(f"a benign adapter's best find is as large with p = {found.p:.3f}", markup=False)
