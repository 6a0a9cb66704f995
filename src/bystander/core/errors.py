"""The errors that a user can cause. Each message says what is wrong, the value, where, and what to do."""

from __future__ import annotations

from collections.abc import Sequence


class BystanderError(Exception):
    """Root of every error that bystander raises on purpose; the command line prints it and exits with code 2."""


class StudyError(BystanderError):
    """A study file cannot be run. Carries every fault of the file, not the first one only."""

    def __init__(self, message: str, faults: Sequence[str] = ()) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join([message, *(f"  - {fault}" for fault in faults)]))


class DataError(BystanderError):
    """A question set, code set, persona file or table does not have the form that it must have."""


class DesignError(BystanderError):
    """The audit refused the rows of a training design."""


class ModelError(BystanderError):
    """A model, tokenizer, chat template or adapter cannot be used as asked."""


class JudgeError(BystanderError):
    """A judge cannot be reached, is not allowed, or failed too often."""


class StoreError(BystanderError):
    """A run directory cannot be read or written as asked."""


def few_names(names: list[str], most: int = 8, uncounted: int = 0) -> str:
    """Names for a sentence: the first `most` of them, and how many more there are, `uncounted` ones that `names` lacks
    among them."""
    left = max(len(names) - most, 0) + uncounted
    return ", ".join(names[:most]) + (f" and {left} more" if left else "")
