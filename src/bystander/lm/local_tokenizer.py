"""A model's tokenizer with its chat template, from what is on this machine; nothing is fetched and no weights are read."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from bystander.core.errors import ModelError
from bystander.lm import embedded
from bystander.lm.tokens import Tokenizer


def local_tokenizer(model: str) -> Tokenizer:
    """By embedded name, folder, GGUF or Hub id. Raises ModelError where it is not on this machine or cannot be read."""
    if model.lower().endswith(".gguf"):
        return _of_gguf(model)
    from transformers import AutoTokenizer

    source = str(embedded.cache_dir() / "models" / embedded.DIRECTORY) if model == embedded.NAME else model
    try:
        return cast("Tokenizer", AutoTokenizer.from_pretrained(source, local_files_only=True))
    except (OSError, ValueError, KeyError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(
            f"the tokenizer of {model} is not on this machine or cannot be read ({first}). Give a checkpoint's folder, or "
            "fetch the model first."
        ) from error


def _of_gguf(model: str) -> Tokenizer:
    from bystander.lm.gguf_header import local_file, read_header

    file = local_file(model)
    if file is None:
        raise ModelError(f"model {model}: the file is not on this machine. Give its path, or fetch it first.")
    from bystander.lm.gguf_tokenizer import tokenizer_of

    return cast("Tokenizer", tokenizer_of(read_header(Path(file)).fields))
