"""What judging costs: prices, token counts, and the estimate that is shown before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from bystander.core.errors import JudgeError
from bystander.judge.answer_store import AnswerStore
from bystander.judge.settings import JudgeSettings, Price

BATCH_FACTOR = 0.5  # both providers' batch interfaces: half the list price (their pricing pages)
TOKENS_PER_CHAR = 1 / 4.2  # English prose under byte-pair vocabularies of 50k-200k; replaced by what the model reported
OUTPUT_TOKENS = 2.0  # a number and the end of the turn; replaced by what the model reported
CALIBRATED = 20  # answers from which on the reported rates are trusted
PRICED = 1_000  # tokens that a list price is asked for: some models cost more a token above 200,000 in one request


@dataclass(frozen=True, slots=True)
class CostEstimate:
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
    """The price of a judge: the study's own; 0 for a server on this machine; else the list price that the installed
    genai-prices has, without asking the network. Raises JudgeError where none is known, since a cap without a price is
    none."""
    if settings.price is not None:
        return settings.price
    if is_local(settings.base_url):
        return Price(input=0.0, output=0.0)
    try:
        return list_price(settings.model)
    except LookupError:
        why = f"no price is known for the judge {settings.model!r}"
    except ImportError:
        why = "list prices need genai-prices (pip install 'bystander[judge]')"
    raise JudgeError(
        f"{why}: state the price in dollars a million tokens, e.g. judge: {{price: {{input: 2.5, output: 10.0}}}} in a "
        "study, --price 2.5 10 on the command line; 0 for a server of your own"
    )


def list_price(model: str) -> Price:
    """The list price of "provider/model", or of "openai-api/NAME/model" by the model's name where NAME is no provider
    that is known. Raises LookupError for an unknown model, ImportError without genai-prices."""
    from genai_prices import Usage, calc_price

    usage = Usage(input_tokens=PRICED, output_tokens=PRICED)
    provider, _, name = model.removeprefix("openai-api/").partition("/")
    try:
        found = calc_price(usage, name, provider_id=provider)
    except LookupError:
        found = calc_price(usage, name.rpartition("/")[2])
    return Price(input=float(found.input_price) * 1e6 / PRICED, output=float(found.output_price) * 1e6 / PRICED)


def dollars(price: Price, input_tokens: float, output_tokens: float, *, batch: bool) -> float:
    """Cost in dollars."""
    full = (price.input * input_tokens + price.output * output_tokens) / 1e6
    return full * (BATCH_FACTOR if batch else 1.0)


@dataclass(frozen=True, slots=True)
class TokenRates:
    """How many tokens a prompt and an answer of a model have."""

    per_char: float
    output: float
    calibrated: bool

    def input_tokens(self, chars: int) -> int:
        """Tokens of a prompt of that many characters."""
        return math.ceil(chars * self.per_char)


def token_rates(store: AnswerStore, model: str, output: float | None = None) -> TokenRates:
    """Rates from the model's earlier answers, from CALIBRATED on; else rules of thumb. `output`: tokens an answer
    that the caller knows better (generated code)."""
    per_char, written, n = store.rates(model)
    if n >= CALIBRATED:
        return TokenRates(per_char, output or written, True)
    return TokenRates(TOKENS_PER_CHAR, output or OUTPUT_TOKENS, False)


def estimate_cost(settings: JudgeSettings, rates: TokenRates, todo: Sequence[str], cached: int = 0) -> CostEstimate:
    """The cost of sending the prompts `todo`. Raises JudgeError where the price is not known."""
    read = sum(rates.input_tokens(len(prompt)) for prompt in todo)
    written = math.ceil(rates.output * len(todo))
    cost = dollars(price_of(settings), read, written, batch=settings.batch)
    return CostEstimate(len(todo), cached, read, written, cost, rates.calibrated)
