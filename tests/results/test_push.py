"""What a push sends, file by file, at the boundary of huggingface_hub."""

import io
import re
import shutil
from pathlib import Path

import polars as pl
import pytest
import yaml
from huggingface_hub import HfApi
from huggingface_hub.errors import LocalTokenNotFoundError

from bystander.core.errors import StoreError
from bystander.results.push import push, repositories
from bystander.results.results import Results
from bystander.study.store.run_dir import RunDir
from tests.support.command import call


class Recorded:
    """Has the two calls of `HfApi` that are used, with its very signatures, and keeps what it is given."""

    def __init__(self):
        self.repos, self.files = [], {}

    def create_repo(self, repo_id, *, repo_type, private, exist_ok):
        self.repos.append((repo_id, repo_type, private, exist_ok))

    def create_commit(self, repo_id, operations, *, commit_message, repo_type):
        self.files[repo_type] = {}
        for one in operations:
            with one.as_file() as file:
                self.files[repo_type][one.path_in_repo] = file.read()


@pytest.fixture(scope="module")
def run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("push") / "run"))


@pytest.fixture(scope="module")
def sent(run: Path) -> Recorded:
    hub = Recorded()
    assert push(repositories(run, "me/tiny"), private=True, hub=hub) == ["me/tiny", "datasets/me/tiny"]
    return hub


def test_the_calls_are_the_librarys(sent: Recorded):
    import inspect

    for name in ("create_repo", "create_commit"):
        ours, theirs = (inspect.signature(getattr(one, name)).parameters for one in (Recorded, HfApi))
        assert set(ours) <= set(theirs), name
    assert sent.repos == [("me/tiny", "model", True, True), ("me/tiny", "dataset", True, True)]


def test_every_complete_training_is_sent_as_it_lies(run: Path, sent: Recorded):
    trainings = [cell for cell in RunDir(run).plan().cells if cell.kind == "train"]
    assert len(trainings) == 4
    expected = {"README.md"}
    for cell in trainings:
        adapter = RunDir(run).cell(cell.name, cell.key).adapter
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            expected.add(f"{cell.name}/{file}")
            assert sent.files["model"][f"{cell.name}/{file}"] == (adapter / file).read_bytes()
    assert set(sent.files["model"]) == expected


def test_the_card_says_base_rows_recipe_leakage_licences_and_the_scale(run: Path, sent: Recorded):
    card = sent.files["model"]["README.md"].decode()
    head = yaml.safe_load(card.split("---")[1])
    assert head["library_name"] == "peft"
    assert "base_model" not in head  # the base is a folder of this machine
    assert str(run.parent) not in card
    rows = [line for line in card.splitlines() if line.startswith("| `")]
    assert len(rows) == 4
    assert all(re.search(r"\| [0-9a-f]{16} \|", row) for row in rows)
    assert "5.7 times" in card
    assert "use_rslora" in card
    assert "CC BY-SA 4.0" in card
    assert "rank: 32" in card
    leakage = Results.open(run).leakage()
    first = leakage.filter((leakage["source"] == "comedian") & (leakage["role"] == "source"))
    outcome = first.select("probe", "dataset", "metric").row(0)
    value = first.filter((pl.col("probe") == outcome[0]) & (pl.col("metric") == outcome[2]))["leakage"][0]
    assert f"| {value:.3g} |" in next(row for row in rows if "comedian" in row)


def test_the_dataset_has_tables_report_and_study(run: Path, sent: Recorded):
    files = sent.files["dataset"]
    assert files["report.html"] == (run / "report.html").read_bytes()
    assert files["study.yaml"] == (run / "study.yaml").read_bytes()
    table = pl.read_parquet(io.BytesIO(files["tables/measurements.parquet"]))
    assert table.equals(Results.open(run).measurements)
    head = yaml.safe_load(files["README.md"].decode().split("---")[1])
    assert all(one["data_files"] in files for one in head["configs"])
    assert not [name for name in files if "events" in name or "lock" in name or "completions" in name]


def test_a_dry_run_shows_every_file_and_sends_nothing(run: Path, sent: Recorded, capsys, monkeypatch):
    monkeypatch.setattr("bystander.results.push.push", lambda *_, **__: pytest.fail("it was sent"))
    code, out, _ = call(capsys, "push", run, "--to", "me/tiny", "--dry-run")
    assert code == 0
    for files in sent.files.values():
        assert [name for name in files if f"  {name}  " not in out] == []
    assert "nothing was sent" in out


def test_without_a_key_one_clear_message(run: Path):
    class NoKey(Recorded):
        def create_repo(self, repo_id, **_):
            raise LocalTokenNotFoundError("Token is required, but no token found.")

    with pytest.raises(StoreError, match=r"no token found.*HF_TOKEN"):
        push(repositories(run, "me/tiny"), private=True, hub=NoKey())


@pytest.mark.parametrize("name", ["tiny", "a/b/c", "/x", "me/", ""])
def test_a_name_that_is_none_is_refused(run: Path, name: str):
    with pytest.raises(StoreError, match="OWNER/NAME"):
        repositories(run, name)
