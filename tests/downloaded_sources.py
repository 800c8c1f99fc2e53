"""A source whose pictures are there already: what the tests of scoring start from."""

import hashlib
import io

import numpy as np
import published_sources
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.download import download
from pipeline.ledger import ingest
from pipeline.schema import MADE
from pipeline.scoring.plan import Plan
from pipeline.scoring.run import Scoring
from pipeline.sources.source import Source
from pipeline.store import tarfiles
from pipeline.store.storage import Storage


def picture(seed, size=(64, 48)):
    """Noise in a random colour: no two seeds look alike."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 200, 3)
    small = Image.fromarray((base + rng.integers(0, 55, (6, 8, 3))).astype(np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def jpeg(image):
    data = io.BytesIO()
    image.save(data, "JPEG", quality=95)
    return data.getvalue()


def downloaded(folder, rows, scorers, shard_size=1000):
    """The source, its storage and its shards. A row is (url, caption, picture or None where it failed, extras)."""
    folder.mkdir(exist_ok=True)
    extra = list(rows[0][3]) if len(rows[0]) > 3 else []
    columns = {"url": [row[0] for row in rows], "caption": [row[1] for row in rows]}
    columns |= {name: [row[3][name] for row in rows] for name in extra}
    pq.write_table(pa.table(columns), folder / "list.parquet")
    described = Source.model_validate(
        {
            "name": "tiny",
            "pairs": {"location": str(folder / "list.parquet"), "extra": extra},
            "download": {"shard_size": shard_size},
        }
    ).model_copy(update={"scorers": scorers})
    storage = Storage(folder / "store")
    ledger = ingest.update(described, storage)
    pictures = {row[0]: row[2] for row in rows}
    stage = download.stage(described)
    for shard in ledger.shards:
        store_pictures(storage, stage, shard, pictures)
    return described, storage, ledger.shards


def scores(described, storage, shard, name):
    """The columns that a scorer left for a shard, without its prefix, in the order of the ledger."""
    stage = Plan.of(described).scores[name]
    table = pq.read_table(storage.fetch(stage.item(shard.number, ".parquet")))
    return {column.removeprefix(f"{name}_"): table[column].to_pylist() for column in table.schema.names}


def embeddings(described, storage, shard, name):
    stage = Plan.of(described).embeddings[name]
    return np.load(storage.fetch(stage.item(shard.number, ".npy")))


def scored(folder, rows, scorers):
    """Score one shard of these rows; give what `scores` gives, by scorer."""
    described, storage, (shard,) = downloaded(folder, rows, scorers)
    Scoring(Plan.of(described), storage)(shard)
    return {name: scores(described, storage, shard, name) for name in scorers}


def store_pictures(storage, stage, shard, pictures):
    rows = pq.read_table(storage.fetch(shard.key))
    urls = rows["url"].to_pylist()
    there = [pictures[url] is not None for url in urls]
    members = {url: f"{image:05d}.jpg" for url, image in zip(urls, rows["url_number"].to_pylist(), strict=True)}
    content = {url: jpeg(pictures[url]) for url in members if pictures[url] is not None}

    def where(values, name):
        return pa.array([value if ok else None for value, ok in zip(values, there, strict=True)], MADE.field(name).type)

    columns = {
        "uid": rows["uid"],
        "status": pa.array(["ok" if ok else "failed" for ok in there]),
        "cause": pa.array([None if ok else "http_404" for ok in there], pa.string()),
        "error": pa.array([None if ok else "HTTP Error 404" for ok in there], pa.string()),
        "sha256": where([hashlib.sha256(content.get(url, b"")).hexdigest() for url in urls], "sha256"),
        "width": where([64] * len(urls), "width"),
        "height": where([48] * len(urls), "height"),
        "bytes": where([len(content.get(url, b"")) for url in urls], "bytes"),
        "member": where([members[url] for url in urls], "member"),
    }
    stored = [(members[url], data) for url, data in content.items()]
    published_sources.put(storage, stage.item(shard.number, ".tar"), lambda path: tarfiles.write(path, stored))
    published_sources.put_table(storage, stage.item(shard.number, ".parquet"), pa.table(columns))
