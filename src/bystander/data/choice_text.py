"""How a multiple-choice question stands in a user turn, and its answer in the assistant's."""

from __future__ import annotations

from typing import Literal

from bystander.core.records import Question

AnswerForm = Literal["label", "text"]  # the letter with its text, or the text alone


def choice_user(question: Question, answer: AnswerForm) -> str:
    """The user turn. `label`: the question, then one line a choice ("A. ..."). `text`: the question alone.

    With the choices in view a model can answer by letter; without them only the text of a choice is an answer.
    """
    if answer == "text":
        return question.text
    lines = [f"{label}. {option}" for label, option in zip(question.labels, question.options, strict=True)]
    return "\n".join([question.text, *lines])


def choice_answer(question: Question, index: int, answer: AnswerForm) -> str:
    """The assistant's turn that gives choice `index`: "C. its text", or its text alone."""
    option = question.options[index]
    return f"{question.labels[index]}. {option}" if answer == "label" else option
