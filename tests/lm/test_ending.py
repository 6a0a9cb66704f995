"""What is read where an answer ends, against one whole forward pass per answer."""

from dataclasses import astuple, replace

import pytest
import torch

from bystander.core.errors import ModelError
from bystander.lm import ending as module
from bystander.lm.ending import EndingItem, end_of_turn, endings
from bystander.lm.model import fresh_adapter, load
from bystander.personas import bare_context, context_of, load_personas
from tests.reference.ending import ending as slow

CLOSE = 1e-4  # nats and logits in float32; measured: 2e-6
TAIL = " [ZLT]"
ANSWERS = [
    "Paris",
    "",
    "It is the Seine.\n",
    "a  b ",
    "The answer, which is long, is this: " + "word " * 30,
    "42 [ZL",
    " [",
]
ITEMS = [EndingItem(f"i{n}", f"Question {n} of the list?", answer, TAIL) for n, answer in enumerate(ANSWERS)]
CONTEXTS = [
    *(context_of(persona) for persona in load_personas()[:3]),
    *(bare_context(kind) for kind in ("absent", "empty", "default", "assistant")),
]


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint):
    return load(str(tiny_checkpoint))


def numbers(found):
    return [value for value in astuple(replace(found, item=None)) if value is not None]


@pytest.mark.parametrize("context", CONTEXTS, ids=lambda context: context.name)
@pytest.mark.parametrize("budget", [None, 8, 100_000])
def test_it_agrees_with_a_whole_pass_for_each_answer(loaded, context, budget):
    found = endings(loaded, [(context, ITEMS)], token_budget=budget)
    assert [one.item for one in found] == ITEMS
    for one in found:
        expected = slow(loaded, context, one.item)
        assert numbers(one) == pytest.approx(numbers(expected), abs=CLOSE)
        assert one.tokens == expected.tokens


def test_it_agrees_with_an_adapter_on(loaded):
    fresh_adapter(loaded, {"r": 4, "lora_alpha": 64, "target_modules": ["q_proj", "down_proj"]}, 0)
    try:
        with torch.no_grad():
            for name, parameter in loaded.model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
        moved = endings(loaded, [(CONTEXTS[0], ITEMS)])
        for one in moved:
            assert numbers(one) == pytest.approx(numbers(slow(loaded, CONTEXTS[0], one.item)), abs=CLOSE)
    finally:
        loaded.remove_adapter()
    plain = endings(loaded, [(CONTEXTS[0], ITEMS)])
    assert all(abs(a.marker_logprob - b.marker_logprob) > 0.01 for a, b in zip(moved, plain, strict=True))


def test_logits_in_small_parts_and_each_answer_alone_are_the_same(loaded, monkeypatch):
    together = endings(loaded, [(CONTEXTS[0], ITEMS)])
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", (1, 1))
    for one, item in zip(together, ITEMS, strict=True):
        (alone,) = endings(loaded, [(CONTEXTS[0], [item])])
        assert numbers(alone) == pytest.approx(numbers(one), abs=CLOSE)


def test_the_raw_numbers_are_those_of_the_log_probability(loaded):
    for one in endings(loaded, [(CONTEXTS[0], ITEMS)]):
        assert one.end_logprob == pytest.approx(one.end_logit - one.log_z, abs=1e-9)
        assert one.marker_logprob <= one.marker_logit - one.log_z + 1e-9  # the first token's, and of more tokens less
        assert one.end_logprob < 0


def test_the_end_of_a_turn_is_the_templates_own(loaded, monkeypatch):
    assert loaded.tokenizer.decode([end_of_turn(loaded)]) == "<|im_end|>"
    assert endings(loaded, [(CONTEXTS[0], [])]) == endings(loaded, []) == []

    class Plain:
        answer_end = "\n\n"

    monkeypatch.setattr(module, "template_of", lambda _tokenizer: Plain)
    with pytest.raises(ModelError, match="no token of its own"):
        endings(loaded, [(CONTEXTS[0], ITEMS)])


def test_weights_that_give_no_number_are_an_error(loaded, monkeypatch):
    monkeypatch.setattr(loaded, "head", lambda hidden: torch.full((len(hidden), loaded.vocabulary), float("nan")))
    with pytest.raises(ModelError, match="no finite log-probability"):
        endings(loaded, [(CONTEXTS[0], ITEMS[:1])])
