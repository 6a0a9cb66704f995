"""Requests to a model through Inspect's `get_model`: cached, retried, bounded, capped. The judge and `data secure` use it."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from bystander.core.errors import JudgeError
from bystander.core.hashing import seed_for, stable_hash
from bystander.judge.answer_store import Alternative, AnswerStore, Ledger, Payment, RawAnswer
from bystander.judge.cost import Forecast, Rates, dollars, forecast, price_of, rates
from bystander.judge.keys import Secret, find_key, provider_of, redact
from bystander.judge.settings import JudgeSettings, Price

if TYPE_CHECKING:
    from inspect_ai.model import GenerateConfig, Model, ModelOutput

INSTALL = "the judge needs Inspect: pip install 'bystander[judge]'"
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds; doubled from the first to the longest, as the providers' SDKs do
FINAL = frozenset({400, 413, 422})  # the request itself is refused: asking again gives the same
FATAL = {401: "refuses the key", 403: "refuses the key or the model", 404: "does not know the model or the address"}
SDK_RETRIES = frozenset({"openai", "openai-api", "anthropic"})  # providers whose SDK would retry behind our back
GIVE_UP_AFTER = 10  # requests in a row that failed for good, with no success between: the server is down


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: a prompt, and the key under which its answer is kept."""

    key: str
    prompt: str


@dataclass
class Flight:
    """State of one run of requests on the event loop. `reserved` dollars are those of requests in flight."""

    model: Model
    config: GenerateConfig
    rate: Rates
    reserved: float = 0.0
    failed_in_a_row: int = 0


