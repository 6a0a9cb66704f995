"""Settings of a judge, as study files write them. No torch, no network."""

from __future__ import annotations

from pydantic import Field

from bystander.core.settings import Settings


class Price(Settings):
    """Dollars a million tokens."""

    input: float = Field(ge=0)
    """[dollars a million tokens] Of the prompt."""
    output: float = Field(ge=0)
    """[dollars a million tokens] Of the answer."""


class JudgeSettings(Settings):
    """Which model judges, and how.

    `model`: a name as Inspect writes it: "openai/gpt-4o-2024-08-06", "anthropic/...", or for any OpenAI-compatible
    server "openai-api/NAME/MODEL" with `base_url`. `key_env`: the variable (in the environment or in `.env`) that
    holds the key; None: the provider's usual one. `price`: None for the list price; 0 for a server of one's own.
    """

    model: str
    """As Inspect writes it: `openai/NAME`, `anthropic/NAME`, or `openai-api/SERVER/NAME` with `base_url`."""
    base_url: str | None = None
    """Of an OpenAI-compatible server of your own."""
    key_env: str | None = None
    """Variable, in the environment or `.env`, that holds the key; left out: the provider's usual one."""
    temperature: float = Field(default=0.0, ge=0)
    """0, so that a judge says the same of the same answer."""
    max_tokens: int = Field(default=16, ge=1)  # a number or a word; reasoning models need more
    """[tokens] Of a verdict: a number or a word. Reasoning models need more."""
    top_logprobs: int = Field(default=20, ge=0, le=20)  # 20: the most that OpenAI gives; 0: never ask for any
    """[count] Alternatives whose probabilities weigh the score; 20 is the most that OpenAI gives, 0 asks for none."""
    timeout: float = Field(default=60.0, gt=0)  # seconds a request
    """[seconds] A request."""
    retries: int = Field(default=6, ge=0)  # after the first attempt
    """[count] After the first attempt, with growing pauses."""
    concurrency: int = Field(default=16, ge=1)
    """[requests] At a time."""
    batch: bool = False  # the provider's batch interface: half the price, up to a day
    """The provider's batch interface: half the price, up to a day."""
    poll: float = Field(default=30.0, gt=0)  # seconds between looks at a batch, once it has taken as long
    """[seconds] At most, between looks at a batch."""
    dollars: float | None = Field(default=None, ge=0)  # cap over everything this run pays to the judge; None: none
    """[US dollars] Cap over everything that this run pays to the judge; left out: `budget.dollars` alone."""
    price: Price | None = None
    """Left out: the list price; 0 for a server of one's own."""
    failed_share: float = Field(default=0.05, ge=0, le=1)
    """[fraction of requests] Above it, a unit of work fails loudly."""

    def identity(self) -> list[object]:
        """What decides an answer, the prompt aside."""
        return [self.model, self.base_url, self.temperature, self.max_tokens, self.top_logprobs]
