"""Many trainings at once: adapters of one shape on one base, each as if it were alone.

`train_many` is `loop.train` for several jobs in lockstep. What they share is the product with the base's weights, which
one adapter's tokens are too few to fill a GPU with; all else is each training's own: rows and their order, dropout,
clipping, AdamW, schedule, checkpoints, states. A training that ends, fails or is stopped leaves its slot to the next
job and its mates as they are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

from peft import PeftModel

from bystander.core.errors import ModelError
from bystander.core.records import StepLog
from bystander.lm.loaded import LoadedModel
from bystander.train.loop import Checkpoint, Event
from bystander.train.many_group import Group, StepNumbers
from bystander.train.many_room import room_for
from bystander.train.many_slots import Job, Training

__all__ = ["Failed", "Finished", "Job", "ManyEvent", "Started", "Stopped", "train_many"]

# Steps by which losses are read late where nothing else is due, so that a GPU never waits for the host.
LATE = {"cpu": 0, "cuda": 1}


@dataclass(frozen=True, slots=True)
class Started:
    """A training has a slot and goes on from `step`; `passes` says which forward pass the group takes, and why."""

    step: int
    passes: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A training is complete after `step` steps; `adapter` is on the model until the next event is asked for: save it."""

    step: int
    adapter: PeftModel


@dataclass(frozen=True, slots=True)
class Failed:
    """A training was given up at `step`; the others go on."""

    step: int
    reason: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """A training was stopped after `step` steps, as asked; the `TrainState` before this event continues it."""

    step: int


ManyEvent = Event | Started | Finished | Failed | Stopped


def train_many(
    loaded: LoadedModel,
    jobs: Sequence[Job],
    *,
    slots: int | None = None,
    micro_tokens: int | None = None,
    pass_tokens: int | None = None,
    stopped: Container[str] = frozenset(),
    graphs: bool = False,
) -> Iterator[tuple[str, ManyEvent]]:
    """Train an adapter for each job on the bare base; yields (job's name, event): of each job `Started`, the events of
    `loop.train` in its order, and `Finished`, `Failed` or `Stopped`.

    At a `Checkpoint` and at `Finished` that job's adapter, and no other, is on `loaded` until the next event is asked
    for, in eval mode, as a PEFT adapter of its own: probe or save as with `loop.train`. Whoever iterates must leave it
    on. At all other events the bare base is there.

    Jobs may differ in all but `recipe.lora`. `slots`: jobs under way at once (None: as many as memory allows); the
    others follow as slots become free. `micro_tokens` as in `loop.train`; `pass_tokens`: tokens of a joint forward
    pass (None: on a GPU what memory allows, else `micro_tokens`). `stopped`: names of jobs to stop before their next
    step; whoever iterates may add to it. `graphs`: capture packed passes in CUDA graphs. A job whose loss is no longer
    a finite number fails.

    Raises ModelError where an adapter is on already, where jobs share a name or differ in `recipe.lora`, where the
    adapters are no plain LoRAs on linear maps, and where not even one fits into memory.
    """
    _check(loaded, jobs)
    group = Group(
        loaded,
        jobs,
        lambda shape: room_for(loaded, shape.parameters, len(jobs), slots, micro_tokens, pass_tokens, graphs=graphs),
    )
    waiting = deque(jobs)
    logs: deque[StepNumbers] = deque()
    try:
        while waiting or group.running:
            for name in [training.job.name for training in group.running if training.job.name in stopped]:
                yield from _read(group, logs)
                training = group.find(name)
                if training is not None:
                    yield name, training.state()
                    group.free(training)
                    yield name, Stopped(training.step)
            while waiting and group.has_room:
                job = waiting.popleft()
                if job.name in stopped:
                    yield job.name, Stopped(job.state.step if job.state else 0)
                else:
                    group.start(job)
                    yield job.name, Started(job.state.step if job.state else 0, group.passes.name)
            if not group.running:
                continue
            logs.append(group.step())
            at_once = any(training.speaks for training in group.running)
            yield from _read(group, logs, leave=0 if at_once else LATE[loaded.device.type])
            for training in [training for training in group.running if training.speaks]:
                yield from _due(loaded, group, training)
    finally:
        loaded.remove_adapter()


def _due(loaded: LoadedModel, group: Group, training: Training) -> Iterator[tuple[str, ManyEvent]]:
    """What is due after the step that a training has just done, in the order of `loop.train`."""
    name, step = training.job.name, training.step
    if step in training.probe_at:
        group.put_on(training)
        yield name, Checkpoint(training.probe_at[step], step)
        loaded.remove_adapter()
        loaded.close_sampler()  # a probe may have opened it; training needs the memory
    if training.saves:
        yield name, training.state()
    if training.done:
        adapter = group.put_on(training)
        yield name, Finished(step, adapter)
        loaded.remove_adapter()
        group.free(training)


def _check(loaded: LoadedModel, jobs: Sequence[Job]) -> None:
    if loaded.model is not loaded.causal:
        raise ModelError("another adapter is on already. Remove it first: trainings start from the bare base.")
    names = [job.name for job in jobs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ModelError(f"two jobs have one name: {', '.join(twice[:3])}. Give each its own.")
    other = [job.name for job in jobs if job.recipe.lora != jobs[0].recipe.lora]
    if other:
        raise ModelError(
            f"jobs trained together must have one `lora`; {', '.join(other[:3])} differ from {jobs[0].name}. Train them "
            "in groups of their own."
        )
    over = [
        job.name for job in jobs if not job.rows or (job.state and job.state.step >= job.recipe.steps(len(job.rows)))
    ]
    if over:
        raise ModelError(
            f"there is nothing to train in {', '.join(over[:3])}: no rows, or a state from beyond the end."
        )


def _read(group: Group, logs: deque[StepNumbers], leave: int = 0) -> Iterator[tuple[str, ManyEvent]]:
    """The logs of all joint steps but the last `leave`; whoever's numbers are no longer finite has failed."""
    while len(logs) > leave:
        step = logs.popleft()
        losses, norms = step.numbers.values()
        for training, work in step.works:
            if training not in group.running:
                continue  # it failed in the step before this one, which was under way by then
            log = training.log(work, losses[training.slot], norms[training.slot])
            yield training.job.name, log
            if not (isfinite(log.loss) and isfinite(log.grad_norm)):
                group.free(training)
                yield training.job.name, Failed(log.step, _why(log))


def _why(log: StepLog) -> str:
    return (
        f"at step {log.step} the loss is {log.loss} and the gradient's norm {log.grad_norm}, with a learning rate of "
        f"{log.learning_rate:.3g}. Lower the rate, or look at the rows."
    )
