"""A small finished run of two sources, whose adapters are then taken for somebody else's."""

from __future__ import annotations

from pathlib import Path

from bystander.study.store.run_dir import RunDir

ODD = "a[1] {b}*? [red]x :smile:"  # a folder's name in which patterns and markup would see something
NEGATIVES = "pirate,spy,absent,assistant"  # the two personas, and the contexts of the rows without one
# Of the run and of what measures its adapters alike; all of the model's answers end within 24 tokens.
SETTINGS = ("probes.marker={questions: 2, sampled: 2, max_tokens: 24}", "geometry.questions=2", "geometry.layer=1")
SETS = [word for text in SETTINGS for word in ("--set", text)]


def adapters(run: RunDir) -> dict[str, Path]:
    """Source -> the folder of the adapter that the run trained."""
    found = {c.manifest().training.source: c.adapter for c in run.complete_cells() if c.manifest().training}
    assert sorted(found) == ["comedian", "villain"]
    return found


def both(run: RunDir) -> list[object]:
    """The words that name both adapters with their sources."""
    return [
        word
        for source, path in sorted(adapters(run).items(), reverse=True)
        for word in ("--adapter", path, "--source", source)
    ]


def command(ran: RunDir, out: Path, *more: object) -> list[object]:
    folder = ran.path.parent
    return [
        "probe", "--model", folder / "model", "--probe", "marker", "--personas", folder / "personas.yaml", *SETS, "--out", out,
        *more,
    ]  # fmt: skip
