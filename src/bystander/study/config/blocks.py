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
    """`smollm2-135m` (embedded), a Hub id, a local folder or a GGUF file. The default needs no network beyond one
    download."""
    revision: str | None = None
    """Commit or tag of a Hub model; left out: its newest. Name one, and a later run means the same weights."""
    device: str = "auto"
    """`auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What the weights are held in. `auto`: bfloat16 on a GPU, float32 on a CPU, where bfloat16 is slow."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """Who samples free answers; scoring and training are transformers' in any case. vLLM pays above some thousand
    answers."""


class Checkpoints(Settings):
    """Probes run at every `every` of training, for the source and `personas - 1` others spread over the similarity
    ranking. At 0 and at 1 they run for all personas."""

    every: float = Field(default=0.25, gt=0, le=1)
    """[fraction of training] Probes run each time this much of training is done; finer shows a trajectory and
    costs a probe each."""
    personas: int = Field(default=9, ge=1)
    """[count] Probed on the way: the source and others spread over the similarity ranking; at 0 and 1 all are."""

    def fractions(self) -> list[float]:
        """Checkpoints strictly inside (0, 1)."""
        return [round(i * self.every, 6) for i in range(1, int(1 / self.every) + 1) if i * self.every < 1 - 1e-9]


class Geometry(Settings):
    """`layers`: "all" or a list, 0 = embeddings; `layer`: the one that the study's claim rests on, chosen beforehand
    (left out, it is an open question that `run` refuses to start with)."""

    layers: Literal["all"] | list[int] = "all"
    """Layers whose similarities are computed; 0 are the embeddings. All cost one pass."""
    layer: int | None = Field(default=None, ge=0)
    """[layer] The one that the claim rests on. No default: choose it before you see results, or the claim is
    exploratory."""
    questions: int = Field(default=12, ge=1)
    """[count] Questions over which a persona's state is averaged; from a dozen on, rankings hardly move."""
    method: str = "cosine"  # the predictor that the claim rests on
    """The predictor that the claim rests on; the others are baselines beside it."""
    predictors: list[str] | None = None  # those that are computed, `method` in any case; None: all that cost little
    """Which predictors are computed, `method` in any case; left out: all that cost little."""
    answer_tokens: int = Field(default=64, ge=1)  # at most, of each answer that a predictor of answers reads
    """[tokens] Read at most of each answer, by predictors that read the model's own answers."""
    behavior: str | None = None  # whose training set predictors of training read; None: the study's first
    """Whose training set the predictors of training read; left out: the study's first behavior."""
    turns: int = Field(default=32, ge=1)  # of that training set, how many
    """[count] Rows of that training set that are read; more are steadier and slower."""


class Budget(Settings):
    """Nothing above it starts without approval. `gpu_hours` are hours of the device that the model runs on: of a GPU,
    or of the CPU worker where there is none. `dollars` are the judge's."""

    gpu_hours: float = Field(default=1.0, ge=0)
    """[device hours] Above it a run needs `--approve`; hours of a CPU worker where there is no GPU."""
    dollars: float = Field(default=0.0, ge=0)
    """[US dollars] For the judge, over all runs into one directory; 0 pays for nothing without approval."""


class Config(Settings):
    """What a sweep varies of the recipe; everything else stays as the recipe says."""

    lr: float = Field(gt=0)
    """Peak learning rate of this configuration."""
    epochs: int = Field(ge=1)
    """[passes] Over the training rows."""


class Grid(Settings):
    """Every learning rate with every number of epochs: the phase diagram."""

    lr: list[float] = Field(min_length=1)
    """Peak learning rates, each with every number of epochs."""
    epochs: list[int] = Field(min_length=1)
    """[passes] Numbers of epochs."""


class Sweep(Settings):
    """Phase 1: `source` is trained at each configuration and probed under `personas`: a category's name, "all", or a
    list of names. `behaviors` left out: all of the study's."""

    source: str
    """The one source that is trained at every configuration; one of `sources`."""
    configs: list[Config] = Field(default_factory=list[Config])
    """Configurations by name of their numbers, in the order that they run."""
    grid: Grid | None = None
    """Configurations as a product; joins `configs`."""
    behaviors: list[str] | None = None
    """Which behaviors are swept; left out: all of the study's."""
    personas: str | list[str] = "original"
    """Under whom the sweep is probed: a category, `all`, or a list. Few are cheap, and decide a gate badly."""

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
    """Rows of this behavior's trainings, in place of `design.counts`."""
    lr: float | None = Field(default=None, gt=0)
    """Peak learning rate, in place of `recipe.lr`."""
    epochs: int | None = Field(default=None, ge=1)
    """[passes] In place of `recipe.epochs`."""
    batch_size: int | None = Field(default=None, ge=1)
    """[rows a step] In place of `recipe.batch_size`."""


