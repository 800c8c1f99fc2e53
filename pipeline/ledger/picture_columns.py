"""Which columns of a table of local pictures mean what: the picture, its caption, its URL."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.errors import SourceError
from pipeline.files import tables
from pipeline.ledger.list_rows import check_names
from pipeline.settings.pairs import Pairs
from pipeline.settings.pictures import template_fields

FILE_NAMES = ("file_name", "filename", "image", "image_path", "file", "filepath", "path")
"""What a column of file names is usually called. The first that a table has is taken."""

CAPTIONS = ("caption", "captions", "text")
"""What captions are usually called, in a column or in a .json beside a picture. The first that is there is taken."""


@dataclass(frozen=True)
class PictureColumns:
    """`image` has pictures or names of files. `caption` is None where `template` makes captions of its `fields`."""

    image: str
    caption: str | None
    url: str | None
    extra: tuple[str, ...]
    fields: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """All columns but that of pictures, each once."""
        names = (self.caption, self.url, *self.extra, *self.fields)
        return tuple(dict.fromkeys(name for name in names if name is not None))


def choose(names: Sequence[str], pairs: Pairs, image: str) -> PictureColumns:
    """The columns of a table that has these names. Raises SourceError for one that it lacks, with the nearest name."""
    fields = template_fields(pairs.template) if pairs.template else ()
    caption = None if pairs.template else caption_name(names, pairs)
    url = pairs.url if pairs.url in names or (pairs.url and "url" in pairs.model_fields_set) else None
    asked = {"url": url or image, "caption": caption or image, "extra": (*pairs.extra, *fields)}
    check_names(names, pairs.model_copy(update=asked))
    return PictureColumns(image, caption, url, pairs.extra, fields)


def caption_name(names: Iterable[str], pairs: Pairs) -> str:
    """The name of the captions: as [pairs] says, or else the first usual one that is there."""
    if "caption" in pairs.model_fields_set:
        return pairs.caption
    known = set(names)
    return next((name for name in CAPTIONS if name in known), pairs.caption)


def file_name_column(names: Sequence[str], pairs: Pairs, table: str) -> str:
    """The column of file names. Raises SourceError without one."""
    if pairs.image is not None:
        if pairs.image not in names:
            raise SourceError(f"{table} has no column {pairs.image!r} of file names; it has {', '.join(names[:20])}")
        return pairs.image
    found = next((name for name in FILE_NAMES if name in names), None)
    if found is None:
        raise SourceError(
            f'{table} has no column of file names, such as {FILE_NAMES[0]}: set image = "COLUMN" in [pairs]; it has '
            f"{', '.join(names[:20])}"
        )
    return found


def from_template(template: str, values: dict[str, str | None]) -> str:
    """A caption made of these values, with spaces for underscores; empty if one is missing."""
    if not all(values.values()):
        return ""
    return template.format(**{name: str(value).replace("_", " ") for name, value in values.items()})


def column_types(schema: pa.Schema, names: Iterable[str]) -> pa.Schema:
    """The types of columns as `rows` has them: classes are text."""
    classes = class_names(schema)
    return pa.schema([pa.field(name, pa.string()) if name in classes else schema.field(name) for name in names])


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """By column the names of its classes, where Hugging Face's `datasets` stores numbers in place of them."""
    return {
        name: list(feature["names"])
        for name, feature in tables.features(schema).items()
        if feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list) and name in schema.names
    }


def with_class_names(column: pa.Array, names: Sequence[str]) -> pa.Array:
    """Names in place of numbers; NULL for a number without a name, which `datasets` writes as -1."""
    known = (
        names[number] if number is not None and 0 <= number < len(names) else None for number in column.to_pylist()
    )
    return pa.array(known, pa.string())
