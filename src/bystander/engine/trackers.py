"""Adapters to trackers: each opens a run, logs numbers at a step, and ends it. They are called in a process of their own.

A tracker takes its key and its server from the environment, as it does elsewhere; a study file names neither.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

Config = Mapping[str, str | int | float | None]


class Tracker(Protocol):
    """Where a mirror goes. One run is open at a time; opening a name again goes on with it."""

    def open(self, name: str, group: str, config: Config) -> None:
        """Begin a run, or go on with the one of that name and group."""
        ...

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of the open run at a step."""
        ...

    def end(self) -> None:
        """Close the open run."""
        ...


class WandbTracker:
    """Weights & Biases; what it writes on the way lies in `folder`."""

    def __init__(self, project: str, folder: Path) -> None:
        self.library: Any = import_module("wandb")
        self.project, self.folder = project, folder
        self.run: Any = None

    def open(self, name: str, group: str, config: Config) -> None:
        """Begin or go on."""
        self.run = self.library.init(
            project=self.project, name=name, group=group, config=dict(config), dir=str(self.folder), resume="allow",
            id=f"{group}-{name}".replace("/", "-").replace(" ", "-"), reinit=True,
        )  # fmt: skip

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log them."""
        self.run.log({**values, "step": step})  # a step of its own: wandb's may not go back

    def end(self) -> None:
        """Close it."""
        self.run.finish()


class TrackioTracker:
    """trackio: local-first, no account; `trackio show` opens it."""

    def __init__(self, project: str, folder: Path) -> None:
        del folder  # it keeps everything where `trackio show` looks: TRACKIO_DIR, or the user's cache
        self.library: Any = import_module("trackio")
        self.project = project

    def open(self, name: str, group: str, config: Config) -> None:
        """Begin or go on."""
        self.library.init(
            project=self.project, name=f"{group}/{name}", group=group, config=dict(config), resume="allow", embed=False,
            auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log them."""
        self.library.log(dict(values), step=step)

    def end(self) -> None:
        """Close it."""
        self.library.finish()


class MlflowTracker:
    """MLflow: the server of MLFLOW_TRACKING_URI, else a database in `folder`."""

    def __init__(self, project: str, folder: Path) -> None:
        self.library: Any = import_module("mlflow")
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            self.library.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        self.experiment = self.library.set_experiment(project)
        self.runs: dict[tuple[str, str], str] = {}

    def open(self, name: str, group: str, config: Config) -> None:
        """Begin or go on."""
        known = self.runs.get((group, name))
        run = self.library.start_run(run_id=known, run_name=None if known else name, tags={"group": group})
        self.runs[group, name] = run.info.run_id
        if known is None:
            self.library.log_params(dict(config))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log them."""
        self.library.log_metrics({name.replace(" ", "_"): value for name, value in values.items()}, step=step)

    def end(self) -> None:
        """Close it."""
        self.library.end_run()


class TensorboardTracker:
    """TensorBoard: event files in `folder`; `tensorboard --logdir RUN/track` shows them."""

    def __init__(self, project: str, folder: Path) -> None:
        import_module("tensorboard")  # torch's writer needs it, and says so less clearly
        self.make: Any = import_module("torch.utils.tensorboard").SummaryWriter
        self.folder = folder / "tensorboard" / project
        self.writer: Any = None

    def open(self, name: str, group: str, config: Config) -> None:
        """Begin or go on."""
        self.writer = self.make(str(self.folder / group / name))
        self.writer.add_text("config", "\n\n".join(f"{key}: {value}" for key, value in config.items()))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log them."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def end(self) -> None:
        """Close it."""
        self.writer.close()


TRACKERS: dict[str, type[Any]] = {
    "trackio": TrackioTracker, "wandb": WandbTracker, "mlflow": MlflowTracker, "tensorboard": TensorboardTracker,
}  # fmt: skip
