"""What is wrong with weights that do not fit their tower, in one line that names keys."""

import re
from collections.abc import Iterable

_SHOWN = 3


def named_keys(missing: Iterable[str] = (), unexpected: Iterable[str] = (), misshapen: Iterable[str] = ()) -> str:
    """The first keys of each group, and how many there are; empty if all fit."""
    groups = {"missing": sorted(missing), "unknown": sorted(unexpected), "of another shape": sorted(misshapen)}
    return "; ".join(f"{what}: {_some(keys)}" for what, keys in groups.items() if keys)


def from_torch(error: Exception) -> str:
    """The message of `load_state_dict`, which has many lines, as `named_keys`; any other message's first line."""
    text = str(error).strip()
    missing, unexpected = (
        re.findall(r'"([^"]+)"', each[0]) if (each := re.findall(rf"{what} key\(s\) in state_dict: (.*)", text)) else []
        for what in ("Missing", "Unexpected")
    )
    misshapen = re.findall(r"size mismatch for (\S+):", text)
    return named_keys(missing, unexpected, misshapen) or (text or type(error).__name__).splitlines()[0]


def _some(keys: list[str]) -> str:
    rest = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + rest
