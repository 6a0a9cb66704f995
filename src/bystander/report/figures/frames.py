"""The rows of each figure: records joined by name, with the record id of every row kept. No statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import cast

import polars as pl

from bystander.analysis.results import Analysis
from bystander.report.headline import HeadlineOutcome, level_at_start
from bystander.report.inputs import ReportInput
from bystander.report.labels import BARE_NAMES, format_number, predictor_name, readable
from bystander.report.text import visible

BYSTANDERS = ("held-out", "mixed")  # the roles that a similarity correlation is over
NAMED_PER_PANEL = 3  # personas named in a scatter panel: more than that overlaps at grid size
TOP = 6  # only the most leaked-to are worth a name
LEVELS_HELD_OUT, LEVELS_NEGATIVE = 6, 2  # personas of the page's first figure beside the source
LOSS_POINTS = 200
LEAST_NAMED = 0.15  # of the largest change in any panel: below that the points of a panel lie on each other, and one name is enough
LABEL_GAP = 0.075  # of the panel's height: a line of text


def arms(analysis: Analysis, headlines: Sequence[HeadlineOutcome]) -> list[str]:
    """The arms that were measured, those of the headlines first."""
    first = dict.fromkeys(headline.arm for headline in headlines)
    every = cast("list[str]", analysis.leakage["arm"].unique(maintain_order=True).sort().to_list())
    return list(first | dict.fromkeys(every))


def of_arms(
    table: pl.DataFrame, headline: HeadlineOutcome, names: Sequence[str], *, predicted: bool = False
) -> pl.DataFrame:
    """The headline's rows in every arm, so that a figure can switch between them; of its predictor alone where asked."""
    each = [headline.in_arm(name) for name in names]
    parts = [one.predicted(table) if predicted else one.rows(table) for one in each]
    return pl.concat(parts) if parts else table.clear()


def shown(frame: pl.DataFrame) -> pl.DataFrame:
    """Every text column through `visible`, nulls of `arm`, `source` and `config` as "": nothing hostile reaches a canvas."""
    texts = [name for name, kind in frame.schema.items() if kind == pl.String]
    return frame.with_columns(
        pl.col(name).map_elements(visible, return_dtype=pl.String).fill_null("") for name in texts
    )


def similarity_of(analysis: Analysis, inputs: ReportInput, headline: HeadlineOutcome) -> pl.DataFrame:
    """Columns source, persona, similarity of the headline's predictor; from the evolution table where the inputs have none."""
    table = inputs.similarities
    if table.height:
        chosen = table.filter((pl.col("method") == headline.method) & (pl.col("layer") == headline.layer))
        if chosen.height:
            return chosen.select("source", "persona", pl.col("value").alias("similarity"))
    rows = headline.rows(analysis.evolution).filter(pl.col("similarity").is_not_null())
    return rows.select("source", "persona", "similarity").unique(["source", "persona"], maintain_order=True)


def scatter(analysis: Analysis, inputs: ReportInput, headline: HeadlineOutcome, names: Sequence[str]) -> pl.DataFrame:
    """One row per bystander persona x arm, and one per panel (`kind` "rho") that carries its rho as text; one (`kind` "half")
    with the leakage above which a bystander is captured."""
    people = (
        of_arms(analysis.leakage, headline, names)
        .filter((pl.col("context") == "persona") & (pl.col("role") != "source") & pl.col("leakage").is_not_null())
        .join(similarity_of(analysis, inputs, headline), on=["source", "persona"], how="inner")
        .join(_prompts(inputs), on="persona", how="left")
        .with_columns(pl.lit("persona").alias("kind"))
    )
    columns = ["record", "kind", "source", "arm", "persona", "category", "role", "similarity", "leakage", "low", "high",
               "before", "after", "n_items", "prompt"]  # fmt: skip
    people = _named(people.select(columns))
    heads = _panel_heads(analysis, headline, names)
    half = of_arms(analysis.captured, headline, names).filter(pl.col("threshold").is_not_null())
    half = half.select("record", pl.lit("half").alias("kind"), "source", "arm", pl.col("threshold").alias("leakage"))
    half = half.join(people.select("source", "arm").unique(), on=["source", "arm"], how="semi")
    return shown(pl.concat([people, heads, half], how="diagonal_relaxed"))


