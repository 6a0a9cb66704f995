"""Where the rows of a multiple-choice set come from: the package, a local file, or the Hub."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bystander.core.errors import DataError
from bystander.core.faults import RowFaults
from bystander.core.record_files import Numbered, read_records

DATA_VARIABLE = "BYSTANDER_DATA"  # a folder with data/ below it: looked in before the Hub
BANK = Path(__file__).with_name("bank.jsonl")


class NotFetched(DataError):
    """A published set is neither on this machine nor to be had from the Hub."""


@dataclass(frozen=True, slots=True)
class Published:
    """A published set: its file under $BYSTANDER_DATA, and its place and size on the Hub."""

    local: str
    repository: str
    file: str
    revision: str
    rows: int


PUBLISHED: dict[str, Published] = {
    "arc": Published(
        "arc_challenge_test.jsonl",
        "allenai/ai2_arc",
        "ARC-Challenge/test-00000-of-00001.parquet",
        "210d026faf9955653af8916fad021475a3f00453",
        1172,  # Clark et al. 2018, table 1
    ),
    "hellaswag": Published(
        "hellaswag_val_1000.jsonl",
        "Rowan/hellaswag",
        "data/validation-00000-of-00001.parquet",
        "218ec52e09a7e7462a5400043bb9a69a41d06b76",
        10042,  # Zellers et al. 2019, validation
    ),
}
NAMED = ("bank", *PUBLISHED)  # the sets that need no path
# (repository, file, revision) -> path of the file in the local cache
Download = Callable[[str, str, str], str]


@dataclass(frozen=True, slots=True)
class Rows:
    """The raw rows of a set with their numbers (in JSONL the line, else the row, from 1) and where they are from."""

    where: str
    rows: tuple[Numbered, ...]
    published: bool = False  # fetched at a fixed revision: not the user's to correct


def find_rows(source: str | Path, download: Download | None = None) -> Rows:
    """The rows of "bank", "arc", "hellaswag" or a .jsonl or .parquet file.

    A published set is read from $BYSTANDER_DATA/data if its file is there, else fetched from the Hub at a fixed
    revision (`download` stands in for the Hub's client). Raises DataError for an unknown source, an unreadable or
    empty file, and a set that cannot be fetched or has another number of rows than was published.
    """
    name = str(source)
    if name == "bank":
        return read_rows(BANK)
    if name not in PUBLISHED:
        return read_rows(Path(source))
    published = PUBLISHED[name]
    folder = os.environ.get(DATA_VARIABLE)
    if folder and (local := Path(folder) / "data" / published.local).is_file():
        return read_rows(local)
    fetched = read_rows(Path(_fetch(published, download or _from_hub)))
    where = f"{published.repository}/{published.file}@{published.revision[:8]}"
    if len(fetched.rows) != published.rows:
        raise DataError(f"{where} has {len(fetched.rows)} rows, not the {published.rows} published; delete and refetch")
    return Rows(where, fetched.rows, published=True)


def read_rows(path: Path) -> Rows:
    """The rows of a local .jsonl or .parquet file."""
    if path.suffix not in {".jsonl", ".parquet"}:
        raise DataError(
            f"unknown question set {str(path)!r}: give one of {', '.join(NAMED)}, or a .jsonl or .parquet file"
        )
    if not path.is_file():
        raise DataError(f"no question file at {path}; give the path of a .jsonl or .parquet file")
    faults = RowFaults(str(path))
    rows = read_records(path, faults)
    faults.raise_any()
    if not rows:
        raise DataError(f"the question file {path} has no rows; give a file with at least one question")
    return Rows(str(path), tuple(rows))


def _from_hub(repository: str, file: str, revision: str) -> str:
    from huggingface_hub import hf_hub_download  # here: slow to import, wanted for a first fetch only

    return hf_hub_download(repository, file, repo_type="dataset", revision=revision)


def _fetch(published: Published, download: Download) -> str:
    try:
        return download(published.repository, published.file, published.revision)
    except Exception as error:  # the client raises httpx's, the system's and its own errors; all mean "not fetched"
        raise NotFetched(
            f"cannot fetch {published.repository}/{published.file} from the Hub ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no message'}); connect to the network, or set "
            f"{DATA_VARIABLE} to a folder that has data/{published.local}, or give the path of a file of that form"
        ) from error
