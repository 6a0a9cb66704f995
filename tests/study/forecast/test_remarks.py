"""What a plan says of its own claims: the gate's odds, the control, the split, the dose. (The benign arm: `test_benign_run`.)"""

from pathlib import Path

import pytest

from bystander.analysis.stats.control import fall_found
from bystander.analysis.stats.gate import bystanders_needed, gate_stops
from bystander.study.config.study import load
from bystander.study.forecast.assess import forecast_of
from bystander.study.forecast.plan_report import plan_report
from bystander.study.forecast.remarks import control, dose, gate_bystanders, gate_with_power, split
from bystander.study.plan.cells import plan_cells

BASE = """
name: said
sources: [villain]
behaviors: [capability]
capability: {data: bank, answer: text}
design: {counts: {positive: 8, negative: 16, absent: 4, assistant: 4}}
sweep: {source: villain, configs: [{lr: 1e-3, epochs: 1}, {lr: 1e-3, epochs: 2}]}
gate: {threshold: 0.2, statistic: high}
probes: {choice: {mode: text, trained: 4, arc: 8, hellaswag: 0}}
geometry: {layer: 2}
"""


def planned(folder: Path, *more: str):
    (folder / "said.yaml").write_text(BASE)
    return plan_cells(load(str(folder / "said.yaml"), more))


def test_a_high_end_of_eight_bystanders_hardly_ever_stops_and_power_has_its_price(tmp_path: Path):
    plan = planned(tmp_path)
    assert gate_bystanders(plan) == 8
    (said,) = gate_with_power(plan, forecast_of(plan))
    assert f"{gate_stops(8, 0.2, 0.0, 'high'):.0%} at 0, {gate_stops(8, 0.2, -0.5, 'high'):.0%} at -0.5" in said
    needed = bystanders_needed(0.2, "high")
    assert f"it needs {needed} bystanders (the set has 111 personas)" in said
    assert "more of probing" in said


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("gate.statistic=low",), "that is a gate with power"),
        (("gate.threshold=1.0", "gate.statistic=rho"), "that is a gate with power"),
        (("gate.threshold=-0.9",), "not even 200 bystanders"),
        (("sweep.personas=[villain, comedian, assistant, robin_hood]",), "stops every study"),
    ],
)
def test_gates_of_other_kinds(tmp_path: Path, more, words):
    plan = planned(tmp_path, *more)
    (said,) = gate_with_power(plan, forecast_of(plan))
    assert words in said


def test_no_gate_no_word(tmp_path: Path):
    plan = planned(tmp_path, "gate=null")
    assert gate_with_power(plan, forecast_of(plan)) == []


def test_the_split_is_told_with_what_is_left(tmp_path: Path):
    (said,) = split(planned(tmp_path))
    assert "picked on 4 of the 8 questions of choice/bank/accuracy and tested on the other 4; with so few left" in said
    (said,) = split(planned(tmp_path, "probes.choice.arc=16"))
    assert said.endswith("tested on the other 8")
    assert split(planned(tmp_path, "select.items=all")) == []
    assert split(planned(tmp_path, "sweep=null", "gate=null")) == []


def test_control_questions_are_those_that_are_asked(shared_data: Path, monkeypatch):
    """Shared out over the personas they are not the number in the file."""
    monkeypatch.setenv("BYSTANDER_DATA", str(shared_data))
    plan = plan_cells(load("capability-smoke"))
    (said,) = control(plan)
    probe = plan.probes["choice"]
    asked = probe.questions_asked("hellaswag", plan.contexts)
    assert probe.items()["hellaswag"] == 1
    assert 80 < asked < 111
    assert f"{asked} different questions" in said
    assert f"a fall of {fall_found(0.5, asked):.2g} with 80 % power" in said
    assert f"300 would find {fall_found(0.5, 300):.2g}" in said
    many = plan_cells(load("capability-smoke", ["probes.choice.hellaswag_each=null"]))
    (said,) = control(many)
    assert "300 different questions" in said
    assert "would find" not in said


def test_the_dose_is_told(tmp_path: Path):
    (said,) = dose(planned(tmp_path))
    assert "may end at different doses" in said
    (said,) = dose(planned(tmp_path, "train_to={metric: choice/arc/accuracy, band: [0.2, 0.4]}"))
    assert "in [0.2, 0.4], read after every 5 steps" in said


def test_all_of_it_is_in_the_report(tmp_path: Path):
    planned(tmp_path)
    report = plan_report(load(str(tmp_path / "said.yaml")))
    for words in ("no benign arm", "the gate on the high end", "is picked on", "train_to"):
        assert any(words in remark for remark in report.remarks)
    assert report.to_dict()["remarks"] == list(report.remarks)
