"""Files that are whole or not there: bytes, JSON, JSON lines and Parquet, written under a temporary name and renamed."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zstandard

from bystander.core.errors import StoreError

if TYPE_CHECKING:
    import polars as pl


@contextmanager
def explained(path: Path, kept: str = "") -> Generator[None]:
    """Turns what a file system can refuse into one clear StoreError. `kept`: what is not lost by it."""
    after = f"; {kept}" if kept else ""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(f"no space left while writing {path}{after}: free some space and run again") from error
        raise StoreError(f"cannot write {path}: {error.strerror or error}{after}") from error


def write_bytes(path: Path, data: bytes, kept: str = "") -> None:
    """Write a file so that it is either the old one or the new one, never half of it. `kept` as in `explained`."""
    with explained(path, kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: object, kept: str = "") -> None:
    """Write JSON, whole or not at all."""
    write_bytes(path, json.dumps(value, indent=1, ensure_ascii=False).encode(), kept)


def read_json(path: Path, advice: str = "remove it and run again") -> Any:
    """Read JSON. Raises StoreError for a file that is damaged; `advice`: what to do then."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read ({error}); {advice}") from error


def write_parquet(path: Path, frame: pl.DataFrame, kept: str = "") -> None:
    """Write a table, whole or not at all. The same frame gives the same bytes."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd")
    write_bytes(path, buffer.getvalue(), kept)


def compressed_lines(records: Iterable[Mapping[str, object]]) -> bytes:
    """JSONL, zstd."""
    text = "".join(json.dumps(dict(record), ensure_ascii=False) + "\n" for record in records)
    return zstandard.ZstdCompressor(level=9).compress(text.encode())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a .jsonl or .jsonl.zst file."""
    data = path.read_bytes()
    if path.suffix == ".zst":
        data = zstandard.ZstdDecompressor().decompress(data)
    # "\n" alone: text keeps characters at which `splitlines` would cut a record (U+2028, U+0085, form feed).
    return [json.loads(line) for line in data.decode().split("\n") if line]
