"""Writes that are the last: a process that dies between the bytes and the rename."""

from __future__ import annotations

import pytest

from bystander.core import files


class Killed(BaseException):
    """What SIGKILL is to a process: nothing catches it on the way."""


class CutOff:
    """The n-th write from now on never ends; none does while `writes` is below 1."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes = 0
        self._real = files.os.fsync
        monkeypatch.setattr(files.os, "fsync", self._fsync)

    def _fsync(self, handle: int) -> None:
        self.writes -= 1
        if self.writes == 0:
            raise Killed
        self._real(handle)
