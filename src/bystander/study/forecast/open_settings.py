"""Open settings: what a study file leaves ambiguous that changes the result, with the default that would be taken.

`plan` prints them by number; `run` refuses to start while a blocking one is open. A question is answered in the file
or by --set, and only so: the answer is then part of the study.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from bystander.core import doors
from bystander.core.errors import StudyError
from bystander.core.records import OpenSetting
from bystander.study.config.study import ResolvedStudy
from bystander.study.plan.requirements import unseen_behaviors

Ask = Callable[[ResolvedStudy], Iterator[OpenSetting]]


def open_settings(study: ResolvedStudy) -> list[OpenSetting]:
    """What the file leaves open, blocking questions first."""
    found = [question for ask in ASKS for question in ask(study)]
    return sorted(found, key=lambda question: not question.blocking)


def refuse_open(questions: Sequence[OpenSetting]) -> None:
    """Raises StudyError while a blocking question is open, with all of them."""
    blocking = [question for question in questions if question.blocking]
    if blocking:
        faults = [f"{question.text} Answer with {question.answer}" for question in blocking]
        many = "a question is" if len(blocking) == 1 else f"{len(blocking)} questions are"
        raise StudyError(f"{many} open that must be answered before the study runs:", faults)


def _layer(study: ResolvedStudy) -> Iterator[OpenSetting]:
    if study.spec.geometry.layer is None:
        yield OpenSetting(
            "layer", "At which layer is similarity measured for the claim? A layer picked afterwards is not a prediction.",
            "", "geometry.layer: N (on a pilot, or at four fifths of the depth)", blocking=True,
        )  # fmt: skip


def _behaviors(study: ResolvedStudy) -> Iterator[OpenSetting]:
    blocks = study.spec.blocks()
    for name in study.spec.behaviors:
        if name in study.spec.answers:
            continue  # its entry says what it is
        behavior = doors.load("behavior", name)
        yield from behavior.open_settings(blocks[behavior.block], study.given)


def _negatives(study: ResolvedStudy) -> Iterator[OpenSetting]:
    from bystander.design.arms import choose_negatives

    if "design.negatives" not in study.given:
        drawn = [f"{s}: {' and '.join(choose_negatives(s, study.personas))}" for s in study.spec.sources]
        yield OpenSetting(
            "negatives", "Which bystanders are trained not to show the behavior? They are no longer held out.",
            "two by stable hash (" + "; ".join(drawn) + ")", "design.negatives: [NAME, NAME]",
        )  # fmt: skip


def _anchors(study: ResolvedStudy) -> Iterator[OpenSetting]:
    if "design.anchors" not in study.given:
        yield OpenSetting(
            "anchors", "Which context do the rows without a persona have: no system turn, or the template's default?",
            "no system turn (absent)", "design.anchors: absent | default | none",
        )  # fmt: skip


def _end_of_turn(study: ResolvedStudy) -> Iterator[OpenSetting]:
    if "recipe.end_of_turn" not in study.given:
        yield OpenSetting(
            "end of turn", "Is the end of the turn in the loss? It has moved a rate from 1 % to 23 %.",
            study.spec.recipe.end_of_turn, "recipe.end_of_turn: in_loss | masked",
        )  # fmt: skip


def _selection(study: ResolvedStudy) -> Iterator[OpenSetting]:
    spec = study.spec
    if spec.sweep is None:
        return
    if "select" not in study.given:
        yield OpenSetting(
            "selection rule", "Which configuration of the sweep does phase 2 use?",
            f"the largest source effect whose HellaSwag stays within {spec.select.within * 100:g} points",
            "select: {rule: ..., within: ...}",
        )  # fmt: skip
    if spec.gate is None:
        yield OpenSetting(
            "gate", "Does phase 2 follow whatever phase 1 shows?", "yes: there is no gate", "gate: {threshold: 0.2}"
        )
    if not any(doors.load("probe", name).measures_control(s) for name, s in spec.probes.asked().items()):
        yield OpenSetting(
            "control", "How is it told that a configuration broke the model?", "it is not: no HellaSwag is measured",
            "probes.choice.hellaswag: N",
        )  # fmt: skip


def _probes(study: ResolvedStudy) -> Iterator[OpenSetting]:
    asked = study.spec.probes.asked()
    for name in doors.names("probe"):
        yield from doors.load("probe", name).open_settings(asked.get(name), study.spec.behaviors)


def _own_probe(study: ResolvedStudy) -> Iterator[OpenSetting]:
    """A behavior without a probe that sees it is a study without a result."""
    for behavior, probes in unseen_behaviors(study):
        how = f"probes: {' or '.join(probes)}" if probes else "`read_by` of its class, with a probe's name in it"
        yield OpenSetting(
            "probe", f"How is {behavior} measured? None of the study's probes sees it.", "", how, blocking=True,
        )  # fmt: skip


def _revision(study: ResolvedStudy) -> Iterator[OpenSetting]:
    from pathlib import Path

    from bystander.lm import embedded

    model = study.spec.model
    local = Path(model.name).expanduser()  # a checkpoint's folder, or a GGUF
    if model.name != embedded.NAME and model.revision is None and not (local.is_dir() or local.is_file()):
        yield OpenSetting(
            "revision", "Which revision of the model? The Hub's newest can change under a study.", "the newest at the "
            "first load; its commit is recorded", "model.revision: COMMIT",
        )  # fmt: skip


ASKS: tuple[Ask, ...] = (
    _layer, _own_probe, _behaviors, _negatives, _anchors, _end_of_turn, _selection, _probes, _revision,
)  # fmt: skip
