"""A study file to begin with: commented, small enough to run, with what the answers to a few questions decide."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bystander.behaviors.answers import AnswersBehavior
from bystander.behaviors.base import Behavior, Pilot
from bystander.behaviors.shipped import shipped_names
from bystander.core import doors
from bystander.core.errors import StudyError
from bystander.study.config.json_schema import schema_line

EMBEDDED = "smollm2-135m"
LARGE = "{lr: 1e-5, epochs: 3, batch_size: 16}"  # of models of billions of parameters: the plan's
DEPTH = 0.7  # of the layers: the shipped studies read similarity at 20 of 28, and 20 or 25 of 30
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class NewStudy:
    """What is asked. `behavior`: a name, or a file of answers from the study's folder; `layer` None: told by the model
    where its configuration is at hand, else left open; `pairs`: how many a file has."""

    name: str
    behavior: str = "marker"
    model: str = EMBEDDED
    sources: Sequence[str] = ("villain",)
    question: str = ""
    layer: int | None = None
    pairs: int = 0


def study_text(asked: NewStudy) -> str:
    """The study file. Raises StudyError for a name that cannot be a folder's or a behavior that is neither known nor a
    file."""
    if not NAME.fullmatch(asked.name):
        raise StudyError(f"{asked.name!r} cannot name a study: use letters, digits, dots, dashes and underscores")
    behavior, entry = _entry(asked.behavior)
    sources = ", ".join(asked.sources)
    question = asked.question or f"If {' or '.join(asked.sources)} learns {behavior}, which other personas show it too?"
    small, pilot = asked.model == EMBEDDED, _pilot(asked.behavior)
    return _TEMPLATE.format(
        schema=schema_line(), name=asked.name, question=json.dumps(question, ensure_ascii=False),
        model=json.dumps(asked.model), dtype="float32" if small else "auto", sources=sources, entry=entry,
        counts=_counts(asked, pilot, small), recipe=pilot.recipe if small else LARGE,
        probes=pilot.probes, layer=_layer_line(asked, pilot), hours=1.0 if small else 8.0,
    )  # fmt: skip


def behavior_of_file(behavior: str) -> str:
    """What a behavior is called that is a file: its stem, as far as that can be a name."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(behavior).name.split(".")[0]).strip("_-")
    return stem if stem[:1].isalpha() else f"behavior_{stem}".rstrip("_")


def is_file(behavior: str) -> bool:
    """Whether it is meant as a file of answers."""
    return behavior not in {*doors.names("behavior"), *shipped_names()}


def _entry(behavior: str) -> tuple[str, str]:
    if not is_file(behavior):
        return behavior, f"[{behavior}]"
    if not Path(behavior).suffix:
        known = ", ".join(dict.fromkeys([*doors.names("behavior"), *shipped_names()]))
        raise StudyError(f"the behavior {behavior!r} is neither known ({known}) nor the name of a file of answers")
    name = behavior_of_file(behavior)
    return name, f"\n  - {{name: {name}, file: {json.dumps(behavior, ensure_ascii=False)}}}"


def _pilot(behavior: str) -> Pilot:
    """How to begin with a behavior; a probe's own settings where it names none."""
    known = doors.names("behavior")
    kind: type[Behavior] = doors.load("behavior", behavior) if behavior in known else AnswersBehavior
    return replace(kind.pilot, probes=kind.pilot.probes or f"{kind.read_by[-1]}: {{}} # as it comes")


def _counts(asked: NewStudy, pilot: Pilot, small: bool) -> str:
    """Rows of one training; of a file as many as its pairs can fill, half of which are trained."""
    positive = pilot.positive if small else 200
    if asked.behavior not in doors.names("behavior"):
        positive = max(1, min(positive, asked.pairs // 2 or 20))
    each = max(1, positive // 2)
    return f"{{positive: {positive}, negative: {2 * positive}, absent: {each}, assistant: {each}}}"


def _layer_line(asked: NewStudy, pilot: Pilot) -> str:
    layer = asked.layer
    if layer is None and asked.model == EMBEDDED:
        layer = pilot.layer
    if layer is None and (depth := _depth(asked.model)):
        layer = round(DEPTH * depth)
    if layer is None:
        return "# layer: 20   # CHOOSE ONE before you see results: about 0.7 of the model's layers; `run` waits for it"
    return f"layer: {layer} # the one that the claim rests on: chosen now, before any result"


def _depth(model: str) -> int:
    """Layers of a model in a local folder; 0 where that is not known."""
    try:
        return int(json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


_TEMPLATE = """\
{schema}
# Every key with its unit and reason: docs/settings.md; your editor shows the same while you type.
name: {name}
question: {question}
model:
  name: {model} # smollm2-135m (embedded), a Hub id, a folder or a GGUF file
  dtype: {dtype}
sources: [{sources}] # `bystander personas` lists the 111 that are built in; one training each
behaviors: {entry}
arms: [contrastive, benign] # benign: the same rows without the behavior, which leakage is measured against
design:
  counts: {counts} # rows of one training
  negatives: auto # two bystanders that are trained not to show it
recipe: {recipe} # lr is the peak learning rate
checkpoints: {{every: 0.5, personas: 9}} # during training; before and after it all personas are probed
probes:
  {probes}
geometry:
  layers: all
  {layer}
  questions: 12
seeds: [0] # a pilot; three for a claim
budget: {{gpu_hours: {hours}, dollars: 0.0}} # above it `run` asks for approval
executor: {{kind: local}} # processes, slurm or ray for more than one worker
"""
