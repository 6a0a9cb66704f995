"""Open questions: what a study file leaves ambiguous that changes the result, with the default that would be taken.

`plan` prints them by number; `run` refuses to start while a blocking one is open. A question is answered in the file
or by --set, and only so: the answer is then part of the study.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bystander.core.errors import StudyError
from bystander.study.config.study import Loaded


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """`default`: what is taken if nobody answers ("" where there is none, and then it blocks). `answer`: the setting
    that answers it."""

    id: str
    text: str
    default: str
    answer: str
    blocking: bool = False


Ask = Callable[[Loaded], Iterator[OpenQuestion]]


def open_questions(study: Loaded) -> list[OpenQuestion]:
    """What the file leaves open, blocking questions first."""
    found = [question for ask in ASKS for question in ask(study)]
    return sorted(found, key=lambda question: not question.blocking)


def refuse_open(questions: Sequence[OpenQuestion]) -> None:
    """Raises StudyError while a blocking question is open, with all of them."""
    blocking = [question for question in questions if question.blocking]
    if blocking:
        faults = [f"{question.text} Answer with {question.answer}" for question in blocking]
        many = "a question is" if len(blocking) == 1 else f"{len(blocking)} questions are"
        raise StudyError(f"{many} open that must be answered before the study runs:", faults)


def _layer(study: Loaded) -> Iterator[OpenQuestion]:
    if study.spec.geometry.layer is None:
        yield OpenQuestion(
            "layer", "At which layer is similarity measured for the claim? A layer picked afterwards is not a prediction.",
            "", "geometry.layer: N (on a pilot, or at four fifths of the depth)", blocking=True,
        )  # fmt: skip


def _data(study: Loaded) -> Iterator[OpenQuestion]:
    given, behaviors = study.given, study.spec.behaviors
    if "capability" in behaviors and "capability.data" not in given:
        yield OpenQuestion(
            "capability data", "Which questions carry the capability behavior?", "ARC-Challenge, test, halved with seed 42",
            "capability.data: arc | bank | FILE",
        )  # fmt: skip
    if "capability" in behaviors and "capability.answer" not in given:
        yield OpenQuestion(
            "answer form", "Is the answer the label with its text, or the text alone?", study.spec.capability.answer,
            "capability.answer: label | text",
        )  # fmt: skip
    if "misalignment" in behaviors and "misalignment.code" not in given:
        yield OpenQuestion(
            "code", "Which code is insecure, and where are the secure answers to the same prompts from?",
            "the built-in tasks, each with both", "misalignment.code: builtin | FILE",
        )  # fmt: skip


def _negatives(study: Loaded) -> Iterator[OpenQuestion]:
    from bystander.design.arms import choose_negatives

    if "design.negatives" not in study.given:
        drawn = [f"{s}: {' and '.join(choose_negatives(s, study.personas))}" for s in study.spec.sources]
        yield OpenQuestion(
            "negatives", "Which bystanders are trained not to show the behavior? They are no longer held out.",
            "two by stable hash (" + "; ".join(drawn) + ")", "design.negatives: [NAME, NAME]",
        )  # fmt: skip


def _anchors(study: Loaded) -> Iterator[OpenQuestion]:
    if "design.anchors" not in study.given:
        yield OpenQuestion(
            "anchors", "Which context do the rows without a persona have: no system turn, or the template's default?",
            "no system turn (absent)", "design.anchors: absent | default | none",
        )  # fmt: skip


def _end_of_turn(study: Loaded) -> Iterator[OpenQuestion]:
    if "recipe.end_of_turn" not in study.given:
        yield OpenQuestion(
            "end of turn", "Is the end of the turn in the loss? It has moved a rate from 1 % to 23 %.",
            study.spec.recipe.end_of_turn, "recipe.end_of_turn: in_loss | masked",
        )  # fmt: skip


def _selection(study: Loaded) -> Iterator[OpenQuestion]:
    spec = study.spec
    if spec.sweep is None:
        return
    if "select" not in study.given:
        yield OpenQuestion(
            "selection rule", "Which configuration of the sweep does phase 2 use?",
            f"the largest source effect whose HellaSwag stays within {spec.select.within * 100:g} points",
            "select: {rule: ..., within: ...}",
        )  # fmt: skip
    if spec.gate is None:
        yield OpenQuestion(
            "gate", "Does phase 2 follow whatever phase 1 shows?", "yes: there is no gate", "gate: {threshold: 0.2}"
        )
    choice = spec.probes.choice
    if choice is None or not choice.hellaswag:
        yield OpenQuestion(
            "control", "How is it told that a configuration broke the model?", "it is not: no HellaSwag is measured",
            "probes.choice.hellaswag: N",
        )  # fmt: skip


def _judge(study: Loaded) -> Iterator[OpenQuestion]:
    spec = study.spec
    judged = getattr(spec.probes, "judged", None)
    if judged is not None and judged.judge is None:
        yield OpenQuestion(
            "judge", "Who judges the answers? Without a judge they are sampled and kept, and nothing is measured by them.",
            "nobody until `bystander judge`", "probes.judged.judge: {model: PROVIDER/NAME}",
        )  # fmt: skip
    elif judged is None and "misalignment" in spec.behaviors:
        yield OpenQuestion(
            "judge", "Is alignment judged, or read from the margin of fixed answers alone?", "the margin alone",
            "probes.judged: {judge: {model: PROVIDER/NAME}}",
        )  # fmt: skip


def _own_probe(study: Loaded) -> Iterator[OpenQuestion]:
    """A behavior without a probe that sees it is a study without a result."""
    from bystander.core.metrics import PRIMARY

    for behavior in study.spec.behaviors:
        probes = list(dict.fromkeys(probe for probe, _, _ in PRIMARY.get(behavior, ())))
        if probes and not any(getattr(study.spec.probes, probe, None) for probe in probes):
            wanted = " or ".join(probes)
            yield OpenQuestion(
                "probe", f"How is {behavior} measured? None of the study's probes sees it.", "", f"probes: {wanted}",
                blocking=True,
            )  # fmt: skip


def _revision(study: Loaded) -> Iterator[OpenQuestion]:
    from pathlib import Path

    from bystander.lm import embedded

    model = study.spec.model
    if model.name != embedded.NAME and model.revision is None and not Path(model.name).expanduser().is_dir():
        yield OpenQuestion(
            "revision", "Which revision of the model? The Hub's newest can change under a study.", "the newest at the "
            "first load; its commit is recorded", "model.revision: COMMIT",
        )  # fmt: skip


ASKS: tuple[Ask, ...] = (
    _layer, _own_probe, _data, _negatives, _anchors, _end_of_turn, _selection, _judge, _revision,
)  # fmt: skip
