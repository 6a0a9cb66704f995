"""Adapters that were trained elsewhere, measured as a run measures its own: the untrained model once, each adapter, the
similarity of every persona to the sources. What comes of it is a run directory, which everything reads that reads runs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bystander.core import doors
from bystander.core.errors import DataError, StoreError, StudyError
from bystander.core.hashing import stable_hash
from bystander.core.progress import Bar
from bystander.core.records import Context, Role, as_dict
from bystander.design.render import roles_by_tokens
from bystander.engine.base_cells import check_mode, measure_geometry, renderable
from bystander.engine.collect import collect
from bystander.engine.probe_request import ProbeRequest, known_probe
from bystander.engine.probe_roles import Trained, probe_name
from bystander.engine.probe_units import Stamp, run_units
from bystander.geometry.base import OF_TRAINING
from bystander.lm import embedded
from bystander.lm.adapters import read_adapter
from bystander.lm.model import LoadedModel
from bystander.lm.model import load as load_model
from bystander.probe.base import CheckedProbe, Probe
from bystander.study.config.study import ResolvedStudy
from bystander.study.plan.cells import Kind
from bystander.study.plan.parts import StudyParts
from bystander.study.store.cell_dir import CellDir
from bystander.study.store.events import Events
from bystander.study.store.lock import claimed
from bystander.study.store.records import AdapterGiven, CellManifest, PlannedCell, SavedPlan
from bystander.study.store.run_dir import RunDir

ARM = "adapter"  # the arm of a training whose design is not known here
DEPTH = 0.8  # of the model, where similarity is read if nobody says where


Work = Callable[[CellDir, PlannedCell], None]


@dataclass(frozen=True, slots=True)
class _Task:
    """A cell with what does it."""

    cell: PlannedCell
    directory: CellDir
    work: Work


def probe_adapters(
    asked: ProbeRequest, trained: Sequence[Trained], folder: Path, bar: Bar, *, behavior: str = ""
) -> RunDir:
    """Measure the untrained model and every adapter under every persona, with the geometry, into `folder`. Called again it
    goes on where it was stopped. Everything that can be known is checked before anything is measured.

    Raises StudyError, DataError or ModelError for what does not fit, StoreError for a folder that is another study's."""
    study = _study(asked, trained, behavior, ())
    _refuse_unknown(study, trained)
    for one in trained:
        read_adapter(one.path)
    model = study.spec.model
    loaded = load_model(model.name, device=model.device, dtype=model.dtype, revision=model.revision)
    study = _at_a_layer(study, asked, trained, behavior, loaded)
    parts = StudyParts(study)
    if parts.predictors().need(*OF_TRAINING):
        raise StudyError("a predictor of training reads the rows that were trained, which an adapter does not bring")
    given = [_given(loaded, one, asked) for one in trained]
    _refuse_same(given)
    run = RunDir(folder)
    with claimed(run, study):
        _refuse_others(run, given)
        run.save_adapters(given)
        _AdapterRun(parts, trained, given, loaded, run, bar, base_ok=asked.base_ok).go()
    return run


def _study(asked: ProbeRequest, trained: Sequence[Trained], behavior: str, more: Sequence[str]) -> ResolvedStudy:
    sources = list(dict.fromkeys(one.source for one in trained))
    named = ", ".join(one.label for one in trained)
    personas = [] if asked.personas is None else [f"personas={json.dumps(str(asked.personas.absolute()))}"]
    question = f"What do personas other than {' and '.join(sources)} show with {named}?"
    return asked.study(
        f"name={json.dumps(probe_name(trained))}",
        f"question={json.dumps(question)}",
        f"sources={json.dumps(sources)}",
        f"behaviors={json.dumps([behavior or _behavior_of(asked.probe)])}",
        "hypotheses=[]",  # nothing is registered before a training that is over
        "geometry.layer=null",
        *personas,
        *more,
    )


def _behavior_of(probe: str) -> str:
    """The first behavior that a probe reads. Raises DataError where there is none, or no such probe."""
    known_probe(probe)
    names = [name for name in doors.names("behavior") if probe in doors.load("behavior", name).read_by]
    if not names:
        raise DataError(f"which behavior the probe {probe!r} reads is not known; say it with --behavior NAME")
    return names[0]


