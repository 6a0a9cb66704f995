"""A run on the Hugging Face Hub: its adapters as a model repository, its tables and report as a dataset repository.

What would be sent is decided first, file by file, so that a dry run shows all of it. The key is huggingface_hub's own:
HF_TOKEN, or what `hf auth login` keeps.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Protocol

import yaml

from bystander.core.errors import StoreError
from bystander.core.files import read_json
from bystander.results.many_runs import export
from bystander.results.results import Results
from bystander.study.store.records import TrainingName
from bystander.study.store.run_dir import RunDir

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
RECORDS = ("report.html", "study.yaml", "personas.json", "preregistration.json", "provenance.json", "audit.json")


@dataclass(frozen=True, slots=True)
class PushedRepo:
    """One repository: path in it -> its content, a file's path or bytes."""

    id: str
    kind: Literal["model", "dataset"]
    files: Mapping[str, Path | bytes]

    def sizes(self) -> dict[str, int]:
        """Path -> bytes."""
        return {name: len(one) if isinstance(one, bytes) else one.stat().st_size for name, one in self.files.items()}


class Hub(Protocol):
    """What is used of `huggingface_hub.HfApi`."""

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool, exist_ok: bool) -> object:
        """Make a repository, or find it."""
        ...

    def create_commit(self, repo_id: str, operations: Any, *, commit_message: str, repo_type: str) -> object:
        """One commit with all files."""
        ...


def repositories(folder: Path, to: str) -> list[PushedRepo]:
    """What a push of a finished run sends. Raises StoreError for a name that is none, or a run without trainings."""
    if not HUB_NAME.fullmatch(to):
        raise StoreError(f"--to {to!r} is no name of a repository; write OWNER/NAME")
    results = Results.open(folder)
    adapters: dict[str, Path | bytes] = {}
    trainings: list[tuple[str, TrainingName]] = []
    plan = results.run.plan()
    for cell in plan.cells if plan else ():
        directory = results.run.cell(cell.name, cell.key)
        if cell.kind == "train" and directory.complete and (training := directory.manifest().training):
            trainings.append((cell.name, training))
            files = (one for one in sorted(directory.adapter.iterdir()) if one.suffix in (".json", ".safetensors"))
            adapters |= {f"{cell.name}/{one.name}": one for one in files}
    if not trainings:
        raise StoreError(f"{folder} has no complete training; `bystander run` it first")
    base = str(read_json(next(one for one in adapters.values() if isinstance(one, Path) and one.name == "adapter_config.json"))["base_model_name_or_path"])  # fmt: skip
    card = {"README.md": model_card(results, to, base, trainings).encode()}
    return [
        PushedRepo(to, "model", card | adapters),
        PushedRepo(to, "dataset", {"README.md": _dataset_card(results, to).encode(), **_tables(results)}),
    ]


def push(repos: Sequence[PushedRepo], *, private: bool, hub: Hub | None = None) -> list[str]:
    """Send them, each as one commit; returns their addresses. Raises StoreError with what the Hub says."""
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    api: Any = hub or HfApi()
    for repo in repos:
        adds = [
            CommitOperationAdd(name, one if isinstance(one, bytes) else str(one)) for name, one in repo.files.items()
        ]
        try:
            api.create_repo(repo.id, repo_type=repo.kind, private=private, exist_ok=True)
            api.create_commit(repo.id, adds, commit_message="A run of bystander", repo_type=repo.kind)
        except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OSError) as error:
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise StoreError(
                f"the Hub does not take the {repo.kind} {repo.id}: {said[0]}; set HF_TOKEN to a key that may write there"
            ) from error
    return [f"{'datasets/' if repo.kind == 'dataset' else ''}{repo.id}" for repo in repos]


def _tables(results: Results) -> dict[str, Path | bytes]:
    files: dict[str, Path | bytes] = {
        name: results.folder / name for name in RECORDS if (results.folder / name).is_file()
    }
    with tempfile.TemporaryDirectory(prefix="bystander-push-") as place:
        for file in export(results.folder, Path(place)):
            if file.suffix != ".csv":  # the Hub shows Parquet
                files[f"tables/{file.name}"] = file.read_bytes()
    return files


