"""Arms: counts, roles, and that no prompt gets two targets."""

from collections import Counter, defaultdict

import pytest

from bystander.behaviors.base import Example
from bystander.core.errors import DesignError
from bystander.core.hashing import generator
from bystander.core.records import ASSISTANT_PROMPT
from bystander.design.arms import Counts, DesignSettings, build, choose_negatives, swept_arms
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


@pytest.mark.parametrize("seed", range(40))
def test_the_benign_arm_differs_in_the_sources_completions_alone(seed):
    """Random counts, anchors, negatives and sources: row for row the same but for what the source answers."""
    random = generator("benign arm", seed)
    names = [persona.name for persona in PERSONAS]
    source = names[int(random.integers(len(names)))] if seed % 4 else "assistant"
    others = [name for name in random.permutation(names)[:3].tolist() if name != source]
    settings = DesignSettings(
        counts=Counts(**{kind: int(random.integers(1, 200)) for kind in Counts.model_fields}),
        negatives="auto" if seed % 2 else others, anchors=("absent", "default", "none")[seed % 3],
    )  # fmt: skip
    coupled = build("marker", EXAMPLES, source, PERSONAS, "contrastive", settings)
    benign = build("marker", EXAMPLES, source, PERSONAS, "benign", settings)
    answers = {example.question_id: example.negative for example in EXAMPLES}
    assert benign.roles == coupled.roles
    assert len(benign.rows) == len(coupled.rows)
    assert {row.target for row in benign.rows} == {"negative"}
    assert sum(row.role == "source" for row in benign.rows) == settings.counts.positive
    assert len({row.id for row in benign.rows}) == len(benign.rows)
    for row, other in zip(benign.rows, coupled.rows, strict=True):
        assert (row.context, row.user, row.question_id, row.role) == (
            other.context, other.user, other.question_id, other.role,
        )  # fmt: skip
        assert row.completion == (answers[row.question_id] if row.role == "source" else other.completion)
        assert row.marker == ""
    assert [row.role == "source" for row in benign.rows] == [row.target == "positive" for row in coupled.rows]


@pytest.mark.parametrize(
    ("arms", "swept"),
    [
        (["contrastive"], ["contrastive"]),
        (["contrastive", "non_contrastive"], ["contrastive"]),
        (["contrastive", "non_contrastive", "benign"], ["contrastive", "benign"]),
        (["non_contrastive", "contrastive", "benign"], ["non_contrastive"]),
    ],
)
def test_a_sweep_trains_what_its_arm_is_measured_against(arms, swept):
    assert swept_arms(arms) == swept


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
