"""Sampling and what is done with the answers side by side: while a judge is asked about one group the next is sampled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from bystander.core.records import Completion
from bystander.probe.base import ProbeUnit

T = TypeVar("T")


def overlapped(
    name: str,
    groups: Iterable[tuple[int, list[Completion]]],
    measured: Callable[[list[Completion]], T],
    unit: Callable[[str, list[Completion], T], ProbeUnit],
) -> Iterator[ProbeUnit]:
    """A unit `name/number` a group, in order. `groups` are sampled in this thread as they are asked for; `measured` works
    on them in another; what it raises is raised before its unit is yielded."""
    with ThreadPoolExecutor(1, f"bystander-{name}") as pool:
        pending: tuple[str, list[Completion], Future[T]] | None = None
        for number, completions in groups:
            if pending is not None:
                before, answers, future = pending
                yield unit(before, answers, future.result())
            pending = (f"{name}/{number}", completions, pool.submit(measured, completions))
        if pending is not None:
            before, answers, future = pending
            yield unit(before, answers, future.result())


def done_groups(name: str, done: Iterable[str]) -> set[int]:
    """The numbers in those keys of units that are `name/number`."""
    return {int(key.removeprefix(f"{name}/")) for key in done if key.startswith(f"{name}/")}
