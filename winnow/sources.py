"""A source: where pairs come from, how they are scored and filtered, and where their results are."""

from dataclasses import dataclass
from os import PathLike
from typing import Self

from filters.core import Recipe
from pipeline.ledger import checking
from pipeline.manifest import database
from pipeline.manifest import recipes as known_recipes
from pipeline.manifest.log import commits
from pipeline.sources import source as described
from pipeline.store.places import place
from pipeline.store.storage import Storage


@dataclass(frozen=True)
class Source:
    """A source file that was read and checked, and the store of its results. Make one with `open`.

    `described` has the tables of the source file, `storage` the results.
    """

    described: described.Source
    storage: Storage

    @classmethod
    def open(cls, source: "str | PathLike[str] | Self", root: str | PathLike[str] = "data") -> Self:
        """The source of a file such as "pools/mine.toml", or of a name: "cc3m" is data_manifests/cc3m.toml.

        `root` is the folder of all results, or a bucket such as "s3://bucket/prefix". A source that is open already is
        returned as it is. Raises SourceError for a file that is missing or wrong, and RecipeError for a filter that
        does not fit the columns.
        """
        if isinstance(source, cls):
            return source
        found = checking.check(str(source))
        storage = Storage(place(str(root)) / found.name)
        database.follow(storage)
        return cls(found, storage)

    @property
    def name(self) -> str:
        """The name in commands, folders and SQL."""
        return self.described.name

    @property
    def manifests(self) -> list[str]:
        """The ids of its published manifests, oldest first; empty before the first `winnow.curate`."""
        return [each.id for each in commits(self.storage)]

    def recipe(self, name: str | None = None) -> Recipe:
        """The recipe of the source file, or a named one: of `winnow recipes`, or one that was published.

        Raises RecipeError for an unknown name.
        """
        return known_recipes.find(self.described, self.storage, name) if name else self.described.own_recipe

    def __repr__(self) -> str:
        return f"Source({self.name!r}, {str(self.storage.root)!r}, {len(self.manifests)} manifests)"
