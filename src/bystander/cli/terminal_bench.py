"""What `bystander bench` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from bystander.bench.random_models import shaped_model
from bystander.bench.sample import bench_sample
from bystander.bench.score import PACKAGES, Compared, bench_score, environment, modes_of
from bystander.bench.score import as_json as bench_json
from bystander.bench.train import bench_train
from bystander.cli.console import console, print_json
from bystander.cli.progress import terminal
from bystander.core.errors import DataError
from bystander.lm.model import LoadedModel, load

Which = tuple[str, str | None, str]  # model, shape or None, device


def bench_score_in_terminal(
    which: Which, personas: int, items: int, mode: str, plain_personas: int | None, batched: bool,
    prompt_tokens: int | None, as_json: bool,
) -> None:  # fmt: skip
    """`bystander bench score`."""
    modes = modes_of(mode)
    loaded = _loaded(which)
    with terminal(Console(stderr=True)) as bar:
        results = bench_score(
            loaded, bar, personas=personas, items=items, modes=modes, plain_personas=plain_personas, batched=batched,
            prompt_tokens=prompt_tokens,
        )  # fmt: skip
    print_bench(loaded, results, as_json)


def bench_train_in_terminal(which: Which, tokens: int, spread: int, turns: int, as_json: bool) -> None:
    """`bystander bench train`."""
    loaded = _loaded(which)
    with terminal(Console(stderr=True)) as bar:
        results = bench_train(loaded, bar, tokens=tokens, spread=spread, turns=turns)
    print_bench(loaded, results, as_json)


def bench_sample_in_terminal(
    which: Which, personas: int, max_tokens: int, turns: int, cache: str, engine: str, as_json: bool
) -> None:
    """`bystander bench sample`."""
    if cache not in ("dynamic", "static"):
        raise DataError(f"--cache is {cache!r}; use dynamic or static")
    if engine not in ("transformers", "vllm"):
        raise DataError(f"--engine is {engine!r}; use transformers or vllm")
    loaded = _loaded(which)
    with terminal(Console(stderr=True)) as bar:
        results = bench_sample(
            loaded, bar, personas=personas, max_tokens=max_tokens, turns=turns, cache=cache, engine=engine
        )
    print_bench(loaded, results, as_json, (*PACKAGES, "vllm") if engine == "vllm" else PACKAGES)


def _loaded(which: Which) -> LoadedModel:
    model, shape, device = which
    return load(model, device=device) if shape is None else shaped_model(shape, device)


def print_bench(
    loaded: LoadedModel, results: Sequence[Compared], as_json: bool, packages: Sequence[str] = PACKAGES
) -> None:
    """A benchmark's figures, with what they must be read with."""
    read_with = environment(loaded, packages)
    if as_json:
        print_json(bench_json(read_with, results))
        return
    table = Table("work", "plain way", "plain", "ours", "ratio", "turns", "largest difference", box=None)
    for one in results:
        table.add_row(
            one.work, one.plain, f"{one.plain_per_second:.2f} {one.unit}/s", f"{one.ours_per_second:.2f} {one.unit}/s",
            f"{one.ratio:.2f}", f"{one.plain_turns} and {one.ours_turns}",
            f"{one.difference:.1e} nats; {one.different} of {one.compared} differ",
        )  # fmt: skip
    console.print(table)
    console.print("  ".join(f"{key} {value}" for key, value in read_with.items()), style="dim", soft_wrap=True)
