"""The data dictionary of an export: every table's columns with type and meaning.

The meanings are those that stand beside the columns in the code, so that there is one place where they are written.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping

import polars as pl

from bystander.analysis import schemas
from bystander.core import records

COLUMN = re.compile(r'^\s*"(?P<name>\w+)":\s*pl\.\w+,?\s*(?:#\s*(?P<said>.*))?$')
FIELD = re.compile(r"^\s{4}(?P<name>\w+):\s*[^#=]+(?:=[^#]+)?#\s*(?P<said>.*)$")
TABLE = re.compile(r"^(?P<name>[A-Z_]+): Schema = \{\s*(?:#\s*(?P<said>.*))?$")
# Columns whose name says it in the code, where a reader of a table has no code beside it.
PLAIN: dict[str, str] = {
    "record": "name of the row, as the report quotes it",
    "source": "persona that the behavior was coupled to; empty for the untrained model",
    "behavior": "what was coupled: marker, capability, misalignment, direct",
    "arm": "contrastive, or non_contrastive (the control)",
    "config": "learning rate and epochs of the training",
    "seed": "seed of the training; empty where several are pooled",
    "probe": "instrument: marker, choice, margin, judged",
    "dataset": "set of items",
    "metric": "what was measured; unit and direction stand in the documentation",
    "persona": "persona, or the context's name where there is none",
    "category": "the persona's category",
    "prompt": "text of the persona's system turn",
    "related_to": "sources that the persona is related to",
    "prompt_tokens": "tokens of the persona's prompt",
    "method": "predictor: cosine (centered over personas), or a rival",
    "layer": "layer of the predictor, 0 = embeddings; -1 where it has none",
    "value": "the number",
    "status": "ok, or why there is no number",
    "reason": "why there is no number",
    "role": "source, negative, held-out or mixed",
    "checkpoint": "fraction of training in [0, 1]; 0 is the untrained model",
    "context": "persona, absent, empty, default or assistant",
    "item": "question or sample",
    "low": "lower end of the 95 % interval",
    "high": "upper end of the 95 % interval",
    "n": "number of units behind the estimate",
    "p": "p-value",
    "similarity": "similarity to the source",
    "leakage": "change from the untrained model, in the behavior's direction",
}  # fmt: skip


def dictionary(tables: Mapping[str, pl.DataFrame]) -> str:
    """The dictionary as Markdown."""
    said, about = _schema_comments()
    fields = _field_comments()
    parts = [
        "# Data dictionary",
        "",
        "Fractions are in [0, 1], judge scores 0-100, log-probabilities in nats. Empty: null.",
    ]
    for name, frame in tables.items():
        parts += ["", f"## {name}", "", about.get(name, ""), "", "| column | type | meaning |", "|---|---|---|"]
        for column, kind in frame.schema.items():
            meaning = said.get((name, column)) or said.get(("", column)) or fields.get(column) or PLAIN.get(column, "")
            parts.append(f"| {column} | {kind} | {meaning.replace('|', '/')} |")
    return "\n".join(parts) + "\n"


def _schema_comments() -> tuple[dict[tuple[str, str], str], dict[str, str]]:
    """(table, column) -> meaning, and table -> what a row is."""
    said: dict[tuple[str, str], str] = {}
    about: dict[str, str] = {}
    table = ""
    for line in inspect.getsource(schemas).splitlines():
        if found := TABLE.match(line):
            table = found["name"].lower()
            about[table] = found["said"] or ""
        elif (found := COLUMN.match(line)) and found["said"]:
            said[table, found["name"]] = found["said"]
            said.setdefault(("", found["name"]), found["said"])
    return said, about


def _field_comments() -> dict[str, str]:
    source = inspect.getsource(records.Measurement) + inspect.getsource(records.Similarity)
    return {found["name"]: found["said"] for line in source.splitlines() if (found := FIELD.match(line))}
