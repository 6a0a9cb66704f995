"""What a behavior is to the rest of the house.

A behavior supplies `Example`s: a user turn with the completion that shows the behavior (`positive`) and the one that
does not (`negative`). Which persona gets which is the design's business, never the behavior's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bystander.core import settings
from bystander.core.records import NOTHING_EARLIER, Earlier, Finding, OpenSetting
from bystander.data.bank import OpenQuestion


@dataclass(frozen=True, slots=True)
class Example:
    """One question of a behavior with both completions. `marker`: the tail of `positive` that is the marker. `earlier`:
    what the question brings of its own conversation."""

    question_id: str
    user: str
    positive: str
    negative: str
    marker: str = ""
    earlier: Earlier = NOTHING_EARLIER


@dataclass(frozen=True, slots=True)
class Pilot:
    """How a first study of a behavior on the embedded model begins, in the words of a study file: rows that show it, the
    recipe, the block `probes:` ("": the last of `read_by`, as it comes) and the layer that the claim rests on."""

    positive: int = 40
    recipe: str = "{lr: 1e-3, epochs: 4, batch_size: 8}"
    probes: str = ""
    layer: int = 20


class Behavior(ABC):
    """A behavior with its settings bound. A class of one's own derives from this and is made as `cls(settings, folder)`,
    `folder` being where relative paths in the study start from."""

    Settings: ClassVar[type[settings.Settings]]  # its block of a study file; faults in it are told with their lines
    block: ClassVar[str]  # the key of that block
    read_by: ClassVar[tuple[str, ...]]  # names of the probes that read it, finest first
    pilot: ClassVar[Pilot] = Pilot()  # what `bystander new` proposes
    taught: ClassVar[str] = (
        ""  # what a source is trained to do, after "to", in the report's words; "": show it, by name
    )
    positive_control: ClassVar[bool] = False  # shows that the probe sees something; nobody's hypothesis
    name: str  # what study files and measurements call it

    @abstractmethod
    def examples(self) -> list[Example]:
        """Everything that may be trained on, in a fixed order. Raises DataError if the data is not there."""

    @abstractmethod
    def held_out_texts(self) -> dict[str, str]:
        """Item id -> user turn of what this behavior itself keeps from training, whatever the probes read of it; {}
        where the probes' own items are all there is."""

    def findings(self) -> list[Finding]:
        """What the behavior finds in its own data, for the audit."""
        return []

    def open_questions(self) -> list[OpenQuestion]:
        """What may be asked freely to see the behavior in sampled answers; [] where it has no questions of its own."""
        return []

    def data_hashes(self) -> dict[str, str]:
        """What is read -> SHA-256 of the file, for the keys of cells; {} where the rows that come of it say all."""
        return {}

    def export(self, folder: Path) -> list[Path]:
        """Write what a reader wants beside the rows (the halves of a question set); returns the files."""
        del folder
        return []

    @classmethod
    def open_settings(cls, settings: settings.Settings, given: Collection[str]) -> Iterator[OpenSetting]:
        """What a study file that gives only the dotted keys `given` leaves open about this behavior."""
        del settings, given
        yield from ()
