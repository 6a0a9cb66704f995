"""Batch mode over the wire: the id is kept, a restart collects, expired requests are sent again, nothing is paid twice."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bystander.core.errors import JudgeError
from bystander.judge.asking import ask
from bystander.judge.judging import Judge, judge_completions
from bystander.judge.settings import JudgeSettings, Price
from tests.support.judge_wire import QUESTIONS, Batches, completions, serve

pytest.importorskip("inspect_ai")


def score(prompt: str) -> str:
    found = re.search(r"answer number (\d+)", prompt)
    assert found
    return str(int(found.group(1)) % 101)


def judge(url: str, cache: Path, **more: Any) -> Judge:
    settings: dict[str, Any] = {
        "model": "openai-api/lab/stub", "base_url": url, "batch": True, "poll": 0.05, "price": Price(input=1.0, output=1.0),
    }  # fmt: skip
    return Judge(JudgeSettings(**{**settings, **more}), cache, "run")


def test_a_batch_of_judgements_at_half_the_price(tmp_path: Path) -> None:
    batches = Batches(score)
    with serve(batches=batches) as url:
        one = judge(url, tmp_path / "j.sqlite")
        got = list(judge_completions(completions(20), QUESTIONS, one))
        again = list(judge_completions(completions(20), QUESTIONS, judge(url, tmp_path / "j.sqlite")))
    assert Counter((j.score, j.status) for j in got) == {(float(i), "ok"): 2 for i in range(20)}
    assert batches.created == 1
    assert set(batches.paid.values()) == {1}
    assert one.ledger().dollars == pytest.approx(40 * 102e-6 / 2)
    assert all(j.cached for j in again)


def test_expired_requests_are_sent_again_and_then_given_up(tmp_path: Path) -> None:
    expired: Counter[str] = Counter()

    def answer(prompt: str) -> str | None:
        number = int(score(prompt))
        expired[prompt] += 1
        if number == 3 or (number == 4 and expired[prompt] == 1):
            return None
        return score(prompt)

    batches = Batches(answer)
    with serve(batches=batches) as url:
        got = list(judge_completions(completions(6), QUESTIONS, judge(url, tmp_path / "j.sqlite")))
    by = {(j.completion, j.template): j for j in got}
    assert len(by) == len(got) == 12
    assert by["c4", "aligned"].score == 4.0
    assert {(j.status, j.score) for j in got if j.completion == "c3"} == {("failed", None)}
    assert "expired" in by["c3", "aligned"].reason
    assert set(batches.paid.values()) == {1}
    assert batches.created == 3


def test_a_restart_collects_the_batch_that_was_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = Batches(score)
    monkeypatch.setattr("bystander.judge.batch.FIRST_LOOK", 3600.0)
    with serve(batches=batches) as url:
        first = judge(url, tmp_path / "j.sqlite", poll=3600.0)  # it must not wake after this test has ended
        client, requests = (
            first.client,
            [first.request(c, QUESTIONS[c.item[:-2]], t) for c in completions(5) for t in ("aligned", "coherent")],
        )
        stream = ask(client, requests)  # stands for a process that ends while it waits for the batch
        import threading

        worker = threading.Thread(target=lambda: next(stream, None), daemon=True)
        worker.start()
        while not any(batch.id for batch in client.store.open_batches(client.endpoint())):
            worker.join(timeout=0.02)
        got = list(judge_completions(completions(5), QUESTIONS, judge(url, tmp_path / "j.sqlite")))
    assert batches.created == 1
    assert len(got) == 10
    assert set(batches.paid.values()) == {1}


def test_a_create_whose_answer_was_lost_is_found_and_not_repeated(tmp_path: Path) -> None:
    batches = Batches(score)
    batches.fail_next_create = 1
    with serve(batches=batches) as url:
        got = list(judge_completions(completions(4), QUESTIONS, judge(url, tmp_path / "j.sqlite")))
    assert batches.created == 1
    assert {j.status for j in got} == {"ok"}
    assert set(batches.paid.values()) == {1}


def test_announced_but_never_sent_is_sent(tmp_path: Path) -> None:
    batches = Batches(score)
    with serve(batches=batches) as url:
        one = judge(url, tmp_path / "j.sqlite")
        requests = [one.request(c, QUESTIONS[c.item[:-2]], t) for c in completions(2) for t in ("aligned", "coherent")]
        one.client.store.announce("nonce", one.client.endpoint(), [request.key for request in requests])
        got = list(judge_completions(completions(2), QUESTIONS, one))
        assert one.client.store.open_batches(one.client.endpoint()) == []
    assert len(got) == 4
    assert batches.created == 1


def test_the_cap_is_looked_at_before_a_batch_is_sent(tmp_path: Path) -> None:
    batches = Batches(score)
    with serve(batches=batches) as url, pytest.raises(JudgeError, match="cap of"):
        list(judge_completions(completions(20), QUESTIONS, judge(url, tmp_path / "j.sqlite", dollars=0.0001)))
    assert batches.created == 0


def test_preflight_in_batch_mode_sends_nothing_and_says_a_wrong_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_API_KEY", "sk-right-0123456789")
    batches = Batches(score)
    batches.key = "sk-right-0123456789"
    with serve(batches=batches) as url:
        judge(url, tmp_path / "j.sqlite").preflight(["m"])
        assert batches.created == 0
        monkeypatch.setenv("LAB_API_KEY", "sk-wrong-0123456789")
        with pytest.raises(JudgeError, match="refuses the key"):
            judge(url, tmp_path / "j.sqlite").preflight(["m"])
