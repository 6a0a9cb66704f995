"""What `bystander bench` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from bystander.lm.model import LoadedModel, load
from bystander.study.bench import Compared, bench_score, environment, modes_of
from bystander.study.bench import as_json as bench_json
from bystander.study.progress import terminal
from bystander.study.terminal import console, print_json


def bench_score_in_terminal(
    model: str, device: str, personas: int, items: int, mode: str, plain_personas: int | None, as_json: bool
) -> None:
    """`bystander bench score`."""
    modes = modes_of(mode)
    loaded = load(model, device=device)
    with terminal(Console(stderr=True)) as bar:
        results = bench_score(loaded, bar, personas=personas, items=items, modes=modes, plain_personas=plain_personas)
    print_bench(loaded, results, as_json)


def print_bench(loaded: LoadedModel, results: Sequence[Compared], as_json: bool) -> None:
    """A benchmark's figures, with what they must be read with."""
    read_with = environment(loaded)
    if as_json:
        print_json(bench_json(read_with, results))
        return
    table = Table("work", "plain way", "plain", "ours", "ratio", "turns", "largest difference", box=None)
    for one in results:
        table.add_row(
            one.work, one.plain, f"{one.plain_per_second:.2f} {one.unit}/s", f"{one.ours_per_second:.2f} {one.unit}/s",
            f"{one.ratio:.2f}", f"{one.plain_turns} and {one.ours_turns}",
            f"{one.difference:.1e} nats; {one.different} of {one.compared} choices differ",
        )  # fmt: skip
    console.print(table)
    console.print("  ".join(f"{key} {value}" for key, value in read_with.items()), style="dim", soft_wrap=True)
