"""Stopping with grace: Ctrl-C (or SIGTERM) lets what runs finish for eight seconds; a second one does not wait."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

GRACE_SECONDS = 8.0  # of the fifteen within which a stop ends: the rest is for ending processes

SIGNALS = ("Ctrl-C", "SIGTERM")  # the reasons that a signal gives


class Interrupted(BaseException):
    """The grace is over: the cell that runs in this process is cut off. Not an Exception, so that nothing on the way
    takes it for a fault of the cell."""


class Stop:
    """Whether and why a run is to stop, and how long what runs may still take."""

    def __init__(self, grace: float = GRACE_SECONDS, asked: Callable[[], None] = lambda: None) -> None:
        self.grace = grace
        self._tell = asked  # workers in other processes
        self.reason = ""
        self._deadline = float("inf")

    @property
    def requested(self) -> bool:
        """Nothing more is started."""
        return bool(self.reason)

    @property
    def seconds_left(self) -> float:
        """Until what still runs is cut off; negative afterwards."""
        return self._deadline - time.monotonic()

    def request(self, reason: str) -> None:
        """Start nothing more; cut off what runs after the grace."""
        if not self.reason:
            self.reason = reason
            self._deadline = time.monotonic() + self.grace
            self._tell()

    @contextmanager
    def on_signals(self) -> Generator[None]:
        """Within the block SIGINT and SIGTERM request a stop, and the grace's end raises Interrupted in the main
        thread. In another thread signals cannot be caught, and nothing is changed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        caught = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
        before = {number: signal.getsignal(number) for number in caught}
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._asked)
        signal.signal(signal.SIGALRM, self._over)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            self._over(number, frame)
        self.request("Ctrl-C" if number == signal.SIGINT else "SIGTERM")
        signal.setitimer(signal.ITIMER_REAL, max(self.grace, 1e-3))

    def _over(self, _number: int, _frame: FrameType | None) -> None:
        self._deadline = time.monotonic()
        raise Interrupted(self.reason)
