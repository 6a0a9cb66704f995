"""One row of a multiple-choice set, checked, as a Question: the `allenai/ai2_arc` form and the HellaSwag form."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, cast

from bystander.core.faults import RowFaults
from bystander.core.records import Question

ChoiceForm = Literal["arc", "hellaswag"]
COLUMNS: dict[ChoiceForm, tuple[str, ...]] = {
    "arc": ("id", "question", "choices", "answerKey"),
    "hellaswag": ("ind", "activity_label", "ctx_a", "ctx_b", "endings", "label"),
}
LETTERS = "ABCDEFGHIJ"
DIGITS = "123456789"
_BRACKETED = re.compile(r"\[.*?\]")


def form_of(row: Mapping[str, object]) -> ChoiceForm | None:
    """The form that a row's columns fit, or None."""
    return next((form for form, columns in COLUMNS.items() if all(name in row for name in columns)), None)


def to_question(
    row: Mapping[str, object], form: ChoiceForm, number: int, faults: RowFaults, *, published: bool = False
) -> Question | None:
    """The row as a Question, or None with every reason noted under `number`.

    Two equal choices are a fault; in a `published` set two equal *wrong* ones are not, since nobody can correct them
    and accuracy means the same with them.
    """
    missing = [name for name in COLUMNS[form] if name not in row]
    if missing:
        faults.add(number, f"no column {', '.join(missing)}; the {form} form has {', '.join(COLUMNS[form])}")
        return None
    question = _arc(row, number, faults) if form == "arc" else _hellaswag(row, number, faults)
    if question is None:
        return None
    before = len(faults.found)
    _check_equal(question, number, faults, published)
    return question if len(faults.found) == before else None


def to_arc_row(question: Question) -> dict[str, object]:
    """A Question as a row of the `allenai/ai2_arc` form."""
    return {
        "id": question.id,
        "question": question.text,
        "choices": {"text": list(question.options), "label": list(question.labels)},
        "answerKey": question.labels[question.answer],
    }


def clean_hellaswag(text: str) -> str:
    """WikiHow's markup taken out as lm-evaluation-harness does it, so that accuracies compare.

    " [title]" becomes a full stop, other bracketed tags go, and doubled spaces are halved once.
    """
    return _BRACKETED.sub("", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def _texts(value: object) -> list[str] | None:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in cast("list[object]", value)):
        return None
    return cast("list[str]", value)


def _arc(row: Mapping[str, object], number: int, faults: RowFaults) -> Question | None:
    name, text, choices, key = (row[column] for column in COLUMNS["arc"])
    before = len(faults.found)
    for column, value in (("id", name), ("question", text), ("answerKey", key)):
        if not isinstance(value, str) or not value.strip():
            faults.add(number, f"`{column}` must be text that is not empty, not {value!r}")
    parts = cast("Mapping[str, object]", choices) if isinstance(choices, Mapping) else {}
    options, labels = _texts(parts.get("text")), _texts(parts.get("label"))
    if options is None or labels is None:
        faults.add(number, f"`choices` must hold two lists of text, `text` and `label`, not {choices!r}")
    if len(faults.found) > before or options is None or labels is None:
        return None
    _check_options(options, number, faults)
    _check_labels(options, labels, number, faults)
    if key not in labels:
        faults.add(number, f"the answer key {key!r} is not among the labels {', '.join(labels)}")
    if len(faults.found) > before:
        return None
    return Question(str(name), str(text), tuple(options), tuple(labels), labels.index(str(key)))


def _check_options(options: Sequence[str], number: int, faults: RowFaults) -> None:
    if len(options) < 2:
        faults.add(number, f"{len(options)} choice, so that no wrong one is left; at least 2 are needed")
    if len(options) > len(LETTERS):
        faults.add(number, f"{len(options)} choices; at most {len(LETTERS)} can be labelled")
    for at, option in enumerate(options):
        if not option.strip():
            faults.add(number, f"choice {at + 1} is empty")


def equal_choices(question: Question) -> list[tuple[int, int]]:
    """Pairs of positions whose choices are equal but for spacing.

    Case counts: ARC asks for a genotype, with the choices "dd" and "DD".
    """
    plain = [" ".join(option.split()) for option in question.options]
    return [(first, second) for second in range(len(plain)) for first in range(second) if plain[first] == plain[second]]


def _check_equal(question: Question, number: int, faults: RowFaults, published: bool) -> None:
    for first, second in equal_choices(question):
        if not published or question.answer in (first, second):
            shown = question.options[first]
            faults.add(number, f"choices {first + 1} and {second + 1} are equal: {shown!r}; choices must differ")


def _check_labels(options: Sequence[str], labels: Sequence[str], number: int, faults: RowFaults) -> None:
    if len(labels) != len(options):
        faults.add(number, f"{len(labels)} labels for {len(options)} choices; each choice needs its own")
    elif list(labels) not in (list(LETTERS[: len(labels)]), list(DIGITS[: len(labels)])):
        faults.add(number, f"labels {', '.join(labels)}: they must run A, B, C, ... or 1, 2, 3, ... in this order")


def _hellaswag(row: Mapping[str, object], number: int, faults: RowFaults) -> Question | None:
    ind, activity, start, rest, endings, label = (row[column] for column in COLUMNS["hellaswag"])
    before = len(faults.found)
    for column, value in (("activity_label", activity), ("ctx_a", start), ("ctx_b", rest)):
        if not isinstance(value, str):
            faults.add(number, f"`{column}` must be text, not {value!r}")
    options = _texts(endings)
    if options is None:
        faults.add(number, f"`endings` must be a list of text, not {endings!r}")
    key = str(label)  # a number in the published JSONL, text on the Hub
    if isinstance(label, bool) or not key.isascii() or not key.isdigit():
        faults.add(number, f"`label` must be the index of an ending, not {label!r} (the test split has none)")
    if len(faults.found) > before or options is None:
        return None
    options = [clean_hellaswag(option) for option in options]
    _check_options(options, number, faults)
    if int(key) >= len(options):
        faults.add(number, f"the label {key} is not among the {len(options)} endings (0 to {len(options) - 1})")
    if len(faults.found) > before:
        return None
    text = clean_hellaswag(f"{activity}: {start} {str(rest).capitalize()}")
    return Question(f"hellaswag-{ind}", text, tuple(options), tuple(LETTERS[: len(options)]), int(key))
