"""What Slurm says of jobs. `squeue`, since `sacct` needs an accounting database that small clusters do not have."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bystander.engine.slurm_mailbox import Mailbox

# Of a job that will run (again) or runs; COMPLETING ones leave within seconds.
ALIVE = frozenset(
    {
        "PENDING",
        "RUNNING",
        "CONFIGURING",
        "COMPLETING",
        "REQUEUED",
        "REQUEUE_HOLD",
        "RESIZING",
        "SIGNALING",
        "SUSPENDED",
    }
)
SECONDS = 30.0  # that a controller may take to answer


@dataclass(frozen=True, slots=True)
class SlurmJob:
    """One worker. `where`: its node, or why it waits; `cell`: what it works on, "" for nothing."""

    id: str
    state: str
    where: str
    cell: str


def states(ids: Sequence[str]) -> dict[str, tuple[str, str]] | None:
    """Job -> (state, node or reason) of those that Slurm still knows; None where it does not answer."""
    command = ["squeue", "--noheader", "--states=all", "--format=%i|%T|%R"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    rows = [line.split("|", 2) for line in done.stdout.splitlines() if line.count("|") >= 2]
    return {job: (state, where.strip("()")) for job, state, where in rows if job in ids}


def cancel(ids: Sequence[str]) -> None:
    """End jobs; those that have ended already are no fault."""
    if ids:
        subprocess.run(["scancel", "--quiet", *ids], capture_output=True, timeout=SECONDS, check=False)


def jobs_of(run: Path) -> list[SlurmJob]:
    """The live jobs of a run directory, for `status`; none where it has never had any."""
    box = Mailbox(run / "slurm")
    ids = box.jobs()
    found = (states(ids) if ids else None) or {}
    working = box.working() if found else {}
    return [
        SlurmJob(job, state, where, working.get(job, ""))
        for job, (state, where) in found.items()
        if state in ALIVE - {"COMPLETING"}
    ]
