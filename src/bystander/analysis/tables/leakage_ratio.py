"""What the bystanders got as a share of what the source got. Estimand: the ratio of two means, each over the population of
questions and seeds, the bystanders' over that of personas too; resampling units: the levels of these (`stats.ratio`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from bystander.analysis import keys
from bystander.analysis.grid import PairedGrid
from bystander.analysis.keys import BENIGN, SeedRow
from bystander.analysis.predictors import Covariates
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.equivalence import equivalence
from bystander.analysis.stats.intervals import NONE, TAIL, Estimate, crossed
from bystander.analysis.stats.means import Floats, mean_of
from bystander.analysis.stats.ranks import MIN_PERSONAS
from bystander.analysis.stats.ratio import Ratio, leakage_ratio
from bystander.analysis.stats.saturation import saturation
from bystander.analysis.tables.leakage import deficits
from bystander.analysis.tables.sample import EVERYTHING, sample_of, source_change, source_estimate, source_place
from bystander.core.errors import few_names
from bystander.core.metrics import is_control

NOT_DEFINED = "not defined: the source did not move"  # what is said in place of a ratio where `unmoved`


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakageRatioRow(SeedRow):
    """One row per training and outcome: the source's leakage, the mean over held-out bystanders, and their ratio."""

    n: keys.PersonaCount
    n_seeds: keys.SeedCount
    against: keys.Against
    source_leakage: Annotated[float, "the source's own leakage"]
    source_low: keys.Low
    source_high: keys.High
    source_standard_error: Annotated[float, "standard error of the source's leakage"]
    source_df: Annotated[float, "degrees of freedom of that error"]
    source_p: Annotated[float, "one-sided, in the behavior's direction"]
    bystander_leakage: Annotated[float, "mean leakage of the held-out bystanders"]
    bystander_low: keys.Low
    bystander_high: keys.High
    bystander_standard_error: Annotated[float, "standard error of that mean"]
    bystander_df: Annotated[float, "degrees of freedom of that error"]
    bystander_p: Annotated[float, "one-sided, in the behavior's direction"]
    ratio: Annotated[float, "bystanders' mean leakage / source's: smaller is better contained"]
    ratio_low: Annotated[
        float, "lower end of Fieller's 95 % interval; empty where the source's leakage cannot be told from 0"
    ]
    ratio_high: Annotated[float, "upper end of it"]
    unmoved: Annotated[
        bool | None, "the interval of the source's leakage holds 0: the ratio is of two noises, and not to be quoted"
    ]
    max_persona: Annotated[str | None, "the bystander that got most"]
    max_leakage: Annotated[float, "how much it got"]
    mean_without_max: Annotated[float, "mean leakage of the held-out bystanders without that one"] = np.nan
    carried: Annotated[bool | None, "without that one the mean is less than half of itself"] = None
    source_change: Annotated[float, "the source's change from the untrained model: a description"] = np.nan
    bystander_change: Annotated[
        float, "mean change of the held-out bystanders from the untrained model: a description"
    ] = np.nan
    deficit: Annotated[
        float,
        "how much more of the behavior the held-out bystanders show than the trained negatives; empty with a benign arm",
    ] = np.nan
    source_rate: Annotated[float, "rate of the behavior in the source after training; fractions only"] = np.nan
    saturated: Annotated[bool | None, "that rate is above 0.95: structure is not to be read off a saturated source"] = (
        None
    )
    floor: Annotated[float, "share of bystanders within 0.02 of a rate of 0"] = np.nan
    ceiling: Annotated[float, "share of bystanders within 0.02 of a rate of 1"] = np.nan
    smallest_excluded: Annotated[
        float, "smallest bound within which the bystanders' mean is shown to lie, two one-sided tests at 5 %"
    ] = np.nan
    status: keys.RowStatus
    reason: keys.RowReason

    @property
    def source(self) -> Estimate:
        """The source's mean leakage as an estimate."""
        return Estimate(
            self.n, self.source_leakage, self.source_low, self.source_high, self.source_standard_error, self.source_df,
            self.source_p,
        )  # fmt: skip

    @property
    def bystanders(self) -> Estimate:
        """The bystanders' mean leakage as an estimate."""
        return Estimate(
            self.n, self.bystander_leakage, self.bystander_low, self.bystander_high, self.bystander_standard_error,
            self.bystander_df, self.bystander_p,
        )  # fmt: skip


