"""The folder for what can be made again, and how a checkpoint gets into it whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path

from bystander.core.errors import ModelError

Notify = Callable[[str], None]  # gets a line of text before each step that takes long
STALE_SECONDS = 3600  # a partial folder this old belongs to a process that was killed


def cache_dir() -> Path:
    """The folder for what can be made again: BYSTANDER_CACHE, or the user's cache folder."""
    override = os.environ.get("BYSTANDER_CACHE")
    if override:
        return Path(override).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("bystander"))


def kept_checkpoint(name: str, folder: str, needed_bytes: int, make: Callable[[Path, Path], None]) -> Path:
    """The checkpoint in `folder` of the cache's models, made at the first call.

    `make(scratch, target)` writes it to `target`; `scratch` is gone afterwards. `name` is how errors call the model.
    Raises ModelError for a full disk or a folder that cannot be written. Nothing half-written stays behind.
    """
    final = cache_dir() / "models" / folder
    if (final / "config.json").is_file():
        return final
    with _folder_errors(name, final.parent):
        final.parent.mkdir(parents=True, exist_ok=True)
        _drop_stale(final.parent, folder)
        free = shutil.disk_usage(final.parent).free
        if free < needed_bytes:
            raise ModelError(
                f"{name} needs {needed_bytes / 1e6:.0f} MB in {final.parent}, where {free / 1e6:.0f} MB are free. Free "
                "some space, or set BYSTANDER_CACHE to a folder on another disk."
            )
        with tempfile.TemporaryDirectory(prefix=f"{folder}-", suffix=".partial", dir=final.parent) as scratch:
            made = Path(scratch) / "checkpoint"
            make(Path(scratch), made)
            _install(made, final)
    return final


def _drop_stale(parent: Path, folder: str) -> None:
    for partial in parent.glob(f"{folder}-*.partial"):
        if time.time() - partial.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _folder_errors(name: str, folder: Path) -> Generator[None]:
    """Turns what the file system refuses into one clear message."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "The disk is full: free some space, or set BYSTANDER_CACHE to a folder on another disk."
        else:
            advice = "Set BYSTANDER_CACHE to a folder that can be written."
        raise ModelError(f"{name} cannot be kept in {folder}: {error}. {advice}") from error


def _install(made: Path, final: Path) -> None:
    """Renames the finished folder into place; a process that was faster has made the same one."""
    try:
        made.rename(final)
    except OSError:
        if not (final / "config.json").is_file():
            raise
