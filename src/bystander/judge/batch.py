"""The providers' batch interfaces: half the price, an answer within a day, and nothing paid twice.

Inspect has a batch mode, but it forgets its batches when the process ends. So the batch goes through the client that
Inspect opened, and the id is kept: a restart collects the batch. A batch is *announced* in the store before it is
sent; where a process ended between sending and keeping the id, the provider's list of batches is searched first.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from bystander.core.errors import JudgeError
from bystander.judge.answer_store import Alternative, OpenBatch, RawAnswer
from bystander.judge.cost import dollars

if TYPE_CHECKING:
    from bystander.judge.client import Ask, Client, Flight

LARGEST = 10_000  # requests a batch; both providers take more, but a lost one is then lost in small pieces
ROUNDS = 3  # times that a request is sent: expired and failed ones are sent again
TRIES = 6  # of one call that creates, looks at, or fetches a batch


@dataclass(frozen=True, slots=True)
class Failure:
    """A request of a batch that has no answer."""

    reason: str


class BatchApi(Protocol):
    """One provider's batches."""

    async def create(self, nonce: str, asks: Sequence[Ask]) -> str:
        """Send; the provider's id of the batch."""
        ...

    async def find(self, batch: OpenBatch) -> str | None:
        """The id of an announced batch, if the provider has it."""
        ...

    async def ended(self, batch_id: str) -> bool:
        """Whether no more answers will come."""
        ...

    def results(self, batch_id: str) -> AsyncIterator[tuple[str, RawAnswer | Failure]]:
        """(key, answer or failure) of every request that has one."""
        ...


async def ask_in_batches(client: Client, todo: Sequence[Ask], emit: Callable[[RawAnswer], None]) -> None:
    """Answer `todo` by batches; open batches of an earlier process are collected first. Raises JudgeError where the
    provider has no batch interface, or the cap would be passed."""
    left = {ask.key: ask for ask in todo}
    reasons: dict[str, str] = {}
    async with client.model() as flight:
        api = batch_api(flight)
        await _collect_open(client, flight, api, left, reasons, emit)
        for _ in range(ROUNDS):
            if not left:
                return
            await _send(client, flight, api, list(left.values()))
            await _collect_open(client, flight, api, left, reasons, emit)
    for key in left:
        emit(
            RawAnswer(
                key,
                None,
                reason=f"no answer in {ROUNDS} batches: {reasons.get(key, 'not in the results')}",
                attempts=ROUNDS,
            )
        )


def check_access(client: Client) -> None:
    """Look at the list of batches, which costs nothing: raises JudgeError where the key is refused, the server is not
    there, or the provider has no batch interface."""

    async def look() -> None:
        async with client.model() as flight:
            nobody = OpenBatch("preflight", None, -1, frozenset())
            await _patiently(client, lambda: batch_api(flight).find(nobody))

    with ThreadPoolExecutor(1) as pool:  # a thread of its own: the caller may have an event loop
        pool.submit(asyncio.run, look()).result()


async def _send(client: Client, flight: Flight, api: BatchApi, asks: list[Ask]) -> None:
    read = sum(flight.rate.input_tokens(len(ask.prompt)) for ask in asks)
    client.check_cap(dollars(client.price, read, flight.rate.output * len(asks), batch=True))
    for start in range(0, len(asks), LARGEST):
        part = asks[start : start + LARGEST]
        nonce = uuid.uuid4().hex
        client.store.announce(nonce, client.endpoint(), [ask.key for ask in part])
        batch = OpenBatch(nonce, None, len(part), frozenset(ask.key for ask in part))

        async def create(nonce: str = nonce, part: list[Ask] = part, batch: OpenBatch = batch) -> str:
            # After a call that broke off, the batch may be there: look before sending it again.
            return await api.find(batch) or await api.create(nonce, part)

        client.store.sent(nonce, await _patiently(client, lambda: api.create(nonce, part), create))  # noqa: B023


