"""The study's side of a mirror in a tracker: it starts the mirror's process, and hears at the end how it went.

Nothing of the tracker is imported here and nothing waits for it while the study runs: a tracker that fails, is offline,
asks for a login or finds its disk full costs a warning.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from bystander.core.records import Finding
from bystander.study.config.blocks import TrackSettings

PATIENCE = 20.0  # seconds that a tracker has to send what is left when the study is over
WORDS = 300  # characters of its last words that a warning shows


@contextmanager
def mirrored(settings: TrackSettings | None, folder: Path) -> Generator[list[Finding]]:
    """Mirror a run within the block; what the block gets holds, after it, a warning if the tracker had trouble."""
    tracking, untold = Tracking(settings, folder), list[Finding]()
    try:
        yield untold
    finally:
        untold += tracking.end()


class Tracking:
    """The mirror of one run, or none where `settings` is None."""

    def __init__(self, settings: TrackSettings | None, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        self._fault = ""
        if settings is not None:
            try:
                self._start(settings)
            except OSError as error:
                self._fault = f"its process cannot be started: {error}"

    @property
    def log(self) -> Path:
        """What the tracker says."""
        return self.folder / "track" / "log.txt"

    def _start(self, settings: TrackSettings) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        reading, self._pipe = os.pipe()
        module = "bystander.engine.track_mirror"
        words = [str(self.folder.resolve()), settings.to, settings.project, str(reading)]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        try:
            with self.log.open("wb") as out:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", module, *words], stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env,
                    pass_fds=[reading], start_new_session=True,
                )  # fmt: skip
        finally:
            os.close(reading)

    def end(self) -> list[Finding]:
        """Let the tracker send what is left; a warning where it failed or does not end."""
        if self.settings is None:
            return []
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        if self._process is not None:
            try:
                code = self._process.wait(PATIENCE)
                self._fault = f"it ended with code {code}: {self._last_words()}" if code else ""
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                self._fault = f"it did not end within {PATIENCE:.0f} s of the study"
            self._process = None
        if not self._fault:
            return []
        where = f"; its words are in {self.log}" if self.log.is_file() else ""
        message = f"{self.settings.to} does not have all of this run ({self._fault}{where}); the run itself is whole"
        return [Finding("warning", "track", message)]

    def _last_words(self) -> str:
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return (lines[-1] if lines else "it said nothing")[-WORDS:]
