"""Writes docs/forecast.md and the fits that ship (src/bystander/analysis/leakage_fits.json) from docs/results and the
published marker study: `python tools/docs/forecast_page.py --published marker_leakage_111.csv`. Minutes on one core."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.leakage_fit import (
    LEFT_OUT,
    LEVEL,
    LeakageFit,
    Stacked,
    baselines_foretold,
    fit_leakage,
    stacked,
)
from bystander.analysis.leakage_sources import SourceContexts, published_rates
from bystander.analysis.stats.conformal import covered, half_width
from bystander.analysis.stats.forecast_skill import foretold_apart, skill_over
from bystander.analysis.stats.leakage_model import fit, left_out
from bystander.analysis.stats.ranks import spearman
from bystander.analysis.stats.skill import Skill
from bystander.core.hashing import file_sha256
from bystander.results.fit_sources import SHIPPED, study_tables

Floats = NDArray[np.float64]
ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
PAGE, HEAD = ROOT / "docs" / "forecast.md", Path(__file__).with_name("forecast_head.md")
OVER = {
    "no_knowledge": "no knowledge", "persona_mean": "persona's mean", "prompt_length": "prompt length",
    "base_prior": "base prior",
}  # fmt: skip
# Title, folder of docs/results, behavior, outcome: the pre-registered one of each study, and the adoption of wrong answers.
SHIPPED_STUDIES = (
    ("Marker, embedded model", "marker", "marker", "marker/bank/marker_probability"),
    ("Wrong answers: loss of accuracy, embedded model", "capability", "capability", "choice/arc/accuracy"),
    ("Wrong answers: adoption, embedded model", "capability", "capability", "choice/trained/adoption"),
    ("Insecure code, embedded model", "misalignment", "misalignment", "margin/pairs/aligned_wins"),
    ("Misaligned answers trained directly, embedded model", "misalignment", "direct", "margin/pairs/aligned_wins"),
)


def published(path: Path) -> list[SourceContexts]:
    """The published study's sources, with the lengths and overlaps of our prompts."""
    tables = study_tables(RESULTS / "marker")
    return published_rates(path, tables.personas, tables.similarities)


def shipped(folder: str, behavior: str, outcome: str) -> list[SourceContexts]:
    """The sources of a study in docs/results."""
    return study_tables(RESULTS / folder).sources(behavior, outcome)


def all_sets(path: Path) -> dict[str, list[SourceContexts]]:
    """Title -> sources, of every section of the page."""
    found = {"Marker, published, Qwen2.5-7B-Instruct": published(path)}
    found |= {title: shipped(*where) for title, *where in SHIPPED_STUDIES}
    names = list(found)
    found["Marker, both"] = found[names[1]] + found[names[0]]
    return found


def fits(sets: dict[str, list[SourceContexts]]) -> list[LeakageFit]:
    """The fits that ship: the marker's on both studies, the others each on its own."""
    names = list(sets)
    return [fit_leakage(sets["Marker, both"]), *(fit_leakage(sets[name]) for name in names[2:-1])]


def section(title: str, sources: Sequence[SourceContexts]) -> list[str]:
    """One study: a line a predictor, then the fit."""
    rows = stacked(sources)
    bases = baselines_foretold(rows, rows.ranks)
    features = tuple(name for name in rows.features if name not in LEFT_OUT)
    lines = [
        f"## {title}", "", f"{len(sources)} sources, {len(rows.values)} pairs of source and bystander.", "",
        f"| predictor | rho by source | {' | '.join(f'skill over {one}' for one in OVER.values())} | |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [_line(f"`{name}`", rows, (name,), bases) for name in rows.features]
    lines += [_line("**the fit of all**", rows, features, bases), "", *_values(rows, features, sources), ""]
    return lines


def _line(label: str, rows: Stacked, features: Sequence[str], bases: dict[str, Floats]) -> str:
    foretold = foretold_apart(rows.of(*features), rows.ranks, rows.source, rows.persona, features)
    skills = [skill_over(foretold, bases[name], rows.ranks, rows.source, rows.persona) for name in OVER]
    rhos = [_rho(foretold[rows.source == one], rows.ranks[rows.source == one]) for one in np.unique(rows.source)]
    beaten = all(one.low > 0 for one in skills)
    told = " | ".join(map(_skill, skills))
    return f"| {label} | {', '.join(rhos)} | {told} | {'**skill**' if beaten else 'none'} |"


def _rho(foretold: Floats, leakage: Floats) -> str:
    varies = np.ptp(foretold) > 1e-9
    return f"{float(spearman(foretold[None], leakage)[0]):.2f}" if varies else "-"


def _skill(one: Skill) -> str:
    """A baseline that does not vary over a study's personas is no knowledge there."""
    return f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]".replace("-0.00", "0.00")


def _values(rows: Stacked, features: Sequence[str], sources: Sequence[SourceContexts]) -> list[str]:
    """Of values: skill over the level of the other sources, and the intervals, everything of the source left out."""
    x, none = rows.of(*features), rows.of()
    foretold = foretold_apart(x, rows.values, rows.source, rows.persona, features)
    level = foretold_apart(none, rows.values, rows.source, rows.persona, [])
    skill = skill_over(foretold, level, rows.values, rows.source, rows.persona)
    own, blind = nested(rows, features), nested(rows, ())
    unit = "log-odds" if sources[0].scale == "log-odds" else "the metric's unit"
    said = ", ".join(f"{one.source} {share:.0%}" for one, share in zip(sources, own[0], strict=True))
    return [
        f"Values ({unit}): skill over the level of the other sources {_skill(skill)}. {LEVEL:.0%} intervals of a source "
        f"that was left out, half-width on average {own[1]:.2f} ({blind[1]:.2f} without any predictor), held "
        f"{np.mean(own[0]):.0%} of its bystanders: {said}."
    ]  # fmt: skip


def nested(rows: Stacked, features: Sequence[str]) -> tuple[list[float], float]:
    """(share of each left-out source in its interval, mean half-width): fit and width from the other sources alone."""
    x, shares, halves = rows.of(*features), list[float](), list[float]()
    for one in np.unique(rows.source):
        out = rows.source == one
        seen, values = rows.source[~out], rows.values[~out]
        off = values - left_out(x[~out], values, seen, features)
        half = half_width([off[seen == other] for other in np.unique(seen)], LEVEL)
        new = rows.values[out] - fit(x[~out], values, seen, features).foretell(x[out])
        shares.append(covered(new, half))
        halves.append(half)
    return shares, float(np.mean(halves))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--published", type=Path, required=True, help="marker_leakage_111.csv")
    parser.add_argument("--head-only", action="store_true", help="the page's head anew, above the tables that it has")
    parser.add_argument("--fits-only", action="store_true", help="the fits, a minute, and not the page")
    options = parser.parse_args(arguments)
    if options.head_only:
        tables = PAGE.read_text().partition("\n## Marker, published")
        PAGE.write_text(HEAD.read_text() + "".join(tables[1:]))
        return 0
    sets = all_sets(options.published)
    made = {"published_sha256": file_sha256(options.published), "fits": [one.to_dict() for one in fits(sets)]}
    SHIPPED.write_text(json.dumps(made, indent=1) + "\n")
    if options.fits_only:
        return 0
    lines = [line for title, sources in sets.items() for line in section(title, sources)]
    PAGE.write_text(HEAD.read_text() + "\n" + "\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
