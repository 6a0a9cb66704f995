"""The blocks of a study file that belong to the study itself: model, sweep, gate, budget, executor."""

from __future__ import annotations

from itertools import product
from typing import Annotated, Any, Literal

from pydantic import Field

from bystander.core.settings import Settings
from bystander.design.arms import Counts


class ModelSettings(Settings):
    """`name`: smollm2-135m (embedded), a Hub id, or a local path. `engine`: what samples; all else is transformers."""

    name: str = Field(default="smollm2-135m", min_length=1)
    revision: str | None = None
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    engine: Literal["transformers", "vllm"] = "transformers"


class Checkpoints(Settings):
    """Probes run at every `every` of training, for the source and `personas - 1` others spread over the similarity
    ranking. At 0 and at 1 they run for all personas."""

    every: float = Field(default=0.25, gt=0, le=1)
    personas: int = Field(default=9, ge=1)

    def fractions(self) -> list[float]:
        """Checkpoints strictly inside (0, 1)."""
        return [round(i * self.every, 6) for i in range(1, int(1 / self.every) + 1) if i * self.every < 1 - 1e-9]


class Geometry(Settings):
    """`layers`: "all" or a list, 0 = embeddings; `layer`: the one that the study's claim rests on, chosen beforehand
    (left out, it is an open question that `run` refuses to start with)."""

    layers: Literal["all"] | list[int] = "all"
    layer: int | None = Field(default=None, ge=0)
    questions: int = Field(default=12, ge=1)
    method: str = "cosine"  # the predictor that the claim rests on
    predictors: list[str] | None = None  # those that are computed, `method` in any case; None: all that cost little
    answer_tokens: int = Field(default=64, ge=1)  # at most, of each answer that a predictor of answers reads
    behavior: str | None = None  # whose training set predictors of training read; None: the study's first
    turns: int = Field(default=32, ge=1)  # of that training set, how many


class Budget(Settings):
    """Nothing above it starts without approval. `gpu_hours` are hours of the device that the model runs on: of a GPU,
    or of the CPU worker where there is none. `dollars` are the judge's."""

    gpu_hours: float = Field(default=1.0, ge=0)
    dollars: float = Field(default=0.0, ge=0)


class Config(Settings):
    """What a sweep varies of the recipe; everything else stays as the recipe says."""

    lr: float = Field(gt=0)
    epochs: int = Field(ge=1)


class Grid(Settings):
    """Every learning rate with every number of epochs: the phase diagram."""

    lr: list[float] = Field(min_length=1)
    epochs: list[int] = Field(min_length=1)


class Sweep(Settings):
    """Phase 1: `source` is trained at each configuration and probed under `personas`: a category's name, "all", or a
    list of names. `behaviors` left out: all of the study's."""

    source: str
    configs: list[Config] = Field(default_factory=list[Config])
    grid: Grid | None = None
    behaviors: list[str] | None = None
    personas: str | list[str] = "original"

    def points(self) -> list[Config]:
        """The listed configurations, then those of the grid, each once."""
        points = [*self.configs]
        if self.grid:
            points += [Config(lr=lr, epochs=epochs) for lr, epochs in product(self.grid.lr, self.grid.epochs)]
        return list(dict.fromkeys(points))


class ForBehavior(Settings):
    """What one behavior of a study has of its own, in place of `design.counts` and the recipe's values: a positive
    control on short answers needs other rows and steps than a behavior on long code."""

    counts: Counts | None = None
    lr: float | None = Field(default=None, gt=0)
    epochs: int | None = Field(default=None, ge=1)
    batch_size: int | None = Field(default=None, ge=1)


class TrainTo(Settings):
    """Each training ends where its source's gain in `metric` (probe/dataset/metric) is in `band`, in that metric's unit and
    the behavior's direction; looked at after every `every` steps. A training that never gets there is kept, and that is
    said. A benign training ends at the step of the one that it is measured against."""

    metric: str = Field(pattern=r"^[a-z]+/[A-Za-z0-9_.-]+/[a-z_]+$")
    band: list[float] = Field(min_length=2, max_length=2)
    every: int = Field(default=5, ge=1)

    @property
    def outcome(self) -> tuple[str, str, str]:
        """Probe, dataset and metric."""
        probe, dataset, name = self.metric.split("/")
        return probe, dataset, name


class Gate(Settings):
    """The rule after phase 1, as data: per behavior `statistic` (the gradient's rho, or an end of its 95 % interval)
    at the picked configuration is below `threshold` or not; the study stops where all (or any) are below. `outcome`
    (probe/dataset/metric) is what gate and selection read; left out, what the behavior's hypothesis is judged by."""

    threshold: float = Field(
        default=0.2, ge=-1, le=1
    )  # the plan's; that 11 personas decide at 0.2 badly is shown by `plan`
    statistic: Literal["rho", "low", "high"] = "rho"
    stop_if: Literal["all_below", "any_below"] = "all_below"
    outcome: str | None = Field(default=None, pattern=r"^[a-z]+/[A-Za-z0-9_.-]+/[a-z_]+$")


class Select(Settings):
    """How phase 2's configuration is picked from the sweep: the largest source effect among the configurations whose
    control (HellaSwag accuracy, mean over the swept personas) fell by at most `within`; or always `config`. `items`: a
    configuration picked for its effect is picked on half of the questions and tested on the other half (`split`)."""

    rule: Literal["largest_source_effect", "given"] = "largest_source_effect"
    within: float = Field(default=0.02, ge=0, le=1)  # 2 points: the plan's rule
    items: Literal["split", "all"] = "split"
    config: Config | None = None


class HypothesisBlock(Settings):
    """A hypothesis of one's own. `outcome` is probe/dataset/metric; `source` and `bystanders` are changes in that
    metric's unit, in the behavior's direction; `rho` the gradient that must be exceeded."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")
    behavior: str
    outcome: str = Field(pattern=r"^[a-z]+/[A-Za-z0-9_.-]+/[a-z_]+$")
    source: float
    bystanders: float
    rho: float = Field(ge=-1, le=1)
    alpha: float = Field(default=0.05, gt=0, lt=1)
    statement: str = ""


class ExecutorSettings(Settings):
    """Where cells run: what every executor has. `kind` is the name of one; each has its own block on top of this.
    `workers`: attempts at a time, each with its own resident base model; `retries` bounds how often a cell is tried
    again; `gpu_kind` names the GPU whose published figures `plan` uses on a machine without one; `together`: how many
    trainings of one recipe a worker does in joint passes ("auto": where that is faster, as many as memory holds)."""

    kind: Any  # a Literal of its name in each executor's own settings
    workers: int = Field(default=1, ge=1)
    retries: int = Field(default=2, ge=0)
    gpu_kind: str | None = None
    together: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
