"""Stable hashes, and seeds that come from names.

Python's `hash()` changes from process to process; a row order drawn with it is not reproducible. Everything here
goes through SHA-256 of a canonical JSON text, so that it is the same on every machine and every Python.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def canonical_json(value: object) -> str:
    """The one JSON text of a value: keys sorted, no spaces, no NaN. Raises TypeError for what JSON has no form of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def stable_hash(*parts: object) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON of `parts`."""
    return hashlib.sha256(canonical_json(list(parts)).encode()).hexdigest()


def seed_for(*parts: object) -> int:
    """A seed in [0, 2**63) decided by `parts` alone."""
    return int(stable_hash(*parts)[:16], 16) >> 1


def generator(*parts: object) -> np.random.Generator:
    """A numpy generator (PCG64) seeded by `parts` alone."""
    return np.random.Generator(np.random.PCG64(seed_for(*parts)))


def stable_order(items: Sequence[T], *parts: object) -> list[T]:
    """`items` in an order decided by the hash of each item and `parts`: adding an item does not reshuffle the rest."""
    return sorted(items, key=lambda item: stable_hash(item, *parts))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes (64 hex digits)."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
