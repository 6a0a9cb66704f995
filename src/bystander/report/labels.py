"""What is written on axes, in tables and in sentences: names of outcomes with units, and numbers as text.

The page script formats with the same rules (`formatNumber` in page.js), so that a number reads alike everywhere.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Literal

from bystander.core import doors
from bystander.core.columns import CellValue
from bystander.core.metrics import Metric, declared

Format = Literal["fraction", "nats", "nats/token", "score", "rho", "p", "count", "plain", "text", "signed"]

UNITS: dict[str, str] = {
    "fraction": "fraction",
    "nats": "nats",
    "nats/token": "nats per token",
    "score": "points of 100",
}
DIGITS: dict[str, int] = {"fraction": 3, "nats": 2, "nats/token": 3, "score": 1, "rho": 2, "signed": 3}
MINUS = "−"


def metric_of(probe: str, name: str) -> Metric | None:
    """The declared metric, or None for an outcome of somebody else's table."""
    return declared().get((probe, name))


def unit_of(probe: str, name: str) -> str:
    """The format of that outcome's numbers: fraction, nats, nats/token, score; "plain" for an undeclared one."""
    metric = metric_of(probe, name)
    return metric.unit if metric else "plain"


def outcome_name(probe: str, dataset: str, name: str) -> str:
    """ "accuracy on arc": what was measured, for a reader."""
    metric = metric_of(probe, name)
    text = metric.label if metric else name.replace("_", " ")
    return f"{text}, {dataset}" if dataset else text


def leakage_title(probe: str, name: str) -> list[str]:
    """Axis title in two lines, so that it fits a low panel: which way is up, and the unit."""
    metric = metric_of(probe, name)
    if metric is None:
        return ["Leakage: change of", name.replace("_", " ")]
    way = "rise" if metric.direction > 0 else "fall"
    return [f"Leakage: {way} in", f"{metric.short} ({UNITS[metric.unit]})"]


def similarity_title(method: str, layer: int) -> list[str]:
    """Axis title of a predictor, in two lines for a narrow page."""
    return ["Similarity to the source", f"({predictor_name(method, layer)})"]


def predictor_name(method: str, layer: int) -> str:
    """A predictor in a table or a legend."""
    name = doors.load("predictor", method).label if method in doors.names("predictor") else method.replace("_", " ")
    return f"{name}, layer {layer}" if layer >= 0 else name


def readable(name: str) -> str:
    """`kindergarten_teacher` -> `kindergarten teacher`."""
    return name.replace("_", " ")


def format_number(value: CellValue, form: Format | str) -> str:
    """A cell as the report prints it; "–" for null. Same rules as `formatNumber` of the page script."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) or form == "text":
        return str(value)
    if form == "p":
        return "< 0.0001" if value < 0.0001 else _fixed(value, 4 if value < 0.01 else 3)
    if form == "count":
        return _thousands(value)
    if form in DIGITS:
        text = _fixed(value, DIGITS[form])
        return f"+{text}" if form == "signed" and text.strip("0.") and value > 0 else text
    if float(value).is_integer():
        return _thousands(value) if abs(value) >= 10_000 else f"{value:z.0f}".replace("-", MINUS)
    return _short(value)


def _fixed(value: float, digits: int) -> str:
    """That many decimals, ties away from zero as the page script has it; no minus before what rounds to zero."""
    rounded = Decimal(value).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    return f"{rounded if rounded else abs(rounded)}".replace("-", MINUS)


def _short(value: float) -> str:
    """Four significant digits without trailing zeros; as 1e−6 below a ten-thousandth."""
    rounded = Context(prec=4, rounding=ROUND_HALF_UP).create_decimal(Decimal(value))
    if abs(rounded) >= Decimal("0.0001"):
        text = f"{rounded:f}"
        return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", MINUS)
    mantissa, exponent = f"{rounded:.3e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}".replace("-", MINUS)


def _thousands(value: float) -> str:
    whole = Decimal(value).quantize(Decimal(1), ROUND_HALF_UP)
    return f"{whole if whole else abs(whole):,}".replace(",", "\u202f").replace("-", MINUS)
