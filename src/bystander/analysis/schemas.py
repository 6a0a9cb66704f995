"""The columns of every table that the analysis returns. The report is built against this file.

Rules that hold for all of them:
- `record` names the row ("gradient/villain/marker/contrastive/.../25"); unique over all tables, stable from run to run.
- `seed` null means pooled over seeds. The pooled row is always there; rows by seed are added where there are two or more.
- `config` is "" where a study sweeps nothing; `source`, `behavior`, `arm` likewise in a table that has none.
- `low`, `high` are the ends of a 95 % interval. A number that could not be estimated is null, never 0 and never NaN;
  `status` and `reason` say why.
- `status` is "ok", or "refused" (failed items above the limit), "empty" (n = 0), "single" (n = 1: no interval),
  "few" (n < 4: no test), "constant" (no variation, so no rank correlation), "flat" (no final leakage to time).
- Leakage is in the unit of its metric (fractions, nats, or points of 100), signed in the behavior's direction.
"""

from __future__ import annotations

import polars as pl

Schema = dict[str, type[pl.DataType]]

TRAINING: Schema = {"behavior": pl.String, "source": pl.String, "arm": pl.String, "config": pl.String, "seed": pl.Int64}
OUTCOME: Schema = {"probe": pl.String, "dataset": pl.String, "metric": pl.String}
STATE: Schema = {"status": pl.String, "reason": pl.String}

LEAKAGE: Schema = {  # one row per training x persona or other context x outcome, at the last checkpoint
    "record": pl.String,
    **TRAINING,
    "persona": pl.String,
    "category": pl.String,  # "" for a context that is not a persona
    "context": pl.String,  # persona, absent, empty, default, assistant
    "role": pl.String,  # source, negative, held-out, mixed (drawn at random in the non-contrastive arm)
    **OUTCOME,
    "n_items": pl.Int64,  # paired items behind the estimate, summed over seeds
    "n_failed": pl.Int64,  # pairs lost because one side failed or is missing
    "n_seeds": pl.Int64,
    "before": pl.Float64,  # mean over the paired items at checkpoint 0
    "after": pl.Float64,
    "leakage": pl.Float64,
    "low": pl.Float64,  # BCa bootstrap over items; over seeds first where there are several
    "high": pl.Float64,
    "standard_error": pl.Float64,
    "p_mcnemar": pl.Float64,  # two-sided; binary metrics only
    **STATE,
}

GRADIENT: Schema = {  # rank correlation over held-out bystanders, one row per training x outcome x predictor x layer
    "record": pl.String,
    **TRAINING,
    **OUTCOME,
    "method": pl.String,  # cosine, or a rival's name
    "layer": pl.Int64,  # -1 where the method has none
    "n": pl.Int64,  # personas
    "n_seeds": pl.Int64,
    "rho": pl.Float64,  # Spearman
    "low": pl.Float64,
    "high": pl.Float64,
    "rho_corrected": pl.Float64,  # rho / sqrt(reliability): with error-free leakage; null where reliability is below 0.5
    "corrected_low": pl.Float64,
    "corrected_high": pl.Float64,
    "p": pl.Float64,  # two-sided permutation over personas
    "rho_within_category": pl.Float64,  # ranks centered within category
    "p_within_category": pl.Float64,  # permutation within category, two-sided
    "partial_prompt_length": pl.Float64,
    "partial_prompt_length_p": pl.Float64,
    "partial_baseline": pl.Float64,
    "partial_baseline_p": pl.Float64,
    "partial_centroid": pl.Float64,
    "partial_centroid_p": pl.Float64,
    "partial_category": pl.Float64,
    "partial_category_p": pl.Float64,
    "reliability": pl.Float64,  # share of the variance of leakage over personas that is not error, in [0, 1]
    "preregistered": pl.Boolean,
    "p_holm": pl.Float64,  # over the pre-registered tests; null for the others
    "p_bh": pl.Float64,  # over the exploratory tests; null for the others
    **STATE,
}

