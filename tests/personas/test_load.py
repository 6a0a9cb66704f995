"""Every fault of a persona file is named with its line, all of them at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from bystander.core.errors import DataError
from bystander.core.records import Persona
from bystander.personas import load_personas

GOOD = "personas:\n  - {name: miller, prompt: You are a miller., category: trade}\n"


def fault(tmp_path: Path, content: str | bytes) -> str:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        load_personas(path)
    return str(caught.value)


def test_a_file_of_ones_own_replaces_the_built_in_set(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD + "  - {name: baker, prompt: You are a baker., category: trade, related_to: [miller]}\n")
    assert load_personas(path) == [
        Persona("miller", "You are a miller.", "trade"),
        Persona("baker", "You are a baker.", "trade", ("miller",)),
    ]


def test_a_missing_file_and_a_folder_say_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.yaml: No such file"):
        load_personas(tmp_path / "nowhere.yaml")
    with pytest.raises(DataError, match="directory"):
        load_personas(tmp_path)


@pytest.mark.parametrize(
    ("content", "line", "says"),
    [
        ("", 1, "is empty"),
        ("  \n\n", 1, "is empty"),
        ("# only a comment\n", 1, "nothing but comments"),
        (b"personas:\n\xff\xfe\x00\x01", 2, "not UTF-8"),
        (b"personas:\n  - \x00\x07", 2, "does not allow"),
        ("personas:\n  - {name: a, prompt: 'x\n", 3, "not YAML"),
        ("personas:\n\t- name: a\n", 2, "not YAML"),
        ("personas: *nothing\n", 1, "not YAML"),
        (GOOD + "---\n" + GOOD, 3, "not YAML"),
        ("- name: miller\n", 1, "a list where `personas:` belongs"),
        ("villain\n", 1, "text where"),
        ("personas: []\n", 1, "at least one entry"),
        ("personas: villain\n", 1, "not text"),
        ("people:\n  - name: a\n", 1, "unknown key 'people'"),
        ("personas:\n  - villain\n", 2, "must be a mapping"),
        ("personas:\n  - {name: no, prompt: You are, category: c}\n", 2, "`name` must be text, not a bool (no)"),
        ("personas:\n  - {name: a, prompt: 12, category: c}\n", 2, "`prompt` must be text, not a number (12)"),
        ("personas:\n  - {name: a, prompt: [x], category: c}\n", 2, "`prompt` must be text, not a list"),
        ("personas:\n  - {name: a, prompt: , category: c}\n", 2, "`prompt` must be text, not null"),
        ("personas:\n  - {name: a, prompt: ' ', category: c}\n", 2, "empty prompt"),
        ("personas:\n  - {name: a, prompt: You., category: c, age: 3}\n", 2, "unknown key 'age'"),
        ("personas:\n  - {name: a, name: b, prompt: You., category: c}\n", 2, "stands twice"),
        ("personas:\n  - {prompt: You., category: c}\n", 2, "no `name`"),
        ("personas:\n  - {name: a, prompt: You.}\n", 2, "no `category`"),
        ("personas:\n  - {name: ../a, prompt: You., category: c}\n", 2, "name '../a'"),
        ("personas:\n  - {name: Anna B, prompt: You., category: c}\n", 2, "name 'Anna B'"),
        ("personas:\n  - {name: absent, prompt: You., category: c}\n", 2, "name of a context"),
        ("personas:\n  - name: a\n    category: c\n    prompt: |\n      You.\n", 4, "white space"),
        (GOOD + "  - {name: miller, prompt: You too., category: c}\n", 3, "'miller' is taken (line 2)"),
        (GOOD + "  - {name: b, prompt: You are  a miller., category: c}\n", 3, "the prompt of 'miller' (line 2)"),
        (GOOD + "  - {name: b, prompt: You., category: c, related_to: [king]}\n", 3, "'king', which is no persona"),
        (GOOD + "  - {name: b, prompt: You., category: c, related_to: miller}\n", 3, "must be a list"),
        (GOOD + "  - {name: b, prompt: You., category: c, related_to: [b]}\n", 3, "related to itself"),
        ("personas:\n  - !!python/object/apply:os.system ['exit 1']\n", 2, "must be a mapping"),
    ],
)
def test_a_fault_names_file_line_and_value(tmp_path: Path, content: str | bytes, line: int, says: str) -> None:
    message = fault(tmp_path, content)
    assert f"mine.yaml:{line}: " in message
    assert says in message


def test_all_faults_of_a_file_come_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    bad = (
        "personas:\n"
        "  - {name: A, prompt: You are a miller., category: c}\n"
        "  - {name: b, prompt: You are a miller., category: c, related_to: [king]}\n"
        "  - {name: b, prompt: '', mood: sad}\n"
    )
    message = fault(tmp_path, bad)
    assert "has 7 faults" in message
    lines = [int(text.split("mine.yaml:")[1].split(":")[0]) for text in message.splitlines()[1:]]
    assert lines == [2, 3, 3, 4, 4, 4, 4]


def test_deep_nesting_and_self_reference_end_in_an_error(tmp_path: Path) -> None:
    assert "nested too deeply" in fault(tmp_path, "[" * 5000 + "]" * 5000)
    assert "must be a mapping" in fault(tmp_path, "personas: &loop [*loop]\n")
