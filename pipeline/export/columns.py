"""What the columns of an export mean: those that winnow makes, those of the source's list, and those of scorers."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import get_args

import pyarrow as pa

from pipeline.export.parquet import IMAGE
from pipeline.manifest.columns import scorers_of_columns
from pipeline.manifest.manifest import Manifest
from pipeline.schema import ORIGIN, PLACE, SOURCE_UID
from pipeline.scorers.kinds import AnySpec

_MEANING = {
    "uid": "names the pair: blake2b-128 of the URL and the caption",
    "url": "where the picture was, without passwords and tokens",
    "caption": "the caption, as the source's list has it",
    "sha256": "of the bytes of the picture as they were fetched",
    "width": "of the picture as it was fetched, in pixels",
    "height": "of the picture as it was fetched, in pixels",
    PLACE: "where the picture is, in the folder of the source's list",
    ORIGIN: "the source that the pair comes from",
    SOURCE_UID: "the uid in the source's own data",
}


@dataclass(frozen=True)
class Column:
    """A column of an export. `meaning` is a sentence without a full stop, `scorer` names the scorer that made it."""

    name: str
    type: str
    meaning: str
    scorer: str | None = None


def describe(manifest: Manifest, columns: pa.Schema, own: Mapping[str, str]) -> Iterator[Column]:
    """Each column. A score has its range in the manifest's pool. `own` explains the columns that the format adds."""
    scores = scorers_of_columns(manifest)
    ranges, known = manifest.card["ranges"], _MEANING | dict(own)
    for each in columns:
        kind = "image" if each.name == IMAGE and pa.types.is_struct(each.type) else str(each.type)
        if each.name in scores:
            scorer = scores[each.name]
            yield Column(each.name, kind, f"of the scorer {scorer}{_range(ranges.get(each.name))}", scorer)
        else:
            yield Column(each.name, kind, known.get(each.name, "from the source's list"))


def explanations(manifest: Manifest, columns: pa.Schema) -> dict[str, str]:
    """By scorer the explanation of its columns, as its kind has it. A scorer of a person's own has none."""
    kinds = {name: made_by.get("kind") for name, made_by in _made_by(manifest).items()}
    known = {
        kind: inspect.getdoc(spec.columns) or ""
        for spec in get_args(get_args(AnySpec)[0])
        for kind in get_args(spec.model_fields["kind"].annotation)
    }
    scores = scorers_of_columns(manifest)
    there = dict.fromkeys(scores[name] for name in columns.names if name in scores)
    return {scorer: known[kind] for scorer in there if (kind := kinds.get(scorer)) in known}


def _made_by(manifest: Manifest) -> dict[str, Mapping[str, object]]:
    prefix = "scores/"
    stages = manifest.card["made_by"]
    return {name.removeprefix(prefix): facts for name, facts in stages.items() if name.startswith(prefix)}


def _range(found: Mapping[str, float | None] | None) -> str:
    if not found or found["min"] is None:
        return ""
    return f"; in the pool {found['min']:.4g} to {found['max']:.4g}, mean {found['mean']:.4g}"
