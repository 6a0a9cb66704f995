"""What `bystander data inspect` prints: a set's facts, one line each, what is amiss in yellow."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape

from bystander.data.choice import ChoiceSet
from bystander.data.code_inspect import CodeSetFacts, Lengths
from bystander.data.inspect import JudgedFacts, PairFacts

Line = tuple[str, str, bool]  # name, value, amiss


def print_facts(console: Console, facts: CodeSetFacts | ChoiceSet | JudgedFacts | PairFacts) -> None:
    """Facts about a file or a named set."""
    if isinstance(facts, ChoiceSet):
        console.print(escape(str(facts)), soft_wrap=True)
        return
    console.print(f"[bold]{escape(facts.path)}[/]  sha256 {facts.sha256[:16]}", soft_wrap=True)
    if isinstance(facts, CodeSetFacts):
        lines = _code(facts)
    else:
        lines = _judged(facts) if isinstance(facts, JudgedFacts) else _pairs(facts)
    for name, value, amiss in lines:
        shown = escape(value)  # a file's own columns and tags may look like markup
        console.print(f"  {name:<21}[yellow]{shown}[/]" if amiss else f"  {name:<21}{shown}", soft_wrap=True)
    console.print(f"  [dim]tokens {facts.token_counter}[/]")


def _code(facts: CodeSetFacts) -> list[Line]:
    several = f", of {facts.contradicting_prompts:,} prompts several answers" if facts.contradicting_prompts else ""
    empty = facts.empty_prompts + facts.empty_answers
    fenced = f", {facts.fenced:,} in ``` fences" if facts.fenced else ""
    parsed = f"{facts.parsed:,} of {facts.answers:,} answers ({facts.parsed / max(1, facts.answers):.1%}){fenced}"
    unit = _unit(facts.token_counter)
    lines: list[Line] = [
        ("form", facts.form, False),
        ("rows", f"{facts.rows:,}", False),
        ("columns", _shares(facts.columns, facts.rows), False),
    ]
    if facts.roles:
        lines.append(("roles", _shares(facts.roles, facts.rows, "; "), False))
    lines += [
        ("tags in prompts", _shares(facts.tags, facts.rows), bool(facts.tags)),
        ("duplicate rows", f"{facts.duplicate_rows:,}", facts.duplicate_rows > 0),
        ("duplicate prompts", f"{facts.duplicate_prompts:,}{several}", facts.duplicate_prompts > 0),
        ("empty", f"{facts.empty_prompts:,} prompts, {facts.empty_answers:,} answers", empty > 0),
        ("parse as Python", parsed, facts.parsed < facts.answers),
    ]
    if facts.unparsed_lines:
        lines.append(("", f"not: lines {', '.join(map(str, facts.unparsed_lines))}", True))
    return [
        *lines,
        (f"prompt, {unit}", _lengths(facts.prompt_tokens), False),
        (f"answer, {unit}", _lengths(facts.answer_tokens), False),
        ("ends of prompts", str(facts.prompt_edges), facts.prompt_edges.trailing_space > 0),
        ("ends of answers", str(facts.edges), facts.edges.leading_breaks > 0),
        *_joined(facts.joined, facts.answers),
    ]


def _judged(facts: JudgedFacts) -> list[Line]:
    samples = ", ".join(f"{n} ({count:,} questions)" for n, count in facts.samples.items())
    systems = f"{sum(facts.systems.values())} questions, {len(facts.systems)} different" if facts.systems else "none"
    prompts = ", ".join(f"{name} ({count} different)" for name, count in facts.templates.items())
    return [
        ("form", facts.form, False),
        ("questions", f"{facts.questions:,}, in {facts.paraphrases:,} paraphrases", False),
        ("samples a paraphrase", f"{samples}: {facts.answers:,} answers a persona and model state", False),
        ("keys", _shares(facts.columns, facts.questions), False),
        ("system prompts", systems, False),
        ("judge", _shares(facts.judges, facts.questions), False),
        ("judge prompts", prompts, False),
        ("asked twice", ", ".join(facts.repeated) or "none", bool(facts.repeated)),
        (f"question, {_unit(facts.token_counter)}", _lengths(facts.lengths), False),
    ]


def _pairs(facts: PairFacts) -> list[Line]:
    unit = _unit(facts.token_counter)
    return [
        ("form", facts.form, False),
        ("pairs", f"{facts.pairs:,}", False),
        ("topics", _shares(facts.topics, 0), False),
        ("asked twice", ", ".join(facts.repeated) or "none", bool(facts.repeated)),
        ("answers differ by", f"at most {facts.apart:.0%} in length", False),
        (f"question, {unit}", _lengths(facts.lengths), False),
        (f"answer, {unit}", _lengths(facts.answer_lengths), False),
        ("ends of prompts", str(facts.prompt_edges), facts.prompt_edges.trailing_space > 0),
        ("ends of answers", str(facts.edges), facts.edges.leading_breaks > 0),
        *_joined(facts.joined),
        ("columns", _shares(facts.columns, facts.pairs), False),
        ("shows the behavior", facts.shown or "not said", not facts.shown),
        ("does not", facts.not_shown or "not said", not facts.not_shown),
        (
            "length, shown / not",
            f"{facts.length_ratio:.2f} in the mean" if facts.length_ratio else "no pairs yet",
            False,
        ),
        ("turns of the user", ", ".join(f"{n} ({rows:,})" for n, rows in facts.exchanges.items()), False),
        ("system turns", f"{facts.systems:,}", facts.systems > 0),
        ("stand twice", str(facts.repeats), facts.repeats.rows > 0),
        *(("needs", need, True) for need in facts.needs),
    ]


def _joined(count: int | None, of: int | None = None) -> list[Line]:
    """Answers whose tokens depend on how a trainer tokenizes; none where no model was named."""
    if count is None:
        return []
    said = (
        f"{count:,}{'' if of is None else f' of {of:,}'} answers are other tokens when prompt and answer are one text"
    )
    return [("joined tokens", f"{said}; here an answer is tokenized by itself" if count else said, count > 0)]


def _unit(counter: str) -> str:
    return "tokens" if "characters" not in counter else "~tokens"


def _shares(counts: Mapping[str, int], of: int, between: str = ", ") -> str:
    return between.join(name if count == of else f"{name} ({count:,})" for name, count in counts.items()) or "none"


def _lengths(lengths: Lengths) -> str:
    return f"{lengths.smallest} to {lengths.largest}, median {lengths.median:g}, 95 % up to {lengths.p95}"
