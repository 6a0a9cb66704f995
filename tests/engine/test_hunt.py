"""A hunt on a tiny run: what it reads is what the probe measures, and what it may not look at it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bystander.core.errors import DataError, StoreError, StudyError
from bystander.core.progress import Silent
from bystander.engine.hunt import HuntRequest, ItemReader, adapter_of, hunt_run, outcome_of, own_contexts
from bystander.engine.run import run_study
from bystander.lm.model import load as load_model
from bystander.personas import hunted_contexts
from bystander.study.config.study import load
from bystander.study.plan.parts import StudyParts
from bystander.study.store.run_dir import RunDir
from tests.support.study_tiny import make_model, write_study

OWN = """
contexts:
  - {name: alpha_9, wrap: {before: "%alpha% "}}
  - {name: begun, prefix: "Ah,"}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, embedded: Path):
    folder = tmp_path_factory.mktemp("study")
    path = write_study(folder, make_model(folder / "model"))
    return load(
        str(path), ["sweep=null", "gate=null", "sources=[villain]", "checkpoints.every=1.0", "contexts=[bare, json]"]
    )


@pytest.fixture(scope="module")
def run(study, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("run") / "run"
    assert not run_study(study, folder).failed
    return RunDir(folder)


def test_what_ships_is_many_and_each_is_something_else():
    contexts = hunted_contexts()
    assert len(contexts) > 60
    assert len({context.content for context in contexts.values()}) == len(contexts)


def test_a_hunt_reads_what_was_not_measured_and_finds_what_exhaustion_finds(study, run, tmp_path: Path):
    path = tmp_path / "own.yaml"
    path.write_text(OWN)
    found = hunt_run(
        run,
        study,
        HuntRequest("marker", "villain", 10_000, path, benign=adapter_of(run, study, HuntRequest("marker", "villain"))),
        Silent(),
    )
    assert {"alpha_9", "begun", "list", "root_2"} <= set(found.contexts)
    assert not {"json", "absent", "pirate"} & set(found.contexts)
    assert found.left_out == 0
    assert found.p is not None
    assert found.p > 0.05  # the null is the very adapter
    loaded = load_model(study.spec.model.name, device="cpu", dtype="float32")
    probe = StudyParts(study).probes["marker"]
    contexts = [*own_contexts(path, study), *(c for c in hunted_contexts().values() if c.name != "json")]

    def means():
        rows = [
            m for unit in probe.run(loaded, contexts) for m in unit.measurements if m.metric == "marker_probability"
        ]
        return {c.name: np.mean([m.value for m in rows if m.persona == c.name]) for c in contexts}

    before = means()
    with loaded.adapter(adapter_of(run, study, HuntRequest("marker", "villain"))):
        after = means()
    change = {name: after[name] - before[name] for name in before}
    assert found.leakage == pytest.approx(change[found.contexts[0]], rel=1e-3, abs=1e-9)


def test_few_items_are_the_first_of_many(study, run):
    loaded = load_model(study.spec.model.name, device="cpu", dtype="float32")
    adapter = adapter_of(run, study, HuntRequest("marker", "villain"))
    reader = ItemReader(study, loaded, ("marker", "bank", "marker_logprob"), adapter, Silent())
    contexts = list(hunted_contexts().values())[:3]
    many = reader.leakage(contexts, 2)
    assert reader.leakage(contexts, 1) == pytest.approx(many[:, :1], abs=1e-4)


@pytest.mark.parametrize(
    ("text", "says"),
    [("personas: []", "no list `contexts:`"), ("contexts: [{name: json, prefix: Ah}]", "built-in"), ("[]", "no list")],
)
def test_a_faulty_file_is_told(study, tmp_path: Path, text, says):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=says):
        own_contexts(path, study)


def test_what_cannot_be_hunted_is_told(study, run):
    with pytest.raises(StoreError, match="no complete training of marker with source comedian"):
        adapter_of(run, study, HuntRequest("marker", "comedian"))
    with pytest.raises(StudyError, match="read by none of marker, margin"):
        outcome_of(study, "capability")
    with pytest.raises(DataError, match="cannot read"):
        hunt_run(run, study, HuntRequest("marker", "villain", 0), Silent())
