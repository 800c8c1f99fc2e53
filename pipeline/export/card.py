"""README.md of an export: a dataset card. What it says comes from the manifest, none of it from a person's memory.

`datasets` and Hugging Face's hub read the lines between the dashes: which files are data, their types, the licence.
Without them `datasets` would take other files of the folder for data.
https://huggingface.co/docs/hub/datasets-cards
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from pipeline.export import columns, licences
from pipeline.export.content import Content
from pipeline.export.format import Format, Written
from pipeline.export.made import made
from pipeline.export.markdown import code, table, text
from pipeline.export.measured import measured
from pipeline.manifest.copies import histogram

NAME = "README.md"

_SIZES = (10**3, 10**4, 10**5, 10**6, 10**7, 10**8, 10**9)
"""The hub's classes of sizes end at these."""

_NO_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]")
"""Characters that YAML wants escaped and JSON does not."""


def card(content: Content, layout: Format, size: Written, rows: pa.Schema) -> str:
    """The card of an export of this size. `rows` are the columns of the pairs."""
    written = layout.columns(rows)
    sections = (
        _front(content, layout, size, written),
        _title(content, size),
        ["## Files", "", layout.files, "", *_load(layout, size.pieces)],
        ["## Counts", "", *_counts(content, size.pairs)],
        _copies(content, layout),
        ["## Recipe", "", *_recipe(content)],
        ["## What was measured", "", *measured(content)],
        ["## Columns", "", *_columns(content, layout, written)] if written.names else [],
        ["## How it was made", "", *made(content.manifest)],
        ["## Licence", "", *_licence(content)],
    )
    return "\n".join(line for section in sections if section for line in [*section, ""])


def _front(content: Content, layout: Format, size: Written, written: pa.Schema) -> list[str]:
    """The lines of YAML. JSON is YAML, too."""
    keys: dict[str, Any] = {
        "pretty_name": content.title,
        **licences.front_matter(content.about.license),
        "size_categories": [_size(size.samples)],
        "tags": ["image-text-pairs", "winnow"],
    }
    if layout.data:
        files = [{"split": "train", "path": layout.data.format(pieces=size.pieces)}]
        keys["configs"] = [{"config_name": "default", "data_files": files, **layout.settings}]
    if features := layout.features(written):
        keys["dataset_info"] = {"features": features}
    return ["---", *(f"{key}: {_yaml(value)}" for key, value in keys.items()), "---"]


def _yaml(value: object) -> str:
    return _NO_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))


def _size(pairs: int) -> str:
    """The hub's class of a size, such as "1K<n<10K"."""
    names = ("1K", "10K", "100K", "1M", "10M", "100M", "1B")
    for at, limit in enumerate(_SIZES):
        if pairs < limit:
            return f"{names[at - 1]}<n<{names[at]}" if at else "n<1K"
    return "n>1T" if pairs >= 10**12 else "1B<n<10B"


def _title(content: Content, size: Written) -> list[str]:
    counts = content.manifest.counts
    samples = f"{size.samples:,} samples of " if size.samples != size.pairs else ""
    lines = [
        f"# {text(content.title)}",
        "",
        f"{samples}{size.pairs:,} pairs of a picture and a caption. The recipe {code(content.chosen.name)} keeps "
        f"them of {counts.pool:,} downloaded pairs, from a list of {counts.input:,} rows.",
    ]
    page = content.about.homepage
    return [*lines, "", f"Source: <{page}>"] if page and licences.is_address(page) else lines


def _load(layout: Format, pieces: int) -> list[str]:
    """`{first}` is the number of the first piece of embeddings."""
    return ["```python", *layout.load.rstrip().replace("{first}", "0" * len(str(pieces))).split("\n"), "```"]


