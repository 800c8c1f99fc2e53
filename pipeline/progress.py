"""Progress callbacks of long work."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with the name of the step ("features", "trials"), how much of it is done, and how much there is."""

StepProgress = Callable[[int, int], None]
"""The same within one step: how much is done, and how much there is."""


def silent(step: str, done: int, total: int) -> None:
    """Show nothing."""


def silent_step(done: int, total: int) -> None:
    """The same of a `StepProgress`."""