def _refuse_unknown(study: ResolvedStudy, trained: Sequence[Trained]) -> None:
    personas = [persona.name for persona in study.personas]
    known = {*personas, *(context.name for context in StudyParts(study).beside)}
    unknown = sorted({name for one in trained for name in one.negatives} - known)
    if unknown:
        raise DataError(
            f"--negatives: {', '.join(unknown)} {'is' if len(unknown) == 1 else 'are'} not among the {len(personas)} personas and the contexts beside them; "
            "`bystander personas` lists the built-in ones"
        )


def _at_a_layer(
    study: ResolvedStudy, asked: ProbeRequest, trained: Sequence[Trained], behavior: str, loaded: LoadedModel
) -> ResolvedStudy:
    """The study with a layer for its claim: the user's, the quickstart's on its own model, four fifths of the depth."""
    geometry = study.spec.geometry
    if geometry.layer is None:
        own = asked.model in (embedded.NAME, embedded.HUB_ID)
        layer = 25 if own else round(DEPTH * loaded.layers)
        if geometry.layers != "all" and layer not in geometry.layers:
            raise StudyError(f"geometry.layers is {geometry.layers}; say which of them counts (--set geometry.layer=N)")
        study = _study(asked, trained, behavior, [f"geometry.layer={layer}"])
        geometry = study.spec.geometry
    named: list[int] = [] if geometry.layers == "all" else geometry.layers
    deepest = max([geometry.layer or 0, *named])
    if deepest > loaded.layers:
        raise StudyError(f"geometry asks for layer {deepest}, but {loaded.name} has layers 0 to {loaded.layers}")
    return study


def _given(loaded: LoadedModel, one: Trained, asked: ProbeRequest) -> AdapterGiven:
    """An adapter once it has been on: that it fits and does something is known before anything is measured."""
    place = asked.published.get(one.path, str(one.path.absolute()))
    with loaded.adapter(one.path, base_ok=asked.base_ok):
        return AdapterGiven(place, one.label, one.source, one.negatives, loaded.weights_hash, loaded.notes)


def _refuse_same(given: Sequence[AdapterGiven]) -> None:
    for index, one in enumerate(given):
        same = next((other for other in given[:index] if other.weights_hash == one.weights_hash), None)
        if same is not None:
            raise DataError(f"--adapter {one.path} holds the very weights of {same.path}; give each adapter once")


def _refuse_others(run: RunDir, given: Sequence[AdapterGiven]) -> None:
    """Raises StoreError where the folder holds what other adapters, or the same in other roles, gave."""
    earlier = run.adapters()
    if earlier and [replace(one, notes=()) for one in earlier] != [replace(one, notes=()) for one in given]:
        raise StoreError(
            f"{run.path} holds other adapters, or the same in other roles ({', '.join(a.path for a in earlier)}); give "
            "another directory with --out"
        )


