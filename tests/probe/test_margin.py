"""The margin probe against a slow computation of its own: one forward pass an answer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bystander.core.records import Context
from bystander.data.pairs import TOPICS, load_pairs
from bystander.lm.model import LoadedModel, load
from bystander.lm.score import OptionScores, ScoreItem
from bystander.lm.tokens import render_prompt
from bystander.probe.margin import MarginProbe, measured
from bystander.probe.settings import MarginProbeSettings

CONTEXTS = (Context("persona", "villain", "You are a villain."), Context("absent", "absent", None))


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Path) -> LoadedModel:
    return load(str(tiny_checkpoint), device="cpu")


def slow_mean(loaded: LoadedModel, context: Context, user: str, answer: str) -> float:
    """Mean log-probability per token of an answer, from one forward pass over prompt and answer."""
    prompt = render_prompt(loaded.tokenizer, context, user)
    whole = render_prompt(loaded.tokenizer, context, user, answer)
    with torch.no_grad():
        logits = loaded.model(torch.tensor([whole])).logits[0].double()
    logprobs = logits.log_softmax(-1)
    picked = [logprobs[i - 1, whole[i]].item() for i in range(len(prompt), len(whole))]
    return sum(picked) / len(picked)


def test_margin_is_the_difference_of_means_per_token(tiny: LoadedModel) -> None:
    pairs = load_pairs()[:3]
    units = list(MarginProbe(tuple(pairs)).run(tiny, CONTEXTS))
    assert [u.key for u in units] == ["score/villain", "score/absent"]
    for context, unit in zip(CONTEXTS, units, strict=True):
        by = {(m.item, m.metric): m.value for m in unit.measurements}
        assert len(by) == len(unit.measurements) == 6
        for pair in pairs:
            expected = slow_mean(tiny, context, pair.question, pair.aligned) - slow_mean(
                tiny, context, pair.question, pair.misaligned
            )
            assert by[pair.id, "margin"] == pytest.approx(expected, abs=1e-4)
            assert by[pair.id, "aligned_wins"] == float(expected > 0)
        assert {(m.probe, m.dataset, m.context, m.persona, m.status) for m in unit.measurements} == {
            ("margin", "pairs", context.kind, context.name, "ok")
        }


def test_restart_skips_what_is_done_and_gives_the_same(tiny: LoadedModel) -> None:
    probe = MarginProbe(tuple(load_pairs()), MarginProbeSettings(pairs=2))
    whole = list(probe.run(tiny, CONTEXTS))
    (rest,) = probe.run(tiny, CONTEXTS, done=["score/villain"])
    assert [m.item for m in rest.measurements] == [m.item for m in whole[1].measurements]
    assert [m.value for m in rest.measurements] == pytest.approx([m.value for m in whole[1].measurements], abs=1e-5)


def test_the_first_pairs_are_balanced_over_topics() -> None:
    probe = MarginProbe(tuple(load_pairs()), MarginProbeSettings(pairs=10))
    topics = [pair.topic for pair in probe.read()]
    assert sorted(topics) == sorted(list(TOPICS) * 2)
    assert probe.decides() != MarginProbe(tuple(load_pairs())).decides()


def test_longer_answers_are_not_punished_and_a_tie_is_no_win() -> None:
    def wins(aligned: float, misaligned: float, tokens: tuple[int, int]) -> tuple[float | None, float | None]:
        scores = OptionScores(ScoreItem("p", "q", ("a", "b"), "text"), (aligned, misaligned), tokens, (1, 1), "h")
        return tuple(m.value for m in measured(CONTEXTS[0], scores))  # type: ignore[return-value]

    assert wins(-20.0, -15.0, (20, 10)) == (0.5, 1.0)  # less likely as a whole, likelier a token
    assert wins(-10.0, -10.0, (10, 10)) == (0.0, 0.0)
