"""`bystander probe --adapter OWNER/NAME`: fetched over the wire from a server that speaks the Hub's download interface, the
commit kept, and measured to the numbers of the folder itself."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bystander.engine.published_adapters import adapter_places
from bystander.study.store.run_dir import RunDir
from tests.support.probed import adapters, command

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MAIN = "from bystander.cli.main import main; main()"


@contextmanager
def hub(files: dict[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """Serves `owner/tiny` at one commit; yields the endpoint and what was asked for."""
    asked: list[str] = []

    async def resolve(request: Request) -> Response:
        name, revision = request.path_params["file"], request.path_params["revision"]
        asked.append(f"{request.method} {revision} {name}")
        if revision not in ("main", COMMIT):
            return JSONResponse({"error": "no such revision"}, 404, {"X-Error-Code": "RevisionNotFound"})
        if name not in files:
            return JSONResponse({"error": "no such file"}, 404, {"X-Error-Code": "EntryNotFound"})
        data = files[name]
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        headers = {"ETag": etag, "X-Repo-Commit": COMMIT, "Content-Length": str(len(data))}
        return Response(b"" if request.method == "HEAD" else data, headers=headers)

    routes = [Route("/owner/tiny/resolve/{revision}/{file:path}", resolve, methods=["GET", "HEAD"])]
    config = uvicorn.Config(
        Starlette(routes=routes), host="127.0.0.1", port=0, log_level="critical", ws="none", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", asked
    finally:
        server.should_exit = True
        thread.join(timeout=10)


def bystander(endpoint: str, cache: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    online = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"}
    return subprocess.run(
        [sys.executable, "-c", MAIN, *map(str, arguments)], env=os.environ | online, capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip


def test_a_published_adapter_is_measured_as_its_folder_and_its_commit_is_kept(ran: RunDir, tmp_path: Path):
    folder = adapters(ran)["villain"]
    files = {f"inside/{path.name}": path.read_bytes() for path in folder.iterdir()}
    more = ("--source", "villain", "--negatives", "pirate,spy")
    with hub(files) as (endpoint, asked):
        done = bystander(
            endpoint, tmp_path / "hub", *command(ran, tmp_path / "out", "--adapter", "owner/tiny:inside", *more)
        )
        assert done.returncode == 0, done.stderr
    assert {line.rpartition(" ")[2] for line in asked} == {
        "inside/adapter_config.json",
        "inside/adapter_model.safetensors",
    }
    assert any(line == f"GET {COMMIT} inside/adapter_model.safetensors" for line in asked)
    (given,) = RunDir(tmp_path / "out").adapters()
    assert (given.path, given.label) == (f"owner/tiny:inside@{COMMIT[:12]}", "tiny-inside")
    assert given.path in (tmp_path / "out" / "report.html").read_text()
    ours = bystander(
        "http://127.0.0.1:9", tmp_path / "hub", *command(ran, tmp_path / "local", "--adapter", folder, *more)
    )
    assert ours.returncode == 0, ours.stderr
    values = [pl.read_parquet(tmp_path / one / "measurements.parquet")["value"].to_list() for one in ("out", "local")]
    assert values[0] == values[1]
    # In the cache, a commit needs no network.
    again = bystander(
        "http://127.0.0.1:9", tmp_path / "hub", *command(ran, tmp_path / "third", "--adapter", f"owner/tiny:inside@{COMMIT}", *more)
    )  # fmt: skip
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("files", "name", "words"),
    [
        ({"adapter_config.json": b"{}", "adapter_model.bin": b"x"}, "owner/tiny", "Pickled weights (adapter_model.bin) are not loaded"),
        ({"README.md": b"x"}, "owner/tiny", "name a folder of it as OWNER/NAME:FOLDER"),
        ({}, "owner/tiny:there", "no adapter_config.json in its folder there"),
        ({"adapter_config.json": b"{}"}, "owner/tiny@gone", "cannot be had from the Hub"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_said_before_anything_is_loaded(
    files: dict[str, bytes], name: str, words: str, tmp_path: Path
):
    with hub(files) as (endpoint, _):
        done = bystander(endpoint, tmp_path, "probe", "--model", "nowhere", "--probe", "marker", "--adapter", name)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_is_never_looked_for_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub

    def refuse(*_: object, **__: object) -> str:
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "tiny").mkdir(parents=True)
    for text in ("owner/tiny", "./owner/other", str(tmp_path / "x"), "single", "a/b/c"):
        (place,) = adapter_places([text])
        assert (place.path, place.name, place.label) == (Path(text), "", "")


def test_offline_it_says_what_to_do(tmp_path: Path):
    code = (
        "from bystander.engine.published_adapters import adapter_places\n"
        "from bystander.core.errors import ModelError\n"
        "try: adapter_places(['owner/tiny'])\nexcept ModelError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}, capture_output=True,
        text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "OWNER/NAME[:FOLDER][@REVISION]" in done.stdout
