"""What leakage is correlated with and what is held constant: similarities by method and layer, facts about personas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from bystander.analysis.stats.means import Floats
from bystander.core.errors import DataError

FEWEST = 5  # personas that a source is ranked among; the smallest p that they allow stands beside it
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


class SimilarityTable:
    """Similarities of every predictor, looked up by source. Where a predictor has those of all personas to all, a source
    can be ranked among them."""

    def __init__(self, predictors: Sequence[tuple[str, int]], personas: Sequence[str], values: Floats) -> None:
        self.predictors = tuple(predictors)  # method, layer
        self.personas = tuple(personas)
        self.values = values  # [K, sources, personas], both in the order of `personas`; NaN where unknown
        self._place = {name: index for index, name in enumerate(self.personas)}

    @classmethod
    def read(cls, similarities: pl.DataFrame) -> SimilarityTable:
        """From a table of `Similarity` columns. Raises DataError where columns lack or a pair is there twice."""
        needed = ["source", "persona", "method", "layer", "value"]
        missing = [name for name in needed if name not in similarities.columns]
        if missing:
            raise DataError(
                f"the similarities table lacks the columns {', '.join(missing)}; it needs {', '.join(needed)}"
            )
        table = similarities.select(needed)
        names = sorted({name for column in needed[:2] for name in table[column].cast(pl.String).unique().to_list()})
        found = [
            (str(m), int(k)) for m, k in table.select("method", "layer").unique().sort("method", "layer").iter_rows()
        ]
        values = np.full((len(found), len(names), len(names)), np.nan)
        kind, seen = pl.Enum(names), np.zeros(values.shape, dtype=bool)
        place = {predictor: index for index, predictor in enumerate(found)}
        for (method, layer), part in table.partition_by("method", "layer", as_dict=True).items():
            source, persona = (part[name].cast(pl.String).cast(kind).to_physical().to_numpy() for name in needed[:2])
            at = np.full(part.height, place[str(method), int(layer)]), source, persona
            seen[at] = True
            values[at] = part["value"].cast(pl.Float64).fill_null(np.nan).to_numpy()
        if int(seen.sum()) < table.height:
            twice = table.filter(pl.struct(needed[:4]).is_duplicated())
            raise DataError(f"{twice.height} similarities are there twice; the first: {twice.row(0)}")
        return cls(found, names, np.where(np.isfinite(values), values, np.nan))

    def of(self, source: str, personas: Sequence[str]) -> Predictors:
        """All predictors of one source for these personas."""
        if source not in self._place:
            return Predictors((), np.zeros((0, len(personas))))
        own = self.values[:, self._place[source]]
        known = np.flatnonzero(np.isfinite(own).any(axis=1))
        padded = np.hstack([own[known], np.full((known.size, 1), np.nan)])
        at = [self._place.get(persona, -1) for persona in personas]
        return Predictors(tuple(self.predictors[i] for i in known), padded[:, at])

    def to(self, source: str, method: str, layer: int) -> dict[str, float]:
        """Similarity of every persona to that source by one predictor; {} where it was not measured."""
        if source not in self._place or (method, layer) not in self.predictors:
            return {}
        row = self.values[self.predictors.index((method, layer)), self._place[source]]
        return {name: float(value) for name, value in zip(self.personas, row, strict=True) if np.isfinite(value)}

    def among_all(self, source: str, personas: Sequence[str]) -> tuple[list[tuple[str, int]], Floats, list[str]]:
        """What a source is ranked among: predictors that know the similarity of all personas to all
        -> (predictors, similarity [K, all, all], all personas); nothing for fewer than `FEWEST` personas."""
        if source not in self._place or any(name not in self._place for name in personas):
            return [], np.zeros((0, 0, 0)), []
        at = [self._place[name] for name in personas]
        whole = np.array(np.isfinite(self.values[:, :, at]).all(axis=2), dtype=bool)  # [K, sources]
        # Of some predictors, as of Jensen-Shannon, the similarities to the sources alone are known.
        usable = np.flatnonzero(whole[:, [*at, self._place[source]]].all(axis=1))
        everyone = np.flatnonzero(whole[usable].all(axis=0)).tolist() if usable.size else []
        if len(everyone) < FEWEST:
            return [], np.zeros((0, 0, 0)), []
        square = self.values[usable][:, everyone][:, :, everyone]
        return [self.predictors[i] for i in usable], square, [self.personas[index] for index in everyone]
