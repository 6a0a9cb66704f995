"""The score of a forecast of leakage, once its study was run."""

from __future__ import annotations

from bystander.analysis.leakage_forecast import Forecast, ForecastScore, score_source
from bystander.analysis.leakage_sources import StudyTables
from bystander.core.errors import StoreError
from bystander.core.files import read_json
from bystander.core.hashing import stable_hash
from bystander.study.plan.preregistration import registered
from bystander.study.store.run_dir import RunDir


def saved_forecast(run: RunDir) -> Forecast | None:
    """The forecast of a run directory; None where there is none. Raises StoreError where it was changed since."""
    if not run.forecast_file.is_file():
        return None
    saved = read_json(run.forecast_file)
    if saved.get("hash") != stable_hash(saved.get("forecast")):
        raise StoreError(f"{run.forecast_file} was changed since it was made; make it anew into a new run directory")
    return Forecast.from_dict(saved["forecast"])


def scored_forecast(run: RunDir, tables: StudyTables) -> list[ForecastScore]:
    """How the forecast of a run came out, source by source; [] without one. Raises StoreError for a forecast that was not
    registered before the first training."""
    found = saved_forecast(run)
    if found is None:
        return []
    fixed = registered(run)
    if fixed is None or fixed.get("forecast") != read_json(run.forecast_file)["hash"]:
        raise StoreError(f"{run.forecast_file} is not the forecast that the run registered: it cannot be scored")
    scores: list[ForecastScore] = []
    for fit in found.fits:
        for group in ("bystanders", "beside"):
            for seen in tables.sources(fit.behavior, fit.outcome, beside=group == "beside"):
                rows = [row for row in found.rows if row.of(fit.behavior, seen.source, group)]
                scores.append(score_source(rows, seen, group, found.level))
    return scores
