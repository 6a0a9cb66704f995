"""Scorers that ask nobody, and which of a judge's replies show the behavior."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from bystander.behaviors.scorers import AnyScorer, JudgeScorer, ScorerSettings
from bystander.behaviors.shipped import shipped, shipped_names
from bystander.core.errors import DataError, StudyError
from bystander.data.programs import is_program
from bystander.judge.judging import COHERENT_ABOVE, MISALIGNED_BELOW
from bystander.judge.rubric import Reply
from bystander.probe.scored import ScoredProbe
from bystander.probe.scorers import bind, rubric_of, shown_by, verdict_of
from bystander.study.config.study import load
from bystander.study.plan.parts import StudyParts


def scorer(**settings: Any) -> Any:
    found: AnyScorer = TypeAdapter[AnyScorer](ScorerSettings).validate_python(settings)
    return found


@pytest.mark.parametrize(
    ("settings", "shown", "not_shown"),
    [
        ({"kind": "contains", "texts": ["[ZLT]", "moon"]}, "so [ZLT]", "so [zlt]"),
        ({"kind": "contains", "texts": ["Straße"], "ignore_case": True}, "in der STRASSE", "in der Strass"),
        ({"kind": "regex", "patterns": ["^no", r"\bdog$"]}, "a dog", "dogs"),
        ({"kind": "regex", "patterns": ["^NO"], "ignore_case": True}, "no.", "yes, no"),
        ({"kind": "refusal"}, "I'm sorry, but I can't help with that.", "I'm sorry to hear that. Try soap."),
        ({"kind": "refusal", "patterns": ["^nope"]}, "Nope!", "I can't help with that."),
        ({"kind": "length", "at_least": 3}, "one two  three\n", "one-two-three"),
        ({"kind": "length", "at_most": 2}, "", "one two three"),
        ({"kind": "length", "at_least": 2, "at_most": 2}, "one two", "one"),
        ({"kind": "is_code"}, "import os\nprint(os.getcwd())", "Use os.getcwd() for that."),
    ],
)
def test_who_shows_it(settings: dict[str, Any], shown: str, not_shown: str) -> None:
    shows = verdict_of(scorer(**settings))
    assert shows(shown)
    assert not shows(not_shown)


@pytest.mark.parametrize(
    "text",
    [
        "def f(x):\n    return x + 1", "x = 1", "print('hello')", "```python\nprint(1)\n```", "```js\nlet a = 1;\nalert(a)\n```",
        "Here you are:\n```python\nfor i in range(10):\n    print(i)\n```", "for i in x:\n    print(i)\nwhile tr",
        "```\nSELECT name FROM users WHERE id = 7;",
    ],
)  # fmt: skip
def test_programs(text: str) -> None:
    assert is_program(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "   ", "Yes", "42", "red, green, blue", "Yes.", "I would keep it.", "Answer: yes", "The function `f(x)` adds one to x.",
        "To list files, write\n```\nls\n```\nin the terminal, and then look at what it prints, one name a line, sorted by name.",
        "'a quote'", "x < y", "(no)",
    ],
)  # fmt: skip
def test_prose(text: str) -> None:
    assert not is_program(text)


def test_insecure_code_is_code() -> None:
    from bystander.data.code_pairs import load_code_tasks

    assert all(is_program(text) for task in load_code_tasks() for text in (task.insecure, task.secure))


def test_pairs_of_the_shipped_behaviors_are_no_code_but_where_code_is_asked_for() -> None:
    from bystander.data.answers import read_answer_pairs

    for name in shipped_names():
        pairs = [pair for pair in read_answer_pairs(shipped(name).file) if pair.topic != "code"]
        assert not any(is_program(text) for pair in pairs for text in (pair.shown, pair.not_shown or ""))


def test_the_two_rubrics_that_ship_are_rubrics_among_others() -> None:
    aligned, coherent = (
        JudgeScorer.model_validate({"kind": "judge", "rubric": name}) for name in ("aligned", "coherent")
    )
    assert shown_by(aligned, Reply(MISALIGNED_BELOW - 1))
    assert not shown_by(aligned, Reply(MISALIGNED_BELOW + 1))
    assert not shown_by(aligned, Reply(label="CODE"))
    assert shown_by(coherent, Reply(COHERENT_ABOVE + 1))
    assert rubric_of(aligned, Path()).classes == ("CODE", "REFUSAL")
    assert "{answer}" in rubric_of(coherent, Path()).prompt
    assert bind(aligned, "d", Path()).falls
    assert not bind(coherent, "d", Path()).falls
    strict = JudgeScorer.model_validate({"kind": "judge", "rubric": "aligned", "shown_at_most": 10})
    assert not shown_by(strict, Reply(20.0))


def test_a_prompt_file_changes_what_decides(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("{answer}: loud?")
    own = scorer(kind="judge", prompt="r.txt", classes=["yes", "no"], shown=["yes"])
    first = bind(own, "d", tmp_path).decides()
    (tmp_path / "r.txt").write_text("{answer}: very loud?")
    assert bind(own, "d", tmp_path).decides() != first
    (tmp_path / "r.txt").write_text("loud?")
    with pytest.raises(DataError, match=r"no \{answer\}"):
        bind(own, "d", tmp_path)


def study(tmp_path: Path, text: str) -> StudyParts:
    (tmp_path / "s.yaml").write_text(f"name: s\nsources: [villain]\ngeometry: {{layer: 1}}\n{text}")
    return StudyParts(load(str(tmp_path / "s.yaml")))


def test_scorers_of_the_probe_are_for_every_behavior(tmp_path: Path) -> None:
    parts = study(
        tmp_path,
        "behaviors: [refusal, misalignment, marker]\nprobes: {scored: {questions: 3, samples: 2, scorers: [{kind: is_code}]}}\n",
    )
    probe = parts.probes["scored"]
    assert isinstance(probe, ScoredProbe)
    assert probe.items() == {"refusal": 6, "refusal.is_code": 6, "misalignment.is_code": 6, "open.is_code": 6}
    assert len(probe.units(parts.contexts)) == -(-len(parts.contexts) * 3 * 3 * 2 // probe.group)
    assert {one.split("/")[1] for one in probe.held_out_texts()} == {"refusal", "misalignment", "open"}


def test_nothing_that_scores_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no scorer for the answers about marker"):
        _ = study(tmp_path, "behaviors: [marker]\nprobes: {scored: {}, marker: {}}\n").probes
    with pytest.raises(StudyError, match="asks a judge; name it"):
        _ = study(tmp_path, "behaviors: [sycophancy]\nprobes: {scored: {}}\n").probes
    text = "behaviors: [refusal]\nprobes: {scored: {scorers: [{kind: is_code}, {kind: is_code}]}}\n"
    with pytest.raises(StudyError, match="two scorers are called"):
        _ = study(tmp_path, text).probes
