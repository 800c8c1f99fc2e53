"""Tiny sources with results, made without a network or a model: what the tests of publishing and reading start from.

Picture number 37 is http://host/37.jpg, has a sharpness of 37 and is 370 x 300; its caption is "picture number 37".
"""

import io
import json
import re
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.download import download
from pipeline.ledger import ingest
from pipeline.manifest import publish
from pipeline.schema import MADE, score_column
from pipeline.scoring import pool
from pipeline.scoring.plan import Plan
from pipeline.sources import loading
from pipeline.store import tarfiles

SHARP = {"name": "sharp", "sql": "pixels_sharpness >= 50"}
WORDED = {"name": "worded", "sql": "captions_words > 2"}


def listed(
    folder, numbers, filters=(SHARP,), shard_size=10, name="tiny", caption="picture number {}", rows=(), more=""
):
    """A source whose list holds these picture numbers, and any other (caption, url) rows; `more` begins its TOML."""
    folder.mkdir(exist_ok=True)
    lines = [f"{caption.format(number)}\thttp://host/{number}.jpg\n" for number in numbers]
    (folder / f"{name}.tsv").write_text("".join([*lines, *("\t".join(row) + "\n" for row in rows)]))
    chosen = "".join("[[filters]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in each.items()) for each in filters)
    (folder / f"{name}.toml").write_text(
        f"{'' if filters else 'filters = []'}\n{more}\n"
        f'[pairs]\nlocation = "{name}.tsv"\ncolumns = ["caption", "url"]\n[download]\nshard_size = {shard_size}\n'
        f'[scorers.pixels]\nkind = "pixels"\n[scorers.captions]\nkind = "captions"\n{chosen}'
    )
    return loading.load(folder / f"{name}.toml")


def finish(described, storage, failed=(), unscored=(), without=()):
    """The ledger of the source, with the results of each shard but those `without`."""
    ledger = ingest.update(described, storage)
    stage = download.stage(described)
    scores = Plan.of(described).scores
    for shard in ledger.shards:
        if shard.number in without or storage.done(stage.item(shard.number, ".parquet")):
            continue
        rows = pq.read_table(storage.fetch(shard.key))
        numbers = [int((re.search(r"(\d+)\.jpg", url) or [0, 0])[1]) for url in rows["url"].to_pylist()]
        there = np.array([number not in failed for number in numbers])
        downloaded, members = _downloaded(rows, numbers, there)
        put(storage, stage.item(shard.number, ".tar"), lambda path, members=members: tarfiles.write(path, members))
        put_table(storage, stage.item(shard.number, ".parquet"), downloaded)
        scored = there & np.array([number not in unscored for number in numbers])
        for name, table in _scores(described, rows, numbers, scored).items():
            put_table(storage, scores[name].item(shard.number, ".parquet"), table)
    return ledger


def published(described, storage, quarantined=None, **results):
    """Finish, then publish."""
    quarantined = quarantined or {}
    ledger = finish(described, storage, without=quarantined, **results)
    plan = Plan.of(described)
    pool.run(plan, storage, ledger, quarantined)
    return publish.publish(plan, storage, ledger, quarantined)


def recorded(folder):
    """TOML of a recorded scorer of 8 numbers, for `embedded` to put embeddings where it would."""
    pq.write_table(pa.table({"key": ["nobody"], "embedding": [[1.0] + [0.0] * 7]}), folder / "recorded.parquet")
    file = 'file = "recorded.parquet"\nkey = "key"\nby = "caption"\n'
    return (
        '[scorers.recorded]\nkind = "recorded"\nmodel = "some/model"\n'
        f"[scorers.recorded.image]\n{file}[scorers.recorded.text]\n{file}"
    )


def embedded(described, storage, vectors, of="recorded", **failed):
    """The ledger of a scored source; pair number n has the float16 embeddings `vectors[n]`, picture and caption."""
    ledger = finish(described, storage, **failed)
    stage = Plan.of(described).embeddings[of]
    for shard in ledger.shards:
        urls = pq.read_table(storage.fetch(shard.key))["url"].to_pylist()
        rows = np.stack([vectors[int(url.split("/")[-1].removesuffix(".jpg"))] for url in urls])
        put(storage, stage.item(shard.number, ".npy"), lambda path, rows=rows: np.save(path.open("wb"), rows))
    return ledger


def put(storage, key, write):
    with storage.scratch() as scratch:
        write(scratch / "made")
        storage.put_file(key, scratch / "made")


def put_table(storage, key, table):
    put(storage, key, lambda path: pq.write_table(table, path))


def _downloaded(rows, numbers, there):
    def where(values, kind):
        return pa.array([value if ok else None for value, ok in zip(values, there, strict=True)], kind)

    members = [f"{image:05d}.jpg" for image in rows["url_number"].to_pylist()]
    columns = {
        "uid": rows["uid"],
        "status": pa.array(["ok" if ok else "failed" for ok in there]),
        "cause": pa.array([None if ok else "http_404" for ok in there], pa.string()),
        "error": pa.array([None if ok else "HTTP Error 404: Not Found" for ok in there], pa.string()),
        "sha256": where([f"{number:064x}" for number in numbers], pa.string()),
        "width": where([number * 10 for number in numbers], MADE.field("width").type),
        "height": where([300 for _ in numbers], MADE.field("height").type),
        "bytes": where([1000 for _ in numbers], MADE.field("bytes").type),
        "member": where(members, pa.string()),
    }
    stored = {member: jpeg(number) for member, number, ok in zip(members, numbers, there, strict=True) if ok}
    return pa.table(columns), list(stored.items())


def _scores(described, rows, numbers, scored):
    """By scorer its table: what is known of the picture and the caption, and 1, "en" or False for all else."""
    captions = rows["caption"].to_pylist()
    known = {
        "pixels_sharpness": numbers,
        "pixels_phash": numbers,
        "unsafe_nsfw": [number / 100 for number in numbers],
        "pixels_digest": [f"{number:032x}" for number in numbers],
        "captions_length": [len(caption) for caption in captions],
        "captions_words": [len(caption.split()) for caption in captions],
        "captions_boilerplate": ["buy" in caption for caption in captions],
    }
    tables = {}
    for name in Plan.of(described).scores:
        spec = described.scorers[name]
        tables[name] = pa.table({"uid": rows["uid"]})
        for column, kind in spec.columns().items():
            default = "en" if pa.types.is_string(kind) else 1 if not pa.types.is_boolean(kind) else False
            values = known.get(score_column(name, column), [default] * len(rows))
            values = [value if there else None for value, there in zip(values, scored, strict=True)]
            tables[name] = tables[name].append_column(score_column(name, column), pa.array(values, kind))
    return tables


@cache
def jpeg(number):
    data = io.BytesIO()
    Image.new("RGB", (64, 48), (number * 37 % 256, number * 91 % 256, number * 53 % 256)).save(data, "JPEG")
    return data.getvalue()
