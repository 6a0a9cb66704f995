"""The judge's client as the `Send` of `data secure`: batches, cache, retries, cap and ledger are the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from bystander.core.hashing import stable_hash
from bystander.judge.answer_store import AnswerStore
from bystander.judge.client import Ask, Client
from bystander.judge.cost import Forecast
from bystander.judge.keys import find_key
from bystander.judge.settings import JudgeSettings

MAX_TOKENS = 1500  # the longest insecure answer of Betley's set has about 420; a secure one may be twice that and more


def secure_settings(
    model: str, *, dollars: float | None, base_url: str | None = None, key_env: str | None = None, batch: bool = True
) -> JudgeSettings:
    """Settings to generate code with: temperature 0, long answers, no log-probabilities."""
    return JudgeSettings(
        model=model, base_url=base_url, key_env=key_env, temperature=0.0, max_tokens=MAX_TOKENS, top_logprobs=0, timeout=180.0,
        batch=batch, dollars=dollars,
    )  # fmt: skip


class SecureSender:
    """Sends prompts to a model. `cache` keeps answers and open batches over restarts; `source` names the code set in
    the ledger; `expected` is `code_secure.expected_tokens`. Raises JudgeError for a missing key or price."""

    def __init__(
        self, settings: JudgeSettings, cache: Path | None, source: str, expected: float, folder: Path | None = None
    ) -> None:
        purpose = "secure " + stable_hash(source, settings.model, settings.base_url)[:16]
        self.client = Client(
            settings, AnswerStore(cache), purpose, key=find_key(settings, folder), output_tokens=expected
        )

    def forecast(self, prompts: Mapping[str, str]) -> Forecast:
        """What sending would cost, before anything is sent. Raises JudgeError if that passes the cap."""
        forecast = self.client.forecast(list(self._asks(prompts).values()))
        self.client.check_cap(forecast.dollars)
        return forecast

    def __call__(self, prompts: Mapping[str, str]) -> Iterator[tuple[str, str | None, str]]:
        """Send: (id, text or None, reason) as answers come."""
        asks = self._asks(prompts)
        ids: dict[str, list[str]] = {}
        for key, ask in asks.items():
            ids.setdefault(ask.key, []).append(key)
        for answer in self.client.ask(list(asks.values())):
            for key in ids[answer.key]:
                yield key, answer.text, answer.reason

    def _asks(self, prompts: Mapping[str, str]) -> dict[str, Ask]:
        return {key: Ask(self.client.key_for("secure", prompt), prompt) for key, prompt in prompts.items()}
