"""Commands on what studies are made of: data inspect, personas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from bystander.cli.app import JsonOption, app
from bystander.cli.console import console, print_json
from bystander.core.errors import DataError

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
    model: Annotated[
        str | None,
        typer.Option(
            help="Whose tokens to count; also how many answers its tokenizer joins with what stands before them."
        ),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Of a file of answers: the prompt's column.")] = None,
    shown: Annotated[str | None, typer.Option(help="The column of the answer that shows the behavior.")] = None,
    not_shown: Annotated[
        str | None, typer.Option(help="The column, or the file, of the other answer; or own_answers.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="keep: system turns are the rows' own contexts.")] = None,
    unpaired: Annotated[str | None, typer.Option(help="leave_out: rows without the other answer are left out.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a file is before it is used: a code set, multiple-choice questions, judged questions or answer pairs."""
    from bystander.cli.data_text import print_facts
    from bystander.data.answers import AnswerFileSettings
    from bystander.data.inspect import inspect_data as facts_of
    from bystander.lm import embedded
    from bystander.study.forecast.workload import counter_for

    counter = counter_for(model or embedded.NAME)
    given = {"prompt": prompt, "shown": shown, "not_shown": not_shown, "system": system, "unpaired": unpaired}
    told = {name: value for name, value in given.items() if value is not None}
    try:
        answers = AnswerFileSettings.model_validate(told) if told else None
    except ValueError as error:
        raise DataError(f"data inspect: --system is refuse or keep, --unpaired refuse or leave_out: {told}") from error
    facts = facts_of(where, counter.count, counter.how, answers, _joined(model) if model else None)
    if as_json:
        print_json(asdict(facts))
    else:
        print_facts(console, facts)


def _joined(model: str) -> Callable[[Sequence[str]], int]:
    """Counts the answers that a model's tokenizer makes other tokens of behind a prompt than by themselves."""
    from bystander.lm.local_tokenizer import local_tokenizer
    from bystander.lm.tokens import joint_differences

    tokenizer = local_tokenizer(model)
    return lambda answers: len(joint_differences(tokenizer, answers))