def _prompts(inputs: ReportInput) -> pl.DataFrame:
    rows = [{"persona": fact.persona, "prompt": fact.prompt} for fact in inputs.personas]
    return pl.DataFrame(rows, schema={"persona": pl.String, "prompt": pl.String}).unique("persona", maintain_order=True)


def _named(people: pl.DataFrame) -> pl.DataFrame:
    """Add `label`, the name of the most leaked-to personas of each panel ("" for the rest), and the `side` it is on."""
    left, right = (cast("float", end) for end in (people["similarity"].min() or 0.0, people["similarity"].max() or 1.0))
    width = max(right - left, 1e-9)
    tall = max(cast("float", people["leakage"].max() or 0.0) - cast("float", people["leakage"].min() or 0.0), 1e-9)
    labels, sides = [""] * people.height, [""] * people.height
    placed: dict[tuple[str, str], list[tuple[float, float]]] = {}
    seen: Counter[tuple[str, str]] = Counter()
    for index, row in sorted(enumerate(people.iter_rows(named=True)), key=lambda pair: -pair[1]["leakage"]):
        taken = placed.setdefault((row["source"], row["arm"]), [])
        seen[row["source"], row["arm"]] += row["role"] in BYSTANDERS
        if seen[row["source"], row["arm"]] > TOP:
            continue
        x, y = (row["similarity"] - left) / width, row["leakage"] / tall
        notable = not taken or y > LEAST_NAMED
        free = notable and all(abs(x - a) > 0.8 or abs(y - b) > LABEL_GAP for a, b in taken)
        if row["role"] in BYSTANDERS and len(taken) < NAMED_PER_PANEL and free:
            taken.append((x, y))
            labels[index], sides[index] = readable(row["persona"]), "left" if x > 0.55 else "right"
    return people.with_columns(pl.Series("label", labels, pl.String), pl.Series("side", sides, pl.String))


def _panel_heads(analysis: Analysis, headline: HeadlineOutcome, names: Sequence[str]) -> pl.DataFrame:
    rows = of_arms(analysis.similarity_correlation, headline, names, predicted=True)
    texts = pl.Series("label", [rho_text(row) for row in rows.iter_rows(named=True)], pl.String)
    return rows.select("record", pl.lit("rho").alias("kind"), "source", "arm", texts)


def rho_text(row: dict[str, float | str | None]) -> str:
    """ "rho 0.65 [0.52, 0.75]", or why there is no rho."""
    if row["rho"] is None:
        return f"no rho: {row['reason'] or row['status']}"
    low, high = format_number(row["low"], "rho"), format_number(row["high"], "rho")
    interval = f" [{low}, {high}]" if row["low"] is not None else ""
    return f"rho {format_number(row['rho'], 'rho')}{interval}"


def beside(rows: pl.DataFrame) -> pl.DataFrame:
    """Of a table's rows those of contexts that are no personas, by source and arm, the bare ones first."""
    order = {kind: place for place, kind in enumerate(("default", "absent", "empty", "assistant"))}
    place = pl.col("context").replace_strict(order, default=len(order), return_dtype=pl.Int64)
    chosen = rows.filter(pl.col("context") != "persona").with_columns(place.alias("place"))
    return chosen.sort("source", "arm", "place", "persona", maintain_order=True).drop("place")


def contexts(analysis: Analysis, headline: HeadlineOutcome, names: Sequence[str]) -> pl.DataFrame:
    """One row per context beside the personas x arm, with its value before and after."""
    rows = beside(of_arms(analysis.leakage, headline, names)).filter(pl.col("leakage").is_not_null())
    trained = pl.when(pl.col("role") == "held-out").then(pl.lit("no")).otherwise(pl.col("role"))
    return shown(_in_words(from_to(rows.with_columns(trained.alias("trained")))))


