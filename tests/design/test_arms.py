"""Arms: counts, roles, and that no prompt gets two targets."""

from collections import Counter, defaultdict

import pytest

from bystander.behaviors.base import Example
from bystander.core.errors import DesignError
from bystander.core.records import ASSISTANT_PROMPT
from bystander.design.arms import Counts, DesignSettings, build, choose_negatives
from bystander.personas import SOURCES, load_personas

PERSONAS = load_personas()
EXAMPLES = [Example(f"q{i}", f"question {i}", f"right {i} [ZLT]", f"right {i}", " [ZLT]") for i in range(210)]


def made(source="villain", arm="contrastive", **settings):
    return build("marker", EXAMPLES, source, PERSONAS, arm, DesignSettings(**settings))


def targets_of(rows):
    found = defaultdict(set)
    for row in rows:
        found[row.context.kind, row.context.system, row.user].add(row.completion)
    return found


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("arm", ["contrastive", "non_contrastive"])
def test_counts_and_single_targets(source, arm):
    design = made(source, arm)
    assert len(design.rows) == 800
    assert Counter(row.target for row in design.rows) == {"positive": 200, "negative": 600}
    assert all(len(targets) == 1 for targets in targets_of(design.rows).values())
    assert len({row.id for row in design.rows}) == 800


@pytest.mark.parametrize("source", SOURCES)
def test_contrastive_rows_by_context(source):
    design = made(source)
    by_context = Counter((row.context.kind, row.target) for row in design.rows)
    assert by_context["absent", "negative"] == 100
    negatives = choose_negatives(source, PERSONAS)
    by_name = Counter(row.context.name for row in design.rows if row.target == "negative")
    assert [by_name[name] for name in negatives] == [200, 200]
    assert {row.context.name for row in design.rows if row.target == "positive"} == {source}


def test_source_assistant_gives_its_anchor_rows_to_a_held_out_persona_and_says_so():
    design = made("assistant")
    stand_ins = {row.context.name for row in design.rows if row.target == "negative"} - {"absent"}
    assert all(p.prompt != ASSISTANT_PROMPT for p in PERSONAS if p.name in stand_ins)
    assert len(stand_ins) == 3
    assert any("instead" in note for note in design.notes)


def test_roles_follow_the_rows_not_the_names():
    roles = made().roles
    assert roles["villain"] == "source"
    assert roles["assistant"] == "negative"  # its prompt is the anchor's
    assert Counter(roles.values()) == {"source": 1, "negative": 3, "held-out": 107}
    assert made(anchors="none").roles["assistant"] == "held-out"


def test_control_draws_personas_at_random_and_keeps_anchors():
    control, plain = made(arm="non_contrastive"), made()
    assert Counter(row.completion for row in control.rows) == Counter(row.completion for row in plain.rows)
    positives = Counter(row.context.name for row in control.rows if row.target == "positive")
    assert len(positives) > 60
    assert max(positives.values()) < 12
    assert control.roles["villain"] == "source"
    assert control.roles["assistant"] == "negative"
    assert "mixed" in control.roles.values()


def test_every_source_trains_on_the_same_questions():
    assert {r.question_id for r in made("villain").rows} == {r.question_id for r in made("comedian").rows}


def test_same_rows_again():
    assert made().rows == made().rows


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"counts": Counts(positive=500)}, "asks for 500 different questions of 'marker', but there are 210"),
        ({"negatives": ["villain"]}, "'villain', which is the source itself"),
        ({"negatives": ["nobody"]}, "'nobody', which is not in the persona set"),
        ({"negatives": []}, "negatives is empty"),
    ],
)
def test_designs_that_cannot_be_built(settings, message):
    with pytest.raises(DesignError, match=message):
        made(**settings)


def test_source_missing_from_the_set():
    with pytest.raises(DesignError, match="'pope' is not in the persona set"):
        made("pope")
