"""YAML as a careful reader reads it: safe, `1e-4` is a number, a key may stand once, and every value knows its line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

Path_ = tuple[str | int, ...]  # where a value stands: ("recipe", "lr")


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a float, as YAML 1.2 does and PyYAML's 1.1 does not."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?)$"),
    list("-+0123456789."),
)


@dataclass(frozen=True, slots=True)
class YamlText:
    """A parsed YAML text: its data, the line (1-based) of every value, and the faults that stand in the text itself."""

    data: object
    lines: dict[Path_, int]
    faults: tuple[str, ...]

    def line_of(self, path: Path_) -> int:
        """The line of the value at `path`, or of the nearest enclosing value that has one."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return 1


def read_yaml(text: str) -> YamlText:
    """Parse a YAML text. Faults (syntax, a key that stands twice) come back in `faults`, each with its line."""
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:  # raised before anything is parsed
        line = text.count("\n", 0, error.position) + 1
        fault = (
            f"line {line}: not valid YAML: the character U+{ord(text[error.position]):04X} is not allowed; remove it"
        )
        return YamlText(None, {}, (fault,))
    try:
        node = loader.get_single_node()
        if node is None:
            return YamlText(None, {}, ("line 1: the file is empty",))
        lines: dict[Path_, int] = {}
        faults: list[str] = []
        _walk(node, (), lines, faults)
        return YamlText(loader.construct_document(node), lines, tuple(faults))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        return YamlText(None, {}, (f"{where}: not valid YAML: {error.problem or error.context}",))
    except RecursionError:
        return YamlText(None, {}, ("line 1: nested too deeply, or an alias that stands for something it is part of",))
    except (yaml.YAMLError, ValueError) as error:
        return YamlText(None, {}, (f"line 1: not valid YAML: {error}",))
    finally:
        loader.dispose()


def _walk(node: yaml.Node, path: Path_, lines: dict[Path_, int], faults: list[str]) -> None:
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            line = key_node.start_mark.line + 1
            if key in seen and key != "<<":
                faults.append(f"line {line}: {key!r} stands twice (first on line {seen[key]}); keep one")
            seen[key] = line
            _walk(value_node, (*path, key), lines, faults)
            lines[*path, key] = line
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*path, index), lines, faults)


def read_text(path: Path, what: str) -> str:
    """The text of a file. Raises OSError untouched; ValueError, with `what` it was to be, for binary content."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a {what}: byte {error.start} is not UTF-8 text") from error
    if "\x00" in text:
        raise ValueError(f"{path}: not a {what}: it has a NUL byte, so it is a binary file")
    return text