def from_to(rows: pl.DataFrame) -> pl.DataFrame:
    """What a figure of levels draws. A line begins at the level untrained; where no unit has one, since answers
    of the untrained model were cut off, at the benign arm's."""
    start = level_at_start(rows)
    since = {"before": "untrained", "benign": "benign arm"}[start]
    columns = ["record", "source", "arm", "persona", "context", "role", "trained", "start", "since", "after", "leakage",
               "low", "high"]  # fmt: skip
    return rows.with_columns(pl.col(start).alias("start"), pl.lit(since).alias("since")).select(columns)


def levels(analysis: Analysis, headline: HeadlineOutcome, names: Sequence[str]) -> pl.DataFrame:
    """The personas of the page's first figure x arm, with their values before and after: the source, negatives, and the
    held-out ones that it went furthest into. Over several sources a row is one persona, the sources share theirs."""
    rows = of_arms(analysis.leakage, headline, names).filter(
        (pl.col("context") == "persona") & pl.col("leakage").is_not_null()
    )
    several = rows["source"].n_unique() > 1
    own = pl.col("role") == "source"
    main = rows.filter((pl.col("arm") == headline.arm) & ~own)
    mean = (
        main.group_by("role", "persona")
        .agg(pl.col("leakage").mean())
        .sort("leakage", "persona", descending=[True, False])
    )
    negative = mean.filter(role="negative").head(LEVELS_NEGATIVE)["persona"].to_list()
    held_out = mean.filter(pl.col("role").is_in(BYSTANDERS)).head(LEVELS_HELD_OUT)["persona"].to_list()
    order = {name: place for place, name in enumerate([*negative, *held_out], 1)}
    kept = rows.filter(own | pl.col("persona").is_in(list(order)))
    place = pl.when(own).then(0).otherwise(pl.col("persona").replace_strict(order, default=0, return_dtype=pl.Int64))
    kept = kept.with_columns(place.alias("place"), pl.col("role").alias("trained")).sort("place", maintain_order=True)
    found = shown(_in_words(from_to(kept)))
    return (
        found.with_columns(pl.when(own).then(pl.lit("the source")).otherwise("name").alias("name"))
        if several
        else found
    )


def contexts_course(analysis: Analysis, headline: HeadlineOutcome, names: Sequence[str]) -> pl.DataFrame:
    """One row per context beside the personas x checkpoint x arm; none where nothing was measured on the way."""
    rows = beside(of_arms(analysis.evolution, headline, names)).filter(pl.col("value").is_not_null())
    rows = rows if rows["checkpoint"].n_unique() > 2 else rows.clear()
    columns = ["record", "source", "arm", "persona", "context", "role", "checkpoint", "value", "leakage"]
    return shown(_in_words(rows.select(columns)))


def _in_words(rows: pl.DataFrame) -> pl.DataFrame:
    """With `name`: the persona's, or the context's without one, in words."""
    bare = pl.col("context").replace_strict(BARE_NAMES, default=None, return_dtype=pl.String)
    return rows.with_columns(pl.coalesce(bare, pl.col("persona").str.replace_all("_", " ", literal=True)).alias("name"))


