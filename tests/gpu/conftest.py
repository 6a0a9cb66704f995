"""A GPU run says what it covered."""

from __future__ import annotations

import pytest

COVERED = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[COVERED] = []


@pytest.fixture
def covered(request: pytest.FixtureRequest) -> list[str]:
    """Lines for the summary at the end."""
    return request.config.stash[COVERED]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(COVERED, [])
    if lines:
        terminalreporter.section("covered on the GPU")
        for line in lines:
            terminalreporter.write_line(line)
