"""Every filter and recipe of this folder, by name. Each module-level constant is listed without registration."""

from collections.abc import Mapping

from filters import image, pair, pool, safety, text
from filters import recipes as _recipes
from filters.core import Filter, Recipe


def filters() -> Mapping[str, Filter]:
    """The filters that are constants, by name. Functions that take a threshold are not included."""
    values = [value for module in (image, text, pair, safety, pool) for value in vars(module).values()]
    return {value.name: value for value in values if isinstance(value, Filter)}


def recipes() -> Mapping[str, Recipe]:
    """The named recipes."""
    return {value.name: value for value in vars(_recipes).values() if isinstance(value, Recipe)}
