"""On a GPU: rows per second of adapters trained together and one after the other, memory, and where the time goes.

    python3 tools/gpu/many_adapters.py --shapes qwen2.5-1.5b qwen2.5-0.5b qwen2.5-7b

Random weights, so nothing is downloaded. Each part prints as soon as it is there; one that fails prints its error, and
the others go on.
"""

from __future__ import annotations

import argparse
import time
import traceback
from collections.abc import Callable

import torch

from bystander.bench.kernels import kernel_times
from bystander.bench.random_models import shaped_model
from bystander.bench.train_many import losses_apart, random_jobs, rate_alone, rate_together
from bystander.core.progress import Silent
from bystander.lm.loaded import LoadedModel
from bystander.train.many_group import Group
from bystander.train.many_room import free_bytes, room_for, token_bytes
from bystander.train.recipe import Lora, Recipe

GIB = 2**30


def part(name: str, work: Callable[[], str]) -> None:
    """Print what a part says, how long it took and the most memory it had."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    try:
        said = work()
    except Exception:
        said = traceback.format_exc(limit=-6)
    peak = torch.cuda.max_memory_allocated() / GIB
    print(f"== {name}: {said}\n   ({time.perf_counter() - start:.0f} s, peak {peak:.1f} GiB)", flush=True)


def profile(loaded: LoadedModel, adapters: int, dropout: float, graphs: bool, turns: int = 3) -> str:
    """Where a joint step's time goes."""
    recipe = Recipe(lora=Lora(dropout=dropout), epochs=1)
    jobs = random_jobs(loaded, adapters, 140, 30, turns + 4, recipe)
    rooms = []
    group = Group(loaded, jobs, lambda shape: rooms.append(
        room_for(loaded, shape.parameters, adapters, adapters, None, None, graphs=graphs)) or rooms[0])  # fmt: skip
    for job in jobs:
        group.start(job)

    def turn() -> float:
        start = time.perf_counter()
        group.step()
        return time.perf_counter() - start

    for _ in range(3):
        turn()
    torch.cuda.synchronize()
    start = time.perf_counter()
    host = turn()
    torch.cuda.synchronize()
    whole = time.perf_counter() - start
    found = kernel_times(turn, turns)
    head = f"{group.passes.name}, passes of at most {rooms[0].pass_tokens} tokens; unprofiled step {whole * 1e3:.1f} ms"
    return "\n   ".join([f"{head}, handed over in {host * 1e3:.1f} ms", *found.lines()])


def measure(shape: str, adapters: int, turns: int, dropout: float) -> None:
    """All figures of one shape."""
    loaded = shaped_model(shape, "cuda")
    print(f"# {shape}, {adapters} adapters, dropout {dropout}: {torch.cuda.get_device_name()}, torch {torch.__version__}, "
          f"free {free_bytes(loaded.device) / GIB:.1f} GiB, counted {token_bytes(loaded) / 1e6:.2f} MB a token")  # fmt: skip
    recipe = Recipe(lora=Lora(dropout=dropout), epochs=1, save_every=10**9)
    jobs = random_jobs(loaded, adapters, 140, 30, turns + 3, recipe)
    together: list[float] = []

    def rate(graphs: bool) -> str:
        passes, found = rate_together(loaded, Silent(), jobs, graphs=graphs)
        together.append(found)
        return f"{found:.1f} rows/s over all ({passes})"

    part("one adapter alone, loop.train", lambda: f"{rate_alone(loaded, jobs[0]):.1f} rows/s")
    part("together", lambda: rate(False))
    part("together, CUDA graphs", lambda: rate(True))
    part("profile", lambda: profile(loaded, adapters, dropout, graphs=False))
    part("profile, CUDA graphs", lambda: profile(loaded, adapters, dropout, graphs=True))
    part(
        "losses beside others against alone, and of two batches alone, nats a token (dropout 0)",
        lambda: "{:.4f} {:.4f}".format(*losses_apart(loaded, adapters, 140, 30)),
    )


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=["qwen2.5-1.5b"])
    parser.add_argument("--adapters", type=int, default=8)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--dropout", type=float, default=0.05)
    given = parser.parse_args()
    for shape in given.shapes:
        measure(shape, given.adapters, given.turns, given.dropout)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
