"""`bystander bench`: this machine's speed, a plain way and ours side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from bystander.cli.app import JsonOption, ModelOption, app, interruptible
from bystander.cli.console import Grid, console, print_json, screen_for
from bystander.cli.progress import terminal_bar
from bystander.core.errors import DataError

if TYPE_CHECKING:
    from bystander.bench.comparison import SpeedComparison
    from bystander.lm.model import LoadedModel

bench = typer.Typer(help="Measure this machine: a plain way and ours side by side.", no_args_is_help=True)
app.add_typer(bench, name="bench")

DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
ShapeOption = Annotated[
    str | None,
    typer.Option(help="Random weights in this shape instead of a model: qwen2.5-0.5b, -1.5b, -3b, -7b, -14b."),
]
TurnsOption = Annotated[int, typer.Option(min=1, help="Repeats; the figure is their median.")]
NOTHING_KEPT = "nothing is kept of a benchmark that did not end"


@bench.command("score")
def score(
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
    """Questions per second of the choice grid, against one whole forward per question or option (and on a GPU against
    batches of one context)."""
    from bystander.bench.score import bench_score, modes_of

    modes = modes_of(mode)
    loaded = _loaded(model, shape, device)
    with interruptible(NOTHING_KEPT), terminal_bar(screen_for(True)) as bar:
        results = bench_score(
            loaded, bar, personas=personas, items=items, modes=modes, plain_personas=plain_personas, batched=batched,
            prompt_tokens=prompt_tokens,
        )  # fmt: skip
    _print(loaded, results, as_json)


@bench.command("train")
def train(
    model: ModelOption = "smollm2-135m",
    shape: ShapeOption = None,
    device: DeviceOption = "auto",
    tokens: Annotated[int, typer.Option(min=40, help="Tokens of a row, on average.")] = 140,
    spread: Annotated[int, typer.Option(min=0, help="Their standard deviation.")] = 30,
    turns: TurnsOption = 8,
    adapters: Annotated[
        int, typer.Option(min=1, help="So many adapters in joint passes instead, against one after the other.")
    ] = 1,
    as_json: JsonOption = False,
) -> None:
    """Rows per second of LoRA training, against a default trainer's loop and plain batches of 16."""
    from bystander.bench.train import bench_train
    from bystander.bench.train_many import bench_train_many

    loaded = _loaded(model, shape, device)
    with interruptible(NOTHING_KEPT), terminal_bar(screen_for(True)) as bar:
        if adapters > 1:
            results = bench_train_many(loaded, bar, adapters=adapters, tokens=tokens, spread=spread, turns=turns)
        else:
            results = bench_train(loaded, bar, tokens=tokens, spread=spread, turns=turns)
    _print(loaded, results, as_json)


@bench.command("sample")
def sample(
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
    if cache not in ("dynamic", "static"):
        raise DataError(f"--cache is {cache!r}; use dynamic or static")
    if engine not in ("transformers", "vllm"):
        raise DataError(f"--engine is {engine!r}; use transformers or vllm")
    from bystander.bench.sample import bench_sample

    loaded = _loaded(model, shape, device)
    with interruptible(NOTHING_KEPT), terminal_bar(screen_for(True)) as bar:
        results = bench_sample(
            loaded, bar, personas=personas, max_tokens=max_tokens, turns=turns, cache=cache, engine=engine
        )
    _print(loaded, results, as_json, ("vllm",) if engine == "vllm" else ())


@bench.command("study")
def study(
    model: ModelOption = "smollm2-135m",
    shape: ShapeOption = None,
    device: DeviceOption = "auto",
    workers: Annotated[int, typer.Option(min=1, help="Processes of this machine; 1: in this one.")] = 1,
    rows: Annotated[int, typer.Option(min=8, help="Rows of a training.")] = 96,
    personas: Annotated[int, typer.Option(min=5, max=111, help="Personas that are measured.")] = 20,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each of the five sources.")] = 2,
    together: Annotated[int, typer.Option(min=1, help="Trainings in joint passes, against one by one.")] = 8,
    trivial: Annotated[int, typer.Option(min=10, help="Cells that do nothing.")] = 500,
    as_json: JsonOption = False,
) -> None:
    """Makespan and idle share of a study: of cells that do nothing, and of real ones, trained alone and together."""
    from bystander.bench.study import bench_study

    with interruptible(NOTHING_KEPT), terminal_bar(screen_for(True)) as bar:
        results = bench_study(
            model, shape, device, bar, workers=workers, rows=rows, personas=personas, seeds=seeds, together=together,
            trivial=trivial,
        )  # fmt: skip
    if as_json:
        print_json({"results": [asdict(result) for result in results]})
        return
    grid = Grid(("work",), ("cells", "workers", "together", "makespan", "idle", "starting", "overhead a cell"))
    for one in results:
        grid.add(
            one.work, str(one.cells), str(one.workers), str(one.together), f"{one.makespan:.1f} s", f"{one.idle:.1%}",
            f"{one.start:.1f} s", f"{one.a_cell * 1000:.1f} ms",
        )  # fmt: skip
    grid.print()


def _loaded(model: str, shape: str | None, device: str) -> LoadedModel:
    from bystander.bench.random_models import shaped_model
    from bystander.lm.model import load

    return load(model, device=device) if shape is None else shaped_model(shape, device)


def _print(
    loaded: LoadedModel, results: Sequence[SpeedComparison], as_json: bool, packages: Sequence[str] = ()
) -> None:
    """A benchmark's figures, with what they must be read with."""
    from bystander.bench.comparison import PACKAGES, environment

    read_with = environment(loaded, (*PACKAGES, *packages))
    if as_json:
        print_json({"environment": read_with, "results": [asdict(result) for result in results]})
        return
    grid = Grid(("work", "plain way"), ("plain", "ours", "ratio", "turns", "largest difference"))
    for one in results:
        grid.add(
            one.work, one.plain, f"{one.plain_per_second:.2f} {one.unit}/s", f"{one.ours_per_second:.2f} {one.unit}/s",
            f"{one.ratio:.2f}", f"{one.plain_turns} and {one.ours_turns}",
            f"{one.difference:.1e} nats; {one.different} of {one.compared} differ",
        )  # fmt: skip
    grid.print()
    console.print("  ".join(f"{key} {value}" for key, value in read_with.items()), style="dim", soft_wrap=True)
