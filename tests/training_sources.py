"""A tiny source that teaches something: drawn pictures of three classes, captions of which some lie, a held-out set.

Which captions lie is told by the word "stock", so that a filter can drop them without a scorer. Everything is drawn
from seeds; nothing is fetched, and the encoder has random weights.
"""

import hashlib
import io
from functools import cache

import numpy as np
import published_sources
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.download import download
from pipeline.ledger import ingest
from pipeline.manifest import publish
from pipeline.schema import MADE
from pipeline.scoring.plan import Plan
from pipeline.sources import loading
from pipeline.store import tarfiles
from pipeline.store.storage import Storage

CLASSES = ("disc", "stripes", "cross")
HONEST = {"honest": "caption NOT LIKE '%stock%'"}
PREPROCESS = "{ input_size = [3, 64, 64], crop_pct = 1.0 }"
RESNET = f'{{ kind = "timm", model = "test_resnet", weights = "encoder.safetensors", preprocess = {PREPROCESS} }}'


@cache
def picture(label, seed, size=64):
    """A JPEG of a class: a shape anywhere, in any colour, on a blotchy ground."""
    rng = np.random.default_rng([CLASSES.index(label), seed])
    blotches = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((size, size), Image.BICUBIC)
    pixels = np.asarray(blotches).copy()
    y, x = np.mgrid[:size, :size]
    cx, cy, r = *rng.integers(size // 3, 2 * size // 3, 2), size * rng.uniform(0.2, 0.3)
    box = (abs(x - cx) < r) & (abs(y - cy) < r)
    shape = {
        "disc": (x - cx) ** 2 + (y - cy) ** 2 < r**2,
        "stripes": box & (x // 4 % 2 == 0),
        "cross": box & ((abs(x - cx) < r / 4) | (abs(y - cy) < r / 4)),
    }[label]
    pixels[shape] = rng.integers(0, 256, 3)
    return encoded(pixels)


def gradient(height=48, width=64):
    """Red rises to the right, green downwards: tells what was flipped, cropped, turned."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), np.full_like(x, 128)], axis=2).astype(np.uint8)


def encoded(pixels, quality=90):
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=quality)
    return data.getvalue()


def light(jpeg):
    """The mean brightness of an encoded picture, 0 to 255."""
    return float(np.asarray(Image.open(io.BytesIO(jpeg)).convert("L")).mean())


def truth(number):
    return CLASSES[number % 3]


def caption(number, lies):
    """What the list says of picture `number`: the next class where it lies."""
    if number in lies:
        return f"stock photo {number} of the {truth(number + 1)}"
    return f"picture {number} with a {truth(number)}"


NAMED = (
    '[task.classes]\ndisc = ["disc", "discs"]\nstripes = ["stripes"]\ncross = ["cross", "crosses"]\n'
    '[task.test]\nlocation = "test.parquet"\nfolder = "test"\n'
)
"""The task, but for its learners and its budget: classes derived from captions, a test set that is given."""


def task(
    folder,
    count=120,
    lies=(),
    captions=None,
    pictures=None,
    test=45,
    filters=None,
    learners=None,
    column=None,
    measured=NAMED,
    **budget,
):
    """The source and its storage, published: `count` pairs, and `test` held-out pictures with two captions each.

    `captions` and `pictures` replace those of some numbers; `filters` are SQL by name, `learners` heads and encoders,
    `column` the values of the extra column `told` by number; `measured` is the rest of the task.
    """
    folder.mkdir(exist_ok=True)
    captions = {number: caption(number, lies) for number in range(count)} | (captions or {})
    extra = ', "told"' if column else ""
    values = {number: f"\t{value}" for number, value in (column or {}).items()}
    lines = [f"{captions[number]}\thttp://host/{number}.jpg{values.get(number, '')}\n" for number in range(count)]
    (folder / "list.tsv").write_text("".join(lines))
    heldout(folder, test)
    encoder(folder)
    spent = {"steps": 30, "batch": 32, "seeds": 5, "augmented_views": 1} | budget
    chosen = "".join(f'[[filters]]\nname = "{n}"\nsql = "{sql}"\n' for n, sql in (filters or HONEST).items())
    named = {"linear": ("linear", RESNET)} if learners is None else learners
    trained = "".join(f'[task.learners.{n}]\nhead = "{h}"\nencoder = {e}\n' for n, (h, e) in named.items())
    (folder / "taught.toml").write_text(
        f'[pairs]\nlocation = "list.tsv"\ncolumns = ["caption", "url"{extra}]\nextra = [{extra[2:]}]\n'
        f"[download]\nshard_size = 50\n{chosen}{measured}{trained}[task.budget]\n"
        + "".join(f"{name} = {value}\n" for name, value in spent.items())
    )
    described = loading.load(folder / "taught.toml")
    storage = Storage(folder / "store")
    ledger = ingest.update(described, storage)
    stage = download.stage(described)
    for shard in ledger.shards:
        if not storage.done(stage.item(shard.number, ".parquet")):
            _downloaded(storage, stage, shard, pictures or {})
    publish.publish(Plan.of(described), storage, ledger, {})
    return described, storage


def heldout(folder, count):
    """test.parquet and test/: pictures that no list holds."""
    (folder / "test").mkdir(exist_ok=True)
    rows = []
    for number in range(count):
        name = f"{number}.jpg"
        (folder / "test" / name).write_bytes(picture(truth(number), 10_000 + number))
        told = {"shape": truth(number), "light": light(picture(truth(number), 10_000 + number))}
        rows += [{"image": name, "caption": f"a {truth(number)}", **told}] * 2
    pq.write_table(pa.Table.from_pylist(rows), folder / "test.parquet")


def encoder(folder):
    """Random weights of a small timm model."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), folder / "encoder.safetensors")


def _downloaded(storage, stage, shard, replaced):
    rows = pq.read_table(storage.fetch(shard.key))
    numbers = [int(url.rpartition("/")[2].removesuffix(".jpg")) for url in rows["url"].to_pylist()]
    stored = [replaced.get(number) or picture(truth(number), number) for number in numbers]
    members = [f"{image:05d}.jpg" for image in rows["url_number"].to_pylist()]
    published_sources.put(
        storage, stage.item(shard.number, ".tar"), lambda path: tarfiles.write(path, zip(members, stored, strict=True))
    )
    columns = {
        "uid": rows["uid"],
        "status": pa.array(["ok"] * len(rows)),
        "cause": pa.nulls(len(rows), pa.string()),
        "error": pa.nulls(len(rows), pa.string()),
        "sha256": pa.array([hashlib.sha256(picture).hexdigest() for picture in stored]),
        "width": pa.array([64] * len(rows), MADE.field("width").type),
        "height": pa.array([64] * len(rows), MADE.field("height").type),
        "bytes": pa.array([len(picture) for picture in stored], MADE.field("bytes").type),
        "member": pa.array(members),
    }
    published_sources.put_table(storage, stage.item(shard.number, ".parquet"), pa.table(columns))
