"""Is it the similarity to this source: its rank among all personas as pseudo-sources (`stats.specificity`), of rho and of
the area under the curve for who is captured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.predictors import Covariates, SimilarityTable
from bystander.analysis.stats.capture import areas
from bystander.analysis.stats.means import Floats
from bystander.analysis.stats.specificity import PseudoSources, pseudo_sources
from bystander.analysis.tables.captured import Group
from bystander.analysis.tables.sample import Sample

Statistics = dict[str, Floats]  # column -> a value for each predictor
Names = tuple[str, ...]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class AmongAll:
    """One source among all personas, by method: its layers, and what it is ranked with. `at`: places of its bystanders
    among `everyone`. No method: not all personas' similarities are known."""

    everyone: Names
    at: tuple[int, ...]
    methods: dict[str, tuple[list[int], PseudoSources]]

    def spread(self, values: Floats | Flags) -> Floats:
        """Values of the bystanders at their places -> [everyone], NaN for the others."""
        whole = np.full(len(self.everyone), np.nan)
        whole[list(self.at)] = values
        return whole


@lru_cache(maxsize=2)
def among_all(similarities: SimilarityTable, source: str, names: Names) -> AmongAll:
    """The source among all personas, ranked over the bystanders `names`."""
    predictors, square, everyone = similarities.among_all(source, names)
    if not predictors:
        return AmongAll((), (), {})
    place = {name: index for index, name in enumerate(everyone)}
    bystanders = np.isin(everyone, names)
    methods: dict[str, tuple[list[int], PseudoSources]] = {}
    for method in dict.fromkeys(name for name, _ in predictors):
        rows = [index for index, (name, _) in enumerate(predictors) if name == method]
        methods[method] = (
            [predictors[index][1] for index in rows],
            pseudo_sources(square[rows], place[source], bystanders),
        )
    return AmongAll(tuple(everyone), tuple(place[name] for name in names), methods)


@lru_cache(maxsize=2)
def given_length(
    similarities: SimilarityTable, source: str, names: Names, prompt_tokens: tuple[tuple[str, float], ...]
) -> dict[str, tuple[list[int], PseudoSources]]:
    """The methods of `among_all` with prompt length held constant; none where a persona's length is not known."""
    whole, known = among_all(similarities, source, names), dict(prompt_tokens)
    length = np.array([known.get(name, np.nan) for name in whole.everyone])
    if not np.isfinite(length).all():
        return {}
    return {method: (layers, ranked.given(length)) for method, (layers, ranked) in whole.methods.items()}


def specific_columns(
    source: str, names: Names, predictors: Sequence[tuple[str, int]], sample: Sample, similarities: SimilarityTable,
    known: Covariates, people: Group | None,
) -> Statistics:  # fmt: skip
    """Columns of `p_specific` and its kin for these predictors, NaN where not all personas' similarities are known."""
    columns = {name: np.full(len(predictors), np.nan) for name in (
        "p_specific", "p_specific_attainable", "p_layers", "p_specific_prompt_length", "p_log_odds", "auc_p_specific",
    )}  # fmt: skip
    row = {predictor: index for index, predictor in enumerate(predictors)}

    def put(column: str, method: str, layers: Sequence[int], values: Floats | float) -> None:
        for layer, value in zip(layers, np.broadcast_to(values, len(layers)), strict=True):
            if (method, layer) in row:
                columns[column][row[method, layer]] = value

    whole = among_all(similarities, source, names)
    if not whole.methods:
        return columns
    leakage, flags = whole.spread(sample.leakage), captured_of(people, names)
    for method, (layers, ranked) in whole.methods.items():
        found = ranked.rank(leakage)
        put("p_specific", method, layers, found.p)
        put("p_specific_attainable", method, layers, np.where(np.isfinite(found.p), found.attainable, np.nan))
        put("p_layers", method, layers, found.p_adjusted)
        if sample.logits is not None:
            put("p_log_odds", method, layers, ranked.rank(whole.spread(sample.logits)).p)
        if flags is not None:
            put("auc_p_specific", method, layers, ranked.rank_area(whole.spread(flags) == 1).p)
    lengths = tuple(sorted(known.prompt_tokens.items()))
    for method, (layers, ranked) in given_length(similarities, source, names, lengths).items():
        put("p_specific_prompt_length", method, layers, ranked.rank(leakage).p)
    return columns


def captured_of(people: Group | None, names: Names) -> Flags | None:
    """Who of `names` is captured; None where nobody can be."""
    if people is None or people.captures is None or people.captures.reason:
        return None
    flags = dict(zip(people.names, people.captures.captured.tolist(), strict=True))
    return np.array([flags.get(name, False) for name in names])


def area_columns(predictors: Floats, names: Names, people: Group | None) -> Statistics:
    """Area under the curve of each predictor [K, personas] for who is captured, with its interval."""
    flags = captured_of(people, names)
    if flags is None:
        return {}
    return dict(zip(("auc", "auc_low", "auc_high"), areas(predictors, flags), strict=True))
