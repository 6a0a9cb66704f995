"""Commands on what studies are made of: data inspect, data secure, personas."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from bystander.cli.app import (
    AskedOption,
    BatchOption,
    DollarsOption,
    JsonOption,
    KeyOption,
    PriceOption,
    UrlOption,
    app,
    interruptible,
)
from bystander.cli.console import console, print_json, screen_for
from bystander.cli.judge import PAID_IS_KEPT, print_estimate, print_paid
from bystander.cli.outputs import check_file

if TYPE_CHECKING:
    from bystander.data.code_secure import Secured

data = typer.Typer(help="Data: what a file is, and secure answers to a code set's prompts.", no_args_is_help=True)
app.add_typer(data, name="data")


@app.command()
def personas(
    file: Annotated[Path | None, typer.Option(help="A persona file to check instead of the built-in set.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the personas: name, category, prompt."""

    from bystander.personas import load_personas

    found = load_personas(file)
    if as_json:
        print_json([asdict(persona) for persona in found])
        return
    for persona in found:
        of = f", of {', '.join(persona.related_to)}" if persona.related_to else ""
        console.print(f"[bold]{escape(persona.name)}[/]  {escape(persona.category + of)}", soft_wrap=True)
        console.print(f"    {persona.prompt}", style="dim", soft_wrap=True, markup=False)


@data.command("inspect")
def inspect_data(
    where: Annotated[
        str, typer.Argument(metavar="FILE|OWNER/NAME[:FILE]|arc|hellaswag|bank", help="A file, here or on the Hub.")
    ],
    model: Annotated[str, typer.Option(help="Whose tokens the lengths are counted in.")] = "smollm2-135m",
    as_json: JsonOption = False,
) -> None:
    """Say what a file is before it is used: a code set, multiple-choice questions, judged questions or answer pairs."""
    from bystander.cli.data_text import print_facts
    from bystander.data.inspect import inspect_data as facts_of
    from bystander.study.forecast.workload import counter_for

    counter = counter_for(model)
    facts = facts_of(where, counter.count, counter.how)
    if as_json:
        print_json(asdict(facts))
    else:
        print_facts(console, facts)


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
    from bystander.judge.settings import Price
    from bystander.lm.embedded import cache_dir

    path = find_code_file(where, Path())
    local = path if Path(where).is_file() else Path(path.name)  # a file from the Hub lies in its client's cache
    target = out or local.with_suffix(".pairs.jsonl")
    check_file("--out", target, [".jsonl"])
    rows = read_code_set(path)
    prompts = secure_prompts(rows)
    stated = None if price is None else Price(input=price[0], output=price[1])
    settings = secure_settings(model, dollars=dollars, base_url=base_url, key_env=key_env, batch=batch, price=stated)
    sender = SecureSender(settings, cache_dir() / "judge.sqlite", str(path.resolve()), expected_tokens(rows))
    screen, before = screen_for(as_json), sender.client.ledger()
    estimate = sender.estimate(prompts)
    print_estimate(screen, estimate, f"{len(prompts):,} prompts to {model}{' in batches' if batch else ''}", dollars)
    if forecast_only:
        if as_json:
            print_json({"forecast": asdict(estimate), "cap": dollars})
        return
    how = "batches can take up to a day; stop and start again at will" if batch else "one by one"
    with interruptible(PAID_IS_KEPT), screen.status(f"{model} writes ({how})"):
        made = generate_secure(rows, sender)
    _refuse_none(made, model, len(prompts))
    write_pairs(made.pairs, target)
    paid = sender.client.ledger().since(before)
    if as_json:
        left = [asdict(one) for one in made.left_out]
        print_json(
            {"pairs": len(made.pairs), "out": str(target), "left_out": left, "asked_again": made.asked_again,
             "forecast": asdict(estimate), "paid": asdict(paid)}
        )  # fmt: skip
        return
    _print_secured(made, target)
    print_paid(screen, estimate, paid)
    screen.print(f"in a study: misalignment: {{code: {target}}}", style="dim", soft_wrap=True, markup=False)


def _refuse_none(made: Secured, model: str, asked: int) -> None:
    from bystander.core.errors import DataError

    if not made.pairs:
        reasons = "; ".join(f"line {one.line}: {one.reason}" for one in made.left_out[:3])
        raise DataError(f"{model} gave no usable answer to any of {asked} prompts ({reasons}); nothing is written")


def _print_secured(made: Secured, target: Path) -> None:
    """How many pairs there are, what was left out and why."""

    again = f"{made.asked_again:,} asked for once more"
    console.print(f"[bold]{len(made.pairs):,}[/] pairs in [bold]{target}[/]; {again}", soft_wrap=True)
    for one in made.left_out:
        console.print(f"[yellow]left out[/]: line {one.line} ({escape(one.id)}): {escape(one.reason)}", soft_wrap=True)
