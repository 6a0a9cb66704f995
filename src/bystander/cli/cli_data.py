"""The commands around data and judges: data inspect, data secure, judge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
ModelOption = Annotated[
    str, typer.Option(help="openai/..., anthropic/..., or openai-api/NAME/MODEL for a server at --base-url.")
]
UrlOption = Annotated[str | None, typer.Option(help="An OpenAI-compatible server of your own.")]
KeyOption = Annotated[str | None, typer.Option(help="The variable that holds the key; the provider's usual one else.")]
DollarsOption = Annotated[float, typer.Option(min=0, help="Cap; a forecast above it sends nothing.")]

data = typer.Typer(help="Data: what a file is, and secure answers to a code set's prompts.", no_args_is_help=True)


@data.command("inspect")
def inspect_data(
    where: Annotated[
        str, typer.Argument(metavar="FILE|OWNER/NAME[:FILE]|arc|hellaswag|bank", help="A file, here or on the Hub.")
    ],
    model: Annotated[str, typer.Option(help="Whose tokens the lengths are counted in.")] = "smollm2-135m",
    as_json: JsonOption = False,
) -> None:
    """Say what a file is before it is used: a code set, multiple-choice questions, judged questions or answer pairs."""
    from bystander.cli.inspect_terminal import inspect_in_terminal

    inspect_in_terminal(where, model, as_json)


@data.command("secure")
def secure(
    where: Annotated[str, typer.Argument(metavar="FILE|OWNER/NAME[:FILE]", help="A set of insecure code.")],
    model: ModelOption,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The pairs; default FILE.pairs.jsonl.")] = None,
    dollars: DollarsOption = 10.0,
    base_url: UrlOption = None,
    key_env: KeyOption = None,
    batch: Annotated[bool, typer.Option(help="The provider's batch interface: half the price, up to a day.")] = True,
    forecast_only: Annotated[bool, typer.Option("--forecast", help="Say what it would cost, and stop.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Have a model write secure answers to a set's prompts. The cost is shown and capped before anything is sent."""
    from bystander.cli.data_terminal import secure_in_terminal

    secure_in_terminal(where, model, out, dollars, base_url, key_env, batch, forecast_only, as_json)


def judge(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    model: ModelOption,
    dollars: DollarsOption = 10.0,
    base_url: UrlOption = None,
    key_env: KeyOption = None,
    batch: Annotated[bool, typer.Option(help="The provider's batch interface: half the price, up to a day.")] = False,
    questions: Annotated[
        Path | None, typer.Option(help="The question file, where the study's own is not at hand.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Judge a run's kept answers, again or for the first time. Nothing is sampled, nothing is paid twice."""
    from bystander.cli.data_terminal import judge_in_terminal

    judge_in_terminal(run, model, dollars, base_url, key_env, batch, questions, as_json)


def register_data(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.add_typer(data, name="data")
    app.command()(judge)
