"""What is said before a study runs: open questions, cost, power, review, prior results, approval."""

import json
import math
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from bystander.cli.plan_text import print_plan
from bystander.core.errors import DataError, StoreError, StudyError
from bystander.engine.budget import BudgetTracker, approve, unpaid
from bystander.study.config.blocks import Budget, ModelSettings
from bystander.study.config.study import load
from bystander.study.forecast.open_settings import open_settings, refuse_open
from bystander.study.forecast.order import makespan
from bystander.study.forecast.plan_report import plan_report
from bystander.study.forecast.power import describe_odds, gate_odds, power_of_tests
from bystander.study.forecast.prior_results import gradients, import_results
from bystander.study.forecast.review import ReviewInputs, review
from bystander.study.forecast.throughput import SHAPES, published, rates_for
from bystander.study.plan.cells import Cell
from bystander.study.plan.preregistration import declaration, declaration_hash, freeze, hypotheses_of
from bystander.study.store.records import Event, Spent
from bystander.study.store.run_dir import RunDir
from tests.support.study_tiny import write_study

GOOD = ReviewInputs(
    total_hours=10, hours_to_first_signal=0.5, gate_hours=2, dollars=0, budget_hours=20, budget_dollars=0,
    trainings=40, prior_results=1, smallest_rho=0.28, blocking_questions=0,
)  # fmt: skip


def test_a_layer_that_nobody_chose_blocks_and_is_answered_by_set(tmp_path: Path):
    text = "name: s\nsources: [villain]\nbehaviors: [marker]\nprobes: {marker: {}}\ngeometry: {questions: 2}\n"
    (tmp_path / "s.yaml").write_text(text)
    study = load(str(tmp_path / "s.yaml"))
    blocking = [q for q in open_settings(study) if q.blocking]
    assert [q.id for q in blocking] == ["layer"]
    with pytest.raises(StudyError, match="At which layer"):
        refuse_open(open_settings(study))
    refuse_open(open_settings(load(str(tmp_path / "s.yaml"), ["geometry.layer=3"])))


def test_a_behavior_that_no_probe_sees_blocks():
    study = load("quickstart", ["behaviors=[marker, misalignment]"])
    assert [q.id for q in open_settings(study) if q.blocking] == ["probe"]


def test_what_the_file_says_is_not_asked():
    asked = {q.id for q in open_settings(load("quickstart"))}
    assert {"negatives", "anchors", "end of turn"} <= asked
    said_now = load("quickstart", ["design.negatives=[pirate]", "design.anchors=absent", "recipe.end_of_turn=in_loss"])
    assert not {"negatives", "anchors", "end of turn"} & {q.id for q in open_settings(said_now)}


def test_the_gate_at_11_personas_and_rho_0_2_is_a_coin_toss_and_is_called_one():
    spec = load("leakage").spec
    odds = gate_odds(spec, 8)
    assert odds is not None
    assert 0.45 < odds.passes[0.2] < 0.55
    assert 0.25 < odds.passes[0.0] < 0.36, "three in ten pass with nothing there"
    assert odds.goes_on[0.2] == pytest.approx(1 - (1 - odds.passes[0.2]) ** 2), "two behaviors, both must fail to stop"
    assert "a coin toss" in describe_odds(odds)
    wide = gate_odds(spec, 107)
    assert wide is not None
    assert wide.passes[0.0] < 0.03
    assert wide.passes[0.5] > 0.99


def test_every_hypothesis_gets_the_power_of_its_three_tests():
    found = power_of_tests(hypotheses_of(load("leakage")), 107, {("choice", "arc"): 586, ("margin", "pairs"): 100}, 1)
    assert [(row.hypothesis, row.test.split(" (")[0]) for row in found] == [
        (name, test) for name in ("A", "B") for test in ("gradient", "source change", "mean bystander change")
    ]
    assert found[0].smallest == pytest.approx(0.273, abs=0.02)
    arc = found[1]
    assert arc.n == 586
    # One-sided 5 %, 80 % power: (1.645 + 0.842) standard errors of 0.55 / sqrt(586).
    assert arc.smallest == pytest.approx(2.487 * 0.55 / math.sqrt(586), rel=0.02)


