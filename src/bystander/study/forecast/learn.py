"""What the cells that are done say of those that are not: how much longer each sort of cell takes than was forecast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from bystander.study.store.records import Event, PlannedCell

# Cells that what is known of a whole kind (of all) counts for, against those of the sort (the kind) itself.
BELIEF = 0.5


@dataclass(frozen=True, slots=True)
class Speeds:
    """How many times the published forecast cells take: by sort, by kind, and over all."""

    sorts: Mapping[str, float] = field(default_factory=dict[str, float])
    kinds: Mapping[str, float] = field(default_factory=dict[str, float])
    all: float = 1.0

    def of(self, sort: str, kind: str) -> float:
        """For a cell: that of its sort, else of its kind, else of all."""
        return self.sorts.get(sort, self.kinds.get(kind, self.all))


AS_PUBLISHED = Speeds()


def learned(cells: Sequence[PlannedCell], took: Mapping[str, float]) -> Speeds:
    """What the seconds that cells took, by key, say. A sort's is the median of its cells' (a worker's first of a sort
    compiles, and one such must not tell of all), drawn to its kind's while there are few; a kind's likewise to that of
    all. A sort of which none is done has its kind's; a kind of which none is done that of all."""
    ratios: dict[str, list[float]] = {}
    kinds: dict[str, list[float]] = {}
    for cell in cells:
        if cell.key in took and cell.seconds > 0:
            ratio = took[cell.key] / cell.seconds
            ratios.setdefault(cell.sort or cell.kind, []).append(ratio)
            kinds.setdefault(cell.kind, []).append(ratio)
    if not ratios:
        return AS_PUBLISHED
    known = {cell.key: took[cell.key] for cell in cells if cell.key in took and cell.seconds > 0}
    total = sum(known.values()) / sum(cell.seconds for cell in cells if cell.key in known)
    of_kind = {kind: _drawn(found, total) for kind, found in kinds.items()}
    kind_of = {cell.sort or cell.kind: cell.kind for cell in cells}
    return Speeds({sort: _drawn(found, of_kind[kind_of[sort]]) for sort, found in ratios.items()}, of_kind, total)


def _drawn(ratios: Sequence[float], towards: float) -> float:
    return (len(ratios) * median(ratios) + BELIEF * towards) / (len(ratios) + BELIEF)


def seconds_taken(events: Iterable[Event]) -> dict[str, float]:
    """Cell key -> seconds of its worker, without those in which the worker itself began; cut-off tries do not count."""
    done = (event for event in events if event.kind == "cell done" and "seconds" in event.details)
    return {e.key: max(0.0, float(e.details["seconds"]) - float(e.details.get("start", 0.0))) for e in done}
