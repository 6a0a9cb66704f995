"""What judging costs: prices, token estimates, and the forecast that is shown before anything is sent."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from bystander.core.errors import JudgeError
from bystander.judge.answer_store import AnswerStore
from bystander.judge.settings import JudgeSettings, Price

# Dollars a million tokens. List prices change: a study that pays for real should state `price` itself.
PRICES: dict[str, Price] = {
    "gpt-4o": Price(input=2.5, output=10.0),  # openai.com/api/pricing, list price of gpt-4o-2024-08-06
    "gpt-4o-mini": Price(input=0.15, output=0.6),  # openai.com/api/pricing
    "gpt-4.1": Price(input=2.0, output=8.0),  # openai.com/api/pricing
    "gpt-4.1-mini": Price(input=0.4, output=1.6),  # openai.com/api/pricing
    "gpt-4.1-nano": Price(input=0.1, output=0.4),  # openai.com/api/pricing
    "claude-3-5-haiku": Price(input=0.8, output=4.0),  # docs.anthropic.com, pricing
    "claude-haiku-4-5": Price(input=1.0, output=5.0),  # docs.anthropic.com, pricing
    "claude-sonnet-4": Price(input=3.0, output=15.0),  # docs.anthropic.com, pricing
    "claude-sonnet-4-5": Price(input=3.0, output=15.0),  # docs.anthropic.com, pricing
    "claude-opus-4-5": Price(input=5.0, output=25.0),  # docs.anthropic.com, pricing
}
BATCH_FACTOR = 0.5  # both providers' batch interfaces: half the list price (their pricing pages)
TOKENS_PER_CHAR = 1 / 4.2  # English prose under byte-pair vocabularies of 50k-200k; replaced by what the model reported
OUTPUT_TOKENS = 2.0  # a number and the end of the turn; replaced by what the model reported
CALIBRATED = 20  # answers from which on the reported rates are trusted


@dataclass(frozen=True, slots=True)
class Forecast:
    """What sending would cost. `requests` leaves out what is in the cache (`cached`). `calibrated`: token rates come
    from this model's earlier answers and not from rules of thumb."""

    requests: int
    cached: int
    input_tokens: int
    output_tokens: int
    dollars: float
    calibrated: bool


def is_local(base_url: str | None) -> bool:
    """Whether a server runs on this machine."""
    host = urlsplit(base_url).hostname if base_url else None
    return host in {"localhost", "127.0.0.1", "::1", "0.0.0.0"}


def price_of(settings: JudgeSettings) -> Price:
    """The price of a judge: the study's own; 0 for a server on this machine; the table's, also for a dated name of a
    listed model. Raises JudgeError where none is known, since a cap without a price is none."""
    if settings.price is not None:
        return settings.price
    if is_local(settings.base_url):
        return Price(input=0.0, output=0.0)
    name = settings.model.rsplit("/", 1)[-1]
    undated = re.sub(r"-(\d{8}|\d{4}-\d{2}-\d{2}|latest)$", "", name)
    for candidate in (name, undated):
        if candidate in PRICES:
            return PRICES[candidate]
    raise JudgeError(
        f"no price is known for the judge {settings.model!r}: state it as judge.price, e.g. "
        "price: {input: 2.5, output: 10.0} (dollars a million tokens; 0 for a server of your own)"
    )


def dollars(price: Price, input_tokens: float, output_tokens: float, *, batch: bool) -> float:
    """Cost in dollars."""
    full = (price.input * input_tokens + price.output * output_tokens) / 1e6
    return full * (BATCH_FACTOR if batch else 1.0)


@dataclass(frozen=True, slots=True)
class Rates:
    """How many tokens a prompt and an answer of a model have."""

    per_char: float
    output: float
    calibrated: bool

    def input_tokens(self, chars: int) -> int:
        """Tokens of a prompt of that many characters."""
        return math.ceil(chars * self.per_char)


def rates(store: AnswerStore, model: str, output: float | None = None) -> Rates:
    """Rates from the model's earlier answers, from CALIBRATED on; else rules of thumb. `output`: tokens an answer
    that the caller knows better (generated code)."""
    per_char, written, n = store.rates(model)
    if n >= CALIBRATED:
        return Rates(per_char, output or written, True)
    return Rates(TOKENS_PER_CHAR, output or OUTPUT_TOKENS, False)


def forecast(
    settings: JudgeSettings, store: AnswerStore, todo: Sequence[str], cached: int, output: float | None = None
) -> Forecast:
    """The cost of sending the prompts `todo`. Raises JudgeError where the price is not known."""
    rate = rates(store, settings.model, output)
    read = sum(rate.input_tokens(len(prompt)) for prompt in todo)
    written = math.ceil(rate.output * len(todo))
    cost = dollars(price_of(settings), read, written, batch=settings.batch)
    return Forecast(len(todo), cached, read, written, cost, rate.calibrated)
