"""From the tables to the evidence that a hypothesis is judged by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bystander.analysis.declared import Declared, declared_of, threshold_of
from bystander.analysis.grid import BENIGN_ARM, PairedGrid
from bystander.analysis.hypotheses import Claim, Evidence, Hypothesis, Threshold, VerdictNumbers, evaluate
from bystander.analysis.keys import TrainingKey
from bystander.analysis.schemas import TableRows
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.equivalence import equivalence
from bystander.analysis.stats.intervals import Estimate
from bystander.analysis.tables.control import NO_CONTROL, ControlChange, control_of, over_trainings
from bystander.analysis.tables.equivalence import mean_estimate
from bystander.analysis.tables.leakage_ratio import NOT_DEFINED, LeakageRatioRow
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
        case = Case(hypothesis, threshold, declared, rows, whole, settings)
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
        self, hypothesis: Hypothesis, threshold: Threshold, declared: Declared, rows: TableRows,
        whole: Sequence[PairedGrid], settings: AnalysisSettings,
    ) -> None:  # fmt: skip
        self.hypothesis, self.threshold, self.config = hypothesis, threshold, declared.config
        self.compared = declared.compared
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
        row = self._correlation_row(sources)
        correlation, tested = self._correlation(row)
        control, moved = self._control(sources), self._control_moved(sources)
        reliability = float(np.mean([one.reliability for one in self._singles(sources)] or [np.nan]))
        tested |= {"reliability": reliability} if np.isfinite(reliability) else {}
        evidence = Evidence(
            source=self._mean_claim([row.source for row in ratios], self.threshold.source, strict=False),
            bystanders=self._mean_claim([row.bystanders for row in ratios], self.threshold.bystanders),
            correlation=correlation,
            n_personas=min((row.n for row in ratios), default=0),
            n_seeds=min((row.n_seeds for row in ratios), default=0),
            n_sources=len(sources),
            numbers=self._numbers(sources, ratios, control, moved) | tested,
            broke=control.reason if control.broke else "",
            unmeasured=self._unmeasured(ratios),
            control_moved=moved,
            benign=all(row.against == BENIGN_ARM for row in ratios),
            flagged=any(one.flagged for one in self._singles(sources)),
            reliability=reliability,
            attainable=np.nan if row is None or not np.isfinite(row.p_specific) else row.p_specific_attainable,
            compared=self.compared,
        )
        return evaluate(name, self.hypothesis, evidence)

    def _unmeasured(self, ratios: Sequence[LeakageRatioRow]) -> str:
        bad = [row.reason for row in ratios if row.status != "ok"]
        if not bad and self.layer is None:
            return "no layer was declared, and several were measured: none may be picked afterwards"
        outcome = "/".join(self.threshold.outcome)
        if not bad and outcome in self.settings.blind:
            return f"the untrained model is at chance on {outcome}: it has nothing to lose, so that neither leakage nor its absence can be seen"
        return "; ".join(dict.fromkeys(bad))

    def _correlation(self, row: SimilarityCorrelationRow | PooledRow | None) -> tuple[Claim, VerdictNumbers]:
        """Rho over these sources with the p of its specificity, after Holm where it was pre-registered."""
        if row is None:
            return MISSING, {"rho_test": f"{self.settings.method} at layer {self.layer} was not measured"}
        raw = row.p_specific
        adjusted = np.isfinite(row.p_holm) and np.isfinite(raw)
        claim = Claim(row.rho, row.low, row.high, self._p(row.p_holm if adjusted else raw), self.hypothesis.rho)
        kind = "labels of the sources permuted" if isinstance(row, PooledRow) else "rank among all personas as sources"
        numbers: VerdictNumbers = {
            "rho_test": kind + (", Holm" if adjusted else ", not adjusted"),
            "rho_p_raw": raw if np.isfinite(raw) else None,
            "rho_p_attainable": row.p_specific_attainable if np.isfinite(row.p_specific_attainable) else None,
            "rho_record": row.record,
        }
        known = {"p_within_category": row.p_within_category, "rho_within_category": row.rho_within_category}
        known |= {
            "rho_p_permutation": row.p_matrix if isinstance(row, PooledRow) else row.p,
            "rho_p_layers": row.p_layers,
        }
        if isinstance(row, SimilarityCorrelationRow):
            known |= {"partial_prompt_length": row.partial_prompt_length, "rho_baseline": row.rho_baseline}
            known |= {"partial_prompt_length_p_specific": row.p_specific_prompt_length}
        return claim, numbers | {name: number for name, number in known.items() if np.isfinite(number)}

    def _correlation_row(self, sources: Sequence[str]) -> SimilarityCorrelationRow | PooledRow | None:
        predictor = (self.settings.method, self.layer, self.threshold.outcome)
        if len(sources) == 1:
            own = (row for row in self.rows.similarity_correlation if row.seed is None and self._about(row.training))
            chosen = (row for row in own if row.training.source == sources[0])
        else:
            chosen = (row for row in self.rows.pooled if self._about(row))
        return next((row for row in chosen if (row.method, row.layer, row.outcome) == predictor), None)

    def _p(self, p: float) -> float:
        """Corrected for the configurations among which this one was picked for its effect."""
        return float(min(p * self.compared, 1.0)) if np.isfinite(p) else p

    def _mean_claim(self, estimates: Sequence[Estimate], threshold: float, strict: bool = True) -> Claim:
        mean = mean_estimate(estimates)
        return Claim(mean.value, mean.low, mean.high, self._p(mean.p), threshold, strict)

    def _singles(self, sources: Sequence[str]) -> list[SimilarityCorrelationRow]:
        """Each source's own row of the declared predictor."""
        found = [self._correlation_row([source]) for source in sources]
        return [row for row in found if isinstance(row, SimilarityCorrelationRow)]

    def _captured(self, sources: Sequence[str]) -> VerdictNumbers:
        """Captured bystanders over these sources."""
        rows = [
            row
            for row in self.rows.captured
            if row.outcome == self.threshold.outcome and self._about(row.training) and row.training.source in sources
        ]
        known = [row for row in rows if row.captured is not None]
        numbers: VerdictNumbers = {}
        if known:
            bare = [name for row in known for name in row.bare.split(", ") if name]
            numbers = {
                "captured": sum(row.captured or 0 for row in known), "captured_of": sum(row.n for row in known),
                "captured_bare_contexts": ", ".join(dict.fromkeys(bare)) or "none",
            }  # fmt: skip
        p = [row.p_largest for row in rows if np.isfinite(row.p_largest)]
        return numbers | ({"largest_bystander_p": min(1.0, min(p) * len(p))} if p else {})

    def _control(self, sources: Sequence[str]) -> ControlChange:
        grids = [
            grid
            for grid in self.whole
            if self._about(grid.training) and grid.training.source in sources and grid.outcome == self.threshold.outcome
        ]
        changes = over_trainings([control_of(grid, self.whole, self.settings) for grid in grids])
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
        mean = mean_estimate([row.bystanders for row in rows])
        above, excluded = mean.p_above(self.threshold.bystanders), equivalence(mean, self.threshold.bystanders)
        numbers: VerdictNumbers = {
            "behavior": self.hypothesis.behavior,
            "outcome": "/".join(self.threshold.outcome),
            "sources": ", ".join(sources),
            "arm": self.hypothesis.arm,
            "config": self.config,
            "predictor": self.settings.method,
            "layer": self.layer,
            "layer_declared": "yes" if self.settings.layer is not None else "no",
            "leakage_ratio": _ratio(rows),
            "measured_against": " and ".join(sorted({row.against for row in rows})),
            "configurations_compared": self.compared,
            "bystander_leakage_p_above_threshold": above if np.isfinite(above) else None,
            "no_leakage": excluded.sentence(),
            "smallest_excluded": excluded.smallest if np.isfinite(excluded.smallest) else None,
            "control": control.name or control.reason,
            "control_state": control.state or "not measured",
            "control_change": control.bystanders if np.isfinite(control.bystanders) else None,
        }
        if self.hypothesis.positive_control:
            numbers["positive_control"] = "not run" if moved is None else "moved" if moved else "did not move"
        return numbers | self._captured(sources)


def _ratio(rows: Sequence[LeakageRatioRow]) -> float | str | None:
    """The mean of the sources' ratios; in words where one of them did not move, since its ratio is noise over noise."""
    if any(row.unmoved for row in rows):
        return NOT_DEFINED if len(rows) == 1 else "not defined: a source did not move"
    ratios = [row.ratio for row in rows]
    return float(np.mean(ratios)) if ratios and np.isfinite(ratios).all() else None


def _layer(rows: Sequence[SimilarityCorrelationRow], settings: AnalysisSettings) -> int | None:
    """The declared layer, or the only one that was measured."""
    if settings.layer is not None:
        return settings.layer
    layers = {row.layer for row in rows if row.method == settings.method}
    return layers.pop() if len(layers) == 1 else None
