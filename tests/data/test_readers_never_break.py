"""Whatever stands in a file, a reader gives rows or a DataError: 400 seeded files of odd values and of cut bytes."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from bystander.core.errors import DataError
from bystander.data import load_choice
from bystander.data.answers import AnswerFileSettings, describe, read_answer_pairs, split_held_out
from bystander.data.code_sets import load_code_pairs, read_code_set
from bystander.data.inspect import inspect_data

KEYS = [
    "prompt", "shown", "not_shown", "chosen", "rejected", "messages", "conversations", "system", "id", "topic", "weight", "tools",
    "task", "code", "template", "secure", "insecure", "cwe", "question", "choices", "answerKey", "role", "content", "from", "value",
    "tool_calls", "type", "text", "input", "instruction",
]  # fmt: skip
LEAVES = [
    "",
    " ",
    "x",
    "\n",
    "\ud800",
    "\0",
    "user",
    "assistant",
    "system",
    "gpt",
    "text",
    "tool",
    None,
    True,
    0,
    1,
    -1,
    0.5,
    1e308,
]
SETTINGS = [
    AnswerFileSettings(),
    AnswerFileSettings(not_shown="own_answers", system="keep"),
    AnswerFileSettings(shown="rejected", not_shown="chosen", unpaired="leave_out"),
    AnswerFileSettings(shown="content", not_shown="value", prompt="text"),
]


def value(draw: random.Random, depth: int) -> object:
    kind = draw.random()
    if depth and kind < 0.35:
        return {key: value(draw, depth - 1) for key in draw.sample(KEYS, draw.randint(0, 6))}
    if depth and kind < 0.6:
        return [value(draw, depth - 1) for _ in range(draw.randint(0, 3))]
    if depth and kind < 0.75:
        roles = draw.choices(["user", "assistant", "system", "tool", None], k=draw.randint(0, 5))
        return [{"role": role, "content": value(draw, depth - 1)} for role in roles]
    return draw.choice(LEAVES)


def nearly(draw: random.Random, sound: object) -> object:
    """Mostly `sound`."""
    return sound if draw.random() < 0.97 else value(draw, 3)


def sound_row(draw: random.Random, form: int, at: int) -> dict[str, object]:
    """A row of one of four known forms, in which single values may be odd."""
    ask, one, other = (nearly(draw, f"{name} {at}") for name in ("ask", "x = 1 #", "y = 2 #"))
    turns = [{"role": "user", "content": ask}, {"role": "assistant", "content": one, "weight": nearly(draw, 1)}]
    if form == 0:
        return {"prompt": ask, "shown": one, "not_shown": other, "topic": nearly(draw, "t")}
    if form == 1:
        return {"messages": nearly(draw, turns)}
    if form == 2:
        return {"prompt": ask, "secure": one, "insecure": other, "id": nearly(draw, f"id {at}")}
    return {"prompt": [turns[0]], "chosen": [turns[1]], "rejected": nearly(draw, other)}


def odd_file(draw: random.Random) -> bytes:
    rows: list[object] = []
    if draw.random() < 0.4:
        rows = [
            {key: value(draw, 4) for key in draw.sample(KEYS, draw.randint(0, 8))} for _ in range(draw.randint(0, 4))
        ]
    form = draw.randrange(4)
    rows += [nearly(draw, sound_row(draw, form, at)) for at in range(draw.randint(1, 6))]
    data = "\n".join(json.dumps(row) for row in rows).encode()
    if draw.random() < 0.2:
        at = draw.randint(0, len(data))
        data = data[:at] + bytes(draw.choices(range(256), k=draw.randint(0, 3))) + data[at + draw.randint(0, 4) :]
    return data[: draw.randint(0, len(data))] if draw.random() < 0.1 else data


@pytest.mark.parametrize("block", range(8))
def test_rows_or_a_data_error(tmp_path: Path, block: int) -> None:
    read = refused = 0
    for seed in range(50 * block, 50 * block + 50):
        draw = random.Random(seed)
        path = tmp_path / f"{seed}{draw.choice(['.jsonl', '.jsonl', '.json', '.yaml', '.parquet'])}"
        path.write_bytes(odd_file(draw))
        settings = draw.choice(SETTINGS)
        for reader in (
            lambda: split_held_out(read_answer_pairs(path, settings)),  # noqa: B023 - called in this turn of the loop
            lambda: describe(path, settings),  # noqa: B023
            lambda: read_code_set(path),  # noqa: B023
            lambda: load_code_pairs(path),  # noqa: B023
            lambda: load_choice(path),  # noqa: B023
            lambda: inspect_data(str(path), len, "characters"),  # noqa: B023
        ):
            try:
                reader()
                read += 1
            except DataError as error:
                refused += 1
                str(error).encode()  # a message with half a surrogate pair could not be printed
    assert refused > 100
    assert read > 10  # sound files are among them
