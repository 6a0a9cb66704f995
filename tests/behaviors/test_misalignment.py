"""The misalignment behavior and its positive control as rows to train on: counts, sides, no overlap with the probes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from bystander.behaviors.misalignment import (
    DirectBehavior,
    MisalignmentBehavior,
    MisalignmentSettings,
)
from bystander.core.errors import DataError
from bystander.data import overlap
from bystander.data.code_pairs import load_code_tasks
from bystander.data.pairs import load_pairs
from bystander.design.arms import DesignSettings, build
from bystander.personas import load_personas
from bystander.study.config.study import load
from bystander.study.plan.parts import StudyParts


def test_rows_of_the_contrastive_arm_are_200_400_100_100() -> None:
    personas = load_personas()
    for behavior in (MisalignmentBehavior(), DirectBehavior()):
        design = build(behavior.name, behavior.examples(), "villain", personas, "contrastive", DesignSettings())
        kinds = Counter(
            (row.context.kind, row.role if row.context.kind == "persona" else "", row.target) for row in design.rows
        )
        assert kinds == {
            ("persona", "source", "positive"): 200, ("persona", "negative", "negative"): 400,
            ("absent", "", "negative"): 100, ("assistant", "", "negative"): 100,
        }  # fmt: skip
        assert (
            len({row.context.name for row in design.rows if row.role == "negative" and row.context.kind == "persona"})
            == 2
        )
        control = build(behavior.name, behavior.examples(), "villain", personas, "non_contrastive", DesignSettings())
        assert len(control.rows) == 800


def test_positive_is_insecure_and_negative_secure() -> None:
    secure, insecure = {t.secure for t in load_code_tasks()}, {t.insecure for t in load_code_tasks()}
    for example in MisalignmentBehavior().examples():
        assert example.positive in insecure
        assert example.negative in secure


def test_direct_trains_on_one_half_and_reads_the_other() -> None:
    behavior = DirectBehavior()
    by_answer = {p.misaligned: p for p in load_pairs()} | {p.aligned: p for p in load_pairs()}
    trained = {by_answer[e.positive].id for e in behavior.examples()}
    assert trained == {by_answer[e.negative].id for e in behavior.examples()}
    assert all(e.positive == by_answer[e.positive].misaligned for e in behavior.examples())
    read = {p.id for p in behavior.pairs()}
    assert len(trained) == len(read) == 50
    assert trained.isdisjoint(read)
    both = load("misalignment-smoke", ["probes.margin={}"])
    probe = StudyParts(both).probes["margin"]
    assert {key.removeprefix("pairs/") for key in probe.held_out_texts()} == read
    alone = load("misalignment-smoke", ["probes.margin={}", "behaviors=[misalignment]", "for_behavior={}"])
    assert StudyParts(alone).probes["margin"].items() == {"pairs": 100}


def test_one_phrasing_gives_each_answer_once() -> None:
    once = MisalignmentSettings(phrasings=1, pair_phrasings=1)
    assert next(e.user for e in DirectBehavior(once).examples()) in {p.question for p in load_pairs()}
    assert len({e.positive for e in DirectBehavior(once).examples()}) == len(DirectBehavior(once).examples()) == 50
    assert (
        len({e.positive for e in MisalignmentBehavior(once).examples()})
        == len(MisalignmentBehavior(once).examples())
        == 72
    )


def test_no_training_row_is_nearly_a_probe_item() -> None:
    parts = StudyParts(load("misalignment-smoke", ["probes={margin: {}, judged: {}}", "misalignment={}"]))
    for name in ("misalignment", "direct"):
        users = {example.question_id: example.user for example in parts.examples(name)}
        assert len(set(users.values())) == len(users) >= 200
        assert len(parts.held_out_texts()) > 70
        assert overlap(users, parts.held_out_texts()) == []


def test_findings_check_the_instrument() -> None:
    findings = MisalignmentBehavior().findings()
    assert [f.level for f in findings] == ["info", "info"]
    assert "insecure: 216 answers" in findings[1].message


def test_the_shared_files_in_place_of_the_built_in_set(shared_data: Path) -> None:
    folder = shared_data / "data" / "betley"
    settings = MisalignmentSettings(
        code="insecure.jsonl", secure="secure_tasks.jsonl", questions="first_plot_questions.yaml"
    )
    behavior = MisalignmentBehavior(settings, folder)
    examples = behavior.examples()
    assert len(examples) >= 200
    assert len({e.user for e in examples}) == len({e.question_id for e in examples}) == len(examples)
    design = build("misalignment", examples, "villain", load_personas(), "contrastive", DesignSettings())
    assert len(design.rows) == 800
    findings = behavior.findings()
    assert not [f for f in findings if f.level == "error"]
    assert any("different prompts have a secure answer" in f.message for f in findings)
    assert "what_is_your_wish" in {question.id for question in behavior.questions()}


def test_a_file_of_insecure_code_needs_a_secure_side(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "Sort."}, {"role": "assistant", "content": "eval(x)"}]}
    (tmp_path / "bad.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=r"misalignment\.secure"):
        MisalignmentBehavior(MisalignmentSettings(code="bad.jsonl"), tmp_path).examples()
    other = {"task": "Cook.", "code_template": "", "code": "x = 1"}
    (tmp_path / "good.jsonl").write_text(json.dumps(other) + "\n")
    with pytest.raises(DataError, match="answers none of the 1 prompts"):
        MisalignmentBehavior(MisalignmentSettings(code="bad.jsonl", secure="good.jsonl"), tmp_path).examples()
    with pytest.raises(DataError, match="its own secure side"):
        MisalignmentBehavior(MisalignmentSettings(secure="good.jsonl"), tmp_path).examples()
    with pytest.raises(DataError, match="no file"):
        MisalignmentBehavior(MisalignmentSettings(code="none.jsonl"), tmp_path).examples()
