"""robots.txt and X-Robots-Tag: what a site asks for."""

import re
from collections import defaultdict
from collections.abc import Collection
from email.message import Message
from urllib.parse import unquote

from pipeline.settings.download import OPT_OUTS

MOST_RULES = 500_000
"""Bytes of a robots.txt that are read: RFC 9309's least."""


class Rules:
    """The rules of a robots.txt for one robot, by RFC 9309: those of its own groups, or else those for all robots.

    The longest pattern that fits decides; `*` stands for anything and `$` for the end. The standard library's parser
    knows neither, and takes the first rule that fits.
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
        return max(((len(value), allow) for value, allow in self._rules if _fits(value, plain)), default=(0, True))[1]


def _fits(pattern: str, target: str) -> bool:
    """Takes time in proportion to both: a stranger writes the patterns, and regular expressions can be made slow."""
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


def robot(user_agent: str) -> str:
    """The name by which sites address this robot: the first word of its user agent, up to a slash."""
    return re.split(r"[/\s;]", user_agent, maxsplit=1)[0]


def opted_out(headers: Message, user_agent: str, honoured: Collection[str] = OPT_OUTS) -> bool:
    """Whether X-Robots-Tag forbids use, in words that are honoured, to all robots or to this one."""
    own = robot(user_agent).lower()
    for line in headers.get_all("X-Robots-Tag", []):
        whom = ""
        for part in line.lower().split(","):
            named, colon, directive = part.rpartition(":")
            whom = named.strip() if colon else whom
            if directive.strip() in honoured and whom in ("", own):
                return True
    return False
