"""The `slurm` executor: workers are Slurm jobs that pull cells, submitted through submitit.

The run directory must be on a file system that all nodes see. A driver that dies takes nothing with it: its jobs finish
what they do and wait `idle_minutes` for the next `bystander run`, which finds them. A job that Slurm preempts or that
reaches its time limit is requeued and takes up its cell; one that is gone is replaced, and its cell told to go again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from bystander.core.errors import StudyError
from bystander.engine.executor import Attempt, CellRunner, Executor, LazyRunner, Outcome
from bystander.engine.retry_policy import cell_failure
from bystander.engine.slurm_jobs import ALIVE, cancel, states
from bystander.engine.slurm_mailbox import Mailbox
from bystander.study.config.blocks import ExecutorSettings

LOOK = 0.2  # seconds between looks at the mailbox: a file system answers sooner than Slurm does
IDLE_LOOK = 1.0  # of a worker that has nothing to do
ENDS_WITHIN = 180.0  # seconds that Slurm may take to end a cancelled job: its KillWait is 30 by default
IN_VAIN = 3  # jobs that ended without doing anything, one after another, before the run gives up
TIMEOUTS = 100  # requeues of one job at its time limit: a long training may take many


class SlurmSettings(ExecutorSettings):
    """`slurm`: on `workers` jobs of a Slurm cluster, each with its own resident base model."""

    kind: Literal["slurm"] = "slurm"
    """On jobs of a Slurm cluster, which pull cells; needs the extra `slurm`."""
    partition: str | None = None
    """Where jobs are queued; left out: the cluster's default."""
    account: str | None = None
    """Who pays; left out: your default."""
    qos: str | None = None
    """Quality of service; left out: your default."""
    constraint: str | None = None
    """Features that a node must have, e.g. `h100`."""
    minutes: int = Field(default=240, ge=1)
    """[minutes] Time limit of a job. At its end it is requeued, and its cell resumes."""
    gpus: int = Field(default=1, ge=0)
    """[GPUs] Of a worker; 0 for CPU workers."""
    cpus: int = Field(default=4, ge=1)
    """[CPUs] Of a worker, and its threads."""
    memory_gb: float | None = Field(default=None, gt=0)
    """[GB] Of a worker; left out: the cluster's default."""
    setup: list[str] = Field(default_factory=list)
    """Shell lines before the worker starts, e.g. `module load cuda`."""
    options: dict[str, str | int] = Field(default_factory=dict)
    """Further options of sbatch by their long names, e.g. `{reservation: mine}`."""
    idle_minutes: float = Field(default=10, ge=0)
    """[minutes] That a worker without work waits for more: so long a driver may be gone before its jobs end."""
    poll_seconds: float = Field(default=5, gt=0)
    """[seconds] Between questions to Slurm's controller, which serves the whole cluster."""
    keep_jobs: bool = False
    """Whether jobs at work outlive a run that was stopped (Ctrl-C), for the next run to find."""


class SlurmJobEnded(Exception):
    """A job is gone while it worked on a cell: cancelled, killed, or its node died."""


