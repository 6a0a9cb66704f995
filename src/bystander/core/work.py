"""How much work something is, in tokens and rows: what a forecast multiplies with the speed of a machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from bystander.core.records import Context

CHARACTERS_PER_TOKEN = 4.2  # English prose under byte-pair vocabularies of 50k to 200k
TEMPLATE_TOKENS = 12  # what a chat template puts around a system and a user turn (ChatML: 2 x 5 and the answer's start)
BYTES_PER_MEASUREMENT = 12  # Parquet, zstd: mostly repeated columns; measured on a quickstart run
BYTES_PER_SAMPLED_TOKEN = 6  # completions and their prompts, JSONL under zstd

Count = Callable[[str], int]  # tokens of a text


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens scored (a context's prefix once, then the items behind it), trained (all tokens of all epochs), sampled (to
    the full length allowed); judge calls and the tokens that they read; rows measured. Optimizer steps; next-token
    distributions read whole; rows designed, and measurements read back, by the host alone."""

    scored: float = 0
    trained: float = 0
    sampled: float = 0
    judged: float = 0
    judged_tokens: float = 0
    measurements: float = 0
    steps: float = 0
    distributions: float = 0
    designed: float = 0
    gathered: float = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Work)))

    @property
    def bytes_written(self) -> float:
        """Bytes of measurements and completions; an adapter is not in it."""
        return self.measurements * BYTES_PER_MEASUREMENT + self.sampled * BYTES_PER_SAMPLED_TOKEN


def prefix_tokens(contexts: Sequence[Context], count: Count) -> int:
    """Tokens of the contexts' own turns, template included."""
    return sum(count(context.text) + TEMPLATE_TOKENS for context in contexts)
