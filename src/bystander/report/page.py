"""`write_report`: one HTML file that holds everything it shows, and the figures beside it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

import polars as pl
from markupsafe import Markup

from bystander.analysis.results import Analysis
from bystander.core.records import Finding
from bystander.report import contexts, sections
from bystander.report.completions import shown_completions
from bystander.report.figures import frames
from bystander.report.figures.all import KINDS
from bystander.report.forecast import forecast
from bystander.report.headline import HeadlineOutcome, headline_outcomes
from bystander.report.hypotheses import form_of, hypotheses
from bystander.report.inputs import ReportInput
from bystander.report.labels import format_number, in_words, readable
from bystander.report.next_steps import next_steps
from bystander.report.numbers import QuotedNumbers
from bystander.report.opening import again, asked, openings
from bystander.report.sentences import verdict
from bystander.report.tables import Table
from bystander.report.text import pack, visible
from bystander.report.theme import config

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def environment() -> Environment:
    """Jinja with escaping on for every template, and undefined names as errors."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("bystander.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["visible"] = lambda text: visible(str(text))
    made.filters["form_of"] = form_of
    made.filters["plain"] = lambda value: visible(format_number(value, "plain"))
    made.filters["sentence"] = _sentence
    made.filters["in_words"] = lambda text: in_words(str(text))
    made.filters["readable"] = lambda text: visible(readable(str(text)))
    return made


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith((".", "!", "?")) else ".")


@cache
def asset(name: str) -> str:
    """The text of a style sheet or script of the templates."""
    return (resources.files("bystander.report") / "templates" / name).read_text(encoding="utf-8")


@cache
def vega_bundle() -> str:
    """vega-embed with Vega, Vega-Lite and Vega's expression interpreter, as vl-convert carries them.

    The interpreter walks the parsed expression instead of compiling it, so that the policy can forbid `eval`.
    """
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed=vegaEmbed;")


