"""`bystander preflight`, as a user calls it on machines that lack something: what is wrong, and what to do about it.

What is changed is the machine (its disk, its memory, its clock, its packages), never the program.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import time
from collections import namedtuple
from pathlib import Path

import pytest

from bystander.cli import main as cli

Disk = namedtuple("Disk", "total used free")


@pytest.fixture
def preflight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], embedded: Path):
    """Calls the command on `quickstart`: (exit code, check -> (ok, message))."""

    def call(out: Path = tmp_path / "run") -> tuple[int, dict[str, tuple[bool, str]]]:
        words = ["preflight", "quickstart", "--set", "model.device=cpu", "--out", str(out), "--json"]
        monkeypatch.setattr("sys.argv", ["bystander", *words])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        found = json.loads(capsys.readouterr().out)
        assert found["ok"] == all(check["ok"] is not False for check in found["checks"])
        return stopped.value.code or 0, {check["name"]: (check["ok"], check["message"]) for check in found["checks"]}

    return call


def free_memory(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    """A machine without /proc/meminfo that has so many bytes free."""
    is_file, sysconf = Path.is_file, os.sysconf
    told = {"SC_AVPHYS_PAGES": int(free) // 4096, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(Path, "is_file", lambda self: str(self) != "/proc/meminfo" and is_file(self))
    monkeypatch.setattr(os, "sysconf", lambda name: told.get(name) or sysconf(name))


def failures(found: dict[str, tuple[bool, str]]) -> dict[str, str]:
    return {name: message for name, (ok, message) in found.items() if ok is False}


def test_a_machine_that_has_it_all(preflight, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    free_memory(monkeypatch, 4 * 2**30)
    code, found = preflight()
    assert (code, failures(found)) == (0, {})
    assert list(found) == [
        "write access", "other run", "disk", "memory", "open settings", "probes", "steps", "device", "model", "tokenizer",
        "layers", "window", "data", "services", "versions", "clock",
    ]  # fmt: skip
    assert all(ok is True for ok, _ in found.values())
    assert found["memory"][1].endswith("4.0 GiB free")
    assert list(tmp_path.iterdir()) == [], "preflight writes nothing"


def test_every_lack_is_said_at_once_with_what_to_do(preflight, monkeypatch: pytest.MonkeyPatch):
    free_memory(monkeypatch, 2.5 * 2**30)  # the peak of quickstart's training is 2.6 GiB on a CPU (docs/performance.md)
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.1.0" if name == "torch" else version(name))
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Disk(100, 90, 10))
    monkeypatch.setattr(time, "time", lambda: 1e9)
    code, found = preflight()
    failed = failures(found)
    assert code == 2
    assert set(failed) == {"disk", "memory", "versions", "clock"}
    assert "0.00 GB are free; free some, or --out elsewhere" in failed["disk"]
    assert "needs about 3." in failed["memory"]
    assert "2.5 GiB are free" in failed["memory"]
    assert "torch 0.1.0 (needs 2.8)" in failed["versions"]
    assert "the clock shows 2001-09-09; set it" in failed["clock"]


def test_a_place_that_cannot_be_written(preflight, tmp_path: Path):
    (tmp_path / "file").touch()
    code, found = preflight(tmp_path / "file" / "run")
    assert code == 2
    assert "cannot be written; give another directory with --out" in failures(found)["write access"]


def test_a_clock_behind_what_the_run_has_written(preflight, tmp_path: Path):
    (tmp_path / "run").mkdir()
    events = tmp_path / "run" / "events.jsonl"
    events.touch()
    os.utime(events, (time.time() + 3600,) * 2)
    assert "which was written in its future; set it" in failures(preflight()[1])["clock"]
