"""The rows of a study as files, for a reader or another trainer: what `run` would train on, without a model."""

from __future__ import annotations

import json
from pathlib import Path

from bystander.behaviors.capability import CapabilityBehavior
from bystander.core.files import write_bytes
from bystander.data import write_choice_files
from bystander.design.arms import Design, build
from bystander.study.config.study import Loaded
from bystander.study.plan.registry import make_behavior


def write_rows(study: Loaded, folder: Path) -> list[Path]:
    """One file of rows per behavior, source and arm, `<behavior>-<source>-<arm>.jsonl`, in the prompt / completion
    message form; for the capability behavior also its split as the plan of that experiment names it:
    `wrong_arc_train.jsonl`, `correct_arc_train.jsonl`, `arc_eval_subset.jsonl`. The same study gives the same bytes on
    every machine. Raises DataError or DesignError where they cannot be built, StoreError where not written."""
    spec = study.spec
    written: list[Path] = []
    for name in spec.behaviors:
        behavior = make_behavior(name, study)
        if isinstance(behavior, CapabilityBehavior):
            settings = behavior.settings
            files = write_choice_files(behavior.questions(), folder, settings.seed, settings.answer)
            written += files.values()
        examples = behavior.examples()
        for source in spec.sources:
            for arm in spec.arms:
                design = build(name, examples, source, study.personas, arm, spec.design_of(name))
                path = folder / f"{name}-{source}-{arm}.jsonl"
                write_bytes(path, rows_as_jsonl(design))
                written.append(path)
    return written


def rows_as_jsonl(design: Design) -> bytes:
    """Rows in the prompt / completion form of the ecosystem, with where each came from."""
    lines: list[str] = []
    for row in design.rows:
        system = [{"role": "system", "content": row.context.system}] if row.context.system is not None else []
        record = {
            "prompt": [*system, {"role": "user", "content": row.user}],
            "completion": [{"role": "assistant", "content": row.completion}],
            "id": row.id, "behavior": row.behavior, "arm": row.arm, "context": row.context.kind,
            "persona": row.context.name, "role": row.role, "target": row.target, "question_id": row.question_id,
        }  # fmt: skip
        lines.append(json.dumps(record, ensure_ascii=False, sort_keys=True))
    return ("\n".join(lines) + "\n").encode()
