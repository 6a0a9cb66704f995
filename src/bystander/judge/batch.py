"""Requests in the providers' batches: half the price, an answer within a day, and nothing paid twice.

Inspect has a batch mode, but it forgets its batches when the process ends. So the batch goes through the client that
Inspect opened, and the id is kept: a restart collects the batch. A batch is *announced* in the store before it is
sent; where a process ended between sending and keeping the id, the provider's list of batches is searched first.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from bystander.core.errors import JudgeError
from bystander.judge.answer_store import OpenBatch, RawAnswer
from bystander.judge.batch_apis import BatchApi, FailedRequest, batch_api
from bystander.judge.client import Client
from bystander.judge.requests import Request, Session
from bystander.judge.retry import FINAL, status_of, wait_before

LARGEST = 10_000  # requests a batch; both providers take more, but a lost one is then lost in small pieces
ROUNDS = 3  # times that a request is sent: expired and failed ones are sent again
FIRST_LOOK = 1.0  # seconds until the second look at a batch; doubled up to judge.poll, since a small one ends soon
TRIES = 6  # of one call that creates, looks at, or fetches a batch
T = TypeVar("T")


async def ask_in_batches(client: Client, todo: Sequence[Request], emit: Callable[[RawAnswer], None]) -> None:
    """Answer `todo` by batches; open batches of an earlier process are collected first. Raises JudgeError where the
    provider has no batch interface, or the cap would be passed."""
    async with client.session() as session:
        work = _Batches(client, session, batch_api(session), emit, {request.key: request for request in todo})
        await work.collect_open()
        for _ in range(ROUNDS):
            if not work.left:
                return
            await work.send(list(work.left.values()))
            await work.collect_open()
    for key in work.left:
        reason = f"no answer in {ROUNDS} batches: {work.reasons.get(key, 'not in the results')}"
        emit(RawAnswer(key, None, reason=reason, attempts=ROUNDS))


def check_access(client: Client) -> None:
    """Look at the list of batches, which costs nothing: raises JudgeError where the key is refused, the server is not
    there, or the provider has no batch interface."""

    async def look() -> None:
        async with client.session() as session:
            nobody = OpenBatch("preflight", None, -1, frozenset())
            api = batch_api(session)
            await _patiently(client, lambda: api.find(nobody))

    with ThreadPoolExecutor(1) as pool:  # a thread of its own: the caller may have an event loop
        pool.submit(asyncio.run, look()).result()


@dataclass
class _Batches:
    """The requests of one call. `left` have no answer yet; `reasons`: why the last try of some failed."""

    client: Client
    session: Session
    api: BatchApi
    emit: Callable[[RawAnswer], None]
    left: dict[str, Request]
    reasons: dict[str, str] = field(default_factory=dict[str, str])

    async def send(self, requests: Sequence[Request]) -> None:
        """Announce and send, in batches of at most LARGEST. Raises JudgeError where the cap would be passed."""
        rates = self.session.rates
        read = sum(rates.input_tokens(len(request.prompt)) for request in requests)
        self.client.check_cap(self.client.cost(read, rates.output * len(requests)))
        for start in range(0, len(requests), LARGEST):
            await self._send_one(requests[start : start + LARGEST])

    async def _send_one(self, requests: Sequence[Request]) -> None:
        nonce = uuid.uuid4().hex
        batch = OpenBatch(nonce, None, len(requests), frozenset(request.key for request in requests))
        self.client.store.announce(nonce, self.client.endpoint(), [request.key for request in requests])

        async def again() -> str:
            # After a call that broke off, the batch may be there: look before sending it again.
            return await self.api.find(batch) or await self.api.create(nonce, requests)

        self.client.store.sent(nonce, await _patiently(self.client, lambda: self.api.create(nonce, requests), again))

    async def collect_open(self) -> None:
        """Wait for every open batch that holds some of `left` and keep its answers. Batches without any are another
        caller's business."""
        store = self.client.store
        for batch in store.open_batches(self.client.endpoint()):
            if not batch.keys.isdisjoint(self.left):
                await self._collect(batch)
                store.close_batch(batch.nonce)

    async def _collect(self, batch: OpenBatch) -> None:
        """The answers of one batch, those in `left` emitted and taken out; none of one that was never sent."""
        client, api = self.client, self.api
        batch_id = batch.id or await _patiently(client, lambda: api.find(batch))
        if batch_id is None:
            return
        if batch.id is None:
            client.store.sent(batch.nonce, batch_id)
        wait = FIRST_LOOK
        while not await _patiently(client, lambda: api.ended(batch_id)):
            await asyncio.sleep(min(wait, client.settings.poll))
            wait *= 2
        for key, result in await _patiently(client, lambda: _all(api, batch_id)):
            if key not in batch.keys:
                continue
            if isinstance(result, FailedRequest):
                self.reasons[key] = client.hide(result.reason)
                continue
            answer = client.keep(self.left.get(key) or Request(key, ""), result, self.session.rates)
            if self.left.pop(key, None) is not None:
                self.emit(answer)


async def _all(api: BatchApi, batch_id: str) -> list[tuple[str, RawAnswer | FailedRequest]]:
    return [one async for one in api.results(batch_id)]


async def _patiently(
    client: Client, call: Callable[[], Awaitable[T]], again: Callable[[], Awaitable[T]] | None = None
) -> T:
    """`call`, and after a failure that may pass `again` (default: the same), with growing waits."""
    for attempt in range(1, TRIES + 1):
        try:
            async with asyncio.timeout(max(client.settings.timeout, 60.0)):
                return await (call if attempt == 1 or again is None else again)()
        except Exception as error:
            status, reason = status_of(error), client.explain(error)
            client.raise_if_fatal(error, status, reason)
            if attempt == TRIES or status in FINAL:
                raise JudgeError(
                    f"the batch interface of {client.settings.model!r} failed: {reason}. What was sent is kept: start "
                    "again later to collect it"
                ) from None
            await asyncio.sleep(wait_before(attempt, error, "batch"))
    raise AssertionError("unreachable")
