"""Every error that winnow raises on purpose. A message is one line: what is wrong, where, and what to do.

A bad row is not an exception but a row with a status and a cause. A bad shard is a `ShardError`: it is tried again,
then quarantined, and the run continues. All other errors stop the run.
"""

import difflib
from collections.abc import Iterable


class WinnowError(Exception):
    """An error that a person can fix. The command line prints the message alone and exits with 1."""


class SourceError(WinnowError, ValueError):
    """A source file, or the list of pairs that it names, is wrong."""


class MissingColumnError(SourceError):
    """A list of pairs lacks a column."""


class RecipeError(WinnowError, ValueError):
    """A filter or a recipe is wrong: a bad name, SQL that does not bind, a verdict that is no boolean."""


class QueryError(WinnowError, ValueError):
    """SQL typed by a person was refused, or failed."""


class ModelError(WinnowError):
    """A model or its weights are missing, or do not fit their use."""


class MissingExtraError(ModelError):
    """An extra of the package is needed and not installed. `command` installs it."""

    def __init__(self, message: str, command: str) -> None:
        super().__init__(message)
        self.command = command


class StorageError(WinnowError):
    """Results could not be read or written: a full disk, a missing object."""


class BusyError(WinnowError):
    """Another run is writing to the same source."""


class ClusterError(WinnowError):
    """A Ray cluster cannot be reached, or one of its nodes cannot do the work."""


class HubError(WinnowError):
    """Hugging Face's hub cannot be reached, or refuses an upload."""


class CompareError(WinnowError, ValueError):
    """Two trials differ in more than the measured factor, or one cannot be run fairly."""


class TrainingError(WinnowError):
    """A training diverged: its loss, its scores or its predictions are not finite."""


class ShardError(WinnowError):
    """One shard failed in one stage."""

    def __init__(self, stage: str, shard: int, reason: str) -> None:
        super().__init__(stage, shard, reason)
        self.stage, self.shard, self.reason = stage, shard, reason

    def __str__(self) -> str:
        return f"{self.stage}, shard {self.shard:05d}: {self.reason}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, or all of them."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known)) or 'none'}"
