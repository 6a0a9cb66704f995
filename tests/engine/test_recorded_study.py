"""The scheduler on a study that was run: 169 cells, eight workers, durations as measured. Time passes only as cells end."""

from __future__ import annotations

import heapq
from pathlib import Path

import pytest

from bystander.engine.executor import Attempt, Executor, Outcome
from bystander.engine.executor_processes import ProcessSettings
from bystander.engine.scheduler import Together, in_order, schedule
from bystander.engine.shutdown import Stop
from bystander.study.forecast.order import lower_bound, makespan, priorities
from tests.support.recorded_study import GATE, WORKERS, Recorded, durations, recorded


class Simulated(Executor):
    """Workers whose attempts take as long as `seconds` says, on a clock of its own."""

    Settings = ProcessSettings
    in_process = False
    worker_died = ()

    def __init__(self, seconds: dict[str, float], slots: int) -> None:
        self.seconds, self.slots = seconds, slots
        self.now, self.busy = 0.0, 0.0
        self.running: list[tuple[float, int, Attempt]] = []
        self.started: dict[str, float] = {}

    def submit(self, attempt: Attempt) -> None:
        took = max(self.seconds[one.key] for one in attempt.all)
        self.busy += took
        self.started |= dict.fromkeys([one.key for one in attempt.all], self.now)
        heapq.heappush(self.running, (self.now + took, len(self.started), attempt))

    def wait(self, seconds: float) -> list[Outcome]:
        before = self.now
        self.now, _, attempt = heapq.heappop(self.running)
        return [Outcome(attempt, self.now - before)]

    def close(self) -> None: ...


class Nobody:
    def started(self, attempt): ...
    def done(self, outcome): ...
    def failed(self, outcome, again):
        raise AssertionError(outcome)

    def cut_off(self, attempt, seconds): ...


def run(cells: list[Recorded], seconds: dict[str, float], believed: dict[str, float] | None = None, **more):
    """The study in the scheduler's order, where the forecast says `believed`."""
    executor = more.pop("executor", None) or Simulated(seconds, WORKERS)

    def turns(todo):
        return priorities(todo, believed or seconds, GATE)

    free = [cell for cell in cells if cell.phase <= 1 or cell.name.startswith("base-")]
    more = {"turns": turns, **more}
    summary = schedule(
        free, (), executor, Nobody(), Stop(),
        then=lambda key: (cells, set()) if key == GATE else None, **more,
    )  # fmt: skip
    assert len(summary.done) == len(cells) == 169
    return executor


def test_the_makespan_is_within_a_tenth_of_the_lower_bound():
    cells = recorded()
    seconds = durations(cells)
    least = lower_bound(cells, seconds, WORKERS, GATE)
    executor = run(cells, seconds)
    idle = 1 - executor.busy / (WORKERS * executor.now)
    assert executor.now <= 1.1 * least
    assert idle < 0.1
    assert executor.busy == pytest.approx(sum(seconds.values()))


def test_the_order_of_the_plan_is_what_it_is_better_than():
    """What was: the plan's order, each sweep training behind the geometry, nothing beside the gate."""
    cells = recorded()
    seconds = durations(cells)
    before = [
        Recorded(**{**vars(c), "needs": (*c.needs, "geometry")}) if c.kind == "train" else c
        for c in cells if not c.name.startswith("base-rest")
    ]  # fmt: skip
    free = [cell for cell in before if cell.phase <= 1]
    executor = Simulated(seconds, WORKERS)
    schedule(
        free, (), executor, Nobody(), Stop(), turns=in_order,
        then=lambda key: (before, set()) if key == GATE else None,
    )  # fmt: skip
    assert run(cells, seconds).now < 0.95 * executor.now, "though it does the three base evaluations beside"


def test_the_order_stands_when_the_forecast_is_wrong_by_half():
    cells = recorded()
    seconds = durations(cells)
    believed = {key: took * (0.67 if at % 2 else 1.5) for at, (key, took) in enumerate(seconds.items())}
    assert run(cells, seconds, believed).now <= 1.15 * lower_bound(cells, seconds, WORKERS, GATE)


