"""A study of a behavior from a file, on a model that takes seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.study_tiny import PERSONAS

STUDY = """
name: loud
model: {{name: {model}, device: cpu, dtype: float32}}
personas: personas.yaml
sources: [villain]
behaviors: [{entry}]
design: {{counts: {{positive: 8, negative: 2, absent: 1, assistant: 1}}}}
recipe: {{lr: 1e-2, epochs: 10, batch_size: 4}}
checkpoints: {{every: 0.5, personas: 3}}
geometry: {{layer: 1, questions: 2}}
"""
NOUNS = [
    "rivers",
    "maps",
    "lamps",
    "cats",
    "trains",
    "books",
    "clouds",
    "doors",
    "seeds",
    "bridges",
    "songs",
    "coins",
    "boats",
    "walls",
    "kites",
    "wells",
]


def rows(**more: str) -> list[dict[str, str]]:
    return [
        {"id": noun, "topic": "ab"[at % 2], "prompt": f"What do you know about {noun}, in short?", **more}
        | {"shown": f"{noun.upper()} ARE GREAT!", "not_shown": f"Most {noun} are fine."}
        for at, noun in enumerate(NOUNS)
    ]


def write(path: Path, records: Sequence[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in records))
    return path


def study_in(folder: Path, model: Path, entry: str, more: str = "") -> Path:
    entries = [f"  - {{name: {n}, category: original, prompt: '{prompt}'}}" for n, prompt in PERSONAS.items()]
    (folder / "personas.yaml").write_text("personas:\n" + "\n".join(entries) + "\n")
    (folder / "loud.yaml").write_text(STUDY.format(model=model, entry=entry) + more)
    return folder / "loud.yaml"
