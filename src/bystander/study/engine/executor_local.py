"""Executors: where cells run. `Local` runs them in this process, one after another."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Protocol

from bystander.study.engine.retry_policy import failure
from bystander.study.engine.scheduler import Attempt, Outcome
from bystander.study.engine.shutdown import Interrupted


class CellRunner(Protocol):
    """Does a cell by its key and returns its manifest: `study.engine.work.Worker`."""

    def run_key(self, key: str, shrink: int = 0) -> dict[str, Any]:
        """Do the cell, with batches of 1 / 2**shrink; what an earlier process kept of it is not done again."""
        ...


class Local:
    """Runs attempts in this process; `wait` runs one to its end."""

    slots = 1
    share = 1.0

    def __init__(self, worker: CellRunner) -> None:
        self.worker = worker
        self._queue: deque[Attempt] = deque()

    def submit(self, attempt: Attempt) -> None:
        """Keep it for `wait`."""
        self._queue.append(attempt)

    def wait(self, seconds: float) -> list[Outcome]:  # noqa: ARG002 (an executor's form)
        """Run the attempt that was submitted."""
        if not self._queue:
            return []
        return [run_attempt(self.worker, self._queue.popleft())]

    def close(self) -> None:
        """Nothing to give back."""


def run_attempt(worker: CellRunner, attempt: Attempt) -> Outcome:
    """One attempt at a cell in this process. Every error becomes an outcome; a stop does too."""
    begun = time.monotonic()
    try:
        worker.run_key(attempt.key, attempt.shrink)
    except (Interrupted, KeyboardInterrupt):
        return Outcome(attempt, time.monotonic() - begun, interrupted=True)
    except Exception as error:
        return Outcome(attempt, time.monotonic() - begun, failure(error))
    return Outcome(attempt, time.monotonic() - begun)
