"""Fits and forecasts of leakage on planted sources: what is fitted, foretold, frozen and scored."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from bystander.analysis import AnalysisSettings, analyze
from bystander.analysis.leakage_fit import BASELINES, LeakageFit, fit_leakage, stacked
from bystander.analysis.leakage_forecast import Asked, Forecast, fitted_on, forecast_source, prior_fit, score_source
from bystander.analysis.leakage_sources import EDGE, SourceContexts, StudyTables, log_odds, published_rates
from bystander.analysis.stats.leakage_model import standardized
from bystander.core.errors import DataError, StoreError
from tests.support.analysis_study import World, measurements, personas, similarities

MARKER, ACCURACY = "marker/bank/marker_probability", "choice/arc/accuracy"


def planted(rng, source, weight=1.0, level=2.0, personas=60, outcome=MARKER, noise=0.3):
    """A source whose leakage on the scale is level + weight x similarity + noise."""
    cosine, length = rng.standard_normal((2, personas))
    reference = np.full(personas, 0.01 if outcome == MARKER else 0.7)
    sign = 1 if outcome == MARKER else -1
    change = level + weight * standardized(cosine[:, None])[:, 0] + noise * rng.standard_normal(personas)
    after = 1 / (1 + np.exp(-(log_odds(reference) + sign * change)))
    names = tuple(f"p{i:02}" for i in range(personas))
    features = {"cosine": cosine, "prompt_tokens": length}
    return SourceContexts("study", "model", "marker", outcome, source, names, features, reference, after)


def asked(of, kinds=None, roles=None):
    n = len(of.names)
    return Asked(of, kinds or ("persona",) * n, roles or ("held-out",) * n, "cosine")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def fitted(rng):
    return fit_leakage([planted(rng, f"s{i}", level=2 + 0.2 * i) for i in range(5)])


@pytest.mark.parametrize("outcome", [MARKER, ACCURACY])
def test_leakage_is_a_change_of_log_odds_in_the_behaviors_direction(outcome):
    of = SourceContexts("s", "m", "b", outcome, "x", ("a", "b"), {}, np.array([0.0, 0.5]), np.array([0.5, 1.0]))
    sign = 1 if outcome == MARKER else -1
    assert of.leakage == pytest.approx(sign * np.array([-log_odds(np.array(EDGE)), log_odds(np.array(1 - EDGE))]))
    assert of.change == pytest.approx(sign * np.array([0.5, 0.5]))


def test_a_planted_weight_is_found_and_has_skill(fitted):
    assert fitted.values.weights[fitted.features.index("cosine")] == pytest.approx(1.0, abs=0.05)
    assert fitted.values.level == pytest.approx(2.4, abs=0.1)
    assert fitted.has_skill
    assert set(fitted.skill) == {"no_knowledge", *BASELINES}
    assert fitted.skill["no_knowledge"].value > 0.7
    assert 0.3 < fitted.half_width < 1.5


def test_a_fit_reads_back_to_the_same(fitted):
    assert LeakageFit.from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted
    with pytest.raises(DataError, match="not a fit"):
        LeakageFit.from_dict({"features": []})


def test_a_feature_that_a_source_does_not_know_stands_at_its_mean(rng):
    bare = planted(rng, "b")
    with_more = SourceContexts(
        **{**{k: getattr(bare, k) for k in bare.__dataclass_fields__}, "source": "c", "features": {**bare.features, "lexical": bare.features["cosine"]}}
    )  # fmt: skip
    rows = stacked([bare, with_more])
    assert (rows.of("lexical")[rows.source == 0] == 0).all()
    assert rows.of("lexical")[rows.source == 1].std() == pytest.approx(1)
    assert (rows.of("nowhere") == 0).all()


def test_what_is_foretold_of_a_new_source_is_what_it_does(rng, fitted):
    new = planted(rng, "new", level=2.4)
    rows = forecast_source(fitted, asked(new))
    score = score_source(rows, new, "bystanders", 0.8)
    assert score.rho > 0.9
    assert score.covered >= 0.8
    assert score.verdict == "skill"
    expected = np.array([row.expected for row in rows])
    assert np.abs(expected - new.change).mean() < 0.1
    assert all(row.low < row.expected < row.high for row in rows)


def test_intervals_are_scored_by_hand(rng, fitted):
    new = planted(rng, "new", level=5.0)  # far above what was fitted
    rows = forecast_source(fitted, asked(new))
    inside = [row.low <= change <= row.high for row, change in zip(rows, new.change, strict=True)]
    assert score_source(rows, new, "bystanders", 0.8).covered == pytest.approx(np.mean(inside), abs=1e-9)
    assert np.mean(inside) < 0.2


def test_a_context_beside_stands_no_farther_out_than_the_farthest_bystander(rng, fitted):
    new = planted(rng, "new")
    far = {name: np.append(values, 50.0) for name, values in new.features.items()}
    of = SourceContexts(
        "s", "m", "marker", MARKER, "new", (*new.names, "(absent)"), far, np.append(new.reference, 0.01)
    )
    rows = forecast_source(fitted, asked(of, (*["persona"] * 60, "absent")))
    without = forecast_source(fitted, asked(new))
    assert [row.expected for row in rows[:60]] == pytest.approx([row.expected for row in without])
    most = int(np.argmax(new.features["cosine"]))
    longest = int(np.argmax(new.features["prompt_tokens"]))
    assert rows[60].of("marker", "new", "beside")
    weights = fitted.ranks.weights
    top = [
        standardized(values[:, None])[i, 0]
        for values, i in ((new.features["cosine"], most), (new.features["prompt_tokens"], longest))
    ]
    assert rows[60].rank == pytest.approx(min(1.0, fitted.ranks.level + weights[0] * top[0] + weights[1] * top[1]))


def test_one_source_gives_a_fit_without_intervals(rng):
    found = fit_leakage([planted(rng, "only")])
    assert found.half_width is None
    assert found.skill == {}
    assert not found.has_skill
    assert "one source" in found.values.note
    row = forecast_source(found, asked(planted(rng, "new")))[0]
    assert (row.low, row.high) == pytest.approx((-0.01, 0.99))


def test_nothing_fitted_is_said(rng):
    new = planted(rng, "new")
    found = prior_fit("marker", new)
    rows = forecast_source(found, asked(new))
    assert {row.expected for row in rows} == {None}
    assert np.corrcoef([row.rank for row in rows], new.features["cosine"])[0, 1] > 0.95
    said = fitted_on(found, new, "cosine")
    assert "no study of this behavior was fitted" in said.note
    assert said.features == ("cosine",)
    assert not said.has_skill


def test_what_the_study_does_not_know_is_named(rng, fitted):
    new = planted(rng, "new")
    bare = replace(new, features={"cosine": new.features["cosine"]}, outcome="marker/bank/marker_rate")
    said = fitted_on(fitted, bare, "cosine")
    assert said.unknown == ("prompt_tokens",)
    assert said.outcome == "marker/bank/marker_rate"  # what is foretold and scored, whatever was fitted
    assert "fitted on marker/bank/marker_probability, another metric" in said.note


def test_a_forecast_reads_back_to_the_same(rng, fitted):
    found = Forecast(
        0.8,
        (fitted_on(fitted, planted(rng, "n"), "cosine"),),
        tuple(forecast_source(fitted, asked(planted(rng, "n")))),
        ("a note",),
    )
    assert Forecast.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    with pytest.raises(StoreError, match="not a forecast"):
        Forecast.from_dict({"rows": []})


def table_of(rows):
    return pl.DataFrame([
        {"behavior": "marker", "probe": "marker", "dataset": "bank", "metric": "marker_probability", "seed": None, "status": "ok",
         "config": "c", "source": "s", **row}
        for row in rows
    ]).with_columns(pl.col("seed").cast(pl.Int64))  # fmt: skip


def tables(rows):
    names = sorted({row["persona"] for row in rows})
    similar = pl.DataFrame(
        [{"source": "s", "persona": n, "method": "cosine", "layer": 2, "value": float(i)} for i, n in enumerate(names)]
    )
    people = pl.DataFrame({"persona": names, "prompt_tokens": [5 + i for i in range(len(names))]})
    return StudyTables("study", "model", 2, table_of(rows), similar, people)


def row_of(name, after, arm="contrastive", role="held-out", context="persona", before=0.1):
    return {"persona": name, "before": before, "after": after, "arm": arm, "role": role, "context": context}


def test_leakage_is_what_goes_beyond_the_benign_arm_where_there_is_one():
    plain = [row_of(name, 0.5) for name in "abc"]
    (source,) = tables(plain).sources("marker", MARKER)
    assert source.against == "untrained"
    assert source.change == pytest.approx([0.4] * 3)
    both = [{**row_of(name, 0.5), "benign": None if name == "c" else 0.3} for name in "abc"]
    (source,) = tables(both).sources("marker", MARKER)
    assert source.against == "benign"
    assert "beyond the benign arm" in source.said
    assert source.names == ("a", "b")  # what was not paired is not mixed with what was
    assert source.change == pytest.approx([0.2] * 2)
    assert source.features["base_prior"] == pytest.approx(log_odds(np.full(2, 0.1)))


def test_only_held_out_personas_are_fitted_on_and_bare_contexts_stand_apart():
    rows = [
        row_of("a", 0.5),
        row_of("n", 0.0, role="negative"),
        row_of("absent", 0.2, context="absent"),
        row_of("x", 0.9, arm="non_contrastive"),
    ]
    study = tables(rows)
    assert [one.names for one in study.sources("marker", MARKER)] == [("a",)]
    assert [one.names for one in study.sources("marker", MARKER, beside=True)] == [("(absent)",)]
    assert study.sources("marker", "marker/bank/marker_rate") == []


def test_a_published_table_without_its_columns_is_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("source,persona\nvillain,pirate\n")
    with pytest.raises(DataError, match="cosine_layer10"):
        published_rates(path, pl.DataFrame(), pl.DataFrame())


def test_nothing_to_fit_on_is_refused():
    with pytest.raises(DataError, match="no source"):
        fit_leakage([])


@pytest.mark.parametrize("benign", [False, True])
def test_a_fit_reads_the_leakage_that_the_analysis_prints(benign):
    world = World(personas=30, questions=40, source_drop=0.5, drop=0.1, benign=benign)
    settings = AnalysisSettings(layer=20, permutations=19, partial_permutations=19, resamples=20)
    found = analyze(measurements(world), similarities(world), personas(world), settings=settings)
    study = StudyTables("study", "model", 20, found.leakage, similarities(world), personas(world))
    row = found.leakage.filter(pl.col("arm") == "contrastive").row(0, named=True)
    outcome = "/".join((row["probe"], row["dataset"], row["metric"]))
    sources = study.sources(row["behavior"], outcome)
    assert sources
    for source in sources:
        assert source.against == ("benign" if benign else "untrained")
        printed = dict(
            found.leakage.filter(pl.col("source") == source.source, pl.col("arm") == "contrastive", pl.col("seed").is_null())
            .select("persona", "leakage").iter_rows()
        )  # fmt: skip
        assert source.change == pytest.approx([printed[name] for name in source.names])
