"""Asking from ordinary code: answers as they come, from the cache, one by one or in batches."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress

from bystander.judge.answer_store import RawAnswer
from bystander.judge.batch import ask_in_batches
from bystander.judge.client import Client
from bystander.judge.requests import Request
from bystander.judge.single import ask_one_by_one


def ask(client: Client, requests: Sequence[Request]) -> Iterator[RawAnswer]:
    """An answer to every different key, as they come; those in the cache first. Runs its own thread and event loop, so
    that it works under a caller's loop too. Closing the iterator cancels what is in flight.

    Raises JudgeError if the key or model is refused, the cap would be passed, or the server is down. What was answered
    until then is kept: asking again pays for the rest only.
    """
    todo: list[Request] = []
    for request in {request.key: request for request in requests}.values():
        kept = client.store.get(request.key)
        if kept is None:
            todo.append(request)
        else:
            yield kept
    if todo:
        yield from _in_thread(client, todo)


def _in_thread(client: Client, todo: list[Request]) -> Iterator[RawAnswer]:
    results: queue.Queue[RawAnswer | BaseException | None] = queue.Queue()
    loop = asyncio.new_event_loop()
    task: list[asyncio.Task[None]] = []

    async def main() -> None:
        current = asyncio.current_task()
        assert current is not None
        task.append(current)
        await (ask_in_batches if client.settings.batch else ask_one_by_one)(client, todo, results.put)

    def work() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(main())
            results.put(None)
        except BaseException as error:
            results.put(error)

    thread = threading.Thread(target=work, name="bystander-judge", daemon=True)
    thread.start()
    try:
        while (item := results.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        if task:
            with suppress(RuntimeError):  # the loop has ended by itself
                loop.call_soon_threadsafe(task[0].cancel)
        thread.join(timeout=30)
