"""What a fit of leakage is made of: runs, folders of published tables, or the fits that ship."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import polars as pl

from bystander.analysis.leakage_fit import LeakageFit, fit_leakage
from bystander.analysis.leakage_sources import SourceContexts, StudyTables, metric_of
from bystander.core.errors import StoreError
from bystander.core.files import read_json
from bystander.core.yamlfile import read_yaml
from bystander.results.results import Results

SHIPPED = Path(str(resources.files("bystander") / "analysis" / "leakage_fits.json"))
TABLES = ("leakage", "similarities", "personas")


def study_tables(folder: Path) -> StudyTables:
    """The tables of a run directory, or of a folder of published ones (as `bystander export` writes them, with the
    study). Raises StoreError for a folder that is neither."""
    if (folder / "provenance.json").is_file():
        return Results.open(folder).tables_for_fit()
    files = {name: folder / f"{name}.parquet" for name in TABLES}
    missing = [path.name for path in (*files.values(), folder / "study.yaml") if not path.is_file()]
    if missing:
        raise StoreError(
            f"--fit {folder} is no run directory and has no {', '.join(missing)}: name a run, or a folder with the tables "
            "of one and its study.yaml"
        )
    study: Any = read_yaml((folder / "study.yaml").read_text(encoding="utf-8")).data
    try:
        tables = {name: pl.read_parquet(path.read_bytes()) for name, path in files.items()}
        return StudyTables(str(study["name"]), str(study["model"]["name"]), study["geometry"].get("layer"), **tables)
    except (KeyError, TypeError, pl.exceptions.PolarsError) as error:
        raise StoreError(f"--fit {folder} cannot be read ({error}); export the run again") from error


def fitted(folders: Sequence[Path], behavior: str, outcome: str) -> LeakageFit | None:
    """A fit of that behavior and outcome on these folders; None where none of them has it."""
    sources: list[SourceContexts] = []
    for folder in folders:
        sources += study_tables(folder).sources(behavior, outcome)
    return fit_leakage(sources) if sources else None


def shipped_fits() -> list[LeakageFit]:
    """The fits that ship, in the order of their file."""
    return [LeakageFit.from_dict(one) for one in read_json(SHIPPED)["fits"]] if SHIPPED.is_file() else []


def shipped(behavior: str, outcome: str) -> LeakageFit | None:
    """The shipped fit of that behavior: of that outcome, else of another metric on the same scale."""
    metric = metric_of(outcome)
    same = [one for one in shipped_fits() if one.behavior == behavior and metric_of(one.outcome).unit == metric.unit]
    return next((one for one in same if one.outcome == outcome), same[0] if same else None)
