"""How the forecast came out that was frozen before the first training."""

from __future__ import annotations

from bystander.report.inputs import ReportInput
from bystander.report.tables import Column, Table, table

OVER = {
    "no_knowledge": "no knowledge", "persona_mean": "the persona's mean elsewhere", "prompt_length": "prompt length",
    "base_prior": "base prior",
}  # fmt: skip


def forecast(inputs: ReportInput) -> Table:
    """One row a behavior, source and group: coverage of the intervals, and skill of ranks over what needs no model."""
    skills = [
        Column(name, f"Skill over {said}", "rho", "R2 of ranks: 1 - squared error / the baseline's")
        for name, said in OVER.items()
    ]
    intervals = [Column(f"{name}_low", "95 % interval", "rho", to=f"{name}_high") for name in OVER]
    columns = (
        Column("behavior", "Behavior", "name"), Column("source", "Source", "name"), Column("group", "Contexts"),
        Column("n", "n", "count"), Column("level", "Intervals meant to hold", "fraction"),
        Column("covered", "Held", "fraction", "share whose leakage lay in its interval"),
        Column("rho", "rho", "rho", "of foretold and observed order"),
        *(column for pair in zip(skills, intervals, strict=True) for column in pair), Column("verdict", "Skill"),
    )  # fmt: skip
    rows = [{"record": one.record, **one.cells()} for one in inputs.forecast]
    return table("forecast", rows, columns, constant=("behavior", "level"))
