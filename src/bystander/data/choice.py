"""Multiple-choice sets: read, checked row by row, near-duplicates grouped; and a statement of what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bystander.core.errors import DataError
from bystander.core.faults import RowFaults
from bystander.core.hashing import stable_order
from bystander.core.records import Question
from bystander.data.choice_rows import COLUMNS, ChoiceForm, equal_choices, form_of, to_question
from bystander.data.choice_source import Download, Rows, find_rows
from bystander.data.similar import content_key, grouped


@dataclass(frozen=True, slots=True)
class ChoiceSet:
    """What was found in a multiple-choice set. The three counts map a kind to a number of questions."""

    where: str
    form: ChoiceForm
    rows: int
    choices: Mapping[int, int]  # number of choices -> questions
    labels: Mapping[str, int]  # label range, such as "A-D" or "1-4" -> questions
    answers: Mapping[int, int]  # position of the right choice, from 0 -> questions
    duplicates: int  # questions that share a near-duplicate group with another
    equal_wrong: int  # questions with two equal wrong choices; 0 but in a published set

    def __str__(self) -> str:
        parts = [
            _counts(self.choices, "{} choices"),
            "labels " + _counts(self.labels, "{}"),
            "right choice at position " + _counts({at + 1: count for at, count in self.answers.items()}, "{}"),
        ]
        near = f"{self.duplicates} questions have a near-duplicate" if self.duplicates else "no near-duplicates"
        if self.equal_wrong:
            near += f"; {self.equal_wrong} questions have two equal wrong choices"
        return f"{self.where}: {self.form} form, {self.rows} questions; {'; '.join(parts)}; {near}"


def load_choice(source: str | Path, download: Download | None = None) -> list[Question]:
    """The questions of "bank", "arc" (ARC-Challenge, test), "hellaswag" (validation), or of a local file of either form.

    In the set's order, none dropped, `group` filled in. HellaSwag's text is its activity and context, its options the
    endings, cleaned as lm-evaluation-harness does it. Raises DataError, naming every row at fault, for rows that are
    not JSON, lack a column or have a wrong type, a key that is not among the choices, equal or empty choices, fewer
    than two choices, labels that do not fit the choices, or an id used twice; and as `find_rows` does.
    """
    return _load(source, download)[1]


def describe_choice(source: str | Path, download: Download | None = None) -> ChoiceSet:
    """What `load_choice` finds there: its form, counts and label kinds. Raises what `load_choice` raises."""
    return read_choice(source, download)[0]


def read_choice(source: str | Path, download: Download | None = None) -> tuple[ChoiceSet, list[Question]]:
    """Both of `describe_choice` and `load_choice`, at the cost of one."""
    (where, form), questions = _load(source, download)
    return _describe(where, form, questions), questions


def _describe(where: str, form: ChoiceForm, questions: Sequence[Question]) -> ChoiceSet:
    ranges = (f"{question.labels[0]}-{question.labels[-1]}" for question in questions)
    groups = Counter(question.group for question in questions)
    return ChoiceSet(
        where,
        form,
        len(questions),
        dict(sorted(Counter(len(question.options) for question in questions).items())),
        dict(Counter(ranges).most_common()),
        dict(sorted(Counter(question.answer for question in questions).items())),
        sum(count for count in groups.values() if count > 1),
        sum(bool(equal_choices(question)) for question in questions),
    )


def draw_questions(questions: Sequence[Question], count: int, *seed_parts: object) -> list[Question]:
    """`count` different questions in an order decided by their content and `seed_parts`, the same on every machine.

    A draw of fewer is the beginning of a draw of more. Raises DataError if there are fewer than `count`.
    """
    if not 0 <= count <= len(questions):
        raise DataError(f"{count} questions asked for, but the set has {len(questions)}; lower the count")
    keyed = {(content_key(question), question.id): question for question in questions}
    if len(keyed) < len(questions):
        raise DataError(f"{len(questions) - len(keyed)} questions stand twice, with the same id; remove the repeats")
    return [keyed[key] for key in stable_order(sorted(keyed), "draw", *seed_parts)[:count]]


def _load(source: str | Path, download: Download | None) -> tuple[tuple[str, ChoiceForm], list[Question]]:
    found = find_rows(source, download)
    form = _detect(found)
    faults = RowFaults(found.where)
    taken: dict[str, int] = {}
    questions: list[Question] = []
    for number, row in found.rows:
        question = to_question(row, form, number, faults, published=found.published)
        if question is None:
            continue
        if question.id in taken:
            faults.add(number, f"the id {question.id!r} is that of row {taken[question.id]}; ids must differ")
        taken.setdefault(question.id, number)
        questions.append(question)
    faults.raise_any()
    return (found.where, form), grouped(questions)


def _detect(found: Rows) -> ChoiceForm:
    number, first = found.rows[0]
    form = form_of(first)
    if form is not None:
        return form
    forms = "; ".join(f"{name}: {', '.join(columns)}" for name, columns in COLUMNS.items())
    raise DataError(
        f"{found.where}:{number}: columns {', '.join(sorted(first)) or 'none'} fit no known form; needed are {forms}"
    )


def _counts(counts: Mapping[int, int] | Mapping[str, int], kind: str) -> str:
    return ", ".join(f"{kind.format(key)} ({count})" for key, count in counts.items())
