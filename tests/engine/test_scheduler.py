"""The scheduler and the local executor, on cells that do nothing: order, retries, stops, overhead."""

import errno
import os
import signal
import threading
import time
from dataclasses import dataclass, field

import pytest

from bystander.core.errors import DataError, StoreError
from bystander.engine.executor import Attempt, Outcome
from bystander.engine.executor_local import LocalExecutor, LocalSettings
from bystander.engine.retry_policy import cell_failure
from bystander.engine.scheduler import schedule
from bystander.engine.shutdown import Stop


@dataclass(frozen=True)
class Trivial:
    key: str
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.key


@dataclass
class Worker:
    """Does what `faults` says of a cell, one error a try, then completes it."""

    faults: dict[str, list[BaseException]] = field(default_factory=dict)
    ran: list[tuple[str, int]] = field(default_factory=list)
    seconds_loading: float = 0.0

    def run_key(self, key: str, shrink: int = 0) -> dict:
        self.ran.append((key, shrink))
        if self.faults.get(key):
            raise self.faults[key].pop(0)
        return {}


@dataclass
class Listener:
    lines: list[tuple] = field(default_factory=list)

    def started(self, attempt: Attempt) -> None:
        self.lines.append(("started", attempt.key, attempt.number))

    def done(self, outcome: Outcome) -> None:
        self.lines.append(("done", outcome.attempt.key))

    def failed(self, outcome: Outcome, again: str) -> None:
        self.lines.append(("failed", outcome.attempt.key, again))

    def cut_off(self, attempt: Attempt, seconds: float) -> None:
        self.lines.append(("cut off", attempt.key))


def run(cells, worker=None, complete=(), **options):
    worker, told = worker or Worker(), Listener()
    summary = schedule(
        cells, complete, LocalExecutor(LocalSettings(), lambda: worker), told, options.pop("stop", Stop()), **options
    )
    return summary, worker, told


def test_a_cell_runs_after_what_it_needs_and_what_is_complete_does_not_run():
    cells = [Trivial("c", ("b", "a")), Trivial("b", ("a",)), Trivial("a"), Trivial("d", ("z",))]
    summary, worker, _ = run(cells, complete=["z"])
    assert [key for key, _ in worker.ran] == ["a", "b", "c", "d"], "the plan's order, as soon as the needs allow"
    assert sorted(summary.done) == ["a", "b", "c", "d"]
    assert not summary.stopped


def test_one_failed_cell_blocks_what_needs_it_and_nothing_else():
    cells = [Trivial("a"), Trivial("b", ("a",)), Trivial("c", ("b",)), Trivial("d")]
    summary, worker, told = run(cells, Worker({"a": [DataError("row 7 is empty")]}))
    assert summary.done == ["d"]
    assert summary.failed["a"].message == "row 7 is empty"
    assert summary.blocked == ["b", "c"]
    assert [key for key, _ in worker.ran].count("a") == 1, "a fault in the data is not tried again"
    assert ("failed", "a", "") in told.lines


def test_out_of_memory_is_tried_again_with_smaller_batches_until_it_fits():
    oom = RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
    summary, worker, _ = run([Trivial("a")], Worker({"a": [oom, MemoryError()]}))
    assert summary.done == ["a"]
    assert worker.ran == [("a", 0), ("a", 1), ("a", 2)]


def test_out_of_memory_for_ever_is_given_up():
    summary, worker, _ = run([Trivial("a")], Worker({"a": [MemoryError() for _ in range(20)]}))
    assert list(summary.failed) == ["a"]
    assert len(worker.ran) == 5


def test_a_passing_fault_is_tried_again_as_often_as_the_study_says():
    def faults() -> dict[str, list[BaseException]]:
        return {"a": [OSError(errno.EIO, "input/output error"), TimeoutError("no answer")]}

    assert run([Trivial("a")], Worker(faults()), retries=2)[0].done == ["a"]
    assert list(run([Trivial("a")], Worker(faults()), retries=1)[0].failed) == ["a"]


def test_a_full_disk_stops_the_run_with_a_clear_error():
    def full() -> Exception:
        error = StoreError("no space left while writing x")
        error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
        return error

    worker = Worker({"a": [full()]})
    with pytest.raises(StoreError, match="no space left"):
        run([Trivial("a"), Trivial("b")], worker)
    assert worker.ran == [("a", 0)], "nothing more is started on a full disk"


def test_an_unforeseen_error_names_its_class_and_is_not_tried_again():
    summary, worker, _ = run([Trivial("a")], Worker({"a": [KeyError("lr")]}))
    assert summary.failed["a"].message == "KeyError: 'lr'"
    assert len(worker.ran) == 1


def test_the_cause_decides_not_the_wrapper():
    wrapper = StoreError("cannot write")
    wrapper.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert cell_failure(wrapper).retry == "abort"
    assert cell_failure(StoreError("another study's directory")).retry == "never"


def test_a_spent_budget_starts_nothing_more_and_says_why():
    left = iter(["", "", "the budget of 1 GPU-hour is spent"])
    summary, _, _ = run([Trivial(str(i)) for i in range(9)], may_spend=lambda _key: next(left))
    assert summary.done == ["0", "1"]
    assert summary.stopped == "the budget of 1 GPU-hour is spent"
    assert len(summary.left) == 7


class Sleeper(Worker):
    def run_key(self, key: str, shrink: int = 0) -> dict:
        time.sleep(0.05)
        super().run_key(key, shrink)
        if key == "1":
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.4 if self.faults else 5)
        return {}


def test_ctrl_c_finishes_the_running_cell_and_starts_no_other():
    stop = Stop(grace=10)
    with stop.on_signals():
        summary, _, _ = run([Trivial(str(i)) for i in range(4)], Sleeper({"fast": []}), stop=stop)
    assert summary.done == ["0", "1"]
    assert summary.stopped == "Ctrl-C"
    assert summary.left == ["2", "3"]


def test_ctrl_c_cuts_off_what_cannot_finish_in_time():
    stop = Stop(grace=0.2)
    begun = time.monotonic()
    with stop.on_signals():
        summary, _, told = run([Trivial(str(i)) for i in range(4)], Sleeper(), stop=stop)
    assert time.monotonic() - begun < 3
    assert summary.done == ["0"]
    assert ("cut off", "1") in told.lines
    assert summary.left == ["1", "2", "3"]


def test_a_second_ctrl_c_does_not_wait():
    stop = Stop(grace=60)

    def twice() -> None:
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=twice, daemon=True).start()
    begun = time.monotonic()
    with stop.on_signals():
        summary, _, _ = run([Trivial(str(i)) for i in range(4)], Sleeper(), stop=stop)
    assert time.monotonic() - begun < 3
    assert summary.done == ["0"]


def test_signals_are_as_before_afterwards():
    before = signal.getsignal(signal.SIGINT)
    with Stop().on_signals():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_scheduling_ten_thousand_cells_costs_next_to_nothing():
    cells = [Trivial(str(i), (str(i // 3),) if i >= 3 else ()) for i in range(10_000)]
    begun = time.perf_counter()
    summary, _, _ = run(cells)
    assert len(summary.done) == 10_000
    assert time.perf_counter() - begun < 3
