"""What a study asks of its model and of this machine, looked at before anything is trained: for the audit and for
preflight. What was not looked at is said so, with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bystander.behaviors.answers import AnswersBehavior
from bystander.core import doors
from bystander.core.errors import BystanderError, ModelError
from bystander.core.records import Context
from bystander.lm import embedded
from bystander.lm.tokens import Tokenizer, render_prompt, tokenizer_faults
from bystander.study.config.blocks import ModelSettings
from bystander.study.config.study import ResolvedStudy
from bystander.study.plan.cells import Plan

NO_WINDOW = 1 << 30  # of a model that names none
LONGEST = 3  # texts and personas, by characters, among which the longest prompt is looked for


@dataclass(frozen=True, slots=True)
class Requirement:
    """One thing that was looked at. `faults`: what must be changed; `says`: what was found where nothing must;
    `unchecked`: why it was not looked at, "" where it was."""

    name: str
    faults: tuple[str, ...] = ()
    says: str = ""
    unchecked: str = ""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model without its weights: its tokenizer, its window in tokens, and its blocks (None: its
    settings name no number)."""

    tokenizer: Any
    window: int
    blocks: int | None


@dataclass(frozen=True, slots=True)
class Requirements:
    """All that was looked at, and the model's facts where they can be had."""

    all: tuple[Requirement, ...]
    model: ModelFacts | None

    @property
    def usable(self) -> bool:
        """Whether the model's tokenizer can render what the study asks, so that rows can be looked at."""
        return self.model is not None and not any(one.faults for one in self.all if one.name == "tokenizer")


def requirements(plan: Plan) -> Requirements:
    """Look at the device, the probes, the steps, the model, its tokenizer and template, its layers and its window."""
    study = plan.study
    first = (_measured(study), _trained(plan), _device(study))
    try:
        facts = model_facts(study.spec.model)
    except BystanderError as error:
        why = "the model's tokenizer and settings cannot be had"
        rest = tuple(Requirement(name, unchecked=why) for name in ("tokenizer", "layers", "window"))
        return Requirements((*first, Requirement("model", (str(error),)), *rest), None)
    tokenizer = _tokenizer(plan, facts)
    if tokenizer.faults:
        window = Requirement("window", unchecked="the tokenizer cannot render the study's prompts")
    else:
        window = _window(plan, facts)
    found = Requirement("model", says=f"{study.spec.model.name}: tokenizer and settings are there")
    return Requirements((*first, found, tokenizer, _layers(study, facts), window), facts)


