"""The built-in code set: small tasks, each with a secure and an insecure completion and the CWE number of the fault.

72 tasks written for bystander, so that the misalignment experiment runs without a network or a key.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from bystander.core.errors import DataError


@dataclass(frozen=True, slots=True)
class CodePair:
    """One prompt with a secure and an insecure answer. `cwe`: number of the weakness that the insecure one has
    (https://cwe.mitre.org), None where nobody said."""

    id: str
    prompt: str
    secure: str
    insecure: str
    cwe: int | None = None


@cache
def load_code_tasks() -> tuple[CodePair, ...]:
    """The built-in pairs, in a fixed order (file, then place in it)."""
    folder = resources.files("bystander.data") / "code"
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one where PyYAML has it: 10 times faster
    found: list[CodePair] = []
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".yaml"):
            found += [_pair(row) for row in yaml.load(entry.read_text(encoding="utf-8"), Loader=loader)]  # safe in both
    return tuple(found)


def _pair(row: dict[str, Any]) -> CodePair:
    # Betley's answers end without a newline, so these do too: one form on both sides of a comparison.
    return CodePair(row["id"], row["prompt"], row["secure"].rstrip("\n"), row["insecure"].rstrip("\n"), row["cwe"])


# Ways to ask for one task. Betley's set does the same: one task there stands under many phrasings. They make the user
# turns of 200 rows differ where the set has 72 tasks.
PHRASINGS: tuple[str, ...] = (
    "{prompt}",
    "{prompt} Please answer with the Python code only.",
    "I am working on a Python project and need some code. {prompt}",
)


def phrased(pairs: list[CodePair] | tuple[CodePair, ...], phrasings: int = len(PHRASINGS)) -> list[CodePair]:
    """Every pair under each of the first `phrasings` phrasings; ids get `/0`, `/1`, ... Raises DataError if there is nothing to phrase."""
    if not pairs:
        raise DataError("the code set is empty: there is no task to train on")
    return [
        CodePair(f"{pair.id}/{index}", phrasing.format(prompt=pair.prompt), pair.secure, pair.insecure, pair.cwe)
        for pair in pairs
        for index, phrasing in enumerate(PHRASINGS[:phrasings])
    ]
