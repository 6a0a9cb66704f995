"""What would change a study's conclusion, from the flags that its analysis has set: the most pressing first.

One list for the report's box and for the terminal's last line. Nothing is computed: each entry rests on a flag, a status or
a threshold of the records.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from bystander.analysis.hypotheses import Claim
from bystander.analysis.keys import BENIGN
from bystander.analysis.results import Analysis
from bystander.core.columns import CellValue
from bystander.core.records import Verdict
from bystander.report.inputs import ReportInput
from bystander.report.labels import readable

Numbers = Mapping[str, CellValue]


def next_steps(analysis: Analysis, inputs: ReportInput, run: str = "RUN") -> list[str]:
    """Sentences, each with what to do; where no flag is set, what one does with a finished run. `run`: the run directory as
    commands name it."""
    whole = [verdict for verdict in analysis.verdicts if "/" not in verdict.hypothesis]
    found = [
        *_gate(inputs),
        *(step for verdict in whole for step in _of_verdict(verdict)),
        *_of_tables(analysis, whole),
        *_design(analysis, inputs, whole),
    ]
    done = f"read the answers that it kept in the report; `bystander push {run} --to OWNER/NAME --dry-run` shows what can be shared"
    return list(dict.fromkeys(found)) or [done]


def _gate(inputs: ReportInput) -> Iterator[str]:
    if inputs.gate is None:
        return
    if inputs.gate.decision == "stop":
        yield "the gate stopped the study before its main trainings: change what it names, or run it again with --override REASON"
    elif inputs.gate.decision == "overridden":
        yield "the gate had said stop and was overridden: a run that passes its gate would carry the claim"


def _of_verdict(verdict: Verdict) -> Iterator[str]:
    """What stands between a hypothesis and an answer."""
    numbers, name = verdict.numbers, readable(str(verdict.numbers.get("behavior") or verdict.hypothesis))
    if "source_low" not in numbers and "n_seeds" not in numbers:  # there was nothing to judge
        yield f"{name}: {verdict.reason}; measure it, and the hypothesis can be judged"
        return
    if verdict.reason.startswith("the untrained model is at chance"):
        yield f"{name}: the untrained model is at chance, so that it has nothing to lose: a form of the questions that it can answer, or a larger model"
    if numbers.get("control_state") == "broke" or verdict.reason.startswith("the model broke"):
        yield f"{name}: the training broke the model: a lower recipe.lr or fewer epochs"
    if not _reached(numbers, "source"):
        yield f"{name}: the source did not clearly take it up: more epochs, a higher recipe.lr, or a `sweep:` over both"
    if numbers.get("positive_control") in ("not run", "did not move"):
        yield f"{name}: the positive control was not seen to move, so the probe may be blind: train it, or use a finer probe"
    if "untrained" in str(numbers.get("measured_against", "")):
        yield f"{name}: a `benign` arm, without which a change from the untrained model is not yet leakage"
    power = numbers.get("smallest_detectable_rho"), numbers.get("rho_threshold")
    if (
        isinstance(power[0], float)
        and isinstance(power[1], float)
        and power[0] > power[1]
        and not _reached(numbers, "rho")
    ):
        yield (
            f"{name}: with these personas a similarity gradient of the size that was asked would mostly be missed; more of them, "
            "or more sources, would show it"
        )
    if numbers.get("layer_declared") == "no":
        yield f"{name}: a layer fixed beforehand (geometry.layer): one picked afterwards tests nothing"


def claimed(numbers: Numbers, what: str) -> str:
    """The name of the verdict's number for that claim (source, bystander or rho): the one that has a threshold."""
    names = (name.removesuffix("_threshold") for name in numbers if name.endswith("_threshold"))
    return next((name for name in names if name.startswith(what) and name in numbers), "")


def _reached(numbers: Numbers, what: str) -> bool:
    """Whether that claim holds, as the verdict judges it."""
    name = claimed(numbers, what)
    parts = [numbers.get(f"{name}{tail}") for tail in ("", "_low", "_high", "_p", "_threshold")]
    value, low, high, p, threshold = (float(part) if isinstance(part, float | int) else math.nan for part in parts)
    alpha = numbers.get("alpha")
    claim = Claim(value, low, high, p, threshold, strict=what != "source")
    return claim.judge(float(alpha) if isinstance(alpha, float | int) else math.nan) == "holds"


def _of_tables(analysis: Analysis, whole: Sequence[Verdict]) -> Iterator[str]:
    """What the tables flag, of the outcomes and arms that the hypotheses are about; of all where there is none."""
    about = [
        f"{v.numbers.get('behavior')}/{v.numbers.get('arm')}/{v.numbers.get('outcome')}"
        for v in whole
        if "outcome" in v.numbers
    ]

    def claimed_rows(table: pl.DataFrame) -> pl.DataFrame:
        key = pl.concat_str("behavior", "arm", "probe", "dataset", "metric", separator="/")
        return table.filter(key.is_in(about)) if about else table.filter(pl.col("arm") != BENIGN)

    refused = analysis.checks.filter((pl.col("status") != "ok") & ~pl.col("control").fill_null(False))
    untrained = pl.col("source").fill_null("") == ""
    if refused.filter(~untrained).height:
        yield "too many items failed in some outcomes, which were refused: the checks name them; probe those again"
    elif refused.height:
        yield "too many answers of the untrained model failed or were cut off, so that change from it is not known: longer answers (max_tokens) would show it"
    if _any(claimed_rows(analysis.similarity_correlation), "flagged"):
        yield "the change goes with where personas stood before training: a `benign` arm would part the two"
    if _any(claimed_rows(analysis.leakage_ratio), "saturated"):
        yield "a source is saturated: an earlier checkpoint or a smaller dose would show structure that is now cut off"
    if _any(claimed_rows(analysis.leakage_ratio), "carried"):
        yield "one bystander carries a mean: look at it by name before the mean is believed"


def _any(table: pl.DataFrame, flag: str) -> bool:
    return flag in table.columns and table.filter(pl.col(flag).fill_null(False)).height > 0


def _design(analysis: Analysis, inputs: ReportInput, whole: Sequence[Verdict]) -> Iterator[str]:
    seeds = analysis.leakage_ratio["n_seeds"].max() if analysis.leakage_ratio.height else None
    if seeds == 1:
        yield "more seeds (seeds: [0, 1, 2]): one is about this training, not about trainings like it"
    if not whole:
        yield "a hypothesis, fixed before training (`hypotheses:`): without one every number here is exploratory"
    if any(finding.level == "warning" for finding in inputs.findings):
        yield "the audit has warnings: the report lists them with their rows"