class Client:
    """Asks a model. `purpose` names what pays (a run): the ledger and the cap are over all processes of a purpose."""

    def __init__(
        self,
        settings: JudgeSettings,
        store: AnswerStore,
        purpose: str,
        *,
        key: Secret | None = None,
        output_tokens: float | None = None,
    ) -> None:
        """Raises JudgeError for a missing key, a name without a provider, or an unknown price; nothing is sent."""
        provider_of(settings.model)
        self.settings = settings
        self.store = store
        self.purpose = purpose
        self.secret = key or find_key(settings)
        self.price: Price = price_of(settings)
        self.output_tokens = output_tokens

    def identity(self) -> list[object]:
        """What decides an answer, the prompt aside."""
        s = self.settings
        return [s.model, s.base_url, s.temperature, s.max_tokens, s.top_logprobs]

    def key_for(self, *parts: object) -> str:
        """The cache key of a request: model, parameters and `parts`."""
        return stable_hash("ask", self.identity(), *parts)

    def endpoint(self) -> str:
        """Names the account's side of a batch: model and address."""
        return stable_hash("endpoint", self.settings.model, self.settings.base_url)

    def ledger(self) -> Ledger:
        """What this purpose has paid so far."""
        return self.store.ledger(self.purpose)

    def forecast(self, asks: Sequence[Ask]) -> Forecast:
        """What asking would cost; what is cached costs nothing."""
        different = {ask.key: ask.prompt for ask in asks}
        todo = [prompt for key, prompt in different.items() if self.store.get(key) is None]
        return forecast(self.settings, self.store, todo, len(different) - len(todo), self.output_tokens)

    def ask(self, asks: Sequence[Ask]) -> Iterator[RawAnswer]:
        """An answer to every different key, as they come; those in the cache first. Runs its own thread and event
        loop, so that it works under a caller's loop too. Closing the iterator cancels what is in flight.

        Raises JudgeError if the key or model is refused, the cap would be passed, or the server is down. What was
        answered until then is kept: asking again pays for the rest only.
        """
        todo: list[Ask] = []
        for ask in {ask.key: ask for ask in asks}.values():
            kept = self.store.get(ask.key)
            if kept is None:
                todo.append(ask)
            else:
                yield kept
        if todo:
            yield from self._in_thread(todo)

    def _in_thread(self, todo: list[Ask]) -> Iterator[RawAnswer]:
        results: queue.Queue[RawAnswer | BaseException | None] = queue.Queue()
        loop = asyncio.new_event_loop()
        task: list[asyncio.Task[None]] = []

        async def main() -> None:
            current = asyncio.current_task()
            assert current is not None
            task.append(current)
            if self.settings.batch:
                from bystander.judge.batch import ask_in_batches

                await ask_in_batches(self, todo, results.put)
            else:
                await self._ask_all(todo, results)

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

    async def _ask_all(self, todo: list[Ask], results: queue.Queue[RawAnswer | BaseException | None]) -> None:
        async with self.model() as flight:
            waiting = iter(todo)

            async def worker() -> None:
                for ask in waiting:  # one iterator for all workers: next() has no await in it
                    results.put(await self._one(flight, ask))

            workers = [asyncio.create_task(worker()) for _ in range(min(self.settings.concurrency, len(todo)))]
            try:
                await asyncio.gather(*workers)
            finally:
                for one in workers:
                    one.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    def model(self) -> _Opened:
        """The model, open on the running event loop: `async with client.model() as flight`."""
        return _Opened(self)

    async def _one(self, flight: Flight, ask: Ask) -> RawAnswer:
        """Ask until there is an answer, the request is refused for good, or the retries are used up."""
        estimate = self._estimate(flight, ask)
        self._stay_under_cap(flight, estimate)
        flight.reserved += estimate
        reason, attempt = "", 0
        try:
            for attempt in range(1, self.settings.retries + 2):
                try:
                    async with asyncio.timeout(self.settings.timeout):
                        output = await generate(flight, ask.prompt)
                    answer = self.keep(ask, output, flight.rate, attempt)
                    flight.failed_in_a_row = 0
                    return answer
                except Exception as error:
                    reason = self.explain(error)
                    status = status_of(error)
                    self.raise_if_fatal(error, status, reason)
                    if status in FINAL:
                        break
                    if status is None:  # sent, and nothing readable came back: it may be billed
                        tokens = flight.rate.input_tokens(len(ask.prompt))
                        self._pay("uncertain", ask.key, tokens, 0, estimated=True)
                    if attempt <= self.settings.retries:
                        await asyncio.sleep(wait_before(attempt, error, ask.key))
        finally:
            flight.reserved -= estimate
        flight.failed_in_a_row += 1
        if flight.failed_in_a_row >= GIVE_UP_AFTER:
            raise JudgeError(
                f"{flight.failed_in_a_row} requests in a row to {self.settings.model!r} failed for good; the last: {reason}"
            )
        return RawAnswer(ask.key, None, reason=f"no answer after {attempt} attempts: {reason}", attempts=attempt)

    def keep(self, ask: Ask, output: ModelOutput, rate: Rates, attempt: int) -> RawAnswer:
        """Keep a well-formed answer with its payment. It is final, whatever it says: it was paid for."""
        answer = replace(read_output(ask.key, output), attempts=attempt)
        return self.keep_answer(ask, answer, rate)

    def keep_answer(self, ask: Ask, answer: RawAnswer, rate: Rates) -> RawAnswer:
        """Keep an answer; token counts that the provider did not give are estimated, and the ledger says so."""
        answer = replace(answer, text=self.hide(answer.text or ""), first=self.hide(answer.first))
        read, written, estimated = answer.input_tokens, answer.output_tokens, False
        if not read:
            read, written, estimated = (
                rate.input_tokens(len(ask.prompt)),
                rate.input_tokens(len(answer.text or "")) + 1,
                True,
            )
        cost = dollars(self.price, read, written, batch=self.settings.batch)
        payment = Payment("paid", ask.key, read, written, cost, estimated)
        self.store.put(answer, self.settings.model, self.purpose, payment, len(ask.prompt))
        return answer

    def _pay(self, kind: Any, key: str, read: int, written: int, *, estimated: bool) -> None:
        cost = dollars(self.price, read, written, batch=self.settings.batch)
        self.store.pay(self.settings.model, self.purpose, Payment(kind, key, read, written, cost, estimated))

    def rate(self) -> Rates:
        """Token rates to estimate with."""
        return rates(self.store, self.settings.model, self.output_tokens)

    def _estimate(self, flight: Flight, ask: Ask) -> float:
        read = flight.rate.input_tokens(len(ask.prompt))
        return dollars(self.price, read, flight.rate.output, batch=self.settings.batch)

    def _stay_under_cap(self, flight: Flight, estimate: float) -> None:
        if self.settings.dollars is not None and self.price != Price(input=0, output=0):
            self.check_cap(flight.reserved + estimate)

    def check_cap(self, more: float) -> None:
        """Raises JudgeError if `more` dollars would pass the cap."""
        cap = self.settings.dollars
        ledger = self.ledger()
        spent = ledger.dollars + ledger.uncertain
        if cap is not None and spent + more > cap:
            raise JudgeError(
                f"the next request would pass the cap of ${cap:.4f} (judge.dollars): ${spent:.4f} are spent on "
                f"{ledger.requests} requests; raise the cap and start again, nothing that was answered is paid for again"
            )

    def explain(self, error: BaseException) -> str:
        """An error as one line, without the key."""
        kind = "timed out" if isinstance(error, TimeoutError) else type(error).__name__
        text = " ".join(str(error).split())
        shown = text if len(text) <= 200 else text[:197] + "..."
        return self.hide(f"{kind}: {shown}" if shown else kind)

    def hide(self, text: str) -> str:
        """A text from the provider, without the key."""
        return redact(text, [self.secret])

    def raise_if_fatal(self, error: BaseException, status: int | None, reason: str) -> None:
        """Raises JudgeError for what no other request can pass: a refused key, an unknown model, no credit."""
        where = f" at {self.settings.base_url}" if self.settings.base_url else ""
        if status in FATAL:
            raise JudgeError(f"{self.settings.model!r}{where} {FATAL[status]}: {reason}") from None
        if status == 402 or "insufficient_quota" in str(error):
            raise JudgeError(f"the account for {self.settings.model!r}{where} has no credit left: {reason}") from None


