"""The one reader of records: what is read, what is refused with the line, and that all faults come at once."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import polars as pl
import pytest

from bystander.core.errors import DataError
from bystander.core.faults import RowFaults
from bystander.core.record_files import Numbered, read_records


def read(path: Path) -> list[Numbered]:
    faults = RowFaults(path.name)
    rows = read_records(path, faults)
    faults.raise_any()
    return rows


def test_a_mark_line_ends_gaps_and_line_separators_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes("\ufeff".encode() + '{"a": "x\u2028y"}\r\n\r\n{"a": "\\ud83d\\ude00"}\r\n{"a": "é"}'.encode())
    assert read(path) == [(1, {"a": "x\u2028y"}), (3, {"a": "😀"}), (4, {"a": "é"})]


def test_the_same_records_come_from_every_kind_of_file(tmp_path: Path) -> None:
    records = [{"prompt": "p", "n": 1}, {"prompt": "q", "n": 2}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "a.json").write_text(json.dumps(records, indent=2))
    (tmp_path / "lines.json").write_text((tmp_path / "a.jsonl").read_text())
    (tmp_path / "a.yaml").write_text("# two\n- {prompt: p, n: 1}\n- prompt: q\n  n: 2\n")
    pl.DataFrame(records).write_parquet(tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.json", "lines.json", "a.parquet"):
        assert read(tmp_path / name) == [(1, records[0]), (2, records[1])]
    assert read(tmp_path / "a.yaml") == [(2, records[0]), (3, records[1])]


GOOD = '{"a": 1}\n'


@pytest.mark.parametrize(
    ("content", "row", "says"),
    [
        (GOOD + '{"a": 1, "b": 2, "a": 3}\n', 2, "the key 'a' stands twice in one object; keep one"),
        (GOOD + '{"b": [{"a": 1, "a": 1}]}\n', 2, "the key 'a' stands twice"),
        (GOOD + '{"b": [{"c": "x\\uD800y"}]}\n', 2, "`b[0].c` has a lone surrogate (\\ud800)"),
        (GOOD + '{"\\udfff": 1}\n', 2, "`the key \\udfff` has a lone surrogate"),
        (GOOD + '{"b": "\\ud83d\\ud83d\\ude00"}\n', 2, "lone surrogate (\\ud83d)"),
        (GOOD + '{"b": "x\\u0000"}\n', 2, "`b` has a NUL character"),
        (GOOD + '{"b": "x\x00"}\n', 2, "not JSON: a NUL character at column 9"),
        (GOOD + '{"b": }\n', 2, "not JSON: Expecting value at column 7"),
        (GOOD + '{"a": 1} {"a": 2}\n', 2, "not JSON: Extra data at column 10"),
        (GOOD + '{"a": "cut of', 2, "the file ends in the middle of this line"),
        (GOOD + '{"a": 1', 2, "the file ends in the middle of this line"),
        (GOOD + '{"a": "\\u00', 2, "the file ends in the middle of this line"),
        (GOOD + '{"a": "é'.encode().decode("latin-1")[:-1], 2, "the file ends in the middle of this line"),
        (GOOD + "[1]\n", 2, "a JSON list where an object belongs"),
        (GOOD + "null\n", 2, "a JSON null where an object belongs"),
        (GOOD + '"text"\n', 2, "a JSON str where an object belongs"),
        (GOOD + '{"a":' * 100_000 + "1" + "}" * 100_000 + "\n", 2, "not JSON that can be read: nested too deeply"),
        (GOOD + '{"a": ' + "9" * 5000 + "}\n", 2, "not JSON that can be read"),
        ('{"a": 1}\n{"b": "\xe9"}\n', 2, "byte 8 of the line (0xe9) is not UTF-8; save the file as UTF-8"),
    ],
)
def test_a_line_at_fault_is_named(tmp_path: Path, content: str, row: int, says: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError) as caught:
        read(tmp_path / "a.jsonl")
    assert f"  - a.jsonl:{row}: " in str(caught.value)
    assert says in str(caught.value)
    assert str(caught.value).encode()  # the message itself can be printed


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", GOOD.encode("utf-16"), "it is UTF-16, not UTF-8 text: save it as UTF-8"),
        ("a.jsonl", b"\xfe\xff" + GOOD.encode("utf-16-be"), "it is UTF-16"),
        ("a.jsonl", GOOD.encode("utf-16-le"), "full of NUL bytes"),
        ("a.jsonl", gzip.compress(GOOD.encode(), mtime=0), "compressed with gzip"),
        ("a.jsonl", b"PK\x03\x04rest", "a ZIP archive"),
        ("a.jsonl", b"PAR1rest", "let its name end in .parquet"),
        ("a.parquet", b"PAR1 and no more", "as Parquet"),
        ("a.json", b'[{"a": 1}', "not JSON"),
        ("a.json", b'[{"a": "\xe9"}]', "byte 8 is not UTF-8"),
        ("a.json", b'[{"a": 1, "a": 2}]', "the key 'a' stands twice"),
        ("a.json", b'[{"a": 1}, {"a": "\\ud800"}]', "a.json:2: `a` has a lone surrogate"),
        ("a.jsonl", b'[\n{"a": 1},\n{"a": 2}\n]\n', "one JSON list over several lines, not JSONL"),
        ("a.jsonl", b'{\n"a": 1\n}\n', "one JSON object over several lines"),
        ("a.yaml", b"a: 1\n", "a dict, expected a list of records"),
        ("a.yaml", b"- {a: 1, a: 2}\n", "line 1: 'a' stands twice"),
        ("a.yaml", b"- {a: 1}\n- 3\n", "a.yaml:2: a int where an object belongs"),
        ("a.yaml", b'- {a: "\\ud800"}\n', "a.yaml:1: `a` has a lone surrogate"),
    ],
)
def test_a_file_that_is_none_is_refused_with_the_reason(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(tmp_path / name)
    assert says in str(caught.value)


def test_all_faults_come_at_once_and_a_long_list_is_cut(tmp_path: Path) -> None:
    bad = ['{"a": }', "[1]", '{"a": 1, "a": 2}', '{"b": "\\ud800", "c": "\\u0000"}']
    (tmp_path / "a.jsonl").write_text("\n".join([GOOD.strip(), *bad * 10]) + "\n")
    with pytest.raises(DataError, match="40 rows cannot be used") as caught:
        read(tmp_path / "a.jsonl")
    lines = str(caught.value).splitlines()
    assert [line.split(":")[1] for line in lines[1:7]] == ["2", "3", "4", "5", "5", "6"]
    assert lines[-1] == "  - and 30 more"


def test_no_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(DataError, match="cannot read"):
            read(path)


def test_six_thousand_rows_take_well_under_two_seconds(tmp_path: Path) -> None:
    record = {"messages": [{"role": "user", "content": "x" * 400}, {"role": "assistant", "content": "é\n" * 200}]}
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for _ in range(6000)))
    start = time.process_time()
    assert len(read(tmp_path / "a.jsonl")) == 6000
    assert time.process_time() - start < 1.0
