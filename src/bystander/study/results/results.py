"""The results of a run: its tables, the analysis of them, and the report. What the notebook user holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from bystander.analysis import Analysis, AnalysisSettings, analyze
from bystander.analysis.schemas import TABLES, tidy
from bystander.core.errors import StoreError
from bystander.core.files import read_json, write_bytes
from bystander.core.records import Persona, PersonaFacts
from bystander.study.config.study import Loaded, Study
from bystander.study.plan.preregistration import hypotheses_of
from bystander.study.results import run_records as told
from bystander.study.results.rejudge import FOLDER, judged_afterwards
from bystander.study.store.cell_dir import STAMPED, Sampled

if TYPE_CHECKING:
    import altair as alt

    from bystander.report.inputs import ReadCompletion, ReportInput


@dataclass(frozen=True)
class Results:
    """A finished (or half-finished) run. Tables are polars data frames; `.to_pandas()` works on each."""

    folder: Path
    study: Loaded

    @classmethod
    def open(cls, folder: Path | str) -> Results:
        """Open a run directory. Raises StoreError if it is none, or has no measurements yet."""
        folder = Path(folder)
        for name in ("provenance.json", "study.yaml", "personas.json"):
            if not (folder / name).is_file():
                raise StoreError(f"{folder} is not a run directory: it has no {name}")
        if not (folder / "measurements.parquet").is_file():
            raise StoreError(f"{folder} has no measurements yet; `bystander run` it first")
        spec = _spec(folder / "study.yaml")
        personas = [
            Persona(p["name"], p["prompt"], p["category"], tuple(p["related_to"]))
            for p in read_json(folder / "personas.json")
        ]
        return cls(folder, Loaded(spec, tuple(personas), folder))

    @cached_property
    def measurements(self) -> pl.DataFrame:
        """One long table: `core.records.Measurement`. A run that judged nothing itself has the rows of `bystander judge`."""
        return self._own if self._later is None else pl.concat([self._own, self._later[0]])

    @cached_property
    def _own(self) -> pl.DataFrame:
        return _table(self.folder / "measurements.parquet")

    @cached_property
    def _later(self) -> tuple[pl.DataFrame, str] | None:
        """The rows of `bystander judge` that count, and the judge's name."""
        return judged_afterwards(self.folder, self._own)

    @cached_property
    def similarities(self) -> pl.DataFrame:
        """Similarity of every persona to each source by method and layer."""
        return _table(self.folder / "similarities.parquet")

    @cached_property
    def personas(self) -> pl.DataFrame:
        """Name, category, relations, prompt and its length in tokens."""
        return _table(self.folder / "personas.parquet")

    @cached_property
    def analysis(self) -> Analysis:
        """Every estimate and verdict, computed from the tables alone; read back where the report has it already."""
        kept = self.folder / "analysis.json"
        tables = [self.folder / "measurements.parquet", self.folder / FOLDER / "used.json"]
        newest = max(table.stat().st_mtime for table in tables if table.is_file())
        if kept.is_file() and kept.stat().st_mtime >= newest:
            return Analysis.from_json(kept.read_text(encoding="utf-8"), kept)
        return self.analyze()

    def analyze(self) -> Analysis:
        """The analysis, computed anew. The phase diagram is the gate's: all its configurations on the same personas."""
        spec = self.study.spec
        settings = AnalysisSettings(layer=spec.geometry.layer, bystander_roles=("held-out", "mixed"))
        picks = told.picked(self.folder)
        hypotheses = [replace(h, config=picks.get(h.behavior, h.config)) for h in hypotheses_of(spec)]
        main = told.main_rows(self.measurements, self.folder)
        found = analyze(main, self.similarities, self.personas, settings=settings, hypotheses=hypotheses)
        mode = pl.col("probe").replace_strict(told.modes(self.folder, spec), default="", return_dtype=pl.String)
        found = replace(found, checks=found.checks.with_columns(mode.alias("mode")))
        if self._later is not None:
            told_by = f"the judged scores are those of {self._later[1]}, given after the run by `bystander judge`"
            found = replace(found, notes=(*found.notes, told_by))
        gate = told.gate_manifest(self.folder)
        if gate is None:
            return found
        note = f"the sweep's {len(gate['phase'])} trainings were judged at the gate and stand in the phase diagram"
        return replace(found, phase=tidy(gate["phase"], TABLES["phase"]), notes=(*found.notes, note))

    def leakage(self) -> pl.DataFrame:
        """Leakage per training, persona and metric, with its interval."""
        return self.analysis.leakage

    def similarity_correlation(self) -> pl.DataFrame:
        """Rank correlation of leakage with similarity, per training, metric, predictor and layer."""
        return self.analysis.similarity_correlation

    def dynamics(self) -> pl.DataFrame:
        """When leakage came: per persona, the checkpoint at which half of it was reached."""
        return self.analysis.dynamics

    def verdicts(self) -> pl.DataFrame:
        """The verdict on each hypothesis."""
        return self.analysis.tables()["verdicts"]

    def charts(self) -> dict[str, alt.Chart]:
        """The report's figures as Altair charts, by name."""
        from bystander.report import charts

        return charts(self.analysis, self.report_input())

    def report(self) -> Path:
        """Write `analysis.json`, `report.html` and the figures; returns the report's path."""
        from bystander.report import write_report

        found = self.analyze()
        self.__dict__["analysis"] = found  # the property's cache: what the report shows is what `analysis` gives
        write_bytes(self.folder / "analysis.json", found.to_json().encode())
        return write_report(found, self.report_input(), self.folder / "report.html")

    def report_input(self) -> ReportInput:
        """What the report shows beside the analysis."""
        from bystander.report.inputs import ReportInput

        provenance = read_json(self.folder / "provenance.json")
        spec = self.study.spec
        lines, digest = told.registered(self.folder)
        findings, renderings = told.audited(self.folder)
        return ReportInput(
            study=spec.name,
            question=spec.question,
            settings=dict(flat(spec.resolved())),
            findings=[*findings, *told.instrument_findings(self.folder)],
            audited=(self.folder / "audit.json").is_file(),
            personas=[
                PersonaFacts(p["persona"], p["category"], tuple(p["related_to"]), p["prompt"], p["prompt_tokens"])
                for p in self.personas.to_dicts()
            ],
            similarities=self.similarities,
            completions=self._completions(),
            curves=told.curves(self.folder),
            renderings=renderings,
            provenance=dict(flat(provenance)),
            model=spec.model.name,
            cost=told.cost(self.folder),
            registered=lines,
            registration_hash=digest,
            hypotheses={h.name: h.statement for h in hypotheses_of(spec)},
            gate=told.gate_result(self.folder),
            picked_configs=told.picked(self.folder),
            created=told.created(self.folder),
        )

    def _cells(self) -> list[Path]:
        return sorted(path.parent for path in (self.folder / "cells").glob("*/manifest.json"))

    def _completions(self) -> list[ReadCompletion]:
        from bystander.study.store.cell_dir import CellDir

        marker, scores = self.study.spec.marker.text, self._judged_scores()
        found: list[ReadCompletion] = []  # what the gate picked is trained twice, from the same seed: shown once
        for folder in self._cells():
            for one in told.sampled(CellDir(folder)):
                if one.stamp["source"] is None:
                    continue
                if one.stamp["probe"] == "judged":
                    found.append(_read_completion(one, *scores.get(_sample_key(one), (None, None))))
                else:
                    leaked = marker in one.completion.text if one.stamp["behavior"] == "marker" else None
                    found.append(_read_completion(one, leaked, None if leaked is None else float(leaked)))
        return list({read.record: read for read in found}.values())

    def _judged_scores(self) -> dict[tuple[Any, ...], tuple[bool | None, float | None]]:
        """Of every judged sample: whether it counts as misaligned, and its `aligned` score (0-100)."""
        rows = self.measurements.filter(pl.col("probe") == "judged")
        names = [*STAMPED, "persona", "item"]
        wide = rows.filter(pl.col("metric").is_in(["aligned", "misaligned"])).pivot(
            "metric", index=names, values="value"
        )
        return {
            tuple(row[name] for name in names): (
                None if row["misaligned"] is None else bool(row["misaligned"]),
                row["aligned"],
            )
            for row in wide.iter_rows(named=True)
        }


