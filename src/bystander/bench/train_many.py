"""Training many adapters at once: rows per second of our own loop, one adapter after the other, and of joint passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from time import perf_counter

from bystander.bench.comparison import SpeedComparison
from bystander.bench.train import BATCH, LOSS_TOLERANCE, WARM_UP, random_rows
from bystander.core.errors import ModelError
from bystander.core.progress import Bar
from bystander.core.records import StepLog
from bystander.lm.loaded import LoadedModel
from bystander.lm.model import fresh_adapter
from bystander.train.loop import Event, micro_tokens_of, train
from bystander.train.many import Job, Started, train_many
from bystander.train.recipe import Lora, Recipe

CHECKED = 4  # steps whose losses are compared; the rate is high, so that the adapters do something by then
CHECK_RATE = 3e-4


def bench_train_many(
    loaded: LoadedModel, bar: Bar, *, adapters: int = 8, tokens: int = 140, spread: int = 30, turns: int = 8,
    graphs: bool = False,
) -> list[SpeedComparison]:  # fmt: skip
    """`adapters` trainings of the plan's recipe (rank 32 on seven maps) on rows of random tokens, as `bench_train`'s:
    alone with `loop.train`, and together with `train_many`. Raises ModelError where the losses of the two differ by
    more than two plain batches do."""
    difference, batches = losses_apart(loaded, adapters, tokens, spread)
    if not difference <= LOSS_TOLERANCE[loaded.dtype]:
        raise ModelError(
            f"bench train: a training's losses differ by {difference:.2g} nats per token when it is trained beside "
            f"others (by {batches:.2g} when it is trained alone in other batches); at most {LOSS_TOLERANCE[loaded.dtype]:g} is "
            "rounding. Joint training is not to be trusted on this device."
        )
    bar.start("train many", turns + WARM_UP)
    jobs = random_jobs(loaded, adapters, tokens, spread, turns + WARM_UP + 1, Recipe(epochs=1, save_every=10**9))
    alone = rate_alone(loaded, jobs[0])
    passes, together = rate_together(loaded, bar, jobs, graphs=graphs)
    return [
        SpeedComparison(
            f"train {adapters} adapters, {tokens} +- {spread} tokens ({passes})", "rows", "one after the other, packed"
            if loaded.packed else "one after the other", alone, turns, together, turns, together / alone, difference, 0,
            2 * CHECKED,
        )
    ]  # fmt: skip


def random_jobs(loaded: LoadedModel, adapters: int, tokens: int, spread: int, steps: int, recipe: Recipe) -> list[Job]:
    """Trainings of so many steps of `BATCH` rows each."""
    return [
        Job(
            f"adapter {number}",
            [row for turn in range(steps) for row in random_rows(loaded.vocabulary, tokens, spread, number * 1000 + turn)],
            recipe, number, number,
        )
        for number in range(adapters)
    ]  # fmt: skip


def losses_apart(loaded: LoadedModel, adapters: int, tokens: int, spread: int) -> tuple[float, float]:
    """Largest difference of a step's loss, nats per token, of the first and the last training: beside the others and
    alone; and of the first alone in batches of full and of half size. Without dropout, whose draws differ."""
    recipe = Recipe(lora=Lora(dropout=0.0), epochs=1, lr=CHECK_RATE, warmup=0.0, save_every=10**9)
    jobs = random_jobs(loaded, adapters, tokens, spread, CHECKED, recipe)
    alone = [_losses_alone(loaded, job) for job in (jobs[0], jobs[-1])]
    other = _losses_alone(loaded, jobs[0], micro_tokens_of(loaded) // 2)
    together: dict[str, list[float]] = {job.name: [] for job in jobs}
    for name, event in train_many(loaded, jobs):
        if isinstance(event, StepLog):
            together[name].append(event.loss)
    beside = max(_largest(alone[0], together[jobs[0].name]), _largest(alone[1], together[jobs[-1].name]))
    return beside, _largest(alone[0], other)


def _largest(one: Sequence[float], other: Sequence[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def _losses_alone(loaded: LoadedModel, job: Job, micro_tokens: int | None = None) -> list[float]:
    return [event.loss for event in _alone(loaded, job, micro_tokens) if isinstance(event, StepLog)]


def _alone(loaded: LoadedModel, job: Job, micro_tokens: int | None = None) -> Iterator[Event]:
    fresh_adapter(loaded, job.recipe.lora.peft(), job.adapter_seed)
    try:
        yield from train(loaded, job.rows, job.recipe, job.seed, micro_tokens=micro_tokens)
    finally:
        loaded.remove_adapter()


def rate_alone(loaded: LoadedModel, job: Job) -> float:
    """Rows per second of one training, the median over its steps; its loss is read after each, so that they are over."""
    times = [perf_counter() for event in _alone(loaded, job) if isinstance(event, StepLog)]
    return BATCH / median(b - a for a, b in zip(times[WARM_UP - 1 :], times[WARM_UP:], strict=False))


def rate_together(loaded: LoadedModel, bar: Bar, jobs: Sequence[Job], *, graphs: bool = False) -> tuple[str, float]:
    """How the passes are made, and rows per second over all jobs, which are all under way at once.

    A step's losses are read when the next step has been handed to the device, so the time between two steps' is a
    step's; that of the last step, behind which comes none, is left out.
    """
    passes = ""
    times: dict[int, float] = {}
    for _, event in train_many(loaded, jobs, slots=len(jobs), graphs=graphs):
        match event:
            case Started():
                passes = event.passes
            case StepLog():
                if event.step not in times:
                    bar.advance(note=f"loss {event.loss:.3f}")
                times[event.step] = perf_counter()
            case _:
                pass
    last = max(times) - 1
    return passes, len(jobs) * BATCH * (last - WARM_UP) / (times[last] - times[WARM_UP])
