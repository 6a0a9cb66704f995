"""Several studies side by side: a forest plot of their similarity gradients, what they found, and what differs in their
settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from bystander.analysis.results import Analysis
from bystander.core.columns import CellValue
from bystander.core.errors import DataError
from bystander.core.files import write_bytes
from bystander.report import sections
from bystander.report.figures.frames import arms, shown
from bystander.report.figures.save import save_figures, specifications
from bystander.report.headline import HeadlineOutcome, headline_outcomes
from bystander.report.inputs import ReportInput
from bystander.report.labels import predictor_name, readable
from bystander.report.page import page
from bystander.report.tables import Column, Table, table
from bystander.report.text import visible
from bystander.report.theme import config

ComparedRun = tuple[str, Analysis, ReportInput]


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting that is not the same everywhere: one value per study, None where a study does not have it."""

    key: str
    values: tuple[CellValue, ...]


def write_compare(studies: Sequence[ComparedRun], out: Path, style: str = "screen") -> Path:
    """Write the comparison to `out` (a file, or the folder to hold `compare.html`) and its figure; returns its path.

    A number's record is the study's name, a colon, and the record in that study. Raises DataError for fewer than two
    studies or two of one name, StoreError where a file cannot be written.
    """
    names = [name for name, _, _ in studies]
    if len(names) < 2:
        raise DataError(f"a comparison needs two studies or more, got {len(names)}: {', '.join(names) or 'none'}")
    if len(set(names)) < len(names):
        raise DataError(f"these studies have one name between them: {', '.join(names)}; give each its own")
    target = out if out.suffix == ".html" else out / "compare.html"
    frame = correlations(studies)
    specs = _figures(frame)
    write_bytes(target, _render(studies, frame, specs).encode())
    save_figures(specs, target.parent / "figures", style)
    return target


def correlations(studies: Sequence[ComparedRun]) -> pl.DataFrame:
    """The headline correlation of every study, behavior, arm and source, and the pooled one where there is one."""
    rows: list[dict[str, CellValue]] = []
    for name, analysis, inputs in studies:
        for headline in headline_outcomes(analysis, inputs.picked_configs):
            for one in map(headline.in_arm, arms(analysis, [headline])):
                for row in one.predicted(analysis.pooled).iter_rows(named=True):
                    rows.append(_line(name, one, row, "all sources", row["p_matrix"], pooled=True))
                for row in one.predicted(analysis.similarity_correlation).iter_rows(named=True):
                    rows.append(_line(name, one, row, str(row["source"] or ""), row["p"], pooled=False))
    schema: dict[str, type[pl.DataType]] = {
        "record": pl.String, "run": pl.String, "behavior": pl.String, "arm": pl.String, "source": pl.String,
        "line": pl.String, "predictor": pl.String, "n": pl.Int64, "rho": pl.Float64, "low": pl.Float64,
        "high": pl.Float64, "p": pl.Float64, "pooled": pl.Boolean, "reason": pl.String,
    }  # fmt: skip
    frame = pl.DataFrame(rows, schema=schema)
    order = {behavior: index for index, behavior in enumerate(dict.fromkeys(frame["behavior"].to_list()))}
    return shown(frame.sort(pl.col("behavior").replace_strict(order), maintain_order=True) if order else frame)


def _line(
    run: str, headline: HeadlineOutcome, row: dict[str, CellValue], source: str, p: CellValue, *, pooled: bool
) -> dict[str, CellValue]:
    words = [run, readable(source), readable(headline.arm)]
    return {
        "record": f"{run}:{row['record']}", "run": run, "behavior": headline.behavior, "arm": headline.arm, "source": source,
        "line": " · ".join(word for word in words if word), "predictor": predictor_name(headline.method, headline.layer),
        "n": row["n"], "rho": row["rho"], "low": row["low"], "high": row["high"], "p": p, "pooled": pooled,
        "reason": "" if row["rho"] is not None else row["reason"] or row["status"],
    }  # fmt: skip


def differences(studies: Sequence[ComparedRun]) -> list[Difference]:
    """Settings that are not equal in all studies, by key."""
    settings = [inputs.settings for _, _, inputs in studies]
    keys = sorted(set[str]().union(*settings))
    found: list[Difference] = []
    for key in keys:
        values = tuple(each.get(key) for each in settings)
        if len({json.dumps(value) for value in values}) > 1:
            found.append(Difference(key, values))
    return found


def _figures(frame: pl.DataFrame) -> dict[str, dict[str, object]]:
    from bystander.report.figures.forest import forest

    known = frame.filter(pl.col("rho").is_not_null())
    return specifications({"forest": forest(known)}) if known.height else {}


def _render(studies: Sequence[ComparedRun], frame: pl.DataFrame, specs: dict[str, dict[str, object]]) -> str:
    shown_tables = {"compare-correlations": _correlation_table(frame), "compare-leakage-ratio": _ratio_table(studies)}
    packed: dict[str, object] = {"configs": {"light": config("light"), "dark": config("dark")}}
    packed |= {f"figure/{name}": spec for name, spec in specs.items()}
    packed |= {f"table/{name}": shown.packed() for name, shown in shown_tables.items() if shown.long}
    return page(
        "compare.html",
        title="bystander: " + ", ".join(name for name, _, _ in studies),
        packed=packed,
        vega=bool(specs),
        names=[visible(name) for name, _, _ in studies],
        studies=studies,
        groups={"forest": [("forest", "forest")]} if specs else {},
        t=shown_tables,
        differences=differences(studies),
    )


def _correlation_table(frame: pl.DataFrame) -> Table:
    columns = sections.columns("similarity_correlation", "behavior source arm predictor n rho low p reason")
    return table(
        "compare-correlations",
        frame,
        (Column("run", "Study"), *columns),
        emphasis="pooled",
        constant=("arm", "predictor"),
    )


def _ratio_table(studies: Sequence[ComparedRun]) -> Table:
    rows: list[dict[str, CellValue]] = []
    columns: tuple[Column, ...] = ()
    for name, analysis, inputs in studies:
        chosen = headline_outcomes(analysis, inputs.picked_configs)
        part = sections.leakage_ratio(analysis, chosen, arms(analysis, chosen))
        columns = max(columns, part.columns, key=len)
        rows += [{**row, "record": f"{name}:{row['record']}", "run": name} for row in part.rows]
    return table("compare-leakage-ratio", rows, (Column("run", "Study"), *columns))
