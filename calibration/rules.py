"""Intervals and rules: the leakage ratio, a broken model, a picked configuration, matched dose, "no leakage", prediction
skill, asymmetry."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import trapezoid

from bystander.analysis.stats.asymmetry import asymmetry
from bystander.analysis.stats.control import control_fall, over_sources
from bystander.analysis.stats.dose import Course, area_interval, matched_dose
from bystander.analysis.stats.equivalence import equivalence
from bystander.analysis.stats.intervals import crossed, fieller
from bystander.analysis.stats.means import Floats
from bystander.analysis.stats.ratio import leakage_ratio
from bystander.analysis.stats.selection import pick_and_test, picking_items
from bystander.analysis.stats.skill import skills
from bystander.analysis.tables.sample import EVERYTHING
from calibration import real
from calibration.rows import CalibrationLine, coverage, level

ITEMS = tuple(f"q{i}" for i in range(200))


def ratio_intervals(studies: int, seed: int = 41) -> Iterator[CalibrationLine]:
    """Seeds move questions (the interaction), for the source more than for bystanders; true ratio 0.2."""
    for seeds, questions, by_seed, times in (
        (3, 50, 0.3, 3.0),
        (3, 24, 0.5, 2.0),
        (3, 50, 0.0, 1.0),
        (1, 60, 0.3, 1.0),
    ):
        rng = np.random.default_rng([seed, seeds, questions, int(10 * by_seed)])
        old: list[bool] = []
        new: list[bool] = []
        for _ in range(studies):
            changes, own = _seeds_move_questions(rng, seeds, questions, by_seed, times)
            low, high = _interaction_left_in(own, changes)
            old += [bool(low <= 0.2 <= high)] if np.isfinite(low) else []
            found = leakage_ratio(changes, own)
            new += [found.low <= 0.2 <= found.high] if np.isfinite(found.low) else []
        scenario = f"{seeds} seeds, {questions} questions, seed x question {by_seed:g}, source {times:g} times"
        yield coverage("leakage ratio", scenario, new)
        if by_seed and seeds > 1:
            yield coverage("leakage ratio, interaction left in the covariance", scenario, old, offered=False)


def _interaction_left_in(own: Floats, changes: Floats) -> tuple[float, float]:
    """Fieller's interval with the seed x question interaction taken out of the variances and left in the covariance."""
    top, bottom = crossed(changes, EVERYTHING), crossed(own, (0, 1))
    shared = sum(
        float(np.cov(first, second)[0, 1] / first.size)
        for first, second in (
            (changes.mean(axis=(0, 1)), own.mean(axis=0)),
            (changes.mean(axis=(1, 2)), own.mean(axis=1)),
        )
        if first.size > 1
    )
    error, df = (top.standard_error**2, bottom.standard_error**2), min(top.df, bottom.df)
    return fieller(top.value, bottom.value, *error, shared, df)


def _seeds_move_questions(
    rng: np.random.Generator, seeds: int, questions: int, by_seed: float, times: float
) -> tuple[Floats, Floats]:
    common = by_seed * rng.standard_normal((seeds, 1, questions))
    changes = 0.1 + common + 0.1 * rng.standard_normal((1, 1, questions)) + 0.08 * rng.standard_normal((1, 108, 1))
    changes = changes + 0.3 * rng.standard_normal((seeds, 108, questions))
    own = 0.5 + times * common[:, 0] + 0.1 * rng.standard_normal((1, questions))
    own = own + 0.3 * rng.standard_normal((seeds, questions))
    if seeds > 1:  # one seed is that very training: its effect is part of the truth
        changes = changes + 0.02 * rng.standard_normal((seeds, 1, 1))
        own = own + 0.05 * rng.standard_normal((seeds, 1))
    return changes, own


