"""What a forecast of leakage is fitted on and made for: one source of one study, its contexts, what was known of them before
training, and, where it was measured, what they did.

Leakage is what a training did beyond the benign arm; where there is none, the change from the untrained model. Fractions are
taken as log-odds, clipped at 0.005 (one answer in 200) from 0 and 1: below that nobody counts a change. Other metrics are
taken in their unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bystander.analysis.declared import ARM
from bystander.core.errors import DataError
from bystander.core.metrics import Metric, metric

Floats = NDArray[np.float64]
Against = Literal["untrained", "benign"]
Scale = Literal["log-odds", "unit"]
EDGE = 0.005  # of a fraction: the resolution of 200 answers
LEAST = 1e-30  # of a prior's log-odds: probabilities of a marker reach 1e-14, and their order is knowledge
# No predictor: a random direction stands for what any direction foretells.
NO_FEATURE = ("random_direction",)
PRIOR, LENGTH = "base_prior", "prompt_tokens"
PUBLISHED = ("source", "persona", "cosine_layer10", "cosine_layer20", "leakage_rate")


@dataclass(frozen=True)
class SourceContexts:
    """One source with its bystanders, or, for a forecast, all contexts beside it.

    `features`: name -> [contexts], larger for more of it; a feature that is not known is not there. `reference` and `after`
    [contexts]: means of the outcome before (or in the benign arm) and after training, in the metric's unit; `after` is
    empty before the training."""

    study: str
    model: str
    behavior: str
    outcome: str  # probe/dataset/metric
    source: str
    names: tuple[str, ...]
    features: Mapping[str, Floats]
    reference: Floats
    after: Floats = field(default_factory=lambda: np.empty(0))
    against: Against = "untrained"

    @property
    def direction(self) -> int:
        """+1 where the behavior raises the metric."""
        return metric_of(self.outcome).direction

    @property
    def scale(self) -> Scale:
        """On which leakage is modelled."""
        return "log-odds" if metric_of(self.outcome).unit == "fraction" else "unit"

    @property
    def leakage(self) -> Floats:
        """Leakage on the scale, in the behavior's direction [contexts]."""
        return self.direction * (on_scale(self.after, self.scale) - on_scale(self.reference, self.scale))

    @property
    def change(self) -> Floats:
        """Leakage in the metric's unit, in the behavior's direction [contexts]: what ranks are made of, since clipping
        would tie the small ones."""
        return self.direction * (self.after - self.reference)

    @property
    def said(self) -> str:
        """The source for a reader."""
        against = "beyond the benign arm" if self.against == "benign" else "change from the untrained model"
        return f"{self.study} ({self.model}): {self.source}, {len(self.names)} personas, {against}"


def metric_of(outcome: str) -> Metric:
    """The metric of probe/dataset/metric."""
    probe, _, name = outcome.split("/")
    return metric(probe, name)


def on_scale(values: Floats, scale: Scale) -> Floats:
    """Fractions as log-odds, clipped; other metrics as they are."""
    return log_odds(np.clip(values, EDGE, 1 - EDGE)) if scale == "log-odds" else values


def off_scale(values: Floats, scale: Scale) -> Floats:
    """Back to the metric's unit; infinite log-odds are 0 and 1."""
    return 0.5 * (1 + np.tanh(values / 2)) if scale == "log-odds" else values


def log_odds(fractions: Floats) -> Floats:
    """Natural log-odds."""
    return np.log(fractions) - np.log1p(-fractions)


def prior_feature(reference: Floats, outcome: str) -> Floats:
    """How much a context shows the behavior before training, in the behavior's direction: log-odds of a fraction, hardly
    clipped, or the metric itself."""
    one = metric_of(outcome)
    values = log_odds(np.clip(reference, LEAST, 1 - EDGE)) if one.unit == "fraction" else reference
    return one.direction * values


def similarity_features(
    similarities: pl.DataFrame, source: str, layer: int | None, names: Sequence[str]
) -> dict[str, Floats]:
    """Predictor -> [names] of one source, of predictors with layers at the declared one. A predictor that lacks a name is
    left out."""
    known = similarities.filter(
        (pl.col("source") == source) & pl.col("layer").is_in([-1] if layer is None else [-1, layer])
    )
    found: dict[str, Floats] = {}
    for method in sorted(set(known["method"].to_list()) - set(NO_FEATURE)):
        values = dict(known.filter(pl.col("method") == method).select("persona", "value").iter_rows())
        if all(values.get(name) is not None and np.isfinite(values[name]) for name in names):
            found[method] = np.array([values[name] for name in names])
    return found


