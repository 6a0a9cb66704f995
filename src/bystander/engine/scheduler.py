"""Running cells in the order that their needs allow, on whatever executor there is.

A cell starts when what it uses is there, the one whose turn it is first; trainings that fit one another may start as one
attempt. One failed cell does not stop the others; a cell is tried again as its error deserves; a stop or a spent budget
lets what is running finish and starts nothing more.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from bystander.core.errors import StoreError
from bystander.engine.executor import Attempt, Executor, Outcome
from bystander.engine.retry_policy import CellFailure
from bystander.engine.shutdown import Interrupted, Stop
from bystander.study.forecast.order import Priority

RETRIES_SMALLER = 4  # batches of 1/16 and still out of memory: the model itself does not fit


class Schedulable(Protocol):
    """What the scheduler knows of a cell."""

    @property
    def key(self) -> str:
        """Names it."""
        ...

    @property
    def name(self) -> str:
        """For a reader."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of cells that must be complete before it starts."""
        ...


class SchedulerListener(Protocol):
    """Who hears what the scheduler does; the run writes it down."""

    def started(self, attempt: Attempt) -> None:
        """An attempt was handed to a worker."""
        ...

    def done(self, outcome: Outcome) -> None:
        """A cell is complete."""
        ...

    def failed(self, outcome: Outcome, again: str) -> None:
        """An attempt failed; `again` says what comes next ("" for nothing)."""
        ...

    def cut_off(self, attempt: Attempt, seconds: float) -> None:
        """An attempt was interrupted by a stop; what it kept is resumed by the next run."""
        ...


@dataclass
class ScheduleSummary:
    """What a round of scheduling did, by cell key. `blocked` cells need one that failed."""

    done: list[str] = field(default_factory=list[str])
    failed: dict[str, CellFailure] = field(default_factory=dict[str, CellFailure])
    blocked: list[str] = field(default_factory=list[str])
    left: list[str] = field(default_factory=list[str])  # not started: a stop, or the budget
    stopped: str = ""  # why nothing more was started; "" if everything was


@dataclass(frozen=True, slots=True)
class Together:
    """Which cells may start as one attempt: those for which `kind(key)` is the same and not None, at most `most`."""

    kind: Callable[[str], Hashable | None]
    most: int


ALONE = Together(lambda _key: None, 1)
Turns = Callable[[Sequence[Schedulable]], Mapping[str, Priority]]
Then = Callable[[str], tuple[Sequence[Schedulable], set[str]] | None]


def in_order(cells: Sequence[Schedulable]) -> dict[str, Priority]:
    """The plan's order: a training's probes before the next training."""
    return {cell.key: (0, 0.0, at) for at, cell in enumerate(cells)}


def schedule(
    cells: Sequence[Schedulable], complete: Iterable[str], executor: Executor, listener: SchedulerListener, stop: Stop,
    *, may_spend: Callable[[str], str] | None = None, retries: int = 2, turns: Turns = in_order,
    together: Together = ALONE, then: Then = lambda _key: None,
) -> ScheduleSummary:  # fmt: skip
    """Run `cells` (those in `complete` are done already). `may_spend(key)` is asked before a cell is started and
    returns why it may not be ("" if it may). `turns` says whose turn it is among those that are ready. `then(key)` is
    asked after each cell and returns, where the plan has become another (after a gate), its cells and those of them that
    are complete. Raises StoreError where the disk is full: nothing else could be kept."""
    round_ = _Round(executor, listener, stop, may_spend or (lambda _key: ""), retries, turns, together, then)
    round_.plan(cells, set(complete))
    return round_.run()


