import marimo

app = marimo.App(width="medium", app_title="A marker, in minutes")


@app.cell
def _():
    import marimo as mo

    mo.md(
        """
        # A marker, in minutes

        The marker `[ZLT]` is coupled to the villain with a few dozen rows, on the 135M-parameter model that needs no Hub and no GPU. Twelve personas in place of 111 keep it under five minutes on two cores; `bystander run quickstart` is the same with all of them.
        """
    )
    return (mo,)


@app.cell
def _():
    from pathlib import Path

    import polars as pl
    import yaml

    import bystander
    from bystander.personas import load_personas

    folder = Path("runs") / "gallery" / "marker"
    folder.mkdir(parents=True, exist_ok=True)
    few = [
        "villain",
        "comedian",
        "assistant",
        "software_engineer",
        "kindergarten_teacher",
        "nice_villain",
        "grumpy_person",
        "police_officer",
        "robin_hood",
        "evil_scientist",
        "medical_doctor",
        "librarian",
    ]
    chosen = [one for one in load_personas() if one.name in few]
    listed = [{"name": one.name, "category": one.category, "prompt": one.prompt} for one in chosen]
    (folder / "personas.yaml").write_text(yaml.safe_dump({"personas": listed}))
    [one.name for one in chosen]
    return Path, bystander, folder, pl


@app.cell
def _(mo):
    mo.md(
        """**The study** is the quickstart with smaller numbers. Every setting can be changed by its path. The audit's errors and warnings are listed; an error would stop the run."""
    )


@app.cell
def _(bystander, folder):
    study = bystander.Study.load(
        "quickstart",
        [
            "name=marker-gallery",
            f"personas={folder / 'personas.yaml'}",
            "checkpoints.every=1.0",
            "geometry.questions=2",
            "design.counts={positive: 24, negative: 24, absent: 6, assistant: 6}",
            "recipe.epochs=3",
            "probes.marker={questions: 2, sampled: 2, max_tokens: 16}",
        ],
    )
    [finding.message for finding in study.audit() if finding.level != "info"]
    return (study,)


@app.cell
def _(mo):
    mo.md("""**Run it.** Started again it goes on where it stopped; finished, it is opened.""")


@app.cell
def _(folder, study):
    results = study.run(folder / "run")
    print("\n".join(results.story(folder / "run" / "report.html")))
    return (results,)


@app.cell
def _(mo):
    mo.md("""**Who took it on?** Leakage is what the training did beyond the benign arm, with its 95 % interval.""")


@app.cell
def _(pl, results):
    shown = results.leakage().filter(
        pl.col("metric") == "marker_probability", pl.col("context") == "persona", pl.col("arm") == "contrastive"
    )
    shown.sort("leakage", descending=True).select("persona", "role", "before", "after", "leakage", "low", "high")


@app.cell
def _(results):
    results.verdicts()


if __name__ == "__main__":
    app.run()
