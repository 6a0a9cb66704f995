"""`bystander judge`: score the answers that a run kept; and what asking a model costs, said before and after."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bystander.cli.app import (
    AskedOption,
    BatchOption,
    DollarsOption,
    JsonOption,
    KeyOption,
    PriceOption,
    RunArg,
    UrlOption,
    app,
    interruptible,
)
from bystander.cli.console import console, print_json, screen_for
from bystander.cli.outputs import check_folder
from bystander.cli.progress import terminal_bar

if TYPE_CHECKING:
    from rich.console import Console

    from bystander.judge.answer_store import Ledger
    from bystander.judge.cost import CostEstimate
    from bystander.study.results.rejudge import Judging


@app.command()
def judge(
    run: RunArg,
    model: AskedOption,
    dollars: DollarsOption = 10.0,
    price: PriceOption = None,
    base_url: UrlOption = None,
    key_env: KeyOption = None,
    batch: BatchOption = False,
    questions: Annotated[
        Path | None, typer.Option(help="The question file, where the study's own is not at hand.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Judge a run's kept answers, again or for the first time. Nothing is sampled, nothing is paid twice."""
    from bystander.cli.result_tables import judged_means
    from bystander.judge.settings import JudgeSettings, Price
    from bystander.lm.embedded import cache_dir
    from bystander.study.results.rejudge import judge_run
    from bystander.study.results.results import Results

    results = Results.open(run)
    check_folder("RUN", run)
    stated = None if price is None else Price(input=price[0], output=price[1])
    settings = JudgeSettings(
        model=model, base_url=base_url, key_env=key_env, batch=batch, dollars=dollars, price=stated
    )
    with interruptible(PAID_IS_KEPT), terminal_bar(screen_for(as_json)) as bar:
        found = judge_run(results.run, results.study, settings, cache_dir() / "judge.sqlite", bar, questions=questions)
    if as_json:
        print_json(
            {"judge": model, "out": str(found.folder), "completions": found.completions, "failed": found.failed,
             "forecast": asdict(found.forecast), "paid": asdict(found.ledger),
             "means": judged_means(found.measured).to_dicts()}
        )  # fmt: skip
    else:
        _print_judged(found, run)


PAID_IS_KEPT = "every answer that was paid for is kept; run the same command again to go on"


def _print_judged(found: Judging, run: Path) -> None:
    """The means of each model state, how the judge agrees with the run's own, what failed and what it cost."""
    from bystander.cli.result_tables import judged_table, judges_compared

    judged_table(found.measured).print()
    if compared := judges_compared(found.own, found.measured):
        console.print(compared, soft_wrap=True)
    console.print(f"{found.completions:,} answers judged, {found.failed:,} judgements failed")
    print_paid(console, found.forecast, found.ledger)
    console.print(f"tables and Inspect logs: [bold]{found.folder}[/]", soft_wrap=True)
    if not found.own.height:
        console.print(f"[dim]the run had no judge of its own: `bystander report {run}` shows these[/]", soft_wrap=True)


def print_estimate(screen: Console, estimate: CostEstimate, what: str, cap: float) -> None:
    """What sending would cost, before anything is sent."""
    cached = f", {estimate.cached:,} of them answered already" if estimate.cached else ""
    screen.print(
        f"{what}{cached}: about {estimate.input_tokens:,} tokens to read and {estimate.output_tokens:,} to write, "
        f"[bold]${estimate.dollars:.2f}[/] [dim](cap ${cap:.2f})[/]",
        soft_wrap=True,
    )


def print_paid(screen: Console, estimate: CostEstimate, paid: Ledger) -> None:
    """The bill beside the forecast."""
    broken = f", up to ${paid.uncertain:.2f} more for {paid.broken} requests that broke off" if paid.broken else ""
    screen.print(
        f"paid ${paid.dollars:.4f} for {paid.requests:,} requests (forecast ${estimate.dollars:.4f}){broken}",
        soft_wrap=True,
    )
