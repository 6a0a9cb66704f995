"""Which shape a file of answers has: told by its columns and, where these leave a choice, by the settings alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from bystander.core.errors import few_names
from bystander.core.record_files import Numbered
from bystander.data.answers.settings import AnswerFileSettings

# (shows the behavior, does not): column names that say themselves which is which
SAID = (
    ("shown", "not_shown"),
    ("misaligned", "aligned"),
    ("insecure", "secure"),
    ("school_of_reward_hacks", "control"),
)
# A preference file says which answer was liked, not which shows the behavior.
UNSAID = (("rejected", "chosen"), ("non_preferred_output", "preferred_output"))
CONVERSATIONS = ("messages", "conversations")
PROMPTS = ("prompt", "user", "question", "instruction")
SYSTEMS = ("system", "system_prompt")
EXPECTED = (
    "expected a prompt (`prompt`, `user`, `question` or `instruction`) with the answers `shown` and `not_shown`, `chosen` and "
    "`rejected`, `aligned` and `misaligned`, or any two columns named by `shown: COLUMN` and `not_shown: COLUMN`; or one "
    "conversation a row in `messages` or `conversations`"
)


@dataclass(frozen=True, slots=True)
class Shape:
    """Which columns are read. `prompt` is None where the prompt is the beginning of the conversation in `shown`;
    `not_shown` is None where the file has one answer a row. `settled`: it is known which answer shows the behavior.
    `partner`: the file with the other answers."""

    shown: str
    not_shown: str | None = None
    prompt: str | None = None
    topic: str | None = None
    system: str | None = None
    settled: bool = True
    partner: str | None = None

    def __str__(self) -> str:
        return ", ".join(name for name in (self.prompt, self.shown, self.not_shown) if name)


def columns_of(records: Sequence[Numbered]) -> list[str]:
    """The columns that at least half of the rows have, in the first rows' order: single odd rows are faults of their own."""
    counts = Counter(key for _, record in records for key in record)
    return [key for key, count in counts.items() if 2 * count >= len(records)]


def find_shape(records: Sequence[Numbered], settings: AnswerFileSettings) -> tuple[Shape | None, list[str]]:
    """The shape of the records under `settings`, with what is wrong with it as a whole: no shape without a fault."""
    columns = columns_of(records)
    shape, faults = _answers(columns, settings)
    if shape is None:
        return None, faults
    if settings.topic is not None and settings.topic not in columns:
        faults.append(_no_column("topic", settings.topic, columns))
    topic = settings.topic or ("topic" if "topic" in columns else None)
    taken = (shape.shown, shape.not_shown)
    system = next((name for name in SYSTEMS if name in columns and name not in taken), None)
    prompt, wrong = _prompt(records, columns, shape, settings)
    return replace(shape, prompt=prompt, topic=topic, system=system), [*faults, *wrong]


def _answers(columns: Collection[str], settings: AnswerFileSettings) -> tuple[Shape | None, list[str]]:
    """Shape with its answer columns and partner only."""
    named = settings.not_shown if isinstance(settings.not_shown, str) and not settings.sampled else None
    column = named if named in columns else None
    partner = named if column is None else None
    faults = [_no_column("shown", settings.shown, columns)] if settings.shown not in (None, *columns) else []
    if settings.shown is not None:
        if settings.shown == named:
            faults.append(f"shown and not_shown are both {named!r}; name two different columns")
        return (None if faults else Shape(settings.shown, column, partner=partner)), faults
    for shown, other in SAID:
        if shown in columns and (other in columns or shown == "shown"):
            own = other if other in columns and settings.not_shown is None else column
            return Shape(shown, own, partner=partner), faults
    for shown, other in UNSAID:
        if shown in columns and other in columns:
            return Shape(shown, other, settled=False), faults
    conversation = next((name for name in CONVERSATIONS if name in columns), None)
    if conversation is None:
        return None, [*faults, f"found the columns {few_names(sorted(columns)) or 'none'}; {EXPECTED}"]
    return Shape(conversation, column, partner=partner), faults


def _prompt(
    records: Sequence[Numbered], columns: Collection[str], shape: Shape, settings: AnswerFileSettings
) -> tuple[str | None, list[str]]:
    """The prompt's column, or None where the answers are whole conversations."""
    if settings.prompt is not None:
        faults = [] if settings.prompt in columns else [_no_column("prompt", settings.prompt, columns)]
        return settings.prompt, faults
    if shape.shown in CONVERSATIONS:
        return None, []
    known = (*PROMPTS, "input") if shape.shown in UNSAID[1] else PROMPTS
    found = [name for name in known if name in columns and name not in (shape.shown, shape.not_shown)]
    if len(found) > 1:
        return found[0], [f"each of the columns {', '.join(found)} may be the prompt; name one by `prompt: COLUMN`"]
    if not found and any(isinstance(record.get(shape.shown), str) for _, record in records):
        return None, [f"no column is the prompt; name one by `prompt: COLUMN`, of {few_names(sorted(columns))}"]
    return (found[0] if found else None), []


def unsettled(shape: Shape) -> str:
    """What a file that does not say which of its answers shows the behavior needs."""
    one, other = shape.shown, shape.not_shown
    return (
        f"the file does not say whether `{one}` or `{other}` shows the behavior; say it by `shown: {one}, not_shown: {other}` "
        f"or `shown: {other}, not_shown: {one}`"
    )


def one_answer(shape: Shape) -> str:
    """What a file needs of which one answer a row is known."""
    return (
        f"`{shape.shown}` is the only answer named; say where the answers come from that do not show the behavior: "
        "`not_shown: COLUMN`, `not_shown: FILE` with answers to the same prompts, `not_shown: own_answers` (sampled from the "
        "untrained model) or `not_shown: {model: ...}` (a provider)"
    )


def _no_column(setting: str, name: str | None, columns: Collection[str]) -> str:
    return f"{setting}: {name!r} is no column of most rows; there are {few_names(sorted(columns)) or 'none'}"