class SlurmWorker:
    """What a job runs: cells from the mailbox, until there has been none for a while."""

    def __init__(self, make: Callable[[], CellRunner], box: Mailbox, idle: float) -> None:
        self.make, self.box, self.idle = make, box, idle

    def __call__(self) -> int:
        """Work; returns how many attempts were done."""
        runner, job, count = LazyRunner(self.make), os.environ["SLURM_JOB_ID"], 0
        last = time.monotonic()
        while time.monotonic() - last < self.idle:
            found = self.box.take(job)
            if found is None:
                time.sleep(IDLE_LOOK)
                continue
            name, attempt = found
            self.box.finish(name, job, runner.run(attempt))
            last, count = time.monotonic(), count + 1
        return count

    def checkpoint(self) -> Any:
        """submitit asks for it at preemption and at the time limit, and requeues the job with what comes back."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class SlurmExecutor(Executor):
    """Runs attempts on Slurm jobs. Raises StudyError where submitit or Slurm is missing, or jobs cannot be had."""

    Settings = SlurmSettings
    in_process: ClassVar[bool] = False
    worker_died: ClassVar[tuple[str, ...]] = ("SlurmJobEnded",)

    def __init__(self, settings: SlurmSettings, make: Callable[[], CellRunner]) -> None:
        super().__init__(settings, make)
        self.block = settings
        self.slots, self.share, self.on_gpu = settings.workers, float(settings.gpus or 1), settings.gpus > 0
        self.box = Mailbox(_run_folder(make) / "slurm")
        self._submitter = self._made()
        self._running: dict[str, tuple[Attempt, float]] = {}
        known = states(self.box.jobs()) or {}
        self._jobs = [job for job in self.box.jobs() if known.get(job, ("", ""))[0] in ALIVE - {"COMPLETING"}]
        self.box.clear(set(self._jobs))
        self._asked, self._missing, self._in_vain = 0.0, set[str](), 0

    def _made(self) -> Any:
        try:
            import submitit
        except ImportError as error:
            raise StudyError(
                "executor.kind is slurm, but submitit is not installed; pip install 'bystander[slurm]', or another kind"
            ) from error
        try:
            made: Any = submitit.SlurmExecutor(folder=self.box.path / "logs", max_num_timeout=TIMEOUTS)
        except RuntimeError as error:
            raise StudyError(
                f"executor.kind is slurm, but there is no Slurm here: {error}; run on a login node"
            ) from error
        block = self.block
        asked: dict[str, Any] = {
            "partition": block.partition, "account": block.account, "qos": block.qos, "constraint": block.constraint,
            "gpus_per_node": block.gpus or None, "mem": f"{block.memory_gb:g}G" if block.memory_gb else None,
        }  # fmt: skip
        made.update_parameters(
            job_name="bystander", time=block.minutes, nodes=1, ntasks_per_node=1, cpus_per_task=block.cpus,
            setup=[f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{block.cpus}}}", *block.setup],
            additional_parameters={"requeue": True, **block.options},
            **{key: value for key, value in asked.items() if value is not None},
        )  # fmt: skip
        return made

    def worker_bytes(self) -> float | None:
        """Not known: the GPUs are other machines'."""
        return None

    def submit(self, attempt: Attempt) -> None:
        """Queue an attempt, or go on with the one at these very cells that a job of an earlier driver works on. Jobs
        that work on some of them only are ended first: two must not write in one cell."""
        found = self.box.at(attempt)
        name = next((one for one, same in found.items() if same), None)
        if name is None:
            for one in found:
                self._end(one)
            name = self.box.put(attempt)
        self._running[name] = (attempt, time.time())
        self._enough_jobs()

    def _end(self, name: str) -> None:
        """End the job that works on an attempt, and wait until it has ended."""
        held = self.box.holder(name)
        deadline = time.monotonic() + ENDS_WITHIN
        while held is not None and (states([held[0]]) or {}).get(held[0], ("", ""))[0] in ALIVE:
            cancel([held[0]])
            if time.monotonic() > deadline:
                raise StudyError(f"Slurm job {held[0]} does not end; `scancel {held[0]}` it, and run again")
            time.sleep(self.block.poll_seconds)
        self._jobs = [job for job in self._jobs if held is None or job != held[0]]
        self.box.forget(name)

    def _enough_jobs(self) -> None:
        """As many live jobs as there are attempts."""
        while len(self._jobs) < min(self.slots, len(self._running)):
            if self._in_vain >= IN_VAIN:
                raise StudyError(
                    f"{IN_VAIN} Slurm jobs ended one after another without doing anything; their words are in {self.box.path / 'logs'}"
                )
            worker = SlurmWorker(self.make, self.box, max(self.block.idle_minutes * 60, IDLE_LOOK))
            try:
                job = self._submitter.submit(worker)
            except Exception as error:  # submitit's own, whose classes differ by what sbatch said
                raise StudyError(f"Slurm does not take the job: {error}") from error
            self._jobs.append(str(job.job_id))
            self.box.keep_jobs(self._jobs)

    def wait(self, seconds: float) -> list[Outcome]:
        """What has ended, waiting at most so long. A job that is gone is replaced, and its cell told to go elsewhere."""
        until = time.monotonic() + seconds
        while self._running:
            ended = [outcome for name in list(self._running) if (outcome := self._ended(name)) is not None]
            if time.monotonic() - self._asked > self.block.poll_seconds:
                ended += self._died()
            if ended or time.monotonic() >= until:
                return ended
            time.sleep(LOOK)
        return []

    def _ended(self, name: str) -> Outcome | None:
        outcome = self.box.outcome(name)
        if outcome is None:
            return None
        self._in_vain = 0
        return replace(outcome, attempt=self._running.pop(name)[0])

    def _died(self) -> list[Outcome]:
        """Attempts whose job is gone at two looks: at one it may be on its way from one list of Slurm's to another."""
        self._asked = time.monotonic()
        known = states(self._jobs)
        if known is None:
            return []  # the controller does not answer: nobody can say who is dead
        gone = {job for job in self._jobs if known.get(job, ("", ""))[0] not in ALIVE}
        dead, self._missing = gone & self._missing, gone
        if not dead:
            return []
        held = {name: holder for name in self._running if (holder := self.box.holder(name)) is not None}
        outcomes: list[Outcome] = []
        for name, (job, since) in held.items():
            if job in dead:
                attempt, _ = self._running.pop(name)
                self.box.forget(name)
                why = SlurmJobEnded(f"Slurm job {job} is gone ({known.get(job, ('no longer known', ''))[0].lower()})")
                outcomes.append(Outcome(attempt, max(0.0, time.time() - since), cell_failure(why)))
        self._in_vain += len(dead - {job for job, _ in held.values()})
        self._jobs = [job for job in self._jobs if job not in dead]
        self._enough_jobs()
        return outcomes

    def at_work(self, attempt: Attempt, since: float) -> float:
        """Since a job took it up: time in Slurm's queue is nobody's."""
        names = [name for name, (one, _) in self._running.items() if one.key == attempt.key]
        return min(since, max((self.box.at_work(name) for name in names), default=0.0))

    def close(self) -> None:
        """End the jobs; what they were doing can be resumed. With `keep_jobs` those at work go on by themselves."""
        at_work = {held[0] for name in self._running if (held := self.box.holder(name)) is not None}
        kept = [job for job in self._jobs if self.block.keep_jobs and job in at_work]
        cancel([job for job in self._jobs if job not in kept])
        for name in list(self._running):
            if (held := self.box.holder(name)) is None or held[0] not in kept:
                self.box.forget(name)
        self._jobs, self._running = kept, {}
        self.box.keep_jobs(kept)


def _run_folder(make: Callable[[], CellRunner]) -> Path:
    """The run directory, which the way to make a worker names."""
    folder = next((one for one in getattr(make, "args", ()) if isinstance(one, Path)), None)
    assert folder is not None, "a worker in another process is made of the study and the run directory"
    return folder
