"""The forecast: what a plan will cost, cell by cell, phase by phase."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bystander.core.work import Work
from bystander.study.forecast.learn import AS_PUBLISHED, Speeds
from bystander.study.forecast.order import makespan
from bystander.study.forecast.throughput import CONTENTION, Rates, Shape
from bystander.study.forecast.workload import Counter, Workload
from bystander.study.plan.cells import PHASES, Cell, Plan

LOAD_BYTES_PER_SECOND = 1e9  # a base model from a local disk into memory


@dataclass(frozen=True, slots=True)
class CellCost:
    """One cell's forecast; `seconds` of one worker, as learned from the cells that are done; `published`: the same from
    the machine's figures alone."""

    key: str
    name: str
    kind: str
    phase: int
    seconds: float
    work: Work
    bytes: float
    complete: bool
    trained: bool  # it is about a trained model
    sort: str
    published: float


@dataclass(frozen=True, slots=True)
class PhaseCost:
    """A phase's cells and what those that are not complete will cost."""

    phase: int
    name: str
    cells: int
    complete: int
    hours: float
    work: Work
    bytes: float


@dataclass(frozen=True)
class Forecast:
    """`hours` are device hours of what is not complete; `wall_hours` on `workers` workers, each of which has the part
    `share` of a device; `dollars` the judge's."""

    rates: Rates
    counted: str
    cells: tuple[CellCost, ...]
    phases: tuple[PhaseCost, ...]
    hours: float
    wall_hours: float
    workers: int
    bytes: float
    dollars: float
    dollars_note: str = ""
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    share: float = 1.0

    @property
    def todo(self) -> list[CellCost]:
        """The cells that are not complete."""
        return [cell for cell in self.cells if not cell.complete]

    @property
    def device_hours(self) -> dict[str, float]:
        """Device hours of every cell, by key."""
        return {cell.key: cell.seconds * self.share / 3600 for cell in self.cells}

    def hours_through(self, phase: int) -> float:
        """Device hours until that phase is over."""
        return sum(cost.hours for cost in self.phases if cost.phase <= phase)

    def hours_to_first_signal(self) -> float:
        """Device hours until the first trained model has been probed, cells in the plan's order."""
        total = 0.0
        for cell in self.cells:
            total += 0.0 if cell.complete else cell.seconds * self.share / 3600
            if cell.kind == "evaluate" and cell.trained:
                return total
        return total


def forecast(
    plan: Plan, complete: set[str], rates: Rates, shape: Shape, counter: Counter, *, workers: int,
    dollars: float = 0.0, dollars_note: str = "", share: float = 1.0, together: int = 1,
    speeds: Speeds = AS_PUBLISHED,
) -> Forecast:  # fmt: skip
    """The forecast of a plan, given which cells are complete. `share`: of a device, what a worker has; `together`: the
    trainings that one does in joint passes; `speeds`: what the cells that are done say of the figures."""
    workload = Workload(plan, counter)
    trainings = sum(cell.kind == "train" and cell.key not in complete for cell in plan.cells)
    joint = max(1, min(together, math.ceil(trainings / workers)))
    cells = tuple(_cost(cell, plan, complete, rates, shape, workload, share, joint, speeds) for cell in plan.cells)
    numbers = sorted({cost.phase for cost in cells})
    phases = tuple(_phase(number, [c for c in cells if c.phase == number], share) for number in numbers)
    needs = {cell.key: cell.needs for cell in plan.cells}
    todo = [cost for cost in cells if not cost.complete]
    gate = None if plan.gate is None else plan.gate.key
    left = [cell for cell in plan.cells if cell.key not in complete]
    wall = makespan(left, {cost.key: cost.seconds for cost in todo}, workers, gate)
    if todo:
        wall += max(rates.overheads.start, shape.parameters * 4 / LOAD_BYTES_PER_SECOND)
    hours = sum(cost.seconds for cost in todo) * share / 3600
    size = sum(cost.bytes for cost in todo)
    return Forecast(
        rates, counter.how, cells, phases, hours, wall / 3600, workers, size, dollars, dollars_note, needs, share
    )  # fmt: skip


def seconds_of(work: Work, rates: Rates, shape: Shape, share: float = 1.0, joint: int = 1) -> float:
    """Seconds that one worker takes for `work`: arithmetic at its share of the device, launches and the host's own
    work beside or on top of it. `joint`: trainings in one pass, of which this is one; their launches are shared."""
    more = rates.overheads
    crowded = 1 + CONTENTION * (1 / share - 1)
    launched = work.steps * more.step * crowded / joint
    device = (work.scored / rates.scored + work.sampled / rates.sampled) / share
    trained = max(launched, work.trained / rates.trained / share)  # the device works while the host launches
    host = work.measurements * more.row + work.distributions * shape.vocabulary * more.logit
    host += work.designed * more.designed + work.gathered * more.gathered
    if not device + trained:
        return host
    return device + trained + host + more.cell + (more.capture if work.sampled else 0.0)


def _cost(
    cell: Cell, plan: Plan, complete: set[str], rates: Rates, shape: Shape, workload: Workload, share: float,
    joint: int, speeds: Speeds,
) -> CellCost:  # fmt: skip
    work = workload.of(cell)
    published = seconds_of(work, rates, shape, share, joint if cell.kind == "train" else 1)
    size = work.bytes_written
    if cell.kind == "train":
        assert cell.training is not None
        adapter = shape.adapter_bytes(plan.recipes[cell.training].lora.rank)
        # While it trains the cell also keeps two states of weights and two moments each; the peak is what must fit.
        size += adapter
    return CellCost(
        cell.key, cell.name, cell.kind, cell.phase, published * speeds.of(cell.sort, cell.kind), work, size,
        cell.key in complete, cell.training is not None, cell.sort, published,
    )  # fmt: skip


def _phase(number: int, cells: Sequence[CellCost], share: float) -> PhaseCost:
    todo = [cell for cell in cells if not cell.complete]
    work = sum((cell.work for cell in todo), Work())
    return PhaseCost(
        number, PHASES.get(number, str(number)), len(cells), len(cells) - len(todo),
        sum(cell.seconds for cell in todo) * share / 3600, work, sum(cell.bytes for cell in todo),
    )  # fmt: skip
