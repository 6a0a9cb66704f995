"""What a verdict says, for each way in which evidence can fall."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from bystander.analysis import HYPOTHESES, AnalysisSettings, analyze
from bystander.analysis.hypotheses import HYPOTHESES as ALL
from bystander.analysis.hypotheses import Claim, Evidence, evaluate
from bystander.analysis.keys import OutcomeKey, TrainingKey
from bystander.analysis.pairs import PairedGrid
from bystander.analysis.tables.control import control_of
from bystander.cli.result_tables import control_lines, headline_table
from bystander.core.records import Verdict
from tests.support.analysis_study import World, measurements, personas, similarities

A = next(hypothesis for hypothesis in HYPOTHESES if hypothesis.name == "A")
B = next(hypothesis for hypothesis in HYPOTHESES if hypothesis.name == "B")
QUICK = AnalysisSettings(layer=20, permutations=499, partial_permutations=99, resamples=200)

STANDS = Evidence(
    source=Claim(0.20, 0.10, 0.30, 1e-6, 0.05, strict=False),
    bystanders=Claim(0.03, 0.02, 0.04, 1e-4, 0.01),
    correlation=Claim(0.50, 0.30, 0.70, 1e-4, 0.2),
    n_personas=108,
    n_seeds=3,
    n_sources=1,
    numbers={},
)


def test_all_three_at_their_thresholds_confirm():
    verdict = evaluate("A", A, STANDS)
    assert verdict.outcome == "confirmed"
    assert "One seed" not in verdict.reason
    assert verdict.numbers["source_leakage"] == 0.20
    assert verdict.numbers["rho_high"] == 0.70
    assert verdict.numbers["bystander_leakage_threshold"] == 0.01


def test_one_seed_is_said_with_the_confirmation():
    assert "One seed" in evaluate("A", A, replace(STANDS, n_seeds=1)).reason


@pytest.mark.parametrize(
    ("part", "claim", "says"),
    [
        ("source", Claim(0.01, -0.01, 0.03, 0.2, 0.05, strict=False), "no source effect, the training failed"),
        ("bystanders", Claim(0.002, -0.001, 0.005, 0.1, 0.01), "no bystander effect"),
        ("correlation", Claim(0.02, -0.15, 0.18, 0.8, 0.2), "no gradient"),
        ("correlation", Claim(-0.5, -0.7, -0.3, 1e-4, 0.2), "a gradient the other way: rho is -0.5"),
        ("correlation", Claim(0.1, 0.05, 0.15, 1e-4, 0.2), "a gradient below the threshold"),
        ("bystanders", Claim(-0.16, -0.231, -0.094, 1.0, 0.01), "a bystander effect the other way"),
        ("bystanders", Claim(0.004, 0.001, 0.007, 0.01, 0.01), "a bystander effect below the threshold"),
        (
            "source",
            Claim(-0.5, -0.6, -0.4, 1.0, 0.05, strict=False),
            "a source effect the other way, the training failed",
        ),
    ],
)
def test_an_interval_wholly_below_its_threshold_falsifies(part, claim, says):
    verdict = evaluate("A", A, replace(STANDS, **{part: claim}))
    assert verdict.outcome == "falsified"
    assert says in verdict.reason


@pytest.mark.parametrize(
    ("part", "claim"),
    [
        ("source", Claim(0.04, -0.02, 0.10, 0.1, 0.05, strict=False)),
        ("bystanders", Claim(0.02, -0.01, 0.05, 0.2, 0.01)),
        ("bystanders", Claim(0.005, 0.001, 0.02, 0.01, 0.01)),  # there, and perhaps not large enough
        ("correlation", Claim(0.3, -0.1, 0.6, 0.2, 0.2)),
        ("correlation", Claim(0.15, 0.02, 0.28, 0.03, 0.2)),
        ("correlation", Claim(float("nan"), float("nan"), float("nan"), float("nan"), 0.2)),
    ],
)
def test_what_the_study_cannot_decide_is_inconclusive(part, claim):
    assert evaluate("A", A, replace(STANDS, **{part: claim})).outcome == "inconclusive"


def test_the_source_reaches_its_threshold_and_bystanders_must_exceed_theirs():
    assert Claim(0.05, 0.03, 0.07, 0.001, 0.05, strict=False).judge(0.05) == "holds"
    assert Claim(0.05, 0.03, 0.07, 0.001, 0.05).judge(0.05) == "open"


def test_a_gradient_of_error_is_not_excluded_where_nobody_is_shown_to_leak():
    flat, unknown = Claim(-0.08, -0.26, 0.10, 0.8, 0.2), Claim(0.017, -0.025, 0.059, 0.2, 0.01)
    case = replace(STANDS, correlation=flat, bystanders=unknown, reliability=0.1)
    verdict = evaluate("A", A, case)
    assert verdict.outcome == "inconclusive"
    assert "mostly error (reliability 0.10), so that no gradient is excluded" in verdict.reason
    assert evaluate("A", A, replace(case, reliability=0.8)).outcome == "falsified"  # what is measured of each is there
    assert evaluate("A", A, replace(case, bystanders=STANDS.bystanders)).outcome == "falsified"  # all leak alike
    below = replace(flat, value=-0.3, low=-0.5, high=-0.1)
    assert evaluate("A", A, replace(case, correlation=below)).outcome == "falsified"  # it runs the other way


def test_a_broken_model_is_not_called_leakage():
    verdict = evaluate("A", A, replace(STANDS, broke="choice/hellaswag/accuracy fell by 0.2"))
    assert verdict.outcome == "inconclusive"
    assert "the model broke" in verdict.reason


@pytest.mark.parametrize(
    ("moved", "outcome", "says"),
    [
        (True, "falsified", "the probe sees"),
        (False, "inconclusive", "probe blind"),
        (None, "inconclusive", "`direct` was not run"),
    ],
)
def test_a_null_is_told_from_a_blind_probe(moved, outcome, says):
    none = Claim(0.5, -1.0, 2.0, 0.2, 10.0, strict=False)
    verdict = evaluate("B", B, replace(STANDS, source=none, control_moved=moved))
    assert verdict.outcome == outcome
    assert says in verdict.reason


def judged(world: World) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    return measurements(world), similarities(world), personas(world)


def verdicts(*worlds: World) -> dict[str, Verdict]:
    """Of one or more worlds with the same personas, analyzed as one study."""
    tables = [measurements(world) for world in worlds]
    analysis = analyze(
        pl.concat(tables).unique(maintain_order=True), similarities(worlds[0]), personas(worlds[0]), settings=QUICK
    )
    return {verdict.hypothesis: verdict for verdict in analysis.verdicts}


def test_planted_effects_are_confirmed_and_every_number_is_in_the_tables():
    world = World(questions=150, personas=60, benign=True)
    analysis = analyze(*judged(world), settings=QUICK)
    (verdict,) = analysis.verdicts
    assert verdict.outcome == "confirmed"
    record = str(verdict.numbers["rho_record"])
    assert analysis.value(record, "rho") == verdict.numbers["rho"]
    assert analysis.value(record, "p_holm") == verdict.numbers["rho_p"]
    contained = analysis.leakage_ratio.row(by_predicate=pl.col("arm") == "contrastive", named=True)
    assert contained["against"] == verdict.numbers["measured_against"] == "benign arm"
    assert contained["bystander_leakage"] == verdict.numbers["bystander_leakage"]
    assert contained["source_low"] == verdict.numbers["source_leakage_low"]
    assert analysis.value("verdict/A/rho", "value") == verdict.numbers["rho"]


def test_no_effect_at_all_is_a_failed_training():
    (verdict,) = verdicts(World(questions=200, personas=60, source_drop=0.0, drop=0.0, slope=0.0)).values()
    assert verdict.outcome in {"falsified", "inconclusive"}
    assert "source" in verdict.reason


def test_leakage_to_all_alike_is_no_gradient():
    (verdict,) = verdicts(World(questions=200, personas=200, slope=0.0, seed=4, benign=True)).values()
    assert verdict.outcome == "falsified"
    assert "no gradient" in verdict.reason


def test_hellaswag_that_falls_makes_the_verdict_inconclusive():
    world = World(questions=150, personas=60, benign=True)
    control = replace(world, dataset="hellaswag", drop=0.2, slope=0.0)
    verdict = verdicts(world, control)["A"]
    assert verdict.outcome == "inconclusive"
    assert "choice/hellaswag/accuracy of the held-out bystanders broke: fell by" in verdict.reason
    assert "of the source broke" in verdict.reason
    sound = replace(control, drop=0.0, source_drop=0.0)
    assert verdicts(world, sound)["A"].outcome == "confirmed"


def control_grid(questions: int) -> PairedGrid:
    """Ten held-out bystanders who all lose every fourth HellaSwag question."""
    before = np.ones((1, 10, questions))
    after = before.copy()
    after[:, :, ::4] = 0
    names = tuple(f"persona_{i}" for i in range(10))
    training = TrainingKey("capability", "villain", "contrastive", "lr=1", None, None)
    outcome = OutcomeKey("choice", "hellaswag", "accuracy")
    kinds, roles = ("persona",) * 10, ("held-out",) * 10
    return PairedGrid(
        training, outcome, (0,), kinds, names, roles, before, after, np.zeros_like(before), -1, True, "fraction"
    )


def test_four_control_questions_break_no_model_and_forty_do():
    """A quarter of the questions is lost either way, and the limit is 2 points."""
    few, many = control_grid(4), control_grid(40)
    found = control_of(few, [few], AnalysisSettings())
    assert (found.bystanders, found.broke) == (-0.25, False)
    assert "neither shown nor excluded: fell by 0.25 [" in found.reason
    found = control_of(many, [many], AnalysisSettings())
    assert (found.bystanders, found.broke) == (-0.25, True)
    assert found.reason.startswith("choice/hellaswag/accuracy of the held-out bystanders broke: fell by 0.25 [0.1")
    assert "limit 0.02" in found.reason


def test_a_control_that_is_lost_whole_broke():
    grid = control_grid(4)
    lost = replace(grid, after=np.zeros_like(grid.after))
    assert control_of(lost, [lost], AnalysisSettings()).broke is True


def test_a_terminal_shows_controls_apart_from_leakage():
    world = World(questions=40)
    control = replace(world, dataset="hellaswag", drop=0.2, source_drop=0.2, slope=0.0)
    table = pl.concat([measurements(world), measurements(control)])
    found = analyze(table, similarities(world), personas(world), settings=QUICK)
    shown = Console(width=120, record=True, file=StringIO())
    shown.print(headline_table(found))
    assert "villain" in (text := shown.export_text())
    assert "hellaswag" not in text
    (line,) = control_lines(found)
    assert line.startswith("control hellaswag accuracy: 0.")
    assert "-0.2" in line


def test_behaviors_that_were_not_trained_get_no_verdict_and_unmeasured_ones_say_so():
    assert len(ALL) == 3
    found = verdicts(World(behavior="misalignment", probe="choice"))
    assert set(found) == {"B"}
    assert found["B"].outcome == "inconclusive"
    assert "not measured: judged/open/aligned or margin/pairs/aligned_wins" in found["B"].reason


def test_positive_control_is_read_from_its_own_behavior():
    insecure = World(
        behavior="misalignment", probe="margin", dataset="pairs", metric="aligned_wins", questions=200,
        source_drop=0.0, drop=0.0, slope=0.0,
    )  # fmt: skip
    direct = replace(insecure, behavior="direct", source_drop=0.5)
    alone = verdicts(insecure)["B"]
    assert alone.outcome == "inconclusive"
    assert alone.numbers["positive_control"] == "not run"
    seen = verdicts(insecure, direct)["B"]
    assert seen.numbers["positive_control"] == "moved"
    blind = verdicts(insecure, replace(direct, source_drop=0.0))["B"]
    assert blind.numbers["positive_control"] == "did not move"
    assert "probe blind" in blind.reason


def test_several_sources_get_one_verdict_together_and_one_each():
    found = verdicts(World(sources=("villain", "comedian"), questions=100))
    assert set(found) == {"A", "A/villain", "A/comedian"}
    assert found["A"].numbers["rho_test"] == "labels of the sources permuted, Holm"
    assert found["A"].numbers["n_sources"] == 2


def test_a_model_at_chance_can_neither_leak_nor_not():
    world = World(slope=0.0, drop=0.0, questions=200)
    tables = measurements(world), similarities(world), personas(world)
    plain = analyze(*tables, settings=AnalysisSettings(layer=20))
    blind = analyze(*tables, settings=AnalysisSettings(layer=20, blind=("choice/arc/accuracy",)))
    elsewhere = analyze(*tables, settings=AnalysisSettings(layer=20, blind=("choice/arc/margin",)))
    assert "at chance" not in plain.verdicts[0].reason
    assert elsewhere.verdicts == plain.verdicts
    assert blind.verdicts[0].outcome == "inconclusive"
    assert blind.verdicts[0].reason.startswith("the untrained model is at chance on choice/arc/accuracy")
