"""One record of a file of answers, checked, as prompt and answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from bystander.core.faults import RowFaults
from bystander.core.record_files import Record
from bystander.data.answers.shapes import Shape
from bystander.data.turns import UNTRAINED, Conversation, Fault, Turn, read_answer, read_conversation

Asked = tuple[str | None, tuple[Turn, ...]]  # what an answer answers: the system turn and the turns after it
TOOLS = "the row declares tools, which would be no part of the prompt; remove the row or its tools"


@dataclass(frozen=True, slots=True)
class RawPair:
    """A record's prompt and answers. `not_shown` is None where the record has none; `id` is "" where it has none."""

    line: int
    id: str
    asked: Asked
    shown: str
    not_shown: str | None
    topic: str


def read_row(
    line: int, record: Record, shape: Shape, system: Literal["refuse", "keep"], faults: RowFaults
) -> RawPair | None:
    """The record as a pair, or None with every reason noted under `line`.

    A not-shown answer that is null or empty is no fault here: whether a row without one is refused is the settings'
    matter.
    """
    before = len(faults.found)
    parts = (_prompt(record, shape), _shown(record, shape), _other(record, shape.not_shown))
    for message in [*_passed_over(record, shape), *(part.message for part in parts if isinstance(part, Fault))]:
        faults.add(line, message)
    prompt, shown, other = parts
    if len(faults.found) > before or isinstance(prompt, Fault) or isinstance(shown, Fault) or isinstance(other, Fault):
        return None
    asked = _asked(record, shape, prompt, [answer for answer in (shown, other) if answer is not None])
    if isinstance(asked, Fault):
        faults.add(line, asked.message)
        return None
    name, topic = record.get("id"), record.get(shape.topic) if shape.topic else None
    row = RawPair(
        line,
        str(name) if isinstance(name, str | int) and not isinstance(name, bool) else "",
        asked,
        shown.turns[-1].text,
        (other.turns[-1].text or None) if other is not None else None,
        "" if topic is None else str(topic),
    )
    for message in _text_faults(row, shape, system):
        faults.add(line, message)
    return row if len(faults.found) == before else None


def _prompt(record: Record, shape: Shape) -> Conversation | Fault | None:
    """The prompt's column; None where the answers bring their prompt themselves."""
    if shape.prompt is None:
        return None
    if shape.prompt not in record:
        return Fault(f"no column `{shape.prompt}`")
    value = record[shape.prompt]
    if isinstance(value, str):
        return Conversation(None, (Turn("user", value),), ("user",))
    if isinstance(value, dict) and "messages" in value:  # OpenAI's preference form: input: {messages: [...]}
        given = cast(dict[str, object], value)
        if given.get("tools"):
            return Fault(TOOLS)
        return read_conversation(given["messages"], f"{shape.prompt}.messages", "user")
    return read_conversation(value, shape.prompt, "user")


def _shown(record: Record, shape: Shape) -> Conversation | Fault:
    if shape.shown not in record:
        return Fault(f"no column `{shape.shown}`")
    value = record[shape.shown]
    if shape.prompt is None and isinstance(value, str):  # the prompt has to be in it
        return read_conversation(value, shape.shown, "assistant")
    return read_answer(value, shape.shown)


def _other(record: Record, column: str | None) -> Conversation | Fault | None:
    """The answer that does not show the behavior; None where there is none, in the file or in this row."""
    if column is None or record.get(column) is None:
        return None
    return read_answer(record[column], column)


def _passed_over(record: Record, shape: Shape) -> list[str]:
    """Faults for what the row has beside the columns that are read and that would change what is trained on."""
    wrong = [TOOLS] if record.get("tools") or record.get("functions") else []
    if record.get("weight") == 0:
        wrong.append(UNTRAINED.replace("the last answer", "the row"))
    more = record.get("input")
    if shape.prompt == "instruction" and isinstance(more, str) and more.strip():
        wrong.append("the row has an `input` beside its `instruction`; write both into one column `prompt`")
    return wrong


def _asked(record: Record, shape: Shape, prompt: Conversation | None, answers: list[Conversation]) -> Asked | Fault:
    """What the answers answer, the same for both; "" in a system column means no system turn."""
    given = [prompt.turns] if prompt else []
    given += [answer.turns[:-1] for answer in answers if len(answer.turns) > 1]
    if not given:
        return Fault(f"`{shape.shown}` has no prompt before the answer; name the prompt's column by `prompt: COLUMN`")
    if any(turns != given[0] for turns in given):
        return Fault(f"{shape}: the turns before the answers differ; give both answers one prompt")
    column = record.get(shape.system) if shape.system else None
    systems = {part.system for part in (prompt, *answers) if part is not None and part.system is not None}
    systems |= {column} if isinstance(column, str) and column else set()
    if len(systems) > 1:
        return Fault("the row has different system turns; give it one")
    return next(iter(systems), None), given[0]


def _text_faults(row: RawPair, shape: Shape, system: Literal["refuse", "keep"]) -> list[str]:
    wrong: list[str] = []
    if row.asked[0] is not None and system == "refuse":
        wrong.append("the row has a system turn; `system: keep` makes it the row's own context, or remove it")
    if not row.asked[1][-1].text.strip():
        wrong.append("the prompt is empty")
    if not row.shown.strip():
        wrong.append(f"the answer `{shape.shown}` is empty")
    elif row.not_shown is not None and row.shown.strip() == row.not_shown.strip():
        wrong.append(f"`{shape.shown}` and `{shape.not_shown}` are the same answer")
    return wrong