def page(template: str, *, title: str, packed: Mapping[str, object], vega: bool, **context: object) -> str:
    """Render a page with its policy: scripts and styles by hash, nothing else, no connection to anywhere."""
    css = asset("report.css")
    scripts = [*([vega_bundle()] if vega else []), asset("page.js")]
    if any("</script" in script.lower() or "<!--" in script for script in scripts):
        raise AssertionError("a bundled script would end its own element")
    policy = "; ".join(
        [
            "default-src 'none'",
            "script-src " + " ".join(_hash(script) for script in scripts),
            f"style-src {_hash(css)}",
            "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    return (
        environment()
        .get_template(template)
        .render(
            policy=Markup(policy),
            css=Markup(css),
            scripts=[Markup(script) for script in scripts],
            packed={name: Markup(pack(value)) for name, value in packed.items()},
            title=visible(title),
            **context,
        )
    )


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{digest}'"


def render(analysis: Analysis, inputs: ReportInput, specs: Mapping[str, dict[str, object]]) -> str:
    """The HTML text of the report. `specs`: the Vega-Lite specifications of `charts`, by name."""
    chosen = headline_outcomes(analysis, inputs.picked_configs)
    arms = frames.arms(analysis, chosen)
    tables = _tables(analysis, inputs, chosen, arms)
    read = shown_completions(analysis, inputs, chosen)
    own = {"inputs/completions": {"shown": len(read), "total": len(inputs.completions)}}
    numbers = QuotedNumbers(analysis, inputs, own)
    groups = _groups(specs)
    cite, commands = again(inputs)
    packed: dict[str, object] = {"configs": {"light": config("light"), "dark": config("dark")}}
    packed |= {f"figure/{name}": spec for name, spec in specs.items()}
    packed |= {f"table/{table.id}": table.packed() for table in tables.values() if table.long}
    if read:
        packed["completions"] = read
    return page(
        "report.html",
        title=inputs.title or inputs.study,
        packed=packed,
        vega=bool(specs),
        inputs=inputs,
        analysis=analysis,
        heading=inputs.title or inputs.question or inputs.study,
        number=numbers.number,
        asked=asked(inputs),
        openings=openings(analysis, inputs, numbers, chosen, list(specs)),
        steps=next_steps(analysis, inputs),
        gate=_gate(inputs),
        cite=cite,
        commands=commands,
        verdicts=[verdict(analysis, numbers, headline) for headline in chosen],
        without_persona=[(one.behavior, contexts.sentence(analysis, numbers, one)) for one in chosen],
        hypotheses=hypotheses(analysis, inputs),
        headlines=chosen,
        arms=arms,
        people=_people(analysis),
        groups=groups,
        t=tables,
        findings=_findings(inputs),
        completions_total=len(inputs.completions),
        completions_shown=len(read),
        contents=_contents(analysis, inputs, groups),
        exploratory=sections.exploratory(analysis),
        registered=[(f"inputs/registered/{i}", line.name) for i, line in enumerate(inputs.registered)],
    )


def _tables(
    analysis: Analysis, inputs: ReportInput, chosen: Sequence[HeadlineOutcome], arms: Sequence[str]
) -> dict[str, Table]:
    made = (
        contexts.contexts(analysis, inputs, chosen, arms),
        sections.captured(analysis, chosen, arms),
        sections.captured_over_sources(analysis, chosen, arms),
        sections.equivalence(analysis, chosen, arms),
        sections.dose(analysis, chosen, arms),
        sections.matched_dose(analysis, chosen, arms),
        sections.skill(analysis, chosen),
        sections.asymmetry(analysis, chosen),
        sections.similarity_correlation(analysis, chosen, arms),
        sections.pooled(analysis, chosen, arms),
        sections.leakage_ratio(analysis, chosen, arms),
        sections.partials(analysis, chosen),
        sections.predictors(analysis, chosen),
        sections.timing_correlation(analysis, chosen, arms),
        sections.categories(analysis, chosen, arms),
        sections.roles(analysis, chosen, arms),
        sections.personas(analysis, inputs, chosen, arms),
        sections.phase(analysis),
        sections.checks(analysis),
        forecast(inputs),
        sections.power(analysis),
        sections.cost(inputs),
        sections.settings(inputs),
        sections.provenance(inputs),
    )
    return {table.id: table for table in made}


def _people(analysis: Analysis) -> list[str]:
    rows = analysis.leakage.filter(context="persona")
    return sorted(visible(name) for name in rows["persona"].unique().to_list() if name)


def _findings(inputs: ReportInput) -> list[tuple[str, Finding]]:
    """Each finding with its record, errors first."""
    order = {"error": 0, "warning": 1, "info": 2}
    rows = [(f"inputs/finding/{position}", finding) for position, finding in enumerate(inputs.findings)]
    return sorted(rows, key=lambda row: order[row[1].level])


def _gate(inputs: ReportInput) -> str:
    """What the gate decided, as a sentence."""
    if inputs.gate is None:
        return ""
    did = {"go": "let the study go on", "stop": "stopped the study", "overridden": "had said stop and was overridden"}
    return f"The gate {did.get(inputs.gate.decision, inputs.gate.decision)}: {inputs.gate.reason}."


def _groups(specs: Mapping[str, object]) -> dict[str, list[tuple[str, str]]]:
    """Figures that share one place of the page, with a switch between them: (name, label of the switch)."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name in specs:
        kind = next(kind for kind in KINDS if name == kind or name.startswith(f"{kind}-"))
        label = readable(name.removeprefix(kind).removeprefix("-").replace("-", ", "))
        found.setdefault(name if kind == "levels" else kind, []).append((name, label))
    return found


def _contents(analysis: Analysis, inputs: ReportInput, groups: Mapping[str, object]) -> list[tuple[str, str]]:
    entries = (
        ("verdict", "Verdict", True),
        ("contexts", "Without a persona", bool(analysis.leakage.filter(pl.col("context") != "persona").height)),
        ("hypotheses", "Hypotheses", bool(analysis.verdicts or inputs.hypotheses)),
        ("captured", "Who was captured", bool(analysis.captured.height)),
        ("gradient", "Leakage and similarity", True),
        ("training", "Over training", bool(groups.keys() & {"heatmap", "quintiles", "timing", "dose"})),
        ("sweep", "Phase diagram", "phase" in groups),
        ("breakdown", "Category and role", True),
        ("predictors", "Predictors and confounders", bool(analysis.similarity_correlation.height)),
        ("forecast", "Forecast", bool(inputs.forecast)),
        ("checks", "Checks and audit", True),
        ("completions", "Completions", bool(inputs.completions)),
        ("provenance", "Cost and provenance", True),
        ("changes", "What would change it", True),
        ("exploratory", "What was exploratory", True),
    )
    return [(identifier, label) for identifier, label, there in entries if there]
