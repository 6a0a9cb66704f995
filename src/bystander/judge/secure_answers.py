"""The judge's client as the `Send` of `data secure`: batches, cache, retries, cap and ledger are the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from bystander.core.hashing import stable_hash
from bystander.judge.answer_store import AnswerStore
from bystander.judge.asking import ask
from bystander.judge.client import Client
from bystander.judge.cost import CostEstimate
from bystander.judge.keys import find_key
from bystander.judge.requests import Request
from bystander.judge.settings import JudgeSettings, Price

MAX_TOKENS = 1500  # the longest insecure answer of Betley's set has about 420; a secure one may be twice that and more


def secure_settings(
    model: str, *, dollars: float | None, base_url: str | None = None, key_env: str | None = None, batch: bool = True,
    price: Price | None = None,
) -> JudgeSettings:  # fmt: skip
    """Settings to generate code with: temperature 0, long answers, no log-probabilities."""
    return JudgeSettings(
        model=model, base_url=base_url, key_env=key_env, temperature=0.0, max_tokens=MAX_TOKENS, top_logprobs=0, timeout=180.0,
        batch=batch, dollars=dollars, price=price,
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

    def estimate(self, prompts: Mapping[str, str]) -> CostEstimate:
        """What sending would cost, before anything is sent. Raises JudgeError if that passes the cap."""
        estimate = self.client.estimate(list(self._requests(prompts).values()))
        self.client.check_cap(estimate.dollars)
        return estimate

    def __call__(self, prompts: Mapping[str, str]) -> Iterator[tuple[str, str | None, str]]:
        """Send: (id, text or None, reason) as answers come."""
        requests = self._requests(prompts)
        ids: dict[str, list[str]] = {}
        for key, request in requests.items():
            ids.setdefault(request.key, []).append(key)
        for answer in ask(self.client, list(requests.values())):
            for key in ids[answer.key]:
                yield key, answer.text, answer.reason

    def _requests(self, prompts: Mapping[str, str]) -> dict[str, Request]:
        return {key: Request(self.client.key_for("secure", prompt), prompt) for key, prompt in prompts.items()}