@dataclass(frozen=True, slots=True)
class StudyTables:
    """The tables of one study that a fit reads; `layer`: the declared one."""

    study: str
    model: str
    layer: int | None
    leakage: pl.DataFrame
    similarities: pl.DataFrame
    personas: pl.DataFrame

    def sources(self, behavior: str, outcome: str, *, beside: bool = False) -> list[SourceContexts]:
        """The sources of that behavior in its contrastive arm: held-out personas that were measured, pooled over seeds; or
        the contexts `beside` them, under their labels, without features."""
        probe, dataset, name = outcome.split("/")
        rows = self.leakage.filter(
            (pl.col("behavior") == behavior) & (pl.col("probe") == probe) & (pl.col("dataset") == dataset)
            & (pl.col("metric") == name) & pl.col("seed").is_null() & ((pl.col("context") == "persona") != beside)
            & pl.col("status").is_in(["ok", "single"]) & pl.col("after").is_not_null() & pl.col("before").is_not_null()
        )  # fmt: skip
        main = rows.filter((pl.col("arm") == ARM) & (pl.col("role") == "held-out"))
        counts = main.group_by("source", "config").agg(pl.len()).sort("len", "config", descending=[True, False])
        configs = {
            source: chosen for source, chosen, _ in reversed(counts.rows())
        }  # of several the one of most personas
        return [
            self._source(behavior, outcome, source, rows.filter(pl.col("source") == source, pl.col("config") == chosen))
            for source, chosen in sorted(configs.items())
        ]

    def _source(self, behavior: str, outcome: str, source: str, rows: pl.DataFrame) -> SourceContexts:
        own = rows.filter((pl.col("arm") == ARM) & (pl.col("role") == "held-out")).sort("persona")
        against: Against = "untrained"
        if "benign" in own.columns and own["benign"].is_not_null().any():  # tables of old versions have no such column
            against, own = "benign", own.filter(pl.col("benign").is_not_null())
        before, after = own["before"].to_numpy(), own["after"].to_numpy()
        reference = own["benign"].to_numpy() if against == "benign" else before
        names = own["persona"].to_list()
        if (own["context"] != "persona").any():
            labels = tuple(f"({name})" for name in names)
            return SourceContexts(
                self.study, self.model, behavior, outcome, source, labels, {}, reference, after, against
            )  # fmt: skip
        lengths = dict(self.personas.select("persona", "prompt_tokens").iter_rows())
        features = similarity_features(self.similarities, source, self.layer, names)
        if all(lengths.get(name) is not None for name in names):
            features[LENGTH] = np.array([lengths[name] for name in names], dtype=float)
        features[PRIOR] = prior_feature(before, outcome)
        return SourceContexts(
            self.study, self.model, behavior, outcome, source, tuple(names), features, reference, after, against
        )  # fmt: skip


def published_rates(path: Path, personas: pl.DataFrame, overlap: pl.DataFrame) -> list[SourceContexts]:
    """The sources of a published marker study: a table of rates after training with cosines at two layers, no baselines
    (a marker that was never trained is taken to be never written). Its prompts are not published: length and lexical
    overlap are those of our prompts of the same personas. Raises DataError where columns or personas lack."""
    table = pl.read_csv(path)
    missing = [name for name in PUBLISHED if name not in table.columns]
    if missing:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}; it needs {', '.join(PUBLISHED)}")
    lengths = dict(personas.select("persona", "prompt_tokens").iter_rows())
    unknown = sorted(set(table["persona"].to_list()) - set(lengths))
    if unknown:
        raise DataError(f"{path} has personas that are not in the set: {', '.join(unknown[:5])}")
    found: list[SourceContexts] = []
    for source in sorted(table["source"].unique().to_list()):
        rows = table.filter(pl.col("source") == source).sort("persona")
        names = rows["persona"].to_list()
        features = similarity_features(overlap.filter(pl.col("method") == "lexical_overlap"), source, None, names)
        features |= {
            "cosine": rows["cosine_layer20"].to_numpy(), "cosine_layer10": rows["cosine_layer10"].to_numpy(),
            LENGTH: np.array([lengths[name] for name in names], dtype=float),
        }  # fmt: skip
        after = rows["leakage_rate"].to_numpy().astype(float)
        found.append(
            SourceContexts(
                "published", "Qwen2.5-7B-Instruct", "marker", "marker/bank/marker_rate", source, tuple(names), features,
                np.zeros(len(names)), after,
            )
        )  # fmt: skip
    return found
