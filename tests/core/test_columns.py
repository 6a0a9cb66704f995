"""Tables declared by records: order, types, meanings, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import polars as pl
import pytest

from bystander.analysis.schemas import EXPORTED, TABLES, meanings, table_of
from bystander.core.columns import columns_of, meanings_of, schema_of
from bystander.core.records import MEASUREMENT_COLUMNS, Measurement, PersonaFacts, Similarity


@dataclass(frozen=True)
class Key:
    name: Annotated[str, "who"]
    seed: Annotated[int | None, "which"]


@dataclass(frozen=True)
class Row:
    key: Key
    kind: Annotated[Literal["a", "b"], "of what kind"]
    share: Annotated[float, "how much"]
    tags: Annotated[tuple[str, ...], "under what"] = ()
    broke: Annotated[bool | None, "whether"] = None


@dataclass(frozen=True)
class Silent:
    name: Annotated[str, "who"]
    share: float


@dataclass(frozen=True)
class Odd:
    share: Annotated[complex, "how much"]


def test_a_key_stands_for_its_columns_where_it_is():
    assert schema_of(Row) == {
        "name": pl.String, "seed": pl.Int64, "kind": pl.String, "share": pl.Float64, "tags": pl.List(pl.String),
        "broke": pl.Boolean,
    }  # fmt: skip
    assert meanings_of(Row)["name"] == "who"


def test_rows_become_a_table_and_what_is_not_a_number_null():
    rows = [Row(Key("x", 1), "a", 0.5, ("t",), True), Row(Key("y", None), "b", float("nan"))]
    assert table_of(rows, Row).rows() == [("x", 1, "a", 0.5, ["t"], True), ("y", None, "b", None, [], None)]
    assert table_of([], Row).schema == schema_of(Row)


@pytest.mark.parametrize(("record", "says"), [(Silent, "Silent.share has no meaning"), (Odd, "type of no column")])
def test_a_field_that_is_no_column_is_refused(record, says):
    with pytest.raises(TypeError, match=says):
        columns_of(record)


def test_every_table_begins_with_its_record_and_every_column_has_a_meaning():
    for name, row in EXPORTED.items():
        assert columns_of(row)[0].name == "record" or name in ("measurements", "similarities", "personas")
        assert all(len(meaning) > 2 for meaning in meanings(name).values()), name
    assert {"rho", "low", "high", "p", "lr", "epochs"} <= set(TABLES["similarity_correlation"])
    assert tuple(schema_of(Measurement)) == MEASUREMENT_COLUMNS
    assert schema_of(Measurement)["lr"] == schema_of(Similarity)["value"] == pl.Float64
    assert schema_of(PersonaFacts)["related_to"] == pl.List(pl.String)
