"""A sample of a manifest's pairs with their pictures, to look at and to try scorers and filters on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from filters.core import Recipe
from pipeline.errors import RecipeError
from pipeline.filtering import funnel, predicates
from pipeline.filtering.distinct import Losers
from pipeline.images import decoders
from pipeline.manifest.manifest import Manifest
from pipeline.manifest.shown_pictures import ShownPictures
from pipeline.pages.untrusted import Thumbnails
from pipeline.process.scratch import temporary_folder
from pipeline.store import duck
from pipeline.store.tarfiles import Tars
from winnow import display
from winnow.funnels import Funnel
from winnow.tables import Form, as_form

SHOWN = 60
"""Pictures of a grid in a notebook, at most."""


@dataclass(frozen=True)
class Sample:
    """Some downloaded pairs of a manifest. `rows` has every column of `rows`. In a notebook it shows its pictures.

    Unsafe ones are veiled there, unless `show_unsafe`. `pictures` has all as they are stored.
    """

    manifest: Manifest
    rows: pa.Table
    show_unsafe: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def pictures(self) -> Sequence[Image.Image]:
        """The stored pictures, RGB, in the order of `rows`. Raises StorageError for a missing or damaged tar."""
        decode = decoders.decoder("pillow")
        tars = Tars(self.manifest.storage, self.manifest.stages.shards)
        places = zip(self.rows["shard"].to_pylist(), self.rows["member"].to_pylist(), strict=True)
        return [decode(tars.require(shard, member)) for shard, member in places]

    def table(self, form: Form = "arrow") -> Any:
        """The rows, in that form."""
        return as_form(self.rows, form)

    def with_columns(self, columns: Mapping[str, Any]) -> "Sample":
        """The sample with more columns, or others of the same names, aligned with its rows."""
        rows = self.rows
        for name, values in columns.items():
            at = rows.schema.get_field_index(name)
            rows = rows.append_column(name, values) if at < 0 else rows.set_column(at, name, values)
        return replace(self, rows=rows)

    def funnel(self, recipe: Recipe) -> Funnel:
        """The effect of a recipe on these pairs, with the columns that a scorer added. Raises RecipeError.

        A quantile in a filter is that of the sample. `distinct` and a selection need the whole pool.
        """
        if not isinstance(recipe, Recipe):
            raise RecipeError("a sample takes a Recipe; Manifest.funnel takes the name of one, too")
        if recipe.endings:
            last = recipe.endings[0]
            raise RecipeError(f"recipe {recipe.name!r} ends in {last}, which needs all pairs: take Manifest.funnel")
        predicates.bind(recipe.filters, self.rows.schema)
        with temporary_folder() as folder, duck.connect(Path(folder)) as con:
            path = Path(folder, "sample.parquet")
            pq.write_table(self.rows, path)
            predicates.view_parts(con, [path])
            with predicates.attribute_errors(con, [path], recipe.filters):
                found = funnel.compare(con, [path], [len(self)], [recipe], _WithoutSteps())
        return Funnel(found.pool, found.funnels[0])

    def _repr_html_(self) -> str:
        thumbnails = Thumbnails(ShownPictures.of(self.manifest, self.show_unsafe))
        first = self.rows.slice(0, SHOWN).select(["shard", "member", "caption"]).to_pylist()
        cells = [(thumbnails.data_uri(each["shard"], each["member"]), each["caption"]) for each in first]
        more = f", the first {SHOWN} of them" if len(self) > SHOWN else ""
        return display.grid(f"{len(self):,} pairs of {self.manifest.source}{more}", cells)

    def __repr__(self) -> str:
        return f"Sample({len(self):,} pairs of {self.manifest.source!r})"


class _WithoutSteps:
    """No step after the filters."""

    def losers(self, recipe: Recipe) -> Mapping[str, Losers]:
        return {}

    def size(self, recipe: Recipe) -> tuple[int, int]:
        return 0, 0
