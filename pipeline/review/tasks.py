"""A sample of pairs to label in Label Studio or CVAT: a folder of pictures, and the files that make a project of them.

The folder appears whole or not at all.
"""

import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from filters.core import Recipe
from pipeline.errors import RecipeError, StorageError, did_you_mean
from pipeline.filtering.sequence import in_sequence
from pipeline.filtering.thresholds import Comparison
from pipeline.manifest.manifest import Manifest
from pipeline.manifest.shown_pictures import ShownPictures
from pipeline.review import cvat, label_studio
from pipeline.review.labels import Labels
from pipeline.store import duck
from pipeline.store.disk import disk_errors

Form = Literal["label-studio", "cvat"]
"""The tools."""

PICTURES = "pictures"
"""The folder of the pictures, each named by the uid of its pair."""

LOCAL_FILES = "/data/local-files/?d="
"""Where Label Studio serves files of the machine that it runs on, below LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT.

https://labelstud.io/guide/storage#Local-storage
"""

Given: TypeAlias = Mapping[str, Sequence[tuple[str, str]]]
"""(labeller, label) by uid."""


@dataclass(frozen=True)
class Sample:
    """Which downloaded pairs to label: `count` of them, drawn by `seed`.

    `show` is "all", "kept" or "dropped" by `recipe` (None for the published one). `near` is the name of a filter of
    that recipe: the pairs nearest to its threshold come first, alternately from both sides. `labelled` is True for
    pairs that have a label, False for those that have none, None for both.
    """

    count: int
    seed: int = 0
    recipe: Recipe | None = None
    show: Literal["all", "kept", "dropped"] = "all"
    near: str | None = None
    labelled: bool | None = None


def draw(manifest: Manifest, sample: Sample) -> list[dict[str, Any]]:
    """The pairs of the sample: uid, url, caption, shard, member. Fewer than `count` if there are no more.

    Raises RecipeError for a recipe that does not fit, or a filter without a threshold.
    """
    recipe = sample.recipe or manifest.recipe
    kept = manifest.select(sample.recipe)
    labels = Labels(manifest.storage).table.select(["uid"])
    side, distance = _order(recipe, sample.near) if sample.near else ("1", "")
    with manifest.connection() as con:
        con.from_arrow(kept).create("chosen")
        con.from_arrow(labels).create("labelled")
        where = {
            "kept": "AND uid IN (SELECT uid FROM chosen)",
            "dropped": "AND uid NOT IN (SELECT uid FROM chosen)",
            "all": "",
        }[sample.show]
        if sample.labelled is not None:
            where += f" AND uid {'' if sample.labelled else 'NOT '}IN (FROM labelled)"
        drawn = f"md5({duck.literal(f'{sample.seed}:')} || uid)"
        ranked = f"row_number() OVER (PARTITION BY {side} ORDER BY {distance}{drawn})"
        found = con.sql(
            f"SELECT uid, url, coalesce(caption, '') AS caption, shard, member FROM rows "
            f"WHERE status = 'ok' AND ({side}) IS NOT NULL {where} ORDER BY {ranked}, {drawn} LIMIT {sample.count}"
        )
        pairs: list[dict[str, Any]] = found.to_arrow_table().to_pylist()
        return pairs


def _order(recipe: Recipe, name: str) -> tuple[str, str]:
    """SQL of the side of a filter's threshold, and of the distance to it, for ORDER BY."""
    filters = {each.name: each.sql for each in recipe.filters}
    if name not in filters:
        raise RecipeError(f"recipe {recipe.name!r} has no filter {name!r}{did_you_mean(name, filters)}")
    compared = Comparison.of(filters[name]) or Comparison.of_quantile(filters[name])
    if compared is None:
        raise RecipeError(f"filter {name!r} does not compare one column with one number: it has no threshold")
    whole = next(each.sql for each in in_sequence(recipe.filters) if each.name == name)
    column, threshold = f'"{compared.column}"::DOUBLE', whole.split(compared.operator, 1)[1]
    return f"{column} >= {threshold}", f"abs({column} - {threshold}), "


@dataclass(frozen=True)
class Project:
    """A project of a tool, with the labels `words` to choose from.

    `prefix` stands before the name of a picture in Label Studio's tasks; None for that of local files, with the name of
    the folder. `with_labels` shows the labels that the pairs have.
    """

    form: Form
    words: Sequence[str]
    prefix: str | None = None
    with_labels: bool = False

    def files(self, folder: str, rows: Sequence[Mapping[str, Any]], given: Given) -> Mapping[str, str]:
        """The content of the files by name, for pairs with their pictures; `folder` is the name of theirs."""
        words = list(dict.fromkeys([*self.words, *(word for each in given.values() for _, word in each)]))
        if self.form == "cvat":
            return {cvat.LABELS: cvat.labels(words), cvat.ANNOTATIONS: cvat.annotations(rows, words, given)}
        prefix = f"{LOCAL_FILES}{folder}/{PICTURES}/" if self.prefix is None else self.prefix
        return {
            label_studio.TASKS: label_studio.tasks(rows, prefix, given),
            label_studio.INTERFACE: label_studio.interface(words),
        }


def write(
    manifest: Manifest,
    pairs: Sequence[Mapping[str, Any]],
    project: Project,
    to: Path,
    pictures: ShownPictures | None = None,
) -> Path:
    """Write the pairs' pictures, and the files of the project. Gives the folder.

    `pictures` are those of the manifest, by default with unsafe ones veiled. Raises StorageError if the folder exists,
    if there is no pair, or a picture is missing.
    """
    to = to.expanduser().resolve()
    if not pairs:
        raise StorageError("there is nothing to label: no pair fits")
    if to.exists():
        raise StorageError(f"{to} already exists and is not overwritten: choose another folder, or remove it")
    part = to.with_name(f".{to.name}.part")
    with disk_errors(to.parent, "--to"):
        shutil.rmtree(part, ignore_errors=True)
        (part / PICTURES).mkdir(parents=True)
        shown = pictures or ShownPictures.safe(manifest)
        rows = [_picture(shown, pair, part) for pair in pairs]
        given = _given(manifest) if project.with_labels else {}
        for name, text in project.files(to.name, rows, given).items():
            (part / name).write_text(text, encoding="utf-8")
        part.rename(to)
    return to


def _picture(pictures: ShownPictures, pair: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Write the picture of a pair, and give the pair with the picture's file name, width and height."""
    from PIL import Image

    content = pictures.require(pair["shard"], pair["member"])
    name = f"{pair['uid']}.jpg"
    (folder / PICTURES / name).write_bytes(content)
    with Image.open(io.BytesIO(content), formats=("JPEG",)) as picture:
        return {**pair, "picture": name, "width": picture.width, "height": picture.height}


def _given(manifest: Manifest) -> Given:
    given: dict[str, list[tuple[str, str]]] = {}
    for row in Labels(manifest.storage).table.to_pylist():
        given.setdefault(row["uid"], []).append((row["labeller"], row["label"]))
    return given
