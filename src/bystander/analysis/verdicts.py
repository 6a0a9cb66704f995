"""From the tables to the evidence that a hypothesis is judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from bystander.analysis.declared import declared_of, threshold_of
from bystander.analysis.hypotheses import Claim, Evidence, Hypothesis, Numbers, Threshold, evaluate
from bystander.analysis.pairs import Grid
from bystander.analysis.settings import OUTCOME_KEYS, Settings
from bystander.analysis.stats.intervals import NONE, Estimate
from bystander.analysis.tables.checks import NO_CONTROL, ControlChange, control_of
from bystander.core.records import Verdict

Row = Mapping[str, object]
MISSING = Claim(np.nan, np.nan, np.nan, np.nan, np.nan)


def verdicts(
    rows: Mapping[str, Sequence[Row]], whole: Sequence[Grid], hypotheses: Sequence[Hypothesis], settings: Settings
) -> tuple[Verdict, ...]:
    """Verdicts on every hypothesis whose behavior was trained: over all sources first, then by source where there are
    several ("A", "A/villain", ...)."""
    said: list[Verdict] = []
    for hypothesis in hypotheses:
        trained = [grid for grid in whole if grid.key[0] == hypothesis.behavior]
        if not trained:
            continue
        threshold, declared = threshold_of(whole, hypothesis), declared_of(whole, hypothesis, settings)
        if threshold is None or declared is None:
            wanted = " or ".join("/".join(t.outcome) for t in hypothesis.thresholds)
            said.append(Verdict(hypothesis.name, "inconclusive", f"not measured: {wanted} in arm {hypothesis.arm}"))
            continue
        case = Case(hypothesis, threshold, declared.config, rows, whole, settings)
        tested = [g for g in trained if (g.outcome, *g.key[2:]) == (threshold.outcome, hypothesis.arm, declared.config)]
        sources = sorted({grid.key[1] for grid in tested})
        said.append(case.verdict(hypothesis.name, sources))
        if len(sources) > 1:
            said += [case.verdict(f"{hypothesis.name}/{source}", [source]) for source in sources]
    return tuple(said)


class Case:
    """One hypothesis against the records of one configuration."""

    def __init__(
        self, hypothesis: Hypothesis, threshold: Threshold, config: str, rows: Mapping[str, Sequence[Row]],
        whole: Sequence[Grid], settings: Settings,
    ) -> None:  # fmt: skip
        self.hypothesis, self.threshold, self.config = hypothesis, threshold, config
        self.rows, self.whole, self.settings = rows, whole, settings
        self.layer = _layer(rows["gradient"], settings)

    def verdict(self, name: str, sources: Sequence[str]) -> Verdict:
        """The verdict over these sources."""
        contained = [self._containment(source) for source in sources]
        gradient, tested = self._gradient(sources)
        control, moved = self._control(sources), self._control_moved(sources)
        evidence = Evidence(
            source=_mean_claim([_estimate(row, "source") for row in contained], self.threshold.source, strict=False),
            bystanders=_mean_claim([_estimate(row, "bystander") for row in contained], self.threshold.bystanders),
            gradient=gradient,
            n_personas=min((int(_number(row, "n")) for row in contained), default=0),
            n_seeds=min((int(_number(row, "n_seeds")) for row in contained), default=0),
            n_sources=len(sources),
            numbers=self._numbers(sources, contained, control, moved) | tested,
            broke=control.reason if control.broke else "",
            unmeasured=self._unmeasured(contained),
            control_moved=moved,
        )
        return evaluate(name, self.hypothesis, evidence)

    def _containment(self, source: str) -> Row:
        key = (self.hypothesis.behavior, source, self.hypothesis.arm, self.config)
        found = _find(self.rows["containment"], key, self.threshold.outcome)
        return (
            found
            if found is not None
            else {"status": "empty", "reason": f"{source} was not measured", "n": 0, "n_seeds": 0}
        )

    def _unmeasured(self, contained: Sequence[Row]) -> str:
        bad = [str(row["reason"]) for row in contained if row["status"] != "ok"]
        if bad:
            return "; ".join(dict.fromkeys(bad))
        return (
            ""
            if self.layer is not None
            else "no layer was declared, and several were measured: none may be picked afterwards"
        )

    def _gradient(self, sources: Sequence[str]) -> tuple[Claim, Numbers]:
        """Rho over these sources: the pooled test, or for one source its own p after Holm where it was pre-registered."""
        table = "gradient" if len(sources) == 1 else "pooled"
        wanted = {"method": self.settings.method, "layer": self.layer}
        source = sources[0] if len(sources) == 1 else None
        key = (self.hypothesis.behavior, source, self.hypothesis.arm, self.config)
        row = _find(self.rows[table], key, self.threshold.outcome, wanted)
        if row is None:
            return MISSING, {"rho_test": f"{self.settings.method} at layer {self.layer} was not measured"}
        raw = _number(row, "p" if source else "p_matrix")
        holm = _number(row, "p_holm")
        p = holm if np.isfinite(holm) else raw
        claim = Claim(_number(row, "rho"), _number(row, "low"), _number(row, "high"), p, self.hypothesis.rho)
        kind = "permutation of personas" if source else "personas permuted jointly over sources"
        numbers: Numbers = {
            "rho_test": kind + (", Holm" if np.isfinite(holm) else ", not adjusted"),
            "rho_p_raw": raw if np.isfinite(raw) else None,
            "gradient_record": str(row["record"]),
        }
        for column in ("p_within_category", "rho_within_category", "partial_prompt_length", "partial_prompt_length_p"):
            number = _number(row, column)
            if np.isfinite(number):
                numbers[column] = number
        return claim, numbers

    def _control(self, sources: Sequence[str]) -> ControlChange:
        key = [(self.hypothesis.behavior, source, self.hypothesis.arm, self.config) for source in sources]
        grids = [grid for grid in self.whole if grid.key in key and grid.outcome == self.threshold.outcome]
        changes = [control_of(grid, self.whole, self.settings) for grid in grids]
        broken = [change for change in changes if change.broke]
        return broken[0] if broken else changes[0] if changes else NO_CONTROL

    def _control_moved(self, sources: Sequence[str]) -> bool | None:
        """Whether the source of the positive control moved on this outcome, in the behavior's direction; None: not run."""
        name = self.hypothesis.positive_control
        ran = [
            row
            for row in self.rows["containment"]
            if name and row["behavior"] == name and row["seed"] is None and _outcome(row) == self.threshold.outcome
        ]
        ran = [row for row in ran if row["source"] in sources] or ran
        if not ran:
            return None
        return any(_number(row, "source_p") < self.hypothesis.alpha for row in ran)

    def _numbers(
        self, sources: Sequence[str], contained: Sequence[Row], control: ControlChange, moved: bool | None
    ) -> Numbers:
        ratios = [_number(row, "ratio") for row in contained]
        above = _mean_estimate([_estimate(row, "bystander") for row in contained]).p_above(self.threshold.bystanders)
        numbers: Numbers = {
            "outcome": "/".join(self.threshold.outcome),
            "sources": ", ".join(sources),
            "arm": self.hypothesis.arm,
            "config": self.config,
            "predictor": self.settings.method,
            "layer": self.layer,
            "layer_declared": "yes" if self.settings.layer is not None else "no",
            "containment": float(np.mean(ratios)) if ratios and np.isfinite(ratios).all() else None,
            "bystander_change_p_above_threshold": above if np.isfinite(above) else None,
            "control": control.name or control.reason,
            "control_change": control.bystanders if np.isfinite(control.bystanders) else None,
        }
        if self.hypothesis.positive_control:
            numbers["positive_control"] = "not run" if moved is None else "moved" if moved else "did not move"
        return numbers


