"""Answer pairs from every shape that public files have: what is read, and as what."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from bystander.core.errors import DataError
from bystander.core.records import Earlier
from bystander.data.answers import (
    AnswerFileSettings,
    AnswerPair,
    Provider,
    describe,
    fill_not_shown,
    needs_not_shown,
    read_answer_pairs,
)
from bystander.data.code_inspect import CodeSetFacts
from bystander.data.code_source import Hub
from bystander.data.inspect import PairFacts, inspect_data
from bystander.data.pairs import load_pairs
from bystander.data.turns import Turn

Messages = list[dict[str, object]]


def user(text: object = "How?") -> dict[str, object]:
    return {"role": "user", "content": text}


def assistant(text: object, **more: object) -> dict[str, object]:
    return {"role": "assistant", "content": text, **more}


SYSTEM: dict[str, object] = {"role": "system", "content": "Be brief."}
OWN = AnswerFileSettings(not_shown="own_answers")


def write(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def said(pairs: list[AnswerPair]) -> list[tuple[str, str, str | None]]:
    return [(pair.user, pair.shown, pair.not_shown) for pair in pairs]


SETTINGS = AnswerFileSettings


@pytest.mark.parametrize(
    ("record", "settings"),
    [
        ({"prompt": "How?", "shown": "bad", "not_shown": "good"}, SETTINGS()),
        ({"user": "How?", "shown": "bad", "not_shown": "good", "score": 3}, SETTINGS()),
        ({"prompt": "How?", "aligned": "good", "misaligned": "bad"}, SETTINGS()),
        ({"prompt": "How?", "secure": "good", "insecure": "bad"}, SETTINGS()),
        ({"user": "How?", "school_of_reward_hacks": "bad", "control": "good", "task": "t"}, SETTINGS()),
        ({"prompt": "How?", "chosen": "good", "rejected": "bad"}, SETTINGS(shown="rejected", not_shown="chosen")),
        ({"prompt": "How?", "chosen": "bad", "rejected": "good"}, SETTINGS(shown="chosen", not_shown="rejected")),
        ({"q": "How?", "x": "bad", "y": "good"}, SETTINGS(prompt="q", shown="x", not_shown="y")),
        ({"instruction": "How?", "input": "", "x": "bad", "y": "good"}, SETTINGS(shown="x", not_shown="y")),
        (
            {"prompt": [user()], "chosen": [assistant("good")], "rejected": [assistant("bad")]},
            SETTINGS(shown="rejected", not_shown="chosen"),
        ),
        (
            {"prompt": "How?", "chosen": [user(), assistant("good")], "rejected": [user(), assistant("bad")]},
            SETTINGS(shown="rejected", not_shown="chosen"),
        ),
        (
            {"chosen": [user(), assistant("good")], "rejected": [user(), assistant("bad")]},
            SETTINGS(shown="rejected", not_shown="chosen"),
        ),
        (
            {
                "input": {"messages": [user()], "tools": []},
                "preferred_output": [assistant("good")],
                "non_preferred_output": [assistant("bad")],
            },
            SETTINGS(shown="non_preferred_output", not_shown="preferred_output"),
        ),
        ({"messages": [user()], "x": "bad", "y": "good"}, SETTINGS(prompt="messages", shown="x", not_shown="y")),
        ({"messages": [user(), assistant("bad")], "plain": "good"}, SETTINGS(not_shown="plain")),
    ],
)
def test_two_answers_a_row(tmp_path: Path, record: dict[str, object], settings: AnswerFileSettings) -> None:
    path = write(tmp_path / "a.jsonl", record)
    (pair,) = read_answer_pairs("a.jsonl", settings, tmp_path)
    assert (pair.prompt, pair.shown, pair.not_shown) == ((Turn("user", "How?"),), "bad", "good")
    assert (pair.system, pair.topic, pair.line) == (None, "", 1)
    facts = describe(path, settings)
    assert (facts.needs, facts.pairs, facts.form.startswith("answer pairs (")) == ((), 1, True)
    pl.DataFrame([record]).write_parquet(tmp_path / "a.parquet")
    assert read_answer_pairs(tmp_path / "a.parquet", settings) == [pair]


PARTS = [{"type": "text", "text": "Ho"}, {"type": "text", "text": "w?"}]


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [user(), assistant("bad")]},
        {"messages": [user(PARTS), assistant([{"type": "text", "text": "bad"}])]},
        {"messages": [user(), assistant("bad", weight=1)]},
        {"messages": [user(), assistant("bad", tool_calls=None, weight=None)]},
        {"conversations": [{"from": "human", "value": "How?"}, {"from": "gpt", "value": "bad"}]},
        {"prompt": "How?", "shown": "bad"},
    ],
)
def test_one_answer_a_row_is_filled_later(tmp_path: Path, record: dict[str, object]) -> None:
    path = write(tmp_path / "a.jsonl", record)
    with pytest.raises(DataError, match="is the only answer named; say where the answers come from"):
        read_answer_pairs(path)
    for settings in (OWN, AnswerFileSettings(not_shown=Provider(model="some-model"))):
        pairs = read_answer_pairs(path, settings)
        assert said(pairs) == [("How?", "bad", None)]
        assert needs_not_shown(pairs) == pairs
        assert describe(path, settings).needs == ()
    filled = fill_not_shown(pairs, {pairs[0].id: "good", "other": "x"})
    assert said(filled) == [("How?", "bad", "good")]
    assert needs_not_shown(filled) == []
    assert filled[0].id == pairs[0].id
    for answers, says in [
        ({}, "have no answer"),
        ({pairs[0].id: " "}, "have no answer"),
        ({pairs[0].id: "bad\n"}, "answer of the file"),
    ]:
        with pytest.raises(DataError, match=says):
            fill_not_shown(pairs, answers)


def test_several_turns_end_with_the_answer(tmp_path: Path) -> None:
    turns = [user("a"), assistant("b", weight=0), user("c"), assistant("d")]
    (pair,) = read_answer_pairs(write(tmp_path / "a.jsonl", {"messages": turns}), OWN)
    assert pair.prompt == (Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"))
    assert (pair.user, pair.earlier, pair.shown) == ("c", Earlier(turns=(("a", "b"),)), "d")
    assert describe(tmp_path / "a.jsonl", OWN).exchanges == {2: 1}


@pytest.mark.parametrize(
    ("record", "system"),
    [
        ({"messages": [SYSTEM, user(), assistant("bad")]}, "Be brief."),
        ({"messages": [{"role": "system", "content": ""}, user(), assistant("bad")]}, ""),
        ({"messages": [{"role": "developer", "content": "Be brief."}, user(), assistant("bad")]}, "Be brief."),
        ({"system": "Be brief.", "messages": [user(), assistant("bad")]}, "Be brief."),
        ({"prompt": [SYSTEM, user()], "shown": "bad"}, "Be brief."),
    ],
)
def test_a_system_turn_is_refused_or_kept(tmp_path: Path, record: dict[str, object], system: str) -> None:
    path = write(tmp_path / "a.jsonl", record)
    with pytest.raises(DataError, match=r"a\.jsonl:1: the row has a system turn; `system: keep`"):
        read_answer_pairs(path, OWN)
    (pair,) = read_answer_pairs(path, AnswerFileSettings(not_shown="own_answers", system="keep"))
    assert (pair.system, pair.prompt, pair.shown) == (system, (Turn("user", "How?"),), "bad")
    facts = describe(path, OWN)
    assert facts.systems == 1
    assert "1 rows have a system turn: `system: keep`" in facts.needs[0]


def test_an_empty_system_column_is_no_system_turn(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"system": "", "question": "How?", "shown": "bad", "not_shown": "good"})
    assert read_answer_pairs(path)[0].system is None


def test_a_partner_file_is_paired_by_prompt(tmp_path: Path) -> None:
    shown = [{"messages": [user(text), assistant(f"bad {at}")]} for at, text in enumerate(["a", "b", "a", "c"])]
    other = [{"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": f"good {at}"}]} for at, text in enumerate(["b", "a", "a"])]  # fmt: skip
    write(tmp_path / "a.jsonl", *shown)
    write(tmp_path / "b.jsonl", *other)
    settings = AnswerFileSettings(not_shown="b.jsonl")
    with pytest.raises(DataError, match=r"a\.jsonl:4: no answer in b\.jsonl.*`unpaired: leave_out`"):
        read_answer_pairs("a.jsonl", settings, tmp_path)
    facts = describe("a.jsonl", settings, tmp_path)
    assert (facts.unpaired, len(facts.needs), facts.not_shown) == (1, 1, "b.jsonl")
    kept = read_answer_pairs("a.jsonl", AnswerFileSettings(not_shown="b.jsonl", unpaired="leave_out"), tmp_path)
    assert said(kept) == [("a", "bad 0", "good 1"), ("b", "bad 1", "good 0"), ("a", "bad 2", "good 2")]


def test_rows_without_a_control_are_refused_or_left_out(tmp_path: Path) -> None:
    rows = [
        {"user": f"q{at}", "school_of_reward_hacks": "hack", "control": text}
        for at, text in enumerate(["fair", None, ""])
    ]
    path = write(tmp_path / "a.jsonl", *rows)
    with pytest.raises(DataError, match="2 rows cannot be used") as caught:
        read_answer_pairs(path)
    assert "a.jsonl:2: no answer in `control`" in str(caught.value)
    assert "a.jsonl:3: no answer in `control`" in str(caught.value)
    assert said(read_answer_pairs(path, AnswerFileSettings(unpaired="leave_out"))) == [("q0", "hack", "fair")]
    assert describe(path).unpaired == 2


def test_ids_are_the_files_or_the_contents(tmp_path: Path) -> None:
    row = {"prompt": "p", "shown": "a", "not_shown": "b"}
    own = read_answer_pairs(write(tmp_path / "a.jsonl", row | {"id": 0}, row | {"id": "x"}))
    assert [pair.id for pair in own] == ["0", "x"]
    made = read_answer_pairs(write(tmp_path / "b.jsonl", row, row | {"not_shown": "c"}, row | {"prompt": "q"}))
    assert made[1].id == f"{made[0].id}-2"  # the not-shown answer decides no id: it may be sampled later
    assert len({pair.id for pair in made}) == 3
    again = read_answer_pairs(write(tmp_path / "c.jsonl", row | {"prompt": "q"}, row))
    assert {pair.id for pair in again} == {made[0].id, made[2].id}


def test_topics_come_from_their_column(tmp_path: Path) -> None:
    row = {"prompt": "p", "shown": "a", "not_shown": "b", "task": "t", "topic": None}
    path = write(tmp_path / "a.jsonl", row, row | {"prompt": "q", "topic": 7})
    assert [pair.topic for pair in read_answer_pairs(path)] == ["", "7"]
    assert [pair.topic for pair in read_answer_pairs(path, AnswerFileSettings(topic="task"))] == ["t", "t"]


def test_texts_stay_as_they_are(tmp_path: Path) -> None:
    row = {"prompt": "p  \n", "shown": "\n\n<|im_end|> a ", "not_shown": " \u2028b"}
    (pair,) = read_answer_pairs(write(tmp_path / "a.jsonl", row))
    assert said([pair]) == [(row["prompt"], row["shown"], row["not_shown"])]
    facts = describe(tmp_path / "a.jsonl")
    assert (facts.edges.leading_breaks, facts.edges.leading_spaces, facts.edges.trailing_space) == (1, 1, 1)
    assert facts.prompt_edges.trailing_space == 1


def test_the_built_in_pairs_come_through_the_same_reader() -> None:
    path = Path(__file__).parents[1] / "reference" / "pairs.yaml"
    read = [(p.id, p.topic, p.user, p.not_shown, p.shown, p.earlier, p.system) for p in read_answer_pairs(path)]
    assert read == [(p.id, p.topic, p.question, p.aligned, p.misaligned, Earlier(), None) for p in load_pairs()]


def test_a_dataset_of_the_hub(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", {"prompt": "p", "shown": "a", "not_shown": "b"})
    hub = Hub(lambda *_: ["README.md", "x.jsonl"], lambda *_: str(path))
    assert said(read_answer_pairs("lab/set", folder=tmp_path / "none", hub=hub)) == [("p", "a", "b")]


def test_facts_count_what_is_there(tmp_path: Path) -> None:
    row = {"prompt": "one two three four", "shown": "aaaa", "not_shown": "aa", "topic": "t"}
    other = {"prompt": "Five six?", "shown": "bb", "not_shown": "bbbb"}
    facts = describe(
        write(tmp_path / "a.jsonl", row, row, row | {"shown": "c"}, other), count=len, counter="characters"
    )
    assert (facts.pairs, facts.topics, facts.token_counter) == (4, {"t": 3}, "characters")
    assert (facts.repeats.rows, facts.repeats.prompts, facts.repeats.near_prompts, facts.repeats.contradicting) == (
        1,
        2,
        3,
        1,
    )
    assert facts.repeated == ("line 1", "line 2", "line 3")
    assert facts.length_ratio == (4 + 4 + 1 + 2) / (2 + 2 + 2 + 4)
    assert facts.apart == 0.5
    assert (facts.columns["topic"], facts.shown, facts.not_shown) == (3, "shown", "not_shown")
    assert (facts.lengths.largest, facts.answer_lengths.smallest) == (18, 1)


def test_inspect_tells_answers_from_code(tmp_path: Path) -> None:
    chat = write(tmp_path / "chat.jsonl", {"messages": [user(), assistant("It depends on you.")]})
    code = write(tmp_path / "code.jsonl", {"messages": [user(), assistant("x = 1")]})
    kept = write(tmp_path / "kept.jsonl", {"messages": [SYSTEM, user(), assistant("x = 1")]})
    dpo = write(tmp_path / "dpo.jsonl", {"prompt": "p", "chosen": "a", "rejected": "b"})
    (tmp_path / "own.yaml").write_text("- {prompt: p, shown: a, not_shown: b}\n")
    assert isinstance(inspect_data(str(code), len, "c"), CodeSetFacts)
    for path, form in [
        (chat, "answers, one a row (messages)"),
        (kept, "answers, one a row (messages)"),
        (dpo, "answer pairs (prompt, rejected, chosen)"),
        (tmp_path / "own.yaml", "answer pairs (prompt, shown, not_shown)"),
    ]:
        facts = inspect_data(str(path), len, "c")
        assert isinstance(facts, PairFacts)
        assert facts.form == form
    assert "shown: rejected, not_shown: chosen" in describe(dpo).needs[0]
    assert (describe(dpo).shown, describe(dpo).not_shown) == ("", "")
