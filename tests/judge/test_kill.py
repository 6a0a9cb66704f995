"""A process that is killed while it judges: what was answered is kept, and nothing that was kept is paid again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response

from bystander.judge.judging import judge_completions
from tests.support.judge_wire import QUESTIONS, completion, completions, judge, serve

pytest.importorskip("inspect_ai")
CONCURRENCY = 8
SCRIPT = """
import sys
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from tests.support.judge_wire import QUESTIONS, completions, judge
from bystander.judge.judging import judge_completions
for one in judge_completions(completions(100), QUESTIONS, judge(sys.argv[1], Path(sys.argv[2]), concurrency=8, timeout=30)):
    pass
"""


def test_sigkill_while_judging(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()

    async def answer(body: dict[str, Any], headers: dict[str, str]) -> Response:
        seen[body["messages"][0]["content"]] += 1
        await asyncio.sleep(0.02)
        return completion("77")

    cache = tmp_path / "j.sqlite"
    with serve(answer) as url:
        here = str(Path(__file__).resolve().parents[2])
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, url, str(cache), here], env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        deadline = time.monotonic() + 60
        while sum(seen.values()) < 60 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
        asked = sum(seen.values())
        kept = judge(url, cache).ledger().requests
        assert 60 - CONCURRENCY <= kept <= asked < 200
        got = list(judge_completions(completions(100), QUESTIONS, judge(url, cache, timeout=30)))
    assert len(got) == 200
    assert {j.score for j in got} == {77.0}
    assert sum(j.cached for j in got) == kept
    assert sum(seen.values()) == asked + 200 - kept  # only what had not been kept was asked again
    assert asked - kept <= CONCURRENCY
    assert judge("http://127.0.0.1:9/v1", cache).ledger().requests == 200
