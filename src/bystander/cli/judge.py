"""Commands that ask a provider's model and pay for it, which is said before and after: judge, data secure."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from bystander.cli.app import JsonOption, RunArg, app, interruptible
from bystander.cli.console import console, print_json, screen_for
from bystander.cli.data import data
from bystander.cli.outputs import check_file, check_folder
from bystander.cli.progress import terminal_bar
from bystander.core.errors import DataError

if TYPE_CHECKING:
    from bystander.data.code_secure import Secured
    from bystander.judge.answer_store import Ledger
    from bystander.judge.cost import CostEstimate
    from bystander.judge.settings import Price
    from bystander.results.rejudge import Judging
    from bystander.results.results import Results

WHICH = "openai/..., anthropic/..., or openai-api/NAME/MODEL for a server at --base-url."
AskedOption = Annotated[str, typer.Option("--model", help=WHICH)]
DollarsOption = Annotated[float, typer.Option(min=0, help="Cap; a forecast above it sends nothing.")]
PriceOption = Annotated[
    tuple[float, float] | None,
    typer.Option(metavar="IN OUT", help="Dollars a million tokens read and written; the list price otherwise."),
]
UrlOption = Annotated[str | None, typer.Option(help="An OpenAI-compatible server of your own.")]
KeyOption = Annotated[str | None, typer.Option(help="The variable that holds the key; the provider's usual one else.")]
BatchOption = Annotated[bool, typer.Option(help="The provider's batch interface: half the price, up to a day.")]
PAID_IS_KEPT = "every answer that was paid for is kept; run the same command again to go on"


@app.command()
def judge(
    run: RunArg,
    model: Annotated[str | None, typer.Option("--model", help=WHICH)] = None,
    reparse: Annotated[
        bool, typer.Option("--reparse", help="Read a judge's kept raw answers again; asks and pays for nothing.")
    ] = False,
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
    from bystander.judge.settings import JudgeSettings
    from bystander.lm.embedded import cache_dir
    from bystander.results.rejudge import judge_run
    from bystander.results.results import Results

    if model is None and not reparse:
        raise DataError("say which model judges (--model PROVIDER/NAME), or --reparse for answers that are kept")
    results = Results.open(run)
    check_folder("RUN", run)
    if reparse:
        _reparse(results, model, questions, as_json)
        return
    assert model is not None
    settings = JudgeSettings(
        model=model, base_url=base_url, key_env=key_env, batch=batch, dollars=dollars, price=_price(price)
    )
    with interruptible(PAID_IS_KEPT), terminal_bar(screen_for(as_json)) as bar:
        found = judge_run(results.run, results.study, settings, cache_dir() / "judge.sqlite", bar, questions=questions)
    if as_json:
        print_json(
            {"judge": model, "out": str(found.folder), "completions": found.completions, "failed": found.failed, "decorated": found.decorated,
             "forecast": asdict(found.forecast), "paid": asdict(found.ledger),
             "means": judged_means(found.measured).to_dicts()}
        )  # fmt: skip
    else:
        _print_judged(found, run)


def _marks(decorated: int) -> str:
    return f", {decorated:,} had marks around them taken off" if decorated else ""


def _reparse(results: Results, model: str | None, questions: Path | None, as_json: bool) -> None:
    """Read kept answers again, and say what it changed."""
    from bystander.cli.result_tables import judged_means, judged_table
    from bystander.lm.embedded import cache_dir
    from bystander.results.reparse import reparse_run

    found = reparse_run(results.run, results.study, model, cache_dir() / "judge.sqlite", questions=questions)
    if as_json:
        print_json(
            {"judge": found.model, "out": str(found.folder), "judgements": found.judgements, "changed": found.changed,
             "failed_before": found.failed_before, "failed": found.failed, "decorated": found.decorated,
             "means": judged_means(found.measured).to_dicts()}
        )  # fmt: skip
        return
    judged_table(found.measured).print()
    console.print(
        f"{found.judgements:,} judgements of {escape(found.model)} read again, {found.changed:,} changed: {found.failed:,} "
        f"failed ({found.failed_before:,} before){_marks(found.decorated)}; nothing was asked or paid for",
        soft_wrap=True,
    )
    console.print(f"tables and Inspect logs: [bold]{escape(str(found.folder))}[/]", soft_wrap=True)
    said = f"`bystander report {results.folder}` shows them where the report reads this judge"
    console.print(said, style="dim", soft_wrap=True, markup=False)


def _print_judged(found: Judging, run: Path) -> None:
    """The means of each model state, how the judge agrees with the run's own, what failed and what it cost."""
    from bystander.cli.result_tables import judged_table, judges_compared

    judged_table(found.measured).print()
    if compared := judges_compared(found.own, found.measured):
        console.print(compared, soft_wrap=True)
    marks = _marks(found.decorated)
    console.print(f"{found.completions:,} answers judged, {found.failed:,} judgements failed{marks}")
    _print_paid(found.forecast, found.ledger)
    console.print(f"tables and Inspect logs: [bold]{escape(str(found.folder))}[/]", soft_wrap=True)
    if not found.own.height:
        said = f"the run had no judge of its own: `bystander report {run}` shows these"
        console.print(said, style="dim", soft_wrap=True, markup=False)


