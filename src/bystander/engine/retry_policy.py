"""What follows an error in a cell: another try with smaller batches, another try on another worker, or none."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from bystander.core import doors
from bystander.core.errors import BystanderError, StoreError

MESSAGE_CHARACTERS = 2_000  # an error's text goes into an event; some libraries write pages

Retry = Literal["smaller_batch", "alone", "other_worker", "again", "never", "abort"]


class JointPassFailed(Exception):
    """Several trainings in joint passes were given up, for a reason that is none of theirs in particular: its cause."""


@dataclass(frozen=True, slots=True)
class CellFailure:
    """Why a cell failed. `retry`: with smaller batches, by itself instead of in joint passes, on another worker, again as it is, never (the fault is in the
    data, the study or the code), or abort the whole run, since every other cell would fail in the same way."""

    retry: Retry
    message: str
    kind: str  # the error's class


def cell_failure(error: BaseException) -> CellFailure:
    """What follows an error; its causes count too, since a library's error often wraps the one that matters."""
    chain = list(_chain(error))
    message = (f"{error}".strip() or type(error).__name__)[:MESSAGE_CHARACTERS]
    joint = isinstance(error, JointPassFailed)
    for one in chain:
        retry = _retry(one)
        if joint and retry not in ("smaller_batch", "abort"):
            continue
        if retry == "other_worker":
            message = f"the worker or its node died ({message.splitlines()[0]})"
        if retry == "abort" and not isinstance(error, StoreError):
            message = (
                f"no space left while writing ({message}); all complete cells are saved: free some space and run again"
            )
        if retry is not None:
            return CellFailure(retry, message, type(error).__name__)
    if joint:
        return CellFailure("alone", message, type(error).__name__)
    # An error that nobody foresaw is a fault in the code: the same again on the same input.
    return CellFailure("never", f"{type(error).__name__}: {message}", type(error).__name__)


@cache
def _worker_died() -> frozenset[str]:
    """What any executor calls the death of a worker."""
    return frozenset(name for kind in doors.names("executor") for name in doors.load("executor", kind).worker_died)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The cause of the cause first: it is nearest to what really happened."""
    chain: list[BaseException] = []
    here: BaseException | None = error
    while here is not None and here not in chain:
        chain.append(here)
        here = here.__cause__ or here.__context__
    return reversed(chain)


def _retry(error: BaseException) -> Retry | None:
    name = type(error).__name__
    if isinstance(error, MemoryError) or name == "OutOfMemoryError" or "out of memory" in str(error).lower():
        return "smaller_batch"
    if "no space left" in str(error).lower() or "code: 28" in str(
        error
    ):  # safetensors wraps the system's error in text
        return "abort"
    if name in _worker_died():
        return "other_worker"
    if isinstance(error, ConnectionError | TimeoutError):
        return "again"
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return "abort"
        if error.errno in (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.EAGAIN):
            return "again"
        return None
    return "never" if isinstance(error, BystanderError) else None
