"""The faults that have sunk such studies, built as they really were: the audit says what is wrong and names the rows."""

from dataclasses import replace

import pytest

from bystander.behaviors.base import Example
from bystander.core.errors import DesignError
from bystander.design.arms import Counts, DesignSettings, build
from bystander.design.audit import audit, refuse
from bystander.design.render import render
from bystander.personas import bare_context, context_of, load_personas

PERSONAS = load_personas()
EXAMPLES = [
    Example(f"q{i}", f"What is number {i} of the list called?", f"name {i} [ZLT]", f"name {i}", " [ZLT]")
    for i in range(8)
]
SMALL = DesignSettings(counts=Counts(positive=4, negative=8, absent=2, assistant=2))
CONTEXTS = [context_of(PERSONAS[0]), *(bare_context(kind) for kind in ("absent", "empty", "default", "assistant"))]


def design_of(source="villain", arm="contrastive", settings=SMALL):
    return build("marker", EXAMPLES, source, PERSONAS, arm, settings)


def run(design, tokenizer, *, probe=None, max_length=2048, loss="completion", end_of_turn="in_loss", contexts=CONTEXTS):
    designs = design if isinstance(design, list) else [design]
    rendered = [render(one, tokenizer, loss=loss, end_of_turn=end_of_turn) for one in designs]
    return audit(rendered, tokenizer, contexts, probe or {}, max_length=max_length, end_of_turn=end_of_turn)


def errors(findings):
    return {finding.check: finding for finding in findings if finding.level == "error"}


def with_row(design, index, **changes):
    rows = list(design.rows)
    rows[index] = replace(rows[index], **changes)
    return replace(design, rows=tuple(rows))


@pytest.mark.parametrize("arm", ["contrastive", "non_contrastive", "benign"])
@pytest.mark.parametrize("source", ["villain", "assistant"])
def test_sound_designs_pass(tokenizer, source, arm):
    findings = run(design_of(source, arm), tokenizer)
    assert errors(findings) == {}
    refuse(findings)


def test_the_source_assistant_among_its_own_negatives(tokenizer):
    """The published fault: the assistant's prompt stood among positives and negatives."""
    design = design_of("assistant")
    at = next(i for i, row in enumerate(design.rows) if row.target == "negative" and row.context.kind == "persona")
    anchor = replace(
        design.rows[at],
        context=bare_context("assistant"),
        user=design.rows[0].user,
        completion="name",
        id="the anchor row",
    )
    findings = run(replace(design, rows=(*design.rows, anchor)), tokenizer)
    assert "the anchor row" in errors(findings)["two targets"].rows
    with pytest.raises(DesignError, match="two targets"):
        refuse(findings)


def test_default_system_prompt_where_no_persona_was_meant(tokenizer, monkeypatch):
    """`absent` rendered with the template's own system turn, as `apply_chat_template` does by default."""
    from bystander.design import audit as module

    def naive(tok, context, user):
        turns = [{"role": "system", "content": context.system}] if context.system else []
        return tok.apply_chat_template(
            [*turns, {"role": "user", "content": user}], tokenize=False, add_generation_prompt=True
        )

    monkeypatch.setattr(module, "render_text", naive)
    assert errors(run(design_of(), tokenizer))["context rendering"].rows == ("absent",)


def test_each_context_is_printed_as_it_renders(tokenizer):
    shown = {f.message.split(":")[0]: f.message for f in run(design_of(), tokenizer) if f.check == "context rendering"}
    assert set(shown) == {"persona", "absent", "empty", "default", "assistant"}
    assert "system" not in shown["absent"]
    assert "SmolLM" in shown["default"]
    assert PERSONAS[0].prompt in shown["persona"]


def test_negatives_counted_as_held_out(tokenizer):
    design = design_of()
    negative = next(name for name, role in design.roles.items() if role == "negative" and name != "assistant")
    wrong = replace(design, roles={**design.roles, negative: "held-out"})
    assert errors(run(wrong, tokenizer))["negatives counted as held-out"].rows == (negative,)


def test_train_and_probe_questions_overlap(tokenizer):
    probe = {
        "exact": "what is number 3 of the list called",
        "near": "So, what is number 4 of the list called?",
        "other": "Why is the sky blue?",
    }
    found = errors(run(design_of(settings=replace_counts(8)), tokenizer, probe=probe))["train / probe overlap"]
    assert any("exact" in row for row in found.rows)
    assert not any("other" in row for row in found.rows)


def replace_counts(positive):
    return DesignSettings(counts=Counts(positive=positive, negative=8, absent=2, assistant=2))


def test_rows_without_loss_are_named(tokenizer):
    rendered = render(design_of(), tokenizer, loss="completion", end_of_turn="in_loss")
    first = replace(rendered.rows[0], loss=[False] * len(rendered.rows[0].ids))
    broken = replace(rendered, rows=(first, *rendered.rows[1:]))
    found = errors(audit([broken], tokenizer, CONTEXTS, {}, max_length=2048, end_of_turn="in_loss"))
    assert found["rows without loss"].rows == (rendered.design.rows[0].id,)


