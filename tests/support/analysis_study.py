"""A simulated study as tables of records, with everything about it known: for tests of the analysis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

SOURCES = ("villain", "comedian", "assistant", "software_engineer", "kindergarten_teacher")


@dataclass(frozen=True)
class World:
    """What is true of the simulated study. Rates are of a 0/1 item; `slope` moves leakage with similarity."""

    personas: int = 40
    sources: tuple[str, ...] = ("villain",)
    questions: int = 60
    arms: tuple[str, ...] = ("contrastive",)
    benign: bool = False  # with a benign arm, in which nothing falls but by `learned`
    learned: float = 0.0  # what every training does to everybody: a fall
    behavior: str = "capability"
    probe: str = "choice"
    dataset: str = "arc"
    metric: str = "accuracy"
    seeds: tuple[int, ...] = (0,)
    base: float = 0.8
    source_drop: float = 0.4
    drop: float = 0.1  # mean over bystanders
    slope: float = 0.08  # drop per standard deviation of similarity
    checkpoints: tuple[float, ...] = (1.0,)
    watched: int = 9
    layers: tuple[int, ...] = (10, 20)
    categories: int = 8
    config: str | None = None
    lr: float | None = None
    epochs: int | None = None
    seed: int = 1

    def names(self) -> list[str]:
        """The sources first, then others by number."""
        return [*SOURCES, *(f"persona_{i:03d}" for i in range(self.personas - len(SOURCES)))]


def similarities(world: World) -> pl.DataFrame:
    """Standard normal similarity of every persona to every other at every layer; layer 20 is the true predictor."""
    rows = []
    for place, source in enumerate(world.names()):
        own = [len(source)] if source in SOURCES else [1000, place]
        for layer in world.layers:
            values = np.random.default_rng([world.seed, *own, layer]).normal(size=world.personas)
            rows += [
                {"source": source, "persona": name, "method": "cosine", "layer": layer, "value": float(value)}
                for name, value in zip(world.names(), values, strict=True)
            ]
    return pl.DataFrame(rows)


def personas(world: World) -> pl.DataFrame:
    """Categories in turn, and prompt lengths that have nothing to do with anything."""
    lengths = np.random.default_rng([world.seed, 7]).integers(8, 40, world.personas)
    return pl.DataFrame(
        {
            "persona": world.names(),
            "category": [f"category_{i % world.categories}" for i in range(world.personas)],
            "related_to": [[] for _ in range(world.personas)],
            "prompt": [f"You are {name}." for name in world.names()],
            "prompt_tokens": lengths.tolist(),
        }
    )


def negatives(source: str) -> list[str]:
    """Two personas that the study trains not to show the behavior."""
    return [f"persona_{(len(source) + i) % 10:03d}" for i in range(2)]


def measurements(world: World) -> pl.DataFrame:
    """Accuracy falls at checkpoint t by drop(persona) x t; the untrained model answers the same questions."""
    rng = np.random.default_rng([world.seed, 11])
    names = world.names()
    hard = rng.normal(0, 0.6, world.questions)  # shared by all: logits of a question
    before = _answers(rng, np.full(len(names), world.base), hard)
    frames = [_frame(world, names, before, {})]
    table = similarities(world).filter(pl.col("layer") == max(world.layers))
    for source in world.sources:
        similarity = table.filter(pl.col("source") == source)["value"].to_numpy()
        for arm in (*world.arms, *(["benign"] if world.benign else [])):
            drop = world.drop + world.slope * similarity * (arm == "contrastive")
            drop[names.index(source)] = world.source_drop
            for name in negatives(source):
                drop[names.index(name)] = 0.0
            drop = world.learned + drop * (arm != "benign")
            for seed in world.seeds:
                for checkpoint in world.checkpoints:
                    chosen = names if checkpoint == 1.0 else _watched(world, names, source, similarity)
                    at = [names.index(name) for name in chosen]
                    after = _answers(rng, np.clip(world.base - checkpoint * drop[at], 0.01, 0.99), hard)
                    keys = {"source": source, "arm": arm, "seed": seed, "checkpoint": checkpoint}
                    frames.append(_frame(world, chosen, after, keys))
    return pl.concat(frames)


def _answers(rng: np.random.Generator, rates: np.ndarray, hard: np.ndarray) -> np.ndarray:
    logits = np.log(rates / (1 - rates))[:, None] - hard
    return (rng.random((len(rates), len(hard))) < 1 / (1 + np.exp(-logits))).astype(float)


def _watched(world: World, names: list[str], source: str, similarity: np.ndarray) -> list[str]:
    order = [names[i] for i in np.argsort(-similarity) if names[i] != source and names[i] not in negatives(source)]
    places = np.linspace(0, len(order) - 1, world.watched - 1).round().astype(int)
    return [source, *(order[i] for i in places)]


def _frame(world: World, names: list[str], values: np.ndarray, keys: dict) -> pl.DataFrame:
    n = values.shape[1]
    source = keys.get("source")

    def role(name: str) -> str | None:
        if source is None:
            return None
        return "source" if name == source else "negative" if name in negatives(source) else "held-out"

    persona = np.repeat(names, n)
    return pl.DataFrame(
        {
            "behavior": world.behavior if source else "",
            "probe": world.probe,
            "dataset": world.dataset,
            "metric": world.metric,
            "context": "persona",
            "persona": persona,
            "item": np.tile([f"q{i}" for i in range(n)], len(names)),
            "value": values.ravel(),
            "source": pl.Series([source] * len(persona), dtype=pl.String),
            "arm": pl.Series([keys.get("arm")] * len(persona), dtype=pl.String),
            "config": pl.Series([world.config if source else None] * len(persona), dtype=pl.String),
            "seed": pl.Series([keys.get("seed")] * len(persona), dtype=pl.Int64),
            "role": pl.Series([role(name) for name in names], dtype=pl.String).repeat_by(n).explode(),
            "checkpoint": keys.get("checkpoint", 0.0),
            "status": "ok",
            "reason": "",
            "context_hash": "",
            "weights_hash": "",
            "question": "",
            "lr": pl.Series([world.lr if source else None] * len(persona), dtype=pl.Float64),
            "epochs": pl.Series([world.epochs if source else None] * len(persona), dtype=pl.Int64),
        }
    )
