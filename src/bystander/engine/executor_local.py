"""The `local` executor: cells run in this process, one after another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import ClassVar, Literal

from bystander.engine.executor import Attempt, CellRunner, Executor, LazyRunner, Outcome
from bystander.study.config.blocks import ExecutorSettings


class LocalSettings(ExecutorSettings):
    """`local`: in this process."""

    kind: Literal["local"] = "local"
    """In this process, one cell after another."""


class LocalExecutor(Executor):
    """Runs attempts in this process; `wait` runs one to its end."""

    Settings = LocalSettings
    in_process: ClassVar[bool] = True
    worker_died: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: LocalSettings, make: Callable[[], CellRunner]) -> None:
        super().__init__(settings, make)
        self._runner = LazyRunner(make)
        self._queue: deque[Attempt] = deque()

    def submit(self, attempt: Attempt) -> None:
        """Hold it for `wait`."""
        self._queue.append(attempt)

    def wait(self, seconds: float) -> list[Outcome]:  # noqa: ARG002 (an executor's form)
        """Run the attempt that was submitted."""
        return [self._runner.run(self._queue.popleft())] if self._queue else []

    def close(self) -> None:
        """Nothing to give back."""

    @classmethod
    def faults(cls, settings: LocalSettings) -> Iterator[tuple[tuple[str, ...], str]]:
        """One process takes one cell at a time."""
        if settings.workers > 1:
            yield (
                ("workers",),
                f"executor.workers is {settings.workers}, but `local` is one process; kind: processes, slurm or ray",
            )
