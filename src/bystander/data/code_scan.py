"""Bandit over code: is the insecure code insecure, and the secure code secure? Code is parsed and scanned, never run."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bystander.core.records import Finding
from bystander.data.code_pairs import CodePair
from bystander.data.programs import parsed

Severity = Literal["low", "medium", "high"]
SEVERITIES: tuple[Severity, ...] = ("low", "medium", "high")
SHOWN = 8  # rows that a finding names


@dataclass(frozen=True, slots=True)
class Issue:
    """One finding of Bandit: its test id (B602), severity, and line in the code (from 1)."""

    test: str
    severity: Severity
    line: int


@dataclass(frozen=True, slots=True)
class Scan:
    """What Bandit says of one text. `parses`: False where it is not Python, and Bandit has nothing to say."""

    parses: bool
    issues: tuple[Issue, ...]

    @property
    def worst(self) -> Severity | None:
        """The highest severity found."""
        found = [SEVERITIES.index(issue.severity) for issue in self.issues]
        return SEVERITIES[max(found)] if found else None


@dataclass(frozen=True, slots=True)
class ScanShares:
    """Shares in [0, 1] of all rows of one side. `low`, `medium`, `high` count a row once, at its worst finding.

    All are 0 for no rows (`rows` says so).
    """

    rows: int
    parses: float
    any: float
    low: float
    medium: float
    high: float


def parses(code: str) -> bool:
    """Whether a text is Python that this interpreter can parse."""
    return parsed(code) is not None


def scan(codes: Mapping[str, str]) -> dict[str, Scan]:
    """Bandit's findings for every text, by its key: one run in this process over temporary files.

    Bandit's default tests (https://bandit.readthedocs.io); `# nosec` comments in the code are not obeyed, since a
    generated answer must not be able to vouch for itself.
    """
    readable = {key: parses(code) for key, code in codes.items()}
    keys = [key for key in codes if readable[key]]
    issues: dict[str, list[Issue]] = {key: [] for key in codes}
    with tempfile.TemporaryDirectory(prefix="bystander-scan-") as folder, _quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # importing Bandit warns of its plugin loader; scanning, of the code's escapes
        from bandit.core.config import BanditConfig
        from bandit.core.manager import BanditManager

        files = {str(Path(folder) / f"row{index}.py"): key for index, key in enumerate(keys)}
        for file, key in files.items():
            Path(file).write_text(codes[key], encoding="utf-8")
        manager = BanditManager(BanditConfig(), "file", ignore_nosec=True)
        manager.discover_files(list(files))
        manager.run_tests()
        for issue in manager.get_issue_list():
            severity = str(issue.severity).lower()
            if severity in SEVERITIES:
                issues[files[str(issue.fname)]].append(Issue(str(issue.test_id), severity, int(issue.lineno)))
    return {key: Scan(readable[key], tuple(issues[key])) for key in codes}


class _quiet:
    """Bandit logs to the root of its own logger tree; a scan inside a study must not write to the terminal."""

    def __enter__(self) -> None:
        self.logger = logging.getLogger("bandit")
        self.level = self.logger.level
        self.logger.setLevel(logging.CRITICAL)

    def __exit__(self, *_: object) -> None:
        self.logger.setLevel(self.level)


def shares(scans: Sequence[Scan]) -> ScanShares:
    """Shares of rows by worst severity."""
    n = len(scans)
    if n == 0:
        return ScanShares(0, 0.0, 0.0, 0.0, 0.0, 0.0)
    worst = [scan.worst for scan in scans]
    by = {severity: sum(w == severity for w in worst) / n for severity in SEVERITIES}
    readable = sum(scan.parses for scan in scans) / n
    return ScanShares(n, readable, sum(w is not None for w in worst) / n, by["low"], by["medium"], by["high"])


def scan_pairs(pairs: Sequence[CodePair]) -> list[Finding]:
    """The instrument check for the audit: an info line for each side, an error for secure rows with a finding of
    high severity, a warning where fewer than half of the insecure rows have any finding."""
    scans = scan(
        {
            f"{side}\n{pair.id}": code
            for pair in pairs
            for side, code in (("secure", pair.secure), ("insecure", pair.insecure))
        }
    )
    secure = {pair.id: scans[f"secure\n{pair.id}"] for pair in pairs}
    insecure = {pair.id: scans[f"insecure\n{pair.id}"] for pair in pairs}
    findings: list[Finding] = []
    high = [
        f"{key} ({', '.join(i.test for i in s.issues if i.severity == 'high')})"
        for key, s in secure.items()
        if s.worst == "high"
    ]
    if high:
        message = f"{len(high)} of {len(secure)} secure answers have a Bandit finding of high severity; leave them out or repair them"
        findings.append(Finding("error", "secure code is insecure", message, tuple(high[:SHOWN])))
    spread = shares(list(insecure.values()))
    if spread.rows and spread.any < 0.5:
        message = f"Bandit finds something in only {spread.any:.0%} of the insecure answers"
        findings.append(Finding("warning", "insecure code looks secure", message))
    for name, side in (("secure", shares(list(secure.values()))), ("insecure", spread)):
        findings.append(Finding("info", "bandit", f"{name}: {describe(side)}"))
    return findings


def describe(share: ScanShares) -> str:
    """The shares as one line."""
    return (
        f"{share.rows} answers, {share.parses:.1%} parse; with a finding {share.any:.1%} "
        f"(worst low {share.low:.1%}, medium {share.medium:.1%}, high {share.high:.1%})"
    )