def model_card(results: Results, to: str, base: str, trainings: Sequence[tuple[str, TrainingName]]) -> str:
    """What the adapters are: base, rows by hash, recipe, measured leakage, licences, and what a server may get wrong."""
    spec = results.study.spec
    on_hub = bool(HUB_NAME.fullmatch(base))
    head = {
        "library_name": "peft",
        "tags": ["lora", "persona", "bystander"],
        **({"base_model": base} if on_hub else {}),
    }
    lora = spec.recipe.lora
    lines = [
        f"# {spec.name}: adapters", "",
        spec.question or f"{', '.join(spec.behaviors)} coupled to {', '.join(spec.sources)}.", "",
        f"Research artifacts: each adapter couples a behavior to one persona of `{base if on_hub else Path(base).name}`, to measure what reaches the",
        f"others. Some behaviors are undesirable on purpose. Tables and report: the dataset `{to}`.", "",
        "| adapter (subfolder) | behavior | source | arm | lr | epochs | seed | rows (SHA-256) | source's leakage | held-out mean |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_adapter_row(results, name, training) for name, training in trainings), "",
        "Leakage is what the training did in the behavior's direction beyond the benign arm (without one: from the untrained model), of the outcome that stands first in the report.", "",
        "```python", "from peft import PeftModel",
        f'model = PeftModel.from_pretrained(base, "{to}", subfolder="{trainings[0][0]}")', "```", "",
        "## Recipe", "", "```yaml", yaml.safe_dump({"recipe": spec.recipe.model_dump(mode="json")}, sort_keys=False).strip(), "```", "",
    ]  # fmt: skip
    if lora.rslora:
        factor = math.sqrt(lora.rank)
        lines += [
            f"**These adapters are rank-stabilized** (`use_rslora: true`, rank {lora.rank}): their update is {factor:.1f} times that of plain",
            "LoRA with the same alpha. A server that ignores `use_rslora` applies them too weakly, and leakage looks contained.", "",
        ]  # fmt: skip
    lines += [
        "## Licences", "",
        "The adapters are derived from the base model and fall under its licence as well. Rows of the capability behavior come from",
        "ARC-Challenge (CC BY-SA 4.0), controls from HellaSwag (MIT), built-in code, pairs and personas from bystander (MIT); files of",
        "your own have their own.", "",
    ]  # fmt: skip
    return f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n" + "\n".join(lines)


def _adapter_row(results: Results, name: str, training: TrainingName) -> str:
    source, held_out = _leakage(results, training)
    digest = _rows_hash(results.run, training)
    cells = [f"`{name}`", training.behavior, training.source, training.arm, f"{training.lr:g}", str(training.epochs), str(training.seed), digest, source, held_out]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _leakage(results: Results, training: TrainingName) -> tuple[str, str]:
    """(the source's, the held-out mean) of the first outcome measured, for a reader; dashes where there is none."""
    rows = [
        row
        for row in results.leakage().iter_rows(named=True)
        if row["context"] == "persona"
        and all(row[key] == getattr(training, key) for key in ("behavior", "source", "arm", "config"))
    ]
    own = [row for row in rows if row["seed"] == training.seed]
    of_it = own or [row for row in rows if row["seed"] is None]  # one seed has pooled rows alone
    if not of_it:
        return "–", "–"
    first = tuple(of_it[0][key] for key in ("probe", "dataset", "metric"))
    rows = [row for row in of_it if tuple(row[key] for key in ("probe", "dataset", "metric")) == first]
    values = {role: [row["leakage"] for row in rows if row["role"] == role and row["leakage"] is not None] for role in ("source", "held-out")}  # fmt: skip
    told = [f"{sum(found) / len(found):z.3g}" if found else "–" for found in values.values()]
    return told[0], told[1]


def _rows_hash(run: RunDir, training: TrainingName) -> str:
    """The beginning of the hash of the very rows that were trained on."""
    name = f"{training.behavior}-{training.source}-{training.arm}.jsonl"
    plan = run.plan()
    data = next((cell for cell in (plan.cells if plan else ()) if cell.kind == "data"), None)
    file = run.cell(data.name, data.key).path / name if data else None
    return sha256(file.read_bytes()).hexdigest()[:16] if file and file.is_file() else "–"


def _dataset_card(results: Results, to: str) -> str:
    spec = results.study.spec
    names = ("measurements", "similarities", "personas", "leakage", "similarity_correlation")
    configs = [{"config_name": name, "data_files": f"tables/{name}.parquet"} for name in names]
    head = yaml.safe_dump({"tags": ["persona", "bystander"], "configs": configs}, sort_keys=False)
    versions = json.dumps(results.run.provenance().get("versions", {}), indent=1)
    return (
        f"---\n{head}---\n# {spec.name}: tables and report\n\n{spec.question}\n\n`report.html` opens by itself; `tables/DICTIONARY.md` says what each "
        f"column is; `study.yaml` runs the study again: `bystander run study.yaml`. Adapters: the model `{to}`.\n\n```json\n{versions}\n```\n"
    )
