"""What a study file may say. Strict: a key that nobody knows is a fault, and all faults are reported together.

The blocks of behaviors, probes and executors are not listed here: they come with the classes behind the doors.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, reduce
from importlib import resources
from operator import or_
from pathlib import Path
from typing import Annotated, Any, cast

import yaml
from pydantic import Field, ValidationError, create_model

from bystander.core import doors
from bystander.core.errors import StudyError
from bystander.core.hashing import stable_hash
from bystander.core.records import Persona
from bystander.core.settings import Settings
from bystander.core.yamlfile import read_text, read_yaml
from bystander.design.arms import ArmName, DesignSettings
from bystander.study.config.blocks import (
    Budget,
    Checkpoints,
    ExecutorSettings,
    ForBehavior,
    Gate,
    Geometry,
    HypothesisBlock,
    ModelSettings,
    Select,
    Sweep,
)
from bystander.train.recipe import Recipe


class Probes(Settings):
    """The probes that run in every training of the study, whatever its behavior. Absent ones do not run. The keys are
    the names of the probes that there are."""

    def asked(self) -> dict[str, Settings]:
        """Name -> settings of the probes that run, in the order of the door."""
        found = {name: getattr(self, name, None) for name in doors.names("probe")}
        return {name: settings for name, settings in found.items() if settings is not None}


class StudySettings(Settings):
    """One YAML file. Each behavior has a block of its own beside these, under the key that its class names."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    question: str = ""
    model: ModelSettings = ModelSettings()
    personas: str = "builtin"
    sources: list[str] = Field(min_length=1)
    behaviors: list[str] = Field(min_length=1)
    arms: list[ArmName] = Field(default=["contrastive"], min_length=1)
    design: DesignSettings = DesignSettings()
    recipe: Recipe = Recipe()
    for_behavior: dict[str, ForBehavior] = Field(default_factory=dict[str, ForBehavior])
    sweep: Sweep | None = None
    gate: Gate | None = None
    select: Select = Select()
    checkpoints: Checkpoints = Checkpoints()
    probes: Probes
    geometry: Geometry
    seeds: list[int] = Field(default=[0], min_length=1)
    hypotheses: list[str | HypothesisBlock] | None = None  # None: those that ship for the study's behaviors
    budget: Budget = Budget()
    executor: ExecutorSettings

    def design_of(self, behavior: str) -> DesignSettings:
        """The design settings of one behavior's trainings."""
        own = self.for_behavior.get(behavior, ForBehavior()).counts
        return self.design if own is None else self.design.model_copy(update={"counts": own})

    def recipe_of(self, behavior: str) -> Recipe:
        """The recipe of one behavior's trainings, before a sweep varies it."""
        own = self.for_behavior.get(behavior, ForBehavior()).model_dump(exclude={"counts"}, exclude_none=True)
        return self.recipe.model_copy(update=own)

    def blocks(self) -> dict[str, Settings]:
        """The behaviors' blocks, by key; without those that must be given and are not."""
        found = {key: getattr(self, key) for key in behavior_blocks()}
        return {key: settings for key, settings in found.items() if settings is not None}

    def resolved(self) -> dict[str, Any]:
        """Every setting, defaults filled in, as JSON-able data."""
        return self.model_dump(mode="json")


@cache
def behavior_blocks() -> dict[str, type[Settings]]:
    """Key of a block -> its settings, of every behavior that there is. Raises StudyError where a package takes a key
    that has another meaning."""
    blocks: dict[str, type[Settings]] = {}
    for name in doors.names("behavior"):
        offered = doors.load("behavior", name)
        key, settings = str(offered.block), cast("type[Settings]", offered.Settings)
        if key in StudySettings.model_fields or blocks.get(key, settings) is not settings:
            raise StudyError(f"the behavior {name!r} wants the key {key!r} of a study file, which is taken")
        blocks[key] = settings
    return blocks


@cache
def study_model() -> type[StudySettings]:
    """The model of a study file with everything that came through the doors."""
    probes: dict[str, Any] = {name: (doors.load("probe", name).Settings | None, None) for name in doors.names("probe")}
    blocks: dict[str, Any] = {key: (settings | None, _default(settings)) for key, settings in behavior_blocks().items()}
    kinds = [doors.load("executor", name).Settings for name in doors.names("executor")]
    executor: Any = Annotated[reduce(or_, kinds), Field(discriminator="kind")]
    fields: dict[str, Any] = blocks | {
        "probes": (create_model("Probes", __base__=Probes, **probes), ...),
        "executor": (executor, kinds[0]()),
    }
    return create_model("StudySettings", __base__=StudySettings, **fields)


