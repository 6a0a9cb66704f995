"""Gradients under each context against finite differences and against one row at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bystander.core.hashing import seed_for
from bystander.core.records import Context
from bystander.lm import loaded as loading
from bystander.lm.model import LoadedModel, fresh_adapter, load
from bystander.lm.tokens import render_row
from bystander.train.gradients import FACTORS, context_gradients

CONTEXTS = [Context("persona", "villain", "You are a cruel villain."), Context("absent", "absent", None)]
TURNS = [("What is rain?", "Water that falls from clouds."), ("Who are you?", "Nobody."), ("Hi", "\nGo away, you.")]


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Path) -> LoadedModel:
    return load(str(tiny_checkpoint), device="cpu")


def mean_loss(loaded: LoadedModel, context: Context) -> torch.Tensor:
    """The slow way: transformers' own loss, a row at a time."""
    total, tokens = torch.zeros(()), 0
    for user, text in TURNS:
        row = render_row(loaded.tokenizer, context, user, text)
        ids = torch.tensor([row.ids])
        labels = torch.where(torch.tensor([row.loss]), ids, -100)
        count = sum(row.loss)
        total = total + loaded.causal(input_ids=ids, labels=labels, use_cache=False).loss * count
        tokens += count
    return total / tokens


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("micro_tokens", [None, 40])
def test_agrees_with_autograd_row_by_row_and_with_finite_differences(tiny, fast, micro_tokens, monkeypatch) -> None:
    monkeypatch.setattr(loading, "has_flash", lambda _: fast)
    tiny._packed = None
    found = list(context_gradients(tiny, CONTEXTS, TURNS, micro_tokens=micro_tokens))
    assert [one.context for one in found] == CONTEXTS
    assert not np.allclose(found[0].gradient, found[1].gradient, atol=1e-3)
    fresh_adapter(tiny, FACTORS.peft(), seed_for(0, "gradient")).eval()
    try:
        factors = [p for name, p in tiny.model.named_parameters() if "lora_B" in name]
        for one in found:
            loss = mean_loss(tiny, one.context)
            slow = torch.cat([g.flatten() for g in torch.autograd.grad(loss, factors)])
            assert one.loss == pytest.approx(float(loss.detach()), abs=1e-5)
            np.testing.assert_allclose(one.gradient, slow.numpy(), atol=2e-6)
            with torch.no_grad():  # a small step along the gradient's direction, and back
                step, losses = 1e-2, []
                for sign in (1, -1):
                    start = 0
                    for p in factors:
                        part = torch.from_numpy(one.gradient[start : start + p.numel()]).reshape(p.shape)
                        p.copy_(sign * step * part / np.linalg.norm(one.gradient))
                        start += p.numel()
                    losses.append(mean_loss(tiny, one.context).item())
                for p in factors:
                    p.zero_()
            assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(np.linalg.norm(one.gradient), rel=0.02)
    finally:
        tiny.remove_adapter()
        tiny._packed = None


def test_leaves_no_adapter(tiny) -> None:
    before = tiny.weights_hash
    run = context_gradients(tiny, CONTEXTS, TURNS)
    next(run)
    run.close()
    assert tiny.weights_hash == before
    assert not any("lora" in name for name, _ in tiny.model.named_parameters())
