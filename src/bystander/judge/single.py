"""Requests one by one: retried, bounded, capped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from bystander.core.errors import JudgeError
from bystander.judge.answer_store import RawAnswer
from bystander.judge.client import Client
from bystander.judge.provider import generate, read_output
from bystander.judge.requests import Request, Session
from bystander.judge.retry import FINAL, status_of, wait_before

GIVE_UP_AFTER = 10  # requests in a row that failed for good, with no success between: the server is down


async def ask_one_by_one(client: Client, todo: Sequence[Request], emit: Callable[[RawAnswer], None]) -> None:
    """Answer `todo`, `concurrency` at a time; a request without an answer is emitted with its reason. Raises JudgeError
    if the key or model is refused, the cap would be passed, or the server is down."""
    async with client.session() as session:
        waiting = iter(todo)

        async def worker() -> None:
            for request in waiting:  # one iterator for all workers: next() has no await in it
                emit(await _ask(client, session, request))

        workers = [asyncio.create_task(worker()) for _ in range(min(client.settings.concurrency, len(todo)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for one in workers:
                one.cancel()
            await asyncio.gather(*workers, return_exceptions=True)


async def _ask(client: Client, session: Session, request: Request) -> RawAnswer:
    """Ask until there is an answer, the request is refused for good, or the retries are used up."""
    cost = client.cost(session.rates.input_tokens(len(request.prompt)), session.rates.output)
    client.check_cap(session.reserved + cost)
    session.reserved += cost
    try:
        answer = await _attempts(client, session, request)
    finally:
        session.reserved -= cost
    session.failed_in_a_row = 0 if answer.text is not None else session.failed_in_a_row + 1
    if session.failed_in_a_row >= GIVE_UP_AFTER:
        raise JudgeError(
            f"{session.failed_in_a_row} requests in a row to {client.settings.model!r} got no answer; the last: "
            f"{answer.reason}. What was answered is kept: start again when the server is back"
        )
    return answer


async def _attempts(client: Client, session: Session, request: Request) -> RawAnswer:
    reason, attempt = "", 0
    for attempt in range(1, client.settings.retries + 2):
        try:
            async with asyncio.timeout(client.settings.timeout):
                answer = read_output(request.key, await generate(session, request.prompt), attempt)
        except Exception as error:
            reason, status = client.explain(error), status_of(error)
            client.raise_if_fatal(error, status, reason)
            if status in FINAL:
                break
            if status is None:  # sent, and nothing readable came back
                client.pay_uncertain(request, session.rates)
            if attempt <= client.settings.retries:
                await asyncio.sleep(wait_before(attempt, error, request.key))
        else:
            return client.keep(request, answer, session.rates)
    tries = f"{attempt} attempt{'s' * (attempt != 1)}"
    return RawAnswer(request.key, None, reason=f"no answer after {tries}: {reason}", attempts=attempt)
