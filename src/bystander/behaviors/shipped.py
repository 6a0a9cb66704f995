"""The behaviors that ship as files: answer pairs, and beside them what they are, what is asked, and how answers score."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import yaml
from pydantic import TypeAdapter

from bystander.behaviors.scorers import AnyScorer, RefusalScorer, ScorerSettings
from bystander.data.bank import OpenQuestion

FOLDER = Path(str(resources.files("bystander.data") / "shipped"))


@dataclass(frozen=True, slots=True)
class ShippedBehavior:
    """`file`: its pairs. `hypothesis`: the claim in words."""

    name: str
    file: Path
    description: str
    hypothesis: str
    questions: tuple[OpenQuestion, ...]
    scorer: AnyScorer


@cache
def shipped_names() -> tuple[str, ...]:
    """The names that a study may write without a file."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


@cache
def shipped(name: str) -> ShippedBehavior:
    """The behavior of that name, which must be one of `shipped_names`."""
    about = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    scorer: AnyScorer = TypeAdapter[AnyScorer](ScorerSettings).validate_python(about["scorer"])
    questions = tuple(OpenQuestion(one["id"], one["text"]) for one in about["open_questions"])
    file = FOLDER / f"{name}.jsonl"
    return ShippedBehavior(name, file, about["description"], about["hypothesis"], questions, scorer)


def refusal_patterns() -> list[str]:
    """The patterns by which a refusal is told."""
    scorer = shipped("refusal").scorer
    assert isinstance(scorer, RefusalScorer)
    return list(scorer.patterns or ())