def _layer(gradient: Sequence[Row], settings: Settings) -> int | None:
    """The declared layer, or the only one that was measured."""
    if settings.layer is not None:
        return settings.layer
    layers = {cast("int", row["layer"]) for row in gradient if row["method"] == settings.method}
    return layers.pop() if len(layers) == 1 else None


def _outcome(row: Row) -> tuple[object, ...]:
    return tuple(row[name] for name in OUTCOME_KEYS)


def _find(
    rows: Sequence[Row], key: Sequence[str | None], outcome: Sequence[str], more: Mapping[str, object] | None = None
) -> Row | None:
    """The pooled-over-seeds row of that key (source None: any) and outcome."""
    behavior, source, arm, config = key
    wanted = {"behavior": behavior, "arm": arm, "config": config, **(more or {})}
    for row in rows:
        same = row.get("seed") is None and (source is None or row["source"] == source)
        if same and _outcome(row) == tuple(outcome) and all(row[name] == value for name, value in wanted.items()):
            return row
    return None


def _number(row: Row, name: str) -> float:
    value = row.get(name)
    return float(cast("float", value)) if value is not None else np.nan


def _estimate(row: Row, who: str) -> Estimate:
    found = row.get(f"{who}_estimate")
    return found if isinstance(found, Estimate) else NONE


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
