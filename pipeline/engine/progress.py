"""How far long work is, as its caller is told."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Told what is being done ("features", "trials"), how much of it is done, and how much there is."""


def silent(step: str, done: int, total: int) -> None:
    """Tell nobody."""
