"""What an export holds: which pairs of which manifest, in which format, and what the source file says of the data."""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from filters.core import Recipe
from pipeline.manifest.document import last_steps_json
from pipeline.manifest.manifest import Manifest
from pipeline.progress import StepProgress, silent_step


@dataclass(frozen=True)
class About:
    """What only a person knows of a data set: the keys `title`, `license` and `homepage` of the source file."""

    title: str | None = None
    license: str | None = None
    homepage: str | None = None


@dataclass(frozen=True)
class Content:
    """The pairs of a manifest that a recipe keeps, or without a recipe the published ones, in a format of FORMATS.

    `scorer` is the one whose embeddings the format `embeddings` writes. No other format has one. `progress` is that of
    a selection.
    """

    manifest: Manifest
    form: str
    recipe: Recipe | None = None
    scorer: str | None = None
    about: About = About()
    progress: StepProgress = silent_step

    @property
    def chosen(self) -> Recipe:
        """The recipe that decides which pairs are exported."""
        return self.recipe or self.manifest.recipe

    @property
    def published(self) -> bool:
        """Whether the exported pairs are the published ones."""
        return self.manifest.is_published(self.chosen)

    @property
    def title(self) -> str:
        """The title of the source file, or else the name of the source."""
        return self.about.title or self.manifest.source

    @cached_property
    def uids(self) -> pa.Table:
        """The column `uid` of the exported pairs, in ledger order, and `copies` if the recipe keeps some repeatedly."""
        return self.manifest.select(self.recipe, self.progress)

    def record(self) -> dict[str, Any]:
        """Everything that decides what is written, as JSON."""
        recipe = self.chosen
        return {
            "format": self.form,
            "source": self.manifest.source,
            "manifest": self.manifest.id,
            "recipe": recipe.name,
            "filters": {each.name: each.sql for each in recipe.filters},
            "distinct": None,
            **last_steps_json(recipe),
            **({"scorer": self.scorer} if self.scorer else {}),
            **{key: value for key, value in asdict(self.about).items() if value},
        }
