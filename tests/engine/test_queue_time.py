"""On a stop, what waits in a cluster's queue has cost nothing, and what a job has taken up costs from then on."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from bystander.engine.executor import Attempt, Outcome
from bystander.engine.executor_local import LocalExecutor, LocalSettings
from bystander.engine.executor_slurm import SlurmExecutor
from bystander.engine.scheduler import schedule
from bystander.engine.shutdown import Stop
from bystander.engine.slurm_mailbox import Mailbox


@dataclass(frozen=True)
class Cell:
    key: str
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.key


class Runner:
    seconds_loading = 0.0


class Queued(LocalExecutor):
    """Takes every attempt and ends none; the first has been at work for two of the seconds since it was submitted."""

    slots = 3

    def submit(self, attempt: Attempt) -> None:
        self.first = getattr(self, "first", attempt.key)

    def wait(self, seconds: float) -> list[Outcome]:
        self.stop.request("asked to stop")
        return []

    def at_work(self, attempt: Attempt, since: float) -> float:
        assert since >= 0
        return 2.0 if attempt.key == self.first else 0.0


class Listener:
    def __init__(self) -> None:
        self.paid: dict[str, float] = {}

    def started(self, attempt: Attempt) -> None: ...
    def done(self, outcome: Outcome) -> None: ...
    def failed(self, outcome: Outcome, again: str) -> None: ...

    def cut_off(self, attempt: Attempt, seconds: float) -> None:
        self.paid[attempt.key] = seconds


def test_a_stop_pays_for_what_was_at_work_alone():
    executor, told = Queued(LocalSettings(), Runner), Listener()
    executor.stop = Stop(grace=0.0)
    schedule([Cell("a"), Cell("b"), Cell("c")], (), executor, told, executor.stop)
    assert told.paid == {"a": 2.0, "b": 0.0, "c": 0.0}


def test_of_executors_without_a_queue_all_of_it_counts():
    assert LocalExecutor(LocalSettings(), Runner).at_work(Attempt("a", "a"), 7.5) == 7.5


def test_a_cell_counts_from_when_a_job_took_it_up(tmp_path: Path):
    box = Mailbox(tmp_path)
    waiting, taken = box.put(Attempt("a" * 32, "a")), box.put(Attempt("b" * 32, "b"))
    os.utime(tmp_path / "queue" / f"{taken}.json", (1.0, 1.0))  # the oldest goes first
    assert box.take("17") is not None
    (held,) = (tmp_path / "taken").glob("*.json")
    os.utime(held, (time.time() - 30,) * 2)
    assert box.at_work(waiting) == 0.0
    assert box.at_work(taken) == pytest.approx(30, abs=5)
    executor = object.__new__(SlurmExecutor)  # without a cluster: only what it reads of its mailbox
    executor.box, executor._running = (
        box,
        {waiting: (Attempt("a" * 32, "a"), 0.0), taken: (Attempt("b" * 32, "b"), 0.0)},
    )
    assert executor.at_work(Attempt("a" * 32, "a"), 3600.0) == 0.0
    assert executor.at_work(Attempt("b" * 32, "b"), 3600.0) == pytest.approx(30, abs=5)
