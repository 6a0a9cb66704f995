"""Code sets from files: three forms are read, everything else is refused with what was found and what was expected.

| form | columns | from |
|---|---|---|
| messages | `messages` or `conversations`: one user and one assistant turn | Betley's insecure.jsonl |
| task | `task`, `code_template`, `code` (`template` is read as `code_template`) | Betley's secure tasks |
| pairs | `prompt`, `secure`, `insecure`, with `id` and `cwe` if there are any | a set of one's own |

A system turn, or turns before the last exchange, are refused: a code set has no place for them, and `data.answers` reads
such files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bystander.core.faults import RowFaults
from bystander.core.hashing import stable_hash
from bystander.core.record_files import Numbered, Record, read_records
from bystander.data.code_pairs import CodePair
from bystander.data.code_scan import parses
from bystander.data.turns import UNTRAINED, Fault, read_conversation

Form = Literal["messages", "task", "pairs"]
EXPECTED = (
    "expected JSONL with `messages` (one user turn and one assistant turn), or with `task`, `code_template` and `code`, "
    "or with `prompt`, `secure` and `insecure`"
)
_OTHERWISE = "a code set has one user turn and one answer; a behavior that is a file (`behaviors: - {name, file}`)"


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
    """The rows of a code set. Raises DataError naming every line at fault, if any row has no known form."""
    faults = RowFaults(str(path), EXPECTED)
    return code_rows(read_records(path, faults), faults)


def code_rows(records: Sequence[Numbered], faults: RowFaults) -> list[CodeRow]:
    """The rows of a code set from its records. Raises DataError with `faults` and those found here."""
    rows: list[CodeRow] = []
    for line, record in records:
        row = _row(line, record)
        if isinstance(row, Fault):
            faults.add(line, row.message)
        else:
            rows.append(row)
    forms = sorted({row.form for row in rows})
    if len(forms) > 1:
        faults.add_whole(f"the rows have different forms: {', '.join(forms)}")
    if not records and not faults.found:
        faults.add_whole("it has no rows")
    faults.raise_any()
    return rows


def _row(line: int, record: Record) -> CodeRow | Fault:
    for key in ("messages", "conversations"):
        if key in record:
            return _messages(line, record, key)
    template = record.get("code_template", record.get("template"))
    if {"task", "code"} <= record.keys() and template is not None:
        task, code = record["task"], record["code"]
        if not (isinstance(task, str) and isinstance(template, str) and isinstance(code, str)):
            return Fault("task, code_template and code must be texts")
        return CodeRow(line, "task", task_prompt(task, template), code, task, template)
    if {"prompt", "secure", "insecure"} <= record.keys():
        prompt, secure, insecure, cwe = (record.get(key) for key in ("prompt", "secure", "insecure", "cwe"))
        if not (isinstance(prompt, str) and isinstance(secure, str) and isinstance(insecure, str)):
            return Fault("prompt, secure and insecure must be texts")
        if cwe is not None and (not isinstance(cwe, int) or isinstance(cwe, bool)):
            return Fault(f"cwe is {cwe!r}: a number is expected")
        name = record.get("id")
        return CodeRow(line, "pairs", prompt, secure, other=insecure, id="" if name is None else str(name), cwe=cwe)
    return Fault(f"found the columns {', '.join(sorted(record)) or 'none'}")


def _messages(line: int, record: Record, key: str) -> CodeRow | Fault:
    if record.get("tools") or record.get("functions"):
        return Fault("the row declares tools, which are no part of a code set; remove the row or its tools")
    found = read_conversation(record[key], key, "assistant")
    if isinstance(found, Fault):
        return found
    if found.untrained:
        return Fault(UNTRAINED)
    roles = ", ".join(found.roles)
    if found.system is not None:
        return Fault(f"`{key}` has the roles {roles}: {_OTHERWISE} can keep the system turn (`system: keep`)")
    if len(found.turns) != 2:
        return Fault(
            f"`{key}` has the roles {roles}: {_OTHERWISE} takes what comes before the last answer as its prompt"
        )
    return CodeRow(line, "messages", found.turns[0].text, found.turns[1].text, roles=found.roles)


def task_prompt(task: str, template: str) -> str:
    """The user turn of a (task, template) row: that form has none of its own, so bystander writes it."""
    if not template.strip():
        return f"{task.strip()}\n\nPlease answer with the Python code only."
    return f"{task.strip()}\n\nHere is a template:\n\n{template.rstrip()}\n\nFill in the part that is missing and answer with the whole Python code only."


def load_code_pairs(path: Path) -> list[CodePair]:
    """A file of the form `pairs`. Raises DataError for another form, repeated ids and equal answers, with the lines."""
    rows = read_code_set(path)
    faults = RowFaults(str(path))
    if rows[0].form != "pairs":
        faults.add_whole(
            f"it has the form `{rows[0].form}`, with one answer to each prompt; `prompt`, `secure`, `insecure` are needed"
        )
        faults.raise_any()
    pairs = [CodePair(row.id or _id(row.prompt), row.prompt, row.code, row.other, row.cwe) for row in rows]
    seen: dict[str, int] = {}
    for row, pair in zip(rows, pairs, strict=True):
        if pair.id in seen:
            faults.add(row.line, f"the id or prompt of {pair.id!r} stands twice (first in {seen[pair.id]}); keep one")
        if pair.secure.strip() == pair.insecure.strip():
            faults.add(row.line, f"the secure and the insecure answer of {pair.id!r} are the same")
        seen.setdefault(pair.id, row.line)
    faults.raise_any()
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