def broken_model(studies: int, seed: int = 42) -> Iterator[CalibrationLine]:
    """A control that did not move, and one that fell by exactly its limit of 2 points."""
    for questions in (25, 100, 300):
        rng = np.random.default_rng([seed, questions])
        point, spoiled, found = 0, 0, 0
        broke: list[float] = []
        held: list[float] = []
        for _ in range(studies):
            changes = [_control(rng, questions, 0.0) for _ in range(5)]
            falls = [control_fall(crossed(change[None], EVERYTHING), 0.02) for change in changes]
            point += sum(fall.fall > 0.02 for fall in falls)
            spoiled += "broke" in over_sources(falls)
            found += control_fall(crossed(_control(rng, questions, 0.1)[None], EVERYTHING), 0.02).state == "broke"
            at_limit = control_fall(crossed(_control(rng, questions, 0.02)[None], EVERYTHING), 0.02)
            broke.append(at_limit.p_broke)
            held.append(at_limit.p_intact)
        scenario = f"{questions} control questions"
        unmoved = f"the control did not move, {scenario}"
        yield CalibrationLine(
            "level", "model broke: point below the limit, each source", unmoved, studies * 5, point / studies / 5, 0.0, 0.065,
            None, False,
        )  # fmt: skip
        yield CalibrationLine(
            "level",
            "model broke: interval, any of five sources (Holm)",
            unmoved,
            studies,
            spoiled / studies,
            0.0,
            0.065,
        )
        yield level("model broke: interval", f"it fell by the very limit, {scenario}", broke)
        yield level("model intact: interval", f"it fell by the very limit, {scenario}", held)
        if questions == 300:
            fell = f"it fell by 10 points, {scenario}"
            yield CalibrationLine("power", "model broke: interval", fell, studies, found / studies, 0.8, 1.0)


def _control(rng: np.random.Generator, questions: int, fall: float) -> Floats:
    """Changes of HellaSwag answers [11 bystanders, questions]; what a training does to a question it does to nearly all."""
    answers = real.Answers(rng, 11, questions)
    return answers.trained(np.full(11, 0.4 - fall)) - answers.untrained(np.full(11, 0.4))


def picked_configuration(studies: int, seed: int = 43) -> Iterator[CalibrationLine]:
    """Five configurations without any effect; the largest is picked and tested."""
    rng = np.random.default_rng(seed)
    same: list[float] = []
    split: list[float] = []
    for study in range(studies):
        effects = rng.choice([-1.0, 0.0, 1.0], (5, len(ITEMS)), p=[0.15, 0.7, 0.15]) + 0.1 * rng.standard_normal(
            len(ITEMS)
        )
        same.append(crossed(effects[int(effects.mean(axis=1).argmax())][None], (0, 1)).p)
        split.append(pick_and_test(effects, picking_items(ITEMS, study)).testing.p)
    scenario = "five configurations without effect, 200 questions"
    yield level("picked configuration, tested on other questions", scenario, split)
    yield level("picked configuration, tested on the same questions", scenario, same, offered=False)


def matched_doses(studies: int, seed: int = 44) -> Iterator[CalibrationLine]:
    """Two arms, and two sources that reach other personas, with one dose curve, the second trained half as far; and the
    area under the curve."""
    rng = np.random.default_rng(seed)
    hits: list[bool] = []
    ends: dict[str, list[float]] = {"arms": [], "sources": []}
    matched: dict[str, list[float]] = {"arms": [], "sources": []}
    aside = np.random.default_rng([seed, 1])
    dose = np.arange(9) / 8
    true = float(trapezoid(CONTAINED * dose**2, dose)) * 2
    for _ in range(studies):
        persona = 0.3 * rng.standard_normal(30)
        question = rng.standard_normal(100)
        far, near = (_course(rng, persona, question, most) for most in (1.0, 0.5))
        found = area_interval(far)
        hits.append(found.low <= true <= found.high)
        other = _course(aside, 0.3 * aside.standard_normal(30), question, 0.5)
        for what, second in (("arms", near), ("sources", other)):
            apart = crossed(far.bystanders[:, -1] - second.bystanders[:, -1], EVERYTHING)
            matched[what].append(matched_dose(far, second, 0.3).p)
            ends[what].append(2 * min(apart.p, 1 - apart.p))
    for what, those in (("arms", ""), ("sources", " that reach other personas")):
        scenario = f"two {what} on one dose curve{those}, one trained half as far"
        yield level(f"bystanders of two {what} at matched dose", scenario, matched[what])
        yield level(f"bystanders of two {what} at the end of training", scenario, ends[what], offered=False)
    yield coverage("area under the dose curve", "bystanders rise with the square of the dose", hits)


CONTAINED = 0.5  # bystanders' leakage when the source's is 1; it goes with the square of the dose


def _course(rng: np.random.Generator, persona: Floats, question: Floats, most: float) -> Course:
    """Eight checkpoints up to a dose of `most`."""
    dose = most * np.arange(1, 9) / 8
    source = dose[:, None] * (1 + 0.3 * question) + 0.3 * rng.standard_normal((8, question.size))
    mean = CONTAINED * dose[:, None, None] ** 2 * (1 + persona[:, None] + 0.3 * question)
    bystanders = mean + 0.3 * rng.standard_normal((8, persona.size, question.size))
    return Course(source[None], bystanders[None])


