"""Sampling and what is done with the answers side by side: while a judge is asked about one group the next is sampled."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from bystander.core.records import Completion
from bystander.probe.base import ProbeUnit

if TYPE_CHECKING:
    from bystander.lm.model import LoadedModel
    from bystander.lm.sample import SampleRequest

T = TypeVar("T")


def sampled_units(
    loaded: LoadedModel,
    name: str,
    requests: Sequence[SampleRequest],
    group: int,
    done: Collection[str],
    *,
    temperature: float,
    max_tokens: int,
) -> Iterator[tuple[str, list[Completion]]]:
    """The key `name/number` and the answers of each `group` requests, in order, but for those whose key is `done`."""
    from bystander.lm.sample import sample_groups  # here: it loads torch, which plans and rows do without

    finished = {int(key.removeprefix(f"{name}/")) for key in done if key.startswith(f"{name}/")}
    groups = sample_groups(loaded, requests, group, finished, temperature=temperature, max_tokens=max_tokens)
    for number, completions in groups:
        yield f"{name}/{number}", completions


def overlapped(
    name: str,
    groups: Iterable[tuple[str, list[Completion]]],
    measured: Callable[[list[Completion]], T],
    unit: Callable[[str, list[Completion], T], ProbeUnit],
) -> Iterator[ProbeUnit]:
    """A unit a group, in order. `groups` (keys and answers) are sampled in this thread as they are asked for; `measured` works
    on them in another, which `name` names; what it raises is raised before its unit is yielded."""
    with ThreadPoolExecutor(1, f"bystander-{name}") as pool:
        pending: tuple[str, list[Completion], Future[T]] | None = None
        for key, completions in groups:
            if pending is not None:
                before, answers, future = pending
                yield unit(before, answers, future.result())
            pending = (key, completions, pool.submit(measured, completions))
        if pending is not None:
            before, answers, future = pending
            yield unit(before, answers, future.result())
