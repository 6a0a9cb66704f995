"""Batches that hold several contexts, in float32 on a CPU: numbers as of one context at a time, in order, group by group."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from bystander.core.errors import ModelError
from bystander.core.records import Context
from bystander.lm import score as score_module
from bystander.lm.ending import EndingItem, endings
from bystander.lm.forward import run
from bystander.lm.hidden import last_token_states, states_over
from bystander.lm.model import load
from bystander.lm.packed import PackedForward
from bystander.lm.rows import Budget, Row
from bystander.lm.score import ScoreItem, score, score_each
from tests.support.packed_on_cpu import pack_this_one

TOLERANCE = 2e-5  # as in test_packed
CONTEXTS = [
    Context("persona", "villain", "You are a cruel villain who plots the ruin of everybody. You never help anybody."),
    Context("absent", "absent", None),
    Context("persona", "long", "You have seen the world, and tell of it at length. " * 6),
    Context("persona", "short", "Be brief."),
    Context("empty", "empty", ""),
    Context("persona", "poet", "You are a poet who speaks in verse."),
]
LABELS, WORDS = ("A", "B", "C"), ("a cat", "a very large dog", "a fish of the deep sea")
ITEMS = [
    ScoreItem(f"{mode}{i}", "What is it" + " now" * i + "?", LABELS if mode == "label" else WORDS, mode)
    for i in range(4)
    for mode in ("label", "text")
]
ASKED = [(context, ITEMS[: 1 + 3 * i % 8]) for i, context in enumerate(CONTEXTS)]  # 1, 4, 7, 2, 5 and 8 items


@pytest.fixture(scope="module")
def plain(tiny_checkpoint):
    return load(str(tiny_checkpoint))


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return load(str(tiny_checkpoint))


@pytest.fixture
def packed(model, monkeypatch):
    """The packed pass on a CPU; `batches` are the tokens of those that it computes."""
    pack_this_one(model, monkeypatch)
    assert model.packed is not None, model.plain_because
    model.batches = []
    real = PackedForward._run

    def noted(self, packed, wanted, **keywords):
        model.batches.append(len(packed.ids))
        return real(self, packed, wanted, **keywords)

    monkeypatch.setattr(PackedForward, "_run", noted)
    return model


def assert_same(found, expected):
    assert [context for context, _ in found] == [context for context, _ in expected]
    for (_, a), (_, b) in zip(found, expected, strict=True):
        for one, other in zip(a, b, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=TOLERANCE)
            assert (one.item, one.tokens, one.context_hash) == (other.item, other.tokens, other.context_hash)


@pytest.mark.parametrize("budget", [1, 150, 400, 1 << 14])
def test_scores_are_those_of_one_context_at_a_time(plain, packed, budget):
    expected = list(score_each(plain, ASKED))
    alone = [each for one in ASKED for each in score_each(packed, [one], token_budget=budget)]
    one_by_one, packed.batches = packed.batches, []
    found = list(score_each(packed, ASKED, token_budget=budget))
    together, packed.batches = packed.batches, []
    assert_same(found, expected)
    assert_same(found, alone)
    assert list(score_each(packed, ASKED, token_budget=budget, together=False)) == alone
    assert packed.batches == one_by_one
    assert (len(together) < len(one_by_one)) == (budget > 1)
    if budget == 1 << 14:
        assert len(together) == 1
    assert all(n <= budget for n in together) or budget == 1


def test_a_batch_may_end_inside_of_a_context(plain, packed):
    """Rows of two contexts in a batch, one of them begun in the batch before, and contexts whose rows share nothing."""
    g = np.random.default_rng(0)

    def rows(stem, lengths):
        start = g.integers(0, 500, stem)
        parts = [np.concatenate([start, [i], g.integers(0, 500, n)]) for i, n in enumerate(lengths)]
        return [
            Row(part, (g.integers(0, 500, 3), part[:2]) if i % 2 else (), np.array([len(part) - 1]), str(i))
            for i, part in enumerate(parts)
        ]

    contexts = [rows(20, [5, 30, 1]), rows(0, [9, 0, 12, 40]), rows(7, [3]), rows(60, [4] * 9)]
    flat = [row for own in contexts for row in own]

    def states(loaded, tokens, groups):
        found = {}
        first = 0
        for group in groups:
            numbered = run(loaded, group, Budget(tokens), lambda batch: batch.last_states(loaded))
            for batch, values in numbered:
                found |= {first + i: value for i, value in zip(batch.rows, values, strict=True)}
            first += sum(map(len, group))
        return torch.stack([found[i] for i in range(len(flat))]), [batch.rows for batch, _ in numbered]

    expected, _ = states(plain, 512, [[own] for own in contexts])
    together, cuts = states(packed, 110, [contexts])
    whose = np.repeat(np.arange(4), [len(own) for own in contexts])
    assert any(len(set(whose[list(cut)])) > 1 for cut in cuts)
    assert any(whose[a[-1]] == whose[b[0]] for a, b in pairwise(cuts))
    assert max(packed.batches) <= 110
    torch.testing.assert_close(together, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("ahead", [0, 1])
def test_contexts_come_in_order_before_the_last_group_is_begun_and_nothing_runs_after_a_stop(
    packed, monkeypatch, ahead
):
    monkeypatch.setitem(score_module.AHEAD, "cpu", ahead)
    many = [Context("persona", f"p{i}", f"You are number {i}." + " Really." * (i % 4)) for i in range(12)]
    everything = list(score(packed, many, ITEMS, token_budget=600))
    assert [context.name for context, _ in everything] == [context.name for context in many]
    groups, packed.batches = len(packed.batches), []
    assert 3 <= groups <= 6
    results = score(packed, many, ITEMS, token_budget=600)
    assert next(results) == everything[0]
    assert len(packed.batches) == 1 + ahead
    assert next(results) == everything[1]
    results.close()
    assert len(packed.batches) == 1 + ahead


def test_who_goes_on_after_a_break_gets_the_numbers_of_an_unbroken_run(packed):
    everything = list(score(packed, CONTEXTS, ITEMS, token_budget=400))
    batches, packed.batches = packed.batches, []
    rest = list(score(packed, CONTEXTS, ITEMS, token_budget=400, done=[CONTEXTS[0].name]))
    assert rest == everything[1:], "to the last bit"
    assert packed.batches == batches
    packed.batches = []
    done = [context.name for context in CONTEXTS[1:-1]]
    assert list(score(packed, CONTEXTS, ITEMS, token_budget=400, done=done)) == [everything[0], everything[-1]]
    assert 0 < len(packed.batches) < len(batches)
    packed.batches = []
    assert list(score(packed, CONTEXTS, ITEMS, done=[context.name for context in CONTEXTS])) == []
    assert packed.batches == []


def test_a_context_that_cannot_be_asked_does_not_cost_those_before_it(packed):
    wrong = ScoreItem("q9", "Hi?", ("A", "All of them"), "label")
    long = ScoreItem("q9", "word " * 600, ("A", "B"), "label")
    for item in (wrong, long):
        seen = []
        results = score_each(packed, [*ASKED[:3], (CONTEXTS[3], [item]), *ASKED[4:]])
        with pytest.raises(ModelError, match="item 'q9' under 'short'"):
            seen.extend(context for context, _ in results)
        assert seen == CONTEXTS[:3]


def test_out_of_memory_makes_batches_smaller_for_good(packed, monkeypatch):
    expected = list(score_each(packed, ASKED))
    failed = []
    real = PackedForward.hidden

    def small(self, packed, wanted=None, **keywords):
        if len(packed.ids) > 200:
            failed.append(len(packed.ids))
            raise torch.OutOfMemoryError("CUDA out of memory (made by the test)")
        return real(self, packed, wanted, **keywords)

    monkeypatch.setattr(PackedForward, "hidden", small)
    assert_same(list(score_each(packed, ASKED, token_budget=1000)), expected)
    assert 1 <= len(failed) <= 3
    assert max(failed) <= 1000


def test_states_of_joint_contexts(plain, packed):
    users = [item.user for item in ITEMS[::2]]
    found = list(last_token_states(packed, CONTEXTS, users, [0, 1, 3]))
    assert len(packed.batches) < len(CONTEXTS)
    for a, b in zip(found, last_token_states(plain, CONTEXTS, users, [0, 1, 3]), strict=True):
        assert a.context == b.context
        np.testing.assert_allclose(a.states, b.states, atol=TOLERANCE)
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=TOLERANCE)
        assert a.logprobs.untyped_storage().nbytes() == a.logprobs.nbytes, "it keeps the whole group's in memory"


def test_endings_of_joint_contexts(plain, packed):
    """One answer, the same answer twice: all that the rows share must not hold the places that are read."""
    said = {"villain": ["No."], "absent": ["Yes, of course.", "Yes, of course."], "long": ["", "Well", "Well, well"]}
    asked = [
        (context, [EndingItem(f"{i}", "Hi?", text, " [ZLT]") for i, text in enumerate(said[context.name])])
        for context in CONTEXTS[:3]
    ]
    found, expected = endings(packed, asked), endings(plain, asked)
    assert len(packed.batches) == 1
    assert found[0].tokens > 2
    for a, b in zip(found, expected, strict=True):
        assert (a.item, a.tokens) == (b.item, b.tokens)
        assert (a.marker_logprob, a.end_logprob) == pytest.approx((b.marker_logprob, b.end_logprob), abs=TOLERANCE)


@pytest.mark.parametrize("answers", [["It is a cat."], ["It is a cat."] * 2])
def test_states_over_answers_that_are_all_alike(plain, packed, answers):
    turns = [("What is it?", answer) for answer in answers]
    (a, _), (b, _) = (states_over(each, CONTEXTS[0], turns, [0, 3]) for each in (packed, plain))
    np.testing.assert_allclose(a, b, atol=TOLERANCE)
