"""Finds the named recipes of `filters`."""

from filters import catalog
from filters.core import Recipe
from pipeline.errors import RecipeError, did_you_mean


def find_recipe(name: str) -> Recipe:
    """The recipe of filters/recipes.py with this name. Raises RecipeError with the most similar name."""
    known = catalog.recipes()
    if name not in known:
        raise RecipeError(f"no recipe is called {name!r}{did_you_mean(name, known)}")
    return known[name]
