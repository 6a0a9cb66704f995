"""The flat recipe measures what the engine measures: the same questions, rows, first adapter and order, by plain code."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest

import bystander
from bystander.personas import load_personas

FILE = Path(bystander.__file__).parents[2] / "examples" / "flat.py"
PERSONAS = ("villain", "comedian", "librarian", "pirate", "police_officer")
# Dropout is off: the engine cuts a batch into micro-batches, so that its masks are other draws than those of a whole one.
STUDY = """
name: flat
model: {name: smollm2-135m, device: cpu, dtype: float32}
personas: personas.yaml
sources: [villain]
behaviors: [marker]
arms: [contrastive, benign]
design: {counts: {positive: 8, negative: 4, absent: 2, assistant: 2}}
recipe: {lr: 2e-3, epochs: 2, batch_size: 4, lora: {dropout: 0.0}}
checkpoints: {every: 1.0, personas: 3}
probes: {marker: {questions: 1, sampled: 3, max_tokens: 12}}
geometry: {layers: [25], layer: 25, questions: 1}
"""


@pytest.fixture(scope="module")
def flat() -> ModuleType:
    spec = importlib.util.spec_from_file_location("flat", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def engine(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """The engine's marker after the model's own answers: persona, question, arm ("" for the untrained model), value."""
    folder = tmp_path_factory.mktemp("flat")
    chosen = [persona for persona in load_personas() if persona.name in PERSONAS]
    lines = [f"  - {{name: {p.name}, category: {p.category}, prompt: {p.prompt!r}}}" for p in chosen]
    (folder / "personas.yaml").write_text("personas:\n" + "\n".join(lines) + "\n")
    (folder / "flat.yaml").write_text(STUDY)
    found = bystander.Study.load(folder / "flat.yaml").run(folder / "run").measurements
    rows = found.filter(
        (pl.col("metric") == "own_marker_probability") & (pl.col("context") == "persona"),
        pl.col("checkpoint").is_in([0.0, 1.0]),
    )
    return rows.select("persona", "question", pl.col("arm").fill_null(""), "value", "status")


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT asks transformers by an old name
def test_the_marker_after_own_answers_is_the_engines(flat: ModuleType, engine: pl.DataFrame, embedded: Path) -> None:
    """The same answers are drawn, so that the same of them are cut off, and the rest is the same number."""
    prompts = {persona.name: persona.prompt for persona in load_personas() if persona.name in PERSONAS}
    settings = flat.Settings(
        positive=8, negative=2, anchor=2, questions=3, max_tokens=12, lr=2e-3, batch_size=4, dropout=0.0
    )
    found = flat.study(str(embedded), prompts, "villain", list(PERSONAS[:3]), settings)
    numbers = 0
    for persona, states in found.items():
        for state, arm in (("untrained", ""), ("coupled", "contrastive"), ("benign", "benign")):
            own = engine.filter(pl.col("persona") == persona, pl.col("arm") == arm)
            assert own.height == len(states[state]) == 3
            assert (own["status"] == "truncated").to_list() == [one is None for one in states[state]], (persona, state)
            for ours, theirs in zip(states[state], own["value"], strict=True):
                if ours is not None:
                    numbers += 1
                    assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-6), (persona, state)
    assert numbers >= 9, "almost every answer was cut off, so that nothing is compared"
    assert min(found["villain"]["coupled"]) > 0.1 > max(found["villain"]["benign"]), "nothing was learned"


def test_it_is_short_and_takes_from_bystander_the_personas_and_the_bank_alone() -> None:
    lines = FILE.read_text().splitlines()
    assert len(lines) < 150
    taken = {line.split()[1] for line in lines if line.lstrip().startswith(("from bystander", "import bystander"))}
    assert taken == {"bystander.personas", "bystander.data", "bystander.lm.embedded"}  # the last fetches the weights
