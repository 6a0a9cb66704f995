"""Panels re-flowed to the column of a journal: the same rules that the page's script has for the width of a window."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import cast

Spec = dict[str, object]

COLUMN = 3.25 * 96  # px: 3.25 in is the column of two-column conference styles (ICML, ACL)
GAP = 14  # px between panels
LEAST = 96  # px: the narrowest panel in which three tick labels of 9 px do not touch
GUTTER = 58  # px for a value axis with its title


def to_column(spec: Mapping[str, object], width: float = COLUMN) -> Spec:
    """A copy of a chart's specification (Vega-Lite, px) in which as many panels are side by side as fit."""
    hints = cast("Mapping[str, float]", spec.get("usermeta") or {})
    labels = 0.42 if hints.get("gutter", 0) > 100 else 0.0  # figures with names beside their rows: share of the width
    return _fit(spec, width, max(GUTTER, labels * width))


def _fit(spec: Mapping[str, object], width: float, gutter: float) -> Spec:
    made = dict(spec)
    if "vconcat" in spec:
        parts = cast("list[Mapping[str, object]]", spec["vconcat"])
        made["vconcat"] = [_fit(part, width, gutter) for part in parts]
    elif "concat" in spec:
        parts = cast("list[Mapping[str, object]]", spec["concat"])
        inner = int((width - GAP) / 2 - GUTTER)
        made |= {"columns": 2, "spacing": GAP, "concat": [{**part, "width": inner} for part in parts]}
    elif "facet" in spec and "spec" in spec:
        facet = cast("Mapping[str, object]", spec["facet"])
        panels = max(1, len(cast("list[object]", facet.get("sort") or [0])))
        columns = max(1, min(panels, int((width - gutter + GAP) // (LEAST + GAP))))
        inner = int((width - gutter - (columns - 1) * GAP) / columns)
        panel = copy(cast("Spec", spec["spec"]))
        height = panel.get("height")
        panel["width"] = inner
        if isinstance(height, int | float):
            panel["height"] = min(height, int(max(96, 0.85 * inner)))
        made |= {"columns": columns, "spacing": GAP, "spec": panel}
    else:
        made["width"] = int(width - gutter)
    return made
