"""The audit of a study's designs; it needs the model's tokenizer and window, not its weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bystander.core.errors import ModelError
from bystander.core.files import read_json, write_json
from bystander.core.hashing import stable_hash
from bystander.core.records import Context, Finding, as_dict
from bystander.design.arms import Design
from bystander.design.audit import audit
from bystander.design.render import render
from bystander.lm.tokens import Tokenizer, render_text, tokenizer_faults
from bystander.personas import bare_context
from bystander.study.plan.cells import Plan
from bystander.study.plan.requirements import ModelFacts, Requirement, requirements
from bystander.study.store.run_dir import RunDir


def audit_study(plan: Plan, run: RunDir | None) -> list[Finding]:
    """Audit every design of a plan; errors are findings too: see `design.audit.refuse`.

    Writes `audit.json` with how each kind of context renders; an audit of the very same designs that stands in the run
    directory without an error is taken as it is (what was at fault may have been this machine's)."""
    saved = run.audit_file if run else None
    designs = plan.parts.designs()
    digest = stable_hash(plan.study.identity, [[as_dict(row) for row in d.rows] for d in designs])
    found = read_json(saved) if saved and saved.is_file() else {}
    if found.get("designs") == digest and all(f["level"] != "error" for f in found["findings"]):
        return [Finding(f["level"], f["check"], f["message"], tuple(f["rows"])) for f in found["findings"]]
    asked = requirements(plan)
    findings = [finding for one in asked.all for finding in _findings(one)]
    shown: list[Context] = []
    if asked.model is not None and asked.usable:
        shown = _bare(asked.model.tokenizer)
        findings += _of_rows(plan, designs, asked.model, shown)
    else:
        why = "not checked: the model's tokenizer cannot render them"
        findings.append(Finding("info", "rows", why))
    findings += [finding for name in plan.study.spec.behaviors for finding in plan.parts.behavior(name).findings()]
    order = {"error": 0, "warning": 1, "info": 2}
    findings.sort(key=lambda finding: order[finding.level])
    if saved:
        source = next(context for context in plan.contexts if context.name == plan.study.spec.sources[0])
        tokenizer = asked.model.tokenizer if asked.model is not None and asked.usable else None
        texts = [] if tokenizer is None else _renderings(tokenizer, [source, *shown])
        write_json(saved, {"designs": digest, "findings": [as_dict(one) for one in findings], "renderings": texts})
    return findings


def _findings(one: Requirement) -> Iterator[Finding]:
    """The errors of one requirement, and a note where it was not looked at."""
    for fault in one.faults:
        yield Finding("error", one.name, fault)
    if one.unchecked:
        yield Finding("info", one.name, f"not checked: {one.unchecked}")


def _of_rows(plan: Plan, designs: Sequence[Design], model: ModelFacts, bare: Sequence[Context]) -> list[Finding]:
    """What the rows are once they are tokens. Rows that cannot be rendered are an error, with the row's name."""
    recipe = plan.study.spec.recipe
    try:
        rendered = [render(d, model.tokenizer, loss=recipe.loss, end_of_turn=recipe.end_of_turn) for d in designs]
    except ModelError as error:
        return [Finding("error", "rows", str(error))]
    contexts = [*plan.contexts, *bare]
    return audit(
        rendered, model.tokenizer, contexts, plan.parts.held_out_texts(), max_length=model.window,
        end_of_turn=recipe.end_of_turn,
    )  # fmt: skip


def _bare(tokenizer: Tokenizer) -> list[Context]:
    """The bare contexts that the template can render: a study that uses another one is refused for it."""
    contexts = [bare_context(kind) for kind in ("absent", "empty", "default", "assistant")]
    return [context for context in contexts if not tokenizer_faults(tokenizer, [context])]


def _renderings(tokenizer: Tokenizer, contexts: list[Context]) -> list[dict[str, object]]:
    """How contexts stand in the prompt, for the report."""
    return [as_dict(context) | {"text": render_text(tokenizer, context, "<question>")} for context in contexts]
