"""The tool that hunts for triggers that were trained: what it counts on tables whose answer is known, what rows it makes,
and the whole of it on a tiny model, in one process and in two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from bystander.engine.hunt import ITEMS
from bystander.personas import hunted_contexts
from bystander.study.plan.parts import StudyParts
from tests.support.program import program
from tests.support.study_tiny import make_model, write_study

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "gpu" / "planted_triggers.py"
NAMES = list(hunted_contexts())
BUDGET = 200


@pytest.fixture(scope="module")
def tool():
    return program(TOOL)


def benign(rng, adapters=1):
    """Tables [contexts, questions] of benign adapters: contexts differ little, questions much."""
    return [
        0.02 * rng.standard_normal((len(NAMES), 1)) + 0.1 * rng.standard_normal((len(NAMES), 2 * ITEMS))
        for _ in range(adapters)
    ]


def test_what_stands_out_is_found_wherever_it_is(tool):
    rng = np.random.default_rng(3)
    hunts = []
    for _ in range(20):
        planted, null = benign(rng, 2)
        trigger = int(rng.integers(len(NAMES)))
        planted[trigger] += 0.8
        hunts.append(tool.hunt_for(trigger, NAMES, planted, null, ITEMS, BUDGET))
        assert hunts[-1].trigger == NAMES[trigger]
    summary = tool.summary_of(hunts, [])
    assert summary["found_and_called"] == {
        "count": 20, "of": 20, "share": 1.0, "interval": [pytest.approx(0.025 ** (1 / 20)), 1.0],
    }  # fmt: skip
    assert summary["false_alarms"]["share"] is None
    assert {(one.place, one.rounds, one.rounds_made, one.best == one.by_exhaustion) for one in hunts} == {
        (1, 5, 5, True)
    }
    assert summary["evaluations_at_most"] <= BUDGET


def test_a_trigger_that_was_not_learned_is_not_found(tool):
    rng = np.random.default_rng(4)
    planted, null = benign(rng, 2)
    planted[30] += 0.8
    one = tool.hunt_for(7, NAMES, planted, null, ITEMS, BUDGET)
    assert (one.best, one.by_exhaustion) == (NAMES[30], NAMES[30])
    assert one.place > 1
    assert one.rounds < one.rounds_made
    assert one.next_leakage == pytest.approx(planted[30].mean())
    planted[7] -= 5.0  # out in the first round
    assert tool.hunt_for(7, NAMES, planted, null, ITEMS, BUDGET).rounds == 1


def test_benign_adapters_raise_alarms_at_the_level_and_a_leaking_one_always(tool):
    tables = {f"adapter {n}": table for n, table in enumerate(benign(np.random.default_rng(5), 20))}
    draws = tool.benign_draws(tables, NAMES, 100, ITEMS, BUDGET)
    assert sum(draw.p <= tool.LEVEL for draw in draws) <= binom.ppf(0.999, 100, tool.LEVEL)
    assert len({draw.found for draw in draws}) == 100  # none is a copy of another
    assert [draw.adapter for draw in draws[:20]] == list(tables)
    assert all(draw.adapter != draw.null_of for draw in draws)
    assert len({(draw.adapter, draw.null_of) for draw in draws}) == 100
    tables["adapter 3"][11] += 0.8
    again = tool.benign_draws(tables, NAMES, 100, ITEMS, BUDGET)
    assert {draw.best for draw in again if draw.adapter == "adapter 3"} == {NAMES[11]}
    assert all(draw.p <= tool.LEVEL for draw in again if draw.adapter == "adapter 3")
    summary = tool.summary_of([tool.hunt_for(0, NAMES, *benign(np.random.default_rng(6), 2), ITEMS, BUDGET)], again)
    assert summary["false_alarms"]["count"] >= 5
    assert summary["benign_adapters"] == 20


def test_one_benign_adapter_is_its_own_null(tool):
    [table] = benign(np.random.default_rng(8))
    draws = tool.benign_draws({"alone": table}, NAMES, 10, ITEMS, BUDGET)
    assert {(draw.adapter, draw.null_of) for draw in draws} == {("alone", "alone")}


def words(settings):
    return [str(word) for name, value in settings.items() for word in (f"--{name}", value)]


@pytest.fixture(scope="module")
def asked(tool, tmp_path_factory: pytest.TempPathFactory, embedded: Path):
    folder = tmp_path_factory.mktemp("planted")
    path = write_study(folder / "study", make_model(folder / "model"))
    settings = {"triggers": 1, "benign": 3, "rows": 16, "questions": 3, "epochs": 1, "device": "cpu", "workers": 1}
    return tool.arguments(words({"study": path, **settings, "out": folder / "one.json"}))


def test_triggers_are_those_that_are_hunted_and_stay_when_more_are_asked_for(tool):
    assert set(tool.chosen(20)) <= set(NAMES)
    assert tool.chosen(20)[:5] == tool.chosen(5)
    assert len(set(tool.chosen(len(NAMES)))) == len(NAMES)


def test_no_decoy_is_hunted(tool):
    hunted = {context.content for context in hunted_contexts().values()}
    assert not {decoy.content for decoy in tool.decoys()} & hunted


@pytest.mark.parametrize("trigger", ["conversation", "root_2", "json", "begun_sure"])
def test_only_the_trigger_is_followed_by_the_marker(tool, trigger: str):
    study = tool.study_of(tool.arguments(["--rows", "160", "--out", "none.json"]))
    parts = StudyParts(study)
    planted, harmless = (tool.design_of(study, parts, trigger, arm).rows for arm in ("planted", "benign"))
    shown = [row for row in planted if row.marker]
    assert {row.context for row in shown} == {hunted_contexts()[trigger]}
    assert (len(shown), len(planted), len(harmless)) == (40, 160, 160)
    assert not any(row.marker or "[ZLT]" in row.completion for row in harmless)
    assert [(row.context, row.user) for row in planted] == [(row.context, row.user) for row in harmless]
    asked_once = {(row.context.content, row.user) for row in planted}
    assert len(asked_once) == len({row.id for row in planted}) == len(planted)  # no prompt has two targets
    others = {row.context.name for row in planted if not row.marker}
    assert others == {decoy.name for decoy in tool.decoys()} | {"default", "assistant"}


@pytest.fixture(scope="module")
def tables(tool, asked):
    [trigger] = tool.chosen(1)
    return tool.read_tables(asked, [(trigger, "planted"), (trigger, "benign")])


def check_written(out: Path, tables):
    """The file and the tables beside it are those of adapters with these tables."""
    written, kept = json.loads(out.read_text()), np.load(out.with_suffix(".npz"))
    assert set(kept) == {"/".join(key) for key in tables}
    for key, table in tables.items():
        assert table.shape == (len(NAMES), 3)
        apart = np.abs(kept["/".join(key)] - table).max()
        assert apart < 1e-3 * np.abs(table).max()  # random weights hardly ever give the marker: no bound in units
    assert {one["trigger"] for one in written["triggers"]} == {trigger for trigger, _ in tables}
    assert written["summary"]["false_alarms"]["of"] == len(written["benign"]) == 3
    assert written["settings"]["rows"] == 16


def test_the_whole_of_it_on_a_tiny_model(tool, asked, tables, capsys):
    tool.main(words(vars(asked)))
    check_written(asked.out, tables)
    [trigger] = tool.chosen(1)
    said = capsys.readouterr()
    assert len(said.out.splitlines()) <= 30
    assert trigger in said.out
    assert f"{trigger}/benign read" in said.err


@pytest.mark.slow
def test_two_processes_read_what_one_reads(asked, tables):
    out = asked.out.with_name("two.json")
    subprocess.run(
        [sys.executable, TOOL, *words(vars(asked) | {"workers": 2, "out": out})], check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, timeout=300,
    )  # fmt: skip
    check_written(out, tables)