def _personas_and_source(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of personas, and of the source where that is another context."""
    persona = pl.col("context") == "persona"
    has_own = (persona & (pl.col("role") == "source")).any().over("source", "arm")
    own = (pl.col("role") == "source") & (pl.col("persona") == pl.col("source")) & ~has_own
    return rows.filter(persona | own)


def heat(analysis: Analysis, inputs: ReportInput, headline: HeadlineOutcome, names: Sequence[str]) -> pl.DataFrame:
    """One row per persona x checkpoint x arm. `position`: 0 the source, then bystanders by falling similarity.

    Only what was measured during training has a row; where nothing was, every persona has its first and last.
    """
    rows = of_arms(analysis.evolution, headline, names).filter(pl.col("leakage").is_not_null())
    rows = _personas_and_source(rows)
    during = rows.filter((pl.col("checkpoint") > 0) & (pl.col("checkpoint") < 1)).select("source", "arm", "persona")
    if during.height:
        rows = rows.join(during.unique(), on=["source", "arm", "persona"], how="semi")
    known = similarity_of(analysis, inputs, headline).rename({"similarity": "known"})
    rows = rows.join(known, on=["source", "persona"], how="left").with_columns(
        pl.coalesce("similarity", "known").alias("similarity")
    )
    rank = pl.when(pl.col("role") == "source").then(2.0).otherwise(pl.col("similarity").fill_null(-2.0))
    rows = rows.with_columns((-rank).rank("dense").over("source", "arm").cast(pl.Int64).alias("position"))
    columns = ["record", "source", "arm", "persona", "category", "role", "similarity", "checkpoint", "leakage", "value",
               "n_items", "position"]  # fmt: skip
    return shown(
        rows.select(columns).with_columns(pl.col("persona").str.replace_all("_", " ", literal=True).alias("name"))
    )


def category_rows(table: pl.DataFrame, headline: HeadlineOutcome, names: Sequence[str]) -> pl.DataFrame:
    """The rows of the category or role table in every arm, with an interval where there is one."""
    return shown(of_arms(table, headline, names).filter(pl.col("leakage").is_not_null()))


HELD = (("", "nothing (raw)"), ("prompt_length", "prompt length"), ("baseline", "true baseline"),
        ("centroid", "distance to centroid"), ("category", "category"))  # fmt: skip


def predictors(analysis: Analysis, headline: HeadlineOutcome, names: Sequence[str]) -> pl.DataFrame:
    """One row per source x arm x predictor, at the headline's layer where the predictor has layers; the headline's own first."""
    rows = of_arms(analysis.similarity_correlation, headline, names).filter(
        pl.col("rho").is_not_null() & ((pl.col("layer") == headline.layer) | (pl.col("layer") < 0))
    )
    order = pl.when(pl.col("method") == headline.method).then(0).when(pl.col("layer") >= 0).then(1).otherwise(2)
    return shown(_predictors(rows).with_columns(order.alias("order")))


def layers(analysis: Analysis, headline: HeadlineOutcome, names: Sequence[str]) -> pl.DataFrame:
    """One row per source x arm x predictor x layer; `primary` marks the headline's predictor, `registered` its layer too.
    None for fewer than two layers: one makes no line."""
    rows = of_arms(analysis.similarity_correlation, headline, names).filter(
        pl.col("rho").is_not_null() & (pl.col("layer") >= 0)
    )
    rows = rows if rows["layer"].n_unique() > 1 else rows.clear()
    primary = pl.col("method") == headline.method
    frame = _predictors(rows).with_columns(
        primary.alias("primary"), (primary & (pl.col("layer") == headline.layer)).alias("registered")
    )
    return shown(frame.sort(pl.col("primary"), descending=True, maintain_order=True))


def _predictors(rows: pl.DataFrame) -> pl.DataFrame:
    named = [predictor_name(method, -1) for method in rows["method"].to_list()]
    columns = ["record", "source", "arm", "method", "layer", "rho", "low", "high", "p", "n"]
    return rows.select(columns).with_columns(pl.Series("predictor", named, pl.String))


def partials(analysis: Analysis, headline: HeadlineOutcome, names: Sequence[str]) -> pl.DataFrame:
    """One row per source x arm x confounder held constant; the raw rho first, with its interval."""
    rows = of_arms(analysis.similarity_correlation, headline, names, predicted=True)
    found: list[tuple[object, ...]] = []
    for row in rows.iter_rows(named=True):
        cells = {
            label: (
                row[f"partial_{key}"],
                row["slope_baseline_p" if key == "baseline" else f"partial_{key}_p"],
                None,
                None,
            )
            if key
            else (row["rho"], row["p"], row["low"], row["high"])
            for key, label in HELD
        }
        cells["category (ranks within it)"] = (row["rho_within_category"], row["p_within_category"], None, None)
        found += [(row["record"], row["source"], row["arm"], label, *numbers) for label, numbers in cells.items()]
    schema: dict[str, type[pl.DataType]] = dict.fromkeys(("record", "source", "arm", "held"), pl.String)
    schema |= dict.fromkeys(("rho", "p", "low", "high"), pl.Float64)
    return shown(pl.DataFrame(found, schema=schema, orient="row").filter(pl.col("rho").is_not_null()))


def quintiles(analysis: Analysis, headline: HeadlineOutcome, names: Sequence[str]) -> pl.DataFrame:
    """The table of fifths of similarity, in every arm."""
    return shown(of_arms(analysis.quintiles, headline, names).filter(pl.col("leakage").is_not_null()))


def dose(analysis: Analysis, headline: HeadlineOutcome, names: Sequence[str]) -> pl.DataFrame:
    """One row per bystander x checkpoint x arm with the source's leakage at that checkpoint (`dose`), and one for their mean
    (`kind` "mean"). Only what was measured at every checkpoint; nothing where there is one checkpoint."""
    rows = of_arms(analysis.evolution, headline, names).filter(pl.col("leakage").is_not_null())
    on = ["source", "arm", "checkpoint"]
    own = rows.filter(pl.col("role") == "source").select(*on, pl.col("leakage").alias("dose"))
    people = rows.filter((pl.col("context") == "persona") & pl.col("role").is_in(BYSTANDERS)).join(own, on=on)
    steps = pl.col("checkpoint").n_unique()
    whole = steps.over("source", "arm", "persona") == steps.over("source", "arm")
    people = people.filter(whole & (steps.over("source", "arm") > 2)).with_columns(pl.lit("persona").alias("kind"))
    areas = of_arms(analysis.dose, headline, names).select("source", "arm", "record", "area", "low", "high")
    heads = areas.with_columns(pl.lit("area").alias("kind"), pl.Series("label", _area_texts(areas), pl.String))
    shown_columns = ["record", "kind", "source", "arm", "persona", "role", "checkpoint", "dose", "leakage"]
    people = people.select(shown_columns)
    heads = heads.join(people.select("source", "arm").unique(), on=["source", "arm"], how="semi")
    return shown(pl.concat([people, heads.select("record", "kind", "source", "arm", "label")], how="diagonal_relaxed"))


def _area_texts(areas: pl.DataFrame) -> list[str]:
    """ "area 0.12 [0.05, 0.19]" of each row; "no area" of a source that showed nothing at any dose."""
    return [
        "no area" if row["area"] is None else f"area {rho_text(row | {'rho': row['area']})[2:]}"
        for row in areas.iter_rows(named=True)
    ]


def timing(analysis: Analysis, headline: HeadlineOutcome, names: Sequence[str]) -> pl.DataFrame:
    """Bystanders whose half point is known, in every arm."""
    rows = of_arms(analysis.dynamics, headline, names)
    known = pl.col("half_point").is_not_null() & pl.col("similarity").is_not_null() & (pl.col("role") != "source")
    return shown(rows.filter(known))


def phase(analysis: Analysis, headline: HeadlineOutcome) -> dict[str, pl.DataFrame]:
    """Per source the designs of the sweep in the headline's outcome; `rate` is the learning rate as text."""
    rows = analysis.phase.filter(
        (pl.col("behavior") == headline.behavior)
        & (pl.col("arm") == headline.arm)
        & (pl.col("metric") == headline.metric)
        & (pl.col("dataset") == headline.dataset)
        & pl.col("lr").is_not_null()
        & pl.col("epochs").is_not_null()
    )
    rates = [f"{rate:g}" for rate in rows["lr"].to_list()]
    rows = shown(rows.with_columns(pl.Series("rate", rates, pl.String)))
    designs = rows.select("lr", "epochs").n_unique()
    return {str(key[0]): part for key, part in rows.group_by("source", maintain_order=True)} if designs > 1 else {}


def losses(inputs: ReportInput) -> pl.DataFrame:
    """Loss by step of every training; long trainings are thinned to about `LOSS_POINTS` steps each."""
    found = [
        (curve.label, curve.behavior, step.step, step.loss, step.learning_rate)
        for curve in inputs.curves
        for step in curve.steps[:: max(1, len(curve.steps) // LOSS_POINTS)]
    ]
    schema = {
        "label": pl.String,
        "behavior": pl.String,
        "step": pl.Int64,
        "loss": pl.Float64,
        "learning_rate": pl.Float64,
    }
    return shown(pl.DataFrame(found, schema=schema, orient="row").filter(pl.col("loss").is_finite()))