async def _collect_open(
    client: Client,
    flight: Flight,
    api: BatchApi,
    left: dict[str, Ask],
    reasons: dict[str, str],
    emit: Callable[[RawAnswer], None],
) -> None:
    """Wait for every open batch that holds some of `left` and keep its answers; those in `left` are emitted and taken
    out. Batches without any are another cell's business."""
    from bystander.judge.client import Ask

    for batch in client.store.open_batches(client.endpoint()):
        if batch.keys.isdisjoint(left):
            continue
        batch_id = batch.id or await _patiently(client, lambda: api.find(batch))  # noqa: B023
        if batch_id is None:
            client.store.close_batch(batch.nonce)  # announced, never sent
            continue
        if batch.id is None:
            client.store.sent(batch.nonce, batch_id)
        while not await _patiently(client, lambda: api.ended(batch_id)):  # noqa: B023
            await asyncio.sleep(client.settings.poll)
        for key, result in await _patiently(client, lambda: _all(api, batch_id)):  # noqa: B023
            if key not in batch.keys:
                continue
            if isinstance(result, Failure):
                reasons[key] = client.hide(result.reason)
                continue
            answer = client.keep_answer(left.get(key) or Ask(key, ""), result, flight.rate)
            if left.pop(key, None) is not None:
                emit(answer)
        client.store.close_batch(batch.nonce)


async def _all(api: BatchApi, batch_id: str) -> list[tuple[str, RawAnswer | Failure]]:
    return [one async for one in api.results(batch_id)]


async def _patiently(client: Client, call: Callable[[], Any], again: Callable[[], Any] | None = None) -> Any:
    """`call`, and after a failure that may pass `again` (default: the same), with growing waits."""
    from bystander.judge.client import FINAL, status_of, wait_before

    for attempt in range(1, TRIES + 1):
        try:
            async with asyncio.timeout(max(client.settings.timeout, 60.0)):
                return await (call if attempt == 1 or again is None else again)()
        except Exception as error:
            status, reason = status_of(error), client.explain(error)
            client.raise_if_fatal(error, status, reason)
            if attempt == TRIES or status in FINAL:
                raise JudgeError(f"the batch interface of {client.settings.model!r} failed: {reason}") from None
            await asyncio.sleep(wait_before(attempt, error, "batch"))
    raise AssertionError("unreachable")


def batch_api(flight: Flight) -> BatchApi:
    """The batch interface of the provider that Inspect opened. Raises JudgeError where there is none."""
    sdk: Any = getattr(flight.model.api, "client", None)
    name = type(sdk).__name__
    if "OpenAI" in name:
        return OpenAIBatches(sdk, _openai_body(flight))
    if "Anthropic" in name:
        return AnthropicBatches(sdk, flight.model.name, flight.config.max_tokens or 16, flight.config.temperature)
    raise JudgeError(
        f"the provider of {flight.model!s} has no batch interface that bystander knows (OpenAI's and Anthropic's): set batch: false"
    )


def _openai_body(flight: Flight) -> dict[str, Any]:
    """A request's body without its messages, as Inspect writes it for this model."""
    params: Any = getattr(flight.model.api, "completion_params", None)
    if params is not None:
        body = params(flight.config, False)
        return {key: value for key, value in body.items() if isinstance(value, str | int | float | bool)}
    return {
        "model": flight.model.name,
        "max_tokens": flight.config.max_tokens,
        "temperature": flight.config.temperature,
    }


