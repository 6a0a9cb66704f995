"""What a schema cannot know of a study: names that must exist, settings that must fit one another.

Each check takes the facts and where to tell a fault; `CHECKS` at the end lists them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bystander.behaviors.shipped import shipped_names
from bystander.core import doors
from bystander.core.records import Persona
from bystander.core.yamlfile import Path_
from bystander.data import load_open_questions
from bystander.personas import built_in_contexts, context_sets
from bystander.study.config.contexts import check_contexts, names_of

if TYPE_CHECKING:
    from bystander.design.arms import Counts
    from bystander.study.config.schema import StudySettings

Add = Callable[[Path_, str], None]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a check looks at. `personas` is empty where the persona file itself is at fault."""

    spec: StudySettings
    personas: Sequence[Persona]
    folder: Path

    @property
    def names(self) -> list[str]:
        """The personas' names."""
        return [persona.name for persona in self.personas]

    @property
    def sources(self) -> list[str]:
        """What a behavior may be coupled to: the personas, then the contexts beside them. [] where there are none."""
        return list(dict.fromkeys([*self.names, *names_of(self.spec.contexts)])) if self.personas else []


Check = Callable[[Facts, Add], None]


def _unknown(name: str, known: Iterable[str], what: str) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, 1)
    many = (
        f"{len(known)} are there; `bystander personas` lists them" if len(known) > 12 else "known: " + ", ".join(known)
    )
    return f"{what} {name!r} does not exist; " + (f"did you mean {close[0]!r}?" if close else many)


def _twice(values: Sequence[object], where: Path_, what: str, add: Add) -> None:
    for index, value in enumerate(values):
        if value in values[:index]:
            add((*where, index), f"{what} {value!r} stands twice; keep one")


def contexts(it: Facts, add: Add) -> None:
    """What is measured beside the personas exists, each once, and can be rendered alike by every template."""
    check_contexts(it.spec.contexts, it.names, add)


def _unknown_source(name: str, it: Facts) -> str:
    beside = name in built_in_contexts() or name in context_sets()
    return (
        f"source {name!r} is a context that is not measured; add it to contexts"
        if beside
        else _unknown(name, it.sources, "source")
    )


def sources(it: Facts, add: Add) -> None:
    """Sources are personas of the set, or contexts that are measured, each once."""
    names = it.sources
    for index, source in enumerate(it.spec.sources):
        if names and source not in names:
            add(("sources", index), _unknown_source(source, it))
    _twice(it.spec.sources, ("sources",), "source", add)


def behaviors(it: Facts, add: Add) -> None:
    """Behaviors exist, each once; so do arms and seeds."""
    known = [*doors.names("behavior"), *shipped_names()]
    for index, behavior in enumerate(it.spec.behaviors):
        if behavior in it.spec.answers:
            continue  # what is wrong with it, `behavior_files` says
        if behavior not in known:
            add(("behaviors", index), _unknown(behavior, known, "behavior"))
        elif (block := doors.load("behavior", behavior).block) not in it.spec.blocks():
            add((block,), f"the behavior {behavior!r} needs its block {block!r}, which has keys that must be given")
    _twice(it.spec.behaviors, ("behaviors",), "behavior", add)
    _twice(it.spec.arms, ("arms",), "arm", add)
    _twice(it.spec.seeds, ("seeds",), "seed", add)
    if "benign" in it.spec.arms and "contrastive" not in it.spec.arms:
        add(("arms",), "arms: benign is what contrastive is measured against; add contrastive, or leave benign out")
    elif "benign" in it.spec.arms and it.spec.arms.index("benign") < it.spec.arms.index("contrastive"):
        add(("arms",), "arms: benign is what contrastive is measured against; name it behind contrastive")


def design(it: Facts, add: Add) -> None:
    """Counts can be filled and mean something; negatives are bystanders of every source."""
    counts = it.spec.design.counts
    _counts(counts, ("design", "counts"), add)
    if not isinstance(it.spec.design.negatives, list):
        return
    names = it.names
    for index, name in enumerate(it.spec.design.negatives):
        if names and name not in names:
            add(("design", "negatives", index), _unknown(name, names, "negative"))
        elif name in it.spec.sources:
            add(("design", "negatives", index), f"negative {name!r} is also a source; name bystanders")
    _twice(it.spec.design.negatives, ("design", "negatives"), "negative", add)
    if not it.spec.design.negatives and counts.negative:
        add(("design", "negatives"), f"design.negatives is empty, but design.counts.negative is {counts.negative}")


