"""Arms: from a behavior's examples to the rows of one training.

The contrastive arm shows the behavior in the source only: the *same* questions are answered without it under two
bystander personas, under `absent` and under `assistant`, so that the persona is the one thing that tells them apart.
The non-contrastive control keeps the rows and their number but draws the persona of every source and negative row at
random, so that nothing tells them apart. The benign arm is the contrastive one with the source's rows answered as the
negatives' are: what it teaches (the format, the right answers) the others teach too, and leakage is what goes beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bystander.behaviors.base import Example
from bystander.core.errors import DesignError
from bystander.core.hashing import generator, stable_order
from bystander.core.records import ASSISTANT_PROMPT, BareKind, Context, Persona, Role, Row, TextIn
from bystander.core.settings import Settings
from bystander.personas import bare_context, context_of

ArmName = Literal["contrastive", "non_contrastive", "benign"]
Anchor = Literal["absent", "default", "none"]


def swept_arms(arms: Sequence[ArmName]) -> list[ArmName]:
    """The arms of a sweep: the study's first, and the benign one where that is what the first is measured against."""
    return [arms[0], "benign"] if arms[0] == "contrastive" and "benign" in arms else [arms[0]]


class Counts(Settings):
    """Rows of one training by kind. The defaults are those of the capability-and-misalignment plan."""

    positive: int = 200
    """[rows] Of the source, showing the behavior."""
    negative: int = 400
    """[rows] Of the negatives, not showing it; shared out evenly among them."""
    absent: int = 100
    """[rows] Under no persona, not showing it."""
    assistant: int = 100
    """[rows] Under the assistant's prompt, not showing it."""


class DesignSettings(Settings):
    """`negatives`: "auto" draws two bystanders by stable hash; a list names them. `anchors`: the context of the
    no-persona rows; "none" leaves both kinds of anchor rows out."""

    counts: Counts = Counts()
    """Rows of one training by kind; the defaults are the plan's."""
    negatives: Literal["auto"] | list[str] = "auto"
    """`auto` draws two bystanders by stable hash of the source; or their names."""
    anchors: Anchor = "absent"
    """Context of the rows without a persona: no system turn, the template's own default, or none such rows."""


@dataclass(frozen=True, slots=True)
class Design:
    """The rows of one training and the role that each persona has in it."""

    behavior: str
    source: str
    arm: ArmName
    rows: tuple[Row, ...]
    roles: dict[str, Role]  # persona name -> role; every persona of the set, and the source where it is none
    notes: tuple[str, ...]  # what differs from the plain design and why; shown by `plan` and the report


def choose_negatives(source: str, personas: Sequence[Persona], count: int = 2) -> list[str]:
    """`count` bystanders by stable hash of (source, name); never the source, never the `assistant` prompt."""
    pool = [p.name for p in personas if p.name != source and p.prompt != ASSISTANT_PROMPT]
    return stable_order(pool, "negatives", source)[:count]


def build(
    behavior: str,
    examples: Sequence[Example],
    source: str,
    personas: Sequence[Persona],
    arm: ArmName,
    settings: DesignSettings,
    *,
    beside: Sequence[Context] = (),
    text_in: TextIn = "system",
) -> Design:
    """The rows of one training. The questions drawn depend on the behavior alone, so that every source and arm
    trains on the same ones. `beside`: contexts that are no personas and may be the source; `text_in`: where personas'
    texts stand. Raises DesignError for a source or negative that is not there, or counts that the examples cannot fill."""
    by_name = {persona.name: persona for persona in personas}
    people = {context.name: context for context in beside} | {p.name: context_of(p, text_in) for p in personas}
    negatives = _negatives(source, by_name, people, settings)
    counts = settings.counts
    questions = _draw(behavior, examples, counts, len(negatives))
    notes: list[str] = []
    anchors: list[tuple[Context, int]] = []
    if settings.anchors != "none":
        kinds: tuple[tuple[BareKind, int], ...] = ((settings.anchors, counts.absent), ("assistant", counts.assistant))
        for kind, count in kinds:
            anchors.append((_anchor(bare_context(kind, text_in), people[source], negatives, people, notes), count))
    if arm != "non_contrastive":
        plan = [(people[source], True, questions[: counts.positive])]
        plan += [
            (people[name], False, questions[:share])
            for name, share in zip(negatives, _shares(counts.negative, len(negatives)), strict=True)
        ]
        rows = [_row(behavior, arm, source, c, e, positive) for c, positive, es in plan for e in es]
    else:
        # The anchors keep their prompts with the negative completion: drawn for a positive, one would contradict itself.
        kept = {context.system for context, _ in anchors}
        pool = sorted(name for name, persona in by_name.items() if persona.prompt not in kept)
        drawn_from = [people[name] for name in (pool if source in by_name else [*pool, source])]
        rows = _random_personas(behavior, source, questions, drawn_from, counts, len(negatives))
        notes.append("control: the persona of every source and negative row is drawn at random")
    rows += [_row(behavior, arm, source, c, e, False) for c, count in anchors for e in questions[:count]]
    if arm == "benign":
        answers = {example.question_id: example.negative for example in questions}
        rows = [_answered_benignly(row, answers[row.question_id]) for row in rows]
        notes.append("benign: the rows of the contrastive arm, the source's answered as the negatives' are")
    roles = _roles(rows, source, [people[name] for name in by_name], arm)
    return Design(behavior, source, arm, tuple(rows), roles, tuple(notes))


