"""Cells: a study cut into units of work, each keyed by the hash of everything that decides its result.

Phase 0 makes data and geometry; phase 1 sweeps configurations on one source and decides at the gate; phase 2 trains
with the configurations that the declared rule picked; phase 3 probes all personas. What phase 2 trains is known only
when the gate has decided, so its cells are planned with the picks, or, before that, with an assumption.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product

from bystander.core.hashing import stable_hash
from bystander.core.records import Context, Row, as_dict, context_key
from bystander.design.arms import Design, swept_arms
from bystander.geometry.base import OF_TRAINING
from bystander.probe.base import CheckedProbe, Probe
from bystander.study.config.blocks import Config
from bystander.study.config.checks import persona_choice
from bystander.study.config.study import ResolvedStudy
from bystander.study.plan.cell import Cell, Kind, Training, config_label
from bystander.study.plan.doses import dose_of
from bystander.study.plan.groups import Group, members
from bystander.study.plan.parts import StudyParts
from bystander.train.recipe import Recipe

HASH_CHARACTERS = 12  # of a plan's hash, as people copy it; at least so many must be given
PHASES = {0: "data", 1: "sweep", 2: "trainings", 3: "all personas"}

# Raised by hand when a change to a stage changes its numbers: what was computed before is then computed again.
VERSIONS: dict[Kind, int] = {
    "answers": 1,
    "data": 1,
    "geometry": 2,
    "mode check": 1,
    "evaluate": 1,
    "train": 1,
    "gate": 1,
}


@dataclass(frozen=True)
class Plan:
    """All cells of a study in an order in which they can run, and what they work on.

    `picks`: behavior -> the configuration that phase 2 uses. `assumed`: the gate has not decided, so that the cells
    after it stand for those that it will pick.
    """

    parts: StudyParts
    cells: tuple[Cell, ...]
    designs: dict[Training, Design]
    recipes: dict[Training, Recipe]
    picks: Mapping[str, str] = field(default_factory=dict[str, str])
    assumed: bool = False
    keyed_by: StudyParts | None = None  # the parts with stand-ins, which the cells are keyed by; None: `parts`

    @property
    def study(self) -> ResolvedStudy:
        """The study that is cut."""
        return self.parts.study

    @property
    def contexts(self) -> tuple[Context, ...]:
        """The personas' contexts."""
        return self.parts.contexts

    @property
    def probes(self) -> dict[str, Probe]:
        """The study's probes."""
        return self.parts.probes

    @cached_property
    def by_key(self) -> dict[str, Cell]:
        """Cells by key."""
        return {cell.key: cell for cell in self.cells}

    @cached_property
    def swept(self) -> frozenset[str]:
        """Names of the personas that phase 1 probes."""
        sweep = self.study.spec.sweep
        return frozenset(persona_choice(sweep.personas, self.study.personas)) if sweep else frozenset()

    def of_kind(self, kind: Kind) -> list[Cell]:
        """The cells of one kind."""
        return [cell for cell in self.cells if cell.kind == kind]

    @cached_property
    def hash(self) -> str:
        """Hash of the study, of its budget and of every cell's key. Of the plan before the gate has decided it is the
        same all through a run, and what an approval names."""
        return stable_hash(
            self.study.identity, self.study.spec.budget.model_dump(), sorted(cell.key for cell in self.cells)
        )

    def with_answers(self, own: Mapping[str, Mapping[str, str]]) -> Plan:
        """The same cells, on rows and items in which the answers that a model wrote stand."""
        parts = StudyParts(self.study, own)
        designs = {
            training: parts.design(training.behavior, training.source, training.arm) for training in self.designs
        }
        return replace(self, parts=parts, designs=designs, keyed_by=self.keyed_by or self.parts)

    def after_gate(self, picks: Mapping[str, str]) -> Plan:
        """The plan with what the gate picked; nothing is built anew."""
        plan = plan_cells(self.keyed_by or self.parts, picks)
        return plan if self.parts.own is None else plan.with_answers(self.parts.own)

    @property
    def gate(self) -> Cell | None:
        """The gate's cell; None where nothing is swept."""
        return next(iter(self.of_kind("gate")), None)

    def contexts_of(self, cell: Cell) -> list[Context]:
        """The contexts that an evaluation covers, in the order of the set."""
        return members(cell.group, self.parts, self.swept)

    def probed_in_training(self, cell: Cell) -> bool:
        """Whether a training is probed on its way: those of the sweep are probed at their end alone."""
        return cell.kind == "train" and cell.phase > 1

    def together(self, cell: Cell) -> str | None:
        """What trainings share that are done in joint passes as one attempt: the shape of the adapter and the steps, so
        that they end together; None for another cell."""
        if cell.training is None or cell.kind != "train" or self.study.spec.train_to is not None:
            return None  # those that end at a dose each end at a step of their own
        recipe = self.recipes[cell.training]
        steps = recipe.steps(len(self.designs[cell.training].rows))
        return stable_hash(recipe.lora.model_dump(mode="json"), steps, recipe.batch_size, self.probed_in_training(cell))

    def replaced_by(self, cell: Cell) -> str:
        """The key of the evaluation after the gate that has the rows of this one of the sweep's; "" for none."""
        if cell.phase != 1 or cell.training is None or cell.probe is None:
            return ""
        return self._after_gate.get((cell.training, cell.probe, cell.group == "contexts"), "")

    @cached_property
    def _after_gate(self) -> dict[tuple[Training | None, str | None, bool], str]:
        late = [c for c in self.cells if c.kind == "evaluate" and c.phase > 1]
        return {(c.training, c.probe, c.group == "contexts"): c.key for c in late}

    def before_gate(self) -> list[Cell]:
        """The cells up to and with the gate; all of them where there is none."""
        return [cell for cell in self.cells if cell.phase <= 1] if self.gate else list(self.cells)

    def without_gate(self) -> list[Cell]:
        """The cells that can run whatever the gate will say: those up to and with it, and what needs nothing of it."""
        behind = {self.gate.key} if self.gate else set[str]()
        free: list[Cell] = []
        for cell in self.cells:  # the order of the plan: what a cell needs stands before it
            if behind.intersection(cell.needs):
                behind.add(cell.key)
            else:
                free.append(cell)
        return free