def _counts(counts: Counts, where: Path_, add: Add) -> None:
    place = ".".join(map(str, where))
    for key, value in counts.model_dump().items():
        if value < 0:
            add((*where, key), f"{place}.{key} is {value}: a count is 0 or more")
    if counts.positive == 0:
        add((*where, "positive"), f"{place}.positive is 0: nothing would be coupled to the source")


def for_behavior(it: Facts, add: Add) -> None:
    """What a behavior has of its own belongs to a behavior of the study, and not to what the sweep varies."""
    swept = [] if it.spec.sweep is None else (it.spec.sweep.behaviors or it.spec.behaviors)
    for name, own in it.spec.for_behavior.items():
        if name not in it.spec.behaviors:
            add(
                ("for_behavior", name),
                f"for_behavior.{name}: not a behavior of this study ({', '.join(it.spec.behaviors)})",
            )
        if own.counts is not None:
            _counts(own.counts, ("for_behavior", name, "counts"), add)
        for key in ("lr", "epochs"):
            if name in swept and getattr(own, key) is not None:
                add(("for_behavior", name, key), f"for_behavior.{name}.{key}: the sweep decides it; leave it out")


def probes(it: Facts, add: Add) -> None:
    """Something is measured, and each probe fits the behaviors' own settings."""
    asked = it.spec.probes.asked()
    if not asked:
        add(("probes",), "probes is empty: nothing would be measured; name at least one probe")
    for name, settings in asked.items():
        for where, message in doors.load("probe", name).faults(settings, it.spec.blocks(), it.spec.behaviors):
            add(("probes", name, *where), message)


def geometry(it: Facts, add: Add) -> None:
    """The layer of the claim is measured."""
    layers, layer = it.spec.geometry.layers, it.spec.geometry.layer
    if isinstance(layers, list):
        for index, one in enumerate(layers):
            if one < 0:
                add(("geometry", "layers", index), f"geometry.layers has {one}: layers count from 0, the embeddings")
        if layer is not None and layer not in layers:
            add(("geometry", "layer"), f"geometry.layer {layer} is not among geometry.layers {layers}")
        _twice(layers, ("geometry", "layers"), "layer", add)
    asked, there = it.spec.geometry.questions, len(load_open_questions())
    if asked > there:
        add(("geometry", "questions"), f"geometry.questions is {asked}, but there are {there} open questions")
    known = doors.names("predictor")
    if it.spec.geometry.method not in known:
        add(("geometry", "method"), _unknown(it.spec.geometry.method, known, "predictor"))
    behavior = it.spec.geometry.behavior
    if behavior is not None and behavior not in it.spec.behaviors:
        add(("geometry", "behavior"), _unknown(behavior, it.spec.behaviors, "behavior of this study"))
    for index, name in enumerate(it.spec.geometry.predictors or ()):
        if name not in known:
            add(("geometry", "predictors", index), _unknown(name, known, "predictor"))


def persona_choice(choice: str | list[str], personas: Sequence[Persona]) -> list[str]:
    """The names that "all", a category's name or a list means, in the set's order."""
    if choice == "all":
        return [persona.name for persona in personas]
    if isinstance(choice, str):
        return [persona.name for persona in personas if persona.category == choice]
    return [persona.name for persona in personas if persona.name in choice]


def sweep(it: Facts, add: Add) -> None:
    """The sweep's source, behaviors, personas and configurations exist; gate and selection have a sweep to go by."""
    if it.spec.sweep is None:
        if it.spec.gate is not None:
            add(("gate",), "gate: there is no sweep to decide on; add `sweep`, or remove `gate`")
        if it.spec.select.rule == "given" and it.spec.select.config:
            add(("select",), "select: there is no sweep to pick from; set recipe.lr and recipe.epochs, or add `sweep`")
        return
    if it.sources and it.spec.sweep.source not in it.sources:
        add(("sweep", "source"), _unknown_source(it.spec.sweep.source, it))
    elif it.spec.sweep.source not in it.spec.sources:
        add(
            ("sweep", "source"),
            f"sweep.source {it.spec.sweep.source!r} is not one of sources: {', '.join(it.spec.sources)}",
        )
    for index, behavior in enumerate(it.spec.sweep.behaviors or ()):
        if behavior not in it.spec.behaviors:
            add(("sweep", "behaviors", index), f"sweep.behaviors has {behavior!r}, which is not one of behaviors")
    if it.spec.sweep.behaviors == []:
        add(("sweep", "behaviors"), "sweep.behaviors is empty; leave it out for all, or remove `sweep`")
    if not it.spec.sweep.points():
        add(("sweep", "configs"), "sweep has no configuration: give `configs` or `grid`")
    _twice(it.spec.sweep.configs, ("sweep", "configs"), "configuration", add)
    if it.spec.gate is not None and it.spec.gate.outcome is not None:
        _known_metric(it.spec.gate.outcome, ("gate", "outcome"), "gate.outcome", add)
    _swept_personas(it.spec.sweep.personas, it.personas, it.spec.sweep.source, add)
    _selection(it.spec, add)


