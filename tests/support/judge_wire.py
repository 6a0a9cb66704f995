"""An OpenAI-compatible server on loopback, for tests: what answers is the test's, the wire is real."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from bystander.core.records import Completion
from bystander.data.judge_questions import load_judge_questions
from bystander.judge.judging import Judge
from bystander.judge.settings import JudgeSettings

Answer = Callable[[dict[str, Any], dict[str, str]], Awaitable[Response]]


def completion(
    text: str | None, *, tops: dict[str, float] | None = None, read: int = 100, written: int = 2
) -> JSONResponse:
    """A well-formed chat completion; `tops` token -> log-probability at the first place."""
    logprobs = None
    if tops is not None:
        first = next(iter(tops))
        top = [{"token": token, "logprob": value, "bytes": None} for token, value in tops.items()]
        logprobs = {"content": [{"token": first, "logprob": tops[first], "bytes": None, "top_logprobs": top}]}
    body = {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}, "logprobs": logprobs}],
        "usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written},
    }  # fmt: skip
    return JSONResponse(body)


class Cut(Response):
    """Promises more than it sends, so that the connection breaks in the middle of the answer."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"500")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"id": "c", "choices": [{"ind', "more_body": False})


class Batches:
    """The server's side of the batch interface: files and batches in memory. `answer_line` gives one result line's
    body, or an error text; a batch ends at the second look."""

    def __init__(self, answer_line: Callable[[str], str | None]) -> None:
        self.answer_line = answer_line
        self.files: dict[str, str] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.looks: Counter[str] = Counter()
        self.paid: Counter[str] = Counter()  # prompts answered
        self.created = 0
        self.fail_next_create = 0
        self.status = "completed"
        self.key = ""

    async def upload(self, request: Request) -> Response:
        name = f"file-{len(self.files)}"
        async with request.form() as form:
            upload: Any = form["file"]
            self.files[name] = (await upload.read()).decode()
            await upload.close()
        return JSONResponse(
            {
                "id": name,
                "object": "file",
                "bytes": 1,
                "created_at": 1,
                "filename": "f",
                "purpose": "batch",
                "status": "processed",
            }
        )

    async def content(self, request: Request) -> Response:
        return PlainTextResponse(self.files[request.path_params["id"]])

    def record(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": batch["id"], "object": "batch", "endpoint": "/v1/chat/completions", "input_file_id": batch["input"], "created_at": 1,
            "completion_window": "24h", "status": batch["status"], "metadata": batch["metadata"],
            "output_file_id": batch.get("output"), "error_file_id": batch.get("errors"),
        }  # fmt: skip

    async def create(self, request: Request) -> Response:
        body = await request.json()
        self.created += 1
        name = f"batch-{self.created}"
        self.batches[name] = {
            "id": name,
            "input": body["input_file_id"],
            "status": "in_progress",
            "metadata": body.get("metadata"),
        }
        if self.fail_next_create:
            self.fail_next_create -= 1
            return JSONResponse({"error": {"message": "the answer got lost"}}, 500)
        return JSONResponse(self.record(self.batches[name]))

    async def list(self, request: Request) -> Response:
        if self.key and request.headers["authorization"] != f"Bearer {self.key}":
            return JSONResponse({"error": {"message": "wrong key"}}, 401)
        data = [self.record(batch) for batch in reversed(self.batches.values())]
        return JSONResponse({"object": "list", "data": data, "has_more": False})

    async def retrieve(self, request: Request) -> Response:
        batch = self.batches[request.path_params["id"]]
        self.looks[batch["id"]] += 1
        if self.looks[batch["id"]] >= 2 and batch["status"] == "in_progress":
            self.finish(batch)
        return JSONResponse(self.record(batch))

    def finish(self, batch: dict[str, Any]) -> None:
        output: list[str] = []
        errors: list[str] = []
        for line in self.files[batch["input"]].splitlines():
            entry = json.loads(line)
            prompt = entry["body"]["messages"][0]["content"]
            text = self.answer_line(prompt)
            if text is None:
                error = {"code": "batch_expired", "message": "expired before it ran"}
                errors.append(json.dumps({"custom_id": entry["custom_id"], "response": None, "error": error}))
            else:
                self.paid[prompt] += 1
                body = json.loads(bytes(completion(text).body))
                output.append(
                    json.dumps(
                        {"custom_id": entry["custom_id"], "response": {"status_code": 200, "body": body}, "error": None}
                    )
                )
        batch["output"], batch["errors"] = f"out-{batch['id']}", f"err-{batch['id']}"
        self.files[batch["output"]], self.files[batch["errors"]] = "\n".join(output), "\n".join(errors)
        batch["status"] = self.status


@contextmanager
def serve(answer: Answer | None = None, batches: Batches | None = None) -> Iterator[str]:
    """Serve on a free port of loopback; yields the base URL. `answer` gets the request's body and headers."""

    async def chat(request: Request) -> Response:
        assert answer is not None
        return await answer(await request.json(), dict(request.headers))

    routes = [Route("/v1/chat/completions", chat, methods=["POST"])]
    if batches is not None:
        routes += [
            Route("/v1/files", batches.upload, methods=["POST"]),
            Route("/v1/files/{id}/content", batches.content),
            Route("/v1/batches", batches.create, methods=["POST"]),
            Route("/v1/batches", batches.list, methods=["GET"]),
            Route("/v1/batches/{id}", batches.retrieve),
        ]
    config = uvicorn.Config(
        Starlette(routes=routes), host="127.0.0.1", port=0, log_level="critical", ws="none", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(timeout=10)


QUESTIONS = {q.id: q for q in load_judge_questions()}


def completions(n: int) -> list[Completion]:
    ids = sorted(QUESTIONS)
    return [
        Completion(
            f"c{i}", "persona", "villain", f"{ids[i % len(ids)]}/0", i, "", f"This is answer number {i}", "stop", i, 5
        )
        for i in range(n)
    ]


def judge(url: str, cache: Path | None, **more: Any) -> Judge:
    settings: dict[str, Any] = {"model": "openai-api/local/stub", "base_url": url, "timeout": 30.0, "concurrency": 16}
    return Judge(JudgeSettings(**{**settings, **more}), cache, "test")
