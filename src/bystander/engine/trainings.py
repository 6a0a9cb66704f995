"""Training cells: one by itself with the plain loop, or several in joint passes. What a cell keeps is the same."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import polars as pl
from peft import PeftModel

from bystander.core.errors import ModelError
from bystander.core.files import write_parquet
from bystander.core.hashing import seed_for
from bystander.core.progress import Bar
from bystander.core.records import Context, StepLog, as_dict
from bystander.design.render import render
from bystander.engine.dose import Stop
from bystander.engine.retry_policy import JointPassFailed, cell_failure
from bystander.engine.shutdown import Interrupted
from bystander.engine.train_state import drop_state, keep_state, resume_state
from bystander.lm.model import LoadedModel, fresh_adapter, save_adapter
from bystander.study.plan.cells import Cell, Plan, Training
from bystander.study.plan.groups import at_checkpoint
from bystander.study.store.cell_dir import CellDir
from bystander.study.store.records import CellManifest
from bystander.train.loop import Checkpoint, Event, TrainState, micro_tokens_of, train
from bystander.train.many import Failed, Finished, train_many
from bystander.train.many_slots import Job
from bystander.train.recipe import checkpoint_steps, inner_checkpoints


class Worker(Protocol):
    """What a training needs of the worker that does it: `engine.worker.Worker`."""

    @property
    def plan(self) -> Plan:
        """The study's cells."""
        ...

    @property
    def loaded(self) -> LoadedModel:
        """The resident base."""
        ...

    @property
    def bar(self) -> Bar:
        """Where it says how far it is."""
        ...

    @property
    def shrink(self) -> int:
        """Batches are cut to 1 / 2**shrink."""
        ...

    def stopping(self) -> bool:
        """Whether a stop is asked for."""
        ...

    def probed_personas(self, source: str) -> list[str]:
        """Who is measured at a checkpoint of a training on `source`."""
        ...

    def at_checkpoint(
        self, training: Training, fraction: float, probed: Sequence[Context], directory: CellDir
    ) -> None:  # fmt: skip
        """Run all probes on the adapter that is on."""
        ...

    def stop_at_dose(self, cell: Cell, total: int, log: list[dict[str, Any]]) -> Stop | None:
        """What ends a training of `total` steps before its last; None where it is trained to the end."""
        ...

    def sides(
        self, fraction: float, probe: str, probed: Sequence[Context]
    ) -> tuple[tuple[str, Sequence[Context]], ...]:
        """What a probe measures at a checkpoint: the beginning of its units' keys, and the contexts."""
        ...

    def training_manifest(self, cell: Cell, weights_hash: str, probed: Sequence[Context]) -> CellManifest:
        """What the cell says when it is done."""
        ...


class TrainingCell:
    """A training on its way: its rows, what was kept of it, and what its events become in its folder."""

    def __init__(self, worker: Worker, cell: Cell, directory: CellDir) -> None:
        assert cell.training is not None
        plan, loaded = worker.plan, worker.loaded
        self.worker, self.cell, self.directory, self.training = worker, cell, directory, cell.training
        self.recipe = plan.recipes[self.training]
        design = plan.designs[self.training]
        self.rows = render(
            design, loaded.tokenizer, loss=self.recipe.loss, end_of_turn=self.recipe.end_of_turn
        ).rows  # fmt: skip
        self.total = self.recipe.steps(len(self.rows))
        wanted = plan.study.spec.checkpoints.fractions() if plan.probed_in_training(cell) else []
        self.fractions = inner_checkpoints(wanted, self.total)
        personas = worker.probed_personas(self.training.source) if self.fractions else []
        self.probed = at_checkpoint(plan.contexts, personas)
        self.state, self.steps = resume_state(directory.path)
        self.stop = worker.stop_at_dose(cell, self.total, self.steps)
        self.ended = 0  # the step at which it was ended before its last, 0 for none

    @property
    def adapter_seed(self) -> int:
        """Of the fresh adapter."""
        return seed_for(self.training.seed, "adapter")

    @property
    def job(self) -> Job:
        """This training among others, under its cell's key."""
        return Job(
            self.cell.key, self.rows, self.recipe, self.training.seed, self.adapter_seed, self.fractions, self.state
        )  # fmt: skip

    @property
    def looked_at(self) -> list[float]:
        """The fractions of training at which the loop must pause: those that are probed, and where the dose is read."""
        doses = [step / self.total for step in self.stop.steps] if self.stop else []
        return [*self.fractions, *doses]

    def take(self, event: Event) -> None:
        """Keep what an event says; probe at a checkpoint, where this training's adapter is on."""
        match event:
            case StepLog():
                self.steps.append(as_dict(event))
                self.worker.bar.advance(note=f"loss {event.loss:.3f}")
            case Checkpoint():
                self._look(event.step)
            case TrainState():
                keep_state(self.directory.path, event, self.steps)

    def _look(self, step: int) -> None:
        """End the training where the dose is reached; else probe, where this is a checkpoint."""
        if self.stop and step in self.stop.steps and self.stop.reached(step):
            self.ended = step
            self.fractions = [f for at, f in checkpoint_steps(self.fractions, self.total).items() if at < step]
            return
        fraction = checkpoint_steps(self.fractions, self.total).get(step)
        if fraction is not None:
            self.worker.at_checkpoint(self.training, fraction, self.probed, self.directory)

    def finish(self, adapter: PeftModel) -> None:
        """Complete the cell; the adapter is on."""
        loaded, directory = self.worker.loaded, self.directory
        save_adapter(adapter, directory.adapter, loaded.base_id, loaded.base_hash)
        write_parquet(directory.steps_file, pl.DataFrame(self.steps, infer_schema_length=None))
        manifest = self.worker.training_manifest(self.cell, loaded.weights_hash, self.probed)
        if self.stop:
            manifest = replace(manifest, dose=self.stop.said())
        directory.finish(self._order(), manifest)
        drop_state(directory.path)

    def _order(self) -> list[str]:
        """Unit keys of the checkpoints: a resumed training has probed its first in an earlier process."""
        probes = self.worker.plan.probes.items()
        return [
            prefix + key
            for fraction in self.fractions
            for name, probe in probes
            for prefix, contexts in self.worker.sides(fraction, name, self.probed)
            for key in probe.units(contexts)
        ]


