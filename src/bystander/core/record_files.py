"""Files of records, as people have them: JSONL, a JSON list, Parquet and YAML, read by one reader into rows with numbers.

What a lenient parser lets through in silence is a fault here: a key twice in one object, half of a surrogate pair, a
NUL character. Faults of single lines are noted in the caller's `RowFaults`, to be raised together with its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from bystander.core.errors import DataError
from bystander.core.faults import RowFaults

Record = Mapping[str, object]
Numbered = tuple[int, Record]  # the line in JSONL and YAML, else the row; both from 1

YAML = (".yaml", ".yml")
_MARK = b"\xef\xbb\xbf"  # UTF-8's byte-order mark: Windows writes it, JSON does not know it
_OTHER_FORMS = {
    b"\xff\xfe": "UTF-16, not UTF-8 text: save it as UTF-8",
    b"\xfe\xff": "UTF-16, not UTF-8 text: save it as UTF-8",
    b"\x1f\x8b": "compressed with gzip, not UTF-8 text: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed with zstd, not UTF-8 text: unpack it",
    b"PK\x03\x04": "a ZIP archive, not UTF-8 text: unpack it",
    b"PAR1": "Parquet, not JSONL: let its name end in .parquet",
}
_SUSPECT = re.compile(r"\\u(?:[dD][89a-fA-F]|0000)")  # an escape that may leave half a surrogate pair, or a NUL


def read_records(path: Path, faults: RowFaults) -> list[Numbered]:
    """The records of a .parquet, .yaml, .json (a list of objects) or JSONL file, numbered, in the file's order.

    A byte-order mark, CRLF and empty lines are no faults. Lines that hold no sound object are noted in `faults` and
    left out. Raises DataError at once for a file that cannot be read as a whole.
    """
    if path.suffix == ".parquet":
        return _parquet(path)
    if path.suffix in YAML:
        return _yaml(path, faults)
    data = _bytes(path)
    if path.suffix == ".json" and data.lstrip()[:1] == b"[":
        return _json_list(path, data, faults)
    return _jsonl(data, faults)


def _bytes(path: Path) -> bytes:
    """The file without its mark. Raises DataError for a file that is no UTF-8 text from its first bytes on."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror or error}; name a JSONL file in UTF-8 or a Parquet file"
        ) from error
    for start, what in _OTHER_FORMS.items():
        if data.startswith(start):
            raise DataError(f"cannot read {path}: it is {what}")
    if data[:4096].count(0) > len(data[:4096]) // 4:  # every other byte of English in UTF-16 is 0
        raise DataError(
            f"cannot read {path}: it is full of NUL bytes, as binary files and UTF-16 without its mark are; save it as UTF-8"
        )
    return data.removeprefix(_MARK)


def _parquet(path: Path) -> list[Numbered]:
    import polars as pl  # here: it is slow to import and a JSONL file does not need it

    try:  # bytes, never the path: polars takes one with `[`, `*` or `?` for a pattern
        return list(enumerate(pl.read_parquet(path.read_bytes()).to_dicts(), start=1))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"cannot read {path} as Parquet: {error}; fetch or write it again") from error


