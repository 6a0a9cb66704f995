"""The forecast: what a plan will cost, cell by cell, phase by phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bystander.core.work import Work
from bystander.study.forecast.order import makespan
from bystander.study.forecast.throughput import Rates, Shape
from bystander.study.forecast.workload import Counter, Workload
from bystander.study.plan.cells import PHASES, Cell, Plan

CELL_SECONDS = 0.5  # putting an adapter on, canary, hashing and writing, whatever the cell does
LOAD_BYTES_PER_SECOND = 1e9  # a base model from a local disk into memory


@dataclass(frozen=True, slots=True)
class CellCost:
    """One cell's forecast; `seconds` of one worker's device."""

    key: str
    name: str
    kind: str
    phase: int
    seconds: float
    work: Work
    bytes: float
    complete: bool
    trained: bool  # it is about a trained model


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
    """`hours` are device hours of what is not complete; `wall_hours` on `workers` workers; `dollars` the judge's."""

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

    @property
    def todo(self) -> list[CellCost]:
        """The cells that are not complete."""
        return [cell for cell in self.cells if not cell.complete]

    def hours_through(self, phase: int) -> float:
        """Device hours until that phase is over."""
        return sum(cost.hours for cost in self.phases if cost.phase <= phase)

    def hours_to_first_signal(self) -> float:
        """Device hours until the first trained model has been probed, cells in the plan's order."""
        total = 0.0
        for cell in self.cells:
            total += 0.0 if cell.complete else cell.seconds / 3600
            if cell.kind == "evaluate" and cell.trained:
                return total
        return total


def forecast(
    plan: Plan, complete: set[str], rates: Rates, shape: Shape, counter: Counter, *, workers: int,
    dollars: float = 0.0, dollars_note: str = "",
) -> Forecast:  # fmt: skip
    """The forecast of a plan, given which cells are complete."""
    workload = Workload(plan, counter)
    cells = tuple(_cost(cell, plan, complete, rates, shape, workload) for cell in plan.cells)
    numbers = sorted({cost.phase for cost in cells})
    phases = tuple(_phase(number, [c for c in cells if c.phase == number]) for number in numbers)
    needs = {cell.key: cell.needs for cell in plan.cells}
    todo = [cost for cost in cells if not cost.complete]
    gate = None if plan.gate is None else plan.gate.key
    left = [cell for cell in plan.cells if cell.key not in complete]
    wall = makespan(left, {cost.key: cost.seconds for cost in todo}, workers, gate) + (
        shape.parameters * 4 / LOAD_BYTES_PER_SECOND if todo else 0
    )
    hours = sum(cost.seconds for cost in todo) / 3600
    size = sum(cost.bytes for cost in todo)
    return Forecast(
        rates, counter.how, cells, phases, hours, wall / 3600, workers, size, dollars, dollars_note, needs
    )  # fmt: skip


def _cost(cell: Cell, plan: Plan, complete: set[str], rates: Rates, shape: Shape, workload: Workload) -> CellCost:
    work = workload.of(cell)
    seconds = work.scored / rates.scored + work.trained / rates.trained + work.sampled / rates.sampled
    size = work.bytes_written
    if cell.kind == "train":
        assert cell.training is not None
        adapter = shape.adapter_bytes(plan.recipes[cell.training].lora.rank)
        # While it trains the cell also keeps two states of weights and two moments each; the peak is what must fit.
        size += adapter
    return CellCost(
        cell.key, cell.name, cell.kind, cell.phase, seconds + (CELL_SECONDS if seconds else 0.0), work, size,
        cell.key in complete, cell.training is not None,
    )  # fmt: skip


def _phase(number: int, cells: Sequence[CellCost]) -> PhaseCost:
    todo = [cell for cell in cells if not cell.complete]
    work = sum((cell.work for cell in todo), Work())
    return PhaseCost(
        number, PHASES.get(number, str(number)), len(cells), len(cells) - len(todo),
        sum(cell.seconds for cell in todo) / 3600, work, sum(cell.bytes for cell in todo),
    )  # fmt: skip
