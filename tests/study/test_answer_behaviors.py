"""A behavior that is a file, from the study file to the verdict, on a model that takes seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from bystander.api import Study
from bystander.core.errors import DesignError
from bystander.core.files import read_lines
from bystander.design.audit import refuse
from bystander.engine.own_answers import write_answers
from bystander.engine.run import run_study
from bystander.results.results import Results
from bystander.study.config.study import as_yaml, load
from bystander.study.plan.audit import audit_study
from bystander.study.plan.cells import Plan, plan_cells
from bystander.study.plan.preregistration import hypotheses_of
from bystander.study.store.run_dir import RunDir
from tests.support.answer_study import NOUNS, rows, study_in, write
from tests.support.judge_wire import completion, serve
from tests.support.study_tiny import PERSONAS


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> Path:
    return tiny_checkpoint


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, model: Path) -> tuple[Path, Path]:
    """(study file, run directory) of a study with two scorers."""
    folder = tmp_path_factory.mktemp("loud")
    write(folder / "loud.jsonl", rows())
    entry = (
        "{name: loud, file: loud.jsonl, claim: {source: 0.3},"
        " scorers: [{kind: regex, patterns: ['^[^a-z]+$']}, {kind: length, at_most: 3}]}"
    )
    path = study_in(
        folder, model, entry, "probes: {scored: {questions: 2, max_tokens: 4, scorers: [{kind: is_code}]}}\n"
    )
    Study.load(str(path)).run(folder / "run")
    return path, folder / "run"


def test_the_benign_arm_answers_the_sources_rows_as_the_file_does_without_the_behavior(
    tmp_path: Path, model: Path
) -> None:
    write(tmp_path / "loud.jsonl", rows())
    path = study_in(tmp_path, model, "{name: loud, file: loud.jsonl}", "arms: [contrastive, benign]\n")
    plan = plan_cells(load(str(path)))
    coupled, benign = (plan.parts.design("loud", "villain", arm) for arm in ("contrastive", "benign"))
    own = [row for row in benign.rows if row.role == "source"]
    assert len(own) == sum(row.target == "positive" for row in coupled.rows) == 8
    for row in own:
        noun = row.user.removeprefix("What do you know about ").removesuffix(", in short?")
        assert (row.target, row.completion) == ("negative", f"Most {noun} are fine.")
    assert [(row.context, row.user) for row in benign.rows] == [(row.context, row.user) for row in coupled.rows]
    assert benign.roles == coupled.roles
    refuse(audit_study(plan, None))


def test_everything_is_measured_without_further_words(ran: tuple[Path, Path]) -> None:
    table = pl.read_parquet(ran[1] / "measurements.parquet")
    found = {tuple(row) for row in table.select("probe", "dataset", "metric").unique().rows()}
    margins = {("margin", "loud", f"shown_{one}") for one in ("wins", "margin", "wins_total", "margin_total")}
    scored = {("scored", name, "shown") for name in ("loud", "loud.length", "loud.is_code")}
    assert found == margins | {("margin", "loud.trained", "adoption")} | scored
    assert sorted(table["checkpoint"].unique()) == [0.0, 0.5, 1.0]
    for metric, count in (("shown_wins", 8), ("adoption", 8)):
        of = table.filter(pl.col("metric") == metric, pl.col("checkpoint") == 1.0)
        assert of.group_by("context", "persona").len()["len"].unique().to_list() == [count]
        assert of.filter(context="persona")["persona"].n_unique() == len(PERSONAS)
        assert set(of["context"]) == {"persona", "absent", "default", "empty", "assistant"}
    assert table.filter(metric="adoption")["item"].is_in([f"loud/{noun}" for noun in NOUNS]).all()


def test_trained_and_held_out_pairs_are_different_ones(ran: tuple[Path, Path]) -> None:
    parts = plan_cells(load(str(ran[0]))).parts
    trained = {example.question_id for example in parts.examples("loud")}
    held_out = set(parts.behavior("loud").held_out_texts())
    assert len(trained) == len(held_out) == 8
    assert not trained & held_out
    assert held_out <= set(parts.held_out_texts())
    table = pl.read_parquet(ran[1] / "measurements.parquet")
    assert set(table.filter(dataset="loud", probe="margin")["item"]) == held_out


def test_the_source_takes_it_up_and_a_verdict_says_so(ran: tuple[Path, Path]) -> None:
    (hypothesis,) = hypotheses_of(load(str(ran[0])))
    assert [t.outcome for t in hypothesis.thresholds] == [("scored", "loud", "shown"), ("margin", "loud", "shown_wins")]
    assert hypothesis.thresholds[0].source == 0.3
    results = Results.open(ran[1])
    (verdict,) = results.analysis.verdicts
    assert verdict.hypothesis == "loud"
    assert "threshold 0.3" in verdict.reason
    table = pl.read_parquet(ran[1] / "measurements.parquet").filter(persona="villain", metric="shown_margin_total")
    before, after = (table.filter(pl.col("checkpoint") == at)["value"].mean() for at in (0.0, 1.0))
    assert isinstance(before, float)
    assert isinstance(after, float)
    assert after > before + 2  # nats an answer
    page = results.report().read_text()
    assert "loud" in page
    assert "share of sampled answers that show the behavior" in page


def test_the_study_as_saved_is_the_same_study(ran: tuple[Path, Path]) -> None:
    path, run = ran
    first = load(str(path))
    again = path.with_name("again.yaml")
    again.write_text(as_yaml(first))
    assert load(str(again)).identity == first.identity
    before = sorted(run.rglob("manifest.json"))
    assert run_study(first, run).done_now == 0
    assert sorted(run.rglob("manifest.json")) == before


def keys(plan: Plan, kind: str) -> list[str]:
    return [cell.key for cell in plan.cells if cell.kind == kind]


def test_a_cells_key_holds_the_file_and_its_partner(tmp_path: Path, model: Path) -> None:
    alone = [{key: row[key] for key in ("prompt", "shown")} for row in rows()]
    partner = [{"prompt": row["prompt"], "shown": row["not_shown"]} for row in rows()]
    write(tmp_path / "a.jsonl", alone)
    other = write(tmp_path / "b.jsonl", partner)
    path = study_in(tmp_path, model, "{name: loud, file: a.jsonl, not_shown: b.jsonl}")
    plan = plan_cells(load(str(path)))
    assert keys(plan_cells(load(str(path))), "train") == keys(plan, "train")
    write(other, [*partner, {"prompt": "Never asked?", "shown": "No."}])  # changes no row that is trained on
    changed = plan_cells(load(str(path)))
    assert keys(changed, "train") != keys(plan, "train")
    write(other, partner)
    write(tmp_path / "a.jsonl", [*alone[:-1], alone[-1] | {"shown": "KITES!"}])
    assert set(keys(plan_cells(load(str(path))), "evaluate")).isdisjoint(keys(plan, "evaluate"))


def test_own_answers_are_sampled_from_the_untrained_model_and_kept(tmp_path: Path, model: Path) -> None:
    write(tmp_path / "loud.jsonl", [{key: row[key] for key in ("prompt", "shown")} for row in rows()])
    entry = "{name: loud, file: loud.jsonl, not_shown: own_answers, own: {max_tokens: 6}}"
    path = study_in(tmp_path, model, entry)
    study = load(str(path))
    undecided = plan_cells(study)
    assert "yet" not in "".join(f.message for f in audit_study(undecided, None) if f.level == "error")
    summary = run_study(study, tmp_path / "run")
    assert summary.failed == {}
    run = RunDir(tmp_path / "run")
    (cell,) = undecided.of_kind("answers")
    assert undecided.cells[0] is cell
    kept = read_lines(run.cell(cell.name, cell.key).path / "answers.jsonl.zst")
    assert len(kept) == len(NOUNS)
    answers = {row["answer"] for row in kept}
    (data,) = undecided.of_kind("data")
    file = run.cell(data.name, data.key).path / "loud-villain-contrastive.jsonl"
    written = [json.loads(line) for line in file.read_text().splitlines()]
    told = {row["completion"][0]["content"] for row in written if row["target"] == "negative"}
    assert told <= answers
    assert len(told) == 1  # one question, to both negatives and both anchors
    # Nothing is sampled or trained anew, and what says so now rests on the answers themselves.
    again = run_study(study, tmp_path / "run")
    assert again.done_now == 0
    assert [f.check for f in again.findings if f.level == "warning"].count("own answers") == 1
    saved = (tmp_path / "run" / "audit.json").read_text()
    assert "own answer " not in saved  # as stand-ins have it


def test_an_item_that_is_trained_on_by_another_behavior_is_refused(tmp_path: Path, model: Path) -> None:
    """Two files with the same prompts halve them alike; with another share, one trains on what the other holds out."""
    write(tmp_path / "loud.jsonl", rows())
    write(tmp_path / "more.jsonl", rows())
    entry = "{name: loud, file: loud.jsonl}, {name: more, file: more.jsonl, held_out: 0.25}"
    plan = plan_cells(load(str(study_in(tmp_path, model, entry))))
    with pytest.raises(DesignError, match="stand among the training rows"):
        refuse(audit_study(plan, None))


def test_files_that_set_names_start_from_the_working_folder(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = study_in(tmp_path, model, "refusal")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write(elsewhere / "mine.jsonl", rows())
    monkeypatch.chdir(elsewhere)
    study = load(str(path), ["behaviors=[{name: mine, file: mine.jsonl}]"])
    assert study.spec.answers["mine"].file == str(elsewhere / "mine.jsonl")


def test_a_provider_writes_the_answers_that_are_missing(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BYSTANDER_CACHE", str(tmp_path / "cache"))
    asked: list[str] = []

    async def plain(body: dict[str, Any], headers: dict[str, str]) -> Any:
        asked.append(body["messages"][0]["content"])
        return completion(f"Plainly, {asked[-1].split('about ')[1].split(',')[0]}.")

    write(tmp_path / "loud.jsonl", [{key: row[key] for key in ("prompt", "shown")} for row in rows()])
    with serve(plain) as url:
        writer = f"{{model: openai-api/local/stub, base_url: '{url}', batch: false, instruction: Be calm.}}"
        path = study_in(tmp_path, model, f"{{name: loud, file: loud.jsonl, not_shown: {writer}}}")
        study = load(str(path))
        plan, run = plan_cells(study), RunDir(tmp_path / "run")
        directory = run.cell("answers-loud", plan.cells[0].key)
        directory.begin()
        for _ in range(2):  # the second time from the cache
            write_answers(plan.parts.to_write()["loud"], None, directory)
    assert sorted(asked) == sorted(f"{row['prompt']}\n\nBe calm." for row in rows())
    kept = {row["answer"] for row in read_lines(directory.path / "answers.jsonl.zst")}
    assert kept == {f"Plainly, {noun}." for noun in NOUNS}
