"""The forecast of a study's leakage: made before training, frozen in the run directory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from bystander.analysis.leakage_fit import LEVEL
from bystander.analysis.leakage_forecast import (
    Asked,
    ContextForecast,
    FittedOn,
    Forecast,
    fitted_on,
    forecast_source,
    prior_fit,
)
from bystander.analysis.leakage_sources import (
    LENGTH,
    PRIOR,
    SourceContexts,
    prior_feature,
    similarity_features,
)
from bystander.core.files import write_json
from bystander.core.hashing import stable_hash
from bystander.core.metrics import outcomes_of
from bystander.core.progress import Bar
from bystander.engine.untrained import Untrained, measured_untrained
from bystander.results.fit_sources import fitted, shipped
from bystander.study.config.study import ResolvedStudy
from bystander.study.plan.preregistration import hypotheses_of
from bystander.study.store.run_dir import RunDir

FEW = 4  # bystanders under which nothing is standardized over them


def predict_leakage(study: ResolvedStudy, run: RunDir, bar: Bar, fit_on: Sequence[Path] = ()) -> Forecast:
    """Measure the untrained model into the run directory, forecast, and freeze the forecast there: `run` registers it.
    `fit_on`: runs or folders of published tables; none: the fits that ship. Raises StoreError once the run is
    registered, and whatever `run` raises before its first cell."""
    with measured_untrained(study, run, bar) as untrained:
        found = forecast_of_study(untrained, fit_on)
        content = found.to_dict()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(run.forecast_file, {"hash": stable_hash(content), "made": now, "forecast": content})
    return found


def forecast_of_study(untrained: Untrained, fit_on: Sequence[Path]) -> Forecast:
    """The forecast of every behavior and source of a study, in its first arm."""
    plan = untrained.plan
    spec, fits, rows, notes = plan.study.spec, list[FittedOn](), list[ContextForecast](), list[str]()
    for behavior in spec.behaviors:
        outcome = outcome_of(plan.study, behavior, untrained.measurements)
        if outcome is None:
            notes.append(
                f"{behavior}: none of its outcomes can be measured before training without a judge; no forecast"
            )
            continue
        asked = [asked_of(untrained, behavior, outcome, source) for source in spec.sources]
        if any(one.bystander.sum() < FEW for one in asked):
            notes.append(f"{behavior}: fewer than {FEW} held-out personas; no forecast")
            continue
        model = fitted(fit_on, behavior, outcome) if fit_on else shipped(behavior, outcome)
        model = model or prior_fit(behavior, asked[0].contexts)
        fits.append(fitted_on(model, asked[0].contexts, spec.geometry.method))
        for one in asked:
            rows += forecast_source(model, one)
    return Forecast(LEVEL, tuple(fits), tuple(rows), tuple(notes))


def outcome_of(study: ResolvedStudy, behavior: str, measurements: pl.DataFrame) -> str | None:
    """The outcome that is forecast: the first of the behavior's hypothesis, else of its own, that was measured."""
    named = [t.outcome for h in hypotheses_of(study) if h.behavior == behavior for t in h.thresholds]
    known = set(measurements.select("probe", "dataset", "metric").unique().iter_rows())
    return next(("/".join(one) for one in (*named, *outcomes_of(behavior)) if tuple(one) in known), None)


def asked_of(untrained: Untrained, behavior: str, outcome: str, source: str) -> Asked:
    """What is known of every context before a training of that behavior and source."""
    plan, (probe, dataset, name) = untrained.plan, outcome.split("/")
    spec = plan.study.spec
    means = {
        (kind, persona): value
        for kind, persona, value in untrained.measurements.filter(
            pl.col("probe") == probe, pl.col("dataset") == dataset, pl.col("metric") == name, pl.col("status") == "ok"
        )
        .group_by("context", "persona")
        .agg(pl.col("value").mean())
        .iter_rows()
        if value is not None
    }
    roles = untrained.roles(plan.parts.design(behavior, source, spec.arms[0]))
    contexts = [c for c in untrained.contexts if (c.kind, c.name) in means]
    labels = tuple(context.label for context in contexts)
    reference = np.array([means[context.kind, context.name] for context in contexts])
    table = untrained.similarities.filter(pl.col("persona").is_in(list(labels)))
    features = similarity_features(table, source, spec.geometry.layer, labels)
    features[LENGTH] = np.array([untrained.tokens[label] for label in labels], dtype=float)
    features[PRIOR] = prior_feature(reference, outcome)
    of = SourceContexts(spec.name, spec.model.name, behavior, outcome, source, labels, features, reference)
    kinds = tuple(context.kind for context in contexts)
    return Asked(of, kinds, tuple(roles[label] for label in labels), spec.geometry.method)
