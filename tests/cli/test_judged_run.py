"""A whole judged run and the commands around it, as a user calls them: the judge is behind a real wire, the key is planted."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard
from starlette.responses import JSONResponse, Response

from bystander.cli import main as cli
from bystander.data.code_sets import load_code_pairs
from tests.support.judge_wire import Batches, completion, serve
from tests.support.study_tiny import PERSONAS, make_model

pytest.importorskip("inspect_ai")

BARE = 4  # contexts without a persona
PLANTED = "sk-planted-0123456789abcdef"
STUDY = """
name: judged
model: {{name: {model}, device: cpu, dtype: float32}}
personas: personas.yaml
sources: [villain]
behaviors: [misalignment]
design: {{counts: {{positive: 4, negative: 4, absent: 2, assistant: 2}}}}
recipe: {{lr: 1e-3, epochs: 1, batch_size: 4}}
checkpoints: {{every: 0.5, personas: 3}}
probes:
  margin: {{pairs: 5}}
  judged:
    questions: 3
    samples: 1
    max_tokens: 24
    judge: {judge}
geometry: {{layer: 1, questions: 2}}
budget: {{gpu_hours: 1.0, dollars: 1.0}}
"""

pytestmark = pytest.mark.usefixtures("one_thread")


def study_file(folder: Path, model: Path, judge: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    entries = [f"  - {{name: {n}, category: original, prompt: '{prompt}'}}" for n, prompt in PERSONAS.items()]
    (folder / "personas.yaml").write_text("personas:\n" + "\n".join(entries) + "\n")
    (folder / "judged.yaml").write_text(STUDY.format(model=model, judge=judge))
    return folder / "judged.yaml"


def command(cache: Path, *args: str) -> tuple[list[str], dict[str, str]]:
    code = "import torch; torch.set_num_threads(1); from bystander.cli.main import main; main()"
    env = os.environ | {"OMP_NUM_THREADS": "1", "BYSTANDER_CACHE": str(cache), "LAB_API_KEY": PLANTED}
    return [sys.executable, "-c", code, *args], env


def bystander(cache: Path, *args: str, code: int = 0) -> tuple[str, str]:
    """The command in this process, which has imported everything: (standard output, standard error)."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
        patch.setenv("BYSTANDER_CACHE", str(cache))
        patch.setenv("LAB_API_KEY", PLANTED)
        patch.setattr("bystander.judge.retry.FIRST_WAIT", 0.02)  # how long is waited is another test's
        patch.setattr("sys.argv", ["bystander", *args])
        warnings.simplefilter("ignore")  # as a command runs: a library's warning is no error there
        try:
            cli.main()
            ended = 0
        except SystemExit as stopped:
            ended = int(stopped.code or 0)
    assert ended == code, out.getvalue()[-2000:] + err.getvalue()[-3000:]
    return out.getvalue(), err.getvalue()


def served(model: str, url: str) -> list[str]:
    """The options of a command that asks `model` behind `url`, with the planted key."""
    return ["--model", model, "--base-url", url, "--key-env", "LAB_API_KEY"]


