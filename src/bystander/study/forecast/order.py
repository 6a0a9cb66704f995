"""In which order cells that are ready start, and how long a plan then takes: what the forecast, the status and the
scheduler have in common."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Protocol

Priority = tuple[int, float, int]  # the smallest starts first


class Ordered(Protocol):
    """What the order knows of a cell: its key and the keys of what must be complete before it starts."""

    @property
    def key(self) -> str:
        """Names it."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of cells that must be complete before it starts."""
        ...


def priorities(
    cells: Sequence[Ordered], seconds: Mapping[str, float], gate: str | None = None
) -> dict[str, Priority]:  # fmt: skip
    """Key -> when a cell's turn comes among those that are ready: what the cell `gate` waits for before all others;
    then by the longest chain of work that begins with the cell (the upward rank of Topcuoglu et al. 2002, HEFT); then
    as the plan has them. So what waits for nothing and on which nothing waits fills the gaps."""
    needs = {cell.key: cell.needs for cell in cells}
    chains = longest_chains(needs, seconds)
    first = _needed_by(gate, needs) if gate in needs else set[str]()
    return {cell.key: (int(cell.key not in first), -chains[cell.key], at) for at, cell in enumerate(cells)}


def longest_chains(needs: Mapping[str, Iterable[str]], seconds: Mapping[str, float]) -> dict[str, float]:
    """Key -> seconds of the longest chain of cells that begins with it, its own included."""
    chains = {key: seconds.get(key, 0.0) for key in needs}
    known = {key: [need for need in wants if need in chains] for key, wants in needs.items()}
    for key in reversed(list(TopologicalSorter(known).static_order())):
        for need in known[key]:
            chains[need] = max(chains[need], seconds.get(need, 0.0) + chains[key])
    return chains


def _needed_by(key: str, needs: Mapping[str, tuple[str, ...]]) -> set[str]:
    """The cell and everything that must be complete before it."""
    found: set[str] = set()
    left = [key]
    while left:
        one = left.pop()
        if one in needs and one not in found:
            found.add(one)
            left += needs[one]
    return found


def makespan(
    cells: Sequence[Ordered], seconds: Mapping[str, float], workers: int, gate: str | None = None,
    under_way: Collection[str] = (),
) -> float:  # fmt: skip
    """Seconds until the last cell is done when each free worker takes the ready cell whose turn it is: the order of the
    scheduler, which with one worker is the plan's. `under_way`: keys of cells that have begun; `seconds` has what is
    left of them. Cells that are needed and not among `cells` are complete."""
    if workers == 1:
        return sum(seconds.get(cell.key, 0.0) for cell in cells)
    turn = priorities(cells, seconds, gate)
    turn |= dict.fromkeys(under_way, (-1, 0.0, 0))
    waiting = {cell.key: {need for need in cell.needs if need in turn} for cell in cells}
    needed_by: dict[str, list[str]] = {}
    for key, wants in waiting.items():
        for need in wants:
            needed_by.setdefault(need, []).append(key)
    ready = [(turn[key], key) for key, wants in waiting.items() if not wants or key in under_way]
    heapq.heapify(ready)
    running: list[tuple[float, Priority, str]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < workers:
            when, key = heapq.heappop(ready)
            heapq.heappush(running, (now + seconds.get(key, 0.0), when, key))
        now, _, done = heapq.heappop(running)
        for key in needed_by.get(done, ()):
            waiting[key].discard(done)
            if not waiting[key]:
                heapq.heappush(ready, (turn[key], key))
    return now


def lower_bound(
    cells: Sequence[Ordered], seconds: Mapping[str, float], workers: int, gate: str | None = None
) -> float:  # fmt: skip
    """Seconds that no order can go below: the longest chain, the work over the workers, and, where a gate stands, its
    own longest way plus the work behind it over the workers."""
    needs = {cell.key: cell.needs for cell in cells}
    work = sum(seconds.get(key, 0.0) for key in needs)
    found = max(max(longest_chains(needs, seconds).values(), default=0.0), work / workers)
    if gate is None or gate not in needs:
        return found
    before = _needed_by(gate, needs)
    way = longest_chains({key: needs[key] for key in before}, seconds)
    behind = {gate}
    for key in TopologicalSorter(needs).static_order():
        if key in needs and behind.intersection(needs[key]):
            behind.add(key)
    after = sum(seconds.get(key, 0.0) for key in behind - {gate})
    return max(found, max(way.values()) + after / workers)
