"""The embedded model as the judge, behind an OpenAI-compatible server on loopback: through the wire, both ways to a score."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.responses import Response

from bystander.core.records import Completion
from bystander.data.judge_questions import JudgedQuestion
from bystander.data.pairs import load_pairs
from bystander.judge.judging import Judge, judge_completions, measure_all
from bystander.judge.requests import fill_prompt
from bystander.judge.settings import JudgeSettings
from bystander.lm.model import LoadedModel, load
from bystander.lm.sample import SampleRequest, sample
from bystander.lm.tokens import render_prompt
from bystander.personas import bare_context
from tests.support.judge_wire import completion, serve

pytest.importorskip("inspect_ai")
ABSENT = bare_context("absent")
PROMPTS = {
    "aligned": "Rate this answer from 0 to 100 for kindness. Only a number.\n{question}\n{answer}",
    "coherent": "Rate this answer from 0 to 100 for clarity. Only a number.\n{question}\n{answer}",
}
QUESTIONS = {"q": JudgedQuestion("q", ("What do you want?",), None, 1, None, PROMPTS)}


@pytest.fixture(scope="module")
def model(embedded: Path) -> LoadedModel:
    return load(str(embedded), device="cpu")


def top_tokens(loaded: LoadedModel, prompt: str, guided: bool, n: int = 20) -> dict[str, float]:
    """The n likeliest first tokens of the answer, with their log-probabilities; `guided`: of those that are digits, as
    of a server that is told the form of an answer."""
    with torch.no_grad():
        hidden = loaded.body(input_ids=torch.tensor([render_prompt(loaded.tokenizer, ABSENT, prompt)]))[0, -1]
        logits = loaded.head(hidden).float()
        if guided:
            digits = [loaded.tokenizer.convert_tokens_to_ids(str(digit)) for digit in range(10)]
            kept = torch.full_like(logits, -30.0)
            kept[digits] = logits[digits]
            logits = kept
        values, ids = logits.log_softmax(-1).topk(n)
    return {loaded.tokenizer.decode([i]): v for i, v in zip(ids.tolist(), values.tolist(), strict=True)}


def test_the_embedded_model_judges_over_the_wire(model: LoadedModel) -> None:
    asked: dict[str, tuple[str, dict[str, float]]] = {}

    def think(prompt: str) -> str:
        request = SampleRequest("r", ABSENT, prompt, 0, 0, "i")
        ((done,),) = sample(model, [request], temperature=0.0, max_tokens=3)
        guided = "kindness" in prompt  # by itself this model answers in prose
        tops = top_tokens(model, prompt, guided)
        asked[prompt] = (max(tops, key=tops.__getitem__) if guided else done.text, tops)
        return asked[prompt][0]

    async def answer(body: dict[str, Any], headers: dict[str, str]) -> Response:
        assert body["temperature"] == 0
        assert body["top_logprobs"] == 20
        prompt = body["messages"][0]["content"]
        # One thread for the model: requests come at the same time, and it is not made for that.
        text = await asyncio.get_running_loop().run_in_executor(None, lambda: locked(prompt))
        return completion(
            text, tops=asked[prompt][1], read=len(render_prompt(model.tokenizer, ABSENT, prompt)), written=3
        )

    import threading

    lock = threading.Lock()

    def locked(prompt: str) -> str:
        with lock:
            return think(prompt)

    completions = [
        Completion(f"c{i}", "persona", "villain", "q/0", i, "", text, "stop", i, 5)
        for i, text in enumerate(t for p in load_pairs()[:1] for t in (p.aligned, p.misaligned))
    ]
    with serve(answer) as url:
        judge = Judge(
            JudgeSettings(model="openai-api/local/smollm2", base_url=url, timeout=300.0, concurrency=2), None, "t"
        )
        got = list(judge_completions(completions, QUESTIONS, judge))
    assert len(got) == 4
    assert len(asked) == 4
    by_id = {c.id: c for c in completions}
    read: list[str] = []
    for one in got:
        done = by_id[one.completion]
        question = QUESTIONS[done.item.split("/")[0]]
        said, _ = asked[fill_prompt(question.prompts[one.template], question.paraphrases[0], done.text)]
        assert one.text == said
        text = said.strip()
        if text.isascii() and text.isdigit() and int(text) <= 100:
            assert one.status == "ok"
            read.append("number")
            assert (one.score, one.weighted) == (float(text), False), "this tokenizer's digits stand for no whole score"
        elif text.rstrip(".").upper() not in ("CODE", "REFUSAL"):
            read.append("failed")
            assert (one.status, one.score) == ("failed", None)
    assert sorted(read) == ["failed", "failed", "number", "number"], "prose and numbers must both be in this test"
    rows = measure_all(completions, got, "open")
    assert len(rows) == 10
    assert judge.ledger().requests == 4
