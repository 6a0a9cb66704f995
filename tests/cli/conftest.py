"""Runs that several files of tests look at; none may change them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bystander.cli import main as cli
from bystander.engine.run import run_study
from bystander.results.results import Results
from bystander.study.config.study import load
from bystander.study.store.run_dir import RunDir
from tests.support.probed import NEGATIVES, ODD, SETTINGS, both, command
from tests.support.study_tiny import make_model, write_study


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory, embedded: Path) -> RunDir:
    """A finished run of two sources, whose adapters are then taken for somebody else's."""
    folder = tmp_path_factory.mktemp("study")
    text = write_study(folder, make_model(folder / "model", ends=True), ends=True).read_text().split("\n")
    dropped = ("sweep:", "  source:", "  configs:", "  personas:", "gate:")
    path = folder / "plain.yaml"
    path.write_text("\n".join(line for line in text if not line.startswith(dropped)))
    overrides = ["recipe.lr=4e-4", "checkpoints.every=1.0", "design.negatives=[pirate, spy]", "seeds=[3]", *SETTINGS]
    run_study(load(str(path), overrides), folder / ODD)
    Results.open(folder / ODD).report()
    return RunDir(folder / ODD)


@pytest.fixture(scope="session")
def probed(ran: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("probed") / "both"
    sys.argv = ["bystander", *map(str, command(ran, out, *both(ran), "--negatives", NEGATIVES))]
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    return out
