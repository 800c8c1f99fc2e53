"""Leaks: the pool's pictures against test sets. Hashes are planted: picture number n of the pool has the hash n."""

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import published_sources
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from filters import pool as filters
from filters.core import Recipe
from pipeline.errors import ModelError, SourceError
from pipeline.images.phash import phash, phash_of_file
from pipeline.manifest.manifest import Manifest
from pipeline.neighbours.hamming import nearest_targets
from pipeline.scorers.leak_index import LeakIndex, SetPicture
from pipeline.scoring.plan import Plan
from pipeline.store.storage import Storage


def encoded(image):
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def picture(seed, width=64, quality=95):
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).resize((width, width)).save(data, "JPEG", quality=quality)
    return data.getvalue()


def folder(path, names):
    for name, content in names.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def tar(path, names):
    with tarfile.open(path, "w") as file:
        for name, content in names.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def hub(path, names):
    rows = [{"bytes": content, "path": name} for name, content in names.items()]
    pq.write_table(pa.table({"image": rows, "label": [0] * len(rows)}), path)
    return path


def plain(path, names):
    pq.write_table(pa.table({"image": pa.array(list(names.values()), pa.binary())}), path)
    return path


def sets(**paths):
    lines = "".join(f'sets.{name} = "{path}"\n' for name, path in paths.items())
    return f'[scorers.leaks]\nkind = "leaks"\nradius = 4\n{lines}'


def with_hashes(described, store, hashes, sha256=None):
    """Publish a pool whose pictures have these hashes, None for no hash; `sha256` by position."""
    ledger = published_sources.finish(described, store)
    for shard in ledger.shards:
        for folder_, column, values in (("scores/pixels", "pixels_phash", hashes), ("shards", "sha256", sha256 or {})):
            (key,) = (
                key.relative_to(store.root).as_posix()
                for key in store.root.glob(f"{folder_}-*/{shard.number:05d}.parquet")
            )
            table = pq.read_table(store.fetch(key))
            if isinstance(values, dict):
                held = table[column].to_pylist()
                values = [values.get(row, value) for row, value in enumerate(held)]
            at = table.column_names.index(column)
            published_sources.put_table(
                store, key, table.set_column(at, column, pa.array(values, table.schema.field(column).type))
            )
    return published_sources.published(described, store)


def ask(store, sql):
    with Manifest.open(store).connection() as con:
        return con.execute(sql).fetchall()


@pytest.mark.parametrize("form", [folder, tar, hub, plain])
def test_the_nearest_picture_of_all_sets_is_named(tmp_path, form):
    store = Storage(tmp_path / "store")
    one, other = {"a/1.jpg": picture(1), "2.PNG": picture(2)}, {"3.jpg": picture(3)}
    if form is folder:
        (tmp_path / "one").mkdir()
        (tmp_path / "one" / "readme.txt").write_text("no picture")
    elif form is tar:
        one["labels.json"] = b"{}"
    more = sets(
        one=form(tmp_path / "one" if form is folder else tmp_path / f"one.{'tar' if form is tar else 'parquet'}", one),
        other=folder(tmp_path / "other", other),
    )
    first, second, third = (phash_of_file(picture(number)) for number in (1, 2, 3))
    far = phash_of_file(picture(9))
    described = published_sources.listed(tmp_path, range(40, 46), filters=(), more=more)
    same = {5: hashlib.sha256(picture(3)).hexdigest()}
    with_hashes(described, store, [first ^ 0b111, second, third ^ 0b11111, far, None, far], same)
    rows = ask(store, "SELECT leaks_leaked, leaks_distance, leaks_set, leaks_image FROM rows")
    names = ["row 0", "row 1"] if form is plain else ["a/1.jpg", "2.PNG"]
    assert rows == [
        (True, 3, "one", names[0]),
        (True, 0, "one", names[1]),
        (False, None, None, None),  # 5 bits
        (False, None, None, None),
        (None, None, None, None),
        (True, 0, "other", "3.jpg"),  # the same bytes, whatever the hash
    ]
    kept = Manifest.open(store).select(Recipe("clean", (filters.unleaked,)))
    assert len(kept) == 2


def test_the_nearest_one_counts_and_of_several_the_first(tmp_path):
    store = Storage(tmp_path / "store")
    target = phash_of_file(picture(1))
    here = {"b.jpg": picture(1), "c.jpg": picture(1, quality=94)}
    near = phash_of_file(here["c.jpg"])
    assert np.bitwise_count(np.uint64(target ^ near)) <= 4  # or the test says nothing
    described = published_sources.listed(
        tmp_path, [40, 41], filters=(), more=sets(x=folder(tmp_path / "x", here), y=tmp_path / "x")
    )
    with_hashes(described, store, [target, target ^ 1])
    assert ask(store, "SELECT leaks_distance, leaks_set, leaks_image FROM rows")[0] == (0, "x", "b.jpg")


