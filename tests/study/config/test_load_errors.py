"""Broken study files: faults are told together, each with its line, and nothing is written. Names that do not exist are
looked for in files whose keys and values are in order.

A file says itself what is wrong with it: `# fault: TEXT` behind a line means that a fault with that text is told for
that line. No fault more, none less.
"""

import json
from pathlib import Path

import pytest
from pydantic import Field

from bystander.cli import main as cli
from bystander.core.errors import StudyError
from bystander.core.settings import FileName, Settings
from bystander.study.config.override_paths import from_working_folder
from bystander.study.config.study import load

BROKEN = sorted((Path(__file__).parent / "broken").glob("*.yaml"))


def expected(path: Path) -> list[tuple[int, str]]:
    return [
        (number, fault.strip())
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for fault in line.split("# fault:")[1:]
    ]


def test_there_are_forty_and_each_says_what_is_wrong_with_it():
    assert len(BROKEN) >= 40
    assert all(expected(path) for path in BROKEN)


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_every_fault_is_told_with_its_line(path: Path):
    with pytest.raises(StudyError) as caught:
        load(str(path))
    told = list(caught.value.faults)
    for line, text in expected(path):
        hits = [fault for fault in told if f"{path.name}, line {line}" in fault and text.rstrip(" #") in fault]
        assert len(hits) == 1, f"line {line}, {text!r} is not among: {told}"
        told.remove(hits[0])
    assert told == [], "faults that nobody planted"


@pytest.mark.parametrize("path", BROKEN[:3] + BROKEN[-1:], ids=lambda path: path.stem)
def test_the_command_exits_with_2_and_writes_nothing(path: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["bystander", "run", str(path)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"", "the file is empty"), (b"\x00\x01name", "binary"), (b"name: \xff\xfe", "UTF-8"), (b"a: &a [*a]", "line 1")],
)
def test_a_file_that_is_no_study_at_all(content: bytes, text: str, tmp_path: Path):
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    with pytest.raises(StudyError, match=text):
        load(str(path))


def test_a_study_that_is_nowhere_names_the_built_in_ones():
    with pytest.raises(StudyError, match=r"built-in studies are .*quickstart"):
        load("no-such-study")


def test_a_fault_that_set_brings_names_set_and_no_line():
    for overrides in (["recipe.lr=fast", "recipe.epochs=0"], ["seeds=[1, 1]", "sources=[nobody]"]):
        with pytest.raises(StudyError) as caught:
            load("quickstart", overrides)
        told = sorted(fault.split(":")[0] for fault in caught.value.faults)
        assert told == sorted(f"--set {text.split('=')[0]}" for text in overrides)


def test_a_value_is_shown_as_a_file_writes_it():
    with pytest.raises(StudyError) as caught:
        load("quickstart", ["recipe.save_every=null", "recipe.lr=true"])
    shown = [fault.partition(": ")[2].partition(":")[0] for fault in caught.value.faults]
    assert sorted(shown) == ["recipe.lr is true", "recipe.save_every is null"]


def test_a_path_that_set_gives_starts_from_the_working_folder(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entries = "".join(f"  - {{name: {n}, category: c, prompt: You are {n}.}}\n" for n in ("villain", "a", "b", "c"))
    Path("mine.yaml").write_text(f"personas:\n{entries}")
    sets = ["personas=mine.yaml", "sources=[villain]", "misalignment={pairs: here.yaml}", "capability.data=arc"]
    loaded = load("quickstart", [*sets, "probes.choice={file: q.jsonl}", "misalignment.code=owner/name:file.jsonl"])
    assert [persona.name for persona in loaded.personas] == ["villain", "a", "b", "c"]
    spec = loaded.spec
    assert (spec.capability.data, spec.misalignment.code) == ("arc", "owner/name:file.jsonl")
    assert spec.misalignment.pairs == str(tmp_path / "here.yaml")
    assert spec.probes.choice is not None
    assert spec.probes.choice.file == str(tmp_path / "q.jsonl")
    with pytest.raises(StudyError, match=str(tmp_path / "gone.yaml")):
        load("quickstart", ["personas=gone.yaml"])


@pytest.mark.parametrize("text", ["recipe.lr", "=3", "recipe.lr=[", "name.first=a"])
def test_an_override_that_cannot_be_read(text: str):
    with pytest.raises(StudyError, match="--set"):
        load("quickstart", [text])


class Data(Settings):
    """A block of another package."""

    file: FileName
    partners: list[FileName] = Field(default_factory=list)
    named: dict[str, FileName | int] = Field(default_factory=dict)
    title: str = ""


class Block(Settings):
    """Blocks in a list and by name, as studies have them."""

    sets: list[str | Data] = Field(default_factory=list)
    by_name: dict[str, Data] = Field(default_factory=dict)


@pytest.mark.parametrize(
    ("where", "value", "expected"),
    [
        (("sets",), ["refusal.jsonl", {"file": "a.jsonl", "title": "b.jsonl"}], ["refusal.jsonl", {"file": "/here/a.jsonl", "title": "b.jsonl"}]),
        (("by_name", "mine", "file"), "a.jsonl", "/here/a.jsonl"),
        (("by_name", "mine", "partners"), ["a.jsonl", "owner/name:b.jsonl"], ["/here/a.jsonl", "owner/name:b.jsonl"]),
        (("by_name",), {"mine": {"named": {"x": "a.csv", "y": 3}}}, {"mine": {"named": {"x": "/here/a.csv", "y": 3}}}),
        (("nowhere", "at"), "a.jsonl", "a.jsonl"),
    ],
)  # fmt: skip
def test_any_setting_that_says_that_it_names_files_is_a_path(tmp_path: Path, monkeypatch, where, value, expected):
    monkeypatch.chdir(tmp_path)
    found = from_working_folder(Block, where, value)
    assert json.dumps(found) == json.dumps(expected).replace("/here", str(tmp_path))
