"""What a model cannot see: whether it prefers right captions, of drawn relations or of a list, by kind."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from pipeline.errors import WinnowError
from pipeline.pages.predictions import Group, Prediction
from pipeline.progress import Progress, silent
from pipeline.scorers.clip import ClipSpec
from pipeline.sources.source import Source
from pipeline.store.digests import canonical_json
from pipeline.store.stage import Stage
from pipeline.store.storage import Storage
from training.data import relations
from training.data.contrasts import Contrasts, Pixels
from training.measures import contrast
from training.measures.metrics import Units
from training.studies import pair_encoders
from training.studies.pair_encoders import PairEncoder

VERSION = 1

_PICTURES = 32

EACH = 6
"""Groups of a kind that are shown on a page."""


def measure(
    storage: Storage, encoder: PairEncoder, contrasts: Contrasts, progress: Progress = silent
) -> dict[str, Any]:
    """The figures of every kind, as JSON, with the right contrasts by number; computed once for a model's weights."""
    key = key_of(encoder, contrasts)
    if not storage.done(key):
        pictures, texts = _embed(encoder, contrasts, progress)
        right = contrast.hits(contrasts.items, pictures, texts)
        alone = contrast.blind(contrasts.items, pictures, texts)
        kinds = contrast.kinds(contrasts.items, right, alone, contrasts.spatial)
        made = {
            "model": encoder.name,
            "pictures": contrasts.count,
            "protocol": contrasts.protocol,
            "kinds": [each.to_json() for each in kinds],
            "right": np.flatnonzero(right).tolist(),
        }
        storage.put_if_absent(key, canonical_json(made))
    found: dict[str, Any] = json.loads(storage.fetch(key).read_bytes())
    return found | {"model": encoder.name}


def key_of(encoder: PairEncoder, contrasts: Contrasts) -> str:
    """The storage key of the figures. Raises ModelError for weights that are missing."""
    made_by = {"version": VERSION, "contrasts": contrasts.digest, **encoder.identity}
    return f"{Stage('composition', made_by).folder}.json"


def sentence(found: Mapping[str, Any]) -> str:
    """What a reader must know, in one sentence: the kinds in whose groups the model is no better than a guess."""
    unseen = [each["name"] for each in found["kinds"] if each["group"]["low"] <= each["group_chance"]]
    seen = [each["name"] for each in found["kinds"] if each["name"] not in unseen]
    if not unseen:
        return f"{found['model']} tells apart all of these: {', '.join(seen)}."
    told = f" It tells apart: {', '.join(seen)}." if seen else ""
    return f"{found['model']} was not shown to tell apart: {', '.join(unseen)}.{told}"


def page(found: Mapping[str, Any], contrasts: Contrasts) -> list[Group]:
    """Some groups of every kind, with their pictures, captions, and whether the model prefers the right one."""
    right, pixels = set(found["right"]), list(contrasts.pictures())
    return [Group(kind["name"], list(_shown(kind["name"], contrasts, pixels, right))) for kind in found["kinds"]]


def part(source: Source, storage: Storage, progress: Progress = silent) -> dict[str, Any] | None:
    """The part of a report about the first scorer of kind clip, with a pair of pictures of each relation.

    None without such a scorer; only `unmeasured`, the reason, where its model cannot be loaded here.
    """
    if not any(isinstance(spec, ClipSpec) for spec in source.scorers.values()):
        return None
    try:
        encoder = pair_encoders.find(source, storage, None)
        found = measure(storage, encoder, relations.drawn(), progress)
    except WinnowError as error:
        return {"unmeasured": str(error)}
    right, few = set(found["right"]), relations.drawn(1)
    pixels, examples = list(few.pictures()), []
    for number, kind in enumerate(kind for kind in found["kinds"] if kind["spatial"]):
        own = [each for each in few.items if each.kind == kind["name"]][:2]
        hits = [number * relations.DRAWS * 2 * len(own) + at in right for at in range(len(own))]
        examples.append([(pixels[each.picture], each.right, hit) for each, hit in zip(own, hits, strict=True)])
    return {"sentence": sentence(found), **found, "examples": examples}


def _shown(kind: str, contrasts: Contrasts, pixels: list[Pixels], right: set[int]) -> Iterator[Prediction]:
    own = [(at, each) for at, each in enumerate(contrasts.items) if each.kind == kind]
    groups = list(dict.fromkeys(each.group for _, each in own))
    wanted = set(groups[:: max(1, len(groups) // EACH)][:EACH])
    for at, each in own:
        if each.group in wanted:
            says = "prefers the right one" if at in right else "does not prefer the right one"
            lines = [("wrong", wrong, None) for wrong in each.wrong]
            yield Prediction(pixels[each.picture], each.right, [*lines, ("model", says, at in right)])


def _embed(
    encoder: PairEncoder, contrasts: Contrasts, progress: Progress
) -> tuple[Units, dict[str, np.ndarray[Any, np.dtype[np.float32]]]]:
    parts, window, done = list[Units](), list[Any](), 0
    for done, pixels in enumerate(contrasts.pictures(), start=1):
        window.append(encoder.prepare(Image.fromarray(pixels)))
        if len(window) == _PICTURES:
            parts.append(encoder.encode_pictures(window))
            window = []
            progress("pictures", done, contrasts.count)
    if window:
        parts.append(encoder.encode_pictures(window))
    progress("pictures", done, contrasts.count)
    texts = list(dict.fromkeys(text for each in contrasts.items for text in (each.right, *each.wrong)))
    return np.concatenate(parts), dict(zip(texts, encoder.encode_captions(texts), strict=True))