def test_trainings_of_the_sweep_wait_for_nothing_and_base_evaluations_fill_gaps():
    cells = recorded()
    executor = run(cells, durations(cells))
    sweeps = [cell for cell in cells if cell.sort == "sweep"]
    assert [cell.needs for cell in sweeps] == [()] * 10
    assert sum(executor.started[cell.key] == 0 for cell in sweeps) >= 7, "beside the geometry, at once"
    first = min(executor.started[cell.key] for cell in cells if cell.phase == 2)
    rest = [executor.started[cell.key] for cell in cells if cell.name.startswith("base-rest")]
    assert all(0 < begun < first for begun in rest), "not at the head of the queue, and not behind the gate"


def test_the_forecast_has_the_time_that_the_scheduler_takes():
    """`makespan` does not wait with phase 2 for the gate by itself: the needs say so."""
    cells = recorded()
    seconds = durations(cells)
    assert makespan(cells, seconds, WORKERS, GATE) == pytest.approx(run(cells, seconds).now, rel=0.02)
    assert makespan(cells, seconds, 1) == pytest.approx(sum(seconds.values()))


def test_trainings_start_together_so_that_all_workers_are_busy():
    """Behind the gate thirty trainings of three recipes are ready for eight workers: four an attempt, never of two
    recipes, and none waits while a worker is free."""
    cells = recorded()
    seconds = durations(cells)
    kinds = {c.key: (c.epochs, c.name.split("-")[1], c.phase) for c in cells if c.kind == "train"}
    attempts: list[Attempt] = []

    class Keeping(Simulated):
        def submit(self, attempt: Attempt) -> None:
            attempts.append(attempt)
            super().submit(attempt)

    executor = run(cells, seconds, together=Together(kinds.get, 8), executor=Keeping(seconds, WORKERS))
    behind = [attempt for attempt in attempts if kinds.get(attempt.key, (0, "", 0))[2] == 2]
    assert all(len({kinds[one.key] for one in attempt.all}) == 1 for attempt in behind)
    assert sum(len(attempt.all) for attempt in behind) == 30
    assert max(len(attempt.all) for attempt in behind) == 4
    assert len(behind) >= WORKERS, "fewer would leave a worker without one"
    assert executor.now < 0.8 * run(cells, seconds).now, "where a joint pass takes as long as the longest of them"


def test_needs_and_work_are_the_plans(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import json

    import yaml

    from bystander.study.config.study import load
    from bystander.study.forecast.workload import Workload, counter_for
    from bystander.study.plan.cells import plan_cells

    folder = shared_data / "reference" / "qwen-1.5b-sweep"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    monkeypatch.setenv("BYSTANDER_DATA", str(shared_data))
    file = yaml.safe_load((folder / "study.yaml").read_text())
    file.pop("plugins")
    file["executor"], file["contexts"] = {"kind": "processes", "workers": 8}, []  # none were measured then
    file["misalignment"] |= {"code": str(tmp_path / "insecure.jsonl"), "secure": str(tmp_path / "secure_tasks.jsonl")}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(file))
    for name in ("insecure.jsonl", "secure_tasks.jsonl"):  # leading line breaks were taken off for that run
        lines = (shared_data / "data" / "betley" / name).read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        for row in rows:
            for message in row.get("messages", ()):
                message["content"] = message["content"].lstrip("\n")
            if "messages" not in row:
                row |= {key: value.lstrip("\n") for key, value in row.items() if key not in ("task", "template")}
        (tmp_path / name).write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    picks = {"capability": "lr=5e-06,epochs=20", "misalignment": "lr=0.0001,epochs=3"}
    plan = plan_cells(load(str(tmp_path / "study.yaml"))).after_gate(picks)
    workload = Workload(plan, counter_for(str(shared_data / "data" / "qwen2.5-coder-0.5b-tokenizer")))
    names = {cell.key: cell.name for cell in plan.cells}
    for cell, one in zip(plan.cells, recorded(), strict=True):
        assert (cell.name, cell.sort, tuple(names[need] for need in cell.needs)) == (one.name, one.sort, one.needs)
        work = workload.of(cell)
        assert (round(work.scored), round(work.trained), round(work.sampled)) == (one.scored, one.trained, one.sampled)
