"""Holding a run directory: one process at a time, one study for ever; and where the run came from."""

from __future__ import annotations

import fcntl
import os
import platform
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from bystander.core.errors import StoreError
from bystander.core.files import write_bytes, write_json
from bystander.study.config.study import ResolvedStudy, as_yaml
from bystander.study.store.kept_files import keep_files
from bystander.study.store.run_dir import RunDir

PACKAGES = ("bystander", "torch", "transformers", "peft", "tokenizers", "numpy", "scipy", "statsmodels", "polars")


@contextmanager
def claimed(run: RunDir, study: ResolvedStudy) -> Generator[str]:
    """Hold a run directory. The lock is the operating system's, so that a dead process holds nothing: its name, left in
    the file, is what the block gets ("" where the last one ended well). Raises StoreError if the directory is another
    study's, another process's, or cannot be written."""
    check_same_study(run, study)
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        handle = run.lock_file.open("a+")
    except OSError as error:
        raise StoreError(
            f"cannot write in the run directory {run.path}: {error.strerror or error}; give another with --out"
        ) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _read(handle) or "another process"
            raise StoreError(
                f"{run.path} is being written by {holder}; wait for it, or give another directory with --out"
            ) from error
        dead = _read(handle)
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {platform.node()}")
        handle.flush()
        _write_header(run, study)
        keep_files(study, run)
        try:
            yield dead
        finally:
            handle.truncate(0)


def _read(handle: Any) -> str:
    handle.seek(0)
    return str(handle.read()).strip()


def holder(run: RunDir) -> str:
    """Who holds the run directory now; "" for nobody, whatever a dead process left in the lock."""
    path = run.lock_file
    if not path.is_file():
        return ""
    with path.open() as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read(handle) or "another process"
    return ""


def check_same_study(run: RunDir, study: ResolvedStudy) -> None:
    """Raises StoreError where the directory holds another study, or something that is no run."""
    if run.is_run:
        other = run.provenance()
        if other.get("identity") != study.identity:
            raise StoreError(
                f"{run.path} holds another study ({other.get('study')!r}, or {study.spec.name!r} with other settings); give "
                "another directory with --out"
            )
    elif run.path.is_file() or (run.path.is_dir() and any(path != run.lock_file for path in run.path.iterdir())):
        raise StoreError(f"{run.path} is not a run directory and is not empty; give another directory with --out")


def _write_header(run: RunDir, study: ResolvedStudy) -> None:
    if not run.study_file.is_file():
        write_bytes(run.study_file, as_yaml(study).encode())
    if not run.personas_json.is_file():
        run.save_personas(study.personas)
    if not run.is_run:
        write_json(run.provenance_file, {"study": study.spec.name, "identity": study.identity, **provenance()})


def provenance() -> dict[str, Any]:
    """Git revision of the code, versions of what computes, the machine's kind."""
    return {
        "revision": _revision(),
        "versions": versions(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Versions of the packages that decide numbers."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def _revision() -> str:
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
        return found.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "not a git checkout"
