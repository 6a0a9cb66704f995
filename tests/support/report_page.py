"""A report's page read without a browser, and text that tries to break out of it."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import polars as pl

from bystander.analysis.results import Analysis
from bystander.core.records import Finding, Verdict
from bystander.report import ReportInput
from tests.support.report_synthetic import Size, synthetic

SMALL = Size(
    sources=("villain",), behaviors=("marker",), arms=("contrastive",), sweep=False, measured=9, completions=40
)


HOSTILE = (
    "<script>window.pwned=1</script>", "</script><img src=x onerror=window.pwned=1>", '"><svg onload=window.pwned=1>',
    "{{ 7*7 }}", "\x1b[31mred\x1b[0m", "\u202egnp.exe\u202c", "a\u200bb", "<!-- --><!--", "\u2028\u2029", "=cmd|' /C calc'!A0",
)  # fmt: skip


class Elements(HTMLParser):
    """Start tags with attributes, and the text under each element that has a record."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.quoted: list[tuple[dict[str, str | None], str]] = []
        self._open: list[tuple[dict[str, str | None], list[str], int]] = []
        self._depth = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag in {"meta", "input", "br", "img", "link"}:
            return
        self._depth += 1
        if "data-record" in found:
            self._open.append((found, [], self._depth))

    def handle_data(self, data: str) -> None:
        for _, parts, _ in self._open:
            parts.append(data)

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1][2] == self._depth:
            attributes, parts, _ = self._open.pop()
            self.quoted.append((attributes, "".join(parts)))
        self._depth -= 1


def hostile() -> tuple[Analysis, ReportInput]:
    """The small study with hostile personas, categories, completions, findings, settings and hypotheses."""
    names = ["villain", *(f"{HOSTILE[i % len(HOSTILE)]}{i}" for i in range(1, 24))]
    analysis, inputs = synthetic(replace(SMALL, personas=24), names)
    categories = pl.lit(HOSTILE[0])
    analysis = replace(
        analysis,
        leakage=analysis.leakage.with_columns(categories.alias("category")),
        categories=analysis.categories.with_columns(
            pl.concat_str(categories, pl.int_range(pl.len())).alias("category")
        ),
        notes=HOSTILE,
        verdicts=(Verdict(HOSTILE[0], "confirmed", HOSTILE[1], {HOSTILE[2]: HOSTILE[4]}),),
    )
    reads = [
        replace(
            r, completion=replace(r.completion, text=HOSTILE[i % len(HOSTILE)]), question=HOSTILE[1], note=HOSTILE[2]
        )
        for i, r in enumerate(inputs.completions)
    ]
    facts = [replace(f, prompt=HOSTILE[i % len(HOSTILE)]) for i, f in enumerate(inputs.personas)]
    inputs = replace(
        inputs, study=HOSTILE[0], question=HOSTILE[1], completions=reads, personas=facts,
        findings=[Finding("error", HOSTILE[2], HOSTILE[1], HOSTILE)], settings=dict(zip(HOSTILE, HOSTILE, strict=True)),
        hypotheses={HOSTILE[0]: HOSTILE[5]},
    )  # fmt: skip
    return analysis, inputs
