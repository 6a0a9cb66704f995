"""Anthropic's interfaces over the wire: messages, and batches that survive a restart."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from bystander.core.errors import JudgeError
from bystander.judge.judging import Judge, judge_completions
from bystander.judge.settings import JudgeSettings, Price
from tests.support.judge_wire import QUESTIONS, completions

pytest.importorskip("inspect_ai")
pytest.importorskip("anthropic")


def key_of(request: Request) -> str:
    """SDKs send it as `x-api-key` or as a bearer token, by their version."""
    return request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")


class Messages:
    """The server: answers with the number in the prompt; the first answer of number 1 in a batch expires."""

    def __init__(self, key: str = "k") -> None:
        self.key = key
        self.batches: dict[str, dict[str, Any]] = {}
        self.paid: Counter[str] = Counter()
        self.looks: Counter[str] = Counter()
        self.lose_create = False

    def message(self, params: dict[str, Any]) -> dict[str, Any]:
        prompt = params["messages"][0]["content"]
        prompt = prompt if isinstance(prompt, str) else prompt[0]["text"]
        self.paid[prompt] += 1
        found = re.search(r"answer number (\d+)", prompt)
        return {
            "id": "msg", "type": "message", "role": "assistant", "model": params["model"], "stop_reason": "end_turn", "stop_sequence": None,
            "content": [{"type": "text", "text": found.group(1) if found else "50"}], "usage": {"input_tokens": 100, "output_tokens": 2},
        }  # fmt: skip

    def record(self, name: str) -> dict[str, Any]:
        batch = self.batches[name]
        n = len(batch["requests"])
        done = batch["ended"]
        return {
            "id": name, "type": "message_batch", "processing_status": "ended" if done else "in_progress", "created_at": "2026-01-01T00:00:00Z",
            "expires_at": "2026-01-02T00:00:00Z", "ended_at": None, "archived_at": None, "cancel_initiated_at": None,
            "results_url": f"{batch['base']}v1/messages/batches/{name}/results" if done else None,
            "request_counts": {"processing": 0 if done else n, "succeeded": n if done else 0, "errored": 0, "canceled": 0, "expired": 0},
        }  # fmt: skip

    async def direct(self, request: Request) -> Response:
        if key_of(request) != self.key:
            return JSONResponse(
                {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}, 401
            )
        return JSONResponse(self.message(await request.json()))

    async def create(self, request: Request) -> Response:
        name = f"msgbatch_{len(self.batches)}"
        self.batches[name] = {
            "requests": (await request.json())["requests"],
            "ended": False,
            "base": str(request.base_url),
        }
        if self.lose_create:
            self.lose_create = False
            return JSONResponse({"type": "error", "error": {"type": "api_error", "message": "lost"}}, 500)
        return JSONResponse(self.record(name))

    async def listed(self, request: Request) -> Response:
        if key_of(request) != self.key:
            return JSONResponse(
                {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}, 401
            )
        data = [self.record(name) for name in reversed(self.batches)]
        return JSONResponse({"data": data, "has_more": False, "first_id": None, "last_id": None})

    async def retrieve(self, request: Request) -> Response:
        name = request.path_params["id"]
        self.looks[name] += 1
        self.batches[name]["ended"] = self.looks[name] >= 2
        return JSONResponse(self.record(name))

    async def results(self, request: Request) -> Response:
        name = request.path_params["id"]
        lines: list[str] = []
        for one in self.batches[name]["requests"]:
            if name == "msgbatch_0" and "answer number 1" in str(one["params"]["messages"]):
                result: dict[str, Any] = {"type": "expired"}
            else:
                result = {"type": "succeeded", "message": self.message(one["params"])}
            lines.append(json.dumps({"custom_id": one["custom_id"], "result": result}))
        return PlainTextResponse("\n".join(lines), media_type="application/x-jsonl")


@contextmanager
def serving(server: Messages) -> Iterator[str]:
    base = "/v1/messages"
    app = Starlette(
        routes=[
            Route(base, server.direct, methods=["POST"]),
            Route(f"{base}/batches", server.create, methods=["POST"]),
            Route(f"{base}/batches", server.listed, methods=["GET"]),
            Route(f"{base}/batches/{{id}}", server.retrieve),
            Route(f"{base}/batches/{{id}}/results", server.results),
        ]
    )
    runner = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", ws="none", lifespan="off")
    )
    thread = threading.Thread(target=runner.run, daemon=True)
    thread.start()
    while not runner.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{runner.servers[0].sockets[0].getsockname()[1]}"
    finally:
        runner.should_exit = runner.force_exit = True
        thread.join(timeout=10)


def judge(url: str, cache: Path, **more: Any) -> Judge:
    settings: dict[str, Any] = {
        "model": "anthropic/claude-haiku-4-5", "base_url": url, "poll": 0.05, "timeout": 20.0, "price": Price(input=1.0, output=5.0),
    }  # fmt: skip
    return Judge(JudgeSettings(**{**settings, **more}), cache, "run")


def test_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    server = Messages()
    with serving(server) as url:
        one = judge(url, tmp_path / "j.sqlite")
        one.preflight(["smollm2-135m"])
        got = list(judge_completions(completions(5), QUESTIONS, one))
        monkeypatch.setenv("ANTHROPIC_API_KEY", "wrong")
        with pytest.raises(JudgeError, match="refuses the key"):
            judge(url, tmp_path / "k.sqlite").preflight(["smollm2-135m"])
    assert sorted(j.score or 0.0 for j in got) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert not any(j.weighted for j in got)
    assert one.ledger().dollars == pytest.approx(11 * (100 * 1.0 + 2 * 5.0) / 1e6)


@pytest.mark.parametrize("lost", [False, True])
def test_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: bool) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    server = Messages()
    server.lose_create = lost
    with serving(server) as url:
        one = judge(url, tmp_path / "j.sqlite", batch=True)
        one.preflight(["smollm2-135m"])
        got = list(judge_completions(completions(5), QUESTIONS, one))
    assert sorted(j.score if j.score is not None else -1 for j in got) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert len(server.batches) == 2  # all, then the two that expired; a create whose answer was lost is not repeated
    assert [len(batch["requests"]) for batch in server.batches.values()] == [10, 2]
    assert set(server.paid.values()) == {1}
    assert one.ledger().dollars == pytest.approx(10 * (100 * 1.0 + 2 * 5.0) / 1e6 / 2)
