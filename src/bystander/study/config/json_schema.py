"""The JSON schema of study files, by which editors complete and check them: made of the settings, packages' included."""

from __future__ import annotations

from typing import Any, cast

from bystander.study.config.schema import DEFAULT_EXECUTOR, study_model

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SCHEMA_FILE = "study.schema.json"  # beside the studies that ship, and beside those that `bystander new` writes


def study_schema() -> dict[str, Any]:
    """The schema of everything that a study file may say. What only `bystander audit` can know, such as whether a
    persona exists, is not in it."""
    schema: dict[str, Any] = {"$schema": DIALECT, **study_model().model_json_schema(), "title": "bystander study"}
    for one in _unions(schema):
        _name_kinds(one, schema["$defs"])
    return schema


def schema_line(where: str = SCHEMA_FILE) -> str:
    """The comment by which an editor's YAML language server finds the schema: a path from the file itself."""
    return f"# yaml-language-server: $schema={where}"


def _unions(node: object) -> list[dict[str, Any]]:
    """Every block of several kinds."""
    if isinstance(node, list):
        return [one for inner in cast("list[object]", node) for one in _unions(inner)]
    if not isinstance(node, dict):
        return []
    block = cast("dict[str, Any]", node)
    here = [block] if "oneOf" in block and "propertyName" in block.get("discriminator", {}) else []
    return here + [one for inner in block.values() for one in _unions(inner)]


def _name_kinds(union: dict[str, Any], definitions: dict[str, Any]) -> None:
    """A block that does not say its kind must fit one kind alone, or `oneOf` refuses it."""
    key = union["discriminator"]["propertyName"]
    for kind, reference in union["discriminator"]["mapping"].items():
        block = definitions[reference.rpartition("/")[2]]
        if kind != DEFAULT_EXECUTOR:
            block["required"] = sorted({key, *block.get("required", ())})
