"""Replies that were paid for, on the disk of this machine, and what all of them cost. Any process may use them."""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import StorageError


@dataclass(frozen=True)
class Reply:
    """A model's text, and the tokens of prompt and text. `fault` is set if the model gave none: why."""

    text: str
    prompt_tokens: int = 0
    reply_tokens: int = 0
    fault: str | None = None


class Replies:
    """The replies to one question, in a file of SQLite. A key is a digest of what was asked about."""

    def __init__(self, path: Path) -> None:
        """Raises StorageError if the file cannot be written, as all methods do."""
        self.path, self._local = path, threading.local()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._open() as con:
                con.execute("PRAGMA journal_mode = WAL")
                con.execute(
                    "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, attempt INT, text TEXT, fault TEXT)"
                )
                con.execute("CREATE TABLE IF NOT EXISTS tokens (one INTEGER PRIMARY KEY, prompt INT, reply INT)")
        except OSError as error:
            raise self._unkept(error) from None

    def get(self, key: str) -> tuple[int, Reply] | None:
        """The reply, and the attempt that it was given in."""
        with self._open() as con:
            row = con.execute("SELECT attempt, text, fault FROM replies WHERE key = ?", (key,)).fetchone()
        return (row[0], Reply(row[1], fault=row[2])) if row else None

    def add(self, key: str, attempt: int, reply: Reply) -> None:
        """Keep a reply in place of an earlier one, and add its tokens to the sum."""
        with self._open() as con:
            con.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?)", (key, attempt, reply.text, reply.fault))
            con.execute(
                "INSERT INTO tokens VALUES (1, ?, ?) "
                "ON CONFLICT DO UPDATE SET prompt = prompt + excluded.prompt, reply = reply + excluded.reply",
                (reply.prompt_tokens, reply.reply_tokens),
            )

    def tokens(self) -> tuple[int, int]:
        """The tokens of all prompts and of all replies so far."""
        with self._open() as con:
            row = con.execute("SELECT prompt, reply FROM tokens").fetchone()
        return row or (0, 0)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection of this thread, in one transaction. Raises StorageError."""
        try:
            if getattr(self._local, "process", None) != os.getpid():
                self._local.con, self._local.process = sqlite3.connect(self.path, timeout=60), os.getpid()
            with self._local.con as con:
                yield con
        except sqlite3.Error as error:
            raise self._unkept(error) from None

    def _unkept(self, error: Exception) -> StorageError:
        return StorageError(f"replies cannot be kept in {self.path}: {error}; set XDG_CACHE_HOME to a folder")
