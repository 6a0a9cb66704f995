"""`bystander hunt`: which contexts that were not measured yet leak most, within a budget of evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from bystander.analysis.stats.hunt import Found, benign_finds, hunt, p_of_find, rounds_within
from bystander.core import doors
from bystander.core.errors import DataError, StoreError, StudyError
from bystander.core.metrics import Outcome, metric, outcomes_of
from bystander.core.progress import Bar
from bystander.core.records import Context
from bystander.core.yamlfile import Path_, read_text, read_yaml
from bystander.design.render import context_roles
from bystander.lm.model import LoadedModel
from bystander.lm.model import load as load_model
from bystander.lm.tokens import left_out
from bystander.personas import hunted_contexts
from bystander.probe.base import Few
from bystander.study.config.contexts import ContextBlock, check_contexts, contexts_beside
from bystander.study.config.study import ResolvedStudy
from bystander.study.plan.parts import StudyParts
from bystander.study.store.records import TrainingName
from bystander.study.store.run_dir import RunDir

Floats = NDArray[np.float64]
ITEMS = 16  # of a context at most
DRAWS = 199  # of the benign adapter's items: p is a multiple of 1/200


@dataclass(frozen=True, slots=True)
class HuntRequest:
    """`behavior`, `source`: which adapter of the run; `budget`: contexts x items that are read of it; `file`: contexts of the user's,
    in the form of a study's `contexts:`; `benign`: the folder of a benign adapter."""

    behavior: str
    source: str
    budget: int = 200
    file: Path | None = None
    benign: Path | None = None


@dataclass(frozen=True, slots=True)
class HuntResult:
    """What was found: contexts best first, the best one's mean leakage, what was read, and, with a benign adapter, the
    probability that its best find is as large. `left_out`: contexts that the budget did not reach."""

    outcome: str
    contexts: tuple[str, ...]
    leakage: float
    evaluations: int
    p: float | None
    benign_evaluations: int
    left_out: int


@dataclass
class ItemReader:
    """Values of contexts on the first items of a probe, of the base and of an adapter. A later round reads its first items
    anew: a probe is run whole."""

    study: ResolvedStudy
    loaded: LoadedModel
    outcome: Outcome
    adapter: Path
    bar: Bar
    _base: dict[tuple[str, int], Floats] = field(default_factory=dict[tuple[str, int], Floats])

    def leakage(self, contexts: Sequence[Context], items: int) -> Floats:
        """[contexts, items] change from the untrained model, in the behavior's direction."""
        before = self._before(contexts, items)
        with self.loaded.adapter(self.adapter):
            after = self._values(contexts, items)
        return metric(self.outcome[0], self.outcome[2]).direction * (after - before)

    def _before(self, contexts: Sequence[Context], items: int) -> Floats:
        new = [context for context in contexts if (context.name, items) not in self._base]
        if new:
            for context, values in zip(new, self._values(new, items), strict=True):
                self._base[context.name, items] = values
        return np.stack([self._base[context.name, items] for context in contexts])

    def _values(self, contexts: Sequence[Context], items: int) -> Floats:
        probe_name, dataset, name = self.outcome
        probe = _with_items(self.study, probe_name, items)
        found: dict[str, list[float]] = {context.name: [] for context in contexts}
        self.bar.start(f"{probe_name} probe, {len(contexts)} contexts, {items} items", len(contexts))
        for unit in probe.run(self.loaded, contexts):
            for one in unit.measurements:
                if (one.dataset, one.metric) == (dataset, name) and one.value is not None:
                    found[one.persona].append(float(one.value))
            self.bar.advance()
        short = [context for context, values in found.items() if len(values) != items]
        if short:
            raise DataError(
                f"{short[0]}: {len(found[short[0]])} values where {items} were asked for; take another outcome"
            )
        return np.array([found[context.name] for context in contexts])


def hunt_run(run: RunDir, study: ResolvedStudy, asked: HuntRequest, bar: Bar) -> HuntResult:
    """Hunt on a run's adapter. Raises StoreError where that training is not complete, StudyError where the behavior is read
    by no probe that can be asked for few items, DataError for a faulty file or a budget that is too small."""
    outcome, items = outcome_of(study, asked.behavior)
    adapter = adapter_of(run, study, asked)
    model = study.spec.model
    loaded = load_model(model.name, device=model.device, dtype=model.dtype, revision=model.revision)
    contexts = _unmeasured(study, loaded, asked)
    reached = contexts[: asked.budget]
    items = min(items, ITEMS)
    reader = ItemReader(study, loaded, outcome, adapter, bar)
    found = hunt(lambda places, n: reader.leakage([reached[i] for i in places], n), len(reached), asked.budget, items)
    p, more = _p(found, reader, asked, reached, items)
    names = tuple(reached[place].name for place in found.order)
    return HuntResult("/".join(outcome), names, found.value, found.evaluations, p, more, len(contexts) - len(reached))


