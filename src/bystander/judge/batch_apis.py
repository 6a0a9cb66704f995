"""The providers' batch interfaces, through the clients that Inspect opened."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bystander.core.errors import JudgeError
from bystander.judge.answer_store import Alternative, OpenBatch, RawAnswer
from bystander.judge.requests import Request, Session

OPENAI_PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class FailedRequest:
    """A request of a batch that has no answer."""

    reason: str


class BatchApi(Protocol):
    """One provider's batches."""

    async def create(self, nonce: str, requests: Sequence[Request]) -> str:
        """Send; the provider's id of the batch."""
        ...

    async def find(self, batch: OpenBatch) -> str | None:
        """The id of an announced batch, if the provider has it."""
        ...

    async def ended(self, batch_id: str) -> bool:
        """Whether no more answers will come."""
        ...

    def results(self, batch_id: str) -> AsyncIterator[tuple[str, RawAnswer | FailedRequest]]:
        """(key, answer or failure) of every request that has one."""
        ...


def batch_api(session: Session) -> BatchApi:
    """The batch interface of the provider that Inspect opened. Raises JudgeError where there is none."""
    sdk: Any = getattr(session.model.api, "client", None)
    name = type(sdk).__name__
    if "OpenAI" in name:
        return OpenAIBatches(sdk, _openai_body(session))
    if "Anthropic" in name:
        return AnthropicBatches(sdk, session.model.name, session.config.max_tokens or 16, session.config.temperature)
    raise JudgeError(
        f"the provider of {session.model!s} has no batch interface that bystander knows (OpenAI's and Anthropic's): turn batches off (batch: false in a study, --no-batch on the command line)"
    )


def _openai_body(session: Session) -> dict[str, Any]:
    """A request's body without its messages, as Inspect writes it for this model."""
    params: Any = getattr(session.model.api, "completion_params", None)
    if params is not None:
        body = params(session.config, False)
        return {key: value for key, value in body.items() if isinstance(value, str | int | float | bool)}
    config = session.config
    return {"model": session.model.name, "max_tokens": config.max_tokens, "temperature": config.temperature}


@dataclass(frozen=True, slots=True)
class OpenAIBatches:
    """OpenAI's interface, and that of servers which copy it: a file of requests, a batch, files of results."""

    sdk: Any
    body: dict[str, Any]

    async def create(self, nonce: str, requests: Sequence[Request]) -> str:
        """Upload the requests, then create the batch with the nonce in its metadata."""
        head = {"method": "POST", "url": OPENAI_PATH}
        bodies = {r.key: {**self.body, "messages": [{"role": "user", "content": r.prompt}]} for r in requests}
        lines = [json.dumps({"custom_id": key, **head, "body": body}) for key, body in bodies.items()]
        data = ("\n".join(lines) + "\n").encode()
        file = await self.sdk.files.create(file=(f"{nonce}.jsonl", data), purpose="batch")
        batch = await self.sdk.batches.create(
            input_file_id=file.id, endpoint=OPENAI_PATH, completion_window="24h", metadata={"bystander": nonce}
        )
        return str(batch.id)

    async def find(self, batch: OpenBatch) -> str | None:
        """By the nonce in the metadata of the last 100 batches."""
        page = await self.sdk.batches.list(limit=100)
        return next((str(one.id) for one in page.data if (one.metadata or {}).get("bystander") == batch.nonce), None)

    async def ended(self, batch_id: str) -> bool:
        """Completed, failed, expired or cancelled."""
        return (await self.sdk.batches.retrieve(batch_id)).status in {"completed", "failed", "expired", "cancelled"}

    async def results(self, batch_id: str) -> AsyncIterator[tuple[str, RawAnswer | FailedRequest]]:
        """Every line of the output and error files; a batch that expired has the answers that were ready."""
        batch = await self.sdk.batches.retrieve(batch_id)
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id:
                content = await self.sdk.files.content(file_id)
                for line in content.text.split("\n"):
                    if line.strip():
                        record = json.loads(line)
                        yield str(record["custom_id"]), read_openai_line(record)


def read_openai_line(record: dict[str, Any]) -> RawAnswer | FailedRequest:
    """One line of a result file."""
    response = record.get("response") or {}
    body = response.get("body") or {}
    if record.get("error") or response.get("status_code") != 200 or not body.get("choices"):
        detail = record.get("error") or body.get("error") or {}
        return FailedRequest(
            f"{response.get('status_code', '')} {detail.get('code') or ''} {detail.get('message') or 'no answer'}".strip()
        )
    choice = body["choices"][0]
    tokens = ((choice.get("logprobs") or {}).get("content")) or []
    first: dict[str, Any] = tokens[0] if tokens else {}
    usage = body.get("usage") or {}
    stop = choice.get("finish_reason")
    alternatives = tuple(Alternative(t["token"], t["logprob"]) for t in first.get("top_logprobs") or [])
    return RawAnswer(
        str(record["custom_id"]), choice["message"].get("content") or "", "max_tokens" if stop == "length" else str(stop),
        first.get("token", ""), alternatives, usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0), attempts=1,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class AnthropicBatches:
    """Anthropic's Message Batches."""

    sdk: Any
    model: str
    max_tokens: int
    temperature: float | None

    async def create(self, nonce: str, requests: Sequence[Request]) -> str:  # noqa: ARG002 (there is no place for a nonce)
        """One call with all requests."""
        from anthropic.types.message_create_params import MessageCreateParamsNonStreaming

        shared: dict[str, Any] = {"model": self.model, "max_tokens": self.max_tokens}
        # Its API had a temperature until version 2026-10-21; the SDK's own parameters say which version this is.
        if self.temperature is not None and "temperature" in MessageCreateParamsNonStreaming.__annotations__:
            shared["temperature"] = self.temperature
        entries = [
            {"custom_id": request.key, "params": {**shared, "messages": [{"role": "user", "content": request.prompt}]}}
            for request in requests
        ]
        return str((await self.sdk.messages.batches.create(requests=entries)).id)

    async def find(self, batch: OpenBatch) -> str | None:
        """Anthropic keeps no metadata: of the last 20 batches, one with as many requests, and with our keys where it
        has results. Adopting a stranger's does no harm: answers go by key, and what is missing is sent again."""
        page = await self.sdk.messages.batches.list(limit=20)
        for one in page.data:
            counts = one.request_counts
            total = counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired
            if total != batch.requests:
                continue
            if one.processing_status != "ended":
                return str(one.id)
            async for key, _ in self.results(one.id):
                if key in batch.keys:
                    return str(one.id)
                break
        return None

    async def ended(self, batch_id: str) -> bool:
        """Whether processing has ended, for whatever reason."""
        return (await self.sdk.messages.batches.retrieve(batch_id)).processing_status == "ended"

    async def results(self, batch_id: str) -> AsyncIterator[tuple[str, RawAnswer | FailedRequest]]:
        """Every request of the batch."""
        async for one in await self.sdk.messages.batches.results(batch_id):
            if one.result.type != "succeeded":
                error = getattr(getattr(one.result, "error", None), "error", None)
                yield str(one.custom_id), FailedRequest(f"{one.result.type} {getattr(error, 'message', '')}".strip())
                continue
            message = one.result.message
            text = "".join(block.text for block in message.content if block.type == "text")
            read, written = message.usage.input_tokens, message.usage.output_tokens
            answer = RawAnswer(
                str(one.custom_id), text, str(message.stop_reason), input_tokens=read, output_tokens=written, attempts=1
            )
            yield str(one.custom_id), answer
