"""Rubrics: what a judge is asked of an answer, and what counts as its reply. The built-in two are rubrics among others.

Strict like `judge.parse`: a reply that does not close as declared is failed, with a reason, and never a score.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bystander.core.errors import JudgeError
from bystander.judge.answer_store import RawAnswer
from bystander.judge.asking import ask
from bystander.judge.judging import Judge
from bystander.judge.parse import weighted_mean
from bystander.judge.requests import Request, fill_prompt

SLOT = "{score}"
BARE = ("", "number", "class")  # closings of a reply that is the number or class alone
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
WEIGHTED_RANGE = (0.0, 100.0)  # in which number tokens are weighted by their probability (Betley et al. 2025)


@dataclass(frozen=True, slots=True)
class Rubric:
    """`prompt` with {answer} and maybe {question}. A reply is a number from `low` to `high` (None: no numbers), or one of
    `classes`. `closing`: see `behaviors.scorers.JudgeScorer`. `draws`: replies an answer."""

    prompt: str
    low: float | None = None
    high: float | None = None
    classes: tuple[str, ...] = ()
    closing: str = ""
    draws: int = 1

    @property
    def reasons_first(self) -> bool:
        """Whether the judge writes more than its verdict."""
        return self.closing not in BARE


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply of a judge, or several put together. `number` or `label` ("" for none); with neither it is failed, and
    `reason` says why. `text`: what was written; `key`: of the raw answer in the judge's cache."""

    number: float | None = None
    label: str = ""
    reason: str = ""
    text: str | None = None
    key: str = ""

    @property
    def failed(self) -> bool:
        """Whether it says nothing."""
        return self.number is None and not self.label


def parse_reply(answer: RawAnswer, rubric: Rubric) -> Reply:
    """The number or class of a raw answer."""
    if answer.text is None:
        return Reply(reason=answer.reason or "no answer")
    text = answer.text.strip()
    if not text:
        return Reply(reason=f"empty answer (stopped by {answer.stop or 'the server'})", text=answer.text)
    said = _closing(text, rubric) if rubric.reasons_first else text
    cut = " (cut at max_tokens)" if answer.stop == "max_tokens" else ""
    if said is None:
        return Reply(reason=f"the last line is not {rubric.closing!r}: {_shown(text)}{cut}", text=answer.text)
    named = {name.casefold(): name for name in rubric.classes}
    label = named.get(said.rstrip(".").casefold())
    if label is not None:
        return Reply(label=label, text=answer.text)
    if rubric.low is None or rubric.high is None or not _NUMBER.fullmatch(said):
        return Reply(reason=f"neither {_expected(rubric)}: {_shown(said)}{cut}", text=answer.text)
    number = float(said)
    if not rubric.low <= number <= rubric.high:
        return Reply(reason=f"out of range {rubric.low:g} to {rubric.high:g}: {said}", text=answer.text)
    if not rubric.reasons_first and (rubric.low, rubric.high) == WEIGHTED_RANGE:
        mean = weighted_mean(answer, said)
        number = number if mean is None else mean
    return Reply(number, text=answer.text)


def _closing(text: str, rubric: Rubric) -> str | None:
    """What stands in the slot of the reply's last line; None where that line has another form."""
    before, _, after = rubric.closing.strip().partition(SLOT)
    form = rf"{re.escape(before.strip())}\s*(.+?)\s*{re.escape(after.strip())}"
    match = re.fullmatch(form, text.splitlines()[-1].strip(), re.IGNORECASE)
    return match[1] if match else None


def _expected(rubric: Rubric) -> str:
    number = [] if rubric.low is None else [f"a number from {rubric.low:g} to {rubric.high:g}"]
    return " nor ".join([*number, *rubric.classes])


def _shown(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else "..." + text[-limit + 3 :])


def together(replies: Sequence[Reply], rubric: Rubric) -> Reply:
    """Several draws as one: the mean of the numbers where most of the sound replies are numbers, else the most frequent
    class (of equal ones the rubric's first). Failed where more than half of the draws are, with the first reason."""
    sound = [reply for reply in replies if not reply.failed]
    failed = [reply for reply in replies if reply.failed]
    if 2 * len(failed) > len(replies) or not sound:
        several = f"{len(failed)} of {len(replies)} draws failed: " if len(replies) > 1 else ""
        return Reply(reason=several + (failed[0].reason if failed else "no draw"))
    note = f"{len(failed)} of {len(replies)} draws failed" if failed else ""
    numbers = [reply.number for reply in sound if reply.number is not None]
    if 2 * len(numbers) >= len(sound):
        return Reply(sum(numbers) / len(numbers), reason=note)
    times = Counter(reply.label for reply in sound if reply.label)
    return Reply(label=max(rubric.classes, key=lambda name: times[name]), reason=note)


def judge_by(judge: Judge, rubric: Rubric, asked: Sequence[tuple[str, str]]) -> list[list[Reply]]:
    """The replies to every (question, answer), `draws` each, in order. Kept answers are not paid for again.

    Raises JudgeError where no reply can be had at all, and where draws are asked of a judge at temperature 0, which would
    be one reply many times over."""
    if rubric.draws > 1 and judge.settings.temperature == 0:
        raise JudgeError(
            f"{rubric.draws} draws of a judge at temperature 0 are one reply; set judge.temperature above 0"
        )
    requests = rubric_requests(judge, rubric, asked)
    found = {answer.key: answer for answer in ask(judge.client, [one for draws in requests for one in draws])}
    return [[_hidden(judge, parse_reply(found[one.key], rubric), one.key) for one in draws] for draws in requests]


def rubric_requests(judge: Judge, rubric: Rubric, asked: Sequence[tuple[str, str]]) -> list[list[Request]]:
    """What is sent about every (question, answer), `draws` each."""
    client = judge.client
    return [
        [
            Request(client.key_for("rubric", rubric.prompt, question, answer, draw), fill_prompt(rubric.prompt, question, answer))
            for draw in range(rubric.draws)
        ]
        for question, answer in asked
    ]  # fmt: skip


def read_again(kept: Reply, raw: RawAnswer, rubric: Rubric) -> Reply:
    """A kept reply by this version's rules. A number that was weighted by the likelihood of other tokens stays where `raw` has
    none of them."""
    found = replace(parse_reply(raw, rubric), key=kept.key, text=kept.text)
    weighted = not rubric.reasons_first and (rubric.low, rubric.high) == WEIGHTED_RANGE
    if weighted and not raw.alternatives and found.number is not None and kept.number is not None:
        return replace(found, number=kept.number)
    return found


def _hidden(judge: Judge, reply: Reply, key: str) -> Reply:
    hide = judge.client.hide
    return Reply(reply.number, reply.label, hide(reply.reason), None if reply.text is None else hide(reply.text), key)
