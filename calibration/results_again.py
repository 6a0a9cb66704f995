"""The shipped studies analyzed again: `python -m calibration.results_again [STUDY ...]`. What `docs/results/README.md` quotes.

Similarities of all personas to all, which the studies did not keep, come from the principal components of `calibration/data`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

from bystander.analysis import Analysis, AnalysisSettings, analyze
from calibration import real

LAYERS = {"marker": 25, "capability": 20, "misalignment": 25}
RESULTS = Path(__file__).parents[1] / "docs" / "results"
SHOWN = {
    "similarity_correlation": (
        "rho", "low", "high", "p", "p_specific", "p_holm", "rho_baseline", "flagged", "partial_baseline", "slope_baseline_p",
        "partial_prompt_length", "p_specific_prompt_length",
    ),
    "pooled": ("rho", "low", "high", "p_matrix", "p_specific", "p_holm"),
    "leakage_ratio": (
        "source_leakage", "bystander_leakage", "bystander_low", "bystander_high", "ratio", "ratio_low", "ratio_high",
        "saturated",
    ),
    "captured": ("n", "captured", "low", "high", "names", "confirmed", "dip_p", "reason"),
    "equivalence": ("sentence",),
    "phase": ("control", "control_change", "control_state"),
    "verdicts": ("outcome", "reason"),
}  # fmt: skip


def similarities(study: str) -> pl.DataFrame:
    """The declared predictor: to the sources as measured, of the other personas from their principal components."""
    layer = LAYERS[study]
    own = pl.read_parquet(RESULTS / study / "similarities.parquet").filter(
        (pl.col("method") == "cosine") & (pl.col("layer") == layer)
    )
    names, values = real.names(), real.cosines(layer)
    others = [
        {"source": source, "persona": name, "method": "cosine", "layer": layer, "value": float(values[i, j])}
        for i, source in enumerate(names)
        if source not in real.SOURCES
        for j, name in enumerate(names)
    ]
    columns = ("source", "persona", "method", "layer", "value")
    return pl.concat([own.select(columns), pl.DataFrame(others).select(columns)])


def analyzed(study: str) -> Analysis:
    """The study's own records under today's statistics."""
    tables = (pl.read_parquet(RESULTS / study / f"{name}.parquet") for name in ("measurements", "personas"))
    measured, personas = tables
    settings = AnalysisSettings(layer=LAYERS[study], bystander_roles=("held-out", "mixed"))
    return analyze(measured, similarities(study), personas, settings=settings)


def main() -> None:
    """Print the rows that the page of results quotes."""
    for study in sys.argv[1:] or LAYERS:
        tables = analyzed(study).tables()
        for name, columns in SHOWN.items():
            table = tables[name]
            if "seed" in table.columns:
                table = table.filter(pl.col("seed").is_null())
            for row in table.iter_rows(named=True):
                numbers = (row[column] for column in columns)
                print(row["record"], *(f"{n:.3f}" if isinstance(n, float) else n for n in numbers), sep="  ")


if __name__ == "__main__":
    main()
