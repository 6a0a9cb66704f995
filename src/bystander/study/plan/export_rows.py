"""The rows of a study as files, for a reader or another trainer: what `run` would train on, without a model."""

from __future__ import annotations

import json
from pathlib import Path

from bystander.core.files import write_bytes
from bystander.design.arms import Design
from bystander.lm.tokens import messages
from bystander.study.plan.parts import StudyParts


def write_rows(parts: StudyParts, folder: Path) -> list[Path]:
    """One file of rows per behavior, source and arm, `<behavior>-<source>-<arm>.jsonl`, in the prompt / completion
    message form, beside what the behaviors themselves export (the halves of a question set). The same study gives the
    same bytes on every machine. Raises DataError or DesignError where they cannot be built, StoreError where not
    written."""
    written: list[Path] = []
    for name in parts.study.spec.behaviors:
        written += parts.behavior(name).export(folder)
        for source, arm in parts.pairs():
            path = folder / f"{name}-{source}-{arm}.jsonl"
            write_bytes(path, rows_as_jsonl(parts.design(name, source, arm)))
            written.append(path)
    return written


def rows_as_jsonl(design: Design) -> bytes:
    """Rows in the prompt / completion form of the ecosystem, with where each came from."""
    lines: list[str] = []
    for row in design.rows:
        context = row.asked_under
        place = "user" if context.text_in == "user" and context.system else "system"
        record = {
            "prompt": messages(context, row.user, context.system if place == "system" else None, place),
            "completion": [{"role": "assistant", "content": row.completion}],
            "id": row.id, "behavior": row.behavior, "arm": row.arm, "context": row.context.kind,
            "persona": row.context.name, "role": row.role, "target": row.target, "question_id": row.question_id,
        }  # fmt: skip
        # What messages cannot say: `auto` is decided by the template, and a forced beginning is in no turn of its own.
        record |= {"persona_in": context.text_in} if context.text_in == "auto" and context.system else {}
        record |= {"prefix": context.prefix} if context.prefix else {}
        lines.append(json.dumps(record, ensure_ascii=False, sort_keys=True))
    return ("\n".join(lines) + "\n").encode()
