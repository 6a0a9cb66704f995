"""From the tables to the evidence that a hypothesis is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bystander.analysis.declared import declared_of, threshold_of
from bystander.analysis.hypotheses import Claim, Evidence, Hypothesis, Threshold, VerdictNumbers, evaluate
from bystander.analysis.keys import TrainingKey
from bystander.analysis.pairs import PairedGrid
from bystander.analysis.schemas import TableRows
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.intervals import Estimate
from bystander.analysis.tables.control import NO_CONTROL, ControlChange, control_of
from bystander.analysis.tables.leakage_ratio import LeakageRatioRow
from bystander.analysis.tables.pooled import PooledRow
from bystander.analysis.tables.similarity_correlation import SimilarityCorrelationRow
from bystander.core.records import Verdict

MISSING = Claim(np.nan, np.nan, np.nan, np.nan, np.nan)


def verdicts(
    rows: TableRows, whole: Sequence[PairedGrid], hypotheses: Sequence[Hypothesis], settings: AnalysisSettings
) -> tuple[Verdict, ...]:
    """Verdicts on every hypothesis whose behavior was trained: over all sources first, then by source where there are
    several ("A", "A/villain", ...)."""
    found: list[Verdict] = []
    for hypothesis in hypotheses:
        trained = [grid for grid in whole if grid.training.behavior == hypothesis.behavior]
        if not trained:
            continue
        threshold, declared = threshold_of(whole, hypothesis), declared_of(whole, hypothesis, settings)
        if threshold is None or declared is None:
            wanted = " or ".join("/".join(t.outcome) for t in hypothesis.thresholds)
            found.append(Verdict(hypothesis.name, "inconclusive", f"not measured: {wanted} in arm {hypothesis.arm}"))
            continue
        case = Case(hypothesis, threshold, declared.config, rows, whole, settings)
        sources = sorted(case.ratios)
        if not sources:
            found.append(Verdict(hypothesis.name, "inconclusive", f"not measured: configuration {declared.config}"))
            continue
        found.append(case.verdict(hypothesis.name, sources))
        if len(sources) > 1:
            found += [case.verdict(f"{hypothesis.name}/{source}", [source]) for source in sources]
    return tuple(found)


class Case:
    """One hypothesis against the records of one configuration."""

    def __init__(
        self, hypothesis: Hypothesis, threshold: Threshold, config: str, rows: TableRows, whole: Sequence[PairedGrid],
        settings: AnalysisSettings,
    ) -> None:  # fmt: skip
        self.hypothesis, self.threshold, self.config = hypothesis, threshold, config
        self.rows, self.whole, self.settings = rows, whole, settings
        self.layer = _layer(rows.similarity_correlation, settings)
        self.ratios = {  # of these trainings, by source, pooled over seeds
            row.training.source: row
            for row in rows.leakage_ratio
            if row.seed is None and row.outcome == threshold.outcome and self._about(row.training)
        }

    def _about(self, key: TrainingKey | PooledRow) -> bool:
        own = (self.hypothesis.behavior, self.hypothesis.arm, self.config)
        return (key.behavior, key.arm, key.config) == own

    def verdict(self, name: str, sources: Sequence[str]) -> Verdict:
        """The verdict over these sources."""
        ratios = [self.ratios[source] for source in sources]
        correlation, tested = self._correlation(sources)
        control, moved = self._control(sources), self._control_moved(sources)
        evidence = Evidence(
            source=_mean_claim([row.source_change for row in ratios], self.threshold.source, strict=False),
            bystanders=_mean_claim([row.bystander_change for row in ratios], self.threshold.bystanders),
            correlation=correlation,
            n_personas=min((row.n for row in ratios), default=0),
            n_seeds=min((row.n_seeds for row in ratios), default=0),
            n_sources=len(sources),
            numbers=self._numbers(sources, ratios, control, moved) | tested,
            broke=control.reason if control.broke else "",
            unmeasured=self._unmeasured(ratios),
            control_moved=moved,
        )
        return evaluate(name, self.hypothesis, evidence)

    def _unmeasured(self, ratios: Sequence[LeakageRatioRow]) -> str:
        bad = [row.reason for row in ratios if row.status != "ok"]
        if not bad and self.layer is None:
            return "no layer was declared, and several were measured: none may be picked afterwards"
        return "; ".join(dict.fromkeys(bad))

    def _correlation(self, sources: Sequence[str]) -> tuple[Claim, VerdictNumbers]:
        """Rho over these sources: the pooled test, or for one source its own p after Holm where it was pre-registered."""
        row = self._correlation_row(sources)
        if row is None:
            return MISSING, {"rho_test": f"{self.settings.method} at layer {self.layer} was not measured"}
        raw = row.p_matrix if isinstance(row, PooledRow) else row.p
        adjusted = np.isfinite(row.p_holm)
        claim = Claim(row.rho, row.low, row.high, row.p_holm if adjusted else raw, self.hypothesis.rho)
        kind = "personas permuted jointly over sources" if isinstance(row, PooledRow) else "permutation of personas"
        numbers: VerdictNumbers = {
            "rho_test": kind + (", Holm" if adjusted else ", not adjusted"),
            "rho_p_raw": raw if np.isfinite(raw) else None,
            "rho_record": row.record,
        }
        known = {"p_within_category": row.p_within_category, "rho_within_category": row.rho_within_category}
        if isinstance(row, SimilarityCorrelationRow):
            known |= {"partial_prompt_length": row.partial_prompt_length}
            known |= {"partial_prompt_length_p": row.partial_prompt_length_p}
        return claim, numbers | {name: number for name, number in known.items() if np.isfinite(number)}

    def _correlation_row(self, sources: Sequence[str]) -> SimilarityCorrelationRow | PooledRow | None:
        predictor = (self.settings.method, self.layer, self.threshold.outcome)
        if len(sources) == 1:
            own = (row for row in self.rows.similarity_correlation if row.seed is None and self._about(row.training))
            chosen = (row for row in own if row.training.source == sources[0])
        else:
            chosen = (row for row in self.rows.pooled if self._about(row))
        return next((row for row in chosen if (row.method, row.layer, row.outcome) == predictor), None)

    def _control(self, sources: Sequence[str]) -> ControlChange:
        grids = [
            grid
            for grid in self.whole
            if self._about(grid.training) and grid.training.source in sources and grid.outcome == self.threshold.outcome
        ]
        changes = [control_of(grid, self.whole, self.settings) for grid in grids]
        broken = [change for change in changes if change.broke]
        return broken[0] if broken else changes[0] if changes else NO_CONTROL

    def _control_moved(self, sources: Sequence[str]) -> bool | None:
        """Whether the source of the positive control moved on this outcome, in the behavior's direction; None: not run."""
        name = self.hypothesis.positive_control
        ran = [
            row
            for row in self.rows.leakage_ratio
            if name and row.training.behavior == name and row.seed is None and row.outcome == self.threshold.outcome
        ]
        ran = [row for row in ran if row.training.source in sources] or ran
        return any(row.source_p < self.hypothesis.alpha for row in ran) if ran else None

    def _numbers(
        self, sources: Sequence[str], rows: Sequence[LeakageRatioRow], control: ControlChange, moved: bool | None
    ) -> VerdictNumbers:
        ratios = [row.ratio for row in rows]
        above = _mean_estimate([row.bystander_change for row in rows]).p_above(self.threshold.bystanders)
        numbers: VerdictNumbers = {
            "behavior": self.hypothesis.behavior,
            "outcome": "/".join(self.threshold.outcome),
            "sources": ", ".join(sources),
            "arm": self.hypothesis.arm,
            "config": self.config,
            "predictor": self.settings.method,
            "layer": self.layer,
            "layer_declared": "yes" if self.settings.layer is not None else "no",
            "leakage_ratio": float(np.mean(ratios)) if ratios and np.isfinite(ratios).all() else None,
            "bystander_change_p_above_threshold": above if np.isfinite(above) else None,
            "control": control.name or control.reason,
            "control_change": control.bystanders if np.isfinite(control.bystanders) else None,
        }
        if self.hypothesis.positive_control:
            numbers["positive_control"] = "not run" if moved is None else "moved" if moved else "did not move"
        return numbers


def _layer(rows: Sequence[SimilarityCorrelationRow], settings: AnalysisSettings) -> int | None:
    """The declared layer, or the only one that was measured."""
    if settings.layer is not None:
        return settings.layer
    layers = {row.layer for row in rows if row.method == settings.method}
    return layers.pop() if len(layers) == 1 else None


def _mean_estimate(estimates: Sequence[Estimate]) -> Estimate:
    """The mean over these very sources. Its error is the mean of theirs, as if they erred together: the questions are
    shared, and how much the trainings share beyond them is not known. Conservative."""
    if len(estimates) == 1:
        return estimates[0]
    value, low, high, error = (
        float(np.mean([getattr(estimate, part) for estimate in estimates]))
        for part in ("value", "low", "high", "standard_error")
    )
    df = float(min(estimate.df for estimate in estimates))
    draft = Estimate(sum(estimate.n for estimate in estimates), value, low, high, error, df, np.nan)
    return replace(draft, p=draft.p_above(0.0))


def _mean_claim(estimates: Sequence[Estimate], threshold: float, strict: bool = True) -> Claim:
    mean = _mean_estimate(estimates)
    return Claim(mean.value, mean.low, mean.high, mean.p, threshold, strict)
