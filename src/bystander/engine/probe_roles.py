"""What the user says of adapters that were trained elsewhere: whom each was trained as, and against whom."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bystander.core.errors import DataError
from bystander.core.records import Role

LONGEST = 60  # characters of a label, which stands in the names of folders


@dataclass(frozen=True, slots=True)
class Trained:
    """An adapter and the roles of its training as the user tells them. `config` tells adapters of one source apart; ""
    where every adapter has a source of its own."""

    path: Path
    label: str
    source: str
    negatives: tuple[str, ...]
    config: str

    def role(self, persona: str) -> Role:
        """What the training was for a persona."""
        return "source" if persona == self.source else "negative" if persona in self.negatives else "held-out"


def told(
    adapters: Sequence[Path], sources: Sequence[str], negatives: Sequence[str], named: Mapping[Path, str] | None = None
) -> tuple[Trained, ...]:
    """The adapters with their roles. `sources` and `negatives` (names with commas between) are given once, or once for each
    adapter; `named`: labels of those that are not called by their folder. Raises DataError for other counts, and for a source that is its own negative."""
    if not adapters:
        raise DataError("--source says what adapters were trained on; give one with --adapter")
    own = _one_each("--source", sources, len(adapters))
    given = _one_each("--negatives", negatives, len(adapters)) if negatives else [""] * len(adapters)
    labels = _labels(adapters, named or {})
    found: list[Trained] = []
    for path, label, source, names in zip(adapters, labels, own, given, strict=True):
        listed = tuple(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
        if source in listed:
            raise DataError(f"--negatives {names}: {source!r} is the source of {path}; a negative is another persona")
        found.append(Trained(path, label, source, listed, label if len(set(own)) < len(own) else ""))
    return tuple(found)


def _one_each(option: str, values: Sequence[str], count: int) -> list[str]:
    if len(values) not in (1, count):
        raise DataError(f"{option} stands {len(values)} times for {count} adapters; give it once, or once for each")
    return list(values) if len(values) == count else [values[0]] * count


def _labels(adapters: Sequence[Path], named: Mapping[Path, str]) -> list[str]:
    """A name for each adapter, fit for a folder: the end of its path, as much of it as tells them apart."""
    whole = [path.resolve() for path in adapters]
    if len(set(whole)) < len(whole):
        twice = next(path for path in whole if whole.count(path) > 1)
        raise DataError(f"--adapter {twice} is given twice; give each adapter once")
    for depth in range(1, max(len(path.parts) for path in whole) + 1):
        labels = [
            _plain(named.get(given) or "-".join(path.parts[-depth:]))
            for given, path in zip(adapters, whole, strict=True)
        ]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{index + 1}-{_plain(named.get(adapters[index]) or path.name)}" for index, path in enumerate(whole)]


def _plain(text: str) -> str:
    kept = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")
    return kept[-LONGEST:].strip("-.") or "adapter"


def probe_name(trained: Sequence[Trained]) -> str:
    """The name of a study of these adapters."""
    more = f"-and-{len(trained) - 1}-more" if len(trained) > 1 else ""
    return f"probe-{trained[0].label}{more}"
