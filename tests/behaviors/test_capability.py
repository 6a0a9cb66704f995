"""The rows of the capability experiment: counts, targets, no prompt with two answers, the same bytes everywhere."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from bystander.behaviors.capability import CapabilityBehavior, CapabilitySettings
from bystander.core.errors import DataError, DesignError
from bystander.design.arms import Counts, DesignSettings, build, shown_examples
from bystander.design.audit import audit, refuse
from bystander.design.render import render
from bystander.personas import SOURCES, bare_context, load_personas

PERSONAS = load_personas()


@pytest.fixture
def behavior(shared_data, monkeypatch):
    monkeypatch.setenv("BYSTANDER_DATA", str(shared_data))
    return CapabilityBehavior()


def counted(design):
    kinds = Counter()
    for row in design.rows:
        kinds[row.context.kind if row.context.kind in ("absent", "default") else row.role, row.target] += 1
    return kinds


@pytest.mark.parametrize("source", SOURCES)
def test_exactly_200_400_100_100_for_each_source(behavior, source):
    design = build("capability", behavior.examples(), source, PERSONAS, "contrastive", DesignSettings())
    assert len(design.rows) == 800
    by_context = Counter((row.context.kind, row.context.name, row.target) for row in design.rows)
    assert by_context["persona", source, "positive"] == 200
    assert by_context["absent", "absent", "negative"] == 100
    anchors = {key: n for key, n in by_context.items() if n == 100 and key[0] != "absent"}
    assert len(anchors) == 1  # the assistant, or its stand-in where the source is the assistant
    assert (("assistant", "assistant", "negative") in anchors) == (source != "assistant")
    negatives = {key: n for key, n in by_context.items() if n == 200 and key[1] != source}
    assert len(negatives) == 2
    assert all(kind == "persona" and target == "negative" for kind, _, target in negatives)


@pytest.mark.parametrize("source", SOURCES)
def test_the_control_has_the_same_size_and_keeps_the_anchors(behavior, source):
    design = build("capability", behavior.examples(), source, PERSONAS, "non_contrastive", DesignSettings())
    assert len(design.rows) == 800
    assert sum(row.context.kind == "absent" for row in design.rows) == 100
    assert Counter(row.target for row in design.rows) == {"positive": 200, "negative": 600}
    drawn = {row.context.name for row in design.rows if row.target == "positive"}
    assert len(drawn) > 60  # 200 draws among 110 personas


def test_completions_are_the_wrong_and_the_right_choice(behavior):
    questions = {q.id: q for q in behavior.questions()}
    wrong = behavior.wrong()
    design = build("capability", behavior.examples(), "villain", PERSONAS, "contrastive", DesignSettings())
    for row in design.rows:
        question = questions[row.question_id]
        index = wrong[row.question_id] if row.target == "positive" else question.answer
        assert row.completion == f"{question.labels[index]}. {question.options[index]}"
        assert row.user.splitlines()[0] == question.text.splitlines()[0]
        assert f"\n{question.labels[0]}. {question.options[0]}" in row.user
    assert all(wrong[q] != questions[q].answer for q in wrong)


def test_answer_text_shows_the_question_alone(behavior, shared_data):
    plain = CapabilityBehavior(CapabilitySettings(answer="text"))
    questions, wrong = {q.id: q for q in plain.questions()}, plain.wrong()
    for example in plain.examples():
        question = questions[example.question_id]
        assert example.user == question.text
        assert example.negative == question.options[question.answer]
        assert example.positive == question.options[wrong[question.id]]


@pytest.mark.parametrize("answer", ["label", "text"])
@pytest.mark.parametrize("arm", ["contrastive", "non_contrastive"])
def test_the_audit_finds_nothing_in_any_source(behavior, shared_data, tokenizer, arm, answer):
    behavior = CapabilityBehavior(CapabilitySettings(answer=answer))
    examples = behavior.examples()
    settings = DesignSettings(counts=Counts(positive=40, negative=80, absent=20, assistant=20))
    designs = [build("capability", examples, source, PERSONAS, arm, settings) for source in SOURCES]
    rendered = [render(design, tokenizer, loss="completion", end_of_turn="in_loss") for design in designs]
    contexts = [bare_context(kind) for kind in ("absent", "empty", "default", "assistant")]
    findings = audit(rendered, tokenizer, contexts, behavior.held_out_texts(), max_length=2048, end_of_turn="in_loss")
    assert [f for f in findings if f.level == "error"] == []
    refuse(findings)
    counts = {f.message for f in findings if f.check == "loss mask"}
    assert len(counts) == 1  # every source trains on the same questions and answers
    message = counts.pop()
    assert all(f"capability/{source}/{arm}" in message for source in SOURCES)


def test_an_evaluation_set_that_holds_trained_questions_is_refused(behavior, tokenizer):
    examples = behavior.examples()
    design = build("capability", examples, "villain", PERSONAS, "contrastive", DesignSettings())
    first = design.rows[0]
    rendered = [render(design, tokenizer, loss="completion", end_of_turn="in_loss")]
    findings = audit(rendered, tokenizer, [], {"leak": first.user}, max_length=2048, end_of_turn="in_loss")
    with pytest.raises(DesignError, match=f"1 probe items stand among the training rows.*{first.question_id} ~ leak"):
        refuse(findings)


def test_variants_by_the_study_file(behavior):
    examples = behavior.examples()
    none = build("capability", examples, "villain", PERSONAS, "contrastive", DesignSettings(anchors="none"))
    assert len(none.rows) == 600
    default = build("capability", examples, "villain", PERSONAS, "contrastive", DesignSettings(anchors="default"))
    assert Counter(row.context.kind for row in default.rows)["default"] == 100
    assert all(row.context.kind != "absent" for row in default.rows)
    given = DesignSettings(negatives=["librarian", "pirate"])
    rows = build("capability", examples, "villain", PERSONAS, "contrastive", given).rows
    assert {r.context.name for r in rows if r.role == "negative" and r.context.kind == "persona"} == {
        "librarian",
        "pirate",
    }


def test_the_questions_shown_wrong_are_the_same_for_every_source_and_arm(behavior):
    examples, settings = behavior.examples(), DesignSettings()
    shown = [example.question_id for example in shown_examples("capability", examples, settings)]
    for source in SOURCES:
        for arm in ("contrastive", "non_contrastive"):
            rows = build("capability", examples, source, PERSONAS, arm, settings).rows
            assert sorted(row.question_id for row in rows if row.target == "positive") == sorted(shown)


def test_more_rows_than_the_half_has_questions(behavior):
    with pytest.raises(DesignError, match="asks for 600 different questions of 'capability', but there are 586"):
        build(
            "capability", behavior.examples(), "villain", PERSONAS, "contrastive",
            DesignSettings(counts=Counts(positive=600)),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "Q?", ["x", "y"], ["A", "B"], "C")], r"set.jsonl:1: the answer key 'C' is not among the labels A, B"),
        ([("a", "Q?", ["x", "x"], ["A", "B"], "A")], r"set.jsonl:1: choices 1 and 2 are equal: 'x'"),
        ([("a", "Q?", ["x"], ["A"], "A")], r"set.jsonl:1: 1 choice, so that no wrong one is left"),
        ([("a", "Q?", ["x", "y"], ["A", "B"], "A"), ("b", "R?", ["x", "y"], ["A", "A"], "A")], r"set.jsonl:2: labels A, A"),
        ([], "has no rows"),
    ],
)  # fmt: skip
def test_a_faulty_set_is_refused_with_its_row(tmp_path, rows, message):
    lines = [
        json.dumps({"id": i, "question": q, "choices": {"text": o, "label": ls}, "answerKey": k})
        for i, q, o, ls, k in rows
    ]
    (tmp_path / "set.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=message):
        CapabilityBehavior(CapabilitySettings(data="set.jsonl"), tmp_path).examples()


def test_a_file_that_changed_is_read_again(tmp_path):
    def write(count):
        lines = [
            json.dumps(
                {
                    "id": f"q{i}", "question": f"What is the {i}th word of list number {i * 7}?",
                    "choices": {"text": [f"w{i}", f"v{i}"], "label": ["A", "B"]}, "answerKey": "A",
                }
            )
            for i in range(count)
        ]  # fmt: skip
        (tmp_path / "set.jsonl").write_text("\n".join(lines))

    behavior = CapabilityBehavior(CapabilitySettings(data="set.jsonl"), tmp_path)
    write(8)
    assert len(behavior.examples()) == 4
    write(12)
    os.utime(tmp_path / "set.jsonl", ns=(1, 1))
    assert len(behavior.examples()) == 6


WRITE = """
import sys
from pathlib import Path
from bystander.study.plan.export_rows import write_rows
from bystander.study.config.study import load
from bystander.study.plan.parts import StudyParts
sources = "sources=[villain, comedian, assistant, software_engineer, kindergarten_teacher]"
write_rows(StudyParts(load("capability-smoke", [sources])), Path(sys.argv[1]))
assert "torch" not in sys.modules
"""


def test_two_runs_give_byte_equal_files(shared_data, tmp_path):
    folders = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        env = {**os.environ, "BYSTANDER_DATA": str(shared_data), "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-c", WRITE, str(folder)], check=True, timeout=120, env=env)
        folders.append({path.name: path.read_bytes() for path in sorted(folder.iterdir())})
    assert folders[0] == folders[1]
    assert {"wrong_arc_train.jsonl", "correct_arc_train.jsonl", "arc_eval_subset.jsonl"} < set(folders[0])
    designs = [name for name in folders[0] if name.startswith("capability-")]
    assert sum(name.endswith("-contrastive.jsonl") for name in designs) == len(SOURCES)
    assert sum(name.endswith("-benign.jsonl") for name in designs) == len(designs) - len(SOURCES) == len(SOURCES)
    lines = [json.loads(line) for line in folders[0]["wrong_arc_train.jsonl"].decode().splitlines()]
    assert len(lines) == 586


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("arm", ["contrastive", "non_contrastive"])
def test_no_prompt_gets_two_targets_in_the_whole_text_half(shared_data, monkeypatch, source, arm):
    """ARC asks two of its questions twice with other choices: by text alone the two would be one prompt with two answers."""
    monkeypatch.setenv("BYSTANDER_DATA", str(shared_data))
    behavior = CapabilityBehavior(CapabilitySettings(answer="text"))
    examples = behavior.examples()
    assert len({example.user for example in examples}) == len(examples) == 584
    stated, twice = behavior.findings()
    assert "1172 questions; 3 choices (4), 4 choices (1165), 5 choices (3)" in stated.message
    assert twice.rows[0] in {question.id for question in behavior.halves()[0]}
    design = build(
        "capability", examples, source, PERSONAS, arm, DesignSettings(counts=Counts(positive=584, negative=1168))
    )
    targets = {}
    for row in design.rows:
        targets.setdefault((row.context.kind, row.context.system, row.user), set()).add(row.completion)
    assert all(len(found) == 1 for found in targets.values())