class TrainTo(Settings):
    """Each training ends where its source's gain in `metric` (probe/dataset/metric) is in `band`, in that metric's unit and
    the behavior's direction; looked at after every `every` steps. A training that never gets there is kept, and that is
    said. A benign training ends at the step of the one that it is measured against."""

    metric: str = Field(pattern=r"^[a-z]+/[A-Za-z0-9_.-]+/[a-z_]+$")
    """[probe/dataset/metric] What the dose is read in, on the source alone."""
    band: list[float] = Field(min_length=2, max_length=2)
    """[the metric's unit] The lowest and the highest gain of the source, in the behavior's direction."""
    every: int = Field(default=5, ge=1)
    """[steps] Between two readings; each costs one run of the probe on the source."""

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
    """[rank correlation] Below it phase 2 is not worth its cost. 0.2 is the plan's; `bystander plan` shows its
    power."""
    statistic: Literal["rho", "low", "high"] = "rho"
    """What is compared: the estimate, or an end of its 95 % interval. `high` stops only what is surely low."""
    stop_if: Literal["all_below", "any_below"] = "all_below"
    """Whether all behaviors, or any, must be below for the study to stop."""
    outcome: str | None = Field(default=None, pattern=r"^[a-z]+/[A-Za-z0-9_.-]+/[a-z_]+$")
    """[probe/dataset/metric] What gate and selection read; left out: what the behavior's hypothesis is judged by."""


class Select(Settings):
    """How phase 2's configuration is picked from the sweep: the largest source effect among the configurations whose
    control (HellaSwag accuracy, mean over the swept personas) fell by at most `within`; or always `config`. `items`: a
    configuration picked for its effect is picked on half of the questions and tested on the other half (`split`)."""

    rule: Literal["largest_source_effect", "given"] = "largest_source_effect"
    """How phase 2's configuration is picked from the sweep."""
    within: float = Field(default=0.02, ge=0, le=1)  # 2 points: the plan's rule
    """[fraction of questions] How far HellaSwag accuracy may fall before a configuration counts as broken; 2
    points is the plan's."""
    items: Literal["split", "all"] = "split"
    """`split` picks on half of the questions and tests on the others, since what was picked for its effect overstates it
    on the questions that it was picked on; `all` does both on all."""
    config: Config | None = None
    """The configuration itself, where `rule` is `given`."""


class HypothesisBlock(Settings):
    """A hypothesis of one's own. `outcome` is probe/dataset/metric; `source` and `bystanders` are changes in that
    metric's unit, in the behavior's direction; `rho` the gradient that must be exceeded."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")
    """What it is called in the verdict and the pre-registration."""
    behavior: str
    """Of this study; whose trainings it is about."""
    outcome: str = Field(pattern=r"^[a-z]+/[A-Za-z0-9_.-]+/[a-z_]+$")
    """probe/dataset/metric, as in `measurements.parquet`."""
    source: float
    """[the metric's unit] Change that the source must show at least, in the behavior's direction."""
    bystanders: float
    """[the metric's unit] Mean change that held-out bystanders must exceed for there to be leakage."""
    rho: float = Field(ge=-1, le=1)
    """[rank correlation] Similarity gradient that must be exceeded."""
    alpha: float = Field(default=0.05, gt=0, lt=1)
    """[probability] Error that the hypothesis' tests may make, over all of them."""
    statement: str = ""
    """The hypothesis in words, for the report."""


class ExecutorSettings(Settings):
    """Where cells run: what every executor has. `kind` is the name of one; each has its own block on top of this.
    `workers`: attempts at a time, each with its own resident base model; `retries` bounds how often a cell is tried
    again; `gpu_kind` names the GPU whose published figures `plan` uses on a machine without one; `together`: how many
    trainings of one recipe a worker does in joint passes ("auto": where that is faster, as many as memory holds)."""

    kind: Any  # a Literal of its name in each executor's own settings
    """Where cells run; each executor has its own keys beside these. Left out: `local`."""
    workers: int = Field(default=1, ge=1)
    """[count] Attempts at a time, each with its own resident base model."""
    retries: int = Field(default=2, ge=0)
    """[count] How often a cell is tried again after its worker died or a passing fault."""
    gpu_kind: str | None = None
    """Whose published speed `plan` counts with on a machine without a GPU, e.g. `h100`."""
    together: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """[count] Trainings of one recipe that a worker does in joint passes. `auto`: where faster, as many as memory holds."""


class TrackSettings(Settings):
    """`track: {}` mirrors a run in trackio. Keys and servers come from the environment, as the tracker itself reads them."""

    to: Literal["trackio", "wandb", "mlflow", "tensorboard"] = "trackio"
    """The tracker. trackio keeps everything on this machine and needs no account."""
    project: str = Field(default="bystander", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The tracker's project (MLflow: experiment); the study is a group in it, each training a run."""
