"""Doing one cell: the only place where stages are called with a model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import polars as pl

from bystander.core.progress import Bar
from bystander.core.records import Context
from bystander.design.audit import refuse
from bystander.design.render import context_roles
from bystander.engine.base_cells import check_mode, measure_geometry, renderable
from bystander.engine.dose import AsTwin, AtDose, SourceReading, Stop
from bystander.engine.gate import decide
from bystander.engine.own_answers import FILE, filled, write_answers
from bystander.engine.probe_units import Stamp, run_units
from bystander.engine.trainings import train_alone, train_together
from bystander.geometry.similarity import spread_over_ranking
from bystander.lm.model import LoadedModel, load
from bystander.probe.base import CheckedProbe, Probe
from bystander.study.plan.audit import audit_study
from bystander.study.plan.cells import Cell, Plan, Training
from bystander.study.plan.export_rows import write_rows
from bystander.study.plan.groups import at_checkpoint
from bystander.study.store.cell_dir import CellDir
from bystander.study.store.records import CellManifest, TrainingName
from bystander.study.store.run_dir import RunDir

WITHOUT = ", without a persona"  # of what is measured beside the personas, on its bar
LOOK_AGAIN = 0.5  # seconds between two looks for a stop


@dataclass
class Worker:
    """One process's hold on a study: its plan, its run directory, and the base model, loaded once."""

    plan: Plan
    run: RunDir
    bar: Bar
    shrink: int = 0
    seconds_loading: float = 0.0
    _loaded: LoadedModel | None = None
    _looked: float = 0.0
    _stopping: bool = False

    @property
    def loaded(self) -> LoadedModel:
        """The resident base model."""
        if self._loaded is None:
            model, begun = self.plan.study.spec.model, time.monotonic()
            self._loaded = load(model.name, device=model.device, dtype=model.dtype, revision=model.revision)
            if model.engine == "vllm":
                from bystander.lm.engine_vllm import VllmSampler

                self._loaded.sampler = VllmSampler(self.plan.study.spec.recipe.lora.rank)
            self.seconds_loading += time.monotonic() - begun
        return self._loaded

    def cell_dir(self, cell: Cell) -> CellDir:
        """Where a cell lives."""
        return self.run.cell(cell.name, cell.key)

    def run_key(self, key: str, shrink: int = 0) -> CellManifest:
        """Do the cell of that key, with batches of 1 / 2**shrink, and return its manifest."""
        self.shrink = shrink
        if shrink and self._loaded is not None and self._loaded.device.type == "cuda":
            import torch

            torch.cuda.empty_cache()
        return self.do(self._cell(key))

    def run_together(self, keys: Sequence[str]) -> dict[str, Exception]:
        """Do several trainings in joint passes, resuming each; returns what went wrong, by key."""
        self.shrink = 0
        cells = [(cell, self.cell_dir(cell)) for cell in map(self._cell, keys)]
        todo = [(cell, directory) for cell, directory in cells if not directory.complete]
        for _, directory in todo:
            directory.begin()
        self.plan = filled(self.plan, self.run)
        return train_together(self, todo) if todo else {}

    def stopping(self) -> bool:
        """Whether a stop is asked for; looked up at most twice a second."""
        now = time.monotonic()
        if now - self._looked > LOOK_AGAIN:
            self._looked, self._stopping = now, self.run.stop_file.exists()
        return self._stopping

    def _cell(self, key: str) -> Cell:
        if key not in self.plan.by_key:  # after the gate, which has decided since this plan was made
            found = self.run.gate().found
            assert found is not None
            self.plan = self.plan.after_gate(found.picks)
        return self.plan.by_key[key]

    def do(self, cell: Cell) -> CellManifest:
        """Do a cell, resuming what an earlier process began, and return its manifest."""
        directory = self.cell_dir(cell)
        if not directory.complete:
            directory.begin()
            if cell.kind != "answers":
                self.plan = filled(self.plan, self.run)
            {
                "answers": self._answers, "data": self._data, "geometry": self._geometry, "mode check": self._mode_check,
                "evaluate": self._evaluate, "train": self._train, "gate": self._gate,
            }[cell.kind](cell, directory)  # fmt: skip
        return directory.manifest()

    def _answers(self, cell: Cell, directory: CellDir) -> None:
        behavior = self.plan.parts.to_write()[cell.behavior]
        by_model = isinstance(behavior.settings.not_shown, str)
        self.bar.start(f"{cell.behavior}: answers that do not show it", 1)
        write_answers(behavior, self.loaded if by_model else None, directory)
        self.bar.advance()
        manifest = self._manifest(cell, files=(FILE,)) if by_model else CellManifest(cell.kind, cell.name, cell.key)
        directory.finish([], manifest)

    def _data(self, cell: Cell, directory: CellDir) -> None:
        if cell.needs:  # what was audited before the run were stand-ins
            refuse(audit_study(self.plan, self.run))
        files = tuple(path.name for path in write_rows(self.plan.parts, directory.path))
        directory.finish([], CellManifest(cell.kind, cell.name, cell.key, files=files))

    def _gate(self, cell: Cell, directory: CellDir) -> None:
        decision = decide(self.plan, [self.cell_dir(self.plan.by_key[key]) for key in cell.needs])
        directory.finish([], CellManifest(cell.kind, cell.name, cell.key, gate=decision))

    def _geometry(self, cell: Cell, directory: CellDir) -> None:
        parts = self.plan.parts
        rows = {
            source: [r for d in parts.designs() if d.source == source and d.arm != "benign" for r in d.rows]
            for source in self.plan.study.spec.sources
        }
        layers, tokens = measure_geometry(parts, self.loaded, directory, self.bar, rows, parts.turns, self.beside)
        directory.finish([], self._manifest(cell, layers=layers, prompt_tokens=tokens))

    @cached_property
    def beside(self) -> list[Context]:
        """The contexts beside the personas that this model's template can render."""
        return renderable(self.plan.parts, self.loaded)

    def _mode_check(self, cell: Cell, directory: CellDir) -> None:
        """Let a probe look at the untrained model and decide how it measures; the manifest holds the decision."""
        assert cell.probe is not None
        probe = self.plan.probes[cell.probe]
        assert isinstance(probe, CheckedProbe)
        mode, found = check_mode(cell.probe, probe, self.loaded, self.plan.contexts, self.bar)
        directory.finish([], self._manifest(cell, mode=mode, mode_found=found))

    def _decided(self, name: str) -> Probe:
        """A probe that may measure: as it is, or as its mode check decided."""
        probe = self.plan.probes[name]
        cell = next((c for c in self.plan.of_kind("mode check") if c.probe == name), None)
        if cell is None:
            return probe
        assert isinstance(probe, CheckedProbe)
        return probe.checked(self.cell_dir(cell).manifest().mode_found)

    def _evaluate(self, cell: Cell, directory: CellDir) -> None:
        assert cell.probe is not None
        probe = self._decided(cell.probe)
        adapter = None
        if cell.training is not None:
            adapter = self.cell_dir(self.plan.by_key[cell.needs[0]]).adapter
        with self.loaded.adapter(adapter):
            stamp = self._stamp(cell.training, 1.0 if cell.training else 0.0)
            title = f"{cell.probe} probe, {'after ' + cell.training.label if cell.training else 'untrained model'}"
            title += WITHOUT if cell.group == "contexts" else ""
            contexts = self.beside if cell.group == "contexts" else self.plan.contexts_of(cell)
            keys = self._probe(probe, contexts, directory, stamp, "", title)
            manifest = self._manifest(cell, weights_hash=self.loaded.weights_hash)
        directory.finish(keys, manifest)

    def _probe(
        self, probe: Probe, contexts: Sequence[Context], directory: CellDir, stamp: Stamp, prefix: str, title: str
    ) -> list[str]:
        """Run a probe, saving each unit as it comes; returns the keys of all its units in order."""
        return run_units(
            probe, self.loaded, contexts, directory, stamp, self.bar, title, prefix, stopping=self.stopping
        )

    def _stamp(self, training: Training | None, checkpoint: float) -> Stamp:
        weights = self.loaded.weights_hash
        if training is None:
            return lambda m: replace(m, weights_hash=weights)
        design = self.plan.designs[training]
        roles = {("persona", name): role for name, role in design.roles.items()}
        roles |= context_roles(design, self.loaded.tokenizer, self.beside)
        return lambda m: replace(
            m, **asdict(_named(training)), role=roles.get((m.context, m.persona)), checkpoint=checkpoint,
            weights_hash=weights,
        )  # fmt: skip

    def _train(self, cell: Cell, directory: CellDir) -> None:
        train_alone(self, cell, directory)

    def stop_at_dose(self, cell: Cell, total: int, log: list[dict[str, Any]]) -> Stop | None:
        """What ends a training of `total` steps before its last: its dose, or its twin's step; None where nothing does.
        Called on the bare base, which it may measure."""
        asked, training = self.plan.study.spec.train_to, cell.training
        if asked is None or training is None:
            return None
        twin = training.twin
        if twin is not None:
            key = next(
                one.key for one in self.plan.of_kind("train") if one.training == twin and one.phase == cell.phase
            )
            reached = self.cell_dir(self.plan.by_key[key]).manifest().dose
            assert reached is not None
            return AsTwin(reached)
        source = at_checkpoint(self.plan.parts.compared, [training.source])[0]
        reading = SourceReading(self.loaded, self._decided(asked.outcome[0]), source, asked.outcome)
        self.bar.start(f"{asked.metric} of the untrained {training.source}", 1)
        return AtDose(asked, reading, reading.values(), total, log)

    def training_manifest(self, cell: Cell, weights_hash: str, probed: Sequence[Context]) -> CellManifest:
        """What a training says when it is done."""
        assert cell.training is not None
        return self._manifest(
            cell, training=_named(cell.training), weights_hash=weights_hash, probed=tuple(c.name for c in probed),
            batches=1 / 2**self.shrink,
        )  # fmt: skip

    def sides(
        self, fraction: float, probe: str, probed: Sequence[Context]
    ) -> tuple[tuple[str, Sequence[Context]], ...]:
        """What a probe measures at a checkpoint, with what its units' keys begin with: the personas, then the contexts
        beside them. What one gives does not depend on the other, and their names may be the same."""
        return (f"{fraction}/{probe}/", probed), (f"{fraction}/contexts/{probe}/", self.beside)

    def at_checkpoint(self, training: Training, fraction: float, probed: Sequence[Context], directory: CellDir) -> None:
        """Run all probes on the adapter that is on."""
        stamp = self._stamp(training, fraction)
        for name in self.plan.probes:
            title = f"{name} probe at {fraction:.0%}"
            for prefix, contexts in self.sides(fraction, name, probed):
                shown = title + WITHOUT if contexts is self.beside else title
                self._probe(self._decided(name), contexts, directory, stamp, prefix, shown)

    def probed_personas(self, source: str) -> list[str]:
        """Who is measured at a checkpoint: the source, and others spread over the similarity ranking."""
        spec = self.plan.study.spec
        geometry = self.cell_dir(self.plan.of_kind("geometry")[0])
        frame = self.run.table(geometry.similarities_file).filter(
            (pl.col("source") == source) & (pl.col("method") == spec.geometry.method)
        )
        if frame["layer"].n_unique() > 1:
            frame = frame.filter(pl.col("layer") == spec.geometry.layer)
        ranking = dict(zip(frame["persona"].to_list(), frame["value"].to_list(), strict=True))
        return spread_over_ranking(ranking, source, spec.checkpoints.personas)

    def _manifest(self, cell: Cell, **more: Any) -> CellManifest:
        return CellManifest(cell.kind, cell.name, cell.key, base_hash=self.loaded.base_hash, **more)


def _named(training: Training) -> TrainingName:
    return TrainingName(
        training.behavior, training.source, training.arm, training.config, training.lr, training.epochs, training.seed
    )
