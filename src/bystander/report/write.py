"""Files of the report: the page and its figures, each written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from bystander.analysis.results import Analysis
from bystander.core.errors import StoreError
from bystander.report.figures import charts
from bystander.report.figures.save import save_figures, specifications
from bystander.report.inputs import ReportInput
from bystander.report.page import render

Style = Literal["screen", "paper"]


def write_report(analysis: Analysis, inputs: ReportInput | None, out: Path, style: Style = "screen") -> Path:
    """Write `report.html` and `figures/*.svg, *.png, *.pdf`; returns the page's path.

    `out` is the page's path, or the folder to hold it. `style` "paper" sets the figure files at a column's width;
    the page itself is the same. Raises StoreError where a file cannot be written; the old page then still stands.
    """
    given = inputs or ReportInput()
    target = out if out.suffix == ".html" else out / "report.html"
    specs = specifications(charts(analysis, given))
    text = render(analysis, given, specs)
    write_text(target, text)
    save_figures(specs, target.parent / "figures", style)
    return target


def write_text(path: Path, text: str) -> None:
    """Replace a file by the whole of `text`."""
    write_files({path: text.encode("utf-8")})


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Replace each file whole: written beside its place, then renamed. Raises StoreError with the path and the reason."""
    for path, content in contents.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            temporary = Path(name)
            try:
                with os.fdopen(handle, "wb") as stream:
                    stream.write(content)
                temporary.chmod(0o644)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(
                f"cannot write {path} ({error.strerror or error}); free the disk or choose another folder, and make the "
                "report again"
            ) from error
