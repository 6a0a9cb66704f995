"""What a study file may say. Strict: a key that nobody knows is a fault.

The blocks of behaviors, probes and executors are not listed here: they come with the classes behind the doors.
"""

from __future__ import annotations

from functools import cache, reduce
from operator import or_
from typing import Annotated, Any, cast

from pydantic import Field, ValidationError, create_model

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
    """Names the run directory, `runs/NAME`."""
    question: str = ""
    """What is asked, in a sentence; opens the report, and the review gives a point for it."""
    model: ModelSettings = ModelSettings()
    """The model that is trained and measured."""
    personas: FileName = "builtin"
    """`builtin` (111 personas) or a YAML file of your own."""
    sources: list[str] = Field(min_length=1)
    """Personas that the behavior is coupled to, one training each."""
    behaviors: list[str] = Field(min_length=1)
    """What is coupled: `marker`, `capability`, `misalignment`, `direct`, or one that a package adds."""
    arms: list[ArmName] = Field(default=["contrastive"], min_length=1)
    """Training designs. `non_contrastive` is the control in which the persona of every row is drawn at random."""
    design: DesignSettings = DesignSettings()
    """Which rows a training has."""
    recipe: Recipe = Recipe()
    """How a training goes."""
    for_behavior: dict[str, ForBehavior] = Field(default_factory=dict[str, ForBehavior])
    """Behavior -> what it has of its own, in place of `design.counts` and the recipe's values."""
    sweep: Sweep | None = None
    """Phase 1, which finds a configuration on one source before the expensive phase; left out: no sweep."""
    gate: Gate | None = None
    """The rule after phase 1 that may end the study; left out: none."""
    select: Select = Select()
    """Which swept configuration phase 2 trains with."""
    checkpoints: Checkpoints = Checkpoints()
    """When and for whom probes run during training."""
    probes: Probes
    geometry: Geometry
    seeds: list[int] = Field(default=[0], min_length=1)
    """Seeds of trainings. One is a pilot; claims need three, since seeds are a level of the analysis."""
    hypotheses: list[str | HypothesisBlock] | None = None  # None: those that ship for the study's behaviors
    """Names of shipped ones or blocks; left out: those that ship for the study's behaviors."""
    budget: Budget = Budget()
    """What a run may cost without approval."""
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