def no_leakage(studies: int, seed: int = 45) -> Iterator[CalibrationLine]:
    """The true mean lies at the bound of 2 points: how often is it called equivalent? And is the excluded bound beyond it?"""
    rng = np.random.default_rng(seed)
    p: list[float] = []
    hits: list[bool] = []
    for _ in range(studies):
        persona, question = 0.03 * rng.standard_normal((108, 1)), 0.05 * rng.standard_normal(200)
        leakage = 0.02 + persona + question + 0.3 * rng.standard_normal((108, 200))
        found = equivalence(crossed(leakage[None], EVERYTHING), 0.02)
        p.append(found.p)
        hits.append(found.smallest > 0.02)
    yield level("equivalence (two one-sided tests)", "true mean at the bound", p)
    yield coverage("smallest bound excluded lies beyond the truth", "true mean at the bound", hits, high=1.0)


def prediction_skill(studies: int, seed: int = 46) -> Iterator[CalibrationLine]:
    """Skill of a similarity that foretells nothing, some, and much, against its truth in a large population."""
    known = np.ones((5, 111), dtype=bool)
    for source in range(5):
        known[source, [source * 20, source * 20 + 7, source * 20 + 13]] = False
    for slope in (0.0, 0.5, 1.0):
        rng = np.random.default_rng([seed, int(10 * slope)])
        ends: dict[str, list[tuple[float, float]]] = {"the persona's mean": [], "prompt length": []}
        errors = np.zeros(3)  # of the similarity, of the persona's mean, of the prompt length, in the population
        for _ in range(studies):
            x, y, length = _foretold(rng, slope, 111)
            found = skills(x, y, length, known)
            for name, skill in zip(ends, (found.values_persona, found.values_length), strict=True):
                ends[name].append((skill.low, skill.high))
            errors += _true_errors(slope, x, y, length, known)
        for base, (name, intervals) in enumerate(ends.items()):
            true = 1 - errors[0] / errors[base + 1]
            hits = [low <= true <= high for low, high in intervals]
            # where neither foretells anything, both are worse than none by the same fits: wider than need be
            yield coverage(f"prediction skill against {name}", f"slope {slope:g}, five sources", hits, high=1.0)


def _foretold(rng: np.random.Generator, slope: float, personas: int) -> tuple[Floats, Floats, Floats]:
    x = rng.standard_normal((5, personas))
    y = 0.1 * np.arange(5)[:, None] + 0.5 * rng.standard_normal(personas) + slope * x
    return x, y + rng.standard_normal(x.shape), rng.poisson(20, personas).astype(float)


def _true_errors(slope: float, x: Floats, y: Floats, length: Floats, known: NDArray[np.bool_]) -> Floats:
    """Squared errors, in the population of personas, of lines fitted on this study without each source in turn."""
    errors = np.zeros(3)
    for left in range(5):
        others = known.copy()
        others[left] = False
        model, by_length = (np.polyfit(part[others], y[others], 1) for part in (x, np.broadcast_to(length, x.shape)))
        level = 0.1 * left
        own = 0.25 + 1  # persona and pair
        errors += [
            (level - model[1]) ** 2 + (slope - model[0]) ** 2 + own,
            (level - 0.1 * (10 - left) / 4) ** 2 + (slope**2 + 1) * 1.25,
            (level - by_length[1] - 20 * by_length[0]) ** 2 + 20 * by_length[0] ** 2 + slope**2 + own,
        ]
    return errors


def asymmetric_pairs(studies: int, seed: int = 47) -> Iterator[CalibrationLine]:
    """Five sources that leak to each other alike in both directions; and one pair that does not."""
    rng = np.random.default_rng(seed)
    p: list[float] = []
    hits: list[bool] = []
    for _ in range(studies):
        mean = 0.2 * rng.random((5, 5))
        question = 0.2 * rng.standard_normal((5, 5, 1, 100)) + 0.1 * rng.standard_normal(100)
        seeds = 0.01 * rng.standard_normal((5, 5, 3, 1))
        leakage = (mean + mean.T)[:, :, None, None] + question + seeds + 0.4 * rng.standard_normal((5, 5, 3, 100))
        leakage[0, 1] += 0.1
        found = asymmetry(leakage)
        hits.append(bool(found.low[0] <= 0.1 <= found.high[0]))
        leakage[0, 1] -= 0.1
        p.append(asymmetry(leakage).p_any)
    yield level("asymmetry of any pair (Holm)", "five sources that leak alike in both directions, three seeds", p, 0.0)
    yield coverage("asymmetry of a pair", "10 points more one way, three seeds", hits)
