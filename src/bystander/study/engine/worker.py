"""Doing one cell: the only place where stages are called with a model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import polars as pl

from bystander.core.files import write_parquet
from bystander.core.progress import Bar
from bystander.core.records import Context, Measurement, Similarity, as_dict
from bystander.design.audit import refuse
from bystander.geometry.measure import Geometry, see, similarities
from bystander.geometry.similarity import spread_over_ranking
from bystander.lm.model import LoadedModel, load
from bystander.probe.base import CheckedProbe, Probe
from bystander.study.engine.dose import AsTwin, AtDose, SourceReading, Stop
from bystander.study.engine.gate import decide
from bystander.study.engine.own_answers import FILE, filled, write_answers
from bystander.study.engine.shutdown import Interrupted
from bystander.study.engine.trainings import train_alone, train_together
from bystander.study.plan.audit import audit_study
from bystander.study.plan.cells import Cell, Plan, Training, at_checkpoint, twin_of
from bystander.study.plan.export_rows import write_rows
from bystander.study.store.cell_dir import CellDir
from bystander.study.store.records import CellManifest, ModeDecision, TrainingName
from bystander.study.store.run_dir import RunDir

T = TypeVar("T")
LOOK_AGAIN = 0.5  # seconds between two looks for a stop
SIMILARITY_SCHEMA: dict[str, Any] = {
    "source": pl.String, "persona": pl.String, "method": pl.String, "layer": pl.Int64, "value": pl.Float64,
}  # fmt: skip


@dataclass
class Worker:
    """One process's hold on a study: its plan, its run directory, and the base model, loaded once."""

    plan: Plan
    run: RunDir
    bar: Bar
    shrink: int = 0
    _loaded: LoadedModel | None = None
    _looked: float = 0.0
    _stopping: bool = False

    @property
    def loaded(self) -> LoadedModel:
        """The resident base model."""
        if self._loaded is None:
            model = self.plan.study.spec.model
            self._loaded = load(model.name, device=model.device, dtype=model.dtype, revision=model.revision)
            if model.engine == "vllm":
                from bystander.lm.engine_vllm import VllmSampler

                self._loaded.sampler = VllmSampler(self.plan.study.spec.recipe.lora.rank)
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
        spec, contexts, loaded = self.plan.study.spec, self.plan.contexts, self.loaded
        layers = list(range(loaded.layers + 1)) if spec.geometry.layers == "all" else spec.geometry.layers
        predictors, tokens, sources = self.plan.parts.predictors(), self._prompt_tokens(), spec.sources
        self.bar.start(f"geometry: {len(contexts)} personas, {len(layers)} layers", len(contexts) * predictors.passes())
        rows = {
            source: [r for d in self.plan.parts.designs() if d.source == source and d.arm != "benign" for r in d.rows]
            for source in sources
        }
        asked = Geometry(
            contexts, sources, self.plan.parts.open_questions, layers, tokens, rows, self.plan.parts.turns,
            spec.geometry.answer_tokens,
        )  # fmt: skip
        seen = see(predictors, loaded, asked, self.bar.advance)
        write_parquet(directory.similarities_file, similarity_table(similarities(predictors, seen, sources)))
        directory.finish([], self._manifest(cell, layers=tuple(layers), prompt_tokens=tokens))

    def _prompt_tokens(self) -> dict[str, int]:
        tokenizer = self.loaded.tokenizer
        return {
            c.name: len(tokenizer(c.system or "", add_special_tokens=False)["input_ids"]) for c in self.plan.contexts
        }

    def _mode_check(self, cell: Cell, directory: CellDir) -> None:
        """Let a probe look at the untrained model and decide how it measures; the manifest holds the decision."""
        assert cell.probe is not None
        probe = self.plan.probes[cell.probe]
        assert isinstance(probe, CheckedProbe)
        self.bar.start(f"{cell.probe} probe: mode check on the untrained model", 1)
        found = dict(probe.check(self.loaded, self.plan.contexts))
        self.bar.advance(note=str(found["warning"]))
        mode = ModeDecision(cell.probe, str(found["mode"]), str(found["reason"]), str(found["warning"]))
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
            keys = self._probe(probe, self.plan.contexts_of(cell), directory, stamp, "", title)
            manifest = self._manifest(cell, weights_hash=self.loaded.weights_hash)
        directory.finish(keys, manifest)

    def _probe(
        self, probe: Probe, contexts: Sequence[Context], directory: CellDir,
        stamp: Callable[[Measurement], Measurement], prefix: str, title: str,
    ) -> list[str]:  # fmt: skip
        """Run a probe, saving each unit as it comes; returns the keys of all its units in order."""
        keys = probe.units(contexts)
        saved = directory.kept_keys()
        done = [key for key in keys if prefix + key in saved]
        self.bar.start(title, len(keys))
        self.bar.advance(len(done))
        for unit in probe.run(self.loaded, contexts, done):
            directory.keep_unit(replace(unit, key=prefix + unit.key), stamp, probe.name)
            self.bar.advance()
            if self.stopping():
                raise Interrupted("a stop was asked for; the units are kept")
        return [prefix + key for key in keys]

    def _stamp(self, training: Training | None, checkpoint: float) -> Callable[[Measurement], Measurement]:
        weights = self.loaded.weights_hash
        if training is None:
            return lambda m: replace(m, weights_hash=weights)
        roles = self.plan.designs[training].roles
        return lambda m: replace(
            m, **asdict(_named(training)), role=roles.get(m.persona), checkpoint=checkpoint, weights_hash=weights
        )

    def _train(self, cell: Cell, directory: CellDir) -> None:
        train_alone(self, cell, directory)

    def stop_at_dose(self, cell: Cell, total: int, log: list[dict[str, Any]]) -> Stop | None:
        """What ends a training of `total` steps before its last: its dose, or its twin's step; None where nothing does.
        Called on the bare base, which it may measure."""
        asked, training = self.plan.study.spec.train_to, cell.training
        if asked is None or training is None:
            return None
        twin = twin_of(training)
        if twin is not None:
            key = next(
                one.key for one in self.plan.of_kind("train") if one.training == twin and one.phase == cell.phase
            )
            reached = self.cell_dir(self.plan.by_key[key]).manifest().dose
            assert reached is not None
            return AsTwin(reached)
        source = at_checkpoint(self.plan.contexts, [training.source])[0]
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

    def at_checkpoint(self, training: Training, fraction: float, probed: Sequence[Context], directory: CellDir) -> None:
        """Run all probes on the adapter that is on."""
        stamp = self._stamp(training, fraction)
        for name in self.plan.probes:
            title = f"{name} probe at {fraction:.0%}"
            self._probe(self._decided(name), probed, directory, stamp, f"{fraction}/{name}/", title)

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


def similarity_table(records: Iterable[Similarity]) -> pl.DataFrame:
    """Similarities as a table."""
    return pl.DataFrame([as_dict(record) for record in records], schema=SIMILARITY_SCHEMA)
