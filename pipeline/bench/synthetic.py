"""A synthetic source with downloaded shards, for `winnow bench`. The same count gives the same bytes.

Pictures are smooth fields with edges and a little noise. They have the sizes of photographs and take a decoder about as
long. Captions have the lengths of captions on the web.
"""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.download import download, job
from pipeline.ledger import ingest
from pipeline.ledger.ledger import Shard
from pipeline.sources.source import Source
from pipeline.store import tarfiles
from pipeline.store.storage import Storage

ASPECTS = (4 / 3, 3 / 2, 1.0, 3 / 4)
"""Width by height, one after another."""

MEDIAN, SPREAD, MOST = 10, 0.6, 60
"""Words of a caption: lognormal, a mean of 12. CC3M's have a mean of 10, CC12M's of 20."""

_WORDS = (
    "a the of on in with and at young old small large red blue green white black wooden vintage modern two three man "
    "woman children dog cat horse bird river mountain beach city street market kitchen garden window night morning "
    "sunset winter portrait photograph illustration close view background standing sitting walking running playing "
    "holding wearing looking near under over beside during festival wedding football concert restaurant architecture "
    "bicycle flowers strawberries photographer landscape isolated traditional beautiful colourful abandoned 2019"
)


def source(folder: Path, count: int, side: int, shard_size: int) -> tuple[Source, Storage, tuple[Shard, ...]]:
    """A source of `count` downloaded pairs. `side` is the shorter side of their pictures in px."""
    listed = folder / "pairs.parquet"
    urls = [f"http://synthetic/{number}.jpg" for number in range(count)]
    pq.write_table(pa.table({"url": urls, "caption": list(captions(count))}), listed)
    described = Source.model_validate(
        {"name": "bench", "pairs": {"location": str(listed)}, "download": {"shard_size": shard_size}}
    )
    storage = Storage(folder / "store")
    ledger = ingest.update(described, storage)
    made_by = download.stage(described)
    for shard in ledger.shards:
        with storage.scratch() as scratch:
            rows = pq.read_table(storage.fetch(shard.key))
            pq.write_table(_download(rows, side, scratch / "tar"), scratch / "parquet")
            for ending in ("tar", "parquet"):
                storage.put_file(made_by.item(shard.number, f".{ending}"), scratch / ending)
    return described, storage, ledger.shards


def captions(count: int) -> Iterator[str]:
    """Captions that end in their number, so that no two are equal."""
    generator, known = np.random.default_rng(count), _WORDS.split()
    for number in range(count):
        words = int(np.clip(generator.lognormal(np.log(MEDIAN), SPREAD), 1, MOST))
        yield " ".join([*generator.choice(known, words), str(number)])


def jpeg(number: int, side: int) -> tuple[bytes, int, int]:
    """The picture of that number, its width and its height. `side` px is the shorter one."""
    aspect = ASPECTS[number % len(ASPECTS)]
    width, height = round(side * max(aspect, 1)), round(side * max(1 / aspect, 1))
    generator = np.random.default_rng(number)
    field = Image.fromarray(generator.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(field).astype(np.int16)
    for _ in range(6):
        left, top = generator.integers(0, width), generator.integers(0, height)
        pixels[top : top + height // 4, left : left + width // 4] += generator.integers(-60, 60, 3, dtype=np.int16)
    pixels += generator.integers(-6, 7, pixels.shape, dtype=np.int16)
    data = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(data, "JPEG", quality=95)
    return data.getvalue(), width, height


def _download(rows: pa.Table, side: int, tar: Path) -> pa.Table:
    """Write the tar of a shard, and give the table that its download would write."""
    pictures = [jpeg(int(url.rpartition("/")[2].removesuffix(".jpg")), side) for url in rows["url"].to_pylist()]
    members = [f"{number:05d}.jpg" for number in rows["url_number"].to_pylist()]
    tarfiles.write(tar, ((member, content) for member, (content, _, _) in zip(members, pictures, strict=True)))
    columns = {
        "uid": rows["uid"],
        "status": ["ok"] * len(rows),
        "cause": [None] * len(rows),
        "error": [None] * len(rows),
        "sha256": [hashlib.sha256(content).hexdigest() for content, _, _ in pictures],
        "width": [width for _, width, _ in pictures],
        "height": [height for _, _, height in pictures],
        "bytes": [len(content) for content, _, _ in pictures],
        "member": members,
    }
    return pa.table(columns, schema=job.COLUMNS)
