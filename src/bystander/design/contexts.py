"""The audit's findings about contexts: which are trained on, which cannot be rendered, where personas' texts stand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from bystander.core.records import BARE, Context, Finding, TextIn
from bystander.design.render import Rendered, context_roles, label
from bystander.lm.tokens import Tokenizer, template_of, text_in


def context_findings(
    rendered: Sequence[Rendered], tokenizer: Tokenizer, contexts: Sequence[Context], without: Mapping[str, str]
) -> list[Finding]:
    """Which of the contexts beside the personas were trained on in which design; which of them, `without`, this
    template cannot render; and which bare ones the study leaves out."""
    findings = [
        Finding("warning", "context left out", f"`{name}` is not measured: {fault}") for name, fault in without.items()
    ]
    named = {context.name for context in contexts} | set(without)
    unasked = [name for name in BARE if name not in named]
    if unasked:
        message = f"not measured, though a deployed model meets them: {', '.join(unasked)}; `contexts: [bare]` has them"
        findings.append(Finding("warning", "context left out", message))
    trained: dict[str, list[str]] = defaultdict(list)
    for one in rendered:
        roles = context_roles(one.design, tokenizer, contexts)
        found = [f"{name} ({role})" for (_, name), role in roles.items() if role != "held-out"]
        if found:
            trained[", ".join(found)].append(label(one.design))
    for which, designs in trained.items():
        message = f"trained on, so no measure of leakage: {which}"
        findings.append(Finding("info", "contexts trained on", message, tuple(designs)))
    return findings


def placed(tokenizer: Tokenizer, persona: Context, personas_in: TextIn) -> list[Finding]:
    """Where `personas_in` puts the texts of the personas with this template."""
    if personas_in == "system":
        return []
    template = template_of(tokenizer)
    where = "in the system turn" if text_in(template, persona) == "system" else "at the head of the user turn"
    why = ""
    if personas_in == "auto":
        why = ": this template has one" if template.has_system else f": of a system turn, {template.system_fault}"
    return [Finding("info", "personas in", f"personas_in: {personas_in} puts the texts of personas {where}{why}")]
