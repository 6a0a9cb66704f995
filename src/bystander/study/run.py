"""Running a study: audit, cells, analysis, report. Running again does only what is not complete."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl

from bystander.core.errors import StoreError
from bystander.core.hashing import stable_hash
from bystander.core.records import Finding, as_dict
from bystander.design.audit import audit, refuse, render
from bystander.personas import bare_context
from bystander.study.cells import Plan, plan_cells, probe_texts
from bystander.study.events import Events
from bystander.study.progress import Bar, Silent
from bystander.study.spec import Loaded, as_yaml
from bystander.study.store import MEASUREMENT_SCHEMA, CellDir, read_json, write_bytes, write_json, write_parquet
from bystander.study.work import Worker

PACKAGES = ("bystander", "torch", "transformers", "peft", "tokenizers", "numpy", "scipy", "statsmodels", "polars")


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run did: its folder, and how many cells it did now and found complete."""

    folder: Path
    done_now: int
    found: int
    findings: tuple[Finding, ...]


def run_study(study: Loaded, folder: Path, bar: Bar | None = None) -> Ran:
    """Run a study into `folder`. Raises DesignError if the audit refuses it, StoreError if the folder is another
    study's or another process's. Whatever is complete stays so on every error."""
    bar = bar or Silent()
    plan = plan_cells(study)
    with claimed(folder, study):
        events = Events(folder / "events.jsonl", plan_hash(plan))
        events.write("launched", cells=len(plan.cells), pid=os.getpid())
        worker = Worker(plan, folder, bar)
        findings = audit_study(plan, worker, folder)
        refuse(findings)
        done_now = 0
        for cell in plan.cells:
            if worker.cell_dir(cell).complete:
                continue
            worker.run(cell)
            done_now += 1
            events.write("cell done", cell=cell.name, key=cell.key)
        collect(plan, folder)
        return Ran(folder, done_now, len(plan.cells) - done_now, tuple(findings))


def plan_hash(plan: Plan) -> str:
    """Hash of the study and of every cell's key."""
    return stable_hash(plan.study.identity, [cell.key for cell in plan.cells])


def audit_study(plan: Plan, worker: Worker, folder: Path | None) -> list[Finding]:
    """Audit every design of a plan (seeds share their rows); errors are findings too: see `design.audit.refuse`.

    Writes `audit.json`; an audit of the very same plan that stands in the folder is taken as it is."""
    kept = folder / "audit.json" if folder else None
    digest = plan_hash(plan)
    if kept and kept.is_file() and (found := read_json(kept)).get("plan") == digest:
        findings = [Finding(f["level"], f["check"], f["message"], tuple(f["rows"])) for f in found["findings"]]
    else:
        loaded, recipe = worker.loaded, plan.study.spec.recipe
        unique = {(t.behavior, t.source, t.arm): design for t, design in plan.designs.items()}
        rendered = [
            render(d, loaded.tokenizer, loss=recipe.loss, end_of_turn=recipe.end_of_turn) for d in unique.values()
        ]
        contexts = [*plan.contexts, *(bare_context(kind) for kind in ("absent", "empty", "default", "assistant"))]
        findings = audit(
            rendered, loaded.tokenizer, contexts, probe_texts(plan.study),
            max_length=loaded.window, end_of_turn=recipe.end_of_turn,
        )  # fmt: skip
        if kept:
            write_json(kept, {"plan": digest, "findings": [as_dict(finding) for finding in findings]})
    return findings


@contextmanager
def claimed(folder: Path, study: Loaded) -> Generator[None]:
    """Hold a run directory. The lock is the operating system's, so that a dead process holds nothing."""
    _check_same_study(folder, study)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / "lock").open("a+")
    except OSError as error:
        raise StoreError(
            f"cannot write in the run directory {folder}: {error.strerror or error}; give another with --out"
        ) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            handle.seek(0)
            holder = handle.read().strip() or "another process"
            raise StoreError(
                f"{folder} is being written by {holder}; wait for it, or give another directory with --out"
            ) from error
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {platform.node()}")
        handle.flush()
        _write_header(folder, study)
        try:
            yield
        finally:
            handle.truncate(0)


def _check_same_study(folder: Path, study: Loaded) -> None:
    path = folder / "provenance.json"
    if path.is_file():
        other = read_json(path)
        if other.get("identity") != study.identity:
            raise StoreError(
                f"{folder} holds another study ({other.get('study')!r}, or {study.spec.name!r} with other settings); give another directory with --out"
            )
    elif folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise StoreError(f"{folder} is not a run directory and is not empty; give another directory with --out")


def _write_header(folder: Path, study: Loaded) -> None:
    if not (folder / "provenance.json").is_file():
        write_bytes(folder / "study.yaml", as_yaml(study).encode())
        write_json(folder / "personas.json", [as_dict(persona) for persona in study.personas])
        write_json(folder / "provenance.json", {"study": study.spec.name, "identity": study.identity, **provenance()})


def provenance() -> dict[str, Any]:
    """Git revision of the code, versions of what computes, the machine's kind."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed as a package"
    return {
        "revision": _revision(),
        "versions": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def _revision() -> str:
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
        return found.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "not a git checkout"


def collect(plan: Plan, folder: Path) -> None:
    """Put the tables of all complete cells together: measurements, similarities, personas."""
    directories = {cell: CellDir(folder / "cells" / cell.folder) for cell in plan.cells}
    frames = [d.measurements() for cell, d in directories.items() if cell.kind != "geometry" and d.complete]
    write_parquet(
        folder / "measurements.parquet", pl.concat(frames) if frames else pl.DataFrame(schema=MEASUREMENT_SCHEMA)
    )
    geometry = next(directory for cell, directory in directories.items() if cell.kind == "geometry")
    tokens: dict[str, int] = {}
    if geometry.complete:
        write_parquet(folder / "similarities.parquet", pl.read_parquet(geometry.path / "similarities.parquet"))
        tokens = geometry.manifest()["prompt_tokens"]
    facts = [
        {
            "persona": p.name, "category": p.category, "related_to": list(p.related_to), "prompt": p.prompt,
            "prompt_tokens": tokens.get(p.name),
        }
        for p in plan.study.personas
    ]  # fmt: skip
    schema = {
        "persona": pl.String, "category": pl.String, "related_to": pl.List(pl.String), "prompt": pl.String, "prompt_tokens": pl.Int64,
    }  # fmt: skip
    write_parquet(folder / "personas.parquet", pl.DataFrame(facts, schema=schema))


def dump(value: object) -> str:
    """JSON for a program to read."""
    return json.dumps(value, indent=1, ensure_ascii=False)
