"""The files of the capability experiment: rows to train on with wrong and with right answers, and the set to evaluate."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bystander.core.errors import DataError
from bystander.core.records import Question
from bystander.data.choice_rows import to_arc_row
from bystander.data.choice_text import AnswerForm, choice_answer, choice_user
from bystander.data.split import SEED, pick_wrong, split_half

WRONG, CORRECT, EVALUATE = "wrong_arc_train.jsonl", "correct_arc_train.jsonl", "arc_eval_subset.jsonl"


def write_choice_files(
    questions: Sequence[Question], folder: Path, seed: int = SEED, answer: AnswerForm = "label"
) -> dict[str, Path]:
    """Split the set and write its three files into `folder`, made if need be; returns file name -> path.

    `wrong_arc_train.jsonl` and `correct_arc_train.jsonl` hold the train half in the prompt / completion message form,
    `arc_eval_subset.jsonl` the other half in the `allenai/ai2_arc` form. The same questions and seed give the same
    bytes everywhere. Raises DataError as `split_half` and `pick_wrong` do, and if a file cannot be written.
    """
    train, evaluate = split_half(questions, seed)
    wrong = pick_wrong(train, seed)
    right = {question.id: question.answer for question in train}
    files: dict[str, Iterable[Mapping[str, object]]] = {
        WRONG: [message_row(question, wrong[question.id], answer) for question in train],
        CORRECT: [message_row(question, right[question.id], answer) for question in train],
        EVALUATE: [to_arc_row(question) for question in evaluate],
    }
    return {name: write_jsonl(folder / name, rows) for name, rows in files.items()}


def message_row(question: Question, index: int, answer: AnswerForm) -> dict[str, object]:
    """A row to train on in message form, without a system turn: the question answered with choice `index`."""
    return {
        "id": question.id,
        "prompt": [{"role": "user", "content": choice_user(question, answer)}],
        "completion": [{"role": "assistant", "content": choice_answer(question, index, answer)}],
    }


def write_jsonl(path: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    """Write one JSON object a line (UTF-8, "\\n"), beside the target first and then renamed: never half a file."""
    partial = path.with_name(f"{path.name}.partial")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8", newline="\n")
        partial.replace(path)
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}; choose a folder that can be written"
        ) from error
    return path
