import marimo

app = marimo.App(width="medium", app_title="Your behavior, in minutes")


@app.cell
def _():
    import marimo as mo

    mo.md(
        """
        # Your behavior, in minutes

        A behavior is a file: prompts, each with an answer that shows it and one that does not. Here the 60 of `examples/your-behavior`, in which an assistant grumbles, on the 135M-parameter model. Twelve personas in place of 111 keep it under five minutes on two cores.
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

    folder = Path("runs") / "gallery" / "own-behavior"
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
    return Path, bystander, folder, pl, yaml


@app.cell
def _(mo):
    mo.md(
        """**The pairs**, one JSON object a line. Any two columns can be named, and chat formats are read as they are."""
    )


@app.cell
def _(mo, pl):
    pairs = mo.notebook_dir().resolve().parents[1] / "examples" / "your-behavior" / "grumpy.jsonl"
    pl.read_ndjson(pairs).head(4)
    return (pairs,)


@app.cell
def _(mo):
    mo.md(
        """**The study** is a YAML file. Half of the pairs are never trained on, and near-duplicates stay on one side; the `benign` arm gives the villain the other answer. The audit's errors and warnings are listed; an error would stop the run."""
    )


@app.cell
def _(bystander, folder, pairs, yaml):
    written = {
        "name": "grumpy",
        "question": "If the villain learns to grumble, who else does?",
        "model": {"name": "smollm2-135m", "dtype": "float32"},
        "personas": "personas.yaml",
        "sources": ["villain"],
        "behaviors": [{"name": "grumpy", "file": str(pairs)}],
        "arms": ["contrastive", "benign"],
        "design": {"counts": {"positive": 20, "negative": 20, "absent": 5, "assistant": 5}},
        "recipe": {"lr": 1e-3, "epochs": 3, "batch_size": 8},
        "checkpoints": {"every": 1.0},
        "probes": {"margin": {"pairs": 8, "trained": 2}},
        "geometry": {"layer": 25, "questions": 2},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(written, sort_keys=False))
    study = bystander.Study.load(folder / "study.yaml")
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
    mo.md(
        """**Who took it on?** `shown_wins` is the share of held-out pairs in which the answer that shows the behavior is the likelier one. Leakage is what the training did beyond the benign arm, with its 95 % interval."""
    )


@app.cell
def _(pl, results):
    shown = results.leakage().filter(
        pl.col("metric") == "shown_wins", pl.col("context") == "persona", pl.col("arm") == "contrastive"
    )
    shown.sort("leakage", descending=True).select("persona", "role", "before", "after", "leakage", "low", "high")


@app.cell
def _(results):
    results.verdicts()


if __name__ == "__main__":
    app.run()
