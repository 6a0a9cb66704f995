"""Commands that help to write a study file: new, schema."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bystander.cli.app import NOTHING, app
from bystander.cli.console import console
from bystander.cli.outputs import check_file, check_folder
from bystander.core.errors import BystanderError, StoreError

if TYPE_CHECKING:
    from bystander.study.config.new_study import NewStudy


@app.command()
def schema(
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE.json", help="Write it there.")] = None,
) -> None:
    """Print the JSON schema of study files, with which an editor completes and checks them."""
    from bystander.study.config.json_schema import study_schema

    text = json.dumps(study_schema(), indent=1, ensure_ascii=True) + "\n"
    if out is None:
        sys.stdout.write(text)
        return
    check_file("--out", out, [".json"])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    console.print(f"schema: {out}", soft_wrap=True, markup=False)


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the study is called; NAME.yaml is written.")],
    behavior: Annotated[str | None, typer.Option(help="A behavior's name, or a file of answers.")] = None,
    model: Annotated[str | None, typer.Option(help="smollm2-135m, a Hub id, a folder or a GGUF file.")] = None,
    source: Annotated[list[str], typer.Option(help="A persona to couple it to; may be given several times.")] = NOTHING,
    question: Annotated[str | None, typer.Option(help="What is asked, in a sentence.")] = None,
    layer: Annotated[int | None, typer.Option(min=0, help="The layer that the claim rests on.")] = None,
    folder: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where the file goes.")] = Path(),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; defaults for what no option says.")] = False,
) -> None:
    """Write a commented study file from a few questions, and the schema beside it for your editor."""
    from bystander.study.config.json_schema import SCHEMA_FILE
    from bystander.study.config.new_study import NewStudy
    from bystander.study.config.study import load

    check_folder("--to", folder)
    path = folder / f"{name}.yaml"
    if path.exists():
        raise StoreError(f"{path} is there already; give another name, or remove it")
    ask = sys.stdin.isatty() and not yes
    asked = NewStudy(
        name,
        behavior or _answer(ask, "Behavior (a name, or a file of answers)", "marker"),
        model or _answer(ask, "Model", "smollm2-135m"),
        tuple(source) or tuple(_answer(ask, "Sources, with commas", "villain").replace(",", " ").split()),
        question if question is not None else _answer(ask, "Question (empty: a plain one)", ""),
        layer,
    )
    text = _text(asked, folder)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    try:
        load(str(path))
    except BystanderError:
        path.unlink()  # a file with faults is no beginning; what is wrong is told
        raise
    schema(folder / SCHEMA_FILE)
    console.print(f"study: [bold]{path}[/]\nnext: bystander audit {path}; bystander plan {path}; bystander run {path}")


def _answer(ask: bool, what: str, default: str) -> str:
    return str(typer.prompt(what, default=default, show_default=bool(default))) if ask else default


def _text(asked: NewStudy, folder: Path) -> str:
    """The study's text; a file of answers is read first, so that the rows of a training fit it, and its path is made to
    start from the study's folder."""
    from dataclasses import replace
    from os.path import relpath

    from bystander.data.answers import read_answer_pairs
    from bystander.study.config.new_study import is_file, study_text

    if not is_file(asked.behavior) or not Path(asked.behavior).suffix:
        return study_text(asked)
    pairs = len(read_answer_pairs(asked.behavior))
    local = Path(asked.behavior).is_file() and not Path(asked.behavior).is_absolute()
    place = relpath(asked.behavior, folder) if local else asked.behavior
    return study_text(replace(asked, behavior=place, pairs=pairs))
