"""The audit of a study's designs; it needs the model's tokenizer and window, not its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bystander.core.errors import ModelError
from bystander.core.files import read_json, write_json
from bystander.core.hashing import stable_hash
from bystander.core.records import Context, Finding, as_dict
from bystander.design.audit import audit
from bystander.design.contexts import context_findings, placed
from bystander.design.render import render
from bystander.lm.tokens import Tokenizer, context_hash, encode, render_text
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
    asked, spec = requirements(plan), plan.study.spec
    findings = [finding for one in asked.all for finding in _findings(one)]
    tokenizer = asked.model.tokenizer if asked.model is not None and asked.usable else None
    without = {} if tokenizer is None else plan.parts.left_out(tokenizer)
    beside = [context for context in plan.parts.beside if context.name not in without]
    if asked.model is not None and asked.usable:
        findings += _of_rows(plan, asked.model, beside, without)
    else:
        findings.append(Finding("info", "rows", "not checked: the model's tokenizer cannot render them"))
    findings += [finding for name in plan.study.spec.behaviors for finding in plan.parts.behavior(name).findings()]
    order = {"error": 0, "warning": 1, "info": 2}
    findings.sort(key=lambda finding: order[finding.level])
    if saved:
        source = next(context for context in plan.parts.compared if context.name == spec.sources[0])
        shown = [] if tokenizer is None else _renderings(tokenizer, list(dict.fromkeys([source, *beside])))
        write_json(saved, {"designs": digest, "findings": [as_dict(one) for one in findings], "renderings": shown})
    return findings


def _findings(one: Requirement) -> Iterator[Finding]:
    """The errors of one requirement, and a note where it was not looked at."""
    for fault in one.faults:
        yield Finding("error", one.name, fault)
    if one.unchecked:
        yield Finding("info", one.name, f"not checked: {one.unchecked}")


def _of_rows(plan: Plan, model: ModelFacts, beside: Sequence[Context], without: Mapping[str, str]) -> list[Finding]:
    """What the rows and the contexts are once they are tokens; `without`: contexts that are left out, with the reason.
    Rows that cannot be rendered are an error, with the row's name."""
    recipe, tokenizer = plan.study.spec.recipe, model.tokenizer
    designs = plan.parts.designs()
    try:
        rendered = [render(d, tokenizer, loss=recipe.loss, end_of_turn=recipe.end_of_turn) for d in designs]
    except ModelError as error:
        return [Finding("error", "rows", str(error))]
    findings = audit(
        rendered, tokenizer, [*plan.contexts, *beside], plan.parts.held_out_texts(), max_length=model.window,
        end_of_turn=recipe.end_of_turn,
    )  # fmt: skip
    findings += context_findings(rendered, tokenizer, beside, without)
    return findings + placed(tokenizer, plan.contexts[0], plan.study.spec.personas_in)


def _renderings(tokenizer: Tokenizer, contexts: list[Context]) -> list[dict[str, object]]:
    """How contexts stand in the prompt, for the report."""
    found: list[dict[str, object]] = []
    for context in contexts:
        text = render_text(tokenizer, context, "<question>")
        found.append(as_dict(context) | {"text": text, "context_hash": context_hash(encode(tokenizer, [text])[0])})
    return found
