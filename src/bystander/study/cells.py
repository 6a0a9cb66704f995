"""Cells: a study cut into units of work, each keyed by the hash of everything that decides its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from bystander.core.hashing import stable_hash
from bystander.core.records import Context, as_dict
from bystander.data import load_open_questions
from bystander.design.arms import ArmName, Design, build
from bystander.personas import context_of
from bystander.probe.base import CheckedProbe, Probe
from bystander.study.choice_sets import choice_texts
from bystander.study.registry import make_behavior, make_probes
from bystander.study.spec import Loaded
from bystander.train.recipe import Recipe

Kind = Literal["geometry", "instrument", "evaluate", "train"]

# Raised by hand when a change to a stage changes its numbers: what was computed before is then computed again.
VERSIONS: dict[str, int] = {"geometry": 1, "instrument": 1, "evaluate": 1, "train": 1}


@dataclass(frozen=True, slots=True)
class Training:
    """What names one training: the columns that its measurements carry."""

    behavior: str
    source: str
    arm: ArmName
    config: str
    seed: int

    @property
    def label(self) -> str:
        """Readable name, also of its folder."""
        return f"{self.behavior}-{self.source}-{self.arm}-{self.config.replace('=', '').replace(',', '-')}-s{self.seed}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One unit of work. `needs` are keys of cells that must be complete before it can start."""

    kind: Kind
    name: str
    key: str
    needs: tuple[str, ...] = ()
    training: Training | None = None  # None: the untrained model
    probe: str | None = None  # instrument and evaluate only

    @property
    def folder(self) -> str:
        """Folder under `cells/`."""
        return f"{self.name}-{self.key[:12]}"


@dataclass(frozen=True, slots=True)
class Plan:
    """All cells of a study in an order in which they can run, and what they work on."""

    study: Loaded
    cells: tuple[Cell, ...]
    contexts: tuple[Context, ...]
    probes: dict[str, Probe]
    designs: dict[Training, Design]
    recipes: dict[Training, Recipe]
    open_questions: tuple[str, ...] = field(default=())

    def of_kind(self, kind: Kind) -> list[Cell]:
        """The cells of one kind."""
        return [cell for cell in self.cells if cell.kind == kind]


def config_name(recipe: Recipe) -> str:
    """Readable name of what a sweep varies."""
    return f"lr={recipe.lr:g},epochs={recipe.epochs}"


def plan_cells(study: Loaded) -> Plan:
    """Cut a study into cells. Raises DesignError or DataError where the design cannot be built."""
    spec = study.spec
    contexts = tuple(context_of(persona) for persona in study.personas)
    probes = make_probes(study)
    base = [spec.model.model_dump(mode="json"), [as_dict(context) for context in contexts]]
    open_questions = tuple(question.text for question in load_open_questions()[: spec.geometry.questions])

    geometry_key = stable_hash(
        "geometry", VERSIONS["geometry"], base, spec.sources, spec.geometry.model_dump(), open_questions
    )
    cells = [Cell("geometry", "geometry", geometry_key)]
    # How a checked probe measures is decided before anything else is measured with it. Its decision follows from what
    # is in the keys of the other cells already, so that they only need it and do not carry its key.
    checks = {
        name: stable_hash("instrument", VERSIONS["instrument"], base, probe.decides())
        for name, probe in probes.items()
        if isinstance(probe, CheckedProbe) and not probe.ready
    }
    cells += [Cell("instrument", f"instrument-{name}", key, (), None, name) for name, key in checks.items()]
    evaluate_keys = {
        name: stable_hash("evaluate", VERSIONS["evaluate"], base, probe.decides(), None)
        for name, probe in probes.items()
    }
    cells += [
        Cell("evaluate", f"base-{name}", key, tuple(checks[n] for n in checks if n == name), None, name)
        for name, key in evaluate_keys.items()
    ]

    designs: dict[Training, Design] = {}
    recipes: dict[Training, Recipe] = {}
    for training, design, recipe in _trainings(study):
        designs[training], recipes[training] = design, recipe
        train_key = stable_hash(
            "train",
            VERSIONS["train"],
            base,
            [as_dict(row) for row in design.rows],
            recipe.model_dump(mode="json"),
            training.seed,
            spec.checkpoints.model_dump(),
            [probe.decides() for probe in probes.values()],
            geometry_key,
        )
        cells.append(Cell("train", f"train-{training.label}", train_key, (geometry_key, *checks.values()), training))
        for name, probe in probes.items():
            key = stable_hash("evaluate", VERSIONS["evaluate"], base, probe.decides(), train_key)
            cells.append(Cell("evaluate", f"after-{training.label}-{name}", key, (train_key,), training, name))
    return Plan(study, tuple(cells), contexts, probes, designs, recipes, open_questions)


def _trainings(study: Loaded) -> list[tuple[Training, Design, Recipe]]:
    spec = study.spec
    found: list[tuple[Training, Design, Recipe]] = []
    for behavior_name in spec.behaviors:
        examples = make_behavior(behavior_name, study).examples()
        for source in spec.sources:
            for arm in spec.arms:
                design = build(behavior_name, examples, source, study.personas, arm, spec.design)
                for seed in spec.seeds:
                    training = Training(behavior_name, source, arm, config_name(spec.recipe), seed)
                    found.append((training, design, spec.recipe))
    return found


def probe_texts(study: Loaded) -> dict[str, str]:
    """Every held-out item of every behavior's probes, for the overlap audit."""
    texts: dict[str, str] = {}
    for name in study.spec.behaviors:
        texts.update(make_behavior(name, study).probe_texts())
    return texts | choice_texts(study)


def at_checkpoint(contexts: Sequence[Context], names: Sequence[str]) -> list[Context]:
    """The contexts of those names, in the order of the set."""
    return [context for context in contexts if context.name in set(names)]


__all__ = ["Cell", "Plan", "Training", "as_dict", "at_checkpoint", "plan_cells", "probe_texts", "replace"]


def describe(cell: Cell) -> dict[str, Any]:
    """A cell as JSON-able data."""
    return as_dict(cell)
