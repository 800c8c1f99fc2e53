"""croissant.json: MLCommons' Croissant 1.0, which mlcroissant and search engines for data sets read.

https://docs.mlcommons.org/croissant/docs/croissant-spec.html
"""

import json
import re
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from pipeline.export import columns, licences
from pipeline.export.content import Content
from pipeline.export.format import Format, Records, Written
from pipeline.export.made import published_on
from pipeline.pages.untrusted import plain

NAME = "croissant.json"

_FILES, _PAIRS = "files", "pairs"

_TERMS = (
    "citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet", "format",
    "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex",
    "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform",
)  # fmt: skip
"""Croissant's own terms."""

_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS},
}
"""The context of the specification's appendix, as it asks for."""


def metadata(content: Content, layout: Format, size: Written, rows: pa.Schema) -> str:
    """The metadata of an export of this size. `rows` are the columns of the pairs."""
    manifest, about = content.manifest, content.about
    samples = f"{size.samples:,} samples of " if size.samples != size.pairs else ""
    day = published_on(manifest)
    described: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": plain(content.title),
        "description": f"{samples}{size.pairs:,} pairs of a picture and a caption, which the recipe "
        f"{content.chosen.name} keeps of {manifest.counts.pool:,} downloaded pairs. README.md has every filter, its "
        "reason and its effect.",
        "keywords": ["image-text pairs", "winnow"],
        "version": f"1.0.0+{manifest.id[:12]}",
        **({"datePublished": day} if day else {}),
        **({"license": licences.address(about.license)} if about.license else {}),
        **({"url": about.homepage} if about.homepage else {}),
    }
    if records := layout.records:
        pattern = records.pattern.format(pieces=size.pieces)
        described["distribution"] = [
            {"@type": "cr:FileSet", "@id": _FILES, "encodingFormat": records.media_type, "includes": pattern}
        ]
        described["recordSet"] = [
            {
                "@type": "cr:RecordSet",
                "@id": _PAIRS,
                **({"key": {"@id": _id("uid")}} if size.samples == size.pairs else {}),
                "field": _fields(content, layout, rows, records),
            }
        ]
    return json.dumps(described, indent=1, ensure_ascii=False) + "\n"


def _fields(content: Content, layout: Format, rows: pa.Schema, records: Records) -> list[dict[str, Any]]:
    written = layout.columns(rows)
    meanings = {each.name: each.meaning for each in columns.describe(content.manifest, written, layout.meanings)}
    return [
        {
            "@type": "cr:Field",
            "@id": _id(each.name),
            "name": plain(each.name),
            "description": plain(meanings[each.name]),
            **kind,
            "source": {
                "fileSet": {"@id": _FILES},
                "extract": {"column": each.name},
                **({"transform": {"jsonPath": "bytes"}} if each.name == records.picture else {}),
            },
        }
        for each in written
        if (kind := _type(each, records))
    ]


def _id(name: str) -> str:
    return f"{_PAIRS}/{name if re.fullmatch(r'[A-Za-z0-9_.-]+', name) else quote(name, safe='')}"


def _type(column: pa.Field, records: Records) -> dict[str, Any] | None:
    """The type of a column as Croissant names it; None for one that mlcroissant cannot read, such as a struct."""
    if column.name == records.picture:
        return {"dataType": "sc:ImageObject"}
    types, kind = pa.types, column.type
    repeated = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    inner = kind.value_type if repeated else kind
    if types.is_nested(inner):
        return None
    named = {
        "sc:Boolean": types.is_boolean,
        "sc:Integer": types.is_integer,
        "sc:Float": lambda kind: types.is_floating(kind) or types.is_decimal(kind),
        "sc:Date": types.is_date,
        "sc:DateTime": types.is_timestamp,
    }
    name = next((name for name, fits in named.items() if fits(inner)), "sc:Text")
    return {"dataType": name, **({"repeated": True} if repeated else {})}
