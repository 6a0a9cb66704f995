"""The audit of a study's designs; it needs the model's tokenizer and window, not its weights."""

from __future__ import annotations

from typing import Any

from bystander.core.errors import ModelError
from bystander.core.files import read_json, write_json
from bystander.core.hashing import stable_hash
from bystander.core.records import Context, Finding, as_dict
from bystander.design.audit import audit
from bystander.design.contexts import context_findings, placed
from bystander.design.render import render
from bystander.lm import embedded
from bystander.lm.model import checkpoint_source
from bystander.lm.tokens import Tokenizer, context_hash, encode, left_out, render_text, template_of
from bystander.study.config.blocks import ModelSettings
from bystander.study.plan.cells import Plan
from bystander.study.store.run_dir import RunDir


def audit_study(plan: Plan, run: RunDir | None) -> list[Finding]:
    """Audit every design of a plan; errors are findings too: see `design.audit.refuse`.

    Writes `audit.json` with how each kind of context renders; an audit of the very same designs that stands in the run
    directory is taken as it is."""
    saved = run.audit_file if run else None
    designs = plan.parts.designs()
    digest = stable_hash(plan.study.identity, [[as_dict(row) for row in d.rows] for d in designs])
    found = read_json(saved) if saved and saved.is_file() else {}
    if found.get("designs") == digest:
        return [Finding(f["level"], f["check"], f["message"], tuple(f["rows"])) for f in found["findings"]]
    recipe = plan.study.spec.recipe
    tokenizer, window = tokenizer_of(plan.study.spec.model)
    rendered = [render(d, tokenizer, loss=recipe.loss, end_of_turn=recipe.end_of_turn) for d in designs]
    spec, parts = plan.study.spec, plan.parts
    without = left_out(tokenizer, parts.beside, spec.personas_in)
    beside = [context for context in parts.beside if context.name not in without]
    contexts = [*plan.contexts, *beside]
    findings = audit(
        rendered, tokenizer, contexts, plan.parts.held_out_texts(), max_length=window, end_of_turn=recipe.end_of_turn
    )
    findings += context_findings(rendered, tokenizer, beside, without)
    findings += placed(tokenizer, plan.contexts[0], spec.personas_in)
    findings += [finding for name in plan.study.spec.behaviors for finding in plan.parts.behavior(name).findings()]
    order = {"error": 0, "warning": 1, "info": 2}
    findings.sort(key=lambda finding: order[finding.level])
    if saved:
        source = next(context for context in parts.compared if context.name == spec.sources[0])
        shown = _renderings(tokenizer, list(dict.fromkeys([source, *beside])))
        write_json(saved, {"designs": digest, "findings": [as_dict(one) for one in findings], "renderings": shown})
    return findings


def _renderings(tokenizer: Tokenizer, contexts: list[Context]) -> list[dict[str, object]]:
    """How contexts stand in the prompt, for the report."""
    found: list[dict[str, object]] = []
    for context in contexts:
        text = render_text(tokenizer, context, "<question>")
        found.append(as_dict(context) | {"text": text, "context_hash": context_hash(encode(tokenizer, [text])[0])})
    return found


def tokenizer_of(model: ModelSettings) -> tuple[Any, int]:
    """The model's tokenizer and its window in tokens. Raises ModelError where it cannot be had."""
    from transformers import AutoConfig, AutoTokenizer

    source, revision = checkpoint_source(model.name, model.revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
        config = AutoConfig.from_pretrained(source, revision=revision).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(
            f"model {model.name}: its tokenizer cannot be loaded: {first}. Give a Hub id that this machine can reach, a "
            f"checkpoint's folder, or {embedded.NAME} (embedded, needs no Hub)."
        ) from error
    template_of(tokenizer)
    return tokenizer, int(getattr(config, "max_position_embeddings", 0) or 1 << 30)