@data.command("secure")
def secure(
    where: Annotated[str, typer.Argument(metavar="FILE|OWNER/NAME[:FILE]", help="A set of insecure code.")],
    model: AskedOption,
    out: Annotated[Path | None, typer.Option(metavar="FILE.jsonl", help="The pairs; default FILE.pairs.jsonl.")] = None,
    dollars: DollarsOption = 10.0,
    price: PriceOption = None,
    base_url: UrlOption = None,
    key_env: KeyOption = None,
    batch: BatchOption = True,
    forecast_only: Annotated[bool, typer.Option("--forecast", help="Say what it would cost, and stop.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Have a model write secure answers to a set's prompts. The cost is shown and capped before anything is sent."""
    from bystander.data.code_secure import expected_tokens, generate_secure, secure_prompts, write_pairs
    from bystander.data.code_sets import read_code_set
    from bystander.data.code_source import find_code_file
    from bystander.judge.secure_answers import SecureSender, secure_settings
    from bystander.lm.embedded import cache_dir

    path = find_code_file(where, Path())  # from the Hub it lies in the Hub client's cache: nothing is written there
    target = out or (path if Path(where).is_file() else Path(path.name)).with_suffix(".pairs.jsonl")
    check_file("--out", target, [".jsonl"])
    rows = read_code_set(path)
    prompts = secure_prompts(rows)
    settings = secure_settings(
        model, dollars=dollars, base_url=base_url, key_env=key_env, batch=batch, price=_price(price)
    )
    sender = SecureSender(settings, cache_dir() / "judge.sqlite", str(path.resolve()), expected_tokens(rows))
    before, estimate = sender.client.ledger(), sender.estimate(prompts)
    _print_estimate(estimate, f"{len(prompts):,} prompts to {model}{' in batches' if batch else ''}", dollars, as_json)
    if forecast_only:
        if as_json:
            print_json({"forecast": asdict(estimate), "cap": dollars})
        return
    how = "batches can take up to a day; stop and start again at will" if batch else "one by one"
    with interruptible(PAID_IS_KEPT), screen_for(as_json).status(f"{model} writes ({how})"):
        made = generate_secure(rows, sender)
    _refuse_none(made, model, len(prompts))
    write_pairs(made.pairs, target)
    _print_secured(made, target, estimate, sender.client.ledger().since(before), as_json)


def _refuse_none(made: Secured, model: str, asked: int) -> None:
    if not made.pairs:
        reasons = "; ".join(f"line {one.line}: {one.reason}" for one in made.left_out[:3])
        raise DataError(f"{model} gave no usable answer to any of {asked} prompts ({reasons}); nothing is written")


def _print_secured(made: Secured, target: Path, estimate: CostEstimate, paid: Ledger, as_json: bool) -> None:
    """How many pairs there are, what was left out and why, and the bill."""
    if as_json:
        left = [asdict(one) for one in made.left_out]
        print_json(
            {"pairs": len(made.pairs), "out": str(target), "left_out": left, "asked_again": made.asked_again,
             "forecast": asdict(estimate), "paid": asdict(paid)}
        )  # fmt: skip
        return
    again = f"{made.asked_again:,} asked for once more"
    console.print(f"[bold]{len(made.pairs):,}[/] pairs in [bold]{escape(str(target))}[/]; {again}", soft_wrap=True)
    for one in made.left_out:
        console.print(f"[yellow]left out[/]: line {one.line} ({escape(one.id)}): {escape(one.reason)}", soft_wrap=True)
    _print_paid(estimate, paid)
    console.print(f"in a study: misalignment: {{code: {target}}}", style="dim", soft_wrap=True, markup=False)


def _price(given: tuple[float, float] | None) -> Price | None:
    from bystander.judge.settings import Price

    if given is not None and not all(0 <= one < float("inf") for one in given):
        raise DataError(f"--price {given[0]:g} {given[1]:g}: dollars a million tokens are 0 or more")
    return None if given is None else Price(input=given[0], output=given[1])


def _print_estimate(estimate: CostEstimate, what: str, cap: float, as_json: bool) -> None:
    """What sending would cost, before anything is sent."""
    cached = f", {estimate.cached:,} of them answered already" if estimate.cached else ""
    screen_for(as_json).print(
        f"{what}{cached}: about {estimate.input_tokens:,} tokens to read and {estimate.output_tokens:,} to write, "
        f"[bold]${estimate.dollars:.2f}[/] [dim](cap ${cap:.2f})[/]",
        soft_wrap=True,
    )


def _print_paid(estimate: CostEstimate, paid: Ledger) -> None:
    """The bill beside the forecast."""
    broken = f", up to ${paid.uncertain:.2f} more for {paid.broken} requests that broke off" if paid.broken else ""
    line = f"paid ${paid.dollars:.4f} for {paid.requests:,} requests (forecast ${estimate.dollars:.4f}){broken}"
    console.print(line, soft_wrap=True)
