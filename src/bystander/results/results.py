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
from bystander.analysis.leakage_sources import StudyTables
from bystander.analysis.schemas import TABLES, tidy
from bystander.core import doors
from bystander.core.errors import StoreError
from bystander.core.files import write_bytes
from bystander.core.records import PersonaFacts
from bystander.results import run_records
from bystander.results.dose_notes import dose_notes
from bystander.results.forecast_score import scored_forecast
from bystander.results.rejudge import JUDGED_BY, judged_afterwards
from bystander.study.config.study import ResolvedStudy, StudySettings, study_model
from bystander.study.plan.picked_items import left_to_test, split_notes
from bystander.study.plan.preregistration import hypotheses_of
from bystander.study.store.cell_dir import STAMPED, Sampled
from bystander.study.store.records import GateDecision
from bystander.study.store.run_dir import RunDir

if TYPE_CHECKING:
    import altair as alt

    from bystander.probe.base import SampledMetrics
    from bystander.report.inputs import ReadCompletion, ReportInput


@dataclass(frozen=True)
class Results:
    """A finished (or half-finished) run. Tables are polars data frames; `.to_pandas()` works on each."""

    run: RunDir
    study: ResolvedStudy

    @property
    def folder(self) -> Path:
        """The run directory."""
        return self.run.path

    @classmethod
    def open(cls, folder: Path | str) -> Results:
        """Open a run directory. Raises StoreError if it is none, or has no measurements yet."""
        run = RunDir(Path(folder))
        for path in (run.provenance_file, run.study_file, run.personas_json):
            if not path.is_file():
                raise StoreError(f"{run.path} is not a run directory: it has no {path.name}")
        if not run.measurements_file.is_file():
            raise StoreError(
                f"{run.path} has no measurements yet; `bystander run` it first; of what a stop kept, `bystander report` makes tables"
            )
        return cls(run, ResolvedStudy(_settings(run.study_file), run.personas(), run.path))

    @cached_property
    def measurements(self) -> pl.DataFrame:
        """One long table: `core.records.Measurement`. The judged rows are those of `bystander judge` where the run judged
        nothing itself, or where its judge's answers were read again."""
        if self._later is None:
            return self._own
        later = self._later[0]
        return pl.concat(
            [self._own.join(later.select(JUDGED_BY).unique(), on=JUDGED_BY, how="anti", maintain_order="left"), later]
        )

    @cached_property
    def _own(self) -> pl.DataFrame:
        return self.run.table(self.run.measurements_file)

    def _rows(self, gate: GateDecision | None) -> pl.DataFrame:
        """What is analyzed. Texts as categories where the run's one table is all there is: millions of rows in half a
        gigabyte."""
        if gate is None and self._later is None:
            return self.run.table(self.run.measurements_file, categories=True)
        return self.measurements

    @property
    def trained(self) -> bool:
        """Whether anything but the untrained model was measured."""
        rows = pl.scan_parquet(self.run.measurements_file, glob=False)
        return bool(rows.select(pl.col("source").is_not_null().any()).collect().item())

    @cached_property
    def _later(self) -> tuple[pl.DataFrame, str] | None:
        """The rows of `bystander judge` that count, and the judge's name."""
        if not (self.run.judged_folder / "used.json").is_file():
            return None
        return judged_afterwards(self.run, self._own)

    @cached_property
    def similarities(self) -> pl.DataFrame:
        """Similarity of every persona to each source by method and layer."""
        return self.run.table(self.run.similarities_file)

    @cached_property
    def personas(self) -> pl.DataFrame:
        """Name, category, relations, prompt and its length in tokens."""
        return self.run.table(self.run.personas_file)

    @cached_property
    def analysis(self) -> Analysis:
        """Every estimate and verdict, computed from the tables alone; read back where the report has it already."""
        saved = self.run.analysis_file
        tables = [self.run.measurements_file, self.run.judged_folder / "used.json"]
        newest = max(table.stat().st_mtime for table in tables if table.is_file())
        if saved.is_file() and saved.stat().st_mtime >= newest:
            return Analysis.from_json(saved.read_text(encoding="utf-8"), saved)
        return self.analyze()

    def analyze(self) -> Analysis:
        """The analysis, computed anew; from then on it is what `analysis` gives. The phase diagram is the gate's: all its
        configurations on the same personas."""
        found = self._analyze()
        self.__dict__["analysis"] = found  # the property's cache
        return found

    @cached_property
    def _blind(self) -> dict[str, str]:
        return run_records.blind(self.run)

    def _analyze(self) -> Analysis:
        spec, gate = self.study.spec, self.run.gate().found
        settings = AnalysisSettings(
            method=spec.geometry.method, layer=spec.geometry.layer, bystander_roles=("held-out", "mixed"),
            blind=tuple(self._blind),
        )  # fmt: skip
        picks = run_records.picked(self.run)
        hypotheses = [replace(h, config=picks.get(h.behavior, h.config)) for h in hypotheses_of(self.study)]
        main = run_records.main_rows(self._rows(gate), gate)
        if gate is not None:
            main = left_to_test(main, gate)
        found = analyze(main, self.similarities, self.personas, settings=settings, hypotheses=hypotheses)
        mode = pl.col("probe").replace_strict(self._modes(), default="", return_dtype=pl.String)
        found = replace(found, checks=found.checks.with_columns(mode.alias("mode")))
        if self._later is not None:
            again = self._own.join(
                self._later[0].select(JUDGED_BY).unique(), on=JUDGED_BY, how="semi", maintain_order="left"
            ).height
            how = "its kept answers read again" if again else "given after the run"
            note = f"the judged scores are those of {self._later[1]}, {how} by `bystander judge`"
            found = replace(found, notes=(*found.notes, note))
        found = replace(found, notes=(*found.notes, *dose_notes(self.run.manifests("train"))))
        if gate is None:
            return found
        found = replace(found, notes=(*found.notes, *split_notes(gate.numbers, gate.picks)))
        note = f"the sweep's {len(gate.phase)} trainings were judged at the gate and stand in the phase diagram"
        return replace(found, phase=tidy(list(gate.phase), TABLES["phase"]), notes=(*found.notes, note))

    def tables_for_fit(self) -> StudyTables:
        """What a fit of leakage reads of it, and what scores a forecast."""
        spec = self.study.spec
        return StudyTables(
            spec.name, spec.model.name, spec.geometry.layer, self.analysis.leakage, self.similarities, self.personas
        )  # fmt: skip

    def _modes(self) -> dict[str, str]:
        """Probe -> how it measures, for the probes that have more than one way."""
        given = {name: getattr(settings, "mode", "auto") for name, settings in self.study.spec.probes.asked().items()}
        checked = {one.probe: one.mode for one in self.run.modes()}
        return {name: mode for name, mode in given.items() if mode != "auto"} | checked

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

    def report(self, out: Path | None = None) -> Path:
        """Write `analysis.json`, `report.html` and the figures; returns the report's path. `out`: a page or a folder
        elsewhere, and then nothing is written in the run directory."""
        from bystander.report import write_report

        found = self.analyze()
        if out is None:
            write_bytes(self.run.analysis_file, found.to_json().encode())
        return write_report(found, self.report_input(), out or self.run.report_file)

    def asked(self) -> ReportInput:
        """What was asked and trained: the part of the report's input that is there at once."""
        from bystander.report.inputs import ReportInput

        spec = self.study.spec
        return ReportInput(
            study=spec.name,
            question=spec.question,
            model=_named(spec.model.name),
            trained=run_records.trained(self.run),
            hypotheses={h.name: h.statement for h in hypotheses_of(self.study)},
            behaviors=tuple(spec.behaviors),
            taught={
                name: doors.load("behavior", name).taught for name in spec.behaviors if name in doors.names("behavior")
            },
            gate=run_records.gate_result(self.run),
            picked_configs=run_records.picked(self.run),
        )

    def story(self, page: Path | None = None) -> list[str]:
        """What was asked, trained and found, in at most eight lines that a person reads. `page`: where the report lies."""
        from bystander.report.story import story

        return story(self.analysis, self.asked(), str(page or ""), str(self.folder))

    def report_input(self) -> ReportInput:
        """What the report shows beside the analysis."""
        provenance = self.run.provenance()
        lines, digest = run_records.registration(self.run)
        findings, renderings = run_records.audited(self.run)
        return replace(
            self.asked(),
            settings=dict(flat(run_records.settings_shown(self.run, self.study.spec.resolved()))),
            findings=[
                *findings,
                *self.run.mode_findings(),
                *run_records.blind_findings(self._blind),
                *run_records.adapter_findings(self.run),
            ],
            audited=self.run.audit_file.is_file(),
            personas=[
                PersonaFacts(p["persona"], p["category"], tuple(p["related_to"]), p["prompt"], p["prompt_tokens"])
                for p in self.personas.to_dicts()
            ],
            similarities=self.similarities,
            completions=self._completions(),
            curves=run_records.curves(self.run),
            renderings=renderings,
            provenance=dict(flat(provenance)) | run_records.adapter_provenance(self.run),
            cost=run_records.cost(self.run),
            registered=lines,
            registration_hash=digest,
            forecast=scored_forecast(self.run, self.tables_for_fit()),
            created=run_records.created(self.run),
        )

    def _completions(self) -> list[ReadCompletion]:
        """Every saved answer of a trained model; what the gate picked is trained twice, from the same seed: shown
        once."""
        metrics = {name: probe.sampled for name in doors.names("probe") if (probe := doors.load("probe", name)).sampled}
        values = self._sampled_values(metrics)
        found: list[ReadCompletion] = []
        for cell in self.run.complete_cells():
            for one in cell.sampled():
                if one.stamp["source"] is None or one.stamp["probe"] not in metrics:
                    continue
                told_by, key = metrics[one.stamp["probe"]], _sample_key(one)
                shown = values.get((*key, told_by.shown))
                leaked = None if shown is None else bool(shown)
                found.append(_read_completion(one, leaked, values.get((*key, told_by.score))))
        return list({read.record: read for read in found}.values())

    def _sampled_values(self, metrics: Mapping[str, SampledMetrics]) -> dict[tuple[Any, ...], float | None]:
        """(stamp, probe, context, persona, item, metric) -> value of every sampled answer."""
        wanted = {name for one in metrics.values() for name in (one.shown, one.score)}
        rows = self.measurements.filter(pl.col("probe").is_in(list(metrics)) & pl.col("metric").is_in(list(wanted)))
        columns = [*STAMPED, "probe", "context", "persona", "item", "metric", "value"]
        # Of several scorers of one answer the first, which is the behavior's own.
        return {tuple(row[:-1]): row[-1] for row in reversed(rows.select(columns).rows())}


def _named(model: str) -> str:
    """A model's name without the folders of this machine."""
    return Path(model).name if Path(model).is_absolute() else model


def _settings(path: Path) -> StudySettings:
    """The study as the run saved it. Raises StoreError where it cannot be read."""
    from pydantic import ValidationError

    from bystander.core.yamlfile import read_yaml

    try:
        return study_model().model_validate(read_yaml(path.read_text(encoding="utf-8")).data)
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise StoreError(
            f"{path} is not the study that a run saves: {str(error).splitlines()[0]}; is the folder a run of another "
            "version, or is a package missing that adds a behavior or a probe?"
        ) from error


def _sample_key(one: Sampled) -> tuple[Any, ...]:
    return (
        *(one.stamp[name] for name in STAMPED),
        one.stamp["probe"],
        one.completion.context,
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
