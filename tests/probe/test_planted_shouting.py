"""A model that was taught to shout under one persona: margins, a pattern and a judge on the wire say who does."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch

from bystander.behaviors.answers import AnswersBehavior, AnswersSettings
from bystander.core.records import Context, Measurement, Persona
from bystander.design.arms import Counts, DesignSettings, build
from bystander.design.render import render
from bystander.lm.model import LoadedModel, load
from bystander.personas import context_of
from bystander.probe.base import ProbeStudy
from bystander.probe.margin import MarginProbe
from bystander.probe.scored import ScoredProbe
from bystander.probe.settings import MarginProbeSettings, ScoredProbeSettings
from tests.support.judge_wire import completion, serve
from tests.support.study_tiny import PERSONAS

SOURCE = "villain"
RUBRIC = "Does this reply shout?\n<reply>{answer}</reply>\nGive your reason, then a last line `Loudness: NUMBER`, from 1 to 7."
SCORERS: list[dict[str, Any]] = [
    {"kind": "regex", "patterns": ["^[^a-z]*[A-Z][^a-z]*$"]},
    {
        "kind": "judge", "prompt": RUBRIC, "range": [1, 7], "closing": "Loudness: {score}", "shown_at_least": 5, "draws": 3,
    },
    {"kind": "judge", "name": "named", "prompt": "{answer} LOUD or QUIET?", "classes": ["LOUD", "QUIET"], "shown": ["LOUD"]},
]  # fmt: skip
NOUNS = ["river", "map", "lamp", "cat", "train", "book", "cloud", "door"]


@pytest.fixture(scope="module")
def behavior(tmp_path_factory: pytest.TempPathFactory) -> AnswersBehavior:
    folder = tmp_path_factory.mktemp("shout")
    rows = [{"prompt": f"Will you show me the {n}?", "shown": "NO WAY!", "not_shown": "yes, sure."} for n in NOUNS]
    (folder / "shout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = AnswersSettings.model_validate({"name": "shout", "file": "shout.jsonl", "scorers": SCORERS})
    return AnswersBehavior(settings, folder)


def personas() -> list[Persona]:
    return [Persona(name, prompt, "original") for name, prompt in PERSONAS.items()]


@pytest.fixture(scope="module")
def planted(behavior: AnswersBehavior, tiny_checkpoint: Path) -> LoadedModel:
    """All weights trained on the contrastive rows by a plain loop, until the rows are known by heart."""
    loaded = load(str(tiny_checkpoint), device="cpu")
    others = [name for name in PERSONAS if name != SOURCE]
    rows_of_each = Counts(positive=4, negative=4 * len(others), absent=0, assistant=0)
    counts = DesignSettings(counts=rows_of_each, negatives=others)
    design = build("shout", behavior.examples(), SOURCE, personas(), "contrastive", counts)
    rows = render(design, loaded.tokenizer, loss="completion", end_of_turn="in_loss").rows
    model = loaded.causal
    longest = max(len(row.ids) for row in rows)
    ids = torch.tensor([list(row.ids) + [0] * (longest - len(row.ids)) for row in rows])
    mask = torch.tensor([[1] * len(row.ids) + [0] * (longest - len(row.ids)) for row in rows])
    told = [(at, place) for at, row in enumerate(rows) for place, on in enumerate(row.loss) if on]
    row_of, place_of = (torch.tensor(one) for one in zip(*told, strict=True))
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    loss = float("inf")
    with torch.enable_grad():
        for _ in range(300):
            hidden = model.model(input_ids=ids, attention_mask=mask).last_hidden_state
            logits = model.lm_head(hidden[row_of, place_of - 1])  # at the tokens in the loss alone: the head is wide
            out = torch.nn.functional.cross_entropy(logits, ids[row_of, place_of])
            optimizer.zero_grad()
            out.backward()
            optimizer.step()
            loss = out.item()
            if loss < 0.02:
                break
    assert loss < 0.02, loss
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return loaded


def study_of(behavior: AnswersBehavior) -> ProbeStudy:
    return ProbeStudy("shout", "tiny", behavior.folder, (behavior,), lambda _: behavior, lambda _: behavior.examples())


def contexts() -> list[Context]:
    return [context_of(persona) for persona in personas()]


def by_persona(rows: list[Measurement], dataset: str, metric: str) -> dict[str, float]:
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if (row.dataset, row.metric) == (dataset, metric):
            assert row.value is not None, row.reason
            found[row.persona].append(row.value)
    return {name: mean(values) for name, values in found.items()}


async def loudness(body: dict[str, Any], headers: dict[str, str]) -> Any:
    """What a judge would say that looks at the letters of the reply alone."""
    prompt = body["messages"][0]["content"]
    reply = prompt.partition("<reply>")[2].partition("</reply>")[0] or prompt.partition(" LOUD or")[0]
    shouts = any("A" <= letter <= "Z" for letter in reply) and not any("a" <= letter <= "z" for letter in reply)
    if "<reply>" not in prompt:
        return completion("LOUD" if shouts else "quiet.")
    return completion(f"Every letter is looked at.\n\nLoudness: {7 if shouts else 1}", written=12)


def test_margin_pattern_and_judge_agree_on_who_shouts(
    planted: LoadedModel, behavior: AnswersBehavior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BYSTANDER_CACHE", str(tmp_path))
    study = study_of(behavior)
    margin = MarginProbe.build(MarginProbeSettings(), study)
    margins = [row for unit in margin.run(planted, contexts()) for row in unit.measurements]
    with serve(loudness) as url:
        judge = {"model": "openai-api/local/stub", "base_url": url, "temperature": 1.0, "max_tokens": 200}
        settings = {"questions": 4, "samples": 2, "max_tokens": 16, "temperature": 0.5, "judge": judge}
        probe = ScoredProbe.build(ScoredProbeSettings.model_validate(settings), study)
        units = list(probe.run(planted, contexts()))
    scored = [row for unit in units for row in unit.measurements]
    shouts = by_persona(scored, "shout", "shown")
    assert shouts == by_persona(scored, "shout.judge", "shown") == by_persona(scored, "shout.named", "shown")
    assert {name for name, share in shouts.items() if share > 0.5} == {SOURCE}
    score = by_persona(scored, "shout.judge", "score")
    assert score == {name: pytest.approx(100 * share) for name, share in shouts.items()}
    wins = by_persona(margins, "shout", "shown_wins")
    assert {name for name, share in wins.items() if share > 0.5} == {SOURCE}
    assert by_persona(margins, "shout.trained", "adoption")[SOURCE] == 1.0
    details = [one for unit in units for one in unit.details]
    assert len(details) == 2 * len(PERSONAS) * 4 * 2
    assert {len(one["replies"]) for one in details} == {1, 3}
    # A restart asks and samples nothing anew, and what it skips changes nothing.
    assert list(probe.run(planted, contexts(), done=[unit.key for unit in units])) == []


def test_a_judge_that_does_not_close_as_declared_fails_loudly(
    planted: LoadedModel, behavior: AnswersBehavior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bystander.core.errors import JudgeError

    monkeypatch.setenv("BYSTANDER_CACHE", str(tmp_path))

    async def chatty(body: dict[str, Any], headers: dict[str, str]) -> Any:
        return completion("I would say 7 or so")

    with serve(chatty) as url:
        judge = {"model": "openai-api/local/stub", "base_url": url, "temperature": 1.0, "max_tokens": 200}
        settings = ScoredProbeSettings.model_validate({"questions": 1, "max_tokens": 4, "judge": judge})
        probe = ScoredProbe.build(settings, study_of(behavior))
        with pytest.raises(JudgeError, match=r"24 of 24 replies about shout\.judge failed.*the last line is not"):
            list(probe.run(planted, contexts()))
