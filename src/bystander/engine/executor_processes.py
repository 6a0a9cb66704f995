"""The `processes` executor: several processes of this machine side by side, each with its own resident base model.

For a small model on a large GPU, where one process leaves most of the device idle, and without Ray. The standard
library's pool does the rest; each process makes the plan anew from the study, so that nothing but the study travels.
Where there are several GPUs, the processes take them in turn.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any, ClassVar, Literal

from pydantic import Field
from tqdm import tqdm

from bystander.engine.executor import Attempt, CellRunner, Executor, LazyRunner, Outcome
from bystander.engine.retry_policy import cell_failure
from bystander.study.config.blocks import ExecutorSettings

_runner: LazyRunner | None = None  # of this worker process


class ProcessSettings(ExecutorSettings):
    """`processes`: in `workers` processes of this machine, which take its GPUs in turn; `cpus` are a worker's threads."""

    kind: Literal["processes"] = "processes"
    """In several processes of this machine, which take its GPUs in turn."""
    cpus: float = Field(default=1, gt=0)
    """[threads] Of a worker."""


def devices(workers: int, visible: str | None, count: int) -> list[str]:
    """What `CUDA_VISIBLE_DEVICES` is for each worker: the machine's `count` GPUs in turn, or those of them that `visible`
    (the variable as it is now) leaves. Empty where there is at most one, so that nothing is to be set."""
    there = [name for name in visible.split(",") if name] if visible else [str(index) for index in range(count)]
    return [there[worker % len(there)] for worker in range(workers)] if len(there) > 1 else []


def _begin(make: Callable[[], CellRunner], gpus: Any) -> None:
    global _runner  # noqa: PLW0603 (a pool's initializer has no other place)
    _runner = LazyRunner(make)
    # A bar of a library would make a lock of its own, a system's semaphore that a killed process leaves behind.
    tqdm.set_lock(threading.RLock())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches the whole group: the run's own process tells us
    if gpus is not None:  # before this process first asks CUDA for anything
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus.get()


def _run(attempt: Attempt) -> Outcome:
    assert _runner is not None
    return _runner.run(attempt)


class ProcessExecutor(Executor):
    """Runs attempts on `workers` processes of this machine."""

    Settings = ProcessSettings
    in_process: ClassVar[bool] = False
    worker_died: ClassVar[tuple[str, ...]] = ("BrokenProcessPool",)

    def __init__(self, settings: ProcessSettings, make: Callable[[], CellRunner]) -> None:
        import torch

        super().__init__(settings, make)
        self.slots, self.gpus = settings.workers, torch.cuda.device_count()
        self.share = min(1.0, self.gpus / settings.workers) if self.gpus else 1.0
        self.threads = str(max(1, round(settings.cpus)))
        self._pool = self._new_pool()
        self._running: dict[Future[Outcome], tuple[Attempt, float]] = {}

    def _new_pool(self) -> ProcessPoolExecutor:
        # A forked process would share the parent's CUDA state, which cannot be; torch reads its threads at import.
        os.environ.setdefault("OMP_NUM_THREADS", self.threads)
        context = multiprocessing.get_context("spawn")
        gpus: Any = None
        for name in devices(self.slots, os.environ.get("CUDA_VISIBLE_DEVICES"), self.gpus):
            gpus = gpus or context.Queue()
            gpus.put(name)
        return ProcessPoolExecutor(self.slots, mp_context=context, initializer=_begin, initargs=(self.make, gpus))

    def submit(self, attempt: Attempt) -> None:
        """Hand an attempt to the pool."""
        self._running[self._pool.submit(_run, attempt)] = (attempt, time.monotonic())

    def wait(self, seconds: float) -> list[Outcome]:
        """What has ended, waiting at most so long. If a process died the pool is made anew, and what was running there
        is told to go again (what its cells kept is not done twice)."""
        if not self._running:
            return []
        ended, _ = wait(self._running, timeout=seconds, return_when=FIRST_COMPLETED)
        broken = next((e for future in ended if (e := future.exception()) is not None), None)
        if broken is None:
            return [self._finish(future) for future in ended]
        attempts = list(self._running.values())
        self._running.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = self._new_pool()
        return [Outcome(attempt, time.monotonic() - begun, cell_failure(broken)) for attempt, begun in attempts]

    def _finish(self, future: Future[Outcome]) -> Outcome:
        del self._running[future]
        return future.result()

    def close(self) -> None:
        """End the processes at once, those without work too: a process with a GPU takes seconds to end by itself, and
        nothing is lost, since files are whole or not there. What they were doing can be resumed."""
        processes = list(getattr(self._pool, "_processes", {}).values())
        self._running.clear()
        for process in processes:
            process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)
