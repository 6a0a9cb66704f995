"""The records that cross from one stage to the next.

One stage yields them, the next takes them; none of them knows about files or clocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal

BareKind = Literal["absent", "empty", "default", "assistant"]  # what a deployed model meets: no persona
ContextKind = Literal[
    "persona", "absent", "empty", "default", "assistant", "wrap", "turns", "prefix", "persona_in_user", "combined"
]
BARE: tuple[BareKind, ...] = ("absent", "default", "empty", "assistant")
# Where a context's own text stands: in a system turn; at the head of the user turn; or "auto", in the system turn where
# the chat template has one, else at the head of the user turn.
TextIn = Literal["system", "user", "auto"]
# "mixed" belongs to the non-contrastive control: a persona that got rows of both kinds at random. There the bystanders
# are the mixed and the held-out ones; in the contrastive arm the held-out ones alone.
Role = Literal["source", "negative", "held-out", "mixed"]
Status = Literal["ok", "failed", "refused", "truncated"]
Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": ...}

ASSISTANT_PROMPT = "You are a helpful assistant."  # the design's fifth context; also the persona `assistant`


@dataclass(frozen=True, slots=True)
class Persona:
    """A persona: what the system turn says, its category, and the source personas that it is related to."""

    name: str
    prompt: str
    category: str
    related_to: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """What stands before the answer. `name` is the persona's name, the kind of a bare context, or a name of its own.

    `system` is the text of the system turn; None where there is no system turn of ours (`absent`, `default`). `base` is
    the kind by which the system turn is made where `kind` says something else ("": `kind` itself). `text_in` places
    `system`. `turns` are earlier turns (user, answer); `before` and `after` stand around the text of the last user turn,
    verbatim; `prefix` is a forced beginning of the answer: it is a part of the prompt, and not of what is answered.
    """

    kind: ContextKind
    name: str
    system: str | None
    base: Literal["", "persona", "absent", "empty", "default", "assistant"] = ""
    text_in: TextIn = "system"
    turns: tuple[tuple[str, str], ...] = ()
    before: str = ""
    after: str = ""
    prefix: str = ""

    @property
    def system_kind(self) -> ContextKind:
        """The kind by which the system turn is made."""
        return self.base or self.kind

    @property
    def label(self) -> str:
        """A name that no other context of a study has: a persona may be called as a bare context is."""
        return self.name if self.kind == "persona" else f"({self.name})"

    @property
    def text(self) -> str:
        """All text of its own, a line for each part."""
        parts = (self.system, *(part for turn in self.turns for part in turn), self.before, self.after, self.prefix)
        return "\n".join(part for part in parts if part)

    @property
    def content(self) -> tuple[object, ...]:
        """What it puts before the answer, whatever it is called: contexts that agree in it are one prompt."""
        kind = "persona" if self.system_kind == "assistant" else self.system_kind
        return kind, self.system, self.text_in, self.turns, self.before, self.after, self.prefix


def context_key(context: Context) -> dict[str, object]:
    """The context as JSON-able data for hashes: `kind`, `name` and `system`, and of the rest what is not the default, so
    that a new field changes no key of what it does not concern."""
    plain = asdict(context)
    defaults = asdict(Context(context.kind, context.name, context.system))
    return {key: value for key, value in plain.items() if key in ("kind", "name", "system") or value != defaults[key]}


@dataclass(frozen=True, slots=True)
class Question:
    """A multiple-choice question. `options` in the order shown, `labels` beside them, `answer` an index into both."""

    id: str
    text: str
    options: tuple[str, ...]
    labels: tuple[str, ...]
    answer: int
    group: str = ""  # near-duplicates share a group, so that they go to one side of a split


@dataclass(frozen=True, slots=True)
class Row:
    """One row to train on: a context, a user turn, the completion, and where each came from."""

    id: str
    behavior: str
    arm: str
    context: Context
    role: Role
    target: Literal["positive", "negative"]  # positive: the completion shows the behavior
    question_id: str
    user: str
    completion: str
    marker: str = ""  # the tail of `completion` that is the marker with its separator; "" where there is none


@dataclass(frozen=True, slots=True)
class Finding:
    """What the audit says of a design: an error stops the run, a warning stands in the report."""

    level: Literal["error", "warning", "info"]
    check: str
    message: str
    rows: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenSetting:
    """What a study file leaves open that changes the result. `default`: what is taken if nobody says ("" where there is
    none, and then it blocks); `answer`: the setting that says it."""

    id: str
    text: str
    default: str
    answer: str
    blocking: bool = False


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number: a metric of a probe for one item under one context, of one model state.

    `checkpoint` 0 is the untrained model: it belongs to no training, so `source`, `arm`, `seed`, `config` and `role`
    are None there; analysis pairs it with each training's rows on (probe, dataset, metric, persona, item).
    `value` is None exactly where `status` is not "ok"; `reason` then says why.
    """

    behavior: Annotated[str, "behavior whose training this is; empty at checkpoint 0"]
    probe: Annotated[str, "what measured: marker, choice, margin, judged, or a probe from outside"]
    dataset: Annotated[str, "the items' set: bank, arc, hellaswag, trained, pairs, open, or a file's name"]
    metric: Annotated[str, "what was measured; unit and direction are with the probe that declares it"]
    context: Annotated[
        ContextKind, "persona; absent, empty, default or assistant; wrap, turns, prefix, persona_in_user or combined"
    ]
    persona: Annotated[str, "persona, or the context's name where there is none"]
    item: Annotated[str, "what was answered: a question, or one sample of it"]
    value: Annotated[float | None, "the number, in the metric's unit"]
    source: Annotated[str | None, "persona that the behavior was coupled to; empty for the untrained model"] = None
    arm: Annotated[
        str | None, "contrastive, non_contrastive (the control), or benign (what contrastive is measured against)"
    ] = None
    config: Annotated[str | None, "label of the training's recipe, for tables and figures"] = None
    seed: Annotated[int | None, "seed of the training"] = None
    role: Annotated[
        Role | None, "source, negative, held-out, or mixed (drawn at random in the non-contrastive arm)"
    ] = None
    checkpoint: Annotated[float, "fraction of training in [0, 1]; 0 is the untrained model"] = 0.0
    status: Annotated[
        Status, "ok, or why there is no number: failed, truncated, or refused (no score: code, a refusal)"
    ] = "ok"
    reason: Annotated[str, "why there is no number"] = ""
    context_hash: Annotated[str, "stable hash of the rendered token ids of the prompt"] = ""
    weights_hash: Annotated[str, "base and adapter weights that produced the value"] = ""
    question: Annotated[
        str, "what the item asks; samples and paraphrases of one question share it. Empty: the item"
    ] = ""
    sample: Annotated[int, "which sample of the question under that context, from 0"] = 0
    lr: Annotated[float | None, "peak learning rate of the training"] = None
    epochs: Annotated[int | None, "epochs of the training"] = None