def swept_behaviors(study: ResolvedStudy) -> list[str]:
    """The behaviors that the sweep trains."""
    sweep = study.spec.sweep
    return [] if sweep is None else list(sweep.behaviors or study.spec.behaviors)


def plan_cells(study: ResolvedStudy | StudyParts, picks: Mapping[str, str] | None = None) -> Plan:
    """Cut a study into cells. `picks` is what the gate picked, behavior -> configuration: a swept behavior without one
    has no phase 2. None: it has not decided, and the longest configuration stands in, so that a forecast is not too
    low. Given the parts of an earlier plan, nothing of them is built anew. Raises DesignError or DataError where the
    design cannot be built."""
    return _Cutter(study if isinstance(study, StudyParts) else StudyParts(study), picks).plan()


class _Cutter:
    """Makes the cells of one study, phase by phase."""

    def __init__(self, parts: StudyParts, picks: Mapping[str, str] | None) -> None:
        self.parts, self.study, self.spec = parts, parts.study, parts.study.spec
        self.contexts, self.probes = parts.contexts, parts.probes
        self.model = self.spec.model.model_dump(mode="json")
        self.swept = persona_choice(self.spec.sweep.personas, self.study.personas) if self.spec.sweep else []
        self.assumed = picks is None and self.spec.sweep is not None
        self.picks = dict(self._assume() if picks is None else picks)
        self.cells: list[Cell] = []
        self.designs: dict[Training, Design] = {}
        self.recipes: dict[Training, Recipe] = {}
        self.decided = {name: stable_hash(probe.decides()) for name, probe in self.probes.items()}
        self.hashed: dict[object, str] = {}
        self.checks: dict[str, str] = {}
        self.trained: dict[Training, str] = {}
        self.geometry_key = ""
        self.written: list[str] = []  # keys of the cells in which a model writes answers

    def plan(self) -> Plan:
        """All phases, in the order in which they can run."""
        self._phase_0()
        gate = self._phase_1() if self.spec.sweep else ()
        self._phases_2_and_3(gate)
        return Plan(self.parts, tuple(self.cells), self.designs, self.recipes, self.picks, self.assumed)

    def _assume(self) -> dict[str, str]:
        """The most expensive configuration for every swept behavior."""
        if self.spec.sweep is None:
            return {}
        longest = max(self.spec.sweep.points(), key=lambda config: config.epochs)
        given = self.spec.select.config if self.spec.select.rule == "given" else None
        config = given or longest
        return {behavior: config_label(config.lr, config.epochs) for behavior in swept_behaviors(self.study)}

    def _key(self, kind: Kind, *parts: object) -> str:
        return stable_hash(kind, VERSIONS[kind], None if kind == "data" else self.model, *parts)

    def _of(self, group: Group) -> str:
        """Hash of a group's contexts."""
        if group not in self.hashed:
            self.hashed[group] = stable_hash([context_key(context) for context in self._members(group)])
        return self.hashed[group]

    def _members(self, group: Group) -> list[Context]:
        return members(group, self.parts, self.swept)

    def _rows(self, design: Design) -> str:
        """Hash of a design's rows: configurations and seeds share them."""
        place = (design.behavior, design.source, design.arm)
        if place not in self.hashed:
            fields = [name for name in Row.__dataclass_fields__ if name != "context"]
            rows = [[context_key(row.context), *(getattr(row, name) for name in fields)] for row in design.rows]
            self.hashed[place] = stable_hash(fields, rows)
        return self.hashed[place]

    def _phase_0(self) -> None:
        everyone = self._of("all")
        compared = everyone
        if self.parts.compared != self.contexts:
            compared = stable_hash([context_key(context) for context in self.parts.compared])
        # Until a model has written them, answers are stand-ins that say what decides them: keys are the same after.
        for name, behavior in self.parts.to_write().items():
            key = self._key("answers", name, behavior.data_hashes(), behavior.writing())
            self.cells.append(Cell("answers", f"answers-{name}", key, behavior=name))
            self.written.append(key)
        rows = [self._rows(design) for design in self.parts.designs()]
        self.cells.append(Cell("data", "data", self._key("data", rows, *self.written), tuple(self.written)))
        trained = (
            [rows, [as_dict(turn) for turn in self.parts.turns]] if self.parts.predictors().need(*OF_TRAINING) else None
        )
        self.geometry_key = self._key(
            "geometry", compared, self.spec.sources, self.spec.geometry.model_dump(), self.parts.open_questions, trained
        )
        self.cells.append(Cell("geometry", "geometry", self.geometry_key, tuple(self.written)))
        # How a checked probe measures is decided before anything else is measured with it. Its decision follows from
        # what is in the keys of the other cells already, so that they only need it and do not carry its key.
        for name, probe in self.probes.items():
            if isinstance(probe, CheckedProbe) and not probe.ready:
                self.checks[name] = self._key("mode check", everyone, self.decided[name])
                self.cells.append(Cell("mode check", f"mode-check-{name}", self.checks[name], probe=name))

    def _phase_1(self) -> tuple[str, ...]:
        """The sweep and the gate; returns what phase 2 needs."""
        sweep = self.spec.sweep
        assert sweep is not None
        needed = [self.geometry_key, *self._evaluate(None, (), 1, "swept"), *self._evaluate(None, (), 1, "contexts")]
        for behavior in swept_behaviors(self.study):
            for config, arm in product(sweep.points(), swept_arms(self.spec.arms)):
                training = Training(behavior, sweep.source, arm, config.lr, config.epochs, self.spec.seeds[0])
                key = self._train(training, config, 1, ())
                needed += self._evaluate(training, (key,), 1, "swept")
                needed += self._evaluate(training, (key,), 1, "contexts")
        gate = self.spec.gate.model_dump() if self.spec.gate else None
        key = self._key("gate", gate, self.spec.select.model_dump(mode="json"), self.spec.geometry.layer, needed)
        self.cells.append(Cell("gate", "gate", key, tuple(needed), phase=1))
        return (key,)

    def _phases_2_and_3(self, gate: tuple[str, ...]) -> None:
        group: Group = "rest" if self.spec.sweep else "all"
        if self._members(group):  # of the untrained model: it waits for nothing, and fills gaps before the gate
            self._evaluate(None, (), 3, group)
        if not self.spec.sweep:
            self._evaluate(None, (), 3, "contexts")
        for behavior, config in self._configs().items():
            for source, arm in self.parts.pairs():
                for seed in self.spec.seeds:
                    training = Training(behavior, source, arm, config.lr, config.epochs, seed)
                    key = self._train(training, config, 2, gate)
                    self._evaluate(training, (key,), 3, "all")
                    self._evaluate(training, (key,), 3, "contexts")

    def _configs(self) -> dict[str, Config | Recipe]:
        """What each behavior of phase 2 is trained with: the pick of the gate, or the recipe where nothing is swept."""
        swept_points = self.spec.sweep.points() if self.spec.sweep else []
        points = {config_label(point.lr, point.epochs): point for point in swept_points}
        swept = swept_behaviors(self.study)
        return {
            behavior: points[self.picks[behavior]] if behavior in self.picks else self.spec.recipe_of(behavior)
            for behavior in self.spec.behaviors
            if behavior not in swept or behavior in self.picks
        }

    def _train(self, training: Training, config: Config | Recipe, phase: int, needs: Sequence[str]) -> str:
        recipe = self.spec.recipe_of(training.behavior).model_copy(update={"lr": config.lr, "epochs": config.epochs})
        design = self.parts.design(training.behavior, training.source, training.arm)
        self.designs[training], self.recipes[training] = design, recipe
        way = [self.spec.checkpoints.model_dump(), self.decided, self.geometry_key] if phase > 1 else None
        if way and self._members("contexts"):
            way.append(self._of("contexts"))
        files = [hashes] if (hashes := self.parts.behavior(training.behavior).data_hashes()) else []
        dose, twin = dose_of(training, self.spec, self.decided, self.trained)
        key = self._key(
            "train", self._of("all"), self._rows(design), recipe.model_dump(mode="json"), training.seed, way, *files, *dose
        )  # fmt: skip
        self.trained[training] = key
        name = f"{'sweep' if phase == 1 else 'train'}-{training.label}"
        # What is probed on the way needs to know whom to probe, and how.
        probed = phase > 1 and self.spec.checkpoints.fractions()
        on_the_way = (self.geometry_key,) if probed else ()
        on_the_way += tuple(self.checks.values()) if probed or dose else ()
        self.cells.append(Cell("train", name, key, (*on_the_way, *self.written, *twin, *needs), training, phase=phase))
        return key

    def _evaluate(self, training: Training | None, needs: Sequence[str], phase: int, group: Group) -> list[str]:
        keys: list[str] = []
        if not self._members(group):
            return keys
        for name in self.probes:
            trained = needs[0] if training else None
            key = self._key("evaluate", self._of(group), self.decided[name], trained)
            check = (self.checks[name],) if name in self.checks else ()
            check += () if training else tuple(self.written)
            where = "" if group == "all" else f"-{group}"
            title = f"after-{training.label}{where}-{name}" if training else f"base{where}-{name}"
            self.cells.append(Cell("evaluate", title, key, (*needs, *check), training, name, phase, group))
            keys.append(key)
        return keys
