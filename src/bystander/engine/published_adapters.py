"""Adapters as the command line names them: a folder, or one that is published on the Hub, with the commit kept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bystander.core.errors import ModelError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # all that is fetched of a repository
_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+?)(?::(?P<folder>[\w.-]+(?:/[\w.-]+)*))?(?:@(?P<revision>[\w./-]+))?")
SHORT = 12  # characters of a commit in a name


@dataclass(frozen=True, slots=True)
class AdapterPlace:
    """Where an adapter lies on this machine, and what it is called: `name` in records, `label` in tables ("": by its
    folder). A published one is called OWNER/NAME[:FOLDER]@COMMIT."""

    path: Path
    name: str = ""
    label: str = ""


def adapter_places(given: Sequence[str]) -> list[AdapterPlace]:
    """Each adapter's place. What is no folder here and reads OWNER/NAME[:FOLDER][@REVISION] is fetched from the Hub, unless
    it is in the Hub's cache. Raises ModelError for what is neither, or cannot be had."""
    return [_place(text) for text in given]


def _place(text: str) -> AdapterPlace:
    path = Path(text)
    named = _NAME.fullmatch(text)
    if path.exists() or named is None or text.startswith((".", "/", "~")):
        return AdapterPlace(path)
    repo, folder, revision = named["repo"], named["folder"] or "", named["revision"]
    config = _fetched(text, repo, folder, CONFIG, revision)
    commit = _commit(config)
    weights = _fetched(
        text, repo, folder, WEIGHTS, commit or revision
    )  # of the very commit, should another be pushed now
    inside = f":{folder}" if folder else ""
    label = f"{repo.rpartition('/')[2]}{f'-{folder}' if folder else ''}"
    return AdapterPlace(weights.parent, f"{repo}{inside}@{commit[:SHORT] or revision}", label)


def _commit(file: Path) -> str:
    """The commit that a file of the Hub's cache is of, which names the folder of its snapshot."""
    parts = file.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-1] else ""


def _fetched(text: str, repo: str, folder: str, file: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download  # here: slow to import, wanted for a published adapter only
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repo, file, subfolder=folder or None, revision=revision))
    except (OSError, ValueError) as error:
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            raise _missing(text, folder, file) from error
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(
            f"adapter {text}: it is no folder here, and cannot be had from the Hub ({first}). Give the path of a folder, or "
            "OWNER/NAME[:FOLDER][@REVISION] of one that is published; a private one needs HF_TOKEN."
        ) from error


def _missing(text: str, folder: str, file: str) -> ModelError:
    pickled = " Pickled weights (adapter_model.bin) are not loaded." if file == WEIGHTS else ""
    where = f"its folder {folder}" if folder else "the repository itself; name a folder of it as OWNER/NAME:FOLDER"
    return ModelError(f"adapter {text}: there is no {file} in {where}.{pickled}")
