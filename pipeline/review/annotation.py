"""What exports of labelling tools have in common: labels of pairs, each by one labeller, and what could not be used.

A pair is known by its uid: the task's `uid`, or the uid in the name of the picture, or else the task's url and caption.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pipeline.uids import uid

NO_LABEL, SEVERAL, SKIPPED, NO_PAIR = (
    "without a label",
    "with several labels",
    "skipped by their labeller",
    "that name no pair",
)
"""Why an annotation was not used, as the end of a sentence."""

_UID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")


@dataclass(frozen=True)
class Annotation:
    """A label that `labeller` gave the pair `uid`; `time` is in UTC, None where the tool does not say it."""

    uid: str
    label: str
    labeller: str
    time: datetime | None = None


@dataclass
class Annotations:
    """The labels of one file, and how many of its annotations have no use, by reason."""

    found: list[Annotation] = field(default_factory=list)
    unused: Counter[str] = field(default_factory=Counter)

    def add(self, pair: str | None, words: list[str], labeller: str, time: datetime | None = None) -> None:
        """Take in what one labeller said of a pair, if that is one label, and count it otherwise."""
        if pair is None:
            self.unused[NO_PAIR] += 1
        elif len(set(words)) != 1:
            self.unused[SEVERAL if words else NO_LABEL] += 1
        else:
            self.found.append(Annotation(pair, words[0].strip(), labeller, time))

    def take(self, others: "Annotations") -> None:
        """Add those of another part of the file."""
        self.found += others.found
        self.unused += others.unused


def pair_of(data: Mapping[str, Any]) -> str | None:
    """The uid of a task's pair, from its fields uid, url and caption, image; None if they do not say it."""
    named = data.get("uid")
    if isinstance(named, str) and _UID.fullmatch(named):
        return named
    url, caption = data.get("url"), data.get("caption")
    if isinstance(url, str) and isinstance(caption, str):
        return uid(url, caption)
    image = data.get("image")
    return uid_in(image) if isinstance(image, str) else None


def uid_in(name: str) -> str | None:
    """The uid in the name of a picture, which tools put folders, and other characters, before; None without one."""
    found = _UID.findall(name.rpartition("/")[2])
    return found[-1] if found else None


def time_of(text: Any) -> datetime | None:
    """A time of a JSON file, in UTC; None if it is none."""
    try:
        time = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
