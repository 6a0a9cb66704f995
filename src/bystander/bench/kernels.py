"""Where a GPU's time goes, by kind of kernel, from torch's profiler."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

# The first that a kernel's name matches. Products with the base's weights and with the head are one kind: they have the
# same kernels.
KINDS = (
    ("adapters' grouped products", r"group.*gemm|gemm.*group|GroupProblemShape|PtrArray|grouped_mm"),
    ("attention", r"flash|fmha|attention"),
    ("base and head products", r"gemm|nvjet|cutlass|xmma|cublas|splitK|gemv"),
    ("loss", r"softmax|nll_loss|cross_entropy"),
    ("optimizer", r"multi_tensor|adam"),
    ("fused by the compiler", r"^triton"),
    ("copies", r"memcpy|memset|copy"),
    ("other", r""),
)


@dataclass(frozen=True, slots=True)
class KernelTimes:
    """Milliseconds a turn: `by_kind`, those of each name in `by_name` with its launches a turn; the device's `span`
    from the first kernel to the last, how long of it no kernel ran (`idle`), and how long the host took to hand a turn's
    work over (`host`)."""

    by_kind: dict[str, float]
    by_name: list[tuple[str, float, float]]
    span: float
    idle: float
    host: float

    def lines(self, names: int = 20) -> list[str]:
        """A table to print."""
        kinds = [
            f"{kind:32} {ms:9.2f} ms {ms / self.span:6.1%}"
            for kind, ms in [*self.by_kind.items(), ("no kernel running", self.idle)]
        ]
        top = [f"  {ms:9.3f} ms {count:8.1f} x  {name[:140]}" for name, ms, count in self.by_name[:names]]
        return [f"a turn: device {self.span:.1f} ms, host hands it over in {self.host:.1f} ms", *kinds, *top]


def kernel_times(turn: Callable[[], float], turns: int) -> KernelTimes:
    """Profile `turns` calls of `turn`, which returns the seconds that the host took to hand its work over."""
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        host = sum(turn() for _ in range(turns))
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(file))
        events = json.loads(file.read_text())["traceEvents"]
    return summed(events, turns, host)


def summed(events: Sequence[dict[str, Any]], turns: int, host_seconds: float) -> KernelTimes:
    """Times of a trace's events a turn; microseconds there, milliseconds here."""
    ran = [event for event in events if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
    by_kind = dict.fromkeys((kind for kind, _ in KINDS), 0.0)
    by_name: Counter[str] = Counter()
    launches: Counter[str] = Counter()
    for event in ran:
        name, ms = str(event["name"]), float(event["dur"]) / 1000 / turns
        by_kind[next(kind for kind, pattern in KINDS if re.search(pattern, name, re.IGNORECASE))] += ms
        by_name[name] += ms  # pyright: ignore[reportArgumentType] a Counter of floats
        launches[name] += 1
    span, busy = _span_and_busy([(float(event["ts"]), float(event["dur"])) for event in ran])
    return KernelTimes(
        by_kind,
        [(name, ms, launches[name] / turns) for name, ms in by_name.most_common()],
        span / 1000 / turns,
        (span - busy) / 1000 / turns,
        host_seconds * 1000 / turns,
    )


def _span_and_busy(intervals: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """From the first start to the last end, and how much of it some interval (start, length) covers."""
    busy = end = 0.0
    ordered = sorted(intervals)
    for start, length in ordered:
        busy += max(0.0, start + length - max(start, end))
        end = max(end, start + length)
    return (end - ordered[0][0], busy) if ordered else (0.0, 0.0)
