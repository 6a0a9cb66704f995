import marimo

app = marimo.App(width="medium", app_title="A run of bystander in a notebook")


@app.cell
def _():
    import marimo as mo

    mo.md(
        """
        # A run in a notebook

        Everything that the report shows is in tidy tables. This notebook opens a finished run
        (`bystander run quickstart` writes `runs/quickstart`; `BYSTANDER_RUN` names another) and asks it three questions.
        """
    )
    return (mo,)


@app.cell
def _():
    import os

    import polars as pl

    import bystander

    results = bystander.Results.open(os.environ.get("BYSTANDER_RUN", "runs/quickstart"))
    results.measurements.head()
    return pl, results


@app.cell
def _(mo):
    mo.md("""**Who took the marker on?** Leakage is after minus before, with its 95 % interval.""")


@app.cell
def _(pl, results):
    outcome = pl.col("metric") == "marker_probability"
    leaked = results.leakage().filter(outcome, pl.col("seed").is_null()).sort("leakage", descending=True)
    leaked.select("persona", "role", "category", "leakage", "low", "high").head(12)
    return (outcome,)


@app.cell
def _(mo):
    mo.md("""**Does it follow similarity to the source?** One row a predictor: the centered cosine at the study's layer, and the baseline predictors.""")


@app.cell
def _(outcome, pl, results):
    layer = results.study.spec.geometry.layer
    at = pl.col("layer").is_in([layer, -1])
    correlation = results.similarity_correlation().filter(outcome, at, pl.col("seed").is_null())
    correlation.select("source", "method", "layer", "n", "rho", "low", "high", "p", "p_within_category")


@app.cell
def _(mo):
    mo.md("""**What is the verdict?** And the figures of the report, as Altair charts.""")


@app.cell
def _(results):
    results.verdicts()


@app.cell
def _(results):
    charts = results.charts()
    charts["scatter"]


@app.cell
def _(results):
    # pandas, for those who want it
    results.dynamics().to_pandas().head()


if __name__ == "__main__":
    app.run()