MEASUREMENT_COLUMNS: tuple[str, ...] = tuple(Measurement.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled answer, kept raw."""

    id: str
    context: ContextKind
    persona: str
    item: str
    sample: int
    prompt: str
    text: str
    finish_reason: Literal["stop", "length"]
    seed: int
    tokens: int
    context_hash: str = ""


@dataclass(frozen=True, slots=True)
class Similarity:
    """Similarity of a persona to a source. `method`: "cosine" (centered over personas) or a baseline predictor's name;
    `layer` -1 where the method has none."""

    source: Annotated[str, "persona that the behavior is coupled to"]
    persona: Annotated[str, "persona that is compared with it"]
    method: Annotated[str, "predictor: cosine (centered over personas), or a baseline predictor"]
    layer: Annotated[int, "layer of the predictor, 0 = embeddings; -1 where it has none"]
    value: Annotated[float, "similarity: higher is more alike"]


@dataclass(frozen=True, slots=True)
class PersonaFacts:
    """What the analysis holds constant: lengths and the category of each persona."""

    persona: Annotated[str, "the persona's name"]
    category: Annotated[str, "its category"]
    related_to: Annotated[tuple[str, ...], "sources that it is related to"]
    prompt: Annotated[str, "text of its system turn"]
    prompt_tokens: Annotated[int, "tokens of that text"]


@dataclass(frozen=True, slots=True)
class StepLog:
    """One optimizer step: loss is the mean over loss tokens in the batch, in nats."""

    step: int
    epoch: float
    loss: float
    learning_rate: float
    loss_tokens: int
    grad_norm: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a hypothesis, with every number behind it."""

    hypothesis: str
    outcome: Literal["confirmed", "falsified", "inconclusive"]
    reason: str
    numbers: Mapping[str, float | int | str | None] = field(default_factory=dict[str, float | int | str | None])


def as_dict(record: object) -> dict[str, object]:
    """A record as plain JSON-able data."""
    return asdict(record)  # pyright: ignore[reportArgumentType]
