"""Which choice a hosted model took: by the probabilities of its first token where there are any, else by its letter."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from bystander.core.records import Question
from bystander.judge.answer_store import RawAnswer
from bystander.probe.choice import choice_values

_LETTER = re.compile(r"[^\w]*(\w+)\b")


@dataclass(frozen=True, slots=True)
class Chosen:
    """`values` by metric, as the choice probe has them; {} where the answer names no choice, and `reason` says so."""

    answer: str
    values: dict[str, float]
    reason: str = ""


def chosen(question: Question, answer: RawAnswer) -> Chosen:
    """`accuracy`, and where every label has a probability `margin` (nats), by the choice probe's own rule."""
    scores = label_scores(question.labels, answer)
    if all(math.isfinite(score) for score in scores):
        values = choice_values(scores, question.answer, None)
        return Chosen(question.labels[scores.index(max(scores))], values)
    label = label_in(question, answer.text or "")
    if label is None:
        shown = " ".join((answer.text or "").split())[:80]
        return Chosen("", {}, f"the answer names no choice: {shown!r}" if shown else answer.reason or "an empty answer")
    return Chosen(label, {"accuracy": float(question.labels.index(label) == question.answer)})


def label_scores(labels: Sequence[str], answer: RawAnswer) -> list[float]:
    """Log-probability of each label as the first token, with or without white space around it; -inf for one that is not
    among the alternatives that the host gave."""
    totals = dict.fromkeys(labels, 0.0)
    for one in answer.alternatives:
        if one.token.strip() in totals:
            totals[one.token.strip()] += math.exp(one.logprob)
    return [math.log(total) if total > 0 else -math.inf for total in totals.values()]


def label_in(question: Question, text: str) -> str | None:
    """The label that an answer begins with ("C", "(C)", "**C.** its text"), or that of the choice whose text it is."""
    plain = text.strip().rstrip(".").casefold()
    by_text = [label for label, option in zip(question.labels, question.options, strict=True) if option.strip().rstrip(".").casefold() == plain]  # fmt: skip
    if len(by_text) == 1:
        return by_text[0]
    first = _LETTER.match(text)
    return first.group(1) if first and first.group(1) in question.labels else None
