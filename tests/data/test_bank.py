"""The questions that ship: enough of them, balanced, no two alike, and none taken from a published set."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from bystander.core.errors import DataError
from bystander.data import load_bank, load_choice, load_open_questions, overlap
from bystander.data.similar import normalized


def test_the_bank_has_enough_questions_with_four_short_choices() -> None:
    bank = load_bank()
    assert len(bank) >= 240
    assert len({question.id for question in bank}) == len(bank)
    assert all(question.labels == ("A", "B", "C", "D") for question in bank)
    assert {len(option.split()) for question in bank for option in question.options} <= {1, 2, 3, 4, 5, 6}
    assert all(question.text.strip() == question.text and question.text[-1] in "?." for question in bank)


def test_answer_positions_are_balanced_in_the_bank_and_in_its_beginning() -> None:
    bank = load_bank()
    assert Counter(question.answer for question in bank) == dict.fromkeys(range(4), len(bank) // 4)
    assert Counter(question.answer for question in bank[:40]) == dict.fromkeys(range(4), 10)


def test_the_right_choice_is_not_given_away_by_its_length() -> None:
    bank = load_bank()
    longest = [max(range(4), key=lambda at, q=question: len(q.options[at])) == question.answer for question in bank]
    assert 0.15 < sum(longest) / len(longest) < 0.40  # 0.25 by chance


def test_no_two_questions_of_the_bank_are_alike() -> None:
    bank = load_bank()
    texts = {question.id: question.text for question in bank}
    alike = [pair for pair in overlap(texts, texts, threshold=0.35) if pair.train != pair.probe]
    assert alike == []
    words = {question.id: frozenset(normalized(question.text).split()) for question in bank}
    near = [(a, b) for a, b in combinations(words, 2) if len(words[a] & words[b]) / len(words[a] | words[b]) > 0.6]
    assert near == []
    assert len({question.group for question in bank}) == len(bank)


def test_the_bank_is_not_taken_from_arc(shared_data: Path) -> None:
    arc = {q.id: q.text for q in load_choice(shared_data / "data" / "arc_challenge_test.jsonl")}
    bank = {question.id: question.text for question in load_bank()}
    assert overlap(arc, bank, threshold=0.5) == []


def test_the_open_questions_are_short_everyday_and_distinct() -> None:
    questions = load_open_questions()
    assert len(questions) >= 24
    assert len({question.id for question in questions}) == len(questions)
    assert all(6 <= len(question.text.split()) <= 15 for question in questions)
    texts = {question.id: question.text for question in questions}
    assert [pair for pair in overlap(texts, texts, threshold=0.3) if pair.train != pair.probe] == []
    assert overlap({q.id: q.text for q in load_bank()}, texts, threshold=0.3) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no list `questions`"),
        ("questions: []\n", "no list `questions`"),
        ("questions: [\n", "not YAML"),
        ("questions:\n  - {id: a}\n", "question 1 must have"),
        ("questions:\n  - {id: a, text: Why, mood: b}\n", "question 1 must have"),
        ("questions:\n  - {id: a, text: Why}\n  - {id: a, text: How}\n", "question 2 repeats"),
    ],
)
def test_a_faulty_file_of_open_questions_is_refused(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "open.yaml"
    path.write_text(content)
    with pytest.raises(DataError, match=r"open\.yaml") as caught:
        load_open_questions(path)
    assert says in str(caught.value)


def test_a_missing_file_of_open_questions_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        load_open_questions(tmp_path / "none.yaml")
