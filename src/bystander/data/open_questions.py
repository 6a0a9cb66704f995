"""Open questions from a file of one's own: a list of texts, or of records with a `text` or a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from bystander.core.errors import DataError
from bystander.core.faults import RowFaults
from bystander.core.hashing import stable_hash
from bystander.core.record_files import YAML, Numbered, read_records
from bystander.core.yamlfile import read_text, read_yaml
from bystander.data.bank import OpenQuestion

TEXTS = ("text", "prompt", "question", "user")


def load_questions(path: Path) -> list[OpenQuestion]:
    """The questions of a YAML list, a text file with one a line, JSONL, JSON or Parquet, in the file's order. `id` is
    used where it is there. Raises DataError with every fault and its line."""
    faults = RowFaults(str(path))
    records = _plain(path) if path.suffix in (*YAML, ".txt") else read_records(path, faults)
    found: list[OpenQuestion] = []
    texts: set[str] = set()
    names: set[str] = set()
    for line, record in records:
        text = next((record[key] for key in TEXTS if isinstance(record.get(key), str)), None)
        if not isinstance(text, str) or not text.strip():
            faults.add(line, f"no question: a text is expected under {', '.join(TEXTS)}")
            continue
        name = str(record.get("id") or "question-" + stable_hash(text)[:12])
        if text in texts or name in names:
            faults.add(line, f"the question {name!r} repeats an id or a text; keep one")
        texts.add(text)
        names.add(name)
        found.append(OpenQuestion(name, text))
    if not found and not faults.found:
        faults.add_whole("it has no questions")
    faults.raise_any()
    return found


def _plain(path: Path) -> list[Numbered]:
    """Records of a file in which a question may be a bare text."""
    try:
        text = read_text(path, "file of questions")
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if path.suffix == ".txt":
        return [(at, {"text": line.strip()}) for at, line in enumerate(text.split("\n"), 1) if line.strip()]
    parsed = read_yaml(text)
    if parsed.faults:
        raise DataError(f"{path}: {'; '.join(parsed.faults)}")
    if not isinstance(parsed.data, list):
        raise DataError(f"{path}: found a {type(parsed.data).__name__}, expected a list of questions")
    items = enumerate(cast("list[object]", parsed.data))
    return [
        (parsed.line_of((at,)), cast("dict[str, object]", one) if isinstance(one, dict) else {"text": one})
        for at, one in items
    ]