class _Opened:
    """Opens Inspect's model for one event loop and closes its connections at the end."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def __aenter__(self) -> Flight:
        client = self.client
        self.model, config = open_model(client.settings, client.secret)
        return Flight(self.model, config, client.rate())

    async def __aexit__(self, *_: object) -> None:
        close = getattr(self.model.api, "aclose", None)
        if close is not None:
            with suppress(Exception):  # a connection that the server has cut cannot be closed politely
                await close()


def open_model(settings: JudgeSettings, secret: Secret | None) -> tuple[Model, GenerateConfig]:
    """Inspect's model and the parameters of its requests. Raises JudgeError if Inspect or the provider is not there."""
    try:
        from inspect_ai.model import GenerateConfig, get_model
    except ImportError:
        raise JudgeError(INSTALL) from None
    logprobs = settings.top_logprobs > 0 and provider_of(settings.model) != "anthropic"  # which has none to give
    config = GenerateConfig(
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
        cache_prompt=False,  # prompts differ from their first item on; writing a prompt cache costs more than it saves
        logprobs=True if logprobs else None,
        top_logprobs=settings.top_logprobs if logprobs else None,
    )
    extra: dict[str, Any] = {"max_retries": 0} if provider_of(settings.model) in SDK_RETRIES else {}
    try:
        model = get_model(
            settings.model,
            config=config,
            base_url=settings.base_url,
            api_key=secret.value if secret else None,
            memoize=False,
            **extra,
        )
    except (
        Exception
    ) as error:  # a provider's package is missing, the name is unknown: each provider has errors of its own
        text = redact(" ".join(str(error).split()), [secret])
        raise JudgeError(f"the judge {settings.model!r} cannot be opened: {text}") from None
    return model, config


async def generate(flight: Flight, prompt: str) -> ModelOutput:
    """One request through the provider that Inspect chose, without Inspect's own retries, which would pay unseen.
    Raises what the provider raises, and ValueError for an answer with no choice in it."""
    from inspect_ai.model import ChatMessageUser

    result = await flight.model.api.generate([ChatMessageUser(content=prompt)], [], "none", flight.config)
    output = result[0] if isinstance(result, tuple) else result
    if isinstance(output, Exception):
        raise output
    if not output.choices:
        raise ValueError("the answer has no choices")
    return output


def read_output(key: str, output: ModelOutput) -> RawAnswer:
    """A model output as a raw answer: the text, and the first token with its alternatives."""
    choice = output.choices[0]
    first, alternatives = "", ()
    if choice.logprobs is not None and choice.logprobs.content:
        token = choice.logprobs.content[0]
        first = token.token
        alternatives = tuple(Alternative(t.token, t.logprob) for t in token.top_logprobs or [])
    usage = output.usage
    return RawAnswer(
        key,
        output.completion,
        str(choice.stop_reason),
        first,
        alternatives,
        usage.input_tokens if usage else 0,
        usage.output_tokens if usage else 0,
    )


def status_of(error: BaseException) -> int | None:
    """The HTTP status of a provider's error, or None where there was no answer."""
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) else None


def wait_before(attempt: int, error: BaseException, key: str) -> float:
    """Seconds to wait after a failed attempt (from 1): doubling, with a spread of a quarter that the key decides, and
    never less than the server's Retry-After."""
    wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempt - 1))
    spread = seed_for(key, attempt) / 2**63  # in [0, 1)
    return max(wait * (0.75 + 0.5 * spread), retry_after(error))


def retry_after(error: BaseException) -> float:
    """The server's Retry-After in seconds (a number, or a date); 0 where there is none."""
    headers: Mapping[str, str] = getattr(getattr(error, "response", None), "headers", None) or {}
    value = headers.get("retry-after")
    if value is None:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        from datetime import UTC, datetime

        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0
