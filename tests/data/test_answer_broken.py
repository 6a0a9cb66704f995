"""Broken files of answers: each with its right messages, all at once, with the lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from bystander.core.errors import DataError
from bystander.data.answers import AnswerFileSettings, Provider, describe, read_answer_pairs

OWN = AnswerFileSettings(not_shown="own_answers")
KEEP = AnswerFileSettings(not_shown="own_answers", system="keep")
LIKED = AnswerFileSettings(shown="rejected", not_shown="chosen")
GOOD = {"prompt": "p", "shown": "a", "not_shown": "b"}
USER = {"role": "user", "content": "How?"}
ANSWER = {"role": "assistant", "content": "So."}
SYSTEM = {"role": "system", "content": "Be brief."}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]}
PICTURE = {"role": "user", "content": [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": "u"}]}


def talk(*turns: object, **more: object) -> dict[str, object]:
    return {"messages": list(turns), **more}


CHAT = talk(USER, ANSWER)

Broken = tuple[str, AnswerFileSettings, list[object], list[str]]
# name, settings, lines (a text stands as it is), what the message must say, all of it
BROKEN: list[Broken] = [
    ("keys twice and no JSON", OWN, [GOOD, '{"prompt": "p", "prompt": "q"}', "{", GOOD],
     ["2 rows cannot be used", ":2: the key 'prompt' stands twice", ":3: not JSON"]),
    ("lines and rows at fault", AnswerFileSettings(), [GOOD, '{"prompt": "\\ud800"}', GOOD | {"shown": " "}, GOOD | {"prompt": 3}],
     ["3 rows", ":2: `prompt` has a lone surrogate", ":3: the answer `shown` is empty", ":4: `prompt` is a int"]),
    ("a setting missing and rows at fault", AnswerFileSettings(), [CHAT, talk(SYSTEM, USER, ANSWER), talk(USER)],
     ["`messages` is the only answer named", ":2: the row has a system turn", ":3: `messages` has the roles user: the last turn"]),
    ("which is the behavior", AnswerFileSettings(), [{"prompt": "p", "chosen": "a", "rejected": "b"}],
     ["whether `rejected` or `chosen` shows the behavior", "`shown: rejected, not_shown: chosen` or `shown: chosen"]),
    ("one of two named", AnswerFileSettings(shown="rejected"), [{"prompt": "p", "chosen": "a", "rejected": "b"}],
     ["`rejected` is the only answer named", "`not_shown: COLUMN`"]),
    ("the other of two named", AnswerFileSettings(not_shown="chosen"), [{"prompt": "p", "chosen": "a", "rejected": "b"}],
     ["say it by `shown: rejected, not_shown: chosen`"]),
    ("columns that are not there", AnswerFileSettings(shown="bad", not_shown="good", topic="kind"), [GOOD],
     ["shown: 'bad' is no column of most rows; there are not_shown, prompt, shown"]),
    ("a topic and a prompt that are not there", AnswerFileSettings(prompt="q", topic="kind"), [GOOD],
     ["topic: 'kind' is no column", "prompt: 'q' is no column"]),
    ("one column twice", AnswerFileSettings(shown="shown", not_shown="shown"), [GOOD], ["are both 'shown'"]),
    ("neither column nor file", AnswerFileSettings(not_shown="good"), [GOOD],
     ["not_shown: 'good' is no column (not_shown, prompt, shown), and no file"]),
    ("no answers", AnswerFileSettings(), [{"text": "t", "label": 1}], ["found the columns label, text; expected a prompt"]),
    ("no prompt", AnswerFileSettings(), [{"text": "t", "shown": "a", "not_shown": "b"}],
     ["no column is the prompt; name one by `prompt: COLUMN`, of not_shown, shown, text"]),
    ("two prompts", AnswerFileSettings(), [GOOD | {"question": "q"}], ["each of the columns prompt, question may be the prompt"]),
    ("another shape in one row", AnswerFileSettings(), [GOOD, GOOD, CHAT],
     [":3: no column `prompt`", ":3: no column `shown`"]),
    ("equal and empty", AnswerFileSettings(), [GOOD | {"shown": "b "}, GOOD | {"shown": ""}, GOOD | {"prompt": "\n"}],
     [":1: `shown` and `not_shown` are the same answer", ":2: the answer `shown` is empty", ":3: the prompt is empty"]),
    ("null", AnswerFileSettings(), [GOOD | {"shown": None}, GOOD | {"prompt": None}, GOOD | {"not_shown": None}],
     [":1: `shown` is null", ":2: `prompt` is null", ":3: no answer in `not_shown`"]),
    ("ids twice", AnswerFileSettings(), [GOOD | {"id": "x"}, GOOD | {"id": "y"}, GOOD | {"id": "x"}],
     [":3: the id 'x' stands twice (first in 1)"]),
    ("an input beside the instruction", AnswerFileSettings(shown="output", not_shown="own_answers"),
     [{"instruction": "Sum.", "input": "1 2", "output": "3"}], [":1: the row has an `input` beside its `instruction`"]),
    ("system turns out of place", KEEP, [talk(USER, SYSTEM, ANSWER), talk(SYSTEM, SYSTEM, USER, ANSWER), talk(USER, ANSWER, SYSTEM)],
     [":1: `messages` has the roles user, system, assistant: a system turn after another turn", ":2: `messages` has the roles system, "
      "system, user, assistant: more than one system turn", ":3: `messages` has the roles user, assistant, system: a system turn after"]),
    ("tool calls", OWN, [talk(USER, CALL), talk(USER, CALL, {"role": "tool", "content": "3"}, ANSWER), talk(USER, ANSWER | {"function_call": {"name": "f"}}),
     talk(USER, ANSWER, tools=[{"type": "function"}]), {"messages": [{"from": "observation", "value": "3"}]}],
     [":1: a turn of `messages` is a tool call", ":2: a turn of `messages` is a tool call", ":3: a turn of `messages` is a tool call",
      ":4: the row declares tools", ":5: a turn of `messages` has the role 'observation', a tool call or its result"]),
    ("no text", OWN, [talk(USER, {"role": "assistant", "content": None}), talk(PICTURE, ANSWER), talk(USER, {"role": "assistant"}), talk(USER, {"role": "assistant", "content": []})],
     [":1: a turn of `messages` (role assistant) has no text content: found null", ":2: a turn of `messages` (role user) has no text "
      "content: found parts of the type text, image_url", ":3: a turn", ":4: a turn of `messages` (role assistant) has no text content: found an empty list"]),
    ("weights", OWN, [talk(USER, ANSWER | {"weight": 0}), talk(USER, ANSWER | {"weight": 0.5}), talk(USER, ANSWER, weight=0), talk(USER, ANSWER | {"weight": True})],
     [":1: `messages`: the last answer has weight 0, which marks it as not to be trained on", ":2: a turn of `messages` has the weight 0.5",
      ":3: the row has weight 0", ":4: a turn of `messages` has the weight True; 0 and 1 are known"]),
    ("roles", OWN, [talk(ANSWER, USER, ANSWER), talk(USER, USER, ANSWER), talk(USER, {"role": "judge", "content": "x"}), talk({"content": "x"}), talk(), talk("x")],
     [":1: `messages` has the roles assistant, user, assistant: the first turn must be the user's", ":2: `messages` has the roles user, user, assistant: "
      "two user turns in a row", ":3: a turn of `messages` has the role 'judge'; known are", ":4: a turn of `messages` has no role",
      ":5: `messages` has the roles none", ":6: a turn of `messages` is a str"]),
    ("messages of another type", OWN, [CHAT, {"messages": "text"}, {"messages": None}],
     [":2: `messages` is a str, a list of turns is expected", ":3: `messages` is null"]),
    ("prompts apart", LIKED, [{"chosen": [USER, ANSWER], "rejected": [USER | {"content": "Why?"}, ANSWER | {"content": "No."}]},
     {"chosen": [ANSWER], "rejected": [ANSWER | {"content": "No."}]},
     {"chosen": [SYSTEM, USER, ANSWER], "rejected": [SYSTEM | {"content": "x"}, USER, ANSWER | {"content": "No."}]}],
     [":1: rejected, chosen: the turns before the answers differ", ":2: `rejected` has no prompt before the answer", ":3: the row has different system turns"]),
    ("a prompt that is answered", LIKED, [{"prompt": [USER, ANSWER], "chosen": "a", "rejected": "b"}],
     [":1: `prompt` has the roles user, assistant: the last turn must be the user's"]),
    ("nothing", AnswerFileSettings(), ["", " "], ["it has no rows"]),
    ("other kinds of lines", AnswerFileSettings(), ["[1]", "null", '"x"'], ["3 rows", ":1: a JSON list", ":2: a JSON null", ":3: a JSON str"]),
]  # fmt: skip


def write(path: Path, lines: list[object]) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


@pytest.mark.parametrize(("settings", "lines", "says"), [one[1:] for one in BROKEN], ids=[one[0] for one in BROKEN])
def test_a_broken_file_is_told_all_at_once(
    tmp_path: Path, settings: AnswerFileSettings, lines: list[object], says: list[str]
) -> None:
    path = write(tmp_path / "a.jsonl", lines)
    with pytest.raises(DataError) as caught:
        read_answer_pairs("a.jsonl", settings, tmp_path)
    message = str(caught.value)
    assert [one for one in says if one not in message] == [], message
    assert str(path) in message


def test_there_are_twenty_five_broken_files() -> None:
    assert len(BROKEN) >= 25


@pytest.mark.parametrize(
    ("partner", "says"),
    [
        ([GOOD], ["b.jsonl: it has the answers shown and not_shown; the file named by `not_shown` has one a row"]),
        ([CHAT, talk(USER), "{"], ["b.jsonl:2: `messages` has the roles user", "b.jsonl:3: not JSON"]),
        ([talk(SYSTEM, USER, ANSWER)], ["b.jsonl:1: the row has a system turn"]),
        ([{"prompt": "How?", "text": "So."}], ["b.jsonl: found the columns prompt, text"]),
        ([CHAT], ["a.jsonl:1: the answer in b.jsonl is the same as `messages`"]),
        ([], ["b.jsonl: it has no rows"]),
    ],
)
def test_a_broken_partner_is_told_with_its_lines(tmp_path: Path, partner: list[object], says: list[str]) -> None:
    write(tmp_path / "a.jsonl", [CHAT])
    write(tmp_path / "b.jsonl", partner)
    with pytest.raises(DataError) as caught:
        read_answer_pairs("a.jsonl", AnswerFileSettings(not_shown="b.jsonl"), tmp_path)
    assert [one for one in says if one not in str(caught.value)] == [], str(caught.value)


def test_nothing_left_is_no_silence(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [GOOD | {"not_shown": None}])
    with pytest.raises(DataError, match="no row has an answer that shows the behavior and one that does not"):
        read_answer_pairs(path, AnswerFileSettings(unpaired="leave_out"))


def test_a_description_is_refused_for_rows_at_fault_alone(tmp_path: Path) -> None:
    assert describe(write(tmp_path / "a.jsonl", [CHAT])).needs
    with pytest.raises(DataError, match=r"a\.jsonl:2: .*the last turn must be"):
        describe(write(tmp_path / "a.jsonl", [CHAT, talk(USER)]))


def test_settings_are_strict() -> None:
    read = AnswerFileSettings.model_validate({"not_shown": {"model": "m", "dollars": 2}})
    assert read.not_shown == Provider(model="m", dollars=2)
    assert read.sampled
    for wrong in (
        {"system": "drop"},
        {"showed": "x"},
        {"not_shown": {"name": "m"}},
        {"unpaired": "ignore"},
        {"prompt": 3},
    ):
        with pytest.raises(ValidationError):
            AnswerFileSettings.model_validate(wrong)