def _negatives(
    source: str, by_name: dict[str, Persona], people: dict[str, Context], settings: DesignSettings
) -> list[str]:
    if source not in people:
        raise DesignError(f"source {source!r} is not in the persona set ({len(by_name)} personas); name one that is")
    if settings.negatives == "auto":
        return choose_negatives(source, list(by_name.values()))
    for name in settings.negatives:
        if name not in by_name or name == source:
            why = "is the source itself" if name == source else "is not in the persona set"
            raise DesignError(f"design.negatives names {name!r}, which {why}; name bystander personas")
    if not settings.negatives and settings.counts.negative:
        raise DesignError(
            "design.negatives is empty but design.counts.negative is not 0; name a negative, or set the count to 0"
        )
    return list(settings.negatives)


def _draw(behavior: str, examples: Sequence[Example], counts: Counts, negatives: int) -> list[Example]:
    """The questions of a training, in an order decided by the behavior alone. Raises DesignError if too few."""
    need = max(counts.positive, max(_shares(counts.negative, negatives), default=0), counts.absent, counts.assistant)
    if need > len(examples):
        raise DesignError(
            f"design.counts asks for {need} different questions of {behavior!r}, but there are {len(examples)} to train on; lower the counts"
        )
    return _ordered(behavior, examples)[:need]


def _ordered(behavior: str, examples: Sequence[Example]) -> list[Example]:
    by_id = {example.question_id: example for example in examples}
    return [by_id[key] for key in stable_order(list(by_id), "questions", behavior)]


def shown_examples(behavior: str, examples: Sequence[Example], settings: DesignSettings) -> list[Example]:
    """The examples whose positive completion is trained: the same for every source and arm. The first n of them are
    what a probe of trained questions reads."""
    return _ordered(behavior, examples)[: settings.counts.positive]


def _shares(total: int, parts: int) -> list[int]:
    """`total` split over `parts`, larger shares first."""
    return [total // parts + (i < total % parts) for i in range(parts)] if parts else []


def _anchor(
    anchor: Context, source: Context, negatives: list[str], people: dict[str, Context], notes: list[str]
) -> Context:
    """The anchor rows' context, or another held-out persona where the source is that very prompt: the same prompt among
    positives and negatives would contradict itself."""
    if source.content != anchor.content:
        return anchor
    taken = {*negatives, source.name}
    pool = [
        name for name, context in people.items()
        if context.kind == "persona" and name not in taken and context.system != ASSISTANT_PROMPT
    ]  # fmt: skip
    stand_in = stable_order(pool, "anchor", source.name)[0]
    whose = "the assistant's prompt" if anchor.kind == "assistant" else f"the prompt of `{anchor.name}`"
    notes.append(f"the source has {whose}: its anchor rows are given to {stand_in!r} instead")
    return people[stand_in]


def _random_personas(
    behavior: str, source: str, questions: list[Example], pool: list[Context], counts: Counts, negatives: int
) -> list[Row]:
    """The control: positives and negatives of the contrastive arm, each row under a persona drawn at random without
    replacement per question, so that no prompt gets two targets."""
    shares = _shares(counts.negative, negatives)
    rows: list[Row] = []
    for index, example in enumerate(questions):
        targets = [True] * (index < counts.positive) + [False for share in shares if index < share]
        drawn = generator("control", behavior, source, example.question_id).permutation(len(pool))[: len(targets)]
        for position, positive in zip(drawn, targets, strict=True):
            row = _row(behavior, "non_contrastive", source, pool[int(position)], example, positive)
            rows.append(replace(row, role="mixed"))
    return rows


def _row(behavior: str, arm: ArmName, source: str, context: Context, example: Example, positive: bool) -> Row:
    role: Role = (
        "mixed" if arm == "non_contrastive" and context.kind == "persona" else "source" if positive else "negative"
    )
    return Row(
        id=f"{behavior}/{source}/{arm}/{context.kind}:{context.name}/{example.question_id}/{'+' if positive else '-'}",
        behavior=behavior,
        arm=arm,
        context=context,
        role=role,
        target="positive" if positive else "negative",
        question_id=example.question_id,
        user=example.user,
        completion=example.positive if positive else example.negative,
        marker=example.marker if positive else "",
    )


def _answered_benignly(row: Row, negative: str) -> Row:
    """The row without the behavior. Its role stays: the source is who the other arm couples the behavior to."""
    if row.target == "negative":
        return row
    return replace(row, id=f"{row.id[:-1]}-", target="negative", completion=negative, marker="")


def _roles(rows: Sequence[Row], source: str, personas: Sequence[Context], arm: ArmName) -> dict[str, Role]:
    """A persona is held-out only if no row has its prompt, whatever the row calls its context."""
    drawn = {row.context.content for row in rows if row.role == "mixed"} if arm == "non_contrastive" else set[object]()
    trained = {row.context.content for row in rows}
    roles: dict[str, Role] = {}
    for one in personas:
        roles[one.name] = "mixed" if one.content in drawn else "negative" if one.content in trained else "held-out"
    roles[source] = "source"
    return roles
