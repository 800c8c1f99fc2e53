"""CVAT: the labels in its exports, and pictures and captions for it.

Datumaro (https://docs.cvat.ai/docs/dataset_management/formats/format-datumaro) is a zip with `annotations/SUBSET.json`,
or such a JSON file. A label of a picture is a tag, which Datumaro writes as an annotation of type `label`
(`_SubsetWriter` in open-edge-platform/datumaro). CVAT for images 1.1 (https://docs.cvat.ai/docs/other/xml_format) is a
zip with `annotations.xml`, or such an XML file. Neither says who labelled, or when.
"""

import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from pipeline.errors import SourceError
from pipeline.review.annotation import Annotations, uid_in

CAPTION, TEXT = "caption", "text"
"""The tag, and its attribute, that show the labeller a picture's caption. CVAT has no other place for a text."""

XML = "annotations.xml"

_WAY_OUT = "export from CVAT as Datumaro or as CVAT for images"

LONGEST = 4000
"""Characters of a caption that are shown. CVAT stores values of at most 4,096."""

LABELS, ANNOTATIONS = "labels.json", "annotations.json"
"""The names of the files that a task is made of."""


def is_export(tree: Any) -> bool:
    """Whether a JSON file is Datumaro's."""
    return isinstance(tree, Mapping) and isinstance(tree.get("items"), list) and "categories" in tree


def read_zip(path: Path, labeller: str) -> Annotations:
    """The labels of an exported zip, all by `labeller`. Raises SourceError for any other zip."""
    found = Annotations()
    try:
        with zipfile.ZipFile(path) as archive:
            subsets = [
                name for name in archive.namelist() if name.startswith("annotations/") and name.endswith(".json")
            ]
            for name in sorted(subsets):
                found.take(read(json.loads(archive.read(name)), labeller))
            if not subsets and XML in archive.namelist():
                return read_xml(archive.read(XML), labeller)
    except (zipfile.BadZipFile, json.JSONDecodeError, UnicodeError, RecursionError, EOFError) as error:
        raise SourceError(f"it cannot be read: {error}") from None
    if not subsets:
        raise SourceError(f"it has neither annotations/*.json nor {XML}: {_WAY_OUT}")
    return found


def read_xml(content: bytes, labeller: str) -> Annotations:
    """The labels of a file of CVAT for images, all by `labeller`. Raises SourceError for any other file."""
    try:
        text = content.decode("utf-8-sig")
        if "<!DOCTYPE" in text:  # entities could grow without bound, and CVAT writes none
            raise SourceError(f"it has a document type: {_WAY_OUT}")
        root = ElementTree.fromstring(text)  # noqa: S314 without a document type there are no entities
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        raise SourceError(f"this is no XML: {error}") from None
    if root.tag != "annotations":
        raise SourceError(f"it has no annotations: {_WAY_OUT}")
    found = Annotations()
    for image in root.iter("image"):
        words = [tag.get("label", "") for tag in image.findall("tag")]
        found.add(uid_in(image.get("name", "")), [word for word in words if word and word != CAPTION], labeller)
    return found


def read(tree: Any, labeller: str) -> Annotations:
    """The labels of a subset, all by `labeller`. A picture without a tag is counted; other shapes are no labels.

    Raises SourceError for any other JSON.
    """
    if not is_export(tree):
        raise SourceError(f"its annotations are not those of Datumaro: {_WAY_OUT}")
    words = _names(tree)
    found = Annotations()
    for item in tree["items"]:
        if not isinstance(item, Mapping):
            continue
        given = [words.get(each.get("label_id")) for each in _annotations(item) if each.get("type") == "label"]
        labels = [word for word in given if word is not None and word != CAPTION]
        found.add(uid_in(str(item.get("id", ""))), labels, labeller)
    return found


def labels(words: Iterable[str]) -> str:
    """The label constructor of a task, as JSON for its tab Raw: a tag for each label, and the one with the caption.

    https://docs.cvat.ai/docs/manual/basics/create_an_annotation_task/ describes it.
    """
    text = {"name": TEXT, "input_type": "text", "mutable": False, "values": [""]}
    tags: list[dict[str, Any]] = [{"name": word, "type": "tag", "attributes": []} for word in words]
    return json.dumps([*tags, {"name": CAPTION, "type": "tag", "attributes": [text]}], ensure_ascii=False, indent=1)


def annotations(
    pairs: Iterable[Mapping[str, Any]], words: Sequence[str], given: Mapping[str, Sequence[tuple[str, str]]]
) -> str:
    """Annotations to upload as Datumaro, for pairs with uid, caption, the file name `picture`, its width and height.

    Each picture has its caption. `given` has (labeller, label) by uid; each label is a tag.
    """
    names = [*words, CAPTION]
    items = []
    for pair in pairs:
        tags = [_tag(number, names.index(word)) for number, (_, word) in enumerate(given.get(pair["uid"], ()), 1)]
        caption = _tag(0, names.index(CAPTION)) | {"attributes": {TEXT: pair["caption"][:LONGEST]}}
        image = {"path": pair["picture"], "size": [pair["height"], pair["width"]]}
        items.append({"id": Path(pair["picture"]).stem, "annotations": [caption, *tags], "image": image})
    categories = [{"name": name, "parent": "", "attributes": [TEXT] if name == CAPTION else []} for name in names]
    tree = {"info": {}, "categories": {"label": {"labels": categories, "attributes": []}}, "items": items}
    return json.dumps(tree, ensure_ascii=False, indent=1) + "\n"


def _names(tree: Mapping[str, Any]) -> dict[Any, str]:
    try:
        return {number: str(each["name"]) for number, each in enumerate(tree["categories"]["label"]["labels"])}
    except (KeyError, TypeError):
        raise SourceError(f"it names no labels: {_WAY_OUT}, from a task that has tags") from None


def _annotations(item: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    given = item.get("annotations")
    return [each for each in given if isinstance(each, Mapping)] if isinstance(given, list) else []


def _tag(number: int, label: int) -> dict[str, Any]:
    return {"id": number, "type": "label", "attributes": {}, "group": 0, "label_id": label}
