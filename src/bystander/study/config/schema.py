"""What a study file may say. Strict: a key that nobody knows is a fault.

The blocks of behaviors, probes and executors are not listed here: they come with the classes behind the doors.
"""

from __future__ import annotations

from functools import cache, reduce
from operator import or_
from typing import Annotated, Any, cast

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationError, create_model, model_validator

from bystander.behaviors.answers import AnswersSettings
from bystander.behaviors.shipped import shipped_names
from bystander.core import doors
from bystander.core.errors import StudyError
from bystander.core.records import TextIn
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
    TrackSettings,
    TrainTo,
)
from bystander.study.config.contexts import ContextBlock
from bystander.train.recipe import Recipe

DEFAULT_EXECUTOR = "local"  # where a study leaves `executor` or its `kind` out


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


def _context_kind(entry: object) -> str:
    return "context name" if isinstance(entry, str) else "context block"


ContextEntry = Annotated[
    Annotated[str, Tag("context name")] | Annotated[ContextBlock, Tag("context block")], Discriminator(_context_kind)
]


class StudySettings(Settings):
    """One YAML file. Each behavior that comes through a door has a block of its own beside these, under the key that its
    class names; a behavior that is a file stands in `behaviors:` with its settings, one that ships by its name alone."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Names the run directory, `runs/NAME`."""
    question: str = ""
    """What is asked, in a sentence; opens the report, and the review gives a point for it."""
    model: ModelSettings = ModelSettings()
    """The model that is trained and measured."""
    personas: FileName = "builtin"
    """`builtin` (111 personas) or a YAML file of your own."""
    personas_in: TextIn = "system"
    """Where personas' texts stand. `auto`: in the system turn where the template has one, else in the user's."""
    contexts: list[ContextEntry] = Field(default=["bare"])
    """What is measured beside the personas: names of groups, or blocks. `bare`: no persona at all, as when deployed."""
    sources: list[str] = Field(min_length=1)
    """Personas that the behavior is coupled to, one training each."""
    behavior_entries: list[BehaviorEntry] = Field(alias="behaviors", min_length=1)
    """What is coupled: `marker`, `capability`, `misalignment`, one that ships or that a package
    adds, or a file of yours."""
    arms: list[ArmName] = Field(default=["contrastive"], min_length=1)
    """Training designs. `non_contrastive` is the control in which the persona of every row is drawn at random."""
    design: DesignSettings = DesignSettings()
    """Which rows a training has."""
    recipe: Recipe = Recipe()
    """How a training goes."""
    for_behavior: dict[str, ForBehavior] = Field(default_factory=dict[str, ForBehavior])
    """Behavior -> what it has of its own, in place of `design.counts` and the recipe's values."""
    train_to: TrainTo | None = None
    """The dose at which each training ends; left out: the last step."""
    sweep: Sweep | None = None
    """Phase 1, which finds a configuration on one source before the expensive phase; left out: no sweep."""
    gate: Gate | None = None
    """The rule after phase 1 that may end the study; left out: none."""
    select: Select = Select()
    """Which swept configuration phase 2 trains with."""
    checkpoints: Checkpoints = Checkpoints()
    """When and for whom probes run during training."""
    probes: Probes
    """What is measured, the same in every training."""
    geometry: Geometry
    """How personas are compared with sources before training: the predictor of the claim."""
    seeds: list[int] = Field(default=[0], min_length=1)
    """Seeds of trainings. One is a pilot; claims need three, since seeds are a level of the analysis."""
    hypotheses: list[str | HypothesisBlock] | None = None  # None: those that ship for the study's behaviors
    """Names of shipped ones or blocks; left out: those that ship for the study's behaviors."""
    budget: Budget = Budget()
    """What a run may cost without approval."""
    executor: ExecutorSettings
    """Where cells run. Decides no number."""
    track: TrackSettings | None = None
    """A mirror of the run in a tracker; left out: none. Decides no number."""

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
    offered = {name: doors.load("probe", name).Settings for name in doors.names("probe")}
    probes: dict[str, Any] = {name: _block(settings, None) for name, settings in offered.items()}
    blocks: dict[str, Any] = {key: _block(settings, _default(settings)) for key, settings in behavior_blocks().items()}
    kinds = [doors.load("executor", name).Settings for name in doors.names("executor")]
    executor: Any = Annotated[reduce(or_, kinds), Field(discriminator="kind"), BeforeValidator(_local_unless_named)]
    told = {key: StudySettings.model_fields[key].description for key in ("probes", "executor")}
    fields: dict[str, Any] = blocks | {
        "probes": (create_model("Probes", __base__=Probes, **probes), Field(description=told["probes"])),
        "executor": (executor, Field(default=kinds[0](), description=told["executor"])),
    }
    return create_model("StudySettings", __base__=StudySettings, **fields)


def _block(settings: type[Settings], default: Settings | None) -> tuple[Any, Any]:
    """A field that may be left out, described by the settings' own text."""
    return settings | None, Field(default=default, description=" ".join((settings.__doc__ or "").split()))


def _local_unless_named(block: object) -> object:
    """`executor: {workers: 2}` is about the first kind, `local`, whose own faults then say what to do."""
    return {"kind": DEFAULT_EXECUTOR, **cast("dict[str, Any]", block)} if isinstance(block, dict) else block


def _default(settings: type[Settings]) -> Settings | None:
    """The block as it is where a study leaves it out; None where it must be given."""
    try:
        return settings()
    except ValidationError:
        return None
