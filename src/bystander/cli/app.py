"""The root of the command line, and the options that several commands have. Imports nothing heavy, for `--help`."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup


@contextmanager
def interruptible(kept: str) -> Generator[None]:
    """Within the block Ctrl-C says what is kept and ends the command with exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write(f"\nstopped: {kept}\n")
        raise SystemExit(130) from None


class _Root(TyperGroup):
    """Says something at Ctrl-C, which typer takes without a word."""

    def invoke(self, ctx: Any) -> Any:
        with interruptible("files written until now are whole, and nothing else was kept"):
            return super().invoke(ctx)


app = typer.Typer(
    name="bystander",
    help="Measure what fine-tuning one persona does to all the personas that you did not train.",
    cls=_Root,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

StudyArg = Annotated[str, typer.Argument(metavar="STUDY", help="A built-in study's name or a YAML file.")]
RunArg = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
SetOption = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. recipe.lr=1e-4; paths start from here."),
]
OutOption = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Run directory; default runs/<study>.")]
PageOption = Annotated[Path, typer.Option("--out", metavar="FILE.html", help="The page.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Every number behind it too: estimates by source, controls, verdicts.")
]
ModelOption = Annotated[str, typer.Option(help="smollm2-135m, a Hub id or a local path.")]
NOTHING: list[str] = []  # the default of an option that may be given several times; typer copies it


def run_folder(name: str, out: Path | None) -> Path:
    """Where a study runs unless told otherwise."""
    return out or Path("runs") / name
