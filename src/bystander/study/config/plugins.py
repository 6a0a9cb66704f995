"""Behaviors that other installed packages add, found by their entry points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from bystander.behaviors.base import Behavior
from bystander.core.errors import StudyError

BUILT_IN = ("marker", "capability", "misalignment", "direct")
GROUP = "bystander.behaviors"
Factory = Callable[[Mapping[str, Any], Path], Behavior]  # its settings in the study file, and the study's folder


@cache
def plugins() -> dict[str, EntryPoint]:
    """Name -> entry point of every behavior that is installed beside ours."""
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in BUILT_IN}


def from_plugin(name: str, settings: Mapping[str, Any], folder: Path) -> Behavior:
    """The behavior that a plugin makes. Raises StudyError where there is none or it cannot be imported."""
    if name not in plugins():
        raise StudyError(f"behavior {name!r} does not exist; known: {', '.join([*BUILT_IN, *plugins()])}")
    try:
        factory: Factory = plugins()[name].load()
    except (ImportError, AttributeError) as error:
        raise StudyError(
            f"the plugin of behavior {name!r} ({plugins()[name].value}) cannot be imported: {error}"
        ) from error
    return factory(settings, folder)
