"""The forecast is within 20 % of the ledger; batches cost half; the cache costs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response

from bystander.core.records import Completion
from bystander.data.judge_questions import load_judge_questions
from bystander.data.pairs import load_pairs
from bystander.judge.answer_store import AnswerStore
from bystander.judge.client import Client
from bystander.judge.cost import dollars, forecast
from bystander.judge.judging import judge_completions, plan_forecast
from bystander.judge.settings import JudgeSettings, Price
from judge_wire import completion, serve
from test_judge_faults import QUESTIONS, completions, judge

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
        mean_tokens = sum(len(tokenizer.encode(c.text)) for c in answers()) / len(answers())
        planned = plan_forecast(one, load_judge_questions(), 60, 1, mean_tokens)  # before anything is sampled
        first, second = answers()[:30], answers()[30:]
        before = one.forecast(first, QUESTIONS)
        list(judge_completions(first, QUESTIONS, one))
        spent = one.ledger().dollars
        assert (before.requests, before.calibrated) == (60, False)
        assert before.dollars == pytest.approx(spent, rel=0.2)
        calibrated = one.forecast(second, QUESTIONS)
        list(judge_completions(second, QUESTIONS, one))
        assert calibrated.calibrated
        assert calibrated.dollars == pytest.approx(one.ledger().dollars - spent, rel=0.05)
        cached = one.forecast(answers(), QUESTIONS)
        assert (cached.requests, cached.cached, cached.dollars) == (0, 2 * len(answers()), 0.0)
        assert planned.requests == 24 * 60 * 2
        assert planned.dollars / planned.requests == pytest.approx(one.ledger().dollars / (2 * len(answers())), rel=0.2)


def test_batches_cost_half_and_a_local_server_nothing() -> None:
    price = Price(input=2.0, output=8.0)
    assert dollars(price, 1e6, 1e6, batch=False) == 10.0
    assert dollars(price, 1e6, 1e6, batch=True) == 5.0
    local = JudgeSettings(model="openai-api/x/y", base_url="http://localhost:1/v1")
    assert forecast(local, AnswerStore(None), ["a prompt"] * 3, 0).dollars == 0.0


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