def test_the_review_scores_by_its_rules():
    study = load("leakage", ["seeds=[0, 1, 2]", "executor={kind: ray, workers: 4}"])
    best = review(study, GOOD)
    assert (best.score, best.verdict, best.changes) == (5.0, "RUN", ())
    one_seed = review(load("leakage"), replace(GOOD, prior_results=0))
    fit = next(d for d in one_seed.dimensions if d.name == "strategic fit")
    assert fit.score == 3
    assert any("seeds" in change for change in one_seed.changes)
    poor = replace(
        GOOD, total_hours=500, hours_to_first_signal=400, gate_hours=450, dollars=9, smallest_rho=0.6, blocking_questions=1
    )  # fmt: skip
    bad = review(load("quickstart", ["question=''"]), replace(poor, prior_results=0))
    assert (bad.score, bad.verdict) == (pytest.approx(1.6), "STOP")
    assert bad.changes


def test_a_test_that_can_find_nothing_is_said_so_and_never_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Four held-out bystanders, and two questions to find half of a probability in."""
    less = ["sweep=null", "gate=null", "hypotheses=null", "probes.marker={questions: 2, sampled: 2}"]
    few = load(str(write_study(tmp_path, tmp_path / "nowhere")), less)
    found = plan_report(replace(few, personas=few.personas[:7]))
    assert [(row.n, math.isnan(row.smallest)) for row in found.power] == [(4, True), (2, True), (4, False)]
    words = [row.out_of_reach for row in found.power]
    assert (
        words[0]
        == "marker, gradient (rho): 4 held-out bystanders are too few for it to find any effect that there can be"
    )
    assert "2 items are too few" in words[1]
    assert "an effect of that size would mostly be missed" in found.power[2].weak
    value = next(d for d in found.review.dimensions if d.name == "information value")
    assert (value.score, value.missing[:2]) == (1, tuple(words[:2]))
    assert found.review.verdict != "RUN"
    print_plan(Console(width=200), found, "bystander run tiny")
    shown = capsys.readouterr().out
    assert "out of reach: marker, gradient (rho): 4 held-out" in shown
    assert "nan" not in shown


def test_a_hypothesis_that_nothing_measures_is_out_of_reach():
    study = load("quickstart", ["hypotheses=[B]", "behaviors=[marker, misalignment]"])
    (_, nothing) = power_of_tests(hypotheses_of(study), 107, {("marker", "bank"): 8}, 1)
    assert nothing.out_of_reach.startswith("B: no probe of this study measures judged/open/aligned or margin/pairs/")


def test_out_of_reach_keeps_the_best_study_from_run():
    study = load("leakage", ["seeds=[0, 1, 2]", "executor={kind: ray, workers: 4}"])
    spoiled = review(study, replace(GOOD, out_of_reach=("A, gradient: too few",)))
    assert (spoiled.score, spoiled.verdict) == (pytest.approx(4.2), "MODIFY")
    assert any("more personas, items or seeds" in change for change in spoiled.changes)


def test_a_gate_on_one_bystander_is_said_to_decide_nothing():
    odds = gate_odds(load("leakage").spec, 1)
    assert odds is not None
    assert "decides nothing" in describe_odds(odds)


def test_a_forecast_on_two_workers_follows_the_needs():
    def cells(**needs: tuple[str, ...]) -> list[Cell]:
        return [Cell("train", key, key, needs.get(key, ())) for key in "abcd"]

    seconds = {"a": 10.0, "b": 10.0, "c": 5.0, "d": 1.0}
    assert makespan(cells(), seconds, 1) == 26
    assert makespan(cells(), seconds, 2) == 15
    assert makespan(cells(c=("a",), d=("c",)), seconds, 8) == 16
    assert makespan([], {}, 2) == 0
    assert makespan(cells(b=("d",)), seconds, 2) == 15, "d, though short, first: b waits for it"
    assert makespan(cells(b=("d",)), seconds, 2, gate="b") == 15


def test_figures_are_published_ones_scaled_and_say_so():
    qwen = SHAPES["Qwen/Qwen2.5-7B-Instruct"]
    h100, a100 = published("H100", qwen), published("nvidia-a100", qwen)
    assert h100.scored == pytest.approx(444 * 130)  # docs/performance.md
    assert a100.scored / h100.scored == pytest.approx(312 / 989)
    assert "scaled" in a100.source
    assert "scaled" not in h100.source
    small = published("cpu", SHAPES["smollm2-135m"])
    assert published("cpu", qwen).trained == pytest.approx(small.trained * 134.5e6 / 7.62e9)
    with pytest.raises(StudyError, match="no published figures for the GPU kind 'abacus'"):
        published("abacus", qwen)
    # r 32 on seven linear layers of 28 blocks: PEFT reports 80,740,352 trainable parameters for this model.
    assert qwen.adapter_bytes(32, 1) == 80_740_352


def test_a_small_model_in_float32_waits_for_kernels_on_a_gpu():
    """One worker's forecast of the marker study on an H100; measured: some 60 s a training of 75 steps, 14 s a probe."""
    small = ModelSettings(name="smollm2-135m", dtype="float32")
    slow, fast = rates_for(small, "h100"), rates_for(small.model_copy(update={"dtype": "bfloat16"}), "h100")
    assert slow.source.endswith("in float32")
    assert 30 < 100_314 / slow.trained < 70
    assert 10 < 37_521 / slow.scored + 5_328 / slow.sampled < 20
    assert fast.trained > 100 * slow.trained
    large = ModelSettings(name="Qwen/Qwen2.5-7B-Instruct", dtype="float32")
    assert rates_for(large, "h100").trained == pytest.approx(112.8 * 140 * 67 / 989)


