"""`direct` is a file of answers: rows, pairs and margins are those of the version that had a reader of its own."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bystander.behaviors.misalignment import DirectBehavior, MisalignmentBehavior, MisalignmentSettings
from bystander.core.hashing import stable_hash
from bystander.core.records import NOTHING_EARLIER, Context, without_default_earlier
from bystander.data.pairs import Pair
from bystander.design.arms import DesignSettings, build
from bystander.lm.model import load
from bystander.personas import load_personas
from bystander.probe.margin import MarginProbe
from tests.reference.pairs import slow_halves, slow_pairs

# Written by the version before, on the model of `tiny_checkpoint`.
GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "direct.json").read_text())
CONTEXTS = (Context("persona", "villain", "You are a villain."), Context("absent", "absent", None))


def hashed(pairs: list[Pair]) -> list[list[str]]:
    return [[pair.id, stable_hash(asdict(pair))[:16]] for pair in pairs]


def test_rows_and_pairs_are_what_they_were() -> None:
    direct = DirectBehavior()
    examples = direct.examples()
    told = [[e.question_id, stable_hash(without_default_earlier(asdict(e)))[:16]] for e in examples]
    assert told == GOLDEN["examples"]
    assert {e.earlier for e in examples} == {NOTHING_EARLIER}
    assert hashed(direct.pairs()) == GOLDEN["held_out"]
    assert hashed(MisalignmentBehavior().pairs()) == GOLDEN["pairs"]
    rows = build("direct", direct.examples(), "villain", load_personas(), "contrastive", DesignSettings()).rows
    said = [[r.id, r.user, r.completion, r.context.system, r.role, r.target] for r in rows]
    assert stable_hash(said) == GOLDEN["rows"]


def margins(pairs: list[Pair], checkpoint: Path) -> list[tuple[str, str, str, float | None]]:
    units = MarginProbe(tuple(pairs)).run(load(str(checkpoint), device="cpu"), CONTEXTS)
    return [(m.persona, m.item, m.metric, m.value) for unit in units for m in unit.measurements]


def test_margins_are_what_they_were(tiny_checkpoint: Path) -> None:
    """Bit for bit against the old reader on this machine; against the golden ones as far as processors agree."""
    found = margins(DirectBehavior().pairs(), tiny_checkpoint)
    assert found == margins(slow_halves(slow_pairs())[1], tiny_checkpoint)
    golden = [(persona, item, metric, float.fromhex(value)) for persona, item, metric, value in GOLDEN["margins"]]
    assert [one[:3] for one in found] == [one[:3] for one in golden]
    assert [one[3] for one in found if one[2] == "margin"] == pytest.approx(
        [one[3] for one in golden if one[2] == "margin"], abs=1e-4
    )


def test_any_shape_of_file_serves(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": p.question,
            "chosen": p.aligned,
            "rejected": p.misaligned,
            "shown": p.misaligned,
            "not_shown": p.aligned,
        }
        for p in slow_pairs()
    ]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = MisalignmentBehavior(MisalignmentSettings(pairs="mine.jsonl"), tmp_path).pairs()
    assert [(p.question, p.aligned, p.misaligned) for p in read] == [
        (p.question, p.aligned, p.misaligned) for p in slow_pairs()
    ]
