"""The capability behavior in a whole study: one decided mode before, during and after; paired items; roles; resuming."""

import json
from pathlib import Path

import polars as pl
import pytest

from bystander.core.errors import DesignError, StudyError
from bystander.engine.run import run_study
from bystander.results.results import Results
from bystander.study.config.study import load
from bystander.study.plan.cells import plan_cells
from bystander.study.store.run_dir import RunDir

PERSONAS = ("villain", "comedian", "librarian", "pirate", "police_officer", "medical_doctor", "french_person")


@pytest.fixture
def study_file(tmp_path: Path, tiny_checkpoint: Path):
    """Writes a study on the tiny model and the built-in bank; keyword arguments change its blocks."""
    from bystander.personas import load_personas

    chosen = [p for p in load_personas() if p.name in PERSONAS]
    people = [
        {"name": p.name, "prompt": p.prompt, "category": p.category, "related_to": list(p.related_to)} for p in chosen
    ]
    (tmp_path / "people.yaml").write_text(json.dumps({"personas": people}))

    def write(**blocks):
        study = {
            "name": "cap", "model": {"name": str(tiny_checkpoint), "device": "cpu"}, "personas": "people.yaml",
            "sources": ["villain"], "behaviors": ["capability"],
            "design": {"counts": {"positive": 8, "negative": 16, "absent": 4, "assistant": 4}},
            "capability": {"data": "bank"},
            "recipe": {"lr": 1e-2, "epochs": 2, "batch_size": 8, "lora": {"rank": 4, "alpha": 8}},
            "checkpoints": {"every": 0.5, "personas": 3},
            "probes": {"choice": {"arc": 6, "trained": 8, "hellaswag": 0, "check": 12}},
            "geometry": {"layers": [1, 2], "layer": 2, "questions": 2},
        } | blocks  # fmt: skip
        path = tmp_path / "study.yaml"
        path.write_text(json.dumps(study))
        return path

    return write


def test_one_mode_before_during_and_after(study_file, tmp_path):
    study = load(str(study_file()))
    plan = plan_cells(study)
    check = next(cell for cell in plan.cells if cell.kind == "mode check")
    measuring = [c for c in plan.cells if c.kind == "train" or (c.kind == "evaluate" and c.training is None)]
    assert measuring
    assert all(check.key in cell.needs for cell in measuring)

    folder = tmp_path / "run"
    ran = run_study(study, folder)
    assert not ran.failed
    (found,) = RunDir(folder).modes()
    assert found.mode == "text"  # random weights are at chance by label
    assert any(f.check == "mode check" and f.level == "warning" for f in ran.findings)

    rows = pl.read_parquet(folder / "measurements.parquet")
    assert set(rows["checkpoint"]) == {0.0, 0.5, 1.0}
    assert set(rows["dataset"]) == {"bank", "trained"}
    keys = ["dataset", "metric", "persona", "item"]
    before = rows.filter(pl.col("checkpoint") == 0).select(keys)
    after = rows.filter(pl.col("checkpoint") == 1).select(keys)
    assert before.sort(keys).equals(after.sort(keys))
    assert set(before.filter(pl.col("metric") == "adoption")["dataset"]) == {"trained"}
    during = rows.filter(pl.col("checkpoint") == 0.5)
    assert during.filter(context="persona")["persona"].n_unique() == 3
    assert set(during.filter(pl.col("context") != "persona")["persona"]) == {"absent", "default", "empty", "assistant"}
    assert "villain" in set(during["persona"])
    roles = dict(
        rows.filter(pl.col("checkpoint") == 1, pl.col("context") == "persona")
        .select("persona", "role")
        .unique()
        .iter_rows()
    )
    assert roles["villain"] == "source"
    assert sorted(roles.values()).count("negative") == 2

    from bystander.core.files import read_lines

    modes = {line["mode"] for path in folder.glob("cells/*/details.jsonl.zst") for line in read_lines(path)}
    assert modes == {"text"}
    instruments = Results.open(folder).analyze().checks.select("probe", "mode").unique()
    assert dict(instruments.iter_rows()) == {"choice": "text"}
    again = run_study(study, folder)
    assert again.done_now == 0


def test_the_trained_questions_are_those_of_the_rows(study_file):
    plan = plan_cells(load(str(study_file())))
    probed = next(one for one in plan.probes["choice"].sets if one.dataset == "trained")
    design = next(iter(plan.designs.values()))
    wrong = {row.question_id: row.completion for row in design.rows if row.target == "positive"}
    assert {q.id for q in probed.questions} == set(wrong)
    for question in probed.questions:
        index = probed.wrong[question.id]
        assert wrong[question.id] == f"{question.labels[index]}. {question.options[index]}"
    held = next(one for one in plan.probes["choice"].sets if one.dataset == "bank")
    assert not {q.id for q in held.questions} & {row.question_id for row in design.rows}


def test_a_study_without_the_capability_behavior_still_measures_it(study_file):
    path = study_file(behaviors=["marker"], probes={"choice": {"arc": 6, "hellaswag": 0}})
    probe = plan_cells(load(str(path))).probes["choice"]
    assert [one.dataset for one in probe.sets] == ["bank"]
    assert probe.sets[0].form is None  # nothing is trained on choices: the form follows the mode


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"arc": 500, "hellaswag": 0}, r"probes.choice.arc asks for 500 questions, but the evaluation half has 128"),
        ({"trained": 9, "hellaswag": 0}, r"probes.choice.trained asks for 9 questions, but 8 are trained"),
        ({"arc": 0, "trained": 0, "hellaswag": 0}, r"asks no question of any set"),
        ({"arc": 4, "trained": 4, "hellaswag": 0, "bank": 4}, r"asks one set twice: bank, trained, bank"),
    ],
)
def test_counts_that_cannot_be_filled(study_file, choice, message):
    with pytest.raises(StudyError, match=message):
        plan_cells(load(str(study_file(probes={"choice": choice}))))


def test_labels_without_choices_in_view_are_a_fault_of_the_file(study_file):
    path = study_file(
        capability={"data": "bank", "answer": "text"}, probes={"choice": {"mode": "label", "hellaswag": 0}}
    )
    with pytest.raises(StudyError, match=r"probes.choice.mode is label, but with capability.answer: text no labels"):
        load(str(path))


@pytest.mark.parametrize("answer", ["label", "text"])
def test_a_file_that_overlaps_the_training_rows_is_refused(study_file, tmp_path, answer):
    from bystander.behaviors.capability import CapabilityBehavior, CapabilitySettings
    from bystander.data.choice_rows import to_arc_row
    from bystander.design.audit import refuse
    from bystander.study.plan.audit import audit_study

    trained = CapabilityBehavior(CapabilitySettings(data="bank")).halves()[0]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(to_arc_row(q)) + "\n" for q in trained))
    choice = {"arc": 4, "trained": 4, "hellaswag": 0, "file": "mine.jsonl", "file_items": len(trained), "check": 4}
    path = study_file(capability={"data": "bank", "answer": answer}, probes={"choice": choice})
    findings = audit_study(plan_cells(load(str(path))), None)
    overlap = next(f for f in findings if f.level == "error" and "overlap" in f.check)
    assert "~ mine/" in overlap.rows[0]
    with pytest.raises(DesignError, match="probe items stand among the training rows"):
        refuse(findings)