def test_the_plan_of_leakage_needs_no_weights_and_writes_nothing(tmp_path: Path, shared_data: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BYSTANDER_DATA", str(shared_data))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "no-cache"))
    found = plan_report(load("leakage", ["sources=[villain]", "probes.choice.arc=60", "probes.choice.hellaswag=40"]))
    assert list(tmp_path.iterdir()) == []
    assert not any(question.blocking for question in found.open_settings)
    assert [phase.phase for phase in found.forecast.phases] == [0, 1, 2, 3]
    assert len([c for c in found.forecast.cells if c.kind == "train"]) == 2 * 5 * 2 + 3 * 2  # with a benign twin each
    assert "estimated" in found.forecast.counted or "tokenizer of Qwen" in found.forecast.counted
    assert any("published figures of an H100" in note for note in found.notes)
    assert found.gate is not None
    assert found.gate_on_all_hours > 0
    assert found.gate_on_all is not None
    assert found.gate_on_all.personas > 100
    whole = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert whole["hash"] == found.hash
    assert "coin toss" in whole["gate_message"]


def test_prior_results_show_their_gradient(tmp_path: Path, shared_data: Path):
    reference = shared_data / "reference" / "marker_leakage_111.csv"
    written = import_results([reference], {"value": "leakage_rate"}, tmp_path / "prior")
    found = gradients(written, load("quickstart").personas)
    expected = json.loads((shared_data / "reference" / "marker_leakage_111.expected.json").read_text())
    villain = next(g for g in found if g.source == "villain" and g.predictor == "cosine 10")
    assert villain.rho == pytest.approx(_rho(expected["layer10"]["villain"]), abs=0.002)
    assert any(g.source == "over sources" for g in found)


def _rho(entry: object) -> float:
    if isinstance(entry, dict):
        return float(next(value for key, value in entry.items() if "rho" in key))
    return float(entry)  # type: ignore[arg-type]


def test_prior_results_without_similarity_fall_back_on_the_prompts(tmp_path: Path):
    names = [persona.name for persona in load("quickstart").personas[:12]]
    rows = [{"bystander": name, "effect": i / 10, "trained": "villain"} for i, name in enumerate(names)]
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"results": rows}))
    mapping = {"persona": "bystander", "value": "effect", "source": "trained", "metric": "=rate"}
    written = import_results([path], mapping, tmp_path / "prior")
    assert pl.read_parquet(written[0])["metric"].unique().to_list() == ["rate"]
    found = gradients(written, load("quickstart").personas)
    assert [g.predictor for g in found] == ["similarity_lexical"]


@pytest.mark.parametrize(
    ("name", "content", "mapping", "text"),
    [
        ("a.csv", "persona,score\nvillain,1\n", {}, "no column for 'source'"),
        ("a.csv", "source,persona,value\nvillain,pirate,high\n", {}, "not numbers"),
        ("a.csv", "source,persona,value\n", {}, "no rows"),
        ("a.json", "{", {}, "cannot be read"),
        ("a.csv", "source,persona,value\nvillain,pirate,1\n", {"layer": "x"}, "map source, persona"),
    ],
)
def test_prior_results_that_cannot_be_taken_in(tmp_path: Path, name: str, content: str, mapping: dict, text: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=text):
        import_results([tmp_path / name], mapping, tmp_path / "prior")
    assert not (tmp_path / "prior").exists()