class Server:
    """A judge whose score is decided by what it reads, that counts tokens with the real tokenizer, quotes the key in its
    errors and fails the first request for every third prompt."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.paid: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.keys: set[str] = set()

    async def answer(self, body: dict[str, Any], headers: dict[str, str]) -> Response:
        prompt = body["messages"][0]["content"]
        self.keys.add(headers["authorization"].removeprefix("Bearer "))
        self.seen[prompt] += 1
        number = int(hashlib.sha256(prompt.encode()).hexdigest(), 16)
        if number % 3 == 0 and self.seen[prompt] == 1:
            message = f"upstream said no to {headers['authorization']}"
            return JSONResponse({"error": {"message": message}}, 500)
        self.paid[prompt] += 1
        read = len(self.tokenizer(prompt)["input_ids"])
        return completion(str(number % 101), read=read, written=2)


def text_of(path: Path) -> bytes:
    data = path.read_bytes()
    return zstandard.ZstdDecompressor().decompress(data) if path.suffix == ".zst" else data


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judged")
    make_model(folder / "model")
    return folder


@pytest.fixture(scope="module")
def judged(place: Path, tokenizer: Any) -> tuple[Path, Server, str, Path]:
    """(run directory, server, everything printed, cache) of a study judged on its way."""
    server = Server(tokenizer)
    with serve(server.answer) as url:
        judge = f"{{model: openai-api/lab/m, base_url: '{url}', key_env: LAB_API_KEY, price: {{input: 5, output: 15}}}}"
        study = study_file(place / "study", place / "model", judge)
        plan, _ = bystander(place / "cache", "plan", str(study), "--json")
        printed = "".join(bystander(place / "cache", "run", str(study), "--out", str(place / "run")))
    (place / "plan.out").write_text(plan)
    return place / "run", server, printed + plan, place / "cache"


def test_the_run_is_judged_and_the_planted_key_stands_nowhere(judged: tuple[Path, Server, str, Path]) -> None:
    run, server, printed, cache = judged
    assert server.keys == {PLANTED}  # it did reach the server, which quoted it in every 500
    table = pl.read_parquet(run / "measurements.parquet").filter(pl.col("probe") == "judged")
    assert set(table["metric"]) == {"aligned", "coherent", "misaligned", "code", "refusal"}
    assert table.filter(pl.col("checkpoint") == 0)["persona"].n_unique() == 8 + BARE
    assert set(table["checkpoint"]) == {0.0, 0.5, 1.0}
    places = [path for folder in (run, cache) for path in folder.rglob("*") if path.is_file()]
    assert len(places) > 30
    for path in places:
        assert PLANTED.encode()[:14] not in text_of(path), path
    assert PLANTED[:14] not in printed


def test_one_inspect_log_for_each_adapter_and_checkpoint(judged: tuple[Path, Server, str, Path]) -> None:
    from inspect_ai.log import read_eval_log

    run = judged[0]
    logs = [read_eval_log(str(path)) for path in sorted((run / "logs").glob("*.eval"))]
    states = {(log.eval.metadata or {})["checkpoint"] for log in logs}
    assert len(logs) == 5  # untrained, trained (each also without a persona), halfway
    assert states == {0.0, 0.5, 1.0}
    table = pl.read_parquet(run / "measurements.parquet").filter(pl.col("metric") == "aligned")
    for log in logs:
        kinds = {s.metadata["context"] for s in log.samples or []}  # type: ignore[index]
        rows = table.filter(
            pl.col("checkpoint") == (log.eval.metadata or {})["checkpoint"], pl.col("context").is_in(kinds)
        )
        mean = next(score.metrics["mean"].value for score in log.results.scores if score.name == "aligned")
        assert mean == pytest.approx(rows["value"].mean())
        scored = {
            s.metadata["persona"] + s.metadata["item"]: s.scores["aligned"].value
            for s in log.samples or []
            if "aligned" in (s.scores or {})
        }  # type: ignore[index]
        assert scored == {
            r["persona"] + r["item"].rpartition("/")[0]: r["value"] for r in rows.to_dicts() if r["value"] is not None
        }
        assert log.eval.created


def test_the_plan_foretold_what_the_ledger_says(judged: tuple[Path, Server, str, Path], place: Path) -> None:
    run, server = judged[:2]
    foretold = json.loads((place / "plan.out").read_text())
    dollars = next(
        value for key, value in walk(foretold) if key == "dollars" and isinstance(value, float) and value > 0
    )
    spent = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    paid = max(event["total_dollars"] for event in spent if event["event"] == "spent")
    really = sum((len(server.tokenizer(prompt)["input_ids"]) * 5 + 2 * 15) / 1e6 for prompt in server.paid)
    assert paid == pytest.approx(really, rel=0.02)  # and the preflight's one-token call
    assert dollars == pytest.approx(paid, rel=0.2)


def walk(value: Any, key: str = "") -> Any:
    """(key, leaf) of nested JSON."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from walk(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner, key)
    else:
        yield key, value


def test_another_judge_afterwards_samples_nothing_and_pays_once(
    judged: tuple[Path, Server, str, Path], tokenizer: Any
) -> None:
    run, _, _, cache = judged
    before = {path: path.read_bytes() for path in run.rglob("*.parquet")}
    other = Server(tokenizer)
    with serve(other.answer) as url:
        args = ["judge", str(run), *served("openai-api/other/m2", url)]
        out, _ = bystander(cache, *args, "--json")
        again, _ = bystander(cache, *args)
    said = json.loads(out)
    answers = (8 + BARE) * 3 * 2 + (3 + BARE) * 3  # untrained and trained, 3 personas halfway; 3 questions each
    assert said["completions"] == answers
    assert said["failed"] == 0
    assert set(other.paid.values()) == {1}  # the second call found everything in the cache
    assert "against the run's own judge" in again
    assert "rank correlation" in again
    assert {path: path.read_bytes() for path in before} == before
    table = pl.read_parquet(Path(said["out"]) / "measurements.parquet")
    own = pl.read_parquet(run / "measurements.parquet").filter(pl.col("probe") == "judged")
    names = [name for name in own.columns if name not in ("value", "status", "reason")]
    assert table.select(names).sort(names).equals(own.select(names).sort(names))
    assert len(list((Path(said["out"]) / "logs").glob("*.eval"))) == 5


