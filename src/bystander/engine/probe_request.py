"""What `bystander probe` asks for, as the settings of a study: the quickstart's, with a model and a probe of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bystander.core import doors
from bystander.core.errors import DataError
from bystander.lm import embedded
from bystander.probe.base import CheckedProbe, Probe
from bystander.study.config.study import ResolvedStudy, load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bystander.core.records import Context
    from bystander.lm.model import LoadedModel

QUICKSTART = "quickstart"  # whose settings hold where nothing else is said


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """`adapters`: PEFT folders, none for the bare model; `data` and `items` name the choice probe's questions; `overrides`
    change settings (`probes.marker.questions=20`). `base_ok`: put an adapter on although its base has other weights."""

    model: str
    probe: str
    adapters: tuple[Path, ...] = ()
    personas: Path | None = None
    overrides: tuple[str, ...] = ()
    data: str | None = None
    items: int | None = None
    base_ok: bool = False
    published: Mapping[Path, str] = field(
        default_factory=dict[Path, str]
    )  # what is called otherwise than by its folder

    def called(self, adapter: Path | None) -> str:
        """What records call an adapter; "" for none."""
        return self.published.get(adapter, str(adapter)) if adapter else ""

    def study(self, *more: str) -> ResolvedStudy:
        """The settings, `more` before the user's own overrides. Raises DataError for a probe that does not exist and for
        `data` of a probe that has its own, StudyError with the faults of the settings."""
        known_probe(self.probe)
        block = doors.load("probe", self.probe).block_of(self.data, self.items)
        usual = load(QUICKSTART).spec.probes.asked().get(self.probe)
        dtype = "float32" if self.model in (embedded.NAME, embedded.HUB_ID) else "auto"
        return load(
            QUICKSTART,
            [
                f"model={json.dumps({'name': self.model, 'dtype': dtype})}",
                f"probes={json.dumps({self.probe: usual.model_dump(mode='json') if usual else block})}",
                *more,
                *self.overrides,
            ],
        )


def known_probe(name: str) -> None:
    """Raises DataError for a probe that does not exist."""
    known = doors.names("probe")
    if name not in known:
        raise DataError(f"no probe {name!r}; known: {', '.join(sorted(known))}")


def decided(probe: Probe, loaded: LoadedModel, contexts: Sequence[Context]) -> tuple[Probe, tuple[str, ...]]:
    """The probe with its way of measuring decided on the bare base, and how that came out."""
    if not isinstance(probe, CheckedProbe) or probe.ready:
        return probe, ()
    found = probe.check(loaded, contexts)
    return probe.checked(found), tuple(str(found[key]) for key in ("reason", "warning") if found[key])
