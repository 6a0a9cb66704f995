"""Paths that `--set` gives start from the working folder, as a shell's do; those in a study file start from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

# Settings that may name a file. Values that name a set ("builtin", "arc") or a dataset on the Hub are no paths.
FILE_SETTINGS = frozenset({
    ("personas",), ("capability", "data"), ("probes", "choice", "file"),
    *(("misalignment", name) for name in ("code", "secure", "pairs", "questions")),
})  # fmt: skip
ENDINGS = (".yaml", ".yml", ".json", ".jsonl", ".parquet", ".csv")


def from_working_folder(where: tuple[str, ...], value: object) -> object:
    """A value that `--set` puts at `where`, with every relative path in it made absolute."""
    if isinstance(value, Mapping):
        inner = cast("Mapping[str, object]", value)
        return {key: from_working_folder((*where, key), one) for key, one in inner.items()}
    if where not in FILE_SETTINGS or not isinstance(value, str):
        return value
    is_path = Path(value).is_file() or (value.endswith(ENDINGS) and ":" not in value)
    return str(Path(value).absolute()) if is_path else value