def train_alone(worker: Worker, cell: Cell, directory: CellDir) -> None:
    """Do one training's cell. Raises Interrupted, its state kept, where a stop is asked for."""
    own = TrainingCell(worker, cell, directory)
    loaded, bar = worker.loaded, worker.bar
    title = f"training {own.training.label}: {len(own.rows)} rows, {own.total} steps"
    adapter = fresh_adapter(loaded, own.recipe.lora.peft(), own.adapter_seed)
    try:
        bar.start(title, own.total)
        bar.advance(len(own.steps))
        events = train(
            loaded, own.rows, own.recipe, own.training.seed, checkpoints=own.looked_at, state=own.state,
            micro_tokens=max(1, micro_tokens_of(loaded) >> worker.shrink),  # halved at each out-of-memory
            stopping=worker.stopping,
        )  # fmt: skip
        for event in events:
            own.take(event)
            if own.ended:
                break
            if isinstance(event, Checkpoint):
                bar.start(title, own.total)
                bar.advance(event.step)
            if isinstance(event, TrainState) and worker.stopping():
                raise Interrupted("a stop was asked for; the training's state is kept")
        own.finish(adapter)
    finally:
        loaded.remove_adapter()


def train_together(worker: Worker, cells: Sequence[tuple[Cell, CellDir]]) -> dict[str, Exception]:
    """Do the cells of several trainings in joint passes; returns what went wrong, by key. One that fails leaves its
    mates as they are. Raises Interrupted, the states kept, where a stop is asked for."""
    failed: dict[str, Exception] = {}
    own: dict[str, TrainingCell] = {}
    for cell, directory in cells:
        with _of_its_own(cell.key, failed):
            own[cell.key] = TrainingCell(worker, cell, directory)
    if not own:
        return failed
    title = f"training {len(own)} adapters together, {next(iter(own.values())).training.label} first"
    worker.bar.start(title, sum(one.total for one in own.values()))
    worker.bar.advance(sum(len(one.steps) for one in own.values()))
    finished: set[str] = set()
    asked = _Asked(failed, worker.stopping)
    try:
        for key, event in train_many(worker.loaded, [one.job for one in own.values()], stopped=asked):
            if key in failed:
                continue  # a state from beyond where it failed would skip what was not done
            with _of_its_own(key, failed):
                _take(own[key], event)
                if isinstance(event, Finished):
                    finished.add(key)
    except Exception as error:
        joint = JointPassFailed(f"the joint pass failed: {str(error).strip() or type(error).__name__}")
        joint.__cause__ = error
        failed |= dict.fromkeys([key for key in own if key not in finished and key not in failed], joint)
    if worker.stopping() and len(finished) + len(failed) < len(own):
        raise Interrupted("a stop was asked for; the trainings' states are kept")
    return failed


def _take(own: TrainingCell, event: object) -> None:
    match event:
        case StepLog() | Checkpoint() | TrainState():
            own.take(event)
        case Finished():
            own.finish(event.adapter)
        case Failed():
            raise ModelError(f"{own.training.label}: {event.reason}")
        case _:  # it has started, or was stopped: nothing to keep
            pass


class _Asked:
    """Names of jobs to stop: those that have failed, and all once a stop is asked for."""

    def __init__(self, failed: Mapping[str, Exception], stopping: Callable[[], bool]) -> None:
        self._failed, self._stopping = failed, stopping

    def __contains__(self, name: object) -> bool:
        return name in self._failed or self._stopping()


@contextmanager
def _of_its_own(key: str, failed: dict[str, Exception]) -> Generator[None]:
    """Within the block an error is that cell's own, unless nobody could keep anything any more."""
    try:
        yield
    except Exception as error:
        if cell_failure(error).retry == "abort":
            raise
        failed.setdefault(key, error)
