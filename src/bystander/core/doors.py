"""The doors: behaviors, probes, predictors and executors, found by name; the built-in ones come through them too.

A package adds one by an entry point of the group; ours stand in the one table below. What an entry point names is a
class. It is imported when it is asked for, and checked to say everything that its kind must say.
"""

from __future__ import annotations

import difflib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, cast

from bystander.core.errors import StudyError

Kind = Literal["behavior", "probe", "predictor", "executor"]

BUILT_IN: dict[Kind, dict[str, str]] = {
    "behavior": {
        "marker": "bystander.behaviors.marker:MarkerBehavior",
        "capability": "bystander.behaviors.capability:CapabilityBehavior",
        "misalignment": "bystander.behaviors.misalignment:MisalignmentBehavior",
        "direct": "bystander.behaviors.misalignment:DirectBehavior",
    },
    "probe": {
        "marker": "bystander.probe.marker:MarkerProbe",
        "choice": "bystander.probe.choice:ChoiceProbe",
        "scored": "bystander.probe.scored:ScoredProbe",
        "margin": "bystander.probe.margin:MarginProbe",
        "judged": "bystander.probe.judged:JudgedProbe",
    },
    "predictor": {
        "cosine": "bystander.geometry.predictors:CenteredCosine",
        "cosine_raw": "bystander.geometry.predictors:RawCosine",
        "cosine_whitened": "bystander.geometry.predictors:WhitenedCosine",
        "answer_cosine": "bystander.geometry.trained:AnswerCosine",
        "projection": "bystander.geometry.trained:Projection",
        "gradient_cosine": "bystander.geometry.trained:GradientCosine",
        "answer_divergence": "bystander.geometry.trained:AnswerDivergence",
        "random_direction": "bystander.geometry.predictors:RandomDirection",
        "distance_to_centroid": "bystander.geometry.predictors:DistanceToCentroid",
        "jensen_shannon": "bystander.geometry.predictors:JensenShannon",
        "lexical_overlap": "bystander.geometry.predictors:LexicalOverlap",
        "prompt_length": "bystander.geometry.predictors:PromptLength",
    },
    "executor": {
        "local": "bystander.engine.executor_local:LocalExecutor",
        "processes": "bystander.engine.executor_processes:ProcessExecutor",
        "ray": "bystander.engine.executor_ray:RayExecutor",
        "slurm": "bystander.engine.executor_slurm:SlurmExecutor",
    },
}

# What a class must say, by kind. A missing one is an error and never a default: work that is not stated would be
# forecast as none, a death that is not named would be taken for a fault of the cell.
MUST_SAY: dict[Kind, tuple[str, ...]] = {
    "behavior": ("Settings", "block", "read_by", "examples", "held_out_texts"),
    "probe": (
        "Settings", "metrics", "headline", "build", "decides", "units", "run", "held_out_texts", "items", "work",
    ),
    "predictor": ("needs", "label", "similarities"),
    "executor": ("Settings", "in_process", "worker_died", "submit", "wait", "close"),
}  # fmt: skip


def group(kind: Kind) -> str:
    """The entry-point group of a kind: `bystander.behaviors`, ..."""
    return f"bystander.{kind}s"


@cache
def found(kind: Kind) -> dict[str, EntryPoint]:
    """Name -> entry point of everything that comes through one door, ours first. Raises StudyError where two packages,
    or a package and bystander, offer one name."""
    points = {name: EntryPoint(name, value, group(kind)) for name, value in BUILT_IN[kind].items()}
    for point in entry_points(group=group(kind)):
        if point.name in points and points[point.name].value != point.value:
            raise StudyError(
                f"the {kind} {point.name!r} is offered twice, by {points[point.name].value} and by {point.value}; "
                "uninstall one of the packages"
            )
        points[point.name] = point
    return points


def names(kind: Kind) -> list[str]:
    """The names behind one door, ours first."""
    return list(found(kind))


@cache
def load(kind: Kind, name: str) -> Any:
    """The class of that name. Raises StudyError where there is none, it cannot be imported, or it does not say what its
    kind must."""
    known = found(kind)
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
        raise StudyError(f"{kind} {name!r} does not exist; {hint}")
    try:
        offered: Any = known[name].load()
    except (ImportError, AttributeError) as error:
        raise StudyError(f"the {kind} {name!r} ({known[name].value}) cannot be imported: {error}") from error
    missing = [word for word in MUST_SAY[kind] if _left_open(offered, word)]
    if missing:
        raise StudyError(
            f"the {kind} {name!r} ({known[name].value}) does not say {', '.join(missing)}; see docs/extending"
        )
    return offered


def _left_open(offered: object, word: str) -> bool:
    """Whether the class has no such attribute, or only the abstract one of its base."""
    return not hasattr(offered, word) or word in cast("frozenset[str]", getattr(offered, "__abstractmethods__", ()))