@dataclass(frozen=True, slots=True)
class OpenAIBatches:
    """OpenAI's interface, and that of servers which copy it: a file of requests, a batch, files of results."""

    sdk: Any
    body: dict[str, Any]

    async def create(self, nonce: str, asks: Sequence[Ask]) -> str:
        """Upload the requests, then create the batch with the nonce in its metadata."""
        lines = [
            json.dumps(
                {
                    "custom_id": ask.key,
                    "method": "POST",
                    "url": "/v1/chat/completions",
                    "body": {**self.body, "messages": [{"role": "user", "content": ask.prompt}]},
                }
            )
            for ask in asks
        ]
        data = ("\n".join(lines) + "\n").encode()
        file = await self.sdk.files.create(file=(f"{nonce}.jsonl", data), purpose="batch")
        batch = await self.sdk.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"bystander": nonce},
        )
        return str(batch.id)

    async def find(self, batch: OpenBatch) -> str | None:
        """By the nonce in the metadata of the last 100 batches."""
        page = await self.sdk.batches.list(limit=100)
        return next((str(one.id) for one in page.data if (one.metadata or {}).get("bystander") == batch.nonce), None)

    async def ended(self, batch_id: str) -> bool:
        """Completed, failed, expired or cancelled."""
        return (await self.sdk.batches.retrieve(batch_id)).status in {"completed", "failed", "expired", "cancelled"}

    async def results(self, batch_id: str) -> AsyncIterator[tuple[str, RawAnswer | Failure]]:
        """Every line of the output and error files; a batch that expired has the answers that were ready."""
        batch = await self.sdk.batches.retrieve(batch_id)
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id:
                content = await self.sdk.files.content(file_id)
                for line in content.text.split("\n"):
                    if line.strip():
                        record = json.loads(line)
                        yield str(record["custom_id"]), read_openai_line(record)


def read_openai_line(record: dict[str, Any]) -> RawAnswer | Failure:
    """One line of a result file."""
    response = record.get("response") or {}
    body = response.get("body") or {}
    if record.get("error") or response.get("status_code") != 200 or not body.get("choices"):
        detail = record.get("error") or body.get("error") or {}
        return Failure(
            f"{response.get('status_code', '')} {detail.get('code') or ''} {detail.get('message') or 'no answer'}".strip()
        )
    choice = body["choices"][0]
    tokens = ((choice.get("logprobs") or {}).get("content")) or []
    first: dict[str, Any] = tokens[0] if tokens else {}
    usage = body.get("usage") or {}
    return RawAnswer(
        key=str(record["custom_id"]),
        text=choice["message"].get("content") or "",
        stop="max_tokens" if choice.get("finish_reason") == "length" else str(choice.get("finish_reason")),
        first=first.get("token", ""),
        alternatives=tuple(Alternative(t["token"], t["logprob"]) for t in first.get("top_logprobs") or []),
        input_tokens=usage.get("prompt_tokens", 0),
        output_tokens=usage.get("completion_tokens", 0),
        attempts=1,
    )


@dataclass(frozen=True, slots=True)
class AnthropicBatches:
    """Anthropic's Message Batches."""

    sdk: Any
    model: str
    max_tokens: int
    temperature: float | None

    async def create(self, nonce: str, asks: Sequence[Ask]) -> str:  # noqa: ARG002 (there is no place for a nonce)
        """One call with all requests."""
        from anthropic.types.message_create_params import MessageCreateParamsNonStreaming

        shared: dict[str, Any] = {"model": self.model, "max_tokens": self.max_tokens}
        # Its API had a temperature until version 2026-10-21; the SDK's own parameters say which version this is.
        if self.temperature is not None and "temperature" in MessageCreateParamsNonStreaming.__annotations__:
            shared["temperature"] = self.temperature
        requests = [
            {"custom_id": ask.key, "params": {**shared, "messages": [{"role": "user", "content": ask.prompt}]}}
            for ask in asks
        ]
        return str((await self.sdk.messages.batches.create(requests=requests)).id)

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

    async def results(self, batch_id: str) -> AsyncIterator[tuple[str, RawAnswer | Failure]]:
        """Every request of the batch."""
        async for one in await self.sdk.messages.batches.results(batch_id):
            if one.result.type != "succeeded":
                error = getattr(getattr(one.result, "error", None), "error", None)
                yield str(one.custom_id), Failure(f"{one.result.type} {getattr(error, 'message', '')}".strip())
                continue
            message = one.result.message
            text = "".join(block.text for block in message.content if block.type == "text")
            stop = "max_tokens" if message.stop_reason == "max_tokens" else str(message.stop_reason)
            usage = message.usage
            yield (
                str(one.custom_id),
                RawAnswer(
                    str(one.custom_id),
                    text,
                    stop,
                    input_tokens=usage.input_tokens,
                    output_tokens=usage.output_tokens,
                    attempts=1,
                ),
            )
