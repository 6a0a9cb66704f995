"""Preflight: what can go wrong in the first minute is found before it. JSON for a program, an exit code for a script."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bystander.core.errors import BystanderError, StoreError
from bystander.study.config.study import ResolvedStudy
from bystander.study.forecast.forecast import Forecast
from bystander.study.forecast.open_settings import open_settings, refuse_open
from bystander.study.forecast.throughput import Shape, known_shape, shape_of
from bystander.study.plan.cells import Plan
from bystander.study.plan.requirements import Requirement, requirements
from bystander.study.store.lock import holder, versions
from bystander.study.store.run_dir import RunDir

DISK_MARGIN = 1.5  # what tables, temporary files and reports take beside the forecast
# Peak bytes a parameter on a GPU while a cell of the largest kind runs, in bfloat16, with what activations add (41 GiB
# for 7.6e9 parameters at 16 rows of 140 tokens: docs/performance.md).
BYTES_PER_PARAMETER = 41 * 2**30 / 7.62e9
# On a CPU in float32: the libraries (measured: 0.45 GiB), the weights, and what a micro-batch's backward pass keeps, in
# floats a token, a layer and a unit of hidden and inner size (measured with the embedded model: 13.6 to 17).
LIBRARIES, KEPT_FLOATS = 0.45 * 2**30, 17
CLOCK_FROM = 1_750_000_000  # June 2025: before this program existed, so a clock that shows less is wrong
NEEDED = {"torch": (2, 8), "transformers": (5, 0), "peft": (0, 18), "polars": (1, 30)}  # as pyproject.toml says


@dataclass(frozen=True, slots=True)
class Check:
    """One check: `message` says what was found, and where it is not ok what to do. `ok` None: it was not checked, and
    the message says why."""

    name: str
    ok: bool | None
    message: str


class _NotChecked(Exception):
    """Why a check was not made."""


def preflight(plan: Plan, run: RunDir, forecast: Forecast, *, holding: bool = True) -> list[Check]:
    """All checks for a launch of a plan into a run directory. `holding`: this process holds the directory already."""
    study = plan.study
    asked = requirements(plan)
    device = next(one for one in asked.all if one.name == "device")
    first: list[tuple[str, Callable[[], str]]] = [
        ("write access", lambda: _write_access(run.path)),
        ("other run", lambda: "this process holds it" if holding else _nobody(run)),
        ("disk", lambda: _disk(run.path, forecast.bytes)),
        ("memory", lambda: _memory(study, device)),
        ("open settings", lambda: _open(study)),
    ]
    last: list[tuple[str, Callable[[], str]]] = [
        ("data", lambda: _data(plan)),
        ("services", lambda: _services(plan)),
        ("versions", _versions),
        ("clock", lambda: _clock(run)),
    ]
    required = [_required(one) for one in asked.all]
    return [*(_check(*one) for one in first), *required, *(_check(*one) for one in last)]


def _required(one: Requirement) -> Check:
    """A requirement as a check."""
    if one.faults:
        return Check(one.name, False, "; ".join(one.faults))
    return Check(one.name, None, f"not checked: {one.unchecked}") if one.unchecked else Check(one.name, True, one.says)


def _check(name: str, one: Callable[[], str]) -> Check:
    try:
        return Check(name, True, one())
    except _NotChecked as why:
        return Check(name, None, f"not checked: {why}")
    except BystanderError as error:
        return Check(name, False, str(error))
    except OSError as error:
        return Check(name, False, f"{error.strerror or error}: {error.filename or ''}".strip(": "))


def passed(checks: Sequence[Check]) -> bool:
    """Whether no check failed; what was not checked did not."""
    return all(check.ok is not False for check in checks)


def refuse_failed(checks: Sequence[Check]) -> None:
    """Raises StoreError where a check failed, with all that did."""
    failed = [check for check in checks if check.ok is False]
    if failed:
        lines = "\n".join(f"  - {check.name}: {check.message}" for check in failed)
        raise StoreError(f"preflight failed, nothing was started:\n{lines}")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.resolve()
    while not folder.exists():
        folder = folder.parent
    return folder


def _write_access(folder: Path) -> str:
    where = _existing(folder)
    if not where.is_dir() or not os.access(where, os.W_OK | os.X_OK):
        raise StoreError(f"{where} cannot be written; give another directory with --out")
    return f"{where} can be written"


def _nobody(run: RunDir) -> str:
    who = holder(run)
    if who:
        raise StoreError(f"{run.path} is being written by {who}; wait for it, or give another directory with --out")
    return "nobody holds the directory"


def _disk(folder: Path, needed: float) -> str:
    free = shutil.disk_usage(_existing(folder)).free
    wanted = needed * DISK_MARGIN
    if free < wanted:
        raise StoreError(
            f"{wanted / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free; free some, or --out elsewhere"
        )
    return f"{wanted / 1e9:.2f} GB needed, {free / 1e9:.1f} GB free"


def _memory(study: ResolvedStudy, device: Requirement) -> str:
    if device.faults or device.unchecked:
        raise _NotChecked(device.unchecked or "the device is not there")
    model = study.spec.model
    kind, free = _free_memory(model.device)
    if not known_shape(model.name):
        raise _NotChecked(f"the model's size is not known here; {free / 2**30:.1f} GiB of {kind} memory are free")
    wanted = _needed_memory(shape_of(model.name), kind)
    if free < wanted:
        raise StoreError(
            f"the largest cell needs about {wanted / 2**30:.1f} GiB of {kind} memory, {free / 2**30:.1f} GiB are free; "
            "stop what else uses it, take a smaller model, or run on another machine"
        )
    return f"{wanted / 2**30:.1f} GiB of {kind} memory needed, {free / 2**30:.1f} GiB free"


def _open(study: ResolvedStudy) -> str:
    """What `run` refuses to start with."""
    questions = open_settings(study)
    refuse_open(questions)
    return f"none blocks; {len(questions)} have a default (`bystander plan` lists them)"


def _needed_memory(shape: Shape, kind: str) -> float:
    """Bytes that the largest cell takes at its peak."""
    if kind == "cuda":
        return shape.parameters * BYTES_PER_PARAMETER
    from bystander.train.loop import MICRO_TOKENS

    kept = MICRO_TOKENS["cpu"] * shape.layers * (shape.hidden + shape.inner) * KEPT_FLOATS
    return LIBRARIES + 4 * (shape.parameters + kept)


def _free_memory(device: str) -> tuple[str, float]:
    import torch

    if device.startswith("cuda") or (device == "auto" and torch.cuda.is_available()):
        place = torch.device(device if device != "auto" else "cuda:0")
        return "cuda", float(torch.cuda.mem_get_info(place)[0])
    pages, size = os.sysconf("SC_AVPHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    free = float(pages * size)
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():  # what the page cache holds is free for the asking
        line = next((row for row in meminfo.read_text().splitlines() if row.startswith("MemAvailable:")), "")
        free = max(free, float(line.split()[1]) * 1024 if line else 0.0)
    return "cpu", free


def _data(plan: Plan) -> str:
    designs = plan.parts.designs()
    rows = sum(len(design.rows) for design in designs)
    return f"{len(designs)} designs, {rows:,} rows, {len(plan.probes)} probes"


def _services(plan: Plan) -> str:
    said = [probe.check_model([plan.study.spec.model.name]) for probe in plan.probes.values()]
    return "; ".join(filter(None, said)) or "no judge is asked"


def _versions() -> str:
    found = versions()
    old = [
        (name, f"{name} {found[name]} (needs {'.'.join(map(str, least))})")
        for name, least in NEEDED.items()
        if _numbers(found[name]) < least
    ]
    if old:
        names = " ".join(name for name, _ in old)
        raise StoreError(f"too old: {', '.join(said for _, said in old)}; pip install --upgrade {names}")
    return ", ".join(f"{name} {found[name]}" for name in NEEDED)


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split("+", maxsplit=1)[0].split(".")[:2]
    return tuple(int(part) if part.isdigit() else 0 for part in parts)


def _clock(run: RunDir) -> str:
    """The clock is plausible, and not behind what this run has written already: events would be out of order."""
    now = time.time()
    if now < CLOCK_FROM:
        raise StoreError(f"the clock shows {time.strftime('%Y-%m-%d', time.gmtime(now))}; set it")
    events = run.events_file
    if events.is_file() and events.stat().st_mtime > now + 60:
        raise StoreError(f"the clock is behind {events}, which was written in its future; set it")
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