POOLED: Schema = {  # one row per behavior x arm x config x outcome x predictor x layer, over sources
    "record": pl.String,
    "behavior": pl.String,
    "arm": pl.String,
    "config": pl.String,
    **OUTCOME,
    "method": pl.String,
    "layer": pl.Int64,
    "n_sources": pl.Int64,
    "n": pl.Int64,  # source x bystander pairs
    "rho": pl.Float64,  # ranked within source, then combined
    "low": pl.Float64,
    "high": pl.Float64,
    "p_matrix": pl.Float64,  # of rho: personas permuted jointly over the sources (Mantel-like)
    "rho_within_category": pl.Float64,  # ranks centered within source and category, then combined
    "p_within_category": pl.Float64,  # personas permuted jointly over the sources, within category
    "rho_within_persona": pl.Float64,  # what is specific to the pair: persona means over sources taken out as well
    "p_stratified": pl.Float64,  # of rho_within_persona: permutation within each source, persona effects held constant
    "rho_all_pairs": pl.Float64,  # Spearman over all pairs as they stand: mixes sources, descriptive only
    "slope": pl.Float64,  # mixed model on standardized ranks, random effects of source and persona
    "slope_low": pl.Float64,
    "slope_high": pl.Float64,
    "slope_p": pl.Float64,
    "preregistered": pl.Boolean,
    "p_holm": pl.Float64,  # of p_matrix
    "p_bh": pl.Float64,
    **STATE,
}

CONTAINMENT: Schema = {  # what the bystanders got, as a share of what the source got
    "record": pl.String,
    **TRAINING,
    **OUTCOME,
    "n": pl.Int64,  # held-out bystanders
    "n_seeds": pl.Int64,
    "source_leakage": pl.Float64,
    "source_low": pl.Float64,
    "source_high": pl.Float64,
    "source_standard_error": pl.Float64,
    "source_p": pl.Float64,  # one-sided, in the behavior's direction
    "bystander_leakage": pl.Float64,  # mean over held-out bystanders
    "bystander_low": pl.Float64,
    "bystander_high": pl.Float64,
    "bystander_standard_error": pl.Float64,
    "bystander_p": pl.Float64,  # one-sided, in the behavior's direction
    "ratio": pl.Float64,  # containment
    "ratio_low": pl.Float64,  # null where the source's leakage is not distinguishable from 0
    "ratio_high": pl.Float64,
    "max_persona": pl.String,
    "max_leakage": pl.Float64,
    **STATE,
}

CATEGORIES: Schema = {  # mean leakage of the bystanders of one category (the roles that enter a gradient)
    "record": pl.String,
    **TRAINING,
    **OUTCOME,
    "category": pl.String,
    "n": pl.Int64,
    "leakage": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    **STATE,
}

ROLES: Schema = {  # mean leakage by role: source, negative, held-out, mixed
    "record": pl.String,
    **TRAINING,
    **OUTCOME,
    "role": pl.String,
    "n": pl.Int64,
    "leakage": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "contexts": pl.String,  # names, comma-separated; "" for held-out and mixed
    **STATE,
}

EVOLUTION: Schema = {  # one row per training x persona x outcome x checkpoint, checkpoint 0 included
    "record": pl.String,
    **TRAINING,
    **OUTCOME,
    "persona": pl.String,
    "category": pl.String,
    "context": pl.String,
    "role": pl.String,
    "similarity": pl.Float64,  # primary method and layer; null for the source and for contexts without one
    "quintile": pl.Int64,  # 1 (least similar) to 5 (most), over the held-out bystanders measured at every checkpoint
    "checkpoint": pl.Float64,
    "n_items": pl.Int64,
    "value": pl.Float64,
    "leakage": pl.Float64,  # 0 at checkpoint 0 by definition
    "standard_error": pl.Float64,  # of the leakage, over items
}

DYNAMICS: Schema = {  # one row per training x persona x outcome
    "record": pl.String,
    **TRAINING,
    **OUTCOME,
    "persona": pl.String,
    "category": pl.String,
    "role": pl.String,
    "similarity": pl.Float64,
    "final_leakage": pl.Float64,
    "half_after": pl.Float64,  # half of the final leakage is reached after this checkpoint ...
    "half_by": pl.Float64,  # ... and by this one (interval-censored)
    "half_point": pl.Float64,  # linear interpolation between the two
    "onset": pl.Float64,  # first checkpoint whose leakage exceeds its noise and stays so; null: none by the end
    **STATE,
}

