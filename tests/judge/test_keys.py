"""Keys: found in the environment or `.env`, missing and wrong ones said before anything is sampled, never written."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from bystander.core.errors import JudgeError
from bystander.core.records import as_dict
from bystander.judge.answer_store import AnswerStore
from bystander.judge.client import Client
from bystander.judge.cost import price_of
from bystander.judge.judging import Judge, judge_completions
from bystander.judge.keys import Secret, find_key, read_env, redact, refuse_model_under_test, variable_of
from bystander.judge.settings import JudgeSettings, Price
from tests.support.judge_wire import QUESTIONS, completion, completions, serve

pytest.importorskip("inspect_ai")
PLANTED = "sk-planted-0123456789abcdef"


def test_the_variable_of_a_provider() -> None:
    assert variable_of(JudgeSettings(model="openai/gpt-4o")) == "OPENAI_API_KEY"
    assert variable_of(JudgeSettings(model="anthropic/claude-haiku-4-5")) == "ANTHROPIC_API_KEY"
    assert variable_of(JudgeSettings(model="openai-api/my-lab/judge")) == "MY_LAB_API_KEY"
    assert variable_of(JudgeSettings(model="openai/gpt-4o", key_env="LAB_KEY")) == "LAB_KEY"


def test_key_from_environment_then_env_file_then_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    settings = JudgeSettings(model="openai/gpt-4o")
    with pytest.raises(JudgeError, match=rf"set OPENAI_API_KEY in the environment, or in {tmp_path}/\.env or .*/\.env"):
        find_key(settings, tmp_path)
    (tmp_path / ".env").write_text(f"# keys\nexport OPENAI_API_KEY='{PLANTED}'  # mine\nOTHER=a$HOME\n")
    found = find_key(settings, tmp_path)
    assert found is not None
    assert found.value == PLANTED
    assert read_env(tmp_path)["OTHER"] == "a$HOME"
    (tmp_path / "here" / ".env").write_text(f"OPENAI_API_KEY={PLANTED}\n")
    elsewhere = find_key(
        settings, tmp_path / "studies"
    )  # of a built-in study, say: the working folder is looked in too
    assert elsewhere == found
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    again = find_key(settings, tmp_path)
    assert again is not None
    assert again.value == "sk-other"


def test_a_missing_key_is_said_by_preflight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAB_API_KEY", raising=False)
    settings = JudgeSettings(
        model="openai-api/lab/judge", base_url="https://judge.example.com/v1", price=Price(input=1, output=1)
    )
    with pytest.raises(JudgeError, match="needs a key: set LAB_API_KEY"):
        Judge(settings, None, folder=tmp_path).preflight(["m"])


@pytest.mark.parametrize("name", ["gpt-4o", "openai-gpt", "/x", "openai/", "openai-api/judge"])
def test_names_without_a_provider(name: str) -> None:
    with pytest.raises(JudgeError, match=r"judge\.model"):
        Client(JudgeSettings(model=name), AnswerStore(None), "t")


def test_the_model_under_test_is_no_judge() -> None:
    settings = JudgeSettings(model="openai-api/vllm/Qwen/Qwen2.5-7B-Instruct")
    for name in ("Qwen/Qwen2.5-7B-Instruct", "qwen2.5-7b-instruct", "/models/Qwen2.5-7B-Instruct/"):
        with pytest.raises(JudgeError, match="is the model under test"):
            refuse_model_under_test(settings, ["smollm2-135m", name])
    refuse_model_under_test(settings, ["smollm2-135m", "Qwen/Qwen2.5-14B-Instruct"])


def test_an_unknown_price_is_refused_and_a_local_server_is_free() -> None:
    with pytest.raises(JudgeError, match="no price is known"):
        price_of(JudgeSettings(model="openai/new-model"))
    assert price_of(JudgeSettings(model="openai-api/x/new", base_url="http://127.0.0.1:1/v1")) == Price(
        input=0, output=0
    )
    assert price_of(JudgeSettings(model="openai/gpt-4o-2024-08-06")).input == 2.5
    assert price_of(JudgeSettings(model="openai/new", price=Price(input=7, output=8))).output == 8


def test_a_wrong_key_is_said_by_preflight_and_the_server_that_quotes_it_is_hushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A planted key, a server that echoes it in every error and answer: it stands in no log, record, error or file."""
    monkeypatch.setenv("LAB_API_KEY", PLANTED)
    caplog.set_level(logging.DEBUG)
    refuse = True
    got_header: list[str] = []

    async def answer(body: dict[str, Any], headers: dict[str, str]) -> Response:
        key = headers["authorization"].removeprefix("Bearer ")
        got_header.append(key)
        if refuse:
            return JSONResponse({"error": {"message": f"Incorrect API key provided: {key}"}}, 401)
        if len(got_header) % 3 == 0:
            return JSONResponse({"error": {"message": f"overloaded, {key[:10]}***"}}, 500)
        return completion(f"your key is {key}")

    with serve(answer) as url:
        settings = JudgeSettings(model="openai-api/lab/stub", base_url=url, retries=0, concurrency=1)
        with pytest.raises(JudgeError) as caught:
            Judge(settings, tmp_path / "j.sqlite").preflight(["m"])
        assert "refuses the key" in str(caught.value)
        refuse = False
        judge = Judge(settings, tmp_path / "j.sqlite")
        got = list(judge_completions(completions(6), QUESTIONS, judge))
    assert set(got_header) == {PLANTED}  # it did reach the server
    written = [str(caught.value), repr(caught.value.__cause__), repr(judge), repr(judge.client.secret), caplog.text]
    written += [str(as_dict(one)) for one in got] + [str(judge.ledger())]
    written += [path.read_bytes().decode("latin1") for path in tmp_path.iterdir()]
    for text in written:
        assert PLANTED not in text
        assert PLANTED[:10] not in text


def test_redact_also_takes_away_what_a_server_shortened() -> None:
    secret = Secret(PLANTED)
    assert PLANTED[:9] not in redact(f"key {PLANTED} / {PLANTED[:12]}***", [secret, None])
    assert str(secret) == "[key]"
    assert PLANTED not in repr(secret)


def test_preflight_of_a_good_judge_costs_one_request_and_only_once(tmp_path: Path) -> None:
    seen = 0

    async def answer(body: dict[str, Any], headers: dict[str, str]) -> Response:
        nonlocal seen
        seen += 1
        return completion("50")

    with serve(answer) as url:
        judge = Judge(JudgeSettings(model="openai-api/lab/stub", base_url=url), tmp_path / "j.sqlite")
        judge.preflight(["m"])
        judge.preflight(["m"])
    assert seen == 1


def test_a_server_that_is_not_there_is_said_by_preflight() -> None:
    settings = JudgeSettings(model="openai-api/lab/stub", base_url="http://127.0.0.1:9/v1", retries=0)
    with pytest.raises(JudgeError, match="does not answer"):
        Judge(settings, None).preflight(["m"])
