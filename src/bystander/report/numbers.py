"""QuotedNumbers as elements that name their record. Nothing else in the report prints a number of a study."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from markupsafe import Markup, escape

from bystander.analysis.results import Analysis
from bystander.core.columns import CellValue
from bystander.core.errors import DataError
from bystander.report.inputs import ReportInput
from bystander.report.labels import format_number
from bystander.report.text import visible


class QuotedNumbers:
    """Looks a cell up by record and column, in the analysis or in the inputs, and prints it with its provenance.

    `more`: records of the page itself, such as how many answers it carries.
    """

    def __init__(
        self, analysis: Analysis, inputs: ReportInput, more: Mapping[str, Mapping[str, CellValue]] | None = None
    ) -> None:
        self._analysis = analysis
        self._inputs = inputs
        self._more = more or {}

    @cached_property
    def _input_records(self) -> dict[str, Mapping[str, CellValue]]:
        return {**self._inputs.records(), **self._more}

    def value(self, record: str, column: str) -> CellValue:
        """The cell. Raises DataError where the record or its column is not there."""
        if record.startswith("inputs/"):
            cells = self._input_records.get(record)
            if cells is None or column not in cells:
                raise DataError(f"no such record in the report's inputs: {record!r}, column {column!r}")
            return cells[column]
        return self._analysis.value(record, column)

    def number(self, record: str, column: str, form: str = "plain") -> Markup:
        """`<data data-record=... data-column=...>0.65</data>`; `form` is a format of `labels.format_number`."""
        cell = self.value(record, column)
        text = visible(format_number(cell, form))
        return Markup('<data class="n" value="{}" data-record="{}" data-column="{}" data-form="{}">{}</data>').format(
            "" if cell is None else visible(str(cell)), visible(record), column, form, text
        )

    def interval(self, record: str, low: str, high: str, form: str) -> Markup:
        """` [0.52, 0.75]`, or nothing where there is no interval."""
        if self.value(record, low) is None or self.value(record, high) is None:
            return Markup("")
        ends = self.number(record, low, form), self.number(record, high, form)
        return Markup('<span class="interval">[{}, {}]</span>').format(*ends)


def named(text: str) -> Markup:
    """Names of a study in a sentence: `prose` that does not turn what stands around it."""
    return Markup("<bdi>{}</bdi>").format(prose(text))


def prose(text: str) -> Markup:
    """Text of a study or a model, escaped and with unseen characters shown."""
    return escape(visible(text))
