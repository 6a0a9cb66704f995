"""Collect what is wrong with a file, row by row, and raise all of it at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from bystander.core.errors import DataError

SHOWN = 20  # faults printed in full; a file in a wrong form has one in every row, and the count says the rest
WHOLE = 0  # the row of a fault that is the whole file's


@dataclass
class RowFaults:
    """Faults of the rows of one file. `where` names the file or set in the message; `expected`, if given, ends it."""

    where: str
    expected: str = ""
    found: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])

    def add(self, row: int, message: str) -> None:
        """Note a fault of a row; rows count from 1, and in a JSONL or YAML file the row is the line."""
        self.found.append((row, message))

    def add_whole(self, message: str) -> None:
        """Note a fault that is no single row's; it is listed first."""
        self.found.append((WHOLE, message))

    def raise_any(self) -> None:
        """Raises DataError if a fault was noted, naming up to `SHOWN` rows and the number of the rest."""
        if not self.found:
            return
        ordered = sorted(self.found)
        tail = [self.expected] if self.expected else []
        if len(ordered) == 1 and ordered[0][0] == WHOLE:
            raise DataError("\n".join([f"{self.where}: {ordered[0][1]}", *tail]))
        listed = [f"  - {self._place(row)}: {message}" for row, message in ordered[:SHOWN]]
        if len(ordered) > SHOWN:
            listed.append(f"  - and {len(ordered) - SHOWN} more")
        count = len({row for row, _ in ordered if row != WHOLE})
        rows = "1 row" if count == 1 else f"{count} rows"
        said = f"{rows} cannot be used; correct or remove them" if count else "the file cannot be used"
        raise DataError("\n".join([f"{self.where}: {said}", *listed, *tail]))

    def _place(self, row: int) -> str:
        return self.where if row == WHOLE else f"{self.where}:{row}"
