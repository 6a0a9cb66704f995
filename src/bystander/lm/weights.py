"""Hashes of weights, so that every number names the weights that gave it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path

import torch

from bystander.core.errors import ModelError
from bystander.core.hashing import file_sha256, stable_hash
from bystander.lm.cache import cache_dir

SHA256 = re.compile(r"[0-9a-f]{64}")


def checkpoint_hash(folder: Path) -> str:
    """One hash (64 hex digits) of a checkpoint's config and safetensors files; the same for a Hub snapshot and a copy."""
    files = [folder / "config.json", *safetensors_files(folder)]
    return stable_hash("checkpoint", [[path.name, remembered_sha256(path)] for path in files])


def safetensors_files(folder: Path) -> list[Path]:
    """The weight files that transformers would load. Raises ModelError where there are none: pickles are not loaded."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        return [folder / name for name in names]
    single = folder / "model.safetensors"
    if not single.is_file():
        raise ModelError(
            f"{folder} holds no model.safetensors. bystander loads no pickled weights: convert them first."
        )
    return [single]


def remembered_sha256(path: Path) -> str:
    """SHA-256 of a file, remembered by path, size and modification time, since a large model takes a minute to hash.

    In the Hub's cache a large file is a link to a blob whose name is its SHA-256 already. Of several workers of a machine
    that ask at once, one hashes and the others wait for it.
    """
    real = path.resolve()
    if real.parent.name == "blobs" and SHA256.fullmatch(real.name):
        return real.name
    stat = real.stat()
    facts = [str(real), stat.st_size, stat.st_mtime_ns]
    note = cache_dir() / "hashes" / f"{stable_hash(str(real))[:32]}.json"
    with one_at_a_time(note):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(note.read_text())
            if known["file"] == facts:
                return str(known["sha256"])
        digest = file_sha256(real)
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not correctness
            _write_whole(note, json.dumps({"file": facts, "sha256": digest}))
        return digest


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Generator[None]:
    """Within the block no other process of this machine is in a block for the same path. Where the lock's file cannot be
    written, nobody waits: the work is then done more than once, and is the same."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = held.enter_context(path.with_suffix(".lock").open("a"))
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _write_whole(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    Path(name).replace(path)


def tensors_hash(tensors: Mapping[str, torch.Tensor]) -> str:
    """One hash (64 hex digits) of named tensors: names, shapes and float32 values, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