def test_approval_is_of_one_plan_and_only_where_it_is_needed():
    budget = Budget(gpu_hours=2.0, dollars=5.0)
    assert approve("", "a" * 64, Spent(1.0, 1.0), budget, Spent(0.5, 0.0)) is None
    with pytest.raises(StudyError, match=r"2\.5 GPU-hours against 2"):
        approve("", "a" * 64, Spent(2.0, 1.0), budget, Spent(0.5, 0.0))
    with pytest.raises(StudyError, match="against"):
        approve("", "a" * 64, Spent(0.0, 6.0), budget, Spent())
    for wrong in ("b" * 12, "aaa"):
        with pytest.raises(StudyError, match="it is another plan, or the hash is cut short"):
            approve(wrong, "a" * 64, Spent(3.0, 0.0), budget, Spent())
    assert approve("a" * 12, "a" * 64, Spent(3.0, 0.0), budget, Spent(1.0)) == Spent(pytest.approx(4.8), 0.0)


def test_nothing_is_started_that_would_pass_the_cap():
    purse = BudgetTracker(Budget(gpu_hours=1.0, dollars=1.0), Spent(0.9, 0.0), None, {"long": 0.2, "short": 0.05})
    assert "the cap of 1 GPU-hours is reached" in purse.may_spend("long")
    assert purse.may_spend("short") == ""
    purse.pay(0.0, 1.5)
    assert "the cap of $1.00 is reached" in purse.may_spend("short")
    purse.approved = Spent(2.0, 2.0)
    assert purse.may_spend("long") == ""


def test_the_time_of_a_killed_cell_is_paid_until_its_last_sign_of_life(tmp_path: Path):
    import os
    from datetime import UTC, datetime

    begun = datetime(2026, 1, 1, tzinfo=UTC)
    key = "k" * 64
    event = Event(begun, "", "progress", {"state": "started", "cell": "train-x", "key": key})
    unit = tmp_path / "cells" / f"train-x-{key[:12]}" / "units" / "u.json"
    unit.parent.mkdir(parents=True)
    unit.touch()
    os.utime(unit, (begun.timestamp() + 90, begun.timestamp() + 90))
    assert unpaid([event], RunDir(tmp_path)) == [(key, pytest.approx(90))]
    assert unpaid([event, Event(begun, "", "cell done", {"key": key})], RunDir(tmp_path)) == []


def test_the_registration_covers_what_decides_and_nothing_else(tmp_path: Path):
    study = load("leakage")
    assert declaration_hash(load("leakage", ["budget.gpu_hours=1.0"])) == declaration_hash(study)
    assert declaration_hash(load("leakage", ["geometry.layer=10"])) != declaration_hash(study)
    assert declaration_hash(load("leakage", ["gate.threshold=0.3"])) != declaration_hash(study)
    text = json.dumps(declaration(study))
    for wanted in ("largest source effect", "Spearman", "0.05", "lr=1e-05,epochs=3", "choice/arc/accuracy"):
        assert wanted in text, wanted
    assert freeze(study, RunDir(tmp_path)) == freeze(study, RunDir(tmp_path))
    with pytest.raises(StoreError, match="registers something else"):
        freeze(load("leakage", ["geometry.layer=10"]), RunDir(tmp_path))


def test_hypotheses_are_about_the_question_sets_that_a_study_names():
    study = load("leakage", ["capability.data=bank", "misalignment.questions=mine.yaml"])
    outcomes = [threshold.outcome for hypothesis in hypotheses_of(study) for threshold in hypothesis.thresholds]
    assert outcomes == [
        ("choice", "bank", "accuracy"),
        ("judged", "mine", "aligned"),
        ("margin", "pairs", "aligned_wins"),
    ]
    arc = [threshold.outcome for hypothesis in hypotheses_of(load("leakage")) for threshold in hypothesis.thresholds]
    assert arc[:2] == [("choice", "arc", "accuracy"), ("judged", "open", "aligned")]
