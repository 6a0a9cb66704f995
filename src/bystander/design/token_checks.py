"""The audit's checks of tokens: what a tokenizer and its template make of rows, personas and questions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from bystander.core.errors import few_names
from bystander.core.records import Context, Finding, Row
from bystander.design.arms import Design
from bystander.design.render import Rendered, label, named
from bystander.lm.tokens import Tokenizer, control_finder, tokenizer_faults, trimmed_ends


def cannot_render(tokenizer: Tokenizer, contexts: Sequence[Context], max_length: int) -> list[Finding]:
    """What `lm.tokens.tokenizer_faults` finds: contexts that the template refuses or that leave no room."""
    return [Finding("error", "tokenizer", fault) for fault in tokenizer_faults(tokenizer, contexts, max_length)]


def control_tokens(
    designs: Sequence[Design], tokenizer: Tokenizer, contexts: Sequence[Context], probe_texts: Mapping[str, str]
) -> list[Finding]:
    """A control token that is written out in a text ends or opens a turn there, unseen by whoever reads the text."""
    find = _remembering(control_finder(tokenizer))
    findings: list[Finding] = []
    for design in designs:
        rows = [
            f"{row.id}: {token} in the {part}"
            for row in design.rows
            for part, text in (*_earlier(row), ("user turn", row.user), ("completion", row.completion))
            for token in find(text)
        ]
        if rows:
            count = len({row.split(": ")[0] for row in rows})
            message = f"{label(design)}: {count} rows hold control tokens of this model, written out as text"
            findings.append(Finding("error", "control tokens", message, named(rows)))
    trained = [row.context for design in designs for row in design.rows]
    systems = {context.label: context.text for context in [*contexts, *trained] if context.text}
    personas = [f"{name}: {token}" for name, text in systems.items() for token in find(text)]
    if personas:
        message = f"{len(personas)} contexts hold control tokens of this model, written out as text"
        findings.append(Finding("error", "control tokens", message, named(personas)))
    probes = [f"{item}: {token}" for item, text in probe_texts.items() for token in find(text)]
    if probes:
        message = f"{len(probes)} probe items hold control tokens of this model, written out as text"
        findings.append(Finding("error", "control tokens", message, named(probes)))
    return findings


def _earlier(row: Row) -> list[tuple[str, str]]:
    return [("conversation before the user turn", text) for text in row.earlier.texts()]


def _remembering(find: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    known: dict[str, list[str]] = {}

    def once(text: str) -> list[str]:
        if text not in known:
            known[text] = find(text)
        return known[text]

    return once


def joint_tokenization(rendered: Sequence[Rendered]) -> list[Finding]:
    """Rows that a trainer which tokenizes prompt and completion as one text would train as other tokens."""
    found = [
        (one.design, [row.id for row, tokens in zip(one.design.rows, one.rows, strict=True) if tokens.joined])
        for one in rendered
    ]
    says = (
        "rows would be other tokens if prompt and completion were tokenized as one text; here the completion is "
        "tokenized by itself, behind the prompt that the model meets"
    )
    return _counted("joint tokenization", found, says)


def white_space_trimmed(designs: Sequence[Design], tokenizer: Tokenizer) -> list[Finding]:
    """User turns that the template changes."""
    found = [(design, [row.id for row in design.rows if trimmed_ends(tokenizer, row.user)]) for design in designs]
    says = "rows have white space at an end of the user turn, which this model's chat template takes off"
    return _counted("white space trimmed", found, says)


def _counted(check: str, found: Iterable[tuple[Design, list[str]]], says: str) -> list[Finding]:
    """One note for all designs that have the same count."""
    by_count: dict[tuple[int, int], list[tuple[Design, list[str]]]] = defaultdict(list)
    for design, rows in found:
        if rows:
            by_count[len(rows), len(design.rows)].append((design, rows))
    return [
        Finding(
            "info", check, f"{few_names([label(d) for d, _ in group])}: {few} of {all_rows} {says}", named(group[0][1])
        )
        for (few, all_rows), group in by_count.items()
    ]
