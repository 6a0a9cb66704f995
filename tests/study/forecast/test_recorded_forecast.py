"""The forecast against a study that was run (`tests/support/recorded_study.py`), and what it learns while one runs."""

from __future__ import annotations

import heapq

import pytest

from bystander.core.work import Work
from bystander.results.status import time_left
from bystander.study.forecast.forecast import seconds_of
from bystander.study.forecast.learn import learned
from bystander.study.forecast.order import priorities
from bystander.study.forecast.throughput import SHAPES, Rates, published
from bystander.study.store.records import PlannedCell, SavedPlan
from tests.support.recorded_study import FIRST, GATE, WORKERS, Recorded, recorded, warm

SHAPE = SHAPES["Qwen/Qwen2.5-1.5B-Instruct"]
SHARE = 0.5  # two processes a GPU


def forecast(cell: Recorded, rates: Rates, cells: dict[str, Recorded]) -> float:
    batch = 4 if "-direct-" in cell.name else 16
    rows = {"choice": 811 * 2.5, "margin": 100, "judged": 24}  # measured a context
    probe = cell.sort.rsplit(" ", 1)[-1]
    measured = cell.contexts * rows[probe] if cell.kind == "evaluate" else 0
    probed = 3 * 9 * sum(rows.values()) if cell.phase == 2 else 0
    gathered = sum(
        cells[need].contexts * rows.get(cells[need].sort.rsplit(" ", 1)[-1], 0)
        for need in cell.needs if cells[need].kind == "evaluate"
    )  # fmt: skip
    work = Work(
        cell.scored, cell.trained, cell.sampled,
        measurements=measured + probed,
        steps=cell.epochs * -(-cell.rows // batch),
        distributions=111 * 24 if cell.kind == "geometry" else 0,
        designed=24_000 if cell.kind == "data" else 0,
        gathered=gathered if cell.kind == "gate" else 0,
    )  # fmt: skip
    return seconds_of(work, rates, SHAPE, SHARE)


@pytest.fixture(scope="module")
def forecasts() -> dict[str, float]:
    rates, cells = published("h200", SHAPE), {cell.key: cell for cell in recorded()}
    return {cell.key: forecast(cell, rates, cells) for cell in cells.values()}


@pytest.mark.parametrize("by", ["kind", "sort"])
def test_the_forecast_is_within_a_half_of_what_was_spent_by_kind_and_by_sort(by: str, forecasts: dict[str, float]):
    cells = recorded()
    found: dict[str, tuple[float, float]] = {}
    for cell in cells:
        # The geometry of then compared 2,664 distributions with numpy, on the host.
        if cell.seconds is not None and cell.kind != "geometry":
            ours, theirs = found.get(getattr(cell, by), (0.0, 0.0))
            found[getattr(cell, by)] = ours + forecasts[cell.key], theirs + warm(cells)[cell.key]
    ratios = {name: round(ours / theirs, 2) for name, (ours, theirs) in found.items()}
    assert all(1 / 1.5 < ratio < 1.5 for ratio in ratios.values()), ratios


def test_a_geometry_that_compares_distributions_where_they_lie():
    """111 personas and the bare contexts, 24 questions, five sources, 1.5B on an H200, three processes a GPU: 25 and 39 s
    (2026-11-28)."""
    work = Work(scored=115 * 24 * 60, distributions=115 * 24)
    took = seconds_of(work, published("h200", SHAPE), SHAPE, 1 / 3)
    assert 25 / 1.5 < took < 39 * 1.5


def test_a_training_of_a_small_model_is_launches_and_of_a_large_one_arithmetic():
    """`bench train` on one H100, 16 rows of 140 tokens: 135 rows/s at 1.5B, 116 at 7B (2026-11-27)."""
    step = Work(trained=100 * 16 * 140, steps=100)
    for name, rows in (("1.5B", 135), ("7B", 116)):
        shape = SHAPES[f"Qwen/Qwen2.5-{name}-Instruct"]
        rates = published("h100", shape)
        took = seconds_of(step, rates, shape) - rates.overheads.cell
        assert 1600 / took == pytest.approx(rows, rel=0.05)
        joint = seconds_of(step, rates, shape, joint=8) - rates.overheads.cell
        assert 1600 / joint == pytest.approx({"1.5B": 558, "7B": 113}[name], rel=0.05), "all arithmetic"


def test_scoring_has_the_hosts_share_on_top_of_arithmetic():
    """`bench score --batched --prompt-tokens 130 --personas 111 --items 40`: 834 and 370 questions/s (2026-11-27)."""
    work = Work(scored=111 * (35 + 40 * 95), measurements=111 * 40 * 2.5)
    for name, questions in (("1.5B", 834), ("7B", 370)):
        shape = SHAPES[f"Qwen/Qwen2.5-{name}-Instruct"]
        took = seconds_of(work, published("h100", shape), shape) - 1.2
        assert 111 * 40 / took == pytest.approx(questions, rel=0.2)


def played(
    forecasts: dict[str, float], at: float
) -> tuple[SavedPlan, list[str], dict[str, float], dict[str, float], float]:
    """The study on eight workers until the share `at` of its cells is done: the plan, who is left, what the others took,
    since when some run, and how long it went on."""
    cells = recorded()
    truth = warm(cells)
    turn = priorities(cells, forecasts, GATE)
    waiting = {cell.key: set(cell.needs) for cell in cells}
    ready = [(turn[key], key) for key, wants in waiting.items() if not wants]
    heapq.heapify(ready)
    running: list[tuple[float, float, str]] = []
    now, took, looked = 0.0, {}, None
    while ready or running:
        while ready and len(running) < WORKERS:
            _, key = heapq.heappop(ready)
            first = FIRST if len(took) + len(running) < WORKERS else 0.0
            heapq.heappush(running, (now + truth[key] + first, now, key))
        now, _, done = heapq.heappop(running)
        took[done] = truth[done]  # the worker says what its start took
        for key, wants in waiting.items():
            if done in wants:
                wants.discard(done)
                if not wants:
                    heapq.heappush(ready, (turn[key], key))
        if looked is None and len(took) >= at * len(cells):
            looked = now, dict(took), {key: now - since for _, since, key in running}
    assert looked is not None
    planned = tuple(
        PlannedCell(c.key, c.name, c.kind, c.phase, forecasts[c.key], c.needs, c.sort) for c in cells
    )  # fmt: skip
    plan = SavedPlan("0" * 64, "qwen15", False, 0.0, None, WORKERS, "published", planned)
    left = [cell.key for cell in cells if cell.key not in looked[1]]
    return plan, left, looked[1], looked[2], now - looked[0]


@pytest.mark.parametrize("at", [0.2, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("wrong", [1.0, 4.0])
def test_the_time_left_is_within_0_3_after_the_first_fifth(forecasts: dict[str, float], at: float, wrong: float):
    """Also where the forecast of the machine is off by a factor: that is learned."""
    off = {key: seconds / wrong for key, seconds in forecasts.items()}
    plan, left, took, begun, truth = played(off, at)
    found = time_left([cell for cell in plan.cells if cell.key in left], plan, took, begun)
    assert 1 / 1.3 < found / truth < 1.3, (found, truth)


def test_what_is_learned_of_one_sort_stands_for_its_kind_until_that_is_known():
    def cell(key: str, kind: str, sort: str, seconds: float = 10.0) -> PlannedCell:
        return PlannedCell(key, key, kind, 1, seconds, (), sort)

    cells = [cell("a", "train", "sweep"), cell("b", "train", "train"), cell("c", "evaluate", "evaluate base choice")]
    assert learned(cells, {}).of("sweep", "train") == 1.0
    speeds = learned(cells, {"a": 30.0})
    assert speeds.of("sweep", "train") == pytest.approx(3.0)
    assert speeds.of("train", "train") == pytest.approx(3.0), "another sort of its kind"
    assert speeds.of("evaluate base choice", "evaluate") == pytest.approx(3.0), "another kind"
    both = learned(cells, {"a": 30.0, "c": 10.0})
    assert both.of("evaluate base choice", "evaluate") < both.of("train", "train")
    loaded = [cell(str(i), "evaluate", "s") for i in range(5)]
    assert learned(loaded, {"0": 90.0} | {str(i): 10.0 for i in range(1, 5)}).of("s", "evaluate") < 1.3
