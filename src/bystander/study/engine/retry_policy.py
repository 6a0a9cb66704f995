"""What an error in a cell deserves: another try with smaller batches, another try elsewhere, or none."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from bystander.core.errors import BystanderError, StoreError

MESSAGE_CHARACTERS = 2_000  # an error's text goes into an event; some libraries write pages

Deserves = Literal["smaller", "elsewhere", "again", "never", "stop"]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a cell failed. `deserves`: try it with smaller batches, on another worker, again as it is, never (the fault
    is in the data, the study or the code), or stop the whole run, since every other cell would fail in the same way."""

    deserves: Deserves
    message: str
    kind: str  # the error's class


def failure(error: BaseException) -> Failure:
    """What an error deserves; its causes count too, since a library's error often wraps the one that matters."""
    chain = list(_chain(error))
    message = (f"{error}".strip() or type(error).__name__)[:MESSAGE_CHARACTERS]
    for one in chain:
        deserves = _deserves(one)
        if deserves == "elsewhere":
            message = f"the worker or its node died ({message.splitlines()[0]})"
        if deserves == "stop" and not isinstance(error, StoreError):
            message = (
                f"no space left while writing ({message}); all complete cells are kept: free some space and run again"
            )
        if deserves is not None:
            return Failure(deserves, message, type(error).__name__)
    # An error that nobody foresaw is a fault in the code: the same again on the same input.
    return Failure("never", f"{type(error).__name__}: {message}", type(error).__name__)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The cause of the cause first: it is nearest to what really happened."""
    chain: list[BaseException] = []
    here: BaseException | None = error
    while here is not None and here not in chain:
        chain.append(here)
        here = here.__cause__ or here.__context__
    return reversed(chain)


def _deserves(error: BaseException) -> Deserves | None:
    name = type(error).__name__
    if isinstance(error, MemoryError) or name == "OutOfMemoryError" or "out of memory" in str(error).lower():
        return "smaller"
    if "no space left" in str(error).lower() or "code: 28" in str(
        error
    ):  # safetensors wraps the system's error in text
        return "stop"
    if name in (
        "BrokenProcessPool",
        "RayActorError",
        "ActorDiedError",
        "ActorUnavailableError",
        "WorkerCrashedError",
        "NodeDiedError",
    ):
        return "elsewhere"
    if isinstance(error, ConnectionError | TimeoutError):
        return "again"
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return "stop"
        if error.errno in (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.EAGAIN):
            return "again"
        return None
    return "never" if isinstance(error, BystanderError) else None
