"""What the judge answered and what that cost, kept for good: a SQLite file.

An answer is keyed by everything that decides it and never expires, so that nothing is paid for twice; it is kept *raw*,
so that a change of the parser needs no new request. Answer and payment are written in one transaction: a kill leaves
both or neither. No clock, no key of a provider in it.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from bystander.core.errors import StoreError

PaymentKind = Literal["paid", "uncertain"]  # uncertain: the connection broke, so the provider may or may not bill it

SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
  key TEXT PRIMARY KEY, model TEXT NOT NULL, text TEXT NOT NULL, stop TEXT NOT NULL, first TEXT NOT NULL,
  alternatives TEXT NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, prompt_chars INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS payments (
  id INTEGER PRIMARY KEY, purpose TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL,
  input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, dollars REAL NOT NULL, estimated INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS payments_purpose ON payments (purpose);
CREATE TABLE IF NOT EXISTS batches (
  nonce TEXT PRIMARY KEY, id TEXT, endpoint TEXT NOT NULL, requests INTEGER NOT NULL, open INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS batch_items (nonce TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (nonce, key));
"""


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token that could have stood first in the answer, with its log-probability (natural)."""

    token: str
    logprob: float


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """What came back for one request. `text` None: nothing did, and `reason` says why. `first`: the first token of the
    answer, with its alternatives ("" and () where the provider gives none). `cached`: it was paid for earlier."""

    key: str
    text: str | None
    stop: str = ""
    first: str = ""
    alternatives: tuple[Alternative, ...] = ()
    input_tokens: int = 0
    output_tokens: int = 0
    reason: str = ""
    attempts: int = 0
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Payment:
    """Money for one request, in dollars. `estimated`: the provider gave no token counts, so they were estimated."""

    kind: PaymentKind
    key: str
    input_tokens: int
    output_tokens: int
    dollars: float
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Ledger:
    """What one purpose has paid. `uncertain` dollars are not in `dollars`: requests that broke off after they were sent."""

    requests: int
    input_tokens: int
    output_tokens: int
    dollars: float
    broken: int
    uncertain: float

    def since(self, earlier: Ledger) -> Ledger:
        """What was paid after `earlier` was looked at."""
        return Ledger(**{f.name: getattr(self, f.name) - getattr(earlier, f.name) for f in fields(self)})


@dataclass(frozen=True, slots=True)
class OpenBatch:
    """A batch that was announced (`id` None: the process ended before the provider's id came back) or sent."""

    nonce: str
    id: str | None
    requests: int
    keys: frozenset[str]


class AnswerStore:
    """The file. Safe for the threads and tasks of one process, and for several processes on one machine."""

    def __init__(self, path: Path | None) -> None:
        """`path` None: in memory, for a try. Raises StoreError if the file cannot be opened or is something else."""
        self.path = path
        self._lock = threading.Lock()
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path or ":memory:", check_same_thread=False, timeout=30, isolation_level=None)
            weakref.finalize(self, self._db.close)  # a store that nobody closed leaves no connection behind
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")  # survives a killed process; WAL keeps the file whole
            self._db.executescript(SCHEMA)
        except (OSError, sqlite3.Error) as error:
            advice = "move it away, or set BYSTANDER_CACHE to another folder"
            raise StoreError(f"cannot use {path} as the judge's cache: {error}; {advice}") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def get(self, key: str) -> RawAnswer | None:
        """The kept answer, or None."""
        with self._lock:
            row = self._db.execute(
                "SELECT text, stop, first, alternatives, input_tokens, output_tokens FROM answers WHERE key = ?", (key,)
            ).fetchone()
        if row is None:
            return None
        alternatives = tuple(Alternative(**one) for one in json.loads(row[3]))
        return RawAnswer(key, row[0], row[1], row[2], alternatives, row[4], row[5], cached=True)

    def put(self, answer: RawAnswer, model: str, purpose: str, payment: Payment, prompt_chars: int) -> None:
        """Keep an answer with what it cost. An answer that is there already stays, and its payment is not written
        again: collecting a batch twice must not count twice."""
        assert answer.text is not None
        alternatives = json.dumps([asdict(one) for one in answer.alternatives])
        values = (
            answer.key, model, answer.text, answer.stop, answer.first, alternatives,
            answer.input_tokens, answer.output_tokens, prompt_chars,
        )  # fmt: skip
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            cursor = self._db.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
            if cursor.rowcount:
                self._pay(model, purpose, payment)

    def pay(self, model: str, purpose: str, payment: Payment) -> None:
        """Enter a payment that bought no answer: a preflight, or a request that broke off."""
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._pay(model, purpose, payment)

    def _pay(self, model: str, purpose: str, payment: Payment) -> None:
        self._db.execute(
            "INSERT INTO payments (purpose, kind, key, model, input_tokens, output_tokens, dollars, estimated) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                purpose, payment.kind, payment.key, model, payment.input_tokens, payment.output_tokens,
                payment.dollars, int(payment.estimated),
            ),
        )  # fmt: skip

    def ledger(self, purpose: str) -> Ledger:
        """Everything that was paid for `purpose`, over all processes so far. All 0 where nothing was."""
        with self._lock:
            rows = self._db.execute(
                "SELECT kind, COUNT(*), SUM(input_tokens), SUM(output_tokens), SUM(dollars) FROM payments WHERE purpose = ? GROUP BY kind",
                (purpose,),
            ).fetchall()
        by = {row[0]: row[1:] for row in rows}
        paid, broken = by.get("paid", (0, 0, 0, 0.0)), by.get("uncertain", (0, 0, 0, 0.0))
        return Ledger(paid[0], paid[1], paid[2], paid[3], broken[0], broken[3])

    def rates(self, model: str) -> tuple[float, float, int]:
        """(input tokens a character of prompt, output tokens an answer, answers they come from) of a model so far."""
        with self._lock:
            n, chars, read, written = self._db.execute(
                "SELECT COUNT(*), SUM(prompt_chars), SUM(input_tokens), SUM(output_tokens) FROM answers WHERE model = ? AND input_tokens > 0 AND prompt_chars > 0",
                (model,),
            ).fetchone()
        return (read / chars, written / n, n) if n and chars else (0.0, 0.0, 0)

    # Batches: announced before they are sent, so that a kill in between is noticed and not paid for again.

    def announce(self, nonce: str, endpoint: str, keys: Sequence[str]) -> None:
        """Say that a batch is about to be sent."""
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("INSERT INTO batches VALUES (?, NULL, ?, ?, 1)", (nonce, endpoint, len(keys)))
            self._db.executemany("INSERT INTO batch_items VALUES (?, ?)", [(nonce, key) for key in keys])

    def sent(self, nonce: str, batch_id: str) -> None:
        """Keep the provider's id of an announced batch."""
        self._run("UPDATE batches SET id = ? WHERE nonce = ?", (batch_id, nonce))

    def close_batch(self, nonce: str) -> None:
        """The batch was collected, or never sent."""
        self._run("UPDATE batches SET open = 0 WHERE nonce = ?", (nonce,))

    def open_batches(self, endpoint: str) -> list[OpenBatch]:
        """Batches at this endpoint that were announced and not collected, in the order in which they were announced."""
        with self._lock:
            rows = self._db.execute(
                "SELECT nonce, id, requests FROM batches WHERE endpoint = ? AND open = 1 ORDER BY rowid", (endpoint,)
            ).fetchall()
            find = "SELECT key FROM batch_items WHERE nonce = ?"
            items = {row[0]: frozenset(key for (key,) in self._db.execute(find, (row[0],))) for row in rows}
        return [OpenBatch(nonce, batch_id, requests, items[nonce]) for nonce, batch_id, requests in rows]

    def _run(self, sql: str, values: Iterable[object]) -> None:
        with self._lock, self._db:
            self._db.execute(sql, tuple(values))
