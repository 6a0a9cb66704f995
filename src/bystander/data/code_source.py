"""Where a code set is: a local file, or a file of a dataset on the Hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bystander.core.errors import DataError

SUFFIXES = (".jsonl", ".parquet")
LOCAL = (*SUFFIXES, ".yaml", ".yml", ".json", ".csv", ".txt")  # a source that ends so names a file, not a dataset
_DATASET = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+?)(?::(?P<file>[^@]+))?(?:@(?P<revision>\w+))?")


@dataclass(frozen=True, slots=True)
class Hub:
    """The two calls of the Hub's client that are needed; a test stands in for them."""

    files: Callable[[str, str | None], Sequence[str]]
    download: Callable[[str, str, str | None], str]


def find_code_file(source: str, folder: Path, hub: Hub | None = None) -> Path:
    """The file of a code set: a path (from `folder` on), or OWNER/NAME[:FILE][@REVISION] of a dataset on the Hub, whose
    file is fetched once. FILE may be left out where the dataset has one JSONL or Parquet file only.

    Raises DataError for a source that is neither, and for a dataset that cannot be fetched, naming what there is.
    """
    path = folder / source
    if path.is_file():
        return path
    match = _DATASET.fullmatch(source)
    if match is None or (source.endswith(LOCAL) and match["file"] is None):
        raise DataError(f"no file {path}; give the path of a file, or OWNER/NAME:FILE of a dataset on the Hub")
    repository, revision = match["repository"], match["revision"]
    client = hub or _hub()
    try:
        file = match["file"] or _only_file(repository, client.files(repository, revision))
        return Path(client.download(repository, file, revision))
    except DataError:
        raise
    except Exception as error:  # the client raises httpx's, the system's and its own errors; all mean "not fetched"
        first = str(error).splitlines()[0] if str(error) else "no message"
        raise DataError(
            f"{source!r} is no file under {folder} and cannot be fetched from the Hub ({type(error).__name__}: {first})"
        ) from error


def _only_file(repository: str, files: Sequence[str]) -> str:
    found = [file for file in files if file.endswith(SUFFIXES)]
    if len(found) != 1:
        listed = ", ".join(found[:10]) or "none"
        raise DataError(
            f"the dataset {repository} has {len(found)} JSONL or Parquet files ({listed}): name one as {repository}:FILE"
        )
    return found[0]


def _hub() -> Hub:
    from huggingface_hub import HfApi, hf_hub_download  # here: slow to import, wanted for a fetch only

    def files(repository: str, revision: str | None) -> Sequence[str]:
        return HfApi().list_repo_files(repository, repo_type="dataset", revision=revision)

    def download(repository: str, file: str, revision: str | None) -> str:
        return hf_hub_download(repository, file, repo_type="dataset", revision=revision)

    return Hub(files, download)
