"""The command line. Commands import what they need when they run, so that `--help` answers at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from bystander.cli.cli_data import register_data
from bystander.cli.cli_study import register
from bystander.core.errors import BystanderError

app = typer.Typer(
    name="bystander",
    help="Measure what fine-tuning one persona does to all the personas that you did not train.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

StudyArg = Annotated[str, typer.Argument(metavar="STUDY", help="A built-in study's name or a YAML file.")]
SetOption = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. recipe.lr=1e-4.")
]
OutOption = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Run directory; default runs/<study>.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"bystander {version('bystander')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Measure what fine-tuning one persona does to all the personas that you did not train."""


@app.command()
def run(
    study: StudyArg,
    overrides: SetOption = [],  # noqa: B006
    out: OutOption = None,
    approve: Annotated[str, typer.Option(metavar="PLAN_HASH", help="Approve a plan above the budget.")] = "",
    override: Annotated[str, typer.Option(metavar="REASON", help="Go on behind a gate that said stop; recorded.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Run a study: audit, train, probe, analyze, report. Run it again to go on where it stopped."""
    from bystander.cli.console import run_in_terminal

    run_in_terminal(study, overrides, out, approve, override, as_json)


@app.command()
def audit(study: StudyArg, overrides: SetOption = [], as_json: JsonOption = False) -> None:  # noqa: B006
    """Check a study's design before anything is trained: the rows, the loss mask, the contexts, the overlap."""
    from bystander.cli.console import audit_in_terminal

    audit_in_terminal(study, overrides, as_json)


@app.command()
def analyze(
    table: Annotated[
        Path, typer.Argument(help="CSV or Parquet: a row a source and persona, with leakage and similarity.")
    ],
    leakage: Annotated[
        str | None, typer.Option(help="Column that holds the leakage; found by its name otherwise.")
    ] = None,
    similarity: Annotated[
        list[str], typer.Option(help="Columns that hold similarities; found by name otherwise.")
    ] = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """The correlations of leakage with similarity in anyone's table."""
    from bystander.cli.console import analyze_in_terminal

    analyze_in_terminal(table, leakage, similarity, as_json)


@app.command()
def report(run_directory: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]) -> None:
    """Make a run's report again from its records."""
    from bystander.cli.console import report_in_terminal

    report_in_terminal(run_directory)


@app.command()
def probe(
    model: Annotated[str, typer.Option(help="smollm2-135m, a Hub id or a local path.")],
    probe_name: Annotated[str, typer.Option("--probe", help="Which probe: marker, choice, ...")],
    adapter: Annotated[Path | None, typer.Option(help="A PEFT adapter directory.")] = None,
    personas: Annotated[Path | None, typer.Option(help="A persona file; the 111 built-in ones otherwise.")] = None,
    data: Annotated[
        str | None, typer.Option(metavar="arc|hellaswag|bank|FILE", help="Questions of the choice probe.")
    ] = None,
    items: Annotated[int | None, typer.Option(help="How many of them; 40, or all of a file.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the measurements to this Parquet or CSV file.")] = None,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Measure a model, or an adapter that you already have, under every persona."""
    from bystander.cli.console import probe_in_terminal

    probe_in_terminal(model, probe_name, adapter, personas, out, overrides, as_json, data, items)


@app.command()
def rows(
    study: StudyArg,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the files.")],
    overrides: SetOption = [],  # noqa: B006
) -> None:
    """Write the rows that a study would train on, one file a training, and the halves of its question set."""
    from bystander.cli.console import rows_in_terminal

    rows_in_terminal(study, out, overrides)


@app.command()
def personas(
    file: Annotated[Path | None, typer.Option(help="A persona file to check instead of the built-in set.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the personas: name, category, prompt."""
    from bystander.cli.console import personas_in_terminal

    personas_in_terminal(file, as_json)


@app.command()
def studies(as_json: JsonOption = False) -> None:
    """List the built-in studies."""
    from bystander.cli.console import studies_in_terminal

    studies_in_terminal(as_json)


bench = typer.Typer(help="Measure this machine: a plain way and ours side by side.", no_args_is_help=True)
app.add_typer(bench, name="bench")
ModelOption = Annotated[str, typer.Option(help="smollm2-135m, a Hub id or a local path.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
ShapeOption = Annotated[
    str | None,
    typer.Option(help="Random weights in this shape instead of a model: qwen2.5-0.5b, -1.5b, -3b, -7b, -14b."),
]
TurnsOption = Annotated[int, typer.Option(min=1, help="Repeats; the figure is their median.")]


@bench.command("score")
def bench_score(
    model: ModelOption = "smollm2-135m",
    shape: ShapeOption = None,
    device: DeviceOption = "auto",
    personas: Annotated[int, typer.Option(min=1, max=111, help="Contexts of the grid.")] = 20,
    items: Annotated[int, typer.Option(min=1, help="ARC questions under each (of the bank where ARC is absent).")] = 40,
    mode: Annotated[str, typer.Option(help="label, text or both.")] = "both",
    plain_personas: Annotated[
        int | None, typer.Option(min=1, help="Personas that the plain way is timed on; all, and 5 in text mode.")
    ] = None,
    batched: Annotated[bool, typer.Option(help="Plain label mode in length-sorted batches of 64.")] = False,
    prompt_tokens: Annotated[
        int | None, typer.Option(min=1, help="Questions with prompts of about this length.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Questions per second of the choice grid, against one whole forward per question or option."""
    from bystander.cli.terminal_bench import bench_score_in_terminal

    bench_score_in_terminal(
        (model, shape, device), personas, items, mode, plain_personas, batched, prompt_tokens, as_json
    )


@bench.command("train")
def bench_train(
    model: ModelOption = "smollm2-135m",
    shape: ShapeOption = None,
    device: DeviceOption = "auto",
    tokens: Annotated[int, typer.Option(min=40, help="Tokens of a row, on average.")] = 140,
    spread: Annotated[int, typer.Option(min=0, help="Their standard deviation.")] = 30,
    turns: TurnsOption = 8,
    as_json: JsonOption = False,
) -> None:
    """Rows per second of LoRA training, against a default trainer's loop and plain batches of 16."""
    from bystander.cli.terminal_bench import bench_train_in_terminal

    bench_train_in_terminal((model, shape, device), tokens, spread, turns, as_json)


@bench.command("sample")
def bench_sample(
    model: ModelOption = "smollm2-135m",
    shape: ShapeOption = None,
    device: DeviceOption = "auto",
    personas: Annotated[int, typer.Option(min=1, max=111, help="Contexts, with 8 prompts each.")] = 111,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer at most.")] = 160,
    turns: TurnsOption = 3,
    cache: Annotated[str, typer.Option(help="The plain way's: dynamic, or static (compiled on a GPU).")] = "dynamic",
    engine: Annotated[str, typer.Option(help="transformers, or vllm to measure that too.")] = "transformers",
    as_json: JsonOption = False,
) -> None:
    """Tokens per second at temperature 1, against transformers' generate."""
    from bystander.cli.terminal_bench import bench_sample_in_terminal

    bench_sample_in_terminal((model, shape, device), personas, max_tokens, turns, cache, engine, as_json)


register(app)
register_data(app)


def fail(error: BystanderError) -> NoReturn:
    """One clear message on standard error, exit code 2."""
    sys.stderr.write(f"error: {error}\n")
    raise SystemExit(2)


def main() -> None:
    """Entry point of the `bystander` command."""
    try:
        app()
    except BystanderError as error:
        fail(error)
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; everything complete is kept: run the same command again to go on\n")
        raise SystemExit(130) from None
