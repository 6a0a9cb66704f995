"""One outcome of one training design as arrays: before, after and after the benign arm, on the same questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.keys import OutcomeKey, SeedRowKey, TrainingKey
from bystander.analysis.stats.means import Floats

BARE = ("absent", "empty", "default", "assistant")  # kinds of context without a persona
BENIGN_ARM, UNTRAINED = "benign arm", "untrained model"  # what leakage is measured against


@dataclass(frozen=True)
class PairedGrid:
    """One outcome of one training design at one checkpoint. `before`, `after` and `benign` are as measured, `change` and
    `leakage` signed. A unit is a context (kind and name)."""

    training: TrainingKey
    outcome: OutcomeKey
    seeds: tuple[int | None, ...]
    kinds: tuple[str, ...]  # context kind of each unit
    names: tuple[str, ...]  # persona or context name of each unit
    roles: tuple[str, ...]
    before: Floats  # [seeds, units, questions]
    after: Floats  # [seeds, units, questions]
    lost: Floats  # [seeds, units, questions]: share of a pair's values that failed or are missing, on its worse side; NaN: not asked
    direction: int
    binary: bool
    unit: str = ""  # of the metric: fraction, nats, nats/token, score
    benign: Floats | None = None  # [seeds, units, questions] after the benign arm's training; None: it was not run
    questions: tuple[str, ...] = ()
    absent: int = 0  # pairs asked of the untrained model and never after training
    lost_change: Floats | None = None  # `lost` of the pair with the untrained model; None: it is `lost` (no benign arm)

    @property
    def change(self) -> Floats:
        """[seeds, units, questions] from the untrained model, in the behavior's direction."""
        return self.direction * (self.after - self.before)

    @property
    def leakage(self) -> Floats:
        """[seeds, units, questions]: what this training did beyond the benign one; for want of that, the change."""
        return self.change if self.benign is None else self.direction * (self.after - self.benign)

    @property
    def reference(self) -> Floats:
        """[seeds, units, questions]: what leakage is measured against."""
        return self.before if self.benign is None else self.benign

    @property
    def against(self) -> str:
        """The same in words."""
        return UNTRAINED if self.benign is None else BENIGN_ARM

    def record(self, table: str, seed: int | None, *more: object) -> str:
        """The stable name of a row about this grid: table / source / behavior / arm / config / seed / outcome / more."""
        named = f"seed{seed}" if seed is not None else "pooled"
        rest = "".join(f"/{part}" if part != "" else "/-" for part in more)
        return f"{table}/{self._design}/{named}/{self._outcome}{rest}"

    @cached_property
    def _design(self) -> str:
        behavior, source, arm, config = self.training.design
        return "/".join(part or "-" for part in (source, behavior, arm, config))

    @cached_property
    def _outcome(self) -> str:
        return "/".join(part or "-" for part in self.outcome)

    def key(self, table: str, seed: int | None, *more: object) -> SeedRowKey:
        """What begins a row about this grid."""
        record = self.record(table, seed, *more)
        return SeedRowKey(record=record, training=self.training, outcome=self.outcome, seed=seed)

    def pick(self, units: NDArray[np.bool_]) -> PairedGrid:
        """The same for some of the units."""
        chosen = np.flatnonzero(units)
        return replace(
            self,
            kinds=tuple(self.kinds[i] for i in chosen),
            names=tuple(self.names[i] for i in chosen),
            roles=tuple(self.roles[i] for i in chosen),
            before=self.before[:, chosen],
            after=self.after[:, chosen],
            lost=self.lost[:, chosen],
            benign=None if self.benign is None else self.benign[:, chosen],
            lost_change=None if self.lost_change is None else self.lost_change[:, chosen],
        )

    def one_seed(self, index: int) -> PairedGrid:
        """The same for one seed."""
        one = slice(index, index + 1)
        return replace(
            self, seeds=(self.seeds[index],), before=self.before[one], after=self.after[one], lost=self.lost[one],
            benign=None if self.benign is None else self.benign[one],
            lost_change=None if self.lost_change is None else self.lost_change[one],
        )  # fmt: skip

    def without_benign(self) -> PairedGrid:
        """The same, measured against the untrained model."""
        lost = self.lost if self.lost_change is None else self.lost_change
        return replace(self, benign=None, lost=lost, lost_change=None)

    @property
    def failed(self) -> Floats:
        """[units]: pairs lost to failed or missing values, over seeds; of sampled questions, parts of a pair."""
        return np.nansum(self.lost, axis=(0, 2))

    @property
    def asked(self) -> NDArray[np.intp]:
        """[units]: pairs asked for, over seeds."""
        return np.isfinite(self.lost).sum(axis=(0, 2))

    def sound(self, limit: float) -> NDArray[np.bool_]:
        """[units]: at most `limit` of a unit's pairs are lost, and some pair is left."""
        return (self.failed <= limit * self.asked) & np.isfinite(self.leakage).any(axis=(0, 2))

    def untrained(self, limit: float) -> Floats:
        """[seeds, units, questions]: `before`; with a benign arm NaN for a unit of whose pairs with the untrained model more
        than `limit` are lost. Leakage needs none of them, and what is left of such answers describes no change."""
        if self.lost_change is None:
            return self.before
        gone = np.nansum(self.lost_change, axis=(0, 2)) > limit * np.isfinite(self.lost_change).sum(axis=(0, 2))
        return np.where(gone[None, :, None], np.nan, self.before)

    def bystanders(self, roles: Sequence[str]) -> NDArray[np.bool_]:
        """Personas (not bare contexts) in one of `roles`, never the source."""
        source = self.training.source
        return np.array(
            [
                kind == "persona" and role in roles and name != source and role != "source"
                for kind, name, role in zip(self.kinds, self.names, self.roles, strict=True)
            ],
            dtype=bool,
        )

    def bare(self, roles: Sequence[str]) -> NDArray[np.bool_]:
        """Contexts without a persona in one of `roles`: what a deployed model meets. Wraps, turns and the like are neither
        bare nor bystanders."""
        pairs = zip(self.kinds, self.roles, strict=True)
        return np.array([kind in BARE and role in roles for kind, role in pairs], dtype=bool)
