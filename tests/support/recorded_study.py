"""A study of 169 cells that was run on Qwen2.5-Coder-1.5B up to its gate: four H200s, eight processes, 2026-11-27.

`recorded_study.json` has its cells in the plan's order: what each needs (by number), how much work it is by
`study.forecast.workload` with the model's own tokenizer, and what it took where it was done. `tests/engine/
test_recorded_study.py` holds needs and work to the plan of the study's file where that is at hand.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_suffix(".json")
WORKERS = 8
GATE = "gate"
FIRST = 11.0  # seconds that a worker's first cell takes longer: loading and compiling (base-swept-margin, 12.7 and 1.9)


@dataclass(frozen=True)
class Recorded:
    """A cell; its name stands for its key. `seconds` None: the study stopped before it."""

    name: str
    kind: str
    phase: int
    sort: str
    needs: tuple[str, ...]
    rows: int
    epochs: int
    contexts: int
    scored: float
    trained: float
    sampled: float
    seconds: float | None

    @property
    def key(self) -> str:
        return self.name


def recorded() -> list[Recorded]:
    """The cells, in the plan's order."""
    raw = json.loads(FILE.read_text())
    rows = [dict(zip(raw["columns"], row, strict=True)) for row in raw["cells"]]
    names = [row["name"] for row in rows]
    return [Recorded(**row | {"needs": tuple(names[need] for need in row["needs"])}) for row in rows]


def durations(cells: list[Recorded]) -> dict[str, float]:
    """Seconds of every cell: measured, or for those that were not done by the measured ones of their kind. A training of
    phase 2 takes a step as long as the sweep's of its epochs did, and its probes on the way as much as after; an
    evaluation of 111 personas takes what that of 100 untrained did, and a tenth more."""
    seconds = {cell.key: cell.seconds for cell in cells if cell.seconds is not None}
    a_step = (178.815 - 42.19) / (1000 - 150)  # of capability's sweep: 20 and 3 epochs of 800 rows, 16 a batch
    per_context = {"choice": 13.406 / 11, "margin": 1.9 / 11, "judged": 4.8 / 11}
    rest = {"choice": 81.731, "margin": 6.163, "judged": 17.113}
    for cell in cells:
        if cell.key in seconds:
            continue
        if cell.kind == "train":
            batch = 4 if "-direct-" in cell.name else 16
            steps = cell.epochs * -(-cell.rows // batch)
            probed = 3 * 9 * sum(per_context.values())  # three checkpoints under nine personas
            seconds[cell.key] = 7 + steps * a_step + probed  # 42.19 of 150 steps, a worker's first cell
        else:
            seconds[cell.key] = rest[cell.name.rsplit("-", 1)[1]] * 1.11
    return seconds


def warm(cells: list[Recorded]) -> dict[str, float]:
    """The same without what the eight workers' first cells took longer: in the plan's order then, in which trainings of
    the sweep waited for the geometry."""
    began = [
        cell.key
        for cell in cells
        if cell.name in ("geometry", "base-swept-choice", "base-swept-margin", "base-swept-judged")
    ]
    began += [cell.key for cell in cells if cell.sort == "sweep"][: WORKERS - len(began)]
    return {key: took - (FIRST if key in began else 0.0) for key, took in durations(cells).items()}
