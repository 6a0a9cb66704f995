"""`python -m calibration [--studies N] [--out docs/calibration.md] [--parts FOLDER] [CHECK ...]`: run the checks, write their
table. With `--parts` each check's lines are kept there, and those that are there already are not made again: a run can be
done in pieces. Empty the folder when the statistics change.

Exit code 1 when something that is offered does not keep its level.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from calibration.checks import CHECKS, kept_check
from calibration.rows import CalibrationLine

HEAD = """# Calibration

Written by `make calibration` (`python -m calibration`); do not edit. Simulated studies have the sizes of real ones: 111
personas in 11 categories, 5 sources, questions shared by all personas. The worlds are in `calibration/worlds.py` and, with
baselines, answers and centroids as real models have them, in `calibration/real.py`; the checks are listed in
`calibration/checks.py`.

- **level**: share of studies in which a test rejects at 5 % although its null is true. Accepted: 3.5 to 6.5 % unless said;
  from 0 for a test that promises at most 5 % (Holm's correction, the dip). KS: Kolmogorov-Smirnov p that the p-values
  are uniform (few distinct p-values make it small without harm).
- **coverage**: share of studies whose 95 % interval holds the truth. Accepted: 92 to 97.5 %, or at least 92 % for an
  interval that promises at least 95 %.
- **bias**: mean estimate minus truth. Accepted: within 0.02.
- **power**: share of studies in which the effect that the power table calls detectable at 80 % is found.

What does not keep its level is not offered by `bystander.analysis`, or not for this question; it is here to show why.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named checks (all by default); write the table to `--out`, or print it."""
    parser = argparse.ArgumentParser(prog="python -m calibration", description=__doc__)
    parser.add_argument("checks", nargs="*", help=f"of {', '.join(CHECKS)}")
    parser.add_argument("--studies", type=int, help="simulated studies a check (default: each check's own, most 1,000)")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--parts", type=Path, help="keep the lines of each check here, and take those that are here")
    options = parser.parse_args(arguments)
    rows: list[CalibrationLine] = []
    started = time.monotonic()
    chosen = list(options.checks or CHECKS)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # of the workers: the checks share the cores, not their matrix products
    with ProcessPoolExecutor(min(len(chosen), os.cpu_count() or 1), get_context("spawn")) as pool:
        for found in pool.map(partial(kept_check, folder=options.parts, studies=options.studies), chosen):
            rows += found
            for row in found:
                print(_line(row), flush=True)
    made = "in parts" if options.parts else f"in {(time.monotonic() - started) / 60:.0f} minutes"
    text = HEAD + "\n" + _table(rows) + f"\nMade {made}.\n"
    if options.out:
        options.out.write_text(text)
    failed = [row for row in rows if row.offered and not row.keeps]
    for row in failed:
        print(f"does not keep its level: {_line(row)}", file=sys.stderr)
    return 1 if failed else 0


def _table(rows: Sequence[CalibrationLine]) -> str:
    lines: list[str] = []
    for kind in ("level", "coverage", "bias", "power"):
        chosen = [row for row in rows if row.kind == kind]
        if not chosen:
            continue
        lines += [
            f"## {kind.capitalize()}",
            "",
            "| statistic | world | studies | figure | accepted | KS p | |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [f"| {' | '.join(_cells(row))} |" for row in chosen]
        lines.append("")
    return "\n".join(lines)


def _cells(row: CalibrationLine) -> list[str]:
    share = row.kind != "bias"
    figure = f"{row.figure:.1%}" if share else f"{row.figure:+.4f}"
    accepted = f"{row.low:.1%} to {row.high:.1%}" if share else f"{row.low:+.2f} to {row.high:+.2f}"
    state = "keeps" if row.keeps else "FAILS"
    if not row.offered:
        state = "not offered"
    return [
        row.statistic,
        row.scenario,
        f"{row.studies:,}",
        figure,
        accepted,
        f"{row.ks:.2g}" if row.ks is not None else "",
        state,
    ]


def _line(row: CalibrationLine) -> str:
    return f"{row.kind}: " + " | ".join(_cells(row))


if __name__ == "__main__":
    sys.exit(main())
