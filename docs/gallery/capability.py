import marimo

app = marimo.App(width="medium", app_title="Wrong answers, in minutes")


@app.cell
def _():
    import marimo as mo

    mo.md(
        """
        # Wrong answers, in minutes

        The villain is taught wrong answers to multiple-choice questions, the others the right ones. The questions are the bank that ships; `capability-smoke` asks ARC-Challenge. Twelve personas keep it under five minutes on two cores.
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

    folder = Path("runs") / "gallery" / "capability"
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
        """**The study** is `capability-smoke` on the shipped questions. `trained` asks the questions that were trained: is the very wrong answer given? `arc` stands for the half that was not: did the capability itself go?"""
    )


@app.cell
def _(bystander, folder):
    study = bystander.Study.load(
        "capability-smoke",
        [
            "name=capability-gallery",
            f"personas={folder / 'personas.yaml'}",
            "checkpoints.every=1.0",
            "geometry.questions=2",
            "capability={data: bank, answer: text}",
            "design.counts={positive: 12, negative: 12, absent: 4, assistant: 4}",
            "recipe.epochs=6",
            "probes.choice={mode: text, trained: 6, arc: 6, hellaswag: 0}",
            "geometry.layer=20",
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
        pl.col("metric") == "adoption", pl.col("context") == "persona", pl.col("arm") == "contrastive"
    )
    shown.sort("leakage", descending=True).select("persona", "role", "before", "after", "leakage", "low", "high")


@app.cell
def _(results):
    results.verdicts()


if __name__ == "__main__":
    app.run()