def leakage_ratio_row(
    grid: PairedGrid, seed: int | None, known: Covariates, settings: AnalysisSettings
) -> LeakageRatioRow:
    """The row of one grid. Status "empty" where the source or every bystander is missing."""
    sample, names, refused = sample_of(grid, known, settings)
    own = source_change(grid, settings)
    source = source_estimate(own, grid.unit) if own is not None else NONE
    bystander = crossed(sample.changes, EVERYTHING).within(grid.unit) if names else NONE
    ratio = leakage_ratio(sample.changes, own) if own is not None and names else Ratio(np.nan, np.nan, np.nan)
    worst = int(np.argmax(sample.leakage)) if names else -1
    status, reason = _state(own, source, names, refused, grid)
    return LeakageRatioRow(
        **grid.key("leakage_ratio", seed), n=len(names), n_seeds=len(grid.seeds), against=grid.against,
        ratio=ratio.value, ratio_low=ratio.low, ratio_high=ratio.high, unmoved=_unmoved(source),
        max_persona=names[worst] if names else None,
        max_leakage=float(sample.leakage[worst]) if names else np.nan, status=status, reason=reason,
        smallest_excluded=equivalence(bystander, np.inf).smallest, **_columns("source", source),
        **_columns("bystander", bystander), **_described(grid, settings), **_without(sample.leakage), **_rates(grid, settings),
    )  # fmt: skip


def _unmoved(source: Estimate) -> bool | None:
    """None where there is no interval to tell by."""
    return source.low <= 0 <= source.high if np.isfinite([source.low, source.high]).all() else None


def _without(leakage: Floats) -> dict[str, Any]:
    """The mean without the bystander that got most, and whether that one carried it."""
    if leakage.size < MIN_PERSONAS:
        return {}
    mean, left = float(leakage.mean()), float(np.delete(leakage, np.argmax(leakage)).mean())
    return {"mean_without_max": left, "carried": bool(mean > 0 and left < mean / 2)}


def _described(grid: PairedGrid, settings: AnalysisSettings) -> dict[str, float]:
    """Changes from the untrained model, and the deficit to trained negatives where there is no benign arm."""
    chosen = grid.bystanders(settings.bystander_roles) & grid.sound(settings.failed_limit)
    place = source_place(grid)
    change = grid.direction * (grid.after - grid.untrained(settings.failed_limit))
    known = np.array(np.isfinite(change).any(axis=(0, 2)), dtype=bool)[
        chosen
    ].all()  # a mean over some of them would be of other personas
    found = {"bystander_change": float(mean_of(change[:, chosen])) if known else np.nan}
    found |= {} if place is None else {"source_change": float(mean_of(change[:, place]))}
    missing = deficits(grid, settings) if grid.benign is None else None
    return found if missing is None else found | {"deficit": float(mean_of(missing[:, chosen]))}


def _rates(grid: PairedGrid, settings: AnalysisSettings) -> dict[str, Any]:
    """Saturation flags of a fraction: rates of the behavior after training."""
    place = source_place(grid)
    if grid.unit != "fraction" or place is None or is_control(*grid.outcome):
        return {}
    chosen = grid.bystanders(settings.bystander_roles) & grid.sound(settings.failed_limit)
    shown = grid.after if grid.direction > 0 else 1 - grid.after
    rates, own = mean_of(shown[:, chosen], (0, 2)), float(mean_of(shown[:, place]))
    if not np.isfinite(own):
        return {}
    flags = saturation(min(max(own, 0.0), 1.0), np.clip(rates, 0, 1))
    return {"source_rate": own, "saturated": flags.source_saturated, "floor": flags.floor, "ceiling": flags.ceiling}


def _columns(prefix: str, estimate: Estimate) -> dict[str, float]:
    return {
        f"{prefix}_leakage": estimate.value,
        f"{prefix}_low": estimate.low,
        f"{prefix}_high": estimate.high,
        f"{prefix}_standard_error": estimate.standard_error,
        f"{prefix}_df": estimate.df,
        f"{prefix}_p": estimate.p,
    }


def _state(
    own: Floats | None, source: Estimate, names: list[str], refused: list[str], grid: PairedGrid
) -> tuple[str, str]:
    values = grid.before.shape[0] * grid.before.shape[2]
    benign = grid.training.arm == BENIGN
    notes = [f"left out, too much failed or not measured: {few_names(refused)}"] if refused else []
    notes += ["nothing was coupled to the source: what the other arm is measured against"] if benign else []
    notes += ["one value a persona: the intervals are over personas alone"] if values == 1 else []
    against = not benign and source.value < 0 and (values == 1 or (np.isfinite(source.p) and source.p > 1 - TAIL))
    notes += ["the source moved against the behavior: are before and after, or the sign, swapped?"] if against else []
    if own is None or not names:
        missing = "the source was not measured, or too much of it failed" if own is None else "no held-out bystander"
        return "empty", "; ".join([missing, *notes])
    return "ok", "; ".join(notes)
