"""Finds recipes by name. Every recipe name that winnow prints can be used here."""

from collections.abc import Sequence

from filters import catalog
from filters.core import Recipe
from pipeline.errors import RecipeError, did_you_mean
from pipeline.manifest.log import commits
from pipeline.manifest.manifest import Manifest
from pipeline.sources.source import Source
from pipeline.store.storage import Storage


def find(source: Source, storage: Storage, name: str) -> Recipe:
    """The source file's own recipe, one of filters/recipes.py, or the newest published one with this name.

    Raises RecipeError.
    """
    known = {**catalog.recipes(), source.own_recipe.name: source.own_recipe}
    if name in known:
        return known[name]
    published = _published(storage)
    if name in published:
        return published[name].recipe
    raise RecipeError(f"no recipe is called {name!r}{did_you_mean(name, {*known, *published})}")


def find_all(source: Source, storage: Storage, names: Sequence[str] | None) -> list[Recipe]:
    """The named recipes; without names, the source file's own. Raises RecipeError."""
    return [find(source, storage, name) for name in names] if names else [source.own_recipe]


def _published(storage: Storage) -> dict[str, Manifest]:
    """The newest manifest by the name of its recipe."""
    manifests = (Manifest.open(storage, commit.id) for commit in commits(storage))
    return {manifest.document.inputs.recipe.name: manifest for manifest in manifests}
