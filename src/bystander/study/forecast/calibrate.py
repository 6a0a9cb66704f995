"""A calibration: this machine's own speed at scoring, training and sampling with a study's model, in about a minute."""

from __future__ import annotations

import time
from collections.abc import Callable

from bystander.core.hashing import seed_for
from bystander.core.records import Context
from bystander.core.work import TEMPLATE_TOKENS
from bystander.data import load_bank
from bystander.lm.model import LoadedModel, fresh_adapter, load
from bystander.lm.sample import SampleRequest, sample
from bystander.lm.score import ScoreItem, score
from bystander.lm.tokens import render_row
from bystander.personas import context_of, load_personas
from bystander.study.config.blocks import ModelSettings
from bystander.study.forecast.throughput import Rates, device_here
from bystander.train.loop import train
from bystander.train.recipe import Recipe

SECONDS = 12.0  # for each of the three, after a warm-up
CONTEXTS, ITEMS, ROWS, REQUESTS, LENGTH = 4, 16, 32, 48, 24


def calibrate(model: ModelSettings, say: Callable[[str], None] = lambda _text: None) -> Rates:
    """Measure, with the very code that studies run. Tokens are counted as forecasts count them. Raises ModelError."""
    loaded = load(model.name, device=model.device, dtype=model.dtype, revision=model.revision)
    contexts = [context_of(persona) for persona in load_personas()[:CONTEXTS]]
    say("scoring")
    scored = _rate(lambda: _score(loaded, contexts))
    say("sampling")
    sampled = _rate(lambda: _sample(loaded, contexts))
    say("training")
    trained = _rate(lambda: _train(loaded, contexts))
    day = time.strftime("%Y-%m-%d", time.gmtime())
    return Rates(device_here(), scored, trained, sampled, f"measured on this machine on {day}", True)


def _rate(work: Callable[[], float]) -> float:
    """Tokens a second, from as many repetitions as fit; the first one warms up and is not counted if another fits."""
    begun = time.perf_counter()
    tokens = work()
    first = time.perf_counter() - begun
    if first > SECONDS:
        return tokens / first
    total, begun = 0.0, time.perf_counter()
    while time.perf_counter() - begun < SECONDS:
        total += work()
    return total / (time.perf_counter() - begun)


def _count(loaded: LoadedModel, text: str) -> int:
    return len(loaded.tokenizer(text, add_special_tokens=False)["input_ids"])


def _score(loaded: LoadedModel, contexts: list[Context]) -> float:
    questions = load_bank()[:ITEMS]
    items = [ScoreItem(q.id, q.text, q.options, "text") for q in questions]
    for _ in score(loaded, contexts, items):
        pass
    each = sum(_count(loaded, q.text) + sum(_count(loaded, option) for option in q.options) for q in questions)
    return len(contexts) * each + sum(_count(loaded, c.system or "") + TEMPLATE_TOKENS for c in contexts)


def _sample(loaded: LoadedModel, contexts: list[Context]) -> float:
    questions = load_bank()
    requests = [
        SampleRequest(
            f"{i}", contexts[i % len(contexts)], questions[i].text, 0, seed_for("calibrate", i), questions[i].id
        )
        for i in range(REQUESTS)
    ]
    for _ in sample(loaded, requests, max_tokens=LENGTH):
        pass
    return REQUESTS * LENGTH  # as forecasts count: to the full length


def _train(loaded: LoadedModel, contexts: list[Context]) -> float:
    recipe = Recipe(epochs=1, batch_size=16)
    questions = load_bank()[:ROWS]
    rows = [
        render_row(loaded.tokenizer, contexts[i % len(contexts)], q.text, q.options[q.answer])
        for i, q in enumerate(questions)
    ]
    fresh_adapter(loaded, recipe.lora.peft(), seed_for("calibrate"))
    try:
        for _ in train(loaded, rows, recipe, 0):
            pass
    finally:
        loaded.remove_adapter()
    return sum(len(row.ids) for row in rows)
