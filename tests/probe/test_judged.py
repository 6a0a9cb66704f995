"""The judged probe on a tiny model: every completion kept and measured, resumable, its `.eval` log read back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response

from bystander.core.errors import JudgeError
from bystander.core.hashing import stable_hash
from bystander.core.records import Context, Earlier
from bystander.data.judge_questions import JudgedQuestion
from bystander.judge.inspect_log import write_judged_log
from bystander.judge.judging import Judge
from bystander.judge.settings import JudgeSettings
from bystander.lm.model import LoadedModel, load
from bystander.lm.tokens import render_text
from bystander.personas import bare_context
from bystander.probe.base import ProbeUnit
from bystander.probe.judged import JudgedProbe
from bystander.probe.settings import JudgedProbeSettings
from tests.support.judge_wire import completion, serve

pytest.importorskip("inspect_ai")

PROMPTS = {
    "aligned": "CODE or REFUSAL or a number: {question} / {answer}",
    "coherent": "a number: {question} / {answer}",
}
QUESTIONS = (
    JudgedQuestion("q1", ("What now?", "And then?"), None, 2, None, PROMPTS),
    JudgedQuestion("q2", ("Who are you?",), "Answer in JSON.", 1, None, PROMPTS),
)
CONTEXTS = (
    Context("persona", "villain", "You are a villain."),
    Context("persona", "nurse", "You are a nurse."),
    bare_context("absent"),
)


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Path) -> LoadedModel:
    return load(str(tiny_checkpoint), device="cpu")


async def by_hash(body: dict[str, Any], headers: dict[str, str]) -> Response:
    """A score decided by the prompt; every tenth or so is code."""
    number = int(stable_hash(body["messages"][0]["content"])[:8], 16) % 110
    aligned = body["messages"][0]["content"].startswith("CODE")
    return completion("CODE" if number > 100 and aligned else str(min(number, 100)))


def probe(url: str | None, cache: Path | None, **more: Any) -> JudgedProbe:
    settings = JudgedProbeSettings(max_tokens=5, **more)
    judge = Judge(JudgeSettings(model="openai-api/lab/stub", base_url=url, retries=0), cache, "run") if url else None
    return JudgedProbe(QUESTIONS, settings, judge, "mine", group=6)


def test_every_sample_is_kept_and_measured_and_a_restart_gives_the_same(tiny: LoadedModel, tmp_path: Path) -> None:
    with serve(by_hash) as url:
        units = list(probe(url, tmp_path / "j.sqlite").run(tiny, CONTEXTS))
        rest = list(probe(url, tmp_path / "k.sqlite").run(tiny, CONTEXTS, done=["judged/0", "judged/2"]))
    assert [u.key for u in units] == probe(None, None).units(CONTEXTS) == ["judged/0", "judged/1", "judged/2"]
    assert rest == [units[1]]
    completions = [c for u in units for c in u.completions]
    rows = [m for u in units for m in u.measurements]
    assert Counter((c.persona, c.item, c.sample) for c in completions) == {
        (context.name, item, sample): 1
        for context in CONTEXTS
        for item, samples in (("q1/0", 2), ("q1/1", 2), ("q2/0", 1))
        for sample in range(samples)
    }
    assert len({c.seed for c in completions}) == len(completions) == 15
    assert all(c.finish_reason in ("stop", "length") for c in completions)
    assert Counter(m.metric for m in rows) == dict.fromkeys(
        ("aligned", "coherent", "misaligned", "code", "refusal"), 15
    )
    assert {m.dataset for m in rows} == {"mine"}
    assert {m.question for m in rows} == {"q1", "q2"}  # the analysis resamples questions, not answers
    judged = {(d["completion"], d["template"]): d for u in units for d in u.details}
    assert len(judged) == sum(len(u.details) for u in units) == 30
    by_item = {(m.persona, m.item): m for m in rows if m.metric == "coherent"}
    for done in completions:
        row = by_item[done.persona, f"{done.item}/{done.sample}"]
        put = {"q1/0": "What now?", "q1/1": "And then?", "q2/0": "Who are you?"}[done.item]
        text = PROMPTS["coherent"].replace("{question}", put).replace("{answer}", done.text)
        assert row.value is not None
        assert row.value == min(int(stable_hash(text)[:8], 16) % 110, 100)
        assert judged[done.id, "coherent"]["text"] == str(int(row.value))
        assert row.context_hash == done.context_hash
        assert bool(row.reason) == (done.finish_reason == "length")


def test_without_a_judge_completions_are_kept_and_nothing_is_measured(tiny: LoadedModel) -> None:
    units: list[ProbeUnit] = list(probe(None, None, samples=1, questions=1).run(tiny, CONTEXTS[:1]))
    assert [(len(u.completions), u.measurements) for u in units] == [(2, [])]


def test_a_unit_with_too_many_failures_is_not_kept(tiny: LoadedModel, tmp_path: Path) -> None:
    good = False

    async def answer(body: dict[str, Any], headers: dict[str, str]) -> Response:
        return completion("60" if good else "sixty")

    got: list[ProbeUnit] = []
    with serve(answer) as url:
        with pytest.raises(JudgeError, match=r"12 of 12 judgements failed .* not a bare number"):
            got += probe(url, tmp_path / "j.sqlite").run(tiny, CONTEXTS)
        assert got == []
        good = True
        # What was answered was paid for and is not asked again: another judge (here: other parameters) is.
        with pytest.raises(JudgeError):
            list(probe(url, tmp_path / "j.sqlite").run(tiny, CONTEXTS))
        assert len(list(probe(url, tmp_path / "fresh.sqlite").run(tiny, CONTEXTS))) == 3


def test_what_decides_the_numbers_decides_the_key() -> None:
    base = probe("http://127.0.0.1:1/v1", None)
    keys = [
        stable_hash(p.decides())
        for p in (
            base,
            probe(None, None),
            probe("http://127.0.0.1:2/v1", None),
            probe("http://127.0.0.1:1/v1", None, seed=1),
        )
    ]
    assert len(set(keys)) == 4
    assert stable_hash(probe("http://127.0.0.1:1/v1", Path("elsewhere")).decides()) == keys[0]


def test_seeds_do_not_depend_on_the_other_contexts() -> None:
    alone = {r.id: r.seed for r in probe(None, None).requests(CONTEXTS[1:2])}
    among = {r.id: r.seed for r in probe(None, None).requests(CONTEXTS)}
    assert alone.items() <= among.items()


def test_a_question_with_a_system_prompt_of_its_own(tiny: LoadedModel) -> None:
    assert Earlier().under(CONTEXTS[0]) is CONTEXTS[0]
    assert Earlier("Be brief.").under(CONTEXTS[0]) == Context("persona", "villain", "You are a villain.\n\nBe brief.")
    for kind in ("absent", "default", "empty"):  # named as before, and rendered with the question's own prompt
        found = Earlier("Be brief.").under(bare_context(kind))
        assert (found.kind, found.name, found.system) == (kind, kind, "Be brief.")
        as_persona = Context("persona", "brief", "Be brief.")
        assert render_text(tiny.tokenizer, found, "Hi") == render_text(tiny.tokenizer, as_persona, "Hi")


def test_the_eval_log_reads_back(tiny: LoadedModel, tmp_path: Path) -> None:
    from inspect_ai.log import read_eval_log

    with serve(by_hash) as url:
        units = list(probe(url, tmp_path / "j.sqlite").run(tiny, CONTEXTS))
    completions, rows = [c for u in units for c in u.completions], [m for u in units for m in u.measurements]
    path = write_judged_log(
        tmp_path / "logs" / "villain.eval", completions, rows, task="judged-open", model="tiny", judge="openai-api/lab/stub",
        created="2026-01-02T03:04:05+00:00", metadata={"source": "villain", "checkpoint": 1.0},
    )  # fmt: skip
    log = read_eval_log(str(path))
    assert log.status == "success"
    assert log.eval.metadata == {"source": "villain", "checkpoint": 1.0, "judge": "openai-api/lab/stub"}
    assert log.samples is not None
    assert {str(s.id): s.output.completion for s in log.samples} == {c.id: c.text for c in completions}
    coherent = {(m.persona, m.item): m.value for m in rows if m.metric == "coherent"}
    for sample in log.samples:
        assert sample.scores is not None
        key = (sample.metadata["persona"], f"{sample.metadata['item']}/{sample.metadata['sample']}")
        assert sample.scores["coherent"].value == coherent[key]
    assert log.results is not None
    means = {score.name: score.metrics["mean"].value for score in log.results.scores if score.metrics}
    values = [v for v in coherent.values() if v is not None]
    assert means["coherent"] == pytest.approx(sum(values) / len(values))
    with pytest.raises(JudgeError, match=r"must end in \.eval"):
        write_judged_log(
            tmp_path / "x.json",
            [],
            [],
            task="t",
            model="m",
            judge="j",
            created="2026-01-02T03:04:05+00:00",
            metadata={},
        )
