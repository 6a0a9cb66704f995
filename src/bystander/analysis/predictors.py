"""What leakage is correlated with and what is held constant: similarities by method and layer, facts about personas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from bystander.analysis.stats.means import Floats
from bystander.core.errors import DataError

CENTROID = "centroid"  # a method whose name holds this word is the distance to the centroid of all personas


@dataclass(frozen=True)
class Covariates:
    """Category and prompt length of every persona; either may be unknown."""

    category: dict[str, str]
    prompt_tokens: dict[str, float]


@dataclass(frozen=True)
class Predictors:
    """Similarity of each persona to one source: `values` [K, personas], NaN where unknown; `names` (method, layer)."""

    names: tuple[tuple[str, int], ...]
    values: Floats

    def of(self, method: str, layer: int) -> Floats | None:
        """The row of that method and layer, or None."""
        return self.values[self.names.index((method, layer))] if (method, layer) in self.names else None

    def centroid(self, layer: int) -> Floats | None:
        """Distance to the centroid at that layer, or without a layer."""
        for (method, at), row in zip(self.names, self.values, strict=True):
            if CENTROID in method and at in (layer, -1):
                return row
        return None


def covariates(personas: pl.DataFrame) -> Covariates:
    """From a table of `PersonaFacts` columns; extra columns are ignored."""
    if "persona" not in personas.columns:
        raise DataError(f"the personas table has no column `persona`; it has {', '.join(personas.columns)}")
    twice = personas.filter(pl.col("persona").is_duplicated())["persona"].unique().sort().to_list()
    if twice:
        raise DataError(f"the personas table names these twice: {', '.join(twice)}")
    names = personas["persona"].to_list()
    category = personas["category"].fill_null("").to_list() if "category" in personas.columns else [""] * len(names)
    tokens = personas["prompt_tokens"].to_list() if "prompt_tokens" in personas.columns else []
    lengths = {name: float(n) for name, n in zip(names, tokens, strict=False) if n is not None}
    return Covariates(dict(zip(names, category, strict=True)), lengths)


@dataclass(frozen=True)
class SimilarityTable:
    """Similarities of all sources, looked up by source."""

    by_source: dict[str, dict[tuple[str, int], dict[str, float]]]

    @classmethod
    def read(cls, similarities: pl.DataFrame) -> SimilarityTable:
        """From a table of `Similarity` columns. Raises DataError where columns lack or a pair is there twice."""
        needed = ["source", "persona", "method", "layer", "value"]
        missing = [name for name in needed if name not in similarities.columns]
        if missing:
            raise DataError(
                f"the similarities table lacks the columns {', '.join(missing)}; it needs {', '.join(needed)}"
            )
        twice = similarities.filter(pl.struct(needed[:4]).is_duplicated())
        if twice.height:
            raise DataError(f"{twice.height} similarities are there twice; the first: {twice.select(needed).row(0)}")
        by_source: dict[str, dict[tuple[str, int], dict[str, float]]] = {}
        for source, persona, method, layer, value in similarities.select(needed).sort(needed[:4]).iter_rows():
            if value is not None and np.isfinite(value):
                by_source.setdefault(source, {}).setdefault((method, layer), {})[persona] = float(value)
        return cls(by_source)

    def of(self, source: str, personas: Sequence[str]) -> Predictors:
        """All predictors of one source for these personas."""
        known = self.by_source.get(source, {})
        values = [[row.get(persona, np.nan) for persona in personas] for row in known.values()]
        return Predictors(tuple(known), np.array(values).reshape(len(known), len(personas)))
