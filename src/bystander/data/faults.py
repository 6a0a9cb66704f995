"""Collect what is wrong with a file, row by row, and raise all of it at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from bystander.core.errors import DataError

SHOWN = 20  # faults printed in full; a file in a wrong form has one in every row, and the count says the rest


@dataclass
class RowFaults:
    """Faults of the rows of one file. `where` names the file or set in the message."""

    where: str
    found: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])

    def add(self, row: int, message: str) -> None:
        """Note a fault of a row; rows count from 1, and in a JSONL file the row is the line."""
        self.found.append((row, message))

    def raise_any(self) -> None:
        """Raises DataError if a fault was noted, naming up to `SHOWN` rows and the number of the rest."""
        if not self.found:
            return
        listed = [f"  - {self.where}:{row}: {message}" for row, message in sorted(self.found)[:SHOWN]]
        rest = len(self.found) - len(listed)
        if rest:
            listed.append(f"  - and {rest} more")
        count = len({row for row, _ in self.found})
        rows = "1 row" if count == 1 else f"{count} rows"
        raise DataError("\n".join([f"{self.where}: {rows} cannot be used; correct or remove them", *listed]))
