"""Files of labels, taken into the table of a source: exports of Label Studio and CVAT, and lists."""

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipeline.errors import SourceError, did_you_mean
from pipeline.manifest.manifest import Manifest
from pipeline.review import cvat, label_studio
from pipeline.review.annotation import Annotation, Annotations
from pipeline.review.labels import WORDS, Added, Labels
from pipeline.review.sample import read_rows
from pipeline.sources.source import Source
from pipeline.uids import uid


@dataclass(frozen=True)
class TakenIn:
    """What became of the annotations of some files.

    `unused` counts those that give no label, by reason; `absent` the labels of pairs that are not in the manifest;
    `hidden` those of pairs whose URL has a secret; `unknown` the labels that the source does not know, which are taken
    in all the same.
    """

    annotations: int
    unused: Counter[str]
    absent: int
    hidden: int
    unknown: Counter[str]
    added: Added


def choices(source: Source) -> Sequence[str]:
    """The labels to choose from: the good ones and those that the source's filters catch, or else those of explore."""
    caught = _caught(source)
    return list(dict.fromkeys([*source.calibration.good, *caught])) if caught else WORDS


def _caught(source: Source) -> list[str]:
    return [label for row in source.filters or () for label in row.catches]


def _known(source: Source) -> frozenset[str]:
    """The labels that mean something to the source."""
    return frozenset([*source.calibration.good, *_caught(source), *WORDS])


def take_in(source: Source, manifest: Manifest, files: Sequence[Path], labeller: str | None = None) -> TakenIn:
    """Take the labels of these files into the table of the manifest's source, for pairs that the manifest has.

    `labeller` is who labelled where a file does not say it; None for the file's name. Nothing is taken in if a file
    cannot be read, or if no label of a file can be used: raises SourceError.
    """
    rows, unused, absent, hidden, words = [], Counter[str](), 0, 0, Counter[str]()
    for path in files:
        read_in = read(path, path.name.partition(".")[0] if labeller is None else labeller)
        if not read_in.found:
            raise SourceError(f"{path.name}: it has no labels{_reasons(read_in.unused)}")
        pairs = _pairs(manifest, read_in.found)
        usable = [each for each in read_in.found if each.uid in pairs]
        if not usable:
            raise SourceError(f"{path.name}: none of its pairs is in {manifest.source}: is it of another project?")
        _check_words(path, usable, source)
        whole = [each for each in usable if uid(*pairs[each.uid]) == each.uid]
        rows += [_row(each, *pairs[each.uid]) for each in whole]
        words.update(each.label for each in whole)
        unused += read_in.unused
        absent += len(read_in.found) - len(usable)
        hidden += len(usable) - len(whole)
    unknown = Counter({word: count for word, count in words.items() if word not in _known(source)})
    added = Labels(manifest.storage).add(rows)
    return TakenIn(len(rows) + absent + hidden + unused.total(), unused, absent, hidden, unknown, added)


def read(path: Path, labeller: str) -> Annotations:
    """The labels of a file. Raises SourceError, with the file's name, for one that cannot be read."""
    if not path.is_file():
        raise SourceError(f"there is no file {path}")
    try:
        if path.suffix == ".zip":
            return cvat.read_zip(path, labeller)
        if path.suffix == ".xml":
            return cvat.read_xml(path.read_bytes(), labeller)
        if path.suffix == ".json":
            return _of_json(path, labeller)
        return _of_list(path, labeller)
    except SourceError as error:
        raise SourceError(f"{path.name}: {error}") from None


def _of_json(path: Path, labeller: str) -> Annotations:
    try:
        tree = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise SourceError(f"this is no JSON: {error}") from None
    if cvat.is_export(tree):
        return cvat.read(tree, labeller)
    if label_studio.is_export(tree):
        return label_studio.read(tree, labeller)
    raise SourceError("it is neither an export of Label Studio (JSON or JSON-MIN) nor one of CVAT (Datumaro)")


def _of_list(path: Path, labeller: str) -> Annotations:
    found = Annotations()
    for url, caption, label, who in read_rows(path):
        found.add(uid(url, caption), [label] if label else [], who or labeller)
    return found


def _pairs(manifest: Manifest, annotations: Collection[Annotation]) -> dict[str, tuple[str, str]]:
    """url and caption by uid, of the annotated pairs that the manifest has."""
    with manifest.connection() as con:
        con.from_arrow(pa.table({"uid": [each.uid for each in annotations]})).create("sought")
        found = con.execute("SELECT uid, url, caption FROM rows SEMI JOIN sought USING (uid)").fetchall()
    return {uid: (url, caption) for uid, url, caption in found}


def _check_words(path: Path, annotations: Sequence[Annotation], source: Source) -> None:
    """Raises SourceError if no label is one that the source knows."""
    words = sorted({each.label for each in annotations})
    if not {*words} & _known(source):
        found = ", ".join(map(repr, words[:10]))
        raise SourceError(
            f"{path.name}: {source.name} knows none of its labels ({found}){did_you_mean(words[0], _known(source))}; "
            "a filter names the labels that it catches"
        )


def _row(each: Annotation, url: str, caption: str) -> dict[str, object]:
    return {
        "uid": each.uid,
        "url": url,
        "caption": caption,
        "label": each.label,
        "labeller": each.labeller,
        "time": each.time,
    }


def _reasons(unused: Counter[str]) -> str:
    return "".join(f"; annotations {reason}: {count:,}" for reason, count in unused.items())
