"""The null of pseudo-sources: leakage is a smooth function of real centroids along an axis that is not the source's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.stats import rankdata

from bystander.analysis.stats.ranks import partial_spearman, permutation_p
from bystander.analysis.stats.specificity import source_labels, specificity, specificity_of_area
from calibration import real
from calibration.rows import CalibrationLine, level

LAYER = 20
SCENARIO = "leakage smooth along a random axis of real centroids"


def pseudo_sources(studies: int, seed: int = 24) -> Iterator[CalibrationLine]:
    """A source drawn from 111; leakage that has nothing to do with it. And five sources: labels permuted."""
    rng = np.random.default_rng(seed)
    layers = np.stack([real.cosines(layer) for layer in real.LAYERS])
    similarity = layers[real.LAYERS.index(LAYER)]
    n = len(similarity)
    p: dict[str, list[float]] = {}
    for _ in range(studies):
        source = int(rng.integers(n))
        held_out, leakage = real.bystanders(source), real.smooth_leakage(rng, LAYER)
        one = specificity(similarity, leakage, source, held_out)
        two = specificity(similarity, leakage, source, held_out, alternative="two-sided")
        best = specificity(layers, leakage, source, held_out)
        plain = permutation_p(layers[:, source, held_out], leakage[held_out], 499, 0)
        captured = leakage > np.quantile(leakage, 0.87)
        p.setdefault("similarity correlation: p", []).append(float(plain[real.LAYERS.index(LAYER)]))
        p.setdefault("similarity correlation: p of the best of five layers", []).append(float(plain.min()))
        p.setdefault("p_specific", []).append(one.p_max)
        p.setdefault("p_specific, two-sided", []).append(two.p_max)
        p.setdefault("p_specific, best of five layers (max-T)", []).append(best.p_max)
        p.setdefault("p_specific of the area under the curve", []).append(
            specificity_of_area(similarity, captured, source, held_out).p_max
        )
        sources = rng.choice(n, 5, replace=False)
        shared = ~np.isin(np.arange(n), sources)
        five = np.stack([real.smooth_leakage(rng, LAYER) for _ in sources])[:, shared]
        p.setdefault("p_specific over five sources (labels permuted)", []).append(
            source_labels(similarity[sources][:, shared], five, rng).p_max
        )
    for name, values in p.items():
        yield level(name, SCENARIO, values, offered="specific" in name)


def fixed_sources(studies: int, seed: int = 25) -> Iterator[CalibrationLine]:
    """The same where the source is always one of the five built-in ones: what their place among personas does."""
    rng = np.random.default_rng(seed)
    similarity, names = real.cosines(LAYER), list(real.names())
    p: list[float] = []
    for study in range(studies):
        source = names.index(real.SOURCES[study % len(real.SOURCES)])
        p.append(specificity(similarity, real.smooth_leakage(rng, LAYER), source, real.bystanders(source)).p_max)
    yield level("p_specific", f"{SCENARIO}, the five built-in sources", p)


def length_distance(studies: int, seed: int = 26) -> Iterator[CalibrationLine]:
    """Leakage and similarity both fall with the distance to the source's prompt length, and share nothing else."""
    for ranked in (True, False):
        rng = np.random.default_rng([seed, ranked])
        p: dict[str, list[float]] = {"raw": [], "both": [], "specific": []}
        for _ in range(studies):
            length = rng.poisson(20, 111).astype(float)
            source = int(rng.integers(111))
            away = np.abs(length[:, None] - length)
            fall = rankdata(away, axis=1) if ranked else away
            similarity = -fall / fall.std() + rng.standard_normal(away.shape)
            leakage = -fall[source] / fall[source].std() + rng.standard_normal(111)
            held_out = real.bystanders(source)
            x, y = similarity[source, held_out][None], leakage[held_out]
            covariates = np.stack([length, away[source]])[:, held_out]
            p["raw"].append(float(partial_spearman(x, y, covariates[:1], 499, 0)[1][0]))
            p["both"].append(float(partial_spearman(x, y, covariates, 499, 0)[1][0]))
            p["specific"].append(specificity(similarity, leakage, source, held_out, prompt_length=length).p_max)
        scenario = f"both fall with the {'ranks of the ' if ranked else ''}distance to the source's prompt length"
        most = 0.065 if ranked else 0.08  # ranks hold a straight line in whole tokens constant but for its bend
        yield level("similarity correlation: p given raw prompt length", scenario, p["raw"], offered=False)
        yield level(
            "similarity correlation: p given raw length and distance to the source's", scenario, p["both"], high=most
        )
        yield level("p_specific given both lengths", scenario, p["specific"])
