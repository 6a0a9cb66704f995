"""Which contexts an evaluation or a checkpoint covers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from bystander.core.records import Context
from bystander.study.plan.parts import StudyParts

# All personas, the sweep's, all but the sweep's; or the contexts beside the personas.
Group = Literal["all", "swept", "rest", "contexts"]


def members(group: Group, parts: StudyParts, swept: Collection[str]) -> list[Context]:
    """The contexts of a group, in the order of the set or of the study file."""
    if group == "contexts":
        return list(parts.beside)
    return [c for c in parts.contexts if group == "all" or (c.name in swept) == (group == "swept")]


def at_checkpoint(contexts: Sequence[Context], names: Sequence[str]) -> list[Context]:
    """The contexts of those names, in the order of the set."""
    return [context for context in contexts if context.name in set(names)]