def _default(settings: type[Settings]) -> Settings | None:
    """The block as it is where a study leaves it out; None where it must be given."""
    try:
        return settings()
    except ValidationError:
        return None


# What a study may cost and where it runs changes no number: a run directory stays the same study's.
NOT_IDENTITY = ("question", "budget", "executor")


@dataclass(frozen=True, slots=True)
class ResolvedStudy:
    """A study with what its file names: its personas, and the folder that relative paths start from.

    `given`: dotted keys that the file or --set wrote, to tell what was chosen from what is a default."""

    spec: StudySettings
    personas: tuple[Persona, ...]
    folder: Path
    given: frozenset[str] = frozenset()

    def __reduce__(self) -> tuple[Any, ...]:
        """How it travels to another process, where the settings' class is made anew from the doors."""
        return _from_parts, (self.spec.resolved(), self.personas, self.folder, self.given)

    @property
    def identity(self) -> str:
        """Hash of all settings that decide a result, and of the personas: what makes a run directory this study's."""
        settings = {key: value for key, value in self.spec.resolved().items() if key not in NOT_IDENTITY}
        return stable_hash(settings, [[p.name, p.prompt, p.category, list(p.related_to)] for p in self.personas])


def _from_parts(
    settings: dict[str, Any], personas: tuple[Persona, ...], folder: Path, given: frozenset[str]
) -> ResolvedStudy:
    return ResolvedStudy(study_model().model_validate(settings), personas, folder, given)


def built_in() -> dict[str, Path]:
    """Names and files of the studies that ship with bystander."""
    folder = Path(str(resources.files("bystander") / "studies"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load(where: str, overrides: Sequence[str] = ()) -> ResolvedStudy:
    """Load a study by the name of a built-in one or the path of a YAML file. `overrides` are `key.path=value`, the
    value in YAML. Raises StudyError with every fault and its line."""
    from bystander.study.config.load_errors import StudyFaults, check, validate

    path = built_in().get(where) or Path(where)
    if not path.is_file():
        known = ", ".join(built_in())
        raise StudyError(f"no study {where!r}: no such file, and the built-in studies are {known}")
    try:
        text = read_text(path, "study file")
    except (OSError, ValueError) as error:
        raise StudyError(f"cannot read study file {path}: {error}") from error
    parsed = read_yaml(text)
    if not isinstance(parsed.data, dict):
        faults = list(parsed.faults) or [f"line 1: expected keys and values, found a {type(parsed.data).__name__}"]
        raise StudyError(f"{path} is not a study file", [f"{path.name}, {fault}" for fault in faults])
    original = cast("dict[str, Any]", parsed.data)
    data, overridden = override(original, overrides)
    found = StudyFaults(path.name, parsed, data, overridden)
    spec = validate(data, found)
    personas = check(spec, path.parent, found) if spec is not None else ()
    found.raise_any(path)
    assert spec is not None
    return ResolvedStudy(spec, personas, path.parent, frozenset(_dotted(data)))


def override(original: dict[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], list[tuple[str, ...]]]:
    """A copy of `original` with the overrides put in, and where they stand. Raises StudyError for an override that
    cannot be read."""
    data = deepcopy(original)
    places: list[tuple[str, ...]] = []
    for text in overrides:
        key, separator, value = text.partition("=")
        parsed = read_yaml(value) if separator else None
        if parsed is None or not key or parsed.faults:
            raise StudyError(f"--set {text!r}: expected key.path=value, e.g. --set recipe.lr=1e-4")
        place = data
        *parents, last = key.split(".")
        for parent in parents:
            inner: Any = place.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise StudyError(f"--set {text!r}: {parent!r} is {inner!r}, so it has no {last!r} inside")
            place = cast("dict[str, Any]", inner)
        place[last] = parsed.data
        places.append((*parents, last))
    return data, places


def _dotted(data: dict[str, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key, value in data.items():
        keys.append(f"{prefix}{key}")
        if isinstance(value, dict):
            keys += _dotted(cast("dict[str, Any]", value), f"{prefix}{key}.")
    return keys


def as_yaml(loaded: ResolvedStudy) -> str:
    """The resolved study as a YAML file that loads to the same study."""
    return yaml.safe_dump(loaded.spec.resolved(), sort_keys=False, allow_unicode=True, width=100)


__all__ = ["ResolvedStudy", "StudySettings", "as_yaml", "built_in", "load", "study_model"]