def _table(path: Path) -> pl.DataFrame:
    """A table of the run. Raises StoreError where it is missing or damaged."""
    try:
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise StoreError(
            f"{path} cannot be read ({error}); `bystander run` the study again into that folder: it writes the tables anew "
            "from the cells that are complete"
        ) from error


def _spec(path: Path) -> Study:
    """The study as the run kept it. Raises StoreError where it cannot be read."""
    from pydantic import ValidationError

    from bystander.core.yamlfile import read_yaml

    try:
        return Study.model_validate(read_yaml(path.read_text(encoding="utf-8")).data)
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise StoreError(
            f"{path} is not the study that a run keeps: {str(error).splitlines()[0]}; is the folder a run of another version?"
        ) from error


def _sample_key(one: Sampled) -> tuple[Any, ...]:
    return (
        *(one.stamp[name] for name in STAMPED),
        one.completion.persona,
        f"{one.completion.item}/{one.completion.sample}",
    )


def _read_completion(one: Sampled, leaked: bool | None, score: float | None) -> ReadCompletion:
    from bystander.report.inputs import ReadCompletion

    stamp = one.stamp
    return ReadCompletion(
        one.completion, stamp["behavior"], stamp["source"], stamp["arm"], str(stamp["role"]), stamp["checkpoint"], leaked, score,
        question=one.completion.prompt, config=stamp["config"] or "", seed=stamp["seed"],
    )  # fmt: skip


def flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as dotted keys with plain values."""
    pairs: list[tuple[str, Any]] = []
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            pairs += flat(inner, f"{prefix}{key}.")
        else:
            plain = inner if inner is None or isinstance(inner, str | int | float | bool) else _listed(inner)
            pairs.append((f"{prefix}{key}", plain))
    return pairs


def _listed(value: Any) -> str:
    """A list as a reader writes it; JSON where an entry is itself a list or a mapping."""
    plain = isinstance(value, list | tuple) and all(isinstance(item, str | int | float) for item in value)
    return ", ".join(str(item) for item in value) if plain else json.dumps(value, ensure_ascii=False)
