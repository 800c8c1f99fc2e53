"""The schedule of a source: cron, as Prefect reads it."""

import functools
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

_COPY = "_prefect_croniter"


def check_schedule(text: str) -> str:
    """The schedule as it is written. Raises ValueError if Prefect does not plan runs by it.

    Prefect accepts a cron expression whose dates end or never come, such as 30 February. Its scheduler then fails, for
    the other deployments too.
    """
    croniter = _croniter()
    wrong = f"{text!r} "
    if not croniter.is_valid(text):
        raise ValueError(
            f"{wrong}is no cron: minute, hour, day of the month, month, day of the week, as in "
            '"0 6 * * *" (every day at 6 UTC) or "0 6 * * mon"'
        )
    if re.search(r"(?i)(?<![a-z@])[rh](?![a-z])", text):
        raise ValueError(f"{wrong}has dates at random (R or H), which Prefect does not plan: write a number")
    if text.split()[6:] not in ([], ["*"]):
        raise ValueError(
            f"{wrong}names years, and Prefect's scheduler fails after the last: leave the seventh field out"
        )
    try:
        croniter(text).get_next()
    except ValueError:  # CroniterBadDateError, too
        raise ValueError(f"{wrong}fits no day of any year: no run would ever be planned") from None
    return text


@functools.cache
def _croniter() -> Any:
    """Prefect's own copy of croniter, without importing Prefect, which takes a second."""
    prefect = importlib.util.find_spec("prefect")
    assert prefect is not None
    assert prefect.origin is not None
    folder = Path(prefect.origin).parent / "_vendor" / "croniter"
    spec = importlib.util.spec_from_file_location(
        _COPY, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[_COPY] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.croniter
