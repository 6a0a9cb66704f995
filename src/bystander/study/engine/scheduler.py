"""Running cells in the order that their needs allow, on whatever executor there is.

One failed cell does not stop the others; a cell is tried again as its error deserves; a stop or a spent budget lets
what is running finish and starts nothing more.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bystander.core.errors import StoreError
from bystander.study.engine.executor import Attempt, Executor, Outcome
from bystander.study.engine.retry_policy import CellFailure
from bystander.study.engine.shutdown import Interrupted, Stop

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


def schedule(
    cells: Sequence[Schedulable], complete: Iterable[str], executor: Executor, listener: SchedulerListener, stop: Stop,
    *, may_spend: Callable[[str], str] | None = None, retries: int = 2,
) -> ScheduleSummary:  # fmt: skip
    """Run `cells` (those in `complete` are done already). `may_spend(key)` is asked before a cell is started and
    returns why it may not be ("" if it may). Raises StoreError where the disk is full: nothing else could be kept."""
    return _Round(cells, set(complete), executor, listener, stop, may_spend or (lambda _key: ""), retries).run()


class _Round:
    def __init__(
        self, cells: Sequence[Schedulable], complete: set[str], executor: Executor, listener: SchedulerListener, stop: Stop,
        may_spend: Callable[[str], str], retries: int,
    ) -> None:  # fmt: skip
        self.executor, self.listener, self.stop = executor, listener, stop
        self.may_spend, self.retries = may_spend, retries
        self.summary = ScheduleSummary()
        todo = [cell for cell in cells if cell.key not in complete]
        keys = {cell.key for cell in todo}
        self.missing = {cell.key: {need for need in cell.needs if need in keys} for cell in todo}
        self.names = {cell.key: cell.name for cell in todo}
        self.needed_by: dict[str, list[str]] = {}
        for cell in todo:
            for need in self.missing[cell.key]:
                self.needed_by.setdefault(need, []).append(cell.key)
        self.position = {cell.key: index for index, cell in enumerate(todo)}
        self.ready: list[
            tuple[int, Attempt]
        ] = []  # a heap in the plan's order: a training's probes before the next one
        for cell in todo:
            if not self.missing[cell.key]:
                self._make_ready(Attempt(cell.key, cell.name))
        self.running: dict[str, tuple[Attempt, float]] = {}
        self.fatal: CellFailure | None = None

    def run(self) -> ScheduleSummary:
        while self.ready or self.running:
            self._submit()
            if not self.running:
                break
            try:
                outcomes = self.executor.wait(1.0)
            except Interrupted:
                self.summary.stopped = self.stop.reason
                break
            for outcome in outcomes:
                self._take(outcome)
            if self.stop.requested and self.stop.seconds_left <= 0:
                break
        for attempt, since in self.running.values():
            self.listener.cut_off(attempt, time.monotonic() - since)
        self._count_what_is_left()
        if self.fatal:
            raise StoreError(self.fatal.message)
        return self.summary

    def _make_ready(self, attempt: Attempt) -> None:
        heapq.heappush(self.ready, (self.position[attempt.key], attempt))

    def _submit(self) -> None:
        while self.ready and len(self.running) < self.executor.slots and not self.summary.stopped:
            why = self.stop.reason if self.stop.requested else self.may_spend(self.ready[0][1].key)
            if why:
                self.summary.stopped = why
                return
            _, attempt = heapq.heappop(self.ready)
            self.running[attempt.key] = (attempt, time.monotonic())
            self.listener.started(attempt)
            self.executor.submit(attempt)

    def _take(self, outcome: Outcome) -> None:
        key = outcome.attempt.key
        attempt, _ = self.running.pop(key)
        if outcome.interrupted:
            self.listener.cut_off(attempt, outcome.seconds)
            self.summary.stopped = self.stop.reason
        elif outcome.failure is None:
            self.summary.done.append(key)
            self.listener.done(outcome)
            for waiting in self.needed_by.get(key, ()):
                self.missing[waiting].discard(key)
                if not self.missing[waiting]:
                    self._make_ready(Attempt(waiting, self.names[waiting]))
        else:
            self._retry_or_give_up(outcome, outcome.failure)

    def _retry_or_give_up(self, outcome: Outcome, why: CellFailure) -> None:
        attempt = outcome.attempt
        again, text = None, ""
        if why.retry == "smaller_batch" and attempt.shrink < RETRIES_SMALLER:
            again = Attempt(attempt.key, attempt.name, attempt.number + 1, attempt.shrink + 1)
            text = f"again with batches of 1/{2**again.shrink}"
        elif why.retry in ("other_worker", "again") and attempt.number <= self.retries:
            again = Attempt(attempt.key, attempt.name, attempt.number + 1, attempt.shrink)
            text = "again on another worker" if why.retry == "other_worker" else "again"
        self.listener.failed(outcome, text)
        if again:
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