class _Round:
    def __init__(
        self, executor: Executor, listener: SchedulerListener, stop: Stop, may_spend: Callable[[str], str], retries: int,
        turns: Turns, together: Together, then: Then,
    ) -> None:  # fmt: skip
        self.executor, self.listener, self.stop = executor, listener, stop
        self.may_spend, self.retries = may_spend, retries
        self.turns, self.together, self.then = turns, together, then
        self.summary = ScheduleSummary()
        self.names: dict[str, str] = {}
        self.missing: dict[str, set[str]] = {}
        self.needed_by: dict[str, list[str]] = {}
        self.turn: Mapping[str, Priority] = {}
        self.queue: list[tuple[Priority, int, str]] = []  # a heap of what is ready; `ready` says what of it still is
        self.ready: dict[str, Attempt] = {}
        self.mates: dict[Hashable, set[str]] = {}  # of those that may start together, what is ready
        self.running: dict[str, tuple[Attempt, float]] = {}
        self.fatal: CellFailure | None = None

    def plan(self, cells: Sequence[Schedulable], complete: set[str]) -> None:
        """Take these cells as the plan; what runs goes on, and what is no longer in it does not start."""
        settled = {*complete, *self.summary.done, *self.summary.failed}
        todo = [cell for cell in cells if cell.key not in settled]
        keys = {*(cell.key for cell in todo), *self.summary.failed}
        self.missing = {cell.key: {need for need in cell.needs if need in keys} for cell in todo}
        self.names = {cell.key: cell.name for cell in todo} | {key: self.names[key] for key in self.summary.failed}
        self.missing |= {key: set() for key in self.summary.failed}
        self.needed_by = {}
        for cell in todo:
            for need in self.missing[cell.key]:
                self.needed_by.setdefault(need, []).append(cell.key)
        self.turn = self.turns(todo)
        earlier, self.ready, self.queue, self.mates = self.ready, {}, [], {}
        for cell in todo:
            if not self.missing[cell.key] and cell.key not in self.under_way:
                self._make_ready(earlier.get(cell.key, Attempt(cell.key, cell.name)))

    @property
    def under_way(self) -> set[str]:
        """Keys of what runs, mates included."""
        return {one.key for attempt, _ in self.running.values() for one in attempt.all}

    def run(self) -> ScheduleSummary:
        try:
            self._loop()
        except Interrupted:
            self.summary.stopped = self.stop.reason
        for attempt, since in self.running.values():
            self._cut_off(attempt, self.executor.at_work(attempt, time.monotonic() - since))
        self._count_what_is_left()
        if self.fatal:
            raise StoreError(self.fatal.message)
        return self.summary

    def _loop(self) -> None:
        while self.ready or self.running:
            self._submit()
            if not self.running:
                return
            for outcome in self.executor.wait(1.0):
                self._take(outcome)
            if self.stop.requested and self.stop.seconds_left <= 0:
                self.summary.stopped = self.stop.reason
                return

    def _make_ready(self, attempt: Attempt) -> None:
        key = attempt.key
        self.ready[key] = attempt
        heapq.heappush(self.queue, (self.turn[key], attempt.number, key))
        kind = self.together.kind(key) if attempt.number == 1 else None  # what failed once is tried again by itself
        if kind is not None:
            self.mates.setdefault(kind, set()).add(key)

    def _next(self) -> str:
        """The key of the ready cell whose turn it is."""
        while self.queue[0][2] not in self.ready:
            heapq.heappop(self.queue)
        return self.queue[0][2]

    def _submit(self) -> None:
        while self.ready and len(self.running) < self.executor.slots and not self.summary.stopped:
            why = self.stop.reason if self.stop.requested else self.may_spend(self._next())
            if why:
                self.summary.stopped = why
                return
            attempt = self._with_mates(self._take_ready(self._next()))
            self.running[attempt.key] = (attempt, time.monotonic())
            for one in attempt.all:
                self.listener.started(one)
            self.executor.submit(attempt)

    def _take_ready(self, key: str) -> Attempt:
        for waiting in self.mates.values():
            waiting.discard(key)
        return self.ready.pop(key)

    def _with_mates(self, attempt: Attempt) -> Attempt:
        """The attempt with those that start with it: so many that all that are ready fill all workers."""
        kind = self.together.kind(attempt.key) if attempt.number == 1 else None
        if kind is None:
            return attempt
        ready = 1 + sum(map(len, self.mates.values()))
        most = min(self.together.most, math.ceil(ready / self.executor.slots))
        others = sorted(self.mates.get(kind, ()), key=lambda key: self.turn[key])[: most - 1]
        affordable = [key for key in others if not self.may_spend(key)]
        return replace(attempt, mates=tuple(self._take_ready(key) for key in affordable))

    def _take(self, outcome: Outcome) -> None:
        self.running.pop(outcome.attempt.key)
        for one in outcome.each():
            self._settle(one)

    def _settle(self, outcome: Outcome) -> None:
        """What follows of one cell's outcome."""
        key = outcome.attempt.key
        if outcome.interrupted:
            self.listener.cut_off(outcome.attempt, outcome.seconds)
            self.summary.stopped = self.stop.reason or "interrupted"
        elif outcome.failure is None:
            self.summary.done.append(key)
            self.listener.done(outcome)
            self._release(key)
            plan = self.then(key)
            if plan is not None:
                self.plan(*plan)
        else:
            self._retry_or_give_up(outcome, outcome.failure)

    def _release(self, key: str) -> None:
        """What waited for this cell and nothing else is ready."""
        for waiting in self.needed_by.get(key, ()):
            self.missing[waiting].discard(key)
            if not self.missing[waiting]:
                self._make_ready(Attempt(waiting, self.names[waiting]))

    def _cut_off(self, attempt: Attempt, seconds: float) -> None:
        for one in attempt.all:
            self.listener.cut_off(one, seconds / len(attempt.all))

    def _retry_or_give_up(self, outcome: Outcome, why: CellFailure) -> None:
        attempt = outcome.attempt
        again, text = None, ""
        if why.retry == "smaller_batch" and attempt.shrink < RETRIES_SMALLER:
            again = Attempt(attempt.key, attempt.name, attempt.number + 1, attempt.shrink + 1)
            text = f"again with batches of 1/{2**again.shrink}"
        elif why.retry == "alone":
            again = Attempt(attempt.key, attempt.name, attempt.number + 1, attempt.shrink)
            text = "again by itself"
        elif why.retry in ("other_worker", "again") and attempt.number <= self.retries:
            again = Attempt(attempt.key, attempt.name, attempt.number + 1, attempt.shrink)
            text = "again on another worker" if why.retry == "other_worker" else "again"
        self.listener.failed(outcome, text)
        if again and attempt.key in self.turn:
            self._make_ready(again)
            return
        self.summary.failed[attempt.key] = why
        if why.retry == "abort":
            self.fatal = why
            self.summary.stopped = why.message

    def _count_what_is_left(self) -> None:
        settled = {*self.summary.done, *self.summary.failed}
        lost = set(self.summary.failed)
        for key in self.names:  # in the order of the plan, so that what a blocked cell blocks comes after it
            if key not in settled:
                if self.missing[key] & lost:
                    lost.add(key)
                    self.summary.blocked.append(key)
                else:
                    self.summary.left.append(key)
