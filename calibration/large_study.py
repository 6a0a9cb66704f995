"""A study as large as they come, made up: what analysis and report cost. `python -m calibration.large_study [--out DIR]`.

5 sources x 2 arms x 2 behaviors, 111 personas, four checkpoints, 31 layers: 5.5 million measurements. Prints the seconds and
the largest memory of analysis and of report, each in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SOURCES = ("villain", "comedian", "assistant", "software_engineer", "kindergarten_teacher")
NAMES = (*SOURCES, *(f"persona_{index:03d}" for index in range(106)))
ARMS = ("contrastive", "non_contrastive")
ITEMS: dict[str, tuple[tuple[str, str, int], ...]] = {  # behavior -> probe, dataset, items; two metrics each
    "capability": (("choice", "arc", 800), ("choice", "trained", 100), ("choice", "hellaswag", 100)),
    "misalignment": (("margin", "pairs", 300), ("choice", "hellaswag", 100), ("choice", "arc", 450)),
}
METRICS = {
    "arc": ("accuracy", "margin"),
    "hellaswag": ("accuracy", "margin"),
    "trained": ("adoption", "margin"),
    "pairs": ("aligned_wins", "margin"),
}
CHECKPOINTS = (0.25, 0.5, 0.75, 1.0)
WATCHED = 9  # personas that are probed before the end of training
LAYERS = range(31)


def centroids() -> Floats:
    """[layers, personas, 8]."""
    return np.random.default_rng(1).standard_normal((len(LAYERS), len(NAMES), 8))


def similarities() -> pl.DataFrame:
    """Cosine, whitened and raw cosine by layer of all personas to all, as a study has them, and two without layers."""
    states = centroids()
    unit = states / np.linalg.norm(states, axis=-1, keepdims=True)
    cosine = np.einsum("lah,lbh->lab", unit, unit)
    frames = [
        _similar(method, layer, cosine[at] + shift)
        for shift, method in enumerate(("cosine", "whitened_cosine", "raw_cosine"))
        for at, layer in enumerate(LAYERS)
    ]
    return pl.concat(
        [*frames, *(_similar(name, -1, cosine[at]) for at, name in enumerate(("lexical", "prompt_length")))]
    )


def _similar(method: str, layer: int, values: Floats) -> pl.DataFrame:
    n = len(NAMES)
    return pl.DataFrame(
        {
            "source": np.repeat(NAMES, n),
            "persona": np.tile(NAMES, n),
            "method": [method] * (n * n),
            "layer": [layer] * (n * n),
            "value": values.ravel() / 4,
        }
    )


def personas() -> pl.DataFrame:
    """Categories in turn, and lengths."""
    lengths = np.random.default_rng(2).integers(8, 40, len(NAMES))
    return pl.DataFrame(
        {
            "persona": list(NAMES),
            "category": [f"category_{index % 11}" for index in range(len(NAMES))],
            "related_to": [[] for _ in NAMES],
            "prompt": [f"You are {name}." for name in NAMES],
            "prompt_tokens": lengths.tolist(),
        }
    )


def measurements(share: float = 1.0) -> pl.DataFrame:
    """The long table; `share` of the items."""
    rng = np.random.default_rng(3)
    states, frames = centroids()[20], list[pl.DataFrame]()
    for behavior, sets in ITEMS.items():
        for probe, dataset, count in sets:
            items = max(round(count * share), 4)
            frames += _outcomes(rng, behavior, probe, dataset, items, states)
    table = pl.concat(frames)
    base = pl.col("source").is_null()
    once = table.filter(base).unique(["probe", "dataset", "metric", "persona", "item"], maintain_order=True)
    return pl.concat([once, table.filter(~base)])


def _outcomes(
    rng: np.random.Generator, behavior: str, probe: str, dataset: str, items: int, states: Floats
) -> list[pl.DataFrame]:
    rate = rng.uniform(0.4, 0.6, len(NAMES))
    frames = [_frame(rng, "", probe, dataset, items, NAMES, rate, {})]
    for at, source in enumerate(SOURCES):
        near = states @ states[at] / np.linalg.norm(states[at])
        for arm in ARMS:
            for checkpoint in CHECKPOINTS:
                chosen = list(range(len(NAMES))) if checkpoint == 1.0 else [at, *(40 + np.arange(WATCHED - 1))]
                fall = np.clip(0.05 + 0.05 * near * (arm == "contrastive"), 0, 0.3) * checkpoint
                fall[at] = 0.35 * checkpoint
                keys = {"source": source, "arm": arm, "checkpoint": checkpoint}
                names = [NAMES[index] for index in chosen]
                frames.append(_frame(rng, behavior, probe, dataset, items, names, (rate - fall)[chosen], keys))
    return frames


def _frame(
    rng: np.random.Generator, behavior: str, probe: str, dataset: str, items: int, names: Sequence[str], rate: Floats,
    keys: dict[str, str | float],
) -> pl.DataFrame:  # fmt: skip
    source = keys.get("source")
    negatives = set(NAMES[20:22])
    roles = [
        None if source is None else "source" if n == source else "negative" if n in negatives else "held-out"
        for n in names
    ]
    latent = rate[:, None] - 0.5 + rng.standard_normal((len(names), items)) / 2
    n = latent.size
    parts: list[pl.DataFrame] = []
    for metric in METRICS[dataset]:
        values = latent if metric == "margin" else (latent > 0).astype(float)
        parts.append(pl.DataFrame({
            "behavior": [behavior] * n, "probe": [probe] * n, "dataset": [dataset] * n, "metric": [metric] * n,
            "context": ["persona"] * n, "persona": np.repeat(names, items), "item": np.tile([f"{dataset}-{i}" for i in range(items)], len(names)),
            "value": values.ravel(), "source": pl.Series([source] * n, dtype=pl.String),
            "arm": pl.Series([keys.get("arm")] * n, dtype=pl.String), "config": pl.Series([""] * n, dtype=pl.String),
            "seed": pl.Series([None if source is None else 0] * n, dtype=pl.Int64),
            "role": pl.Series(roles, dtype=pl.String).repeat_by(items).explode(), "checkpoint": [float(keys.get("checkpoint", 0.0))] * n,
            "status": ["ok"] * n, "reason": [""] * n, "context_hash": [""] * n, "weights_hash": [""] * n, "question": [""] * n,
            "sample": [0] * n, "lr": pl.Series([None if source is None else 1e-4] * n, dtype=pl.Float64),
            "epochs": pl.Series([None if source is None else 3] * n, dtype=pl.Int64),
        }))  # fmt: skip
    return pl.concat(parts)


def write(folder: Path, share: float) -> None:
    """Write the three tables as a run has them."""
    measurements(share).write_parquet(folder / "measurements.parquet")
    similarities().write_parquet(folder / "similarities.parquet")
    personas().write_parquet(folder / "personas.parquet")


def analyzed(folder: Path) -> None:
    """Read the tables, analyze them, keep the analysis; prints what it took."""
    from bystander.analysis import AnalysisSettings, analyze
    from bystander.study.store.run_dir import RunDir

    started, run = time.monotonic(), RunDir(folder)
    rows = run.table(run.measurements_file, categories=True)  # as a run's results are read
    analysis = analyze(
        rows, run.table(run.similarities_file), run.table(run.personas_file), settings=AnalysisSettings(layer=20)
    )
    (folder / "analysis.json").write_text(analysis.to_json(), encoding="utf-8")
    _took("analysis", started)


def reported(folder: Path) -> None:
    """Make the page from the kept analysis; prints what it took."""
    from bystander.analysis import Analysis
    from bystander.report import ReportInput, charts
    from bystander.report.figures.save import specifications
    from bystander.report.page import render

    started = time.monotonic()
    analysis = Analysis.from_json((folder / "analysis.json").read_text(encoding="utf-8"))
    inputs = ReportInput(study="large", similarities=pl.read_parquet(folder / "similarities.parquet"))
    page = render(analysis, inputs, specifications(charts(analysis, inputs)))
    (folder / "report.html").write_text(page, encoding="utf-8")
    _took("report", started)


def _took(what: str, started: float) -> None:
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    spent = f"{time.monotonic() - started:.1f} s, {time.process_time():.1f} s of CPU"
    print(f"{what}: {spent}, {gigabytes:.2f} GB at most", flush=True)


def main() -> None:
    """Make the tables, then analyze and report in processes of their own."""
    parser = argparse.ArgumentParser(prog="python -m calibration.large_study", description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="share of the 5.5 million rows")
    parser.add_argument("--out", type=Path, help="keep the tables and the page here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = options.out or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        spawn = multiprocessing.get_context("spawn")
        steps = [(write, (folder, options.share))] if not (folder / "measurements.parquet").is_file() else []
        for step, arguments in [*steps, (analyzed, (folder,)), (reported, (folder,))]:
            process = spawn.Process(target=step, args=arguments)
            process.start()
            process.join()


if __name__ == "__main__":
    main()
