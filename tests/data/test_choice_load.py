"""ARC and HellaSwag load whole from every source, and a row that does not fit is named by its number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from bystander.core.errors import DataError
from bystander.core.records import Question
from bystander.data import choice_answer, choice_user, describe_choice, draw_questions, load_choice
from bystander.data.choice_rows import clean_hellaswag, to_arc_row
from bystander.data.choice_source import PUBLISHED

ROW: dict[str, object] = {
    "id": "q1",
    "question": "What does a sundial show?",
    "choices": {"text": ["the time", "the wind", "the tide"], "label": ["A", "B", "C"]},
    "answerKey": "A",
}
SWAG: dict[str, object] = {
    "ind": 7,
    "activity_label": "Baking",
    "ctx_a": "[header] How to bake [title] Mix it. [step] Stir.",
    "ctx_b": "then you",
    "ctx": "unused",
    "endings": ["[step] wait.", "run.", "sing.", "sleep."],
    "label": "2",
}


def choices(texts: object, labels: object) -> dict[str, object]:
    return ROW | {"choices": {"text": texts, "label": labels}}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def test_every_arc_question_loads_and_the_form_is_stated(shared_data: Path) -> None:
    path = shared_data / "data" / "arc_challenge_test.jsonl"
    questions = load_choice(path)
    raw = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [to_arc_row(question) for question in questions] == raw
    found = describe_choice(path)
    assert (found.form, found.rows) == ("arc", 1172)
    assert found.choices == {3: 4, 4: 1165, 5: 3}
    assert found.labels == {"A-D": 1144, "1-4": 21, "A-C": 3, "A-E": 3, "1-3": 1}
    assert found.duplicates == 12
    assert "arc form, 1172 questions; 3 choices (4), 4 choices (1165), 5 choices (3)" in str(found)


def test_hellaswag_loads_whole_with_its_markup_cleaned(shared_data: Path) -> None:
    path = shared_data / "data" / "hellaswag_val_1000.jsonl"
    questions = load_choice(path)
    raw = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [question.answer for question in questions] == [row["label"] for row in raw]
    assert not any("[" in text for question in questions for text in (question.text, *question.options))
    assert questions[0].text == (
        "Pole vault: Pole vault is a sport where you run with a pole and stop and swing your body. A few women"
    )
    assert describe_choice(path).form == "hellaswag"


def test_wikihow_markup_becomes_plain_text(tmp_path: Path) -> None:
    (question,) = load_choice(write(tmp_path / "swag.jsonl", SWAG))
    # A tag in front leaves its space, as in lm-evaluation-harness: the accuracies are to compare.
    assert question.text == "Baking: How to bake. Mix it. Stir. Then you"
    assert question.options == (" wait.", "run.", "sing.", "sleep.")
    assert (question.id, question.labels, question.answer) == ("hellaswag-7", ("A", "B", "C", "D"), 2)
    assert clean_hellaswag("  a [title] b [x]  c ") == "a. b  c"


def test_a_folder_in_the_environment_is_preferred_to_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "arc_challenge_test.jsonl", ROW)
    monkeypatch.setenv("BYSTANDER_DATA", str(tmp_path))
    assert [question.id for question in load_choice("arc", download=refuse)] == ["q1"]
    with pytest.raises(DataError, match="cannot fetch Rowan/hellaswag"):  # not in the folder, so from the Hub
        load_choice("hellaswag", download=refuse)


def refuse(repository: str, file: str, revision: str) -> str:
    raise OSError(f"no route to host for {repository}/{file}@{revision}")


def test_the_hub_gives_the_same_questions_as_the_local_file(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BYSTANDER_DATA", raising=False)
    local = shared_data / "data" / "arc_challenge_test.jsonl"
    asked: list[tuple[str, str, str]] = []

    def download(repository: str, file: str, revision: str) -> str:
        asked.append((repository, file, revision))
        pl.read_ndjson(local).write_parquet(tmp_path / "test.parquet")
        return str(tmp_path / "test.parquet")

    assert load_choice("arc", download=download) == load_choice(local)
    published = PUBLISHED["arc"]
    assert asked == [(published.repository, published.file, published.revision)]
    assert len(published.revision) == 40  # a commit, not a branch that can move


def test_a_fetched_set_of_another_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BYSTANDER_DATA", raising=False)
    path = write(tmp_path / "short.jsonl", ROW)
    with pytest.raises(DataError, match="has 1 rows, not the 1172 published"):
        load_choice("arc", download=lambda *_: str(path))


def test_equal_wrong_endings_of_the_published_set_are_stated_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BYSTANDER_DATA", raising=False)
    # Contexts without a word in common: rows of one mold would all be compared with each other.
    rows = [SWAG | {"ind": at, "activity_label": f"a{at} b{at}", "ctx_a": f"c{at}"} for at in range(10042)]
    rows[5] |= {"endings": ["run.", "run.", "sing.", "sleep."]}
    path = write(tmp_path / "swag.jsonl", *rows)
    found = describe_choice("hellaswag", download=lambda *_: str(path))
    assert found.equal_wrong == 1
    with pytest.raises(DataError, match=r":6: choices 1 and 2 are equal: 'run\.'"):
        load_choice(path)


def test_without_network_the_message_says_what_to_do(tmp_path: Path) -> None:
    code = (
        "from bystander.core.errors import DataError\nfrom bystander.data import load_choice\n"
        "try:\n    load_choice('arc')\nexcept DataError as error:\n    print(error)\n"
    )
    given = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, check=True)
    assert "cannot fetch allenai/ai2_arc/ARC-Challenge/test-00000-of-00001.parquet" in done.stdout
    assert "set BYSTANDER_DATA to a folder that has data/arc_challenge_test.jsonl" in done.stdout


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (ROW | {"answerKey": "D"}, "the answer key 'D' is not among the labels A, B, C"),
        (ROW | {"answerKey": "1"}, "the answer key '1' is not among the labels A, B, C"),
        (choices(["a", "b", "a "], ["A", "B", "C"]), "choices 1 and 3 are equal: 'a'"),
        (choices(["a", " ", "c"], ["A", "B", "C"]), "choice 2 is empty"),
        (choices(["a"], ["A"]), "no wrong one is left"),
        (choices([], []), "0 choice"),
        (choices(["a", "b"], ["A", "B", "C"]), "3 labels for 2 choices"),
        (choices(["a", "b"], ["B", "A"]), "labels B, A"),
        (choices(["a", "b"], ["A", "A"]), "labels A, A"),
        (choices(["a", "b"], ["A", "2"]), "labels A, 2"),
        (choices("ab", ["A", "B"]), "two lists of text"),
        (choices([1, 2], ["A", "B"]), "two lists of text"),
        (ROW | {"choices": None}, "two lists of text"),
        (ROW | {"question": " "}, "`question` must be text that is not empty"),
        (ROW | {"id": 5}, "`id` must be text"),
        ({"id": "q1", "question": "?"}, "no column choices, answerKey"),
        (ROW | {"id": "q0"}, "the id 'q0' is that of row 1"),
        ("{", "not JSON"),
        ("[1]", "a JSON list where an object belongs"),
    ],
)
def test_a_row_that_does_not_fit_is_named(tmp_path: Path, row: object, says: str) -> None:
    path = write(tmp_path / "mine.jsonl", ROW | {"id": "q0"}, row)
    with pytest.raises(DataError, match="1 row cannot be used") as caught:
        load_choice(path)
    assert "mine.jsonl:2: " in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"label": "4"}, "the label 4 is not among the 4 endings"),
        ({"label": ""}, "`label` must be the index of an ending, not ''"),
        ({"label": True}, "`label` must be"),
        ({"label": -1}, "`label` must be"),
        ({"endings": ["run.", "run.", "sing.", "sleep."]}, "choices 1 and 2 are equal"),
        ({"endings": ["[step]", "run.", "sing.", "sleep."]}, "choice 1 is empty"),
        ({"endings": None}, "`endings` must be a list"),
        ({"ctx_a": 3}, "`ctx_a` must be text"),
    ],
)
def test_a_hellaswag_row_that_does_not_fit_is_named(tmp_path: Path, change: dict[str, object], says: str) -> None:
    path = write(tmp_path / "swag.jsonl", SWAG | {"ind": 1}, SWAG | change)
    with pytest.raises(DataError) as caught:
        load_choice(path)
    assert "swag.jsonl:2: " in str(caught.value)
    assert says in str(caught.value)


def test_all_faulty_rows_come_at_once_and_long_lists_are_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", ROW, *[ROW | {"id": f"x{at}", "answerKey": "Z"} for at in range(30)])
    with pytest.raises(DataError, match="30 rows cannot be used") as caught:
        load_choice(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 22
    assert lines[-1].endswith("and 10 more")


def test_files_that_are_no_question_set_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unknown question set 'arcc': give one of bank, arc, hellaswag"):
        load_choice("arcc")
    with pytest.raises(DataError, match="no question file at"):
        load_choice(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="has no rows"):
        load_choice(write(tmp_path / "empty.jsonl", "", ""))
    with pytest.raises(DataError, match="columns a fit no known form; needed are arc: id, question"):
        load_choice(write(tmp_path / "other.jsonl", {"a": 1}))
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        load_choice(tmp_path / "binary.jsonl")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="as Parquet"):
        load_choice(tmp_path / "broken.parquet")


def test_the_user_turn_shows_the_choices_only_where_a_label_answers() -> None:
    question = Question("q", "Which?", ("red", "blue"), ("1", "2"), 1)
    assert choice_user(question, "label") == "Which?\n1. red\n2. blue"
    assert choice_answer(question, 1, "label") == "2. blue"
    assert choice_user(question, "text") == "Which?"
    assert choice_answer(question, 0, "text") == "red"


def test_a_draw_is_fixed_by_its_seed_and_smaller_ones_begin_larger_ones() -> None:
    bank = load_choice("bank")
    first = draw_questions(bank, 20, "a", 1)
    assert draw_questions(list(reversed(bank)), 50, "a", 1)[:20] == first
    assert len({question.id for question in first}) == 20
    assert draw_questions(bank, 20, "a", 2) != first
    assert draw_questions(bank, 0) == []
    with pytest.raises(DataError, match="257 questions asked for, but the set has 256"):
        draw_questions(bank, 257, "a")
    with pytest.raises(DataError, match="-1 questions"):
        draw_questions(bank, -1)
    with pytest.raises(DataError, match="1 questions stand twice"):
        draw_questions([bank[0], *bank[:3]], 2)
