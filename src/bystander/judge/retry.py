"""Which of a provider's errors may pass, and how long to wait before asking again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from bystander.core.hashing import seed_for

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds; doubled from the first to the longest, as the providers' SDKs do
FINAL = frozenset({400, 413, 422})  # the request itself is refused: asking again gives the same


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
    """The server's Retry-After in seconds (a number, or a date); 0 where there is none that can be read."""
    headers: Mapping[str, str] = getattr(getattr(error, "response", None), "headers", None) or {}
    value = headers.get("retry-after")
    if value is None:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0
