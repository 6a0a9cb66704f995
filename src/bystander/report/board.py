"""The board: many studies on one page, a column per state, and a timeline of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bystander.core.files import write_bytes
from bystander.report.inputs import BOARD_STATES, BoardCard, CostLine
from bystander.report.labels import format_number
from bystander.report.page import page


@dataclass(frozen=True, slots=True)
class CostBar:
    """Spend against forecast: widths are whole percents of the larger of the two, for the class of the bar."""

    line: CostLine
    spent: str
    forecast: str
    spent_share: int
    over: bool


def write_board(studies: Sequence[BoardCard], out: Path, created: str = "") -> Path:
    """Write the board of `studies` to `out` (a file, or the folder to hold `board.html`); returns its path.

    Cards are in the order given. `created` is the time to print, as the caller says it. Raises StoreError where the
    page cannot be written.
    """
    target = out if out.suffix == ".html" else out / "board.html"
    columns = [
        (
            state,
            state.capitalize(),
            [(card, [bar(line) for line in card.cost]) for card in studies if card.state == state],
        )
        for state in BOARD_STATES
    ]
    text = page(
        "board.html",
        title="bystander: studies",
        packed={},
        vega=False,
        columns=columns,
        studies=studies,
        safe_link=safe_link,
        created=created,
    )
    write_bytes(target, text.encode())
    return target


def bar(line: CostLine) -> CostBar:
    """How a line of the bill is drawn. Nothing forecast or nothing spent draws an empty bar."""
    forecast, spent = line.forecast or 0.0, line.spent or 0.0
    whole = max(forecast, spent)
    share = round(100 * spent / whole) if whole > 0 else 0
    return CostBar(
        line, format_number(line.spent, "plain"), format_number(line.forecast, "plain"), share,
        over=line.forecast is not None and spent > line.forecast,
    )  # fmt: skip


def safe_link(link: str) -> str:
    """A relative link as it is; "" for one with a scheme or a host, which could run or fetch something."""
    plain = link.strip()
    head = plain.replace("\\", "/").split("/", 1)[0]
    return "" if ":" in head or plain.replace("\\", "/").startswith("//") else plain
