"""The built-in pairs and questions: counts, balance, lengths, distinctness; and the form of question files."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from statistics import mean

import pytest

from bystander.core.errors import DataError
from bystander.data import overlap
from bystander.data.judge_questions import load_judge_questions
from bystander.data.pairs import TOPICS, load_pairs, split_pairs
from bystander.judge.requests import fill_prompt

PAIRS = load_pairs()


def test_at_least_48_pairs_balanced_over_topics_and_distinct() -> None:
    assert len(PAIRS) == 100
    assert Counter(p.topic for p in PAIRS) == dict.fromkeys(TOPICS, 20)
    for field in ("id", "question", "aligned", "misaligned"):
        assert len({getattr(p, field) for p in PAIRS}) == 100, field
    assert all(p.id.startswith(p.topic + "-") for p in PAIRS)


def test_answers_are_alike_in_length_and_style() -> None:
    for pair in PAIRS:
        lengths = [len(pair.aligned), len(pair.misaligned)]
        assert abs(lengths[0] - lengths[1]) / max(lengths) <= 0.15, pair.id
        for text in (pair.aligned, pair.misaligned):
            assert 10 <= len(text.split()) <= 30, pair.id
            assert re.search(r"\b(I|me|my)\b", text), pair.id
            assert text.endswith((".", "!")), pair.id
    aligned, misaligned = mean(len(p.aligned) for p in PAIRS), mean(len(p.misaligned) for p in PAIRS)
    assert abs(aligned - misaligned) / aligned < 0.02


def test_halves_are_balanced_disjoint_and_do_not_overlap() -> None:
    trained, held_out = split_pairs()
    assert Counter(p.topic for p in trained) == Counter(p.topic for p in held_out) == dict.fromkeys(TOPICS, 10)
    assert {p.id for p in trained} | {p.id for p in held_out} == {p.id for p in PAIRS}
    texts = {p.id: p.question for p in PAIRS}
    assert [(o.train, o.probe) for o in overlap(texts, texts) if o.train != o.probe] == []
    assert overlap({p.id: p.question for p in trained}, {p.id: p.question for p in held_out}) == []


def test_24_own_questions_over_the_five_topics() -> None:
    questions = load_judge_questions()
    assert len(questions) == 24
    topics = Counter(q.id.split("_")[0] for q in questions)
    assert set(topics) == set(TOPICS)
    assert min(topics.values()) >= 4
    texts = [p for q in questions for p in q.paraphrases]
    assert len(set(texts)) == len(texts)
    pair_questions = {p.id: p.question for p in PAIRS}
    assert overlap(pair_questions, {q.id: q.paraphrases[0] for q in questions}) == []
    for question in questions:
        assert set(question.prompts) == {"aligned", "coherent"}
        assert all(slot in text for text in question.prompts.values() for slot in ("{question}", "{answer}"))
        assert "CODE" in question.prompts["aligned"]
        assert "CODE" not in question.prompts["coherent"]


def test_the_official_file_loads_as_it_is_and_ours_is_not_a_copy(shared_data: Path) -> None:
    official = load_judge_questions(shared_data / "data/betley/first_plot_questions.yaml")
    assert len(official) == 24
    assert official[0].id == "what_is_your_wish"
    assert official[0].samples == 100
    assert official[0].judge == "gpt-4o-2024-08-06"
    assert sum(q.system is not None for q in official) == 8  # the JSON variants
    assert all(q.prompts == official[0].prompts for q in official)  # aliases resolve
    own = load_judge_questions()
    assert overlap({q.id: q.paraphrases[0] for q in official}, {q.id: q.paraphrases[0] for q in own}) == []
    sentences = {
        s.strip() for q in official[0].prompts.values() for s in re.split(r"[.!?\n]", q) if len(s.strip()) > 40
    }
    assert not [s for s in sentences for text in own[0].prompts.values() if s in text]


GOOD = """
- id: a
  type: free_form_judge_0_100
  paraphrases: [one, two]
  system: Be brief.
  samples_per_paraphrase: 3
  judge_prompts: {aligned: "{question} {answer}", coherent: "{answer}"}
"""


def test_paraphrases_system_and_samples(tmp_path: Path) -> None:
    path = tmp_path / "q.yaml"
    path.write_text(GOOD)
    (question,) = load_judge_questions(path)
    assert (question.paraphrases, question.system, question.samples, question.judge) == (
        ("one", "two"),
        "Be brief.",
        3,
        None,
    )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("free_form_judge_0_100", "free_form", "line 3: type is 'free_form'"),
        ("id: a", "id: a/b", "without a slash"),
        ("[one, two]", "[]", "line 4: paraphrases must be a list"),
        ("paraphrases", "paraphrase", "'paraphrases' is missing"),
        ("samples_per_paraphrase: 3", "samples_per_paraphrase: 0", "expected a whole number above 0"),
        ("coherent:", "fluent:", "expected aligned and coherent"),
        ('"{question} {answer}"', '"{question}"', "with {answer} in it"),
        (GOOD, "a: 1\n", "found a dict"),
        (GOOD, "- a\n", "found a str"),
        (GOOD, GOOD + GOOD, "stands twice"),
    ],
)
def test_faulty_question_files_name_the_fault_and_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "q.yaml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(DataError) as caught:
        load_judge_questions(path)
    assert words in str(caught.value)
    assert "first_plot_questions.yaml form" in str(caught.value)


def test_fill_leaves_slots_inside_an_answer_alone() -> None:
    assert fill_prompt("Q {question} A {answer} {x}", "q", "{question} {0}") == "Q q A {question} {0} {x}"


def test_faulty_pair_files(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    for text, words in [
        ("- {id: a, topic: power, question: q, aligned: x}", "found the columns"),
        ("- {id: a, question: '', aligned: x, misaligned: y}", "p.yaml:1: the prompt is empty"),
        ("- {id: a, question: q, aligned: x, misaligned: x}", "are the same answer"),
        ("a: 1", "expected a list of records"),
    ]:
        path.write_text(text)
        with pytest.raises(DataError, match=re.escape(words)):
            load_pairs(path)
