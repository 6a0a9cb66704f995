"""What is written on axes, in tables and in sentences: names of outcomes with units, and numbers as text.

The page script formats with the same rules (`formatNumber` in page.js), so that a number reads alike everywhere.
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Literal

from bystander.core import doors
from bystander.core.columns import CellValue
from bystander.core.errors import few_names
from bystander.core.metrics import Metric, declared

Format = Literal["fraction", "nats", "nats/token", "score", "rho", "p", "count", "plain", "text", "words", "signed"]

UNITS: dict[str, str] = {
    "fraction": "fraction",
    "nats": "nats",
    "nats/token": "nats per token",
    "score": "points of 100",
}
DIGITS: dict[str, int] = {"fraction": 3, "nats": 2, "nats/token": 3, "score": 1, "rho": 2, "signed": 3}
MINUS = "−"
WORDS = {"non_contrastive": "non-contrastive"}  # names that are more than their underscores apart from words
BARE_NAMES = {  # contexts without a persona
    "default": "the template's default", "absent": "no system turn", "empty": "an empty system turn",
    "assistant": "“a helpful assistant”",
}  # fmt: skip
_OUTCOME = re.compile(r"(?<![\w/.])(\w+)/([\w-]+)/(\w+)(?![\w/])")
_SNAKE = re.compile(r"(?<![\w/=.`-])[a-z][a-z0-9]*(?:_[a-z0-9]+)+(?![\w/=`(])(?!\.\w)")
_UNCOUNTED = re.compile(r" and (\d+) more$")  # how a cell of names ends that the analysis cut


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
    """`kindergarten_teacher` -> `kindergarten teacher`. The page script has the same rule (`words` in page.js)."""
    return WORDS.get(name, name.replace("_", " "))


def in_words(text: str) -> str:
    """A sentence or a list of the analysis with its identifiers in words: `choice/arc/accuracy` -> `accuracy, arc`,
    `software_engineer` -> `software engineer`. What is part of a setting or a path (`recipe.max_steps`) stays."""
    return _SNAKE.sub(lambda found: readable(found[0]), _OUTCOME.sub(_outcome_in_words, text))


def _outcome_in_words(found: re.Match[str]) -> str:
    probe, dataset, name = found.groups()
    return found[0] if metric_of(probe, name) is None else outcome_name(probe, dataset, name)


def names_in(cell: object) -> tuple[list[str], int]:
    """The names of a comma-separated cell as words, and how many more the analysis counted without naming them."""
    text = str(cell or "")
    cut = _UNCOUNTED.search(text)
    named = text[: cut.start()] if cut else text
    return [readable(name) for name in named.split(", ") if name], int(cut[1]) if cut else 0


def first_names(cell: object, most: int) -> str:
    """The first `most` names of such a cell, and how many more there are; "" for none."""
    names, uncounted = names_in(cell)
    return few_names(names, most, uncounted)


def bare_names(cell: object) -> list[str]:
    """Contexts without a persona, named in a comma-separated cell, in words."""
    return [BARE_NAMES.get(name, readable(name)) for name in str(cell or "").split(", ") if name]


def without_persona(cell: object) -> list[str]:
    """The same beside personas in one list, where a name alone would not say that it is none."""
    return [f"no persona ({name})" for name in bare_names(cell)]


def format_number(value: CellValue, form: Format | str) -> str:
    """A cell as the report prints it; "–" for null. Same rules as `formatNumber` of the page script."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) or form == "text":
        return in_words(str(value)) if form == "words" else str(value)
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
