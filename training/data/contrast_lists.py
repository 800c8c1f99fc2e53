"""Lists of pictures with right and wrong captions, in the forms of What'sUp, SugarCrepe, ARO, and of one's own.

Each form is recognised by its fields. Pictures are files of a folder.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import SourceError
from pipeline.store.digests import digest, file_digest
from training.data import decoding
from training.data.contrasts import Contrast, Contrasts, Pixels

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Form:
    """How a row is read: its fields, which must all be there, and what differs from the list's own protocol."""

    fields: frozenset[str]
    picture: str
    captions: Callable[[Row], tuple[str, Sequence[str]]]
    kind: Callable[[Row, str], str]
    protocol: str = ""


def _of_file(row: Row, stem: str) -> str:
    return str(row.get("kind") or stem)


FORMS: Mapping[str, Form] = {
    "What'sUp": Form(
        frozenset({"image_path", "caption_options"}),
        "image_path",
        lambda row: (row["caption_options"][0], row["caption_options"][1:]),
        _of_file,
        "What'sUp (Kamath et al. 2023): the first of the options is right. Its accuracies of pairs and of sets, over "
        "pictures of the same things, are not computed: the list does not say which belong together.",
    ),
    "SugarCrepe": Form(
        frozenset({"filename", "caption", "negative_caption"}),
        "filename",
        lambda row: (row["caption"], [row["negative_caption"]]),
        _of_file,
        "SugarCrepe (Hsieh et al. 2023): accuracy by file, as there.",
    ),
    "ARO": Form(
        frozenset({"image_path", "true_caption", "false_caption"}),
        "image_path",
        lambda row: (row["true_caption"], [row["false_caption"]]),
        lambda row, stem: str(row.get("relation_name") or "_".join(row.get("attributes") or ()) or stem),
        "ARO (Yuksekgonul et al. 2023): pictures are cropped to bbox_x, bbox_y, bbox_w, bbox_h. The figure of ARO is "
        "the mean over relations, which are the kinds here.",
    ),
    "own": Form(
        frozenset({"image", "right", "wrong"}),
        "image",
        lambda row: (row["right"], [row["wrong"]] if isinstance(row["wrong"], str) else list(row["wrong"])),
        _of_file,
    ),
}
"""By name. A list of one's own has image, right, wrong (a text or several), and perhaps kind."""

_BOX = ("bbox_x", "bbox_y", "bbox_w", "bbox_h")


def read(path: Path, folder: Path) -> Contrasts:
    """The contrasts of a JSON or Parquet file, with pictures of a folder. Each is a group of its own.

    Raises SourceError for another file or form, a row without captions, or a missing picture.
    """
    rows = _rows(path)
    name, form = _form(path, rows)
    numbers: dict[tuple[Any, ...], int] = {}
    items = []
    for at, row in enumerate(rows):
        right, wrong = _captions(path, at, row, form)
        place = (str(row[form.picture]), *(row.get(each) for each in _BOX if name == "ARO"))
        number = numbers.setdefault(place, len(numbers))
        items.append(Contrast(form.kind(row, path.stem), number, right, wrong, at, number))
    for file, *_ in numbers:
        if not (folder / file).is_file():
            raise SourceError(f"{path.name}: there is no picture {file!r} in {folder}: name the folder with --pictures")
    places = list(numbers)
    identity = digest([file_digest(path), [file_digest(folder / file) for file, *_ in places]])
    return Contrasts(items, partial(_pictures, folder, places), len(places), identity, frozenset(), form.protocol)


def _rows(path: Path) -> list[Row]:
    try:
        if path.suffix == ".parquet":
            found: Any = pq.read_table(path).to_pylist()
        else:
            found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise SourceError(f"{path} is neither JSON nor Parquet: {error}") from None
    found = list(found.values()) if isinstance(found, dict) else found
    if not isinstance(found, list) or not found or not all(isinstance(each, dict) for each in found):
        raise SourceError(f"{path} holds no rows: a JSON list or object of objects, or Parquet")
    return found


def _form(path: Path, rows: Sequence[Row]) -> tuple[str, Form]:
    for name, form in FORMS.items():
        if form.fields <= set(rows[0]):
            return name, form
    wanted = "; ".join(f"{name}: {', '.join(sorted(form.fields))}" for name, form in FORMS.items())
    raise SourceError(f"{path.name} has the fields {', '.join(map(str, rows[0]))}, and the forms have {wanted}")


def _captions(path: Path, at: int, row: Row, form: Form) -> tuple[str, tuple[str, ...]]:
    """The right caption and the wrong ones. Raises SourceError if one is missing."""
    try:
        right, wrong = form.captions(row)
    except (KeyError, IndexError, TypeError):
        right, wrong = "", ()
    texts = [right, *wrong]
    if len(texts) < 2 or not all(isinstance(each, str) and each.strip() for each in texts):
        raise SourceError(f"{path.name}, row {at + 1}: a right and a wrong caption are needed")
    return right, tuple(wrong)


def _pictures(folder: Path, places: Sequence[tuple[Any, ...]]) -> Iterator[Pixels]:
    for file, *box in places:
        try:
            pixels = decoding.decode_version((folder / file).read_bytes(), "", 0)
        except Exception as error:  # Pillow raises nearly anything on a broken file
            raise SourceError(f"{folder / file} cannot be decoded: {error!r}") from error
        if box and all(isinstance(each, int | float) for each in box):
            left, top, width, height = map(int, box)
            cut = pixels[max(top, 0) : top + height, max(left, 0) : left + width]
            pixels = cut if cut.size else pixels
        yield pixels