def _counts(content: Content, pairs: int) -> list[str]:
    manifest, kept = content.manifest, len(content.uids)
    counts = manifest.counts
    rows = [
        ("rows of the list", counts.input, ""),
        ("repeated", counts.repeated, "equal rows of the list, each counted once"),
        ("failed", counts.failed, "not downloaded, or no picture"),
        ("quarantined", counts.quarantined, "in a shard that failed as a whole"),
        ("dropped", counts.pool - kept, "by the recipe"),
        ("kept", kept, ""),
    ]
    if pairs < kept:
        rows.append(("written", pairs, "the others have no embedding of the picture or the caption"))
    lines = table(("pairs", "number>", "what"), [(name, f"{number:,}", what) for name, number, what in rows])
    if different := manifest.card.get("repeats"):  # older manifests did not count them
        pictures, captions = f"{different['pictures']:,}", f"{different['captions']:,}"
        lines += ["", f"The downloaded pairs have {pictures} different addresses of pictures and {captions} captions."]
    return lines


def _copies(content: Content, layout: Format) -> list[str]:
    """How many pairs are kept how often; nothing if each is kept once."""
    if not content.chosen.repeats:
        return []
    written = {
        "apart": "Each sample is written, those of one pair far from each other.",
        "together": "Each sample is written, those of one pair one after the other.",
        "once": "Each pair is written once, and the column `copies` says how often to take it.",
    }[layout.repeats]
    found = histogram(content.uids["copies"].to_numpy(), content.manifest.counts.pool)
    rows = [(each.label, f"{each.pairs:,}", f"{each.samples:,}") for each in found]
    told = f"The recipe keeps some pairs more than once. {written}"
    return ["## Copies", "", told, "", *table(("copies of a pair", "pairs>", "samples>"), rows)]


def _recipe(content: Content) -> list[str]:
    """Every filter, with its reason and its effect."""
    recipe, manifest = content.chosen, content.manifest
    if not recipe.reasons:
        return ["There is no filter: every downloaded pair is kept."]
    steps = manifest.funnel(recipe, content.progress)
    header = ("filter", "keeps a pair if", "why", "fails>", "no answer>", "left after it>", "drops alone>")
    rows = [
        (
            code(step.filter),
            code(step.sql),
            text(step.why),
            *(f"{number:,}" for number in (step.fails, step.unscored, step.sequence, step.costs)),
        )
        for step in steps
    ]
    return [
        f"The {len(steps)} steps of {code(recipe.name)}, in their order, on {manifest.counts.pool:,} downloaded pairs. "
        "A pair fails a filter whose condition is false for it. Without an answer it is dropped, too. The last column "
        "counts the pairs that only this filter drops.",
        "",
        *table(header, rows),
    ]


def _columns(content: Content, layout: Format, written: pa.Schema) -> Iterator[str]:
    described = list(columns.describe(content.manifest, written, layout.meanings))
    yield from table(
        ("column", "type", "meaning"), [(code(each.name), code(each.type), text(each.meaning)) for each in described]
    )
    for scorer, explained in columns.explanations(content.manifest, written).items():
        prefix = f"{scorer}_"
        own = [each.name.removeprefix(prefix) for each in described if each.scorer == scorer]
        yield from ["", f"Scorer {code(scorer)}, whose columns begin with {code(prefix)}:", ""]
        yield from (f"- {text(each)}" for each in _parts(explained, own))


def _parts(explained: str, names: Sequence[str]) -> list[str]:
    """An explanation in parts, each about one column, about several of them, or about all."""
    one = f"(?:{'|'.join(map(re.escape, names))})(?: \\([^)]*\\))?"
    paragraphs = (" ".join(each.replace("`", "").split()) for each in explained.split("\n\n"))
    return [part for each in paragraphs for part in re.split(rf"\s(?=(?<!,\s){one}(?:, {one})*: )", each)]


def _licence(content: Content) -> list[str]:
    given, rights = content.about.license, "Single pictures and captions may have other owners."
    if not given:
        return [f"None is given: the source file has no `license`. {rights}"]
    address = licences.address(given)
    name = text(licences.hub_name(given) or given)
    linked = licences.is_address(address) and not set(address) & set("<>")
    return [f"{f'[{name}](<{address}>)' if linked else name}, as the source file gives it. {rights}"]
