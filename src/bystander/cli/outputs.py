"""Where a command will write: looked at before the work begins, so that nothing is measured or paid for and then lost."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from bystander.core.errors import StoreError


def check_file(option: str, path: Path, endings: Sequence[str]) -> None:
    """Raises StoreError for a file that cannot be written, or whose name does not end as what is written."""
    if path.suffix not in endings:
        raise StoreError(f"{option} {path}: the name must end in {' or '.join(endings)}, which is what is written")
    if path.is_dir():
        raise StoreError(f"{option} {path} is a folder; name a file")
    if path.exists() and not os.access(path, os.W_OK):
        raise StoreError(f"{option} {path} is there and may not be written; name another file")
    check_folder(option, path.parent)


def check_page(option: str, path: Path) -> None:
    """As `check_file`, for an HTML page or a folder to hold it."""
    if path.suffix and not path.is_dir():
        check_file(option, path, [".html"])
    else:
        check_folder(option, path)


def check_folder(option: str, path: Path) -> None:
    """Raises StoreError for a folder that is not there and cannot be made, or in which nothing may be written."""
    nearest = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if not nearest.is_dir():
        raise StoreError(f"{option} {path}: {nearest} is a file; name a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise StoreError(f"{option} {path}: nothing may be written in {nearest}; name another place")