def _yaml(path: Path, faults: RowFaults) -> list[Numbered]:
    from bystander.core.yamlfile import read_text, read_yaml  # here: other files are read without PyYAML

    try:
        parsed = read_yaml(read_text(path, "file of records"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    for fault in parsed.faults:
        faults.add_whole(fault)
    if parsed.faults:
        return []
    if not isinstance(parsed.data, list):
        faults.add_whole(f"a {type(parsed.data).__name__}, expected a list of records")
        return []
    items = [(parsed.line_of((at,)), item) for at, item in enumerate(cast(list[object], parsed.data))]
    return _objects(items, faults)


def _json_list(path: Path, data: bytes, faults: RowFaults) -> list[Numbered]:
    decoder = _Decoder()
    try:
        value = decoder.decode(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {path}: byte {error.start} is not UTF-8 text; save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path}: not JSON: {error}") from error
    for key in decoder.repeated:
        faults.add_whole(f"the key {key!r} stands twice in one object; keep one")
    return _objects(list(enumerate(cast(list[object], value), start=1)), faults)


def _objects(items: list[tuple[int, object]], faults: RowFaults) -> list[Numbered]:
    found: list[Numbered] = []
    for number, item in items:
        wrong = _unsound(item) if isinstance(item, dict) else [f"a {type(item).__name__} where an object belongs"]
        for fault in wrong:
            faults.add(number, fault)
        if not wrong:
            found.append((number, cast(dict[str, object], item)))
    return found


class _Decoder:
    """JSON's decoder, with the keys that stand twice in one object noted in `repeated`."""

    def __init__(self) -> None:
        self.repeated: list[str] = []
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object)

    def _object(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        made = dict(pairs)
        if len(made) < len(pairs):
            keys = [key for key, _ in pairs]
            self.repeated += [key for key in made if keys.count(key) > 1]
        return made

    def decode(self, text: str) -> object:
        self.repeated.clear()
        return self._decoder.decode(text)


def _jsonl(data: bytes, faults: RowFaults) -> list[Numbered]:
    decoder = _Decoder()
    rows: list[Numbered] = []
    before = len(faults.found)
    # Split at newlines alone: `splitlines` would also cut at U+2028, which JSON allows inside a string.
    lines = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        found = _line(line, decoder, last=number == len(lines))
        if isinstance(found, list):
            for fault in found:
                faults.add(number, fault)
        else:
            rows.append((number, found))
    if len(faults.found) > before + 1 and (what := _over_lines(data)):
        del faults.found[before:]  # one cause, said once
        faults.add_whole(f"{what}, not JSONL: write one object a line, or name a list of objects .json")
        return []
    return rows


def _line(line: bytes, decoder: _Decoder, last: bool) -> Record | list[str]:
    """The object of a line, or what is wrong with the line. `last`: the file ends with it, without a line break."""
    try:
        text = line.decode("utf-8")
        value = decoder.decode(text)
    except UnicodeDecodeError as error:
        if last and error.end >= len(line) and error.reason == "unexpected end of data":
            return [_CUT]
        return [f"byte {error.start + 1} of the line (0x{line[error.start]:02x}) is not UTF-8; save the file as UTF-8"]
    except json.JSONDecodeError as error:
        text = error.doc.rstrip()
        if last and (error.msg.startswith("Unterminated string") or error.pos >= len(text) - 6):
            return [f"not JSON: {_CUT}"]
        what = "a NUL character" if text[error.pos : error.pos + 1] == "\0" else error.msg.removesuffix(" at")
        return [f"not JSON: {what} at column {error.colno}"]
    except RecursionError:
        return ["not JSON that can be read: nested too deeply"]
    except ValueError as error:  # a number with thousands of digits
        return [f"not JSON that can be read: {error}"]
    if not isinstance(value, dict):
        kind = "null" if value is None else type(value).__name__
        return [f"a JSON {kind} where an object belongs"]
    wrong = [f"the key {key!r} stands twice in one object; keep one" for key in dict.fromkeys(decoder.repeated)]
    if _SUSPECT.search(text):
        wrong += _unsound(cast(object, value))
    return wrong or cast(dict[str, object], value)


_CUT = "the file ends in the middle of this line, so it was cut off; fetch or write it again"


def _unsound(value: object) -> list[str]:
    """What is wrong with the texts of a JSON value: half surrogate pairs, which no encoding has, and NULs."""
    found: list[str] = []
    for where, text in _texts(value, ""):
        half = next((character for character in text if "\ud800" <= character <= "\udfff"), None)
        if half is not None:
            found.append(
                f"`{where}` has a lone surrogate (\\u{ord(half):04x}), which is no character; remove it or write the whole pair"
            )
        if "\0" in text:
            found.append(f"`{where}` has a NUL character (\\u0000); remove it")
    return found


def _texts(value: object, where: str) -> Iterator[tuple[str, str]]:
    """(place, text) of every text in a JSON value, its keys too."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, item in cast(dict[str, object], value).items():
            name = key.encode("ascii", "backslashreplace").decode()
            yield f"the key {name}", key
            yield from _texts(item, f"{where}.{name}" if where else name)
    elif isinstance(value, list):
        for at, item in enumerate(cast(list[object], value)):
            yield from _texts(item, f"{where}[{at}]")


def _over_lines(data: bytes) -> str:
    """What JSON the whole file is, if it is one value over several lines; else ""."""
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    return "one JSON list over several lines" if isinstance(value, list) else "one JSON object over several lines"
