"""The command line called in the test's own process."""

from __future__ import annotations

import sys

from bystander.cli import main as cli


def call(capsys, *arguments):
    """Run the command in this process: (exit code, standard output, standard error)."""
    sys.argv = ["bystander", *map(str, arguments)]
    try:
        cli.main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err
