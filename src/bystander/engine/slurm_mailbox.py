"""How a Slurm executor and its workers talk: files in the run directory, each whole or not there.

`queue/ID.json` is an attempt that nobody has taken, `taken/ID@JOB.json` one that a job works on, `done/ID.json` how it
ended. Taking is a rename, which one worker alone wins. Nothing is lost when a driver or a worker dies: the next looks here.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bystander.core.files import write_json
from bystander.engine.executor import Attempt, Outcome
from bystander.engine.retry_policy import CellFailure

KEY_CHARACTERS = 24  # of a cell's key in a file's name


@dataclass(frozen=True, slots=True)
class Mailbox:
    """The folder `slurm` of a run directory."""

    path: Path

    def put(self, attempt: Attempt) -> str:
        """Queue an attempt; returns its id."""
        name = f"{attempt.key[:KEY_CHARACTERS]}-{uuid.uuid4().hex[:8]}"
        write_json(self.path / "queue" / f"{name}.json", asdict(attempt))
        return name

    def take(self, job: str) -> tuple[str, Attempt] | None:
        """What a job shall do: first what it had taken before it was requeued, then the oldest in the queue."""
        for file in self._files("taken"):
            name, _, holder = file.stem.partition("@")
            if holder == job:
                return name, _attempt(_read(file))
        queued = sorted(self._files("queue"), key=_age)
        for file in queued:
            mine = self.path / "taken" / f"{file.stem}@{job}.json"
            mine.parent.mkdir(parents=True, exist_ok=True)
            try:
                file.rename(mine)
            except FileNotFoundError:  # another worker was faster, or the driver took it back
                continue
            mine.touch()  # from now on its time counts
            return file.stem, _attempt(_read(mine))
        return None

    def finish(self, name: str, job: str, outcome: Outcome) -> None:
        """Say how an attempt ended."""
        write_json(self.path / "done" / f"{name}.json", asdict(outcome))
        (self.path / "taken" / f"{name}@{job}.json").unlink(missing_ok=True)

    def outcome(self, name: str) -> Outcome | None:
        """How an attempt ended, once; None while it has not."""
        file = self.path / "done" / f"{name}.json"
        if not file.is_file():
            return None
        value = _read(file)
        file.unlink()
        return _outcome(value)

    def holder(self, name: str) -> tuple[str, float] | None:
        """The job that works on an attempt, and since when (seconds since 1970)."""
        for file in self._files("taken"):
            if file.stem.partition("@")[0] == name:
                return file.stem.partition("@")[2], _age(file)
        return None

    def at_work(self, name: str) -> float:
        """Seconds since a job took up an attempt; 0 while it waits in the queue."""
        held = self.holder(name)
        return 0.0 if held is None else max(0.0, time.time() - held[1])

    def at(self, attempt: Attempt) -> dict[str, bool]:
        """Attempts at any of its cells that a job works on or has ended; whether each is at these very cells."""
        found: dict[str, bool] = {}
        keys = {one.key for one in attempt.all}
        for place in ("taken", "done"):
            for file in self._files(place):
                value = _read(file)
                value = value.get("attempt", value)
                theirs = {value["key"], *(mate["key"] for mate in value["mates"])} if value else set[str]()
                if theirs & keys:
                    found[file.stem.partition("@")[0]] = theirs == keys
        return found

    def working(self) -> dict[str, str]:
        """Job -> name of the cell that it works on."""
        return {file.stem.partition("@")[2]: str(_read(file).get("name", "")) for file in self._files("taken")}

    def forget(self, name: str) -> None:
        """Take an attempt back, wherever it stands."""
        for file in (self.path / "queue" / f"{name}.json", self.path / "done" / f"{name}.json"):
            file.unlink(missing_ok=True)
        if (held := self.holder(name)) is not None:
            (self.path / "taken" / f"{name}@{held[0]}.json").unlink(missing_ok=True)

    def clear(self, alive: set[str]) -> None:
        """What a new driver finds of an earlier one: only what live jobs work on stays."""
        for place in ("queue", "done"):
            for file in self._files(place):
                file.unlink(missing_ok=True)
        for file in self._files("taken"):
            if file.stem.partition("@")[2] not in alive:
                file.unlink(missing_ok=True)

    def jobs(self) -> list[str]:
        """The jobs that drivers have submitted, oldest first."""
        file = self.path / "jobs.json"
        return list(_read(file).get("jobs", ())) if file.is_file() else []

    def keep_jobs(self, jobs: list[str]) -> None:
        """Write them down, for `status` and the next driver."""
        write_json(self.path / "jobs.json", {"jobs": jobs})

    def _files(self, place: str) -> Iterator[Path]:
        return (file for file in (self.path / place).glob("*.json") if not file.name.startswith("."))


def _age(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _read(file: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:  # it was taken or ended between two looks
        return {}
    return value


def _attempt(value: dict[str, Any]) -> Attempt:
    mates: Any = tuple(_attempt(one) for one in value["mates"])
    return Attempt(**(value | {"mates": mates}))


def _outcome(value: dict[str, Any]) -> Outcome:
    read: dict[str, Any] = {
        "attempt": _attempt(value["attempt"]),
        "failure": CellFailure(**value["failure"]) if value["failure"] is not None else None,
        "mates": tuple(_outcome(one) for one in value["mates"]),
    }
    return Outcome(**(value | read))
