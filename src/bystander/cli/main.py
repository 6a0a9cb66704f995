"""The `bystander` command. Importing a module of commands adds them; they import what they need when they run."""

from __future__ import annotations

import io
import sys
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Annotated

import typer

from bystander.cli.app import app
from bystander.core.errors import BystanderError
from bystander.core.progress import Advance, long_work_shown

# Modules whose import adds commands, in the order of `bystander --help`. A command is a function in one of them.
for name in ("new", "study", "predict", "hunt", "runs", "probe", "data", "judge", "push", "bench"):
    import_module(f"bystander.cli.{name}")


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


def _show_long_work(name: str, total: int) -> AbstractContextManager[Advance]:
    """On standard error, for commands that show no bars of their own."""
    from bystander.cli.console import screen_for
    from bystander.cli.progress import long_work_on

    return long_work_on(screen_for(as_json=True))(name, total)


def main() -> None:
    """Entry point: a user's fault is one clear message on standard error and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 shows ? for what it cannot
    try:
        with long_work_shown(_show_long_work):
            app()
    except BystanderError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from None
    except OSError as error:  # a path that the system refuses: too long, a file where a folder should be, a full disk
        where = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"error: {where}{error.strerror or error}; give another path, or free what is needed there\n")
        raise SystemExit(2) from None
    except ModuleNotFoundError as error:
        if (error.name or "bystander").partition(".")[0] == "bystander":
            raise
        sys.stderr.write(
            f"error: this command needs {error.name}, which is not installed here: bystander was installed for tables alone; "
            "pip install bystander brings everything\n"
        )
        raise SystemExit(2) from None
