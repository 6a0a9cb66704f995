"""What a study file may say. Strict: a key that nobody knows is a fault.

The blocks of behaviors, probes and executors are not listed here: they come with the classes behind the doors.
"""

from __future__ import annotations

from functools import cache, reduce
from operator import or_
from typing import Annotated, Any, cast

from pydantic import Discriminator, Field, Tag, ValidationError, create_model, model_validator

from bystander.behaviors.answers import AnswersSettings
from bystander.behaviors.shipped import shipped_names
from bystander.core import doors
from bystander.core.errors import StudyError
from bystander.core.settings import FileName, Settings
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
    TrainTo,
)
from bystander.train.recipe import Recipe


class Probes(Settings):
    """The probes that run in every training of the study, whatever its behavior. Absent ones do not run. The keys are
    the names of the probes that there are."""

    def asked(self) -> dict[str, Settings]:
        """Name -> settings of the probes that run, in the order of the door."""
        found = {name: getattr(self, name, None) for name in doors.names("probe")}
        return {name: settings for name, settings in found.items() if settings is not None}


def _entry_kind(entry: object) -> str:
    return "behavior file" if isinstance(entry, dict | AnswersSettings) else "behavior name"


# With tags that are no key of an entry, so that a fault's place is told from pydantic's words for it.
BehaviorEntry = Annotated[
    Annotated[str, Tag("behavior name")] | Annotated[AnswersSettings, Tag("behavior file")], Discriminator(_entry_kind)
]


class StudySettings(Settings):
    """One YAML file. Each behavior that comes through a door has a block of its own beside these, under the key that its
    class names; a behavior that is a file stands in `behaviors:` with its settings, one that ships by its name alone."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    question: str = ""
    model: ModelSettings = ModelSettings()
    personas: FileName = "builtin"
    sources: list[str] = Field(min_length=1)
    behavior_entries: list[BehaviorEntry] = Field(alias="behaviors", min_length=1)
    arms: list[ArmName] = Field(default=["contrastive"], min_length=1)
    design: DesignSettings = DesignSettings()
    recipe: Recipe = Recipe()
    for_behavior: dict[str, ForBehavior] = Field(default_factory=dict[str, ForBehavior])
    train_to: TrainTo | None = None
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

    @model_validator(mode="before")
    @classmethod
    def _margin_of_files(cls, data: Any) -> Any:
        """A behavior that is a file is measured by its margins without further words."""
        entries = cast("dict[str, Any]", data).get("behaviors") if isinstance(data, dict) else None
        if not isinstance(entries, list) or not any(map(_is_file, cast("list[object]", entries))):
            return data
        given = cast("dict[str, Any]", data)
        probes: Any = given.get("probes", {})
        if not isinstance(probes, dict):
            return given
        asked = {"margin": {}, **cast("dict[str, Any]", probes)}
        if any(isinstance(one, dict) and "scorers" in one for one in cast("list[object]", entries)):
            asked = {"scored": {}, **asked}
        return given | {"probes": asked}

    @property
    def behaviors(self) -> list[str]:
        """The behaviors' names, in the file's order."""
        return [one if isinstance(one, str) else one.name for one in self.behavior_entries]

    @property
    def answers(self) -> dict[str, AnswersSettings]:
        """Name -> settings of the behaviors that are files."""
        entries = [one for one in self.behavior_entries if _is_file(one)]
        return {
            one if isinstance(one, str) else one.name: AnswersSettings(name=one) if isinstance(one, str) else one
            for one in entries
        }

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
        return self.model_dump(mode="json", by_alias=True)


def _is_file(entry: object) -> bool:
    """Whether an entry of `behaviors:` means a file: one of the user's, or one that ships."""
    return not isinstance(entry, str) or (entry not in doors.names("behavior") and entry in shipped_names())


@cache
def behavior_blocks() -> dict[str, type[Settings]]:
    """Key of a block -> its settings, of every behavior that there is. Raises StudyError where a package takes a key
    that has another meaning."""
    blocks: dict[str, type[Settings]] = {}
    for name in doors.names("behavior"):
        offered = doors.load("behavior", name)
        key, settings = str(offered.block), cast("type[Settings]", offered.Settings)
        if key in ("behaviors", *StudySettings.model_fields) or blocks.get(key, settings) is not settings:
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