class _AdapterRun:
    """One process's measuring, cell by cell."""

    def __init__(
        self, parts: StudyParts, trained: Sequence[Trained], given: Sequence[AdapterGiven], loaded: LoadedModel,
        run: RunDir, bar: Bar, *, base_ok: bool,
    ) -> None:  # fmt: skip
        self.parts, self.trained, self.given, self.loaded = parts, trained, given, loaded
        self.run, self.bar, self.base_ok = run, bar, base_ok
        self.spec = parts.study.spec
        self.probes: dict[str, Probe] = dict(parts.probes)
        self.beside = renderable(parts, loaded)
        everyone = [as_dict(context) for context in parts.compared]
        self.same = [self.spec.model.model_dump(mode="json"), loaded.base_hash, everyone]

    def go(self) -> None:
        """Whatever is not complete; then the three tables."""
        tasks = [self._task("geometry", "geometry", self._geometry, self.spec.sources, self.spec.geometry.model_dump())]
        for name, probe in self.probes.items():
            tasks += self._tasks_of(name, probe)
        cells = tuple(task.cell for task in tasks)
        plan = SavedPlan(stable_hash([c.key for c in cells]), self.spec.name, False, 0.0, None, 1, "", cells)
        self.run.save_plan(plan)
        todo = [task for task in tasks if not task.directory.complete]
        events = Events(self.run.events_file, plan.hash)
        events.write("launched", cells=len(tasks), todo=len(todo), pid=os.getpid())
        for task in tasks:
            if task in todo:
                task.directory.begin()
                begun = time.monotonic()
                events.write("progress", state="started", cell=task.cell.name, key=task.cell.key)
                task.work(task.directory, task.cell)
                seconds = round(time.monotonic() - begun, 3)
                events.write("cell done", cell=task.cell.name, key=task.cell.key, seconds=seconds)
            mode = task.directory.manifest()
            if mode.kind == "mode check":
                self._decide(mode)
        collect(self.run)

    def _tasks_of(self, name: str, probe: Probe) -> list[_Task]:
        """A probe's cells: its mode check, the untrained model, every adapter."""
        how = stable_hash(probe.decides())
        tasks: list[_Task] = []
        if isinstance(probe, CheckedProbe) and not probe.ready:
            tasks.append(self._task("mode check", f"mode-check-{name}", self._mode_check(name), how))
        # Two cells a state: what personas give does not depend on the contexts beside them, and names may be the same.
        for kind, contexts in (("", self.parts.contexts), ("contexts-", self.beside)):
            if contexts:
                asked = [as_dict(context) for context in contexts]
                work = self._evaluate(name, None, contexts)
                tasks.append(self._task("evaluate", f"base-{kind}{name}", work, how, asked))
                for one, found in zip(self.trained, self.given, strict=True):
                    who = [one.source, list(one.negatives), one.config, self.spec.behaviors, found.weights_hash]
                    work = self._evaluate(name, one, contexts)
                    tasks.append(self._task("evaluate", f"after-{one.label}-{kind}{name}", work, how, asked, who))
        return tasks

    def _task(self, kind: Kind, name: str, work: Work, *decides: object) -> _Task:
        key = stable_hash("probe", kind, name, self.same, *decides)
        cell = PlannedCell(key, name, kind, 3 if kind == "evaluate" else 0, 0.0)
        return _Task(cell, self.run.cell(name, key), work)

    def _geometry(self, directory: CellDir, cell: PlannedCell) -> None:
        layers, tokens = measure_geometry(self.parts, self.loaded, directory, self.bar, {}, ())
        directory.finish([], self._manifest(cell, layers=layers, prompt_tokens=tokens))

    def _mode_check(self, name: str) -> Work:
        def work(directory: CellDir, cell: PlannedCell) -> None:
            probe = self.probes[name]
            assert isinstance(probe, CheckedProbe)
            mode, found = check_mode(name, probe, self.loaded, self.parts.contexts, self.bar)
            directory.finish([], self._manifest(cell, mode=mode, mode_found=found))

        return work

    def _decide(self, manifest: CellManifest) -> None:
        assert manifest.mode is not None
        probe = self.probes[manifest.mode.probe]
        assert isinstance(probe, CheckedProbe)
        self.probes[manifest.mode.probe] = probe.checked(manifest.mode_found)

    def _evaluate(self, name: str, one: Trained | None, contexts: Sequence[Context]) -> Work:
        def work(directory: CellDir, cell: PlannedCell) -> None:
            with self.loaded.adapter(one.path if one else None, base_ok=self.base_ok):
                weights = self.loaded.weights_hash
                title = f"{name} probe, {one.label if one else 'untrained model'}"
                stamp = self._stamp(one, weights)
                keys = run_units(self.probes[name], self.loaded, contexts, directory, stamp, self.bar, title)
            directory.finish(keys, self._manifest(cell, weights_hash=weights))

        return work

    def _stamp(self, one: Trained | None, weights: str) -> Stamp:
        if one is None:
            return lambda m: replace(m, weights_hash=weights)
        behavior = self.spec.behaviors[0]
        known: list[tuple[Context, Role]] = [
            (c, one.role(c.name)) for c in dict.fromkeys((*self.parts.compared, *self.beside))
        ]
        roles = {(c.kind, c.name): role for c, role in known}
        roles |= roles_by_tokens(known, self.loaded.tokenizer, self.beside)
        return lambda m: replace(
            m, behavior=behavior, source=one.source, arm=ARM, config=one.config, role=roles[m.context, m.persona],
            checkpoint=1.0, weights_hash=weights,
        )  # fmt: skip

    def _manifest(self, cell: PlannedCell, **more: Any) -> CellManifest:
        return CellManifest(cell.kind, cell.name, cell.key, base_hash=self.loaded.base_hash, **more)
