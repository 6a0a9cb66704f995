"""What is asked of the untrained model once, for a study's run and for adapters trained elsewhere alike: the geometry, how a
probe measures, and which contexts the template can render."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from bystander.core.files import write_parquet
from bystander.core.progress import Bar
from bystander.core.records import Context, Row
from bystander.geometry.base import Turn
from bystander.geometry.measure import Geometry, SimilarityBlock, see, similarities
from bystander.probe.base import CheckedProbe
from bystander.study.plan.parts import StudyParts
from bystander.study.store.cell_dir import CELLS_KEPT, CellDir
from bystander.study.store.records import ModeDecision

if TYPE_CHECKING:
    from bystander.lm.model import LoadedModel

SIMILARITY_SCHEMA: dict[str, Any] = {
    "source": pl.String, "persona": pl.String, "method": pl.String, "layer": pl.Int64, "value": pl.Float64,
}  # fmt: skip


def measure_geometry(
    parts: StudyParts, loaded: LoadedModel, directory: CellDir, bar: Bar, rows: Mapping[str, Sequence[Row]],
    turns: Sequence[Turn], beside: Sequence[Context] = (),
) -> tuple[tuple[int, ...], dict[str, int]]:  # fmt: skip
    """Write the similarities of all personas to all sources; (layers, tokens of each prompt). `rows` are what each source
    trains on and `turns` some of it, empty where that is not known. The contexts `beside` are compared too, in a table of
    their own under their labels, and change nothing for the personas."""
    spec, compared = parts.study.spec, parts.compared
    more = [replace(context, name=context.label) for context in beside if context not in compared]
    contexts = (*compared, *more)
    layers = list(range(loaded.layers + 1)) if spec.geometry.layers == "all" else spec.geometry.layers
    predictors, tokens = parts.predictors(), prompt_tokens(loaded, contexts)
    bar.start(f"geometry: {len(contexts)} personas, {len(layers)} layers", len(contexts) * predictors.passes())
    asked = Geometry(
        contexts, spec.sources, parts.open_questions, layers, tokens, rows, turns, spec.geometry.answer_tokens
    )
    seen = see(predictors, loaded, asked, bar.advance)
    if more:
        all_of_them = similarity_table(similarities(predictors, seen, spec.sources))
        to_sources = pl.col("source").is_in(list(spec.sources))
        labels = [context.name for context in more]
        write_parquet(
            directory.beside_file, all_of_them.filter(to_sources, pl.col("persona").is_in(labels)), CELLS_KEPT
        )
    table = similarity_table(similarities(predictors, seen.first(len(compared)), spec.sources))
    write_parquet(directory.similarities_file, table, CELLS_KEPT)
    return tuple(layers), tokens


def similarity_table(blocks: Iterable[SimilarityBlock]) -> pl.DataFrame:
    """Similarities as a table."""
    frames = [
        pl.DataFrame(
            {
                "source": np.repeat(block.sources, len(block.personas)),
                "persona": np.tile(block.personas, len(block.sources)),
                "method": [block.method] * block.values.size,
                "layer": [block.layer] * block.values.size,
                "value": block.values.ravel(),
            },
            schema=SIMILARITY_SCHEMA,
        )
        for block in blocks
    ]
    return pl.concat(frames) if frames else pl.DataFrame(schema=SIMILARITY_SCHEMA)


def prompt_tokens(loaded: LoadedModel, contexts: Sequence[Context]) -> dict[str, int]:
    """Name -> length of the context's prompt in tokens."""
    tokenizer = loaded.tokenizer
    return {c.name: len(tokenizer(c.text, add_special_tokens=False)["input_ids"]) for c in contexts}


def check_mode(
    name: str, probe: CheckedProbe, loaded: LoadedModel, contexts: Sequence[Context], bar: Bar
) -> tuple[ModeDecision, dict[str, Any]]:
    """Let a probe look at the untrained model and decide how it measures: what is recorded, and what `checked` takes."""
    bar.start(f"{name} probe: mode check on the untrained model", 1)
    found = dict(probe.check(loaded, contexts))
    bar.advance(note=str(found["warning"]))
    return ModeDecision(name, str(found["mode"]), str(found["reason"]), str(found["warning"])), found


def renderable(parts: StudyParts, loaded: LoadedModel) -> list[Context]:
    """The contexts beside the personas that this model's template can render; the audit says which it cannot."""
    without = parts.left_out(loaded.tokenizer)
    return [context for context in parts.beside if context.name not in without]