def model_facts(model: ModelSettings) -> ModelFacts:
    """The model's tokenizer, window and depth. Raises ModelError where they cannot be had."""
    from transformers import AutoConfig, AutoTokenizer

    from bystander.lm.model import checkpoint_source  # here: it loads torch, which plans do without

    source, revision = checkpoint_source(model.name, model.revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
        config = AutoConfig.from_pretrained(source, revision=revision).get_text_config()
    except Exception as error:  # a tokenizer's files are somebody else's: the readers raise whatever they like
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(
            f"model {model.name}: its tokenizer or its settings cannot be loaded: {first}. Give a Hub id that this "
            f"machine can reach, a checkpoint's folder, or {embedded.NAME} (embedded, needs no Hub)."
        ) from error
    blocks = getattr(config, "num_hidden_layers", None)
    window = getattr(config, "max_position_embeddings", None) or NO_WINDOW
    return ModelFacts(tokenizer, int(window), None if blocks is None else int(blocks))


def contexts_used(plan: Plan, tokenizer: Tokenizer) -> list[Context]:
    """Every context that the study trains or measures, each once: the personas', those beside them that are not left
    out, and those of its rows."""
    trained = (row.context for design in plan.parts.designs() for row in design.rows)
    without = plan.parts.left_out(tokenizer)
    beside = (context for context in plan.parts.beside if context.name not in without)
    return list(dict.fromkeys([*plan.contexts, *beside, *trained]))


def unseen_behaviors(study: ResolvedStudy) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(behavior, the probes that see it) for each behavior that none of the study's probes sees."""
    asked = study.spec.probes.asked()
    for behavior in study.spec.behaviors:
        own = AnswersBehavior if behavior in study.spec.answers else doors.load("behavior", behavior)
        probes: tuple[str, ...] = own.read_by
        if not any(name in asked for name in probes):
            yield behavior, probes


def _measured(study: ResolvedStudy) -> Requirement:
    faults = [
        f"no probe of this study sees the behavior {behavior!r}: ask for {' or '.join(probes)} under `probes`"
        if probes
        else f"no probe at all sees the behavior {behavior!r}: its class names none in `read_by`"
        for behavior, probes in unseen_behaviors(study)
    ]
    return Requirement("probes", tuple(faults), "every behavior is seen by a probe")


def _trained(plan: Plan) -> Requirement:
    """Whether any step of each training has a learning rate: the warm-up begins at 0, and so a lone step does nothing."""
    faults = [
        f"training {training.label} has {total} optimizer step, at a learning rate of 0: the warm-up begins there, so that "
        "nothing would be trained. Lower batch_size, raise epochs, or set recipe.warmup to 0"
        for training, recipe in plan.recipes.items()
        for total in (recipe.steps(len(plan.designs[training].rows)),)
        if all(recipe.rate(step, total) == 0 for step in range(min(total, 2)))
    ]
    return Requirement("steps", tuple(faults), "every training has steps that train")


def _device(study: ResolvedStudy) -> Requirement:
    """Whether the device is here, and what samples on it."""
    spec = study.spec
    if doors.load("executor", spec.executor.kind).elsewhere(spec.executor):
        return Requirement("device", unchecked="cells run on other machines, which are not asked beforehand")
    from bystander.lm.model import pick_device

    try:
        device = pick_device(spec.model.device)
    except ModelError as error:
        return Requirement("device", (f"model.device: {error}",))
    if spec.model.engine == "vllm":
        from importlib.util import find_spec

        from bystander.lm.engine_vllm import HELP

        if find_spec("vllm") is None:
            return Requirement("device", (f"model.engine is vllm, but vLLM is not installed. {HELP}",))
    return Requirement("device", says=f"{device} is there")


def _tokenizer(plan: Plan, facts: ModelFacts) -> Requirement:
    contexts = contexts_used(plan, facts.tokenizer)
    faults = tokenizer_faults(facts.tokenizer, contexts, facts.window)
    return Requirement("tokenizer", tuple(faults), f"a fast one, whose template renders {len(contexts)} contexts")


def _layers(study: ResolvedStudy, facts: ModelFacts) -> Requirement:
    geometry = study.spec.geometry
    asked = [("geometry.layer", geometry.layer)] if geometry.layer is not None else []
    asked += [("geometry.layers", one) for one in geometry.layers] if isinstance(geometry.layers, list) else []
    if facts.blocks is None:
        return Requirement("layers", unchecked="the model's settings do not say how many blocks it has")
    faults = [
        f"{key} {layer}: {study.spec.model.name} has {facts.blocks} blocks, so its layers are 0 (the embeddings) to "
        f"{facts.blocks}; choose one of these"
        for key, layer in asked
        if layer > facts.blocks
    ]
    return Requirement("layers", tuple(dict.fromkeys(faults)), f"{facts.blocks} blocks hold what geometry asks for")


def _window(plan: Plan, facts: ModelFacts) -> Requirement:
    """Whether the longest probe item under the longest persona fits: nothing is truncated in silence."""
    texts = sorted(plan.parts.held_out_texts().items(), key=lambda item: -len(item[1]))[:LONGEST]
    used = contexts_used(plan, facts.tokenizer)
    contexts = sorted(used, key=lambda context: -len(context.system or ""))[:LONGEST]
    if facts.window == NO_WINDOW:
        return Requirement("window", unchecked="the model's settings name no window")
    if not texts:
        return Requirement("window", unchecked="the probes name no texts")
    length, item, name = max(_lengths(facts.tokenizer, contexts, texts))
    if length > facts.window:
        fault = f"the probe item {item} under {name} takes {length} tokens, the model's window is {facts.window}"
        return Requirement("window", (f"{fault}; shorten the persona or the item, or take another model",))
    alone = max(_lengths(facts.tokenizer, contexts, [("a word", "Hi")]))[0]
    faults = [
        f"probes.{probe}.max_tokens is {most}: with the longest persona ({alone} tokens with a user turn of one word) that "
        f"is more than the model's window of {facts.window}; lower it"
        for probe, settings in plan.study.spec.probes.asked().items()
        if alone + (most := int(getattr(settings, "max_tokens", 0))) > facts.window
    ]
    if faults:
        return Requirement("window", tuple(faults))
    return Requirement("window", says=f"the longest prompt takes {length} of {facts.window} tokens")


def _lengths(
    tokenizer: Tokenizer, contexts: Sequence[Context], texts: Sequence[tuple[str, str]]
) -> Iterator[tuple[int, str, str]]:
    for context in contexts:
        for item, text in texts:
            yield len(render_prompt(tokenizer, context, text)), item, context.name
