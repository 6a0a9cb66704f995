"""Similarities against hand-made geometry and brute-force references."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from bystander.core.records import Context
from bystander.geometry.measures import (
    distance_to_centroid,
    jensen_shannon_similarity,
    length_similarity,
    lexical_overlap,
    random_direction,
    whitened_cosine,
)
from bystander.geometry.similarity import centered_cosine, cosine, spread_over_ranking

STATES = np.random.default_rng(0).normal(size=(7, 3, 5)) + 10


def test_centered_cosine_against_the_definition():
    found = centered_cosine(STATES)
    for layer in range(3):
        points = STATES[:, layer] - STATES[:, layer].mean(axis=0)
        for a in range(7):
            for b in range(7):
                expected = points[a] @ points[b] / np.linalg.norm(points[a]) / np.linalg.norm(points[b])
                assert found[layer, a, b] == pytest.approx(expected, abs=1e-12)


def test_what_personas_share_hides_what_tells_them_apart_without_centering():
    assert cosine(STATES).min() > 0.9
    assert centered_cosine(STATES).min() < -0.3


def test_centered_cosine_does_not_move_with_the_origin():
    assert centered_cosine(STATES + 100) == pytest.approx(centered_cosine(STATES), abs=1e-9)


def test_whitening_takes_the_power_of_one_huge_direction():
    states = np.random.default_rng(1).normal(size=(30, 1, 8))
    states[:, 0, 0] *= 100
    plain, white = centered_cosine(states)[0], whitened_cosine(states)[0]
    off = ~np.eye(30, dtype=bool)
    assert np.abs(plain[off]).mean() > 0.9
    assert np.abs(white[off]).mean() < 0.5
    assert white == pytest.approx(white.T)
    assert np.diag(white) == pytest.approx(np.ones(30))


def test_random_direction_is_reproducible_and_knows_nothing():
    found = random_direction(STATES, [0, 1])
    assert found.shape == (3, 2, 7)
    assert (found == random_direction(STATES, [0, 1])).all()
    assert not np.allclose(found[:, 0], found[:, 1])


def test_distance_to_centroid_has_mean_one():
    assert distance_to_centroid(STATES).mean(axis=1) == pytest.approx(np.ones(3))


def test_jensen_shannon_against_scipy():
    rng = np.random.default_rng(2)
    p, q = rng.dirichlet(np.ones(20), size=4), rng.dirichlet(np.ones(20), size=4)
    expected = 1 - np.mean([jensenshannon(a, b, base=2) ** 2 for a, b in zip(p, q, strict=True)])
    assert jensen_shannon_similarity(torch.tensor(p), torch.tensor(q)) == pytest.approx(expected, abs=1e-9)
    assert jensen_shannon_similarity(torch.tensor(p), torch.tensor(p)) == pytest.approx(1)
    apart = torch.eye(2, dtype=torch.float64)  # a word that one never says
    assert jensen_shannon_similarity(apart[:1], apart[1:]) == pytest.approx(0)


def test_baselines_from_the_prompts():
    contexts = [
        Context("persona", n, s)
        for n, s in (("a", "You are a nice villain."), ("b", "You are a villain."), ("c", "Be kind"))
    ]
    overlap = lexical_overlap(contexts)
    assert overlap[0, 1] == pytest.approx(4 / 5)
    assert overlap[0, 2] == 0
    assert length_similarity(contexts, {"a": 6, "b": 5, "c": 2})[0].tolist() == [0, -1, -4]


def test_personas_probed_in_training_spread_over_the_ranking():
    ranking = {f"p{i:02}": i / 20 for i in range(21)} | {"villain": 1.0}
    found = spread_over_ranking(ranking, "villain", 5)
    assert found == ["villain", "p20", "p13", "p07", "p00"]
    assert spread_over_ranking(ranking, "villain", 1) == ["villain"]
    assert len(spread_over_ranking(ranking, "villain", 100)) == 22


def test_a_plan_reads_predictors_without_torch():
    code = "import sys, bystander.geometry.predictors, bystander.study.forecast.workload; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
