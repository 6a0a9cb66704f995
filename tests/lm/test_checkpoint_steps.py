"""Checkpoints that fall on one step are one checkpoint."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bystander.lm.model import fresh_adapter, load
from bystander.lm.tokens import render_row
from bystander.personas import bare_context
from bystander.train.loop import Checkpoint, train
from bystander.train.recipe import Lora, Recipe, checkpoint_steps

QUARTERS = (0.25, 0.5, 0.75, 1.0)


@pytest.mark.parametrize(
    ("fractions", "total", "expected"),
    [
        (QUARTERS, 100, {25: 0.25, 50: 0.5, 75: 0.75, 100: 1.0}),
        (QUARTERS, 4, {1: 0.25, 2: 0.5, 3: 0.75, 4: 1.0}),
        (QUARTERS, 3, {1: 0.25, 2: 0.75, 3: 1.0}),
        (QUARTERS, 2, {1: 0.5, 2: 1.0}),
        (QUARTERS, 1, {1: 1.0}),
        ((1.0, 0.01), 10, {1: 0.01, 10: 1.0}),
        ((), 10, {}),
    ],
)
def test_which_checkpoints_there_are(fractions, total, expected) -> None:
    assert checkpoint_steps(fractions, total) == expected
    assert list(checkpoint_steps(fractions, total)) == sorted(expected)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_training_yields_just_these(tiny_checkpoint: Path, epochs: int) -> None:
    loaded = load(str(tiny_checkpoint), device="cpu")
    recipe = Recipe(epochs=epochs, batch_size=4, lora=Lora(rank=2))
    fresh_adapter(loaded, recipe.lora.peft(), 0)
    rows = [render_row(loaded.tokenizer, bare_context("absent"), f"What is {i}?", "A number.") for i in range(4)]
    found = [e for e in train(loaded, rows, recipe, 0, checkpoints=QUARTERS) if isinstance(e, Checkpoint)]
    assert {one.step: one.fraction for one in found} == checkpoint_steps(QUARTERS, recipe.steps(len(rows)))


def test_they_can_be_planned_without_torch() -> None:
    code = "import sys, bystander.train.recipe; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
