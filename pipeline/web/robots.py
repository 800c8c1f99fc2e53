"""The opt-outs of sites: robots.txt and X-Robots-Tag."""

import re
from collections import defaultdict
from collections.abc import Collection
from email.message import Message
from urllib.parse import unquote

from pipeline.settings.download import OPT_OUTS

MAX_ROBOTS_BYTES = 500_000
"""Bytes of a robots.txt that are read: the minimum of RFC 9309."""


class Rules:
    """The rules of a robots.txt for one robot (RFC 9309): those of its own groups, else those for all robots.

    The longest matching pattern decides. `*` matches anything, `$` the end. The standard library's parser supports
    neither, and takes the first matching rule.
    """

    def __init__(self, text: str, robot: str) -> None:
        groups: defaultdict[str, list[tuple[str, bool]]] = defaultdict(list)
        robots: list[str] = []
        begun = False
        for line in text.splitlines():
            name, _, value = (part.strip() for part in line.partition("#")[0].partition(":"))
            if name.lower() == "user-agent":
                robots = [*([] if begun else robots), value.lower()]
                begun = False
                groups[value.lower()]  # a group without a rule allows everything
            elif name.lower() in ("allow", "disallow"):
                begun = True
                for each in robots:
                    groups[each].append((value, name.lower() == "allow"))
        own = groups[robot.lower()] if robot.lower() in groups else groups["*"]
        self._rules = [(value, allow) for value, allow in own if value]

    def allow(self, target: str) -> bool:
        """Whether path and query may be fetched."""
        plain = unquote(target)
        return max(((len(value), allow) for value, allow in self._rules if _matches(value, plain)), default=(0, True))[
            1
        ]


def _matches(pattern: str, target: str) -> bool:
    """Takes time in proportion to both lengths. Strangers write the patterns, and could slow a regular expression."""
    first, *others = (unquote(part) for part in pattern.removesuffix("$").split("*"))
    if not target.startswith(first):
        return False
    at = len(first)
    for part in others:
        found = target.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    if not pattern.endswith("$"):
        return True
    return len(target) == at or (bool(others) and target.endswith(others[-1]))


def robot_name(user_agent: str) -> str:
    """The product token that robots.txt names: the first word of the user agent, up to a slash."""
    return re.split(r"[/\s;]", user_agent, maxsplit=1)[0]


def opted_out(headers: Message, user_agent: str, honoured: Collection[str] = OPT_OUTS) -> bool:
    """Whether X-Robots-Tag has one of the honoured words, for all robots or for this one."""
    own = robot_name(user_agent).lower()
    for line in headers.get_all("X-Robots-Tag", []):
        whom = ""
        for part in line.lower().split(","):
            named, colon, directive = part.rpartition(":")
            whom = named.strip() if colon else whom
            if directive.strip() in honoured and whom in ("", own):
                return True
    return False