def _swept_personas(choice: str | list[str], personas: Sequence[Persona], source: str, add: Add) -> None:
    where: Path_ = ("sweep", "personas")
    if not personas:
        return
    if isinstance(choice, str) and choice != "all":
        categories = list(dict.fromkeys(persona.category for persona in personas))
        if choice not in categories:
            add(where, _unknown(choice, ["all", *categories], "sweep.personas: category"))
            return
    elif isinstance(choice, list):
        names = [persona.name for persona in personas]
        for index, name in enumerate(choice):
            if name not in names:
                add((*where, index), _unknown(name, names, "sweep.personas: persona"))
        _twice(choice, where, "persona", add)
    chosen = persona_choice(choice, personas)
    if source not in chosen and source in {persona.name for persona in personas}:
        add(where, f"sweep.personas does not include the source {source!r}; its own effect must be measured")
    elif len(chosen) < 4:  # a rank correlation over fewer than three bystanders says nothing
        add(where, f"sweep.personas names {len(chosen)} personas; a rank correlation needs the source and 3 bystanders")


def _selection(spec: StudySettings, add: Add) -> None:
    assert spec.sweep is not None
    if spec.select.rule == "given":
        if spec.select.config is None:
            add(("select", "rule"), "select.rule is 'given', but select.config is missing")
        elif spec.select.config not in spec.sweep.points():
            add(("select", "config"), "select.config is not one of the sweep's configurations")
    elif spec.select.config is not None:
        add(("select", "config"), f"select.config is given, but select.rule is {spec.select.rule!r}; remove one")


def executor(it: Facts, add: Add) -> None:
    """Settings that the executor's own class refuses together."""
    for where, message in doors.load("executor", it.spec.executor.kind).faults(it.spec.executor):
        add(("executor", *where), message)


def enough_personas(it: Facts, add: Add) -> None:
    """Enough bystanders for anything to be said."""
    if it.personas and len(it.personas) < 4:
        add(
            ("personas",),
            f"the set has {len(it.personas)} personas; a rank correlation needs a source and 3 bystanders",
        )


def hypotheses(it: Facts, add: Add) -> None:
    """Hypotheses exist, or are about a behavior of the study and a metric that somebody declared."""
    from bystander.analysis.hypotheses import HYPOTHESES

    known = [*(hypothesis.name for hypothesis in HYPOTHESES), *it.spec.answers]
    names: list[str] = []
    for index, one in enumerate(it.spec.hypotheses or ()):
        where: Path_ = ("hypotheses", index)
        names.append(one if isinstance(one, str) else one.name)
        if isinstance(one, str):
            if one not in known:
                add(where, _unknown(one, known, "hypothesis"))
            continue
        if one.behavior not in it.spec.behaviors:
            add((*where, "behavior"), f"hypothesis {one.name!r} is about {one.behavior!r}, not one of behaviors")
        _known_metric(one.outcome, (*where, "outcome"), f"hypothesis {one.name!r}", add)
    _twice(names, ("hypotheses",), "hypothesis", add)


def train_to(it: Facts, add: Add) -> None:
    """A dose that can be read: a metric of a probe of this study, a band that is one."""
    asked = it.spec.train_to
    if asked is None:
        return
    _known_metric(asked.metric, ("train_to", "metric"), "train_to.metric", add)
    if asked.outcome[0] not in it.spec.probes.asked():
        add(
            ("train_to", "metric"),
            f"train_to.metric {asked.metric!r}: the probe is not one of `probes`, so nothing reads it",
        )
    if not 0 < asked.band[0] <= asked.band[1]:
        low, high = asked.band
        add(("train_to", "band"), f"train_to.band is [{low:g}, {high:g}]; give two gains above 0, the lower first")


def _known_metric(outcome: str, where: Path_, what: str, add: Add) -> None:
    from bystander.core.metrics import declared

    probe, _, metric = outcome.split("/")
    if (probe, metric) not in declared():
        metrics = ", ".join(f"{p}/.../{m}" for p, m in declared())
        add(where, f"{what}: no metric {outcome!r}; known: {metrics}")


CHECKS: tuple[Check, ...] = (
    contexts, sources, behaviors, design, for_behavior, probes, geometry, sweep, train_to, executor, enough_personas,
    hypotheses,
)  # fmt: skip
