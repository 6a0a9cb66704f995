"""The Ray executor: an actor per worker, each with its own resident base model, cells as its tasks.

Ray places the actors by their resources, notices that one died, and carries what it says; there is no queue, scheduler
or RPC of our own beyond handing the next cell to an actor that is free. The run directory must be on a file system
that all nodes see. Each actor makes the plan anew from the study, so that nothing but the study travels.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from bystander.core.errors import StudyError
from bystander.engine.executor import Attempt, CellRunner, Executor, LazyRunner, Outcome
from bystander.engine.retry_policy import cell_failure
from bystander.study.config.blocks import ExecutorSettings

GIB = 1024**3


class RaySettings(ExecutorSettings):
    """`ray`: on `workers` actors. `gpus`, `cpus` and `memory_gb` are a worker's share ("auto": one GPU where there is
    one); `address` joins a cluster that exists."""

    kind: Literal["ray"] = "ray"
    """On Ray actors, in a cluster that exists or one started here."""
    gpus: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    """[GPUs] A worker's share; below 1 several share one. `auto`: one where there is one."""
    cpus: float = Field(default=1, gt=0)
    """[CPUs] A worker's share, and its threads."""
    memory_gb: float | None = Field(default=None, gt=0)
    """[GiB] That Ray sets aside for a worker; left out: none."""
    address: str | None = None
    """Of a cluster that exists, e.g. `auto` or `ray://HOST:10001`; left out: one is started here."""


class _Actor(LazyRunner):
    """What lives in a Ray worker."""

    def process(self) -> int:
        """The worker's process id, for a reader of its logs."""
        return os.getpid()


class RayExecutor(Executor):
    """Runs attempts on Ray actors, in a cluster that exists or in one started on this machine.

    Raises StudyError where Ray is not installed, the cluster cannot be joined, or it could never hold the workers.
    """

    Settings = RaySettings
    in_process: ClassVar[bool] = False
    worker_died: ClassVar[tuple[str, ...]] = (
        "RayActorError", "ActorDiedError", "ActorUnavailableError", "WorkerCrashedError", "NodeDiedError",
    )  # fmt: skip

    @classmethod
    def elsewhere(cls, settings: RaySettings) -> bool:
        """A cluster that exists has its own machines."""
        return bool(settings.address or os.environ.get("RAY_ADDRESS"))

    def __init__(self, settings: RaySettings, make: Callable[[], CellRunner]) -> None:
        super().__init__(settings, make)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # this program reports to nobody
        try:
            import ray
        except ImportError as error:
            raise StudyError(
                "executor.kind is ray, but Ray is not installed; pip install 'bystander[ray]', or --set executor.kind=local"
            ) from error
        self.ray: Any = ray
        self.block = settings
        self._started = not ray.is_initialized()
        if self._started:
            self._join()
        self.gpus = self._gpus()
        self._refuse_what_cannot_fit()
        self.slots = settings.workers
        self.share = self.gpus or 1.0
        self.on_gpu = self.gpus > 0
        self._free: list[Any] = [self._actor() for _ in range(settings.workers)]
        self._running: dict[Any, tuple[Attempt, Any, float]] = {}

    def _join(self) -> None:
        here: dict[str, Any] = {} if self.block.address else {"num_cpus": self._cpus_here(), "include_dashboard": False}
        try:
            self.ray.init(
                address=self.block.address, log_to_driver=False, configure_logging=False, namespace="bystander", **here
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            where = self.block.address or "a local cluster"
            raise StudyError(
                f"executor.address: cannot join {where}: {error}; start Ray there, or leave it out"
            ) from error

    def _cpus_here(self) -> int:
        return max(os.cpu_count() or 1, round(self.block.cpus * self.block.workers))

    def _gpus(self) -> float:
        if self.block.gpus != "auto":
            return float(self.block.gpus)
        return 1.0 if self.ray.cluster_resources().get("GPU", 0) else 0.0

    def _refuse_what_cannot_fit(self) -> None:
        """A worker that never fits would wait for ever, and so would the run."""
        there: dict[str, float] = self.ray.cluster_resources()
        asked = {"CPU": self.block.cpus, "GPU": self.gpus, "memory": (self.block.memory_gb or 0) * GIB}
        for name, share in asked.items():
            if share * self.block.workers > there.get(name, 0) + 1e-9:
                unit, total = (GIB, "GiB of memory") if name == "memory" else (1, name + "s")
                raise StudyError(
                    f"executor: {self.block.workers} workers of {share / unit:g} {total} do not fit into the cluster, "
                    f"which has {there.get(name, 0) / unit:g}; lower executor.workers"
                )

    def _actor(self) -> Any:
        options: dict[str, Any] = {"num_cpus": self.block.cpus, "num_gpus": self.gpus, "max_restarts": 0}
        if self.block.memory_gb:
            options["memory"] = int(self.block.memory_gb * GIB)
        threads = str(max(1, round(self.block.cpus)))  # Ray's default is one thread a CPU; torch reads it at import
        options["runtime_env"] = {"env_vars": {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)}}
        return self.ray.remote(_Actor).options(**options).remote(self.make)

    def submit(self, attempt: Attempt) -> None:
        """Hand an attempt to an actor that is free."""
        actor = self._free.pop(0)
        self._running[actor.run.remote(attempt)] = (attempt, actor, time.monotonic())

    def wait(self, seconds: float) -> list[Outcome]:
        """What has ended, waiting at most so long. A dead actor is replaced, and its cell told to go elsewhere."""
        if not self._running:
            return []
        ended, _ = self.ray.wait(list(self._running), num_returns=1, timeout=seconds)
        return [self._outcome(reference) for reference in ended]

    def _outcome(self, reference: Any) -> Outcome:
        attempt, actor, begun = self._running.pop(reference)
        try:
            outcome: Outcome = self.ray.get(reference)
        except Exception as error:  # Ray's own: the actor or its node died
            self._free.append(self._actor())
            return Outcome(attempt, time.monotonic() - begun, cell_failure(error))
        self._free.append(actor)
        return outcome

    def worker_bytes(self) -> float | None:
        """Not known: the GPUs may be another machine's."""
        return None

    def close(self) -> None:
        """Kill the actors (what they were doing can be resumed) and leave the cluster, or stop the one started here."""
        for actor in [*self._free, *(actor for _, actor, _ in self._running.values())]:
            self.ray.kill(actor, no_restart=True)
        self._free, self._running = [], {}
        if self._started:
            self.ray.shutdown()