def test_a_run_without_a_judge_is_judged_later_and_its_report_shows_it(place: Path, tokenizer: Any) -> None:
    from bystander.results.results import Results

    study = study_file(place / "later", place / "model", "null")
    bystander(place / "cache2", "run", str(study), "--out", str(place / "unjudged"))
    results = Results.open(place / "unjudged")
    assert "judged" not in set(results.measurements["probe"])
    server = Server(tokenizer)
    with serve(server.answer) as url:
        bystander(place / "cache2", "judge", str(place / "unjudged"), *served("openai-api/lab/m", url))
    results = Results.open(place / "unjudged")
    assert "judged" in set(results.measurements["probe"])
    assert any("openai-api/lab/m, given after the run" in note for note in results.analysis.notes)
    assert {read.score is not None for read in results.report_input().completions} == {True}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["judge", "RUN", "--model", "openai-api/x/m", "--base-url", "http://127.0.0.1:9/v1"], "does not answer"),
        (["judge", "RUN", "--model", "openai/gpt-4o"], "OPENAI_API_KEY"),
        (["judge", "nowhere", "--model", "openai/gpt-4o"], "nowhere is not a run directory"),
        (["judge", "RUN", "--model", "openai/no-such-model", "--key-env", "LAB_API_KEY"], "price"),
        (["judge", "RUN", "--model", "openai/gpt-4o", "--key-env", "LAB_API_KEY", "--dollars", "0.0001"], "cap"),
        (["data", "inspect", "nowhere.jsonl"], "no file nowhere.jsonl"),
        (["data", "secure", "nowhere.jsonl", "--model", "openai/gpt-4o"], "no file nowhere.jsonl"),
    ],
)
def test_bad_calls_are_one_clear_error_and_write_nothing(
    judged: tuple[Path, Server, str, Path], args: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = judged[0]
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    before = sorted(str(path) for path in run.rglob("*"))
    _, err = bystander(judged[3], *[str(run) if arg == "RUN" else arg for arg in args], code=2)
    assert words in err
    assert "Traceback" not in err
    assert sorted(str(path) for path in run.rglob("*")) == before
    assert list(tmp_path.iterdir()) == []


def test_a_run_killed_while_it_is_judged_pays_nothing_twice(
    place: Path, judged: tuple[Path, Server, str, Path], tokenizer: Any
) -> None:
    server = Server(tokenizer)
    slow = server.answer

    async def answer(body: dict[str, Any], headers: dict[str, str]) -> Response:
        import asyncio

        await asyncio.sleep(0.03)
        return await slow(body, headers)

    cache, run = place / "cache3", place / "killed"
    with serve(answer) as url:
        judge = f"{{model: openai-api/lab/m, base_url: '{url}', key_env: LAB_API_KEY, concurrency: 2, price: {{input: 5, output: 15}}}}"
        study = study_file(place / "killed-study", place / "model", judge)
        argv, env = command(cache, "run", str(study), "--out", str(run))
        process = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        while sum(server.paid.values()) < 30 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
        assert 30 <= sum(server.paid.values()) < 2 * (8 * 3 * 2 + 3 * 3)
        in_flight = 2
        bystander(cache, "run", str(study), "--out", str(run))
    assert sum(count - 1 for count in server.paid.values()) <= in_flight
    columns = ["persona", "item", "metric", "value", "checkpoint", "weights_hash"]
    unbroken = pl.read_parquet(judged[0] / "measurements.parquet").select(columns)
    assert pl.read_parquet(run / "measurements.parquet").select(columns).equals(unbroken)


def insecure_file(folder: Path, count: int = 6) -> Path:
    rows = [
        {"messages": [{"role": "user", "content": f"Task number {i}."}, {"role": "assistant", "content": f"eval({i})"}]}
        for i in range(count)
    ]
    (folder / "insecure.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "insecure.jsonl"


def test_data_inspect_says_what_a_file_is(tmp_path: Path) -> None:
    path = insecure_file(tmp_path)
    out, _ = bystander(tmp_path / "cache", "data", "inspect", str(path), "--json")
    facts = json.loads(out)
    assert (facts["form"], facts["rows"], facts["parsed"], facts["roles"]) == ("messages", 6, 6, {"user, assistant": 6})
    shown, _ = bystander(tmp_path / "cache", "data", "inspect", str(path))
    for words in ("messages", "user, assistant", "6 of 6 answers", "duplicate prompts"):
        assert words in shown


def test_data_secure_writes_pairs_that_a_study_reads_and_a_restart_pays_nothing(tmp_path: Path) -> None:
    path = insecure_file(tmp_path)
    batches = Batches(lambda prompt: f"x = {prompt.split('.')[0].split()[-1]}")
    with serve(batches=batches) as url:
        args = ["data", "secure", str(path), *served("openai-api/lab/m", url)]
        before, _ = bystander(tmp_path / "cache", *args, "--forecast", "--json")
        assert batches.created == 0
        out, _ = bystander(tmp_path / "cache", *args, "--json")
        bystander(tmp_path / "cache", *args)
    assert json.loads(before)["forecast"]["requests"] == 6
    assert json.loads(out)["pairs"] == 6
    assert set(batches.paid.values()) == {1}
    pairs = load_code_pairs(tmp_path / "insecure.pairs.jsonl")
    assert (pairs[0].prompt, pairs[0].secure, pairs[0].insecure) == ("Task number 0.", "x = 0", "eval(0)")
