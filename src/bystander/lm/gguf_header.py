"""What a GGUF says before its weights: fields, and names and shapes of tensors. Reads the header alone, without torch.

The format is that of ggml's specification (docs/gguf.md there), versions 2 and 3, little-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from bystander.core.errors import ModelError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
# Type number -> struct's code; 8 is a text and 9 an array.
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, ARRAY = 8, 9
MOST = 1 << 28  # bytes of a text or an array: more than any header has, and a damaged count is told


@dataclass(frozen=True, slots=True)
class Header:
    """`fields` by name; `shapes`: tensor -> dimensions, the fastest first, as the file has them."""

    fields: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]

    def told(self, name: str, default: Any = None) -> Any:
        """The field of that name under the file's architecture. Raises ModelError where it is missing."""
        value = self.fields.get(f"{self.fields.get('general.architecture')}.{name}", default)
        if value is None:
            raise ModelError(f"the GGUF does not say {name}: the file is damaged or of an old kind. Copy it again.")
        return value


def read_header(file: Path) -> Header:
    """The header of a GGUF. Raises ModelError for a file that is none, or whose header is cut off."""
    try:
        with file.open("rb") as handle:
            return _Reader(handle, file).header()
    except (OSError, struct.error, UnicodeDecodeError) as error:
        raise ModelError(f"{file.name} cannot be read as a GGUF: {error}. Copy it again.") from error


class _Reader:
    def __init__(self, handle: BinaryIO, file: Path) -> None:
        self.handle, self.file = handle, file

    def header(self) -> Header:
        if self._bytes(4) != MAGIC:
            raise ModelError(f"{self.file.name} is no GGUF: it does not begin with {MAGIC.decode()}.")
        version = self._number("I")
        if version not in VERSIONS:
            raise ModelError(f"{self.file.name} is a GGUF of version {version}; known are {VERSIONS}.")
        tensors, count = self._number("Q"), self._number("Q")
        fields = {self._text(): self._value(self._number("I")) for _ in range(count)}
        shapes: dict[str, tuple[int, ...]] = {}
        for _ in range(tensors):
            name = self._text()
            shapes[name] = self._numbers("Q", self._number("I"))
            self._bytes(4 + 8)  # type and place of the data
        return Header(fields, shapes)

    def _bytes(self, count: int) -> bytes:
        if count > MOST:
            raise ModelError(f"{self.file.name} has a damaged header. Copy it again.")
        found = self.handle.read(count)
        if len(found) < count:
            raise ModelError(f"{self.file.name} ends inside its header. Copy it again.")
        return found

    def _numbers(self, code: str, count: int) -> tuple[Any, ...]:
        return struct.unpack(f"<{count}{code}", self._bytes(count * struct.calcsize(f"<{code}")))

    def _number(self, code: str) -> Any:
        return self._numbers(code, 1)[0]

    def _text(self) -> str:
        return self._bytes(self._number("Q")).decode()

    def _value(self, kind: int) -> Any:
        if kind == TEXT:
            return self._text()
        if kind == ARRAY:
            inner, count = self._number("I"), self._number("Q")
            if inner in NUMBERS:
                return list(self._numbers(NUMBERS[inner], count))
            return [self._value(inner) for _ in range(count)]
        if kind not in NUMBERS:
            raise ModelError(f"{self.file.name} has a field of the unknown type {kind}. Copy it again.")
        return self._number(NUMBERS[kind])


def local_file(name: str) -> Path | None:
    """The file of a model called `FILE.gguf` or `OWNER/NAME:FILE.gguf`, if it is on this machine; nothing is fetched."""
    local = Path(name).expanduser()
    if local.is_file():
        return local
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    owner, _, file = name.partition(":")
    try:
        found = try_to_load_from_cache(owner, file) if file and owner.count("/") == 1 else None
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None
