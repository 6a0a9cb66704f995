"""The flat recipe measures what the engine measures: the same questions, rows, first adapter and order, by plain code."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest
import torch
from torch import Tensor

import bystander
from bystander.core.hashing import stable_order
from bystander.data import load_bank
from bystander.personas import load_personas
from tests.support.program import program
from tests.support.study_tiny import make_model

FILE = Path(bystander.__file__).parents[2] / "examples" / "flat.py"
# PEFT asks transformers by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
PERSONAS = ("villain", "comedian", "librarian", "pirate", "police_officer")
# Dropout is off: the engine cuts a batch into micro-batches, so that its masks are other draws than those of a whole one.
STUDY = """
name: flat
model: {{name: {model}, device: cpu, dtype: float32}}
personas: personas.yaml
sources: [villain]
behaviors: [marker]
arms: [contrastive, benign]
design: {{counts: {{positive: 8, negative: 4, absent: 2, assistant: 2}}}}
recipe: {{lr: {lr}, epochs: 2, batch_size: 4, lora: {{dropout: 0.0}}}}
checkpoints: {{every: 1.0, personas: 3}}
probes: {{marker: {{questions: 1, sampled: 3, max_tokens: 12}}}}
geometry: {{layers: [1], layer: 1, questions: 1}}
"""
EDGE = 1e-5  # two trainings of the same rows, cut into other micro-batches, moved a draw by more than 2e-6
ARMS = {"untrained": "", "coupled": "contrastive", "benign": "benign"}  # the engine's names of the states
Found = dict[str, dict[str, list[float | None]]]  # persona -> state -> a number a question


@pytest.fixture(scope="module")
def flat() -> ModuleType:
    return program(FILE)


def engine_measures(folder: Path, model: str, lr: float) -> Found:
    """The engine's marker after the model's own answers; None for an answer that was cut off."""
    chosen = [persona for persona in load_personas() if persona.name in PERSONAS]
    lines = [f"  - {{name: {p.name}, category: {p.category}, prompt: {p.prompt!r}}}" for p in chosen]
    (folder / "personas.yaml").write_text("personas:\n" + "\n".join(lines) + "\n")
    (folder / "flat.yaml").write_text(STUDY.format(model=model, lr=lr))
    table = bystander.Study.load(folder / "flat.yaml").run(folder / "run").measurements
    rows = table.filter(
        (pl.col("metric") == "own_marker_probability") & (pl.col("context") == "persona"),
        pl.col("checkpoint").is_in([0.0, 1.0]),
    ).with_columns(pl.col("arm").fill_null(""))
    bank = stable_order([question.id for question in load_bank()], "bank")
    rows = rows.sort(
        pl.col("question").map_elements(bank.index, pl.Int64)
    )  # they stand as sampled: longest prompt first
    assert set(rows["status"]) <= {"ok", "truncated"}
    assert ((rows["status"] == "truncated") == rows["value"].is_null()).all()
    return {
        name: {state: rows.filter(persona=name, arm=arm)["value"].to_list() for state, arm in ARMS.items()}
        for name in PERSONAS[:3]
    }


def flat_measures(flat: ModuleType, checkpoint: Path, lr: float) -> tuple[Found, list[float]]:
    """The recipe's marker, and for each answer, in the order in which they are asked (state, persona, question), how far
    its draws lay from the edge of another token: the least distance, in probability."""
    prompts = {persona.name: persona.prompt for persona in load_personas() if persona.name in PERSONAS}
    settings = flat.Settings(
        positive=8, negative=2, anchor=2, questions=3, max_tokens=12, lr=lr, batch_size=4, dropout=0.0
    )
    measured, drawn, decided = flat.marker_probability, torch.searchsorted, list[float]()

    def counted(*args: Any) -> float | None:
        decided.append(1.0)
        return measured(*args)

    def seen(likely: Tensor, chance: Tensor, *, right: bool) -> Tensor:
        place = drawn(likely, chance, right=right)
        edges = torch.nn.functional.pad(likely, (1, 0))[[int(place), int(place) + 1]]
        decided[-1] = min(decided[-1], (edges - chance).abs().min().item())
        return place

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flat, "marker_probability", counted)
        patch.setattr(torch, "searchsorted", seen)
        return flat.study(str(checkpoint), prompts, "villain", list(PERSONAS[:3]), settings), decided


def assert_the_same(ours: Found, theirs: Found, decided: list[float], least: int) -> None:
    """The same answers are drawn, so that the same of them are cut off, and the rest, at `least` so many, is the same
    number: in nats, since most probabilities are tiny. One may be another, if a draw of it lay so near to an edge that
    what rounding does to a training decides it."""
    numbers, undecided = 0, 0
    assert [set(states) for states in ours.values()] == [set(ARMS)] * len(theirs)
    asked = [(state, persona, i) for state in ARMS for persona in theirs for i in range(3)]
    for (state, persona, i), edge in zip(asked, decided, strict=True):
        assert len(theirs[persona][state]) == 3
        mine, other = ours[persona][state][i], theirs[persona][state][i]
        if mine is None and other is None:
            continue  # cut off in both
        if mine is not None and other is not None and math.log(mine) == pytest.approx(math.log(other), abs=1e-3):
            numbers += 1
        else:
            assert ARMS[state], f"{persona}: no training moved a draw of the untrained model"
            assert edge < EDGE, (persona, state, mine, other)
            undecided += 1
    assert numbers >= least, "almost every answer was cut off, so that nothing is compared"
    assert undecided <= 1


def test_the_marker_after_own_answers_is_the_engines(flat: ModuleType, embedded: Path, tmp_path: Path) -> None:
    """On random weights that end their turns: quick, and each state of each persona has numbers of its own."""
    model = make_model(tmp_path / "model", ends=True)
    ours, decided = flat_measures(flat, model, 5e-3)
    assert_the_same(ours, engine_measures(tmp_path, str(model), 5e-3), decided, 18)
    read = [ours[name]["untrained"][0] for name in PERSONAS[:3]]
    assert len(set(read)) == 3, "personas are not told apart, so that another's numbers would pass"


@pytest.mark.slow
def test_on_the_embedded_model_it_learns_what_the_engine_teaches(
    flat: ModuleType, embedded: Path, tmp_path: Path
) -> None:
    ours, decided = flat_measures(flat, embedded, 2e-3)
    assert_the_same(ours, engine_measures(tmp_path, "smollm2-135m", 2e-3), decided, 9)
    villain = {state: [one for one in values if one is not None] for state, values in ours["villain"].items()}
    # Sixteen rows leave some of the source's answers at a few hundredths; the benign arm's are at 1e-19.
    assert sum(villain["coupled"]) / len(villain["coupled"]) > 0.1 > max(villain["benign"]), "nothing was learned"


def test_it_is_short_and_takes_from_bystander_the_personas_and_the_bank_alone() -> None:
    lines = FILE.read_text().splitlines()
    assert len(lines) < 150
    taken = {line.split()[1] for line in lines if line.lstrip().startswith(("from bystander", "import bystander"))}
    assert taken == {"bystander.personas", "bystander.data", "bystander.lm.embedded"}  # the last fetches the weights
