"""1,000 judgements over a real wire with 20 % faults: none lost, none double-paid, none turned into a number it was not."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from bystander.core.errors import JudgeError
from bystander.judge.judging import judge_completions, measure_all, refuse_failures
from bystander.judge.settings import Price
from tests.support.judge_wire import QUESTIONS, Cut, completion, completions, judge, serve

pytest.importorskip("inspect_ai")

PASSING = ("429", "500", "cut", "hang", "malformed", "html")  # asked again, they are answered
FINAL = {"empty": "", "words": "I can't judge that", "150": "150", "fraction": "aligned: 70/100"}
# Half as many hangs as others: each costs a whole timeout.
KINDS = [*PASSING, *FINAL, *("500" if kind == "hang" else kind for kind in PASSING), *FINAL]


def fault_of(number: int) -> str | None:
    """Every fifth judgement has a fault, each kind as often."""
    return KINDS[number // 5 % len(KINDS)] if number % 5 == 0 else None


def score_of(number: int) -> int:
    return number % 101


class FaultyServer:
    """Answers `score_of(number)`, the number standing in the prompt; faults as `fault_of` says, the passing ones on the
    first one or two requests of a judgement."""

    def __init__(self) -> None:
        self.seen: Counter[int] = Counter()
        self.well_formed: Counter[int] = Counter()
        self.faults: Counter[str] = Counter()

    async def __call__(self, body: dict[str, Any], headers: dict[str, str]) -> Response:
        prompt = body["messages"][0]["content"]
        found = re.search(r"answer number (\d+)", prompt)
        assert found, prompt
        number = 2 * int(found.group(1)) + ("makes sense" in prompt)
        self.seen[number] += 1
        fault = fault_of(number)
        if fault in PASSING and self.seen[number] <= 1 + number % 2:
            self.faults[fault] += 1
            return await self.passing(fault)
        self.well_formed[number] += 1
        if fault in FINAL:
            self.faults[fault] += 1
            return completion(FINAL[fault])
        return completion(str(score_of(number)))

    async def passing(self, fault: str) -> Response:
        match fault:
            case "429":
                return JSONResponse({"error": {"message": "slow down"}}, 429, headers={"retry-after": "0.05"})
            case "500":
                return JSONResponse({"error": {"message": "boom"}}, 500)
            case "cut":
                return Cut()
            case "hang":
                await asyncio.sleep(20)
                return completion("99")  # too late: nobody waits for it any more
            case "malformed":
                return PlainTextResponse('{"id": "c", "choices": [', media_type="application/json")
            case _:
                return HTMLResponse("<html><body>42</body></html>")


def test_a_thousand_judgements_under_faults(tmp_path: Path) -> None:
    server, answers = FaultyServer(), completions(500)
    with serve(server) as url:
        # Long enough for a machine under load: an answer that comes too late is asked for again, and rightly so.
        first = judge(url, tmp_path / "judge.sqlite", price=Price(input=1.0, output=1.0), timeout=6.0)
        got = list(judge_completions(answers, QUESTIONS, first))
        requests = sum(server.seen.values())
        again = list(judge_completions(answers, QUESTIONS, judge(url, tmp_path / "judge.sqlite")))
        assert sum(server.seen.values()) == requests  # nothing was asked again
    assert sum(fault_of(n) is not None for n in range(1000)) == 200
    assert set(server.faults) == set(KINDS)
    # None lost: one judgement for every completion and template.
    assert Counter((j.completion, j.template) for j in got) == {
        (c.id, t): 1 for c in answers for t in ("aligned", "coherent")
    }
    # None double-paid: the server gave each judgement exactly one well-formed answer, and the ledger has each once.
    assert server.well_formed == dict.fromkeys(range(1000), 1)
    ledger = first.ledger()
    assert (ledger.requests, ledger.input_tokens) == (1000, 100_000)
    assert ledger.dollars == pytest.approx(1000 * 102e-6)
    assert ledger.broken > 0  # cut, hung and unreadable ones may be billed: entered apart
    # None turned into a number that it was not.
    for one in got:
        number = 2 * int(one.completion[1:]) + (one.template == "coherent")
        if fault_of(number) in FINAL:
            assert (one.status, one.score) == ("failed", None), one
            assert one.reason
        else:
            assert (one.status, one.score, one.label) == ("ok", float(score_of(number)), "number"), one
    assert {(j.completion, j.template, j.status, j.score) for j in again} == {
        (j.completion, j.template, j.status, j.score) for j in got
    }
    assert all(j.cached for j in again)

    rows = measure_all(answers, got, "open")
    assert len(rows) == 5 * 500
    assert all((row.value is None) == (row.status != "ok") for row in rows)
    with pytest.raises(JudgeError, match=r"80 of 1000 judgements failed \(8\.0%"):
        refuse_failures(got, 0.05)
    refuse_failures(got, 0.08)


def test_retry_after_is_kept_to() -> None:
    times: list[float] = []

    async def answer(body: dict[str, Any], headers: dict[str, str]) -> Response:
        times.append(time.monotonic())
        return (
            JSONResponse({"error": {"message": "slow"}}, 429, headers={"retry-after": "1.5"})
            if len(times) == 1
            else completion("50")
        )

    with serve(answer) as url:
        (one, _) = judge_completions(completions(1), QUESTIONS, judge(url, None, concurrency=1))
    assert one.score == 50.0
    assert one.attempts == 2
    assert times[1] - times[0] >= 1.5


def test_retries_used_up_is_a_row_with_a_reason_and_is_asked_again_next_time(tmp_path: Path) -> None:
    broken = True

    async def answer(body: dict[str, Any], headers: dict[str, str]) -> Response:
        return JSONResponse({"error": {"message": "out to lunch"}}, 503) if broken else completion("12")

    with serve(answer) as url:
        (one, two) = judge_completions(completions(1), QUESTIONS, judge(url, tmp_path / "j.sqlite", retries=0))
        assert (one.status, one.score) == (two.status, two.score) == ("failed", None)
        assert "after 1 attempt:" in one.reason
        assert "out to lunch" in one.reason
        broken = False
        assert {j.score for j in judge_completions(completions(1), QUESTIONS, judge(url, tmp_path / "j.sqlite"))} == {
            12.0
        }


def test_a_server_that_is_down_stops_the_run_early() -> None:
    async def answer(body: dict[str, Any], headers: dict[str, str]) -> Response:
        return JSONResponse({"error": {"message": "down"}}, 503)

    with serve(answer) as url, pytest.raises(JudgeError, match=r"10 requests in a row .* got no answer.*start again"):
        list(judge_completions(completions(100), QUESTIONS, judge(url, None, retries=0)))


@pytest.mark.parametrize(
    ("status", "words"), [(401, "refuses the key"), (404, "does not know the model"), (402, "no credit left")]
)
def test_faults_that_no_request_can_pass_stop_at_once(status: int, words: str) -> None:
    seen = 0

    async def answer(body: dict[str, Any], headers: dict[str, str]) -> Response:
        nonlocal seen
        seen += 1
        return JSONResponse({"error": {"message": "no"}}, status)

    with serve(answer) as url, pytest.raises(JudgeError, match=words):
        list(judge_completions(completions(50), QUESTIONS, judge(url, None, concurrency=4)))
    assert seen <= 4


def test_a_refused_request_is_not_repeated() -> None:
    seen: Counter[str] = Counter()

    async def answer(body: dict[str, Any], headers: dict[str, str]) -> Response:
        prompt = body["messages"][0]["content"]
        seen[prompt] += 1
        return (
            JSONResponse({"error": {"message": "prompt too long"}}, 400) if "number 1" in prompt else completion("60")
        )

    with serve(answer) as url:
        got = list(judge_completions(completions(2), QUESTIONS, judge(url, None)))
    assert set(seen.values()) == {1}
    assert sorted((j.completion, j.status) for j in got) == [("c0", "ok")] * 2 + [("c1", "failed")] * 2


def test_closing_early_keeps_what_was_answered(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()

    async def answer(body: dict[str, Any], headers: dict[str, str]) -> Response:
        seen[body["messages"][0]["content"]] += 1
        await asyncio.sleep(0.01)
        return completion("33")

    with serve(answer) as url:
        stream = judge_completions(completions(100), QUESTIONS, judge(url, tmp_path / "j.sqlite", concurrency=4))
        for _ in range(60):
            next(stream)
        stream.close()
        kept = judge(url, tmp_path / "j.sqlite").ledger().requests
        assert 60 <= kept <= 70
        rest = list(judge_completions(completions(100), QUESTIONS, judge(url, tmp_path / "j.sqlite")))
    assert len(rest) == 200
    assert sum(j.cached for j in rest) == kept
    assert sum(seen.values()) <= 200 + 4  # at most those that were in flight at the stop


def test_the_cap_stops_before_it_is_passed(tmp_path: Path) -> None:
    async def answer(body: dict[str, Any], headers: dict[str, str]) -> Response:
        return completion("50", read=1000, written=0)

    with serve(answer) as url:
        capped = judge(url, tmp_path / "j.sqlite", dollars=0.02, price=Price(input=1.0, output=1.0), concurrency=4)
        with pytest.raises(JudgeError, match=r"cap of \$0\.0200"):
            list(judge_completions(completions(100), QUESTIONS, capped))
        spent = capped.ledger().dollars
        assert 0.015 < spent <= 0.022  # the estimate of a prompt is not its exact cost
        more = judge(url, tmp_path / "j.sqlite", dollars=1.0, price=Price(input=1.0, output=1.0))
        got = list(judge_completions(completions(100), QUESTIONS, more))
    assert sum(j.cached for j in got) == round(spent / 0.001)
    assert len(got) == 200
