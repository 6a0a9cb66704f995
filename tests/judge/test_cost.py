"""The forecast is within 20 % of the ledger; batches cost half; the cache costs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response

from bystander.core.records import Completion
from bystander.data.pairs import load_pairs
from bystander.judge.answer_store import AnswerStore
from bystander.judge.client import Client
from bystander.judge.cost import dollars, estimate_cost, list_price, price_of, token_rates
from bystander.judge.judging import judge_completions
from bystander.judge.settings import JudgeSettings, Price
from tests.support.judge_wire import QUESTIONS, completion, completions, judge, serve

pytest.importorskip("inspect_ai")


def answers() -> list[Completion]:
    """Real sentences of different lengths, as answers to the built-in questions."""
    pairs, ids = load_pairs(), sorted(QUESTIONS)
    texts = [" ".join([p.aligned, p.misaligned] * (1 + i % 3)) for i, p in enumerate(pairs)]
    return [
        Completion(f"c{i}", "persona", "pirate", f"{ids[i % 24]}/0", i, "", text, "stop", i, 5)
        for i, text in enumerate(texts)
    ]


def test_forecast_within_20_percent_of_the_ledger(tmp_path: Path, tokenizer: Any) -> None:
    async def answer(body: dict[str, Any], headers: dict[str, str]) -> Response:
        prompt = body["messages"][0]["content"]
        return completion("50", read=len(tokenizer.encode(prompt)) + 30, written=2)  # 30: a template's own tokens

    with serve(answer) as url:
        price = Price(input=2.5, output=10.0)
        one = judge(url, tmp_path / "j.sqlite", price=price)
        first, second = answers()[:30], answers()[30:]
        before = one.estimate(first, QUESTIONS)
        list(judge_completions(first, QUESTIONS, one))
        spent = one.ledger().dollars
        assert (before.requests, before.calibrated) == (60, False)
        assert before.dollars == pytest.approx(spent, rel=0.2)
        calibrated = one.estimate(second, QUESTIONS)
        list(judge_completions(second, QUESTIONS, one))
        assert calibrated.calibrated
        assert calibrated.dollars == pytest.approx(one.ledger().dollars - spent, rel=0.05)
        cached = one.estimate(answers(), QUESTIONS)
        assert (cached.requests, cached.cached, cached.dollars) == (0, 2 * len(answers()), 0.0)


def test_batches_cost_half_and_a_local_server_nothing() -> None:
    price = Price(input=2.0, output=8.0)
    assert dollars(price, 1e6, 1e6, batch=False) == 10.0
    assert dollars(price, 1e6, 1e6, batch=True) == 5.0
    local = JudgeSettings(model="openai-api/x/y", base_url="http://localhost:1/v1")
    rates = token_rates(AnswerStore(None), local.model)
    assert estimate_cost(local, rates, ["a prompt"] * 3).dollars == 0.0


# Dollars a million tokens, read and written: openai.com/api/pricing and the pricing page of docs.anthropic.com.
LISTED = {
    "openai/gpt-4o": (2.5, 10.0), "openai/gpt-4o-2024-08-06": (2.5, 10.0), "openai/gpt-4o-mini": (0.15, 0.6),
    "openai/gpt-4.1": (2.0, 8.0), "openai/gpt-4.1-mini": (0.4, 1.6), "openai/gpt-4.1-nano": (0.1, 0.4),
    "anthropic/claude-3-5-haiku-20241022": (0.8, 4.0), "anthropic/claude-haiku-4-5": (1.0, 5.0),
    "anthropic/claude-sonnet-4-20250514": (3.0, 15.0), "anthropic/claude-sonnet-4-5": (3.0, 15.0),
    "anthropic/claude-opus-4-5": (5.0, 25.0),
}  # fmt: skip


def test_list_prices_are_found_by_name_without_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr("socket.socket.connect", refuse)
    found = {model: list_price(model) for model in LISTED}
    assert {model: pytest.approx((price.input, price.output)) for model, price in found.items()} == LISTED
    assert list_price("openai-api/lab/gpt-4o") == list_price("openai-api/openai/gpt-4o") == found["openai/gpt-4o"]
    stated = JudgeSettings(model="openai/gpt-4o", price=Price(input=7, output=8))
    assert price_of(stated) == stated.price


def test_equal_answers_to_one_question_are_judged_once(tmp_path: Path) -> None:
    seen = 0

    async def answer(body: dict[str, Any], headers: dict[str, str]) -> Response:
        nonlocal seen
        seen += 1
        return completion("50")

    (one,) = completions(1)
    twins = [one, Completion("other", "persona", "nurse", one.item, 7, "", one.text, "stop", 1, 5)]
    with serve(answer) as url:
        got = list(judge_completions(twins, QUESTIONS, judge(url, None)))
    assert seen == 2
    assert sorted((j.completion, j.template) for j in got) == [
        (c, t) for c in ("c0", "other") for t in ("aligned", "coherent")
    ]


def test_the_key_changes_with_judge_template_parameters_and_item() -> None:
    base = JudgeSettings(model="openai-api/x/y", base_url="http://localhost:1/v1")
    changes = [
        base,
        base.model_copy(update={"model": "openai-api/x/z"}),
        base.model_copy(update={"base_url": "http://localhost:2/v1"}),
        base.model_copy(update={"temperature": 0.5}),
        base.model_copy(update={"max_tokens": 17}),
        base.model_copy(update={"top_logprobs": 0}),
    ]
    keys = [Client(s, AnswerStore(None), "t").key_for("judge", "template", "question", "answer") for s in changes]
    keys += [
        Client(base, AnswerStore(None), "t").key_for("judge", *parts)
        for parts in [("t2", "question", "answer"), ("template", "q2", "answer"), ("template", "question", "a2")]
    ]
    assert len(set(keys)) == len(keys)
    same = base.model_copy(update={"timeout": 1.0, "retries": 0, "concurrency": 2, "dollars": 1.0})
    assert Client(same, AnswerStore(None), "other").key_for("judge", "template", "question", "answer") == keys[0]
