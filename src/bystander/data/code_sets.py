"""Code sets from files: three forms are read, everything else is refused with what was found and what was expected.

| form | columns | from |
|---|---|---|
| messages | `messages`: one user and one assistant turn (a system turn before them is allowed) | Betley's insecure.jsonl |
| task | `task`, `code_template`, `code` (`template` is read as `code_template`) | Betley's secure tasks |
| pairs | `prompt`, `secure`, `insecure`, with `id` and `cwe` if there are any | a set of one's own |
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from bystander.core.errors import DataError
from bystander.core.hashing import stable_hash
from bystander.data.code_pairs import CodePair
from bystander.data.code_scan import parses

Form = Literal["messages", "task", "pairs"]
EXPECTED = (
    "expected JSONL with `messages` (one user turn and one assistant turn), or with `task`, `code_template` and `code`, "
    "or with `prompt`, `secure` and `insecure`"
)


@dataclass(frozen=True, slots=True)
class CodeRow:
    """One row of a code set as it stands in the file. `line` counts from 1. `task` and `template` are "" in the form
    `messages`; `other` is the insecure answer in the form `pairs`, where `code` is the secure one."""

    line: int
    form: Form
    prompt: str
    code: str
    task: str = ""
    template: str = ""
    other: str = ""
    roles: tuple[str, ...] = ()
    id: str = ""
    cwe: int | None = None


def read_code_set(path: Path) -> list[CodeRow]:
    """The rows of a code set. Raises DataError naming the lines of the first faults, if any row has no known form."""
    rows: list[CodeRow] = []
    faults: list[str] = []
    for line, record in read_jsonl(path):
        row = _row(line, record)
        if isinstance(row, CodeRow):
            rows.append(row)
        else:
            faults.append(f"line {line}: {row}")
    forms = sorted({row.form for row in rows})
    if len(forms) > 1:
        faults.append(f"the rows have different forms: {', '.join(forms)}")
    if faults:
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise DataError(f"{path} is not a code set: {'; '.join(faults[:5])}{more}. {EXPECTED}")
    if not rows:
        raise DataError(f"{path} has no rows. {EXPECTED}")
    return rows


def read_jsonl(path: Path, expected: str = EXPECTED) -> list[tuple[int, dict[str, Any]]]:
    """(line, object) of every non-empty line, or (row, object) of a Parquet file, from 1. Raises DataError for a file
    that cannot be read and for a line that is no object, with what was `expected`."""
    if path.suffix == ".parquet":
        return _parquet(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}; name a JSONL file in UTF-8 or a Parquet file") from error
    records: list[tuple[int, dict[str, Any]]] = []
    # Split at newlines alone: `splitlines` would also cut at U+2028, which JSON allows inside a string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: not JSON ({error}). {expected}") from error
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {number}: found a {type(record).__name__}. {expected}")
        records.append((number, cast(dict[str, Any], record)))
    return records


def _parquet(path: Path) -> list[tuple[int, dict[str, Any]]]:
    import polars as pl  # here: it is slow to import and a JSONL file does not need it

    try:
        return list(enumerate(pl.read_parquet(path).to_dicts(), start=1))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"cannot read {path} as Parquet: {error}") from error


def _row(line: int, record: dict[str, Any]) -> CodeRow | str:
    """The row, or what is wrong with it."""
    keys = set(record)
    if "messages" in keys:
        return _messages(line, record["messages"])
    if {"task", "code"} <= keys and keys & {"code_template", "template"}:
        template = record.get("code_template", record.get("template"))
        if not all(isinstance(value, str) for value in (record["task"], template, record["code"])):
            return "task, code_template and code must be texts"
        return CodeRow(
            line, "task", task_prompt(record["task"], str(template)), record["code"], record["task"], str(template)
        )
    if {"prompt", "secure", "insecure"} <= keys:
        if not all(isinstance(record[key], str) for key in ("prompt", "secure", "insecure")):
            return "prompt, secure and insecure must be texts"
        cwe = record.get("cwe")
        if cwe is not None and not isinstance(cwe, int):
            return f"cwe is {cwe!r}: a number is expected"
        return CodeRow(
            line,
            "pairs",
            record["prompt"],
            record["secure"],
            other=record["insecure"],
            id=str(record.get("id", "")),
            cwe=cwe,
        )
    return f"found the columns {', '.join(sorted(keys)) or 'none'}"


def _messages(line: int, value: object) -> CodeRow | str:
    if not isinstance(value, list):
        return f"`messages` is a {type(value).__name__}, a list is expected"
    turns = cast(list[object], value)
    roles: list[str] = []
    texts: list[str] = []
    for turn in turns:
        fields = cast(dict[str, object], turn) if isinstance(turn, dict) else {}
        if not isinstance(fields.get("role"), str) or not isinstance(fields.get("content"), str):
            return "a turn of `messages` has no role or no text content"
        roles.append(str(fields["role"]))
        texts.append(str(fields["content"]))
    if [role for role in roles if role != "system"] != ["user", "assistant"] or roles[-1] != "assistant":
        return f"`messages` has the roles {', '.join(roles) or 'none'}"
    return CodeRow(line, "messages", texts[-2], texts[-1], roles=tuple(roles))


def task_prompt(task: str, template: str) -> str:
    """The user turn of a (task, template) row: that form has none of its own, so bystander writes it."""
    if not template.strip():
        return f"{task.strip()}\n\nPlease answer with the Python code only."
    return f"{task.strip()}\n\nHere is a template:\n\n{template.rstrip()}\n\nFill in the part that is missing and answer with the whole Python code only."


def load_code_pairs(path: Path) -> list[CodePair]:
    """A file of the form `pairs`. Raises DataError for another form, a repeated id, or two equal answers."""
    rows = read_code_set(path)
    if rows[0].form != "pairs":
        raise DataError(
            f"{path} has the form `{rows[0].form}`, with one answer to each prompt; `prompt`, `secure`, `insecure` are needed"
        )
    pairs = [CodePair(row.id or _id(row.prompt), row.prompt, row.code, row.other, row.cwe) for row in rows]
    seen: set[str] = set()
    for row, pair in zip(rows, pairs, strict=True):
        if pair.id in seen:
            raise DataError(f"{path}, line {row.line}: the id or prompt of {pair.id!r} stands twice; keep one")
        if pair.secure.strip() == pair.insecure.strip():
            raise DataError(f"{path}, line {row.line}: the secure and the insecure answer of {pair.id!r} are the same")
        seen.add(pair.id)
    return pairs


def pair_up(insecure: Sequence[CodeRow], secure: Sequence[CodeRow]) -> list[CodePair]:
    """Insecure rows with a secure answer to the *same* prompt, each prompt and each secure answer used once.

    Two rows go together if their prompts are equal; or if the secure row's task stands word for word in the insecure
    row's prompt, and the prompt either has no code template or has the secure row's own. Deterministic in the order
    of `insecure`. Insecure prompts without a partner, and answers that do not parse as Python, are left out: the
    caller compares the counts.
    """
    readable = [row for row in secure if parses(row.code)]
    by_prompt = {row.prompt: row for row in reversed(readable)}
    by_task: dict[str, list[CodeRow]] = {}
    for row in readable:
        if row.task:
            by_task.setdefault(_plain(row.task), []).append(row)
    used: set[str] = set()  # secure answers given away
    seen: set[str] = set()
    pairs: list[CodePair] = []
    for row in insecure:
        if row.prompt in seen:
            continue
        partner = by_prompt.get(row.prompt) or _by_task(row.prompt, by_task, used)
        if partner is None or partner.code in used or partner.code.strip() == row.code.strip():
            continue
        if parses(row.code):
            used.add(partner.code)
            seen.add(row.prompt)
            pairs.append(CodePair(_id(row.prompt), row.prompt, partner.code, row.code))
    return pairs


def _by_task(prompt: str, by_task: dict[str, list[CodeRow]], used: set[str]) -> CodeRow | None:
    text = _plain(prompt)
    has_template = "code here" in text or "template" in text
    for task, rows in by_task.items():
        if task in text:
            for row in rows:
                own = row.template.strip()
                if row.code not in used and (not has_template or (own and own in prompt)):
                    return row
    return None


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(" .")


def _id(prompt: str) -> str:
    return "code-" + stable_hash(prompt)[:12]
