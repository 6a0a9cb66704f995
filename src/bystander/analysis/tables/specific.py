"""Is it the similarity to this source: its rank among all personas as pseudo-sources (`stats.specificity`), of rho and of
the area under the curve for who is captured."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from bystander.analysis.predictors import Covariates, SimilarityTable
from bystander.analysis.stats.capture import areas
from bystander.analysis.stats.means import Floats
from bystander.analysis.stats.specificity import PseudoSources, pseudo_sources
from bystander.analysis.tables.captured import Group
from bystander.analysis.tables.sample import Sample

Statistics = dict[str, Floats]  # column -> a value for each predictor
Names = tuple[str, ...]


@lru_cache(maxsize=4)
def pseudo_by_method(
    similarities: SimilarityTable, source: str, names: Names, lengths: tuple[tuple[str, float], ...] | None
) -> dict[str, tuple[list[int], PseudoSources, list[int]]]:
    """Method -> (its layers, the source among all personas, places of `names` among all); `lengths` held constant."""
    if lengths is not None:
        of = dict(lengths)
        everyone = similarities.among_all(source, names)[2]
        length = np.array([of.get(name, np.nan) for name in everyone])
        if not np.isfinite(length).all():
            return {}
        plain = pseudo_by_method(similarities, source, names, None)
        return {method: (layers, ranked.given(length), at) for method, (layers, ranked, at) in plain.items()}
    predictors, square, everyone = similarities.among_all(source, names)
    place = {name: index for index, name in enumerate(everyone)}
    bystanders = np.isin(everyone, names)
    found: dict[str, tuple[list[int], PseudoSources, list[int]]] = {}
    for method in dict.fromkeys(name for name, _ in predictors):
        at = [index for index, (name, _) in enumerate(predictors) if name == method]
        ranked = pseudo_sources(square[at], place[source], bystanders)
        found[method] = [predictors[index][1] for index in at], ranked, [place[name] for name in names]
    return found


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

    for method, (layers, ranked, at) in pseudo_by_method(similarities, source, names, None).items():
        outcome = np.full(ranked.kept.shape[0], np.nan)
        outcome[at] = sample.leakage
        found = ranked.rank(outcome)
        put("p_specific", method, layers, found.p)
        put("p_specific_attainable", method, layers, np.where(np.isfinite(found.p), found.attainable, np.nan))
        put("p_layers", method, layers, found.p_adjusted)
        if sample.logits is not None:
            outcome[at] = sample.logits
            put("p_log_odds", method, layers, ranked.rank(outcome).p)
        flags = captured_of(people, names)
        if flags is not None:
            captured = np.zeros(outcome.size, dtype=bool)
            captured[at] = flags
            put("auc_p_specific", method, layers, ranked.rank_area(captured).p)
    lengths = tuple(sorted(known.prompt_tokens.items()))
    for method, (layers, ranked, at) in pseudo_by_method(similarities, source, names, lengths).items():
        outcome = np.full(ranked.kept.shape[0], np.nan)
        outcome[at] = sample.leakage
        put("p_specific_prompt_length", method, layers, ranked.rank(outcome).p)
    return columns


def captured_of(people: Group | None, names: Names) -> np.ndarray[tuple[int], np.dtype[np.bool_]] | None:
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
