"""Settings of a judge, as study files write them. No torch, no network."""

from __future__ import annotations

from pydantic import Field

from bystander.core.settings import Settings


class Price(Settings):
    """Dollars a million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)


class JudgeSettings(Settings):
    """Which model judges, and how.

    `model`: a name as Inspect writes it: "openai/gpt-4o-2024-08-06", "anthropic/...", or for any OpenAI-compatible
    server "openai-api/NAME/MODEL" with `base_url`. `key_env`: the variable (in the environment or in `.env`) that
    holds the key; None: the provider's usual one. `price`: None for the list price; 0 for a server of one's own.
    """

    model: str
    base_url: str | None = None
    key_env: str | None = None
    temperature: float = Field(default=0.0, ge=0)
    max_tokens: int = Field(default=16, ge=1)  # a number or a word; reasoning models need more
    top_logprobs: int = Field(default=20, ge=0, le=20)  # 20: the most that OpenAI gives; 0: never ask for any
    timeout: float = Field(default=60.0, gt=0)  # seconds a request
    retries: int = Field(default=6, ge=0)  # after the first attempt
    concurrency: int = Field(default=16, ge=1)
    batch: bool = False  # the provider's batch interface: half the price, up to a day
    poll: float = Field(default=30.0, gt=0)  # seconds between looks at a batch
    dollars: float | None = Field(default=None, ge=0)  # cap over everything this run pays to the judge; None: none
    price: Price | None = None
    failed_share: float = Field(default=0.05, ge=0, le=1)  # above it, a unit of work fails loudly

    def identity(self) -> list[object]:
        """What decides an answer, the prompt aside."""
        return [self.model, self.base_url, self.temperature, self.max_tokens, self.top_logprobs]