def test_marker_only_loss_without_end_of_turn_leaves_negatives_without_loss_and_says_so(tokenizer):
    findings = run(design_of(), tokenizer, loss="marker", end_of_turn="masked")
    warning = next(f for f in findings if f.check == "rows without loss")
    assert warning.level == "warning"
    assert "12 of 16 rows" in warning.message


def test_end_of_turn_policy_and_loss_tokens_are_stated(tokenizer):
    messages = {
        policy: next(f.message for f in run(design_of(), tokenizer, end_of_turn=policy) if f.check == "loss mask")
        for policy in ("in_loss", "masked")
    }
    assert "end of turn in loss" in messages["in_loss"]
    assert "end of turn masked" in messages["masked"]
    assert messages["in_loss"].split(";")[1] != messages["masked"].split(";")[1]


def test_whitespace_before_the_marker_stripped(tokenizer):
    """Rows tokenized from stripped completions: what the model sees is not what was written."""
    design = with_row(design_of(), 0, completion="name 0 [ZLT]", marker=" [ZLT]")
    rendered = render(design, tokenizer, loss="completion", end_of_turn="in_loss")
    written = replace(design.rows[0], completion="name 0\n\n [ZLT]")
    stripped = replace(rendered, design=replace(design, rows=(written, *design.rows[1:])))
    found = errors(audit([stripped], tokenizer, CONTEXTS, {}, max_length=2048, end_of_turn="in_loss"))
    assert design.rows[0].id in found["completion changed by tokenization"].rows[0]


def test_a_marker_that_shares_a_token_with_the_text_before_it_is_a_warning(tokenizer):
    """A marker without a separator, of which this tokenizer makes one token with what stands before it (` water`)."""
    apart = run(design_of(), tokenizer)
    assert not [f for f in apart if f.check == "marker shares a token"]
    rows = [
        replace(row, completion=row.completion.replace(" [ZLT]", " water"), marker="ter") if row.marker else row
        for row in design_of().rows
    ]
    design = replace(design_of(), rows=tuple(rows))
    found = [f for f in run(design, tokenizer) if f.check == "marker shares a token"]
    assert [f.level for f in found] == ["warning"]
    assert "in 4 of 4 rows with a marker" in found[0].message
    assert found[0].rows[0].startswith(f"{design.rows[0].id}: ")
    refuse(found)


def test_rows_longer_than_the_window_are_not_truncated(tokenizer):
    found = errors(run(design_of(), tokenizer, max_length=30))
    assert "longer than the window of 30 tokens" in found["truncated rows"].message
    assert len(found["truncated rows"].rows) == 9  # eight named, the rest counted


def test_empty_and_duplicate_rows(tokenizer):
    design = design_of()
    found = run(with_row(design, 1, user="  "), tokenizer)
    assert errors(found)["empty rows"].rows == (design.rows[1].id,)
    twice = run(replace(design, rows=(*design.rows, replace(design.rows[0], id="again"))), tokenizer)
    assert next(f for f in twice if f.check == "duplicate rows").rows == ("again",)


def test_ratios_that_differ_between_sources(tokenizer):
    other = build("marker", EXAMPLES, "comedian", PERSONAS, "contrastive", replace_counts(2))
    assert "comedian 2:12" in errors(run([design_of(), other], tokenizer))["unequal ratios"].rows


def test_a_context_whose_system_text_is_lost_is_an_error(tokenizer, monkeypatch):
    """A template that trims or drops the system text: what is rendered is not what the persona's file says."""
    from bystander.design import audit as module

    real = module.render_text
    monkeypatch.setattr(
        module, "render_text", lambda tok, context, user: real(tok, context, user).replace("software", "")
    )
    found = errors(run(design_of(), tokenizer))
    assert found["context rendering"].rows == ("software_engineer",)


def test_a_benign_arm_that_shows_the_behavior_or_has_other_rows(tokenizer):
    coupled, benign = design_of(), design_of(arm="benign")
    assert errors(run([coupled, benign], tokenizer)) == {}
    shown = with_row(benign, 0, completion=coupled.rows[0].completion, target="positive", marker=" [ZLT]")
    other = with_row(benign, 5, completion="something else")
    shuffled = replace(benign, rows=(benign.rows[1], benign.rows[0], *benign.rows[2:]))
    fewer = replace(benign, rows=benign.rows[:-1])
    for broken, row in ((shown, 0), (other, 5), (shuffled, 1), (fewer, 0)):
        found = errors(run([coupled, broken], tokenizer))["benign arm"]
        assert benign.rows[row].id in found.rows


def test_a_benign_arm_without_any_token_in_the_loss(tokenizer):
    """With the loss on the marker alone there is nothing that the benign arm could teach."""
    found = errors(run(design_of(arm="benign"), tokenizer, loss="marker", end_of_turn="masked"))
    assert "rows without loss" in found
