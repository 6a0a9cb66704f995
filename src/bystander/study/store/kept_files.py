"""The files that a study names, kept with the run: what was asked can be read when they have moved or changed."""

from __future__ import annotations

import copy
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bystander.core.errors import StoreError
from bystander.core.files import explained, read_json, write_json
from bystander.core.hashing import file_sha256
from bystander.study.config.override_paths import named_files
from bystander.study.config.schema import study_model
from bystander.study.config.study import ResolvedStudy
from bystander.study.store.run_dir import RunDir

KEPT_UP_TO = 64 * 2**20  # bytes; of a larger file its hash alone is kept


@dataclass(frozen=True, slots=True)
class KeptFile:
    """`setting`: what names it, as a dotted key; `origin`: where it lay; `copy`: its path in the run directory, "" for a file
    that was too large to be copied."""

    setting: str
    origin: str
    sha256: str
    size: int
    copy: str


def keep_files(study: ResolvedStudy, run: RunDir) -> None:
    """Copy the files that the settings name into `files/`, each under its own name in a folder of its hash, and list them in
    `files.json`. A file that has changed since an earlier call is kept beside the old one, and counts from then on."""
    found = {one.setting: one for one in kept_files(run)}
    for setting, name in named_files(study_model(), study.spec.resolved()):
        path = study.folder / name
        if path.is_file():
            found[setting] = _kept(setting, path, run)
    if found:
        write_json(run.files_file, [asdict(one) for one in found.values()])


def _kept(setting: str, path: Path, run: RunDir) -> KeptFile:
    digest, size = file_sha256(path), path.stat().st_size
    if size > KEPT_UP_TO:
        return KeptFile(setting, str(path.absolute()), digest, size, "")
    target = run.files_folder / digest[:16] / path.name
    if not target.is_file():
        with explained(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".{target.name}.tmp")
            shutil.copyfile(path, partial)
            partial.replace(target)
    return KeptFile(setting, str(path.absolute()), digest, size, target.relative_to(run.path).as_posix())


def kept_files(run: RunDir) -> list[KeptFile]:
    """What the run keeps; [] for one that names no file."""
    rows: list[dict[str, Any]] = read_json(run.files_file) if run.files_file.is_file() else []
    return [KeptFile(**row) for row in rows]


def kept_copy(run: RunDir, setting: str) -> Path | None:
    """The run's copy of the file that a setting names; None where it has none. Raises StoreError for a copy that is missing
    or is not what was copied."""
    one = next((one for one in kept_files(run) if one.setting == setting and one.copy), None)
    if one is None:
        return None
    path = run.path / one.copy
    if not path.is_file() or file_sha256(path) != one.sha256:
        raise StoreError(f"{path}, the run's copy of {one.origin}, is missing or was changed; put the file back there")
    return path


def with_copies(study: ResolvedStudy, run: RunDir) -> ResolvedStudy:
    """The study with the run's copies in the place of the files that its settings name. Raises StoreError as `kept_copy`."""
    values: Any = copy.deepcopy(study.spec.resolved())
    for one in kept_files(run):
        path = kept_copy(run, one.setting)
        if path is not None:
            *way, last = [int(part) if part.isdigit() else part for part in one.setting.split(".")]
            place = values
            for part in way:
                place = place[part]
            place[last] = str(path.absolute())
    return replace(study, spec=study_model().model_validate(values))
