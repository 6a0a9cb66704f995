"""Sampling and what is done with the answers side by side: while a judge is asked about one group the next is sampled."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from bystander.core.records import Completion
from bystander.probe.base import ProbeUnit

T = TypeVar("T")


def overlapped(
    name: str,
    keys: Sequence[str],
    done: Collection[str],
    sampled: Callable[[int], list[Completion]],
    measured: Callable[[list[Completion]], T],
    unit: Callable[[str, list[Completion], T], ProbeUnit],
) -> Iterator[ProbeUnit]:
    """The units of `keys` that are not `done`, in order. `sampled` gives the answers of the group at an index, in this
    thread; `measured` works on them in another; what it raises is raised before its unit is yielded."""
    with ThreadPoolExecutor(1, f"bystander-{name}") as pool:
        pending: tuple[str, list[Completion], Future[T]] | None = None
        for index, key in enumerate(keys):
            if key in done:
                continue
            completions = sampled(index)
            if pending is not None:
                before, answers, future = pending
                yield unit(before, answers, future.result())
            pending = (key, completions, pool.submit(measured, completions))
        if pending is not None:
            before, answers, future = pending
            yield unit(before, answers, future.result())