def scene(seed, width=120, height=90):
    """Blotches of all sizes: something of a photograph."""
    random = np.random.default_rng(seed)
    layers = [
        np.asarray(Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8)).resize((width, height)), float)
        for side in (3, 5, 12, 40)
    ]
    return Image.fromarray(np.average(layers, axis=0, weights=[4, 3, 2, 1]).astype(np.uint8))


DISGUISES = {
    "mirrored": ImageOps.mirror,
    "cropped": lambda image: image.crop((5, 4, 114, 86)),
    "mirrored and cropped": lambda image: ImageOps.mirror(image).crop((10, 0, 118, 81)),
    "turned": lambda image: image.rotate(2.8),
    "bordered": lambda image: ImageOps.expand(image, 5, (250, 250, 250)),
    "in a window": lambda image: ImageOps.expand(image, (3, 9, 3, 4), (50, 50, 50)),
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_copy_in_disguise_is_found(disguise):
    pictures = [SetPicture("set", str(seed), "", scene(seed)) for seed in range(10)]
    known = LeakIndex.read(pictures, None)
    copies = np.array([phash(DISGUISES[disguise](each.image)) for each in pictures], np.uint64)
    bits, which = known.by_hash(copies, 8, lambda done, total: None)
    assert np.mean(which == np.arange(10)) >= 0.8
    assert (bits[which >= 0] <= 8).all()
    strangers = np.array([phash(scene(seed)) for seed in range(100, 150)], np.uint64)
    assert (known.by_hash(strangers, 8, lambda done, total: None)[1] >= 0).mean() < 0.05


@pytest.mark.parametrize("radius", [0, 3, 8, 12])
def test_the_nearest_target_is_that_of_an_exact_search(radius):
    random = np.random.default_rng(radius)
    targets = random.integers(0, 2**64, 300, dtype=np.uint64)
    targets[100:120] = targets[:20]
    hashes = np.concatenate([random.integers(0, 2**64, 500, dtype=np.uint64), np.repeat(targets[:150], 3)])
    for _ in range(radius):
        hashes[500:] ^= np.uint64(1) << random.integers(0, 64, 450).astype(np.uint64)
    every = np.bitwise_count(hashes[:, None] ^ targets[None])
    near = every.min(axis=1) <= radius
    bits, which = nearest_targets(hashes, targets, radius)
    assert np.array_equal(bits, np.where(near, every.min(axis=1), 255))
    assert np.array_equal(which, np.where(near, every.argmin(axis=1), -1))
    assert near[500:].all()
    for few in (nearest_targets(hashes[:0], targets, radius), nearest_targets(hashes, targets[:0], radius)):
        assert set(few[0].tolist()) <= {255}


@pytest.mark.slow
def test_embeddings_find_what_no_hash_does(tmp_path):
    """40 has a test picture's embedding and 6 bits of another hash, 41 nearly that of another, 42 a stranger's; 43 has
    none; 44 has an embedding, and not the hash, of a test picture."""
    store = Storage(tmp_path / "store")
    here = {f"{number}.png": encoded(scene(number)) for number in range(2)}
    model = Path(__file__).parent.parent / "pipeline" / "demo" / "clip"
    more = sets(x=folder(tmp_path / "x", here)) + 'embeddings = "clip"\nsimilarity = 0.97\nloose = 10\n'
    more += f'[scorers.clip]\nkind = "clip"\nmodel = "local-dir:{model}"\nprecision = "float32"\n'
    first, second = (phash(scene(number)) for number in range(2))
    hashes = [first ^ 0b111111, second ^ 0b11111 << 9, first ^ 0b111111, first ^ 0b111111, first ^ 0xFFFFF]
    described = published_sources.listed(tmp_path, range(40, 45), filters=(), more=more)
    clip = described.scorers["clip"].load()
    own = clip.encode_pictures([clip.prepare(scene(number)) for number in range(2)])
    aside = np.roll(own[0], 7)
    images = np.stack([own[0], own[1] + 0.1 * aside, aside, np.full_like(aside, np.nan), own[0]])
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    vectors = dict(zip(range(40, 45), np.repeat(images[:, None], 2, axis=1).astype(np.float16), strict=True))
    published_sources.embedded(described, store, vectors, of="clip")
    with_hashes(described, store, hashes)
    rows = ask(store, "SELECT leaks_leaked, leaks_distance, leaks_set, leaks_image, leaks_similarity FROM rows")
    assert [row[:4] for row in rows] == [
        (True, 6, "x", "0.png"),
        (True, 5, "x", "1.png"),
        (False, None, None, None),
        (False, None, None, None),
        (False, None, None, None),
    ]
    cosines = [row[4] for row in rows]
    assert cosines[:2] == [pytest.approx(1, abs=1e-3), pytest.approx((images[1] @ own[1]), abs=1e-3)]
    assert cosines[2] < 0.97
    assert cosines[3] is None
    assert cosines[4] == cosines[0]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ('embeddings = "clip"\n', "embeddings and similarity go together"),
        ('embeddings = "pixels"\nsimilarity = 0.9\n', "'pixels' cannot encode test pictures"),
        ('embeddings = "clop"\nsimilarity = 0.9\n', "there is no scorer 'clop'"),
    ],
)
def test_embeddings_of_no_model(tmp_path, more, told):
    one = sets(x=folder(tmp_path / "x", {"1.jpg": picture(1)}))
    with pytest.raises(SourceError, match=told):
        Plan.of(published_sources.listed(tmp_path, [40], filters=(), more=one + more))


