"""Tensors to a safetensors file: whole or not there, and what the system refuses is an OSError."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

# The library has the system's number in the text of an error of its own: `(os error 28)`, before 0.6 `Os { code: 28, ...`.
NUMBER = re.compile(r"os error (\d+)|Os \{ code: (\d+)")


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file under a temporary name and rename it. Raises OSError, with its number, for a full disk
    or whatever else the system refuses; nothing half-written stays."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(dict(tensors), temporary, metadata=dict(metadata) if metadata else None)
        temporary.replace(path)
    except SafetensorError as error:
        found = NUMBER.search(str(error))
        if not found:
            raise
        number = int(found[1] or found[2])
        raise OSError(number, os.strerror(number), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