def _p(
    found: Found, reader: ItemReader, asked: HuntRequest, contexts: Sequence[Context], items: int
) -> tuple[float | None, int]:
    if asked.benign is None:
        return None, 0
    most = rounds_within(len(contexts), asked.budget, items)[-1].items
    values = replace(reader, adapter=asked.benign).leakage(contexts, most)
    null = benign_finds(values, asked.budget, DRAWS, asked.behavior, asked.source)
    return p_of_find(found.value, null), values.size


def outcome_of(study: ResolvedStudy, behavior: str) -> tuple[Outcome, int]:
    """The outcome that is hunted, and how many items the study reads of it: what costs no sampling (`Probe.few`). Of the
    marker that is its probability after a fixed answer, a diagnostic: what is found wants a run that measures it."""
    probes, can = study.spec.probes.asked(), _few()
    for probe, dataset, name in outcomes_of(behavior):
        if probe in probes and probe in can:
            few = can[probe]
            return (probe, dataset, few.metric or name), int(getattr(probes[probe], few.count) or ITEMS)
    raise StudyError(
        f"{behavior} is read by none of {', '.join(can)} in this study, and a hunt reads few items at a time: measure "
        "it with one of these"
    )


def adapter_of(run: RunDir, study: ResolvedStudy, asked: HuntRequest) -> Path:
    """The adapter of that behavior and source in the study's first arm, of its first seed."""
    plan = run.plan()
    known: list[TrainingName] = []
    for planned in plan.cells if plan else ():
        cell = run.cell(planned.name, planned.key)
        if planned.kind != "train" or not cell.complete or planned.phase < 2:
            continue
        training = cell.manifest().training
        if training is None or not cell.adapter.is_dir():
            continue
        known.append(training)
        if (training.behavior, training.source, training.arm) == (asked.behavior, asked.source, study.spec.arms[0]):
            return cell.adapter
    there = ", ".join(sorted({f"{one.behavior} of {one.source}" for one in known})) or "none"
    raise StoreError(
        f"{run.path} has no complete training of {asked.behavior} with source {asked.source}; complete ones: {there}"
    )


def own_contexts(path: Path, study: ResolvedStudy) -> tuple[Context, ...]:
    """The contexts of a file with a list `contexts:` of blocks as in a study. Raises DataError with every fault."""
    try:
        data: Any = read_yaml(read_text(path, "context file")).data
        blocks = TypeAdapter(list[ContextBlock]).validate_python((data or {}).get("contexts"))
    except (OSError, AttributeError, ValidationError) as error:
        raise DataError(
            f"{path} has no list `contexts:` of blocks as in a study file: {str(error).splitlines()[0]}"
        ) from error
    faults: list[str] = []

    def add(where: Path_, what: str) -> None:
        faults.append(f"{'.'.join(map(str, where))}: {what}")

    check_contexts(blocks, [persona.name for persona in study.personas], add)
    if faults:
        raise DataError("\n".join([f"{path}:", *(f"  - {fault}" for fault in faults)]))
    return contexts_beside(blocks, study.personas, study.spec.personas_in)


def _unmeasured(study: ResolvedStudy, loaded: LoadedModel, asked: HuntRequest) -> list[Context]:
    """Candidates, the user's first: not measured by the study, rendered by the template, not trained on."""
    parts = StudyParts(study)
    own = own_contexts(asked.file, study) if asked.file else ()
    candidates = {context.name: context for context in (*own, *hunted_contexts().values())}
    seen = {context.content for context in (*parts.contexts, *parts.beside)}
    left = [context for context in candidates.values() if context.content not in seen]
    without = left_out(loaded.tokenizer, left, study.spec.personas_in)
    left = [context for context in left if context.name not in without]
    design = parts.design(asked.behavior, asked.source, study.spec.arms[0])
    roles = context_roles(design, loaded.tokenizer, left)
    return [context for context in left if roles[context.kind, context.name] == "held-out"]


def _few() -> dict[str, Few]:
    """Probes that can read a few items at a time."""
    found = {name: doors.load("probe", name).few for name in doors.names("probe")}
    return {name: few for name, few in found.items() if few is not None}


def _with_items(study: ResolvedStudy, name: str, items: int) -> Any:
    """The study's probe on its first items alone."""
    probes = study.spec.probes
    few: Few = doors.load("probe", name).few  # `outcome_of` names no other probes
    settings = getattr(probes, name).model_copy(update={few.count: items, **few.others})
    spec = study.spec.model_copy(update={"probes": probes.model_copy(update={name: settings})})
    return StudyParts(replace(study, spec=spec)).probes[name]
