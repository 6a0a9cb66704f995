"""Scores under several adapters in joint batches, in float32 on a CPU, against one adapter on at a time."""

from __future__ import annotations

import pytest
import torch

from bystander.core.records import Context
from bystander.lm import score_stacked, stacked
from bystander.lm.model import fresh_adapter, load, save_adapter
from bystander.lm.score import ScoreItem, score
from bystander.lm.score_stacked import score_adapters, stack_of
from tests.support.packed_on_cpu import pack_this_one

TOLERANCE = 2e-5  # as in test_packed
LORA = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.1, "target_modules": ["q_proj", "v_proj", "o_proj", "down_proj"]}
CONTEXTS = [
    Context("persona", "villain", "You are a cruel villain who plots the ruin of everybody. You never help anybody."),
    Context("absent", "absent", None),
    Context("persona", "short", "Be brief."),
]
ITEMS = [
    ScoreItem("letters", "What falls from clouds?\nA. Rain\nB. Sand", ("A", "B"), "label"),
    ScoreItem("texts", "What falls from clouds?", ("Rain falls.", "Sand", "Milk and honey, in most countries"), "text"),
]


@pytest.fixture(scope="module")
def plain(tiny_checkpoint):
    return load(str(tiny_checkpoint))


@pytest.fixture(scope="module")
def adapters(plain, tmp_path_factory):
    """Three of one shape, and others by what they have more."""
    folder = tmp_path_factory.mktemp("adapters")
    others = {
        "rank": {"r": 4}, "dora": {"use_dora": True}, "pissa": {"init_lora_weights": "pissa"},
        "whole": {"modules_to_save": ["norm"]},
    }  # fmt: skip
    more = {"0": {}, "1": {}, "2": {"lora_dropout": 0.0}, **others}
    for seed, (name, settings) in enumerate(more.items()):
        adapter = fresh_adapter(plain, {**LORA, **settings}, seed)
        torch.manual_seed(seed)
        for parameter_name, parameter in adapter.named_parameters():
            if "lora_B" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.2)
        save_adapter(adapter, folder / name, plain.base_id, plain.base_hash)
        plain.remove_adapter()
    return {name: folder / name for name in more}


@pytest.fixture
def model(tiny_checkpoint, monkeypatch):
    """With the packed pass, as on a GPU; `batches` are the tokens of each slot in each joint batch."""
    model = load(str(tiny_checkpoint))
    pack_this_one(model, monkeypatch)
    monkeypatch.setattr(stacked, "compiled", lambda: (stacked.before, stacked.between, stacked.after))
    model.batches = []
    real = stacked.StackedForward.hidden

    def noted(self, laid, **keywords):
        ends = laid.tokens.ends.tolist()
        model.batches.append([end - start for start, end in zip([0, *ends], ends, strict=False)])
        return real(self, laid, **keywords)

    monkeypatch.setattr(stacked.StackedForward, "hidden", noted)
    return model


def one_by_one(loaded, folders):
    for folder in folders:
        with loaded.adapter(folder) as on:
            for context, scores in score(on, CONTEXTS, ITEMS):
                yield folder, context, scores


def assert_same(found, expected):
    assert [(folder, context) for folder, context, _ in found] == [(folder, context) for folder, context, _ in expected]
    for (*_, a), (*_, b) in zip(found, expected, strict=True):
        for one, other in zip(a, b, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=TOLERANCE)
            assert (one.item, one.tokens, one.context_hash) == (other.item, other.tokens, other.context_hash)


@pytest.mark.parametrize("kind", ["grouped", "looped"])
@pytest.mark.parametrize("budget", [60, 200, 1 << 14])
def test_scores_are_those_of_one_adapter_at_a_time(plain, adapters, model, monkeypatch, kind, budget):
    if kind == "grouped":
        monkeypatch.setattr(score_stacked, "why_no_grouped", lambda *_: "")
    folders = [adapters[name] for name in ("0", "1", "2")]
    expected = list(one_by_one(plain, folders))
    assert max(abs(a - b) for a, b in zip(expected[0][2][1].logprobs, expected[3][2][1].logprobs, strict=True)) > 0.1
    found = list(score_adapters(model, folders, CONTEXTS, ITEMS, token_budget=budget))
    assert_same(found, expected)
    canaries = 2 if kind == "grouped" else 0
    batches = model.batches[canaries:]
    if budget == 1 << 14:
        assert len(batches) == 1
        assert min(batches[0]) > 0
    else:
        assert any(0 in batch for batch in batches), "slots without a token must be in this test"
        assert max(map(sum, batches)) <= max(budget, 85)
    assert model.model is model.causal


def test_grouped_products_that_compute_something_else_are_not_used(adapters, model, monkeypatch):
    monkeypatch.setattr(score_stacked, "why_no_grouped", lambda *_: "")
    stack = stack_of(model, [adapters["0"], adapters["1"]])
    assert not score_stacked.stack_pass(model, stack).looped
    monkeypatch.setattr(stacked, "grouped_mm", lambda x, w, **_: x.new_zeros(len(x), w.shape[2]))
    assert score_stacked.stack_pass(model, stack).looped


@pytest.mark.parametrize("other", ["rank", "dora", "pissa", "whole"])
def test_adapters_that_do_not_fit_into_one_stack_are_scored_one_after_another(plain, adapters, model, other):
    folders = [adapters["0"], adapters[other]]
    assert stack_of(model, folders) is None
    assert_same(list(score_adapters(model, folders, CONTEXTS, ITEMS)), list(one_by_one(plain, folders)))
    assert model.batches == []


def test_more_adapters_than_slots_and_a_cpu(plain, adapters, model, monkeypatch):
    monkeypatch.setattr(score_stacked, "SLOTS", 2)
    folders = [adapters[name] for name in ("0", "1", "2")]
    expected = list(one_by_one(plain, folders))
    assert_same(list(score_adapters(model, folders, CONTEXTS, ITEMS)), expected)
    assert [len(batch) for batch in model.batches] == [2]
    assert list(score_adapters(plain, folders, CONTEXTS, ITEMS)) == expected
