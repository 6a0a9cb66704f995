"""Executors: where cells run. What is handed to one, what comes back, and what each must say."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

from bystander.engine.retry_policy import CellFailure, cell_failure
from bystander.engine.shutdown import Interrupted
from bystander.study.config.blocks import ExecutorSettings


class CellRunner(Protocol):
    """Does a cell by its key: `engine.worker.Worker`."""

    @property
    def seconds_loading(self) -> float:
        """Seconds that it has spent on loading its model, so far."""
        ...

    def run_key(self, key: str, shrink: int = 0) -> object:
        """Do the cell, with batches of 1 / 2**shrink; what an earlier process saved of it is not done again."""
        ...

    def run_together(self, keys: Sequence[str]) -> Mapping[str, Exception]:
        """Do several trainings in joint passes; returns what went wrong with which. The others are complete."""
        ...


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a cell. `shrink`: batches are cut to 1 / 2**shrink. `mates`: cells that are done with it, in joint
    passes; an attempt of several is always the first try at each."""

    key: str
    name: str
    number: int = 1
    shrink: int = 0
    mates: tuple[Attempt, ...] = ()

    @property
    def all(self) -> tuple[Attempt, ...]:
        """This one by itself, and its mates."""
        return (replace(self, mates=()), *self.mates)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended, after `seconds` on its device. `failure` None: the cell is complete, unless `interrupted`.
    `mates`: how each mate ended; empty where it ended as this one did. `start`: of the seconds, those in which the
    worker itself began: its plan, its model."""

    attempt: Attempt
    seconds: float
    failure: CellFailure | None = None
    interrupted: bool = False
    mates: tuple[Outcome, ...] = ()
    start: float = 0.0

    def each(self) -> tuple[Outcome, ...]:
        """An outcome for each cell of the attempt; the seconds of a joint one are shared out evenly."""
        ones = self.attempt.all
        if self.mates:
            return (replace(self, attempt=ones[0], mates=()), *self.mates)
        share = self.seconds / len(ones), self.start / len(ones)
        return tuple(replace(self, attempt=one, seconds=share[0], start=share[1]) for one in ones)


class Executor(ABC):
    """Where attempts run. All calls come from one thread. A class of one's own derives from this and is made as
    `cls(settings, make)`, where `make()` gives a `CellRunner`; it pickles unless the executor runs `in_process`."""

    Settings: ClassVar[type[ExecutorSettings]]  # its block under `executor:`; `kind` is a Literal of its name
    in_process: ClassVar[bool]  # whether cells run in this process, where progress can be drawn
    worker_died: ClassVar[tuple[str, ...]]  # error classes that mean: the worker is gone, not the cell at fault
    slots: int = 1  # attempts that it can take at a time
    on_gpu: bool | None = None  # whether its workers have GPUs; None: where this process has one
    share: float = 1.0  # devices that one attempt holds: below 1 where several share a GPU; a CPU worker counts as one

    def __init__(self, settings: Any, make: Callable[[], CellRunner]) -> None:
        """Raises StudyError where it cannot run on this machine."""
        self.settings, self.make = settings, make

    @abstractmethod
    def submit(self, attempt: Attempt) -> None:
        """Take an attempt; there is a free slot."""

    @abstractmethod
    def wait(self, seconds: float) -> list[Outcome]:
        """Outcomes that are there, waiting for one at most about so long (in process: until the cell is done)."""

    @abstractmethod
    def close(self) -> None:
        """Give workers back; what still runs is cut off and can be resumed."""

    def at_work(self, attempt: Attempt, since: float) -> float:
        """Seconds that a running attempt has been on its device, of the `since` that it was submitted: less where it may
        wait in a queue of its own."""
        del attempt
        return since

    def worker_bytes(self) -> float | None:
        """GPU memory that one worker may fill, in bytes; None where it is not known here."""
        import torch

        if not torch.cuda.is_available():
            return None
        return torch.cuda.mem_get_info()[0] * self.share

    @classmethod
    def faults(cls, settings: Any) -> Iterator[tuple[tuple[str, ...], str]]:
        """(where in its block, what): settings that do not fit one another."""
        del settings
        yield from ()

    @classmethod
    def elsewhere(cls, settings: Any) -> bool:
        """Whether cells may run on other machines than this one, whose devices cannot be looked at from here."""
        del settings
        return False


def run_attempt(runner: CellRunner, attempt: Attempt) -> Outcome:
    """One attempt at a cell in this process. Every error becomes an outcome; a stop does too."""
    begun = time.monotonic()
    try:
        if attempt.mates:
            return _together(attempt, runner.run_together([one.key for one in attempt.all]), begun)
        runner.run_key(attempt.key, attempt.shrink)
    except (Interrupted, KeyboardInterrupt):
        return Outcome(attempt, time.monotonic() - begun, interrupted=True)
    except Exception as error:
        return Outcome(attempt, time.monotonic() - begun, cell_failure(error))
    return Outcome(attempt, time.monotonic() - begun)


def _together(attempt: Attempt, failed: Mapping[str, Exception], begun: float) -> Outcome:
    share = (time.monotonic() - begun) / len(attempt.all)
    outcomes = [
        Outcome(one, share, cell_failure(failed[one.key]) if one.key in failed else None) for one in attempt.all
    ]
    return replace(outcomes[0], attempt=attempt, mates=tuple(outcomes[1:]))


class LazyRunner:
    """A runner made at its first cell, in the worker: its model is loaded there, and once."""

    def __init__(self, make: Callable[[], CellRunner]) -> None:
        self._make = make
        self._runner: CellRunner | None = None

    def run(self, attempt: Attempt) -> Outcome:
        """One attempt; that the runner cannot be made is a failure of it."""
        begun = time.monotonic()
        try:
            if self._runner is None:
                self._runner = self._make()
        except Exception as error:
            return Outcome(attempt, time.monotonic() - begun, cell_failure(error))
        made = time.monotonic() - begun
        loaded = self._runner.seconds_loading
        outcome = run_attempt(self._runner, attempt)
        start = made + self._runner.seconds_loading - loaded
        if outcome.mates:  # shared out as the seconds are
            share = start / len(attempt.all)
            mates = tuple(
                replace(mate, start=share, seconds=mate.seconds + made / len(attempt.all)) for mate in outcome.mates
            )
            return replace(outcome, start=share, seconds=outcome.seconds + made / len(attempt.all), mates=mates)
        return replace(outcome, start=start, seconds=outcome.seconds + made)
