"""The reference pairs of a learned mix: pairs of the pool, or pictures with captions outside of it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from pipeline.errors import ModelError, SourceError
from pipeline.images import picture_lists, picture_sets
from pipeline.mixing.pairs import OUTSIDE, Pairs
from pipeline.scorers.spec import WINDOW
from pipeline.settings.fields import ExistingPath, Table
from pipeline.settings.task import TestSet
from pipeline.store.digests import file_digest

if TYPE_CHECKING:
    from pipeline.models.clip import Clip

UID = "uid"


class Reference(Table):
    """Clean pairs. With `folder`, pictures and captions, such as a task's dev set; without it, pairs of the pool."""

    location: ExistingPath = Field(
        description="Parquet or CSV, a row a pair: uids of pairs of the source, or with folder pictures and captions"
    )
    folder: ExistingPath | None = Field(None, description="the folder of the pictures, which are not of the source")
    image: str = Field("image", description="with folder: the column with the picture's path inside the folder")
    caption: str = "caption"

    @property
    def listed(self) -> TestSet | None:
        """The list of pictures outside of the pool; None for pairs of the pool."""
        if self.folder is None:
            return None
        return TestSet(location=self.location, folder=self.folder, image=self.image, caption=self.caption)

    def identity(self) -> Mapping[str, Any]:
        """The digests of the list and of its pictures, and what is read of it."""
        found: dict[str, Any] = {"list": file_digest(self.location)}
        if listed := self.listed:
            pictures = picture_sets.digest(listed.folder, picture_lists.list_pictures(listed))
            found |= {"image": self.image, "caption": self.caption, "pictures": pictures}
        return found

    def read(self, columns: Sequence[str] = ()) -> pa.Table:
        """The uids, or pictures, captions and these columns. Raises SourceError for a missing column or an empty list.

        Rows without a picture, a caption or one of the columns are omitted.
        """
        wanted = [UID] if self.folder is None else [self.image, self.caption, *columns]
        table = picture_lists.read_list(self.location, wanted, text=wanted[0]).drop_null()
        if not len(table):
            raise SourceError(f"{self.location.name} names no reference pair: add some, with {' and '.join(wanted)}")
        return table


def outside(reference: Reference, columns: Sequence[str], of: Callable[[], Any]) -> Pairs:
    """The pairs of pictures outside of the pool, encoded by the loaded clip scorer that `of` returns.

    `columns` are read of the list, too. Raises ModelError for a broken picture, and for a column that is no number.
    """
    listed = reference.listed
    assert listed is not None
    table = reference.read(columns)
    names = pc.dictionary_encode(table[reference.image].cast(pa.string())).combine_chunks()
    clip: Clip = of()
    pictures = _encode(listed.folder, names.dictionary.to_pylist(), clip)
    captions = table[reference.caption].cast(pa.string()).to_pylist()
    texts = np.concatenate([
        clip.encode_captions(captions[at : at + WINDOW]) for at in range(0, len(captions), WINDOW)
    ])  # fmt: skip
    picture = names.indices.to_numpy().astype(np.int64)
    numbers = np.column_stack([_numbers(reference, table, name) for name in columns]) if columns else None
    return Pairs(numbers, np.stack([pictures[picture], texts], axis=1), picture, np.full(len(table), OUTSIDE))


def _encode(folder: Path, names: Sequence[str], clip: "Clip") -> npt.NDArray[np.float32]:
    parts = []
    for at in range(0, len(names), WINDOW):
        files = picture_sets.read_files(folder, map(Path, names[at : at + WINDOW]))
        parts.append(clip.encode_pictures([
            clip.prepare(picture_sets.decode(folder, name, content)) for name, content in files
        ]))  # fmt: skip
    return np.concatenate(parts)


def _numbers(reference: Reference, table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    try:
        found: npt.NDArray[np.float64] = table[name].cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        raise ModelError(f"{reference.location.name}: the column {name!r} must hold numbers") from None
    return found