def test_another_picture_in_a_set_makes_other_scores(tmp_path):
    store = Storage(tmp_path / "store")
    described = published_sources.listed(
        tmp_path, [40, 41], filters=(), more=sets(x=folder(tmp_path / "x", {"1.jpg": picture(1)}))
    )
    first = published_sources.published(described, store)
    assert not published_sources.published(described, store).new
    folder(tmp_path / "x", {"2.jpg": picture(2)})
    assert published_sources.published(described, store).id != first.id


TASK = """
[task.classes]
dog = ["dog"]
cat = ["cat"]
[task.test]
location = "test.csv"
folder = "pictures"
[task.learners.hog]
head = "linear"
encoder = { kind = "hog" }
"""


def test_the_test_set_of_the_task_is_one_of_them(tmp_path):
    """Only what its list names: training pictures may lie in the same folder."""
    store = Storage(tmp_path / "store")
    folder(tmp_path / "pictures", {"test.jpg": picture(1), "train.jpg": picture(2)})
    (tmp_path / "test.csv").write_text("image,caption\ntest.jpg,a dog\ntest.jpg,the dog\n")
    described = published_sources.listed(
        tmp_path, [40, 41], filters=(), more='[scorers.leaks]\nkind = "leaks"\n' + TASK
    )
    with_hashes(described, store, [phash_of_file(picture(1)), phash_of_file(picture(2))])
    rows = ask(store, "SELECT leaks_leaked, leaks_set, leaks_image FROM rows")
    assert rows == [(True, "test", "test.jpg"), (False, None, None)]
    (tmp_path / "test.csv").write_text("image,caption\ngone.jpg,a dog\n")
    with pytest.raises(SourceError, match="there is no picture .*gone.jpg"):
        published_sources.published(described, store)


def test_leaks_into_nothing_are_an_error(tmp_path):
    with pytest.raises(SourceError, match=r"tiny.toml: scorers.leaks: there is no test set to compare with: name one"):
        published_sources.listed(tmp_path, [40], filters=(), more='[scorers.leaks]\nkind = "leaks"\n')


@pytest.mark.parametrize("form", [tar, hub, plain])
def test_an_empty_set_is_refused_before_anything_runs(tmp_path, form):
    path = tmp_path / f"x.{'tar' if form is tar else 'parquet'}"
    form(path, {"1.jpg": picture(1)})
    described = published_sources.listed(tmp_path, [40], filters=(), more=sets(x=path))
    Plan.of(described)
    if form is tar:
        tar(path, {})
    else:
        pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(SourceError, match="scorers.leaks: there is no picture in .*, which sets.x means"):
        Plan.of(described)


def test_an_empty_list_of_test_pictures_is_refused_before_anything_runs(tmp_path):
    folder(tmp_path / "pictures", {"test.jpg": picture(1)})
    (tmp_path / "test.csv").write_text("image,caption\n")
    described = published_sources.listed(tmp_path, [40], filters=(), more='[scorers.leaks]\nkind = "leaks"\n' + TASK)
    with pytest.raises(SourceError, match="test.csv names no picture in its column 'image'"):
        Plan.of(described)


@pytest.mark.parametrize(
    ("names", "told", "error"),
    [
        ({"1.txt": b"no picture"}, "scorers.leaks: there is no picture in .*, which sets.x means", SourceError),
        ({"1.jpg": b"no picture"}, "1.jpg in .* is no picture", ModelError),
    ],
)
def test_a_set_that_is_none(tmp_path, names, told, error):
    described = published_sources.listed(tmp_path, [40], filters=(), more=sets(x=folder(tmp_path / "x", names)))
    with pytest.raises(error, match=told):
        published_sources.published(described, Storage(tmp_path / "store"))


def test_a_file_that_is_neither_tar_nor_parquet(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"PK")
    described = published_sources.listed(tmp_path, [40], filters=(), more=sets(x=tmp_path / "x.zip"))
    with pytest.raises(ModelError, match="no folder, no .tar, and no Parquet"):
        published_sources.published(described, Storage(tmp_path / "store"))
