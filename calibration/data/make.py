"""How the two files beside this one were made; run once: `python -m calibration.data.make SWEEP`.

`personas.csv`: the untrained Qwen2.5-Coder-1.5B-Instruct on 586 ARC letters, from the `measurements.parquet` of a sweep
(accuracy by persona), and each persona's similarity to five sources at layer 20 (centered cosine).
`centroids.csv`: centroids of the 111 built-in personas in the embedded model, layer by layer, as scores on their first
twelve principal components in units of the root of the layer's total variance.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bystander.data.bank import load_open_questions
from bystander.lm.embedded import checkpoint_path
from bystander.lm.hidden import last_token_states
from bystander.lm.model import load
from bystander.personas.contexts import context_of
from bystander.personas.load import load_personas

HERE = Path(__file__).parent
LAYERS = (5, 10, 15, 20, 25)
COMPONENTS = 12
SIMILARITY_LAYER = 20


def personas(sweep: Path) -> None:
    """Baselines and similarities of the sweep's untrained model, one row per persona."""
    table = pl.read_parquet(sweep / "measurements.parquet").filter(
        (pl.col("checkpoint") == 0) & (pl.col("dataset") == "arc") & (pl.col("metric") == "accuracy")
    )
    accuracy = table.group_by("persona").agg(pl.col("value").mean().alias("accuracy"))
    similarity = pl.read_parquet(sweep / "similarities.parquet").filter(
        (pl.col("method") == "cosine") & (pl.col("layer") == SIMILARITY_LAYER)
    )
    wide = similarity.pivot(on="source", index="persona", values="value")
    facts = pl.read_parquet(sweep / "personas.parquet").select("persona", "category", "prompt_tokens")
    rows = facts.join(accuracy, on="persona").join(wide, on="persona")
    rows.with_columns(pl.col(pl.Float64).round(4)).write_csv(HERE / "personas.csv")


def centroids() -> None:
    """Principal components of the embedded model's centroids."""
    loaded = load(str(checkpoint_path()))
    contexts = [context_of(persona) for persona in load_personas()]
    users = [question.text for question in load_open_questions()]
    states = np.stack([prompt.states for prompt in last_token_states(loaded, contexts, users, LAYERS)])
    with (HERE / "centroids.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["layer", "persona", *(f"c{i + 1}" for i in range(COMPONENTS))])
        for place, layer in enumerate(LAYERS):
            scores, kept = components(states[:, place].astype(np.float64))
            print(f"layer {layer}: {COMPONENTS} components hold {kept:.1%} of the variance")
            for context, row in zip(contexts, scores, strict=True):
                writer.writerow([layer, context.name, *(f"{value:.4f}" for value in row)])


def components(states: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Scores of [personas, hidden] on its first components -> ([personas, components], share of variance held)."""
    left, singular, _ = np.linalg.svd(states - states.mean(axis=0), full_matrices=False)
    total = float((singular**2).sum())
    scores = left[:, :COMPONENTS] * singular[:COMPONENTS] * (len(states) / total) ** 0.5
    return scores, float((singular[:COMPONENTS] ** 2).sum()) / total


if __name__ == "__main__":
    personas(Path(sys.argv[1]))
    centroids()