SPREAD: Schema = {  # does leakage spread outwards? one row per training x outcome
    "record": pl.String,
    **TRAINING,
    **OUTCOME,
    "timing": pl.String,  # "half" or "onset"
    "n": pl.Int64,
    "rho": pl.Float64,  # rank correlation of the timing with similarity; negative: the similar ones first
    "p": pl.Float64,  # two-sided permutation
    **STATE,
}

QUINTILES: Schema = {  # evolution by fifth of similarity
    "record": pl.String,
    **TRAINING,
    **OUTCOME,
    "quintile": pl.Int64,
    "checkpoint": pl.Float64,
    "n": pl.Int64,
    "leakage": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
}

POWER: Schema = {  # smallest effect that the test finds in 80 % of studies of this size
    "record": pl.String,
    "behavior": pl.String,
    "source": pl.String,
    "arm": pl.String,
    "config": pl.String,
    **OUTCOME,
    "test": pl.String,  # "gradient", "source change" or "mean bystander change"
    "n": pl.Int64,  # personas (gradient, mean bystander change) or questions (source change)
    "alpha": pl.Float64,
    "power": pl.Float64,
    "smallest": pl.Float64,
    "interval_width": pl.Float64,  # expected width of the 95 % interval at that effect
    "reliability": pl.Float64,
}

PHASE: Schema = {  # one row per training design in a sweep, pooled over seeds
    "record": pl.String,
    "behavior": pl.String,
    "source": pl.String,
    "arm": pl.String,
    "config": pl.String,
    "learning_rate": pl.Float64,  # read from config where it names one
    "epochs": pl.Float64,
    **OUTCOME,
    "source_effect": pl.Float64,
    "mean_bystander": pl.Float64,
    "max_bystander": pl.Float64,
    "max_persona": pl.String,
    "n": pl.Int64,  # bystanders
    "rho": pl.Float64,
    "p": pl.Float64,
    "control": pl.String,  # name of the control metric, "choice/hellaswag/accuracy"; "" where none was measured
    "control_change": pl.Float64,
    "broke": pl.Boolean,  # the control fell by more than the limit; null where none was measured
}

INSTRUMENT: Schema = {  # is the instrument sound? one row per training x outcome, over all contexts
    "record": pl.String,
    **TRAINING,
    **OUTCOME,
    "mode": pl.String,  # how a probe with several ways measures ("label", "text"): the study fills it in; "" else
    "control": pl.Boolean,  # a metric that the behavior should not move
    "n_values": pl.Int64,
    "n_failed": pl.Int64,  # status failed or truncated
    "n_refused": pl.Int64,  # status refused: an answer of a class without a score (code, a refusal); not a failure
    "failed_share": pl.Float64,
    "limit": pl.Float64,
    "before": pl.Float64,
    "after": pl.Float64,
    "change": pl.Float64,  # after - before, not signed by the behavior's direction
    "low": pl.Float64,
    "high": pl.Float64,
    **STATE,
}

VERDICTS: Schema = {"record": pl.String, "hypothesis": pl.String, "outcome": pl.String, "reason": pl.String}
VERDICT_NUMBERS: Schema = {
    "record": pl.String,
    "hypothesis": pl.String,
    "name": pl.String,
    "value": pl.Float64,
    "text": pl.String,  # what is not a number, such as the predictor's name
}

TABLES: dict[str, Schema] = {
    "leakage": LEAKAGE,
    "gradient": GRADIENT,
    "pooled": POOLED,
    "containment": CONTAINMENT,
    "categories": CATEGORIES,
    "roles": ROLES,
    "evolution": EVOLUTION,
    "dynamics": DYNAMICS,
    "spread": SPREAD,
    "quintiles": QUINTILES,
    "power": POWER,
    "phase": PHASE,
    "instrument": INSTRUMENT,
}
