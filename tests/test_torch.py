"""`winnow.torch`: every pair once over ranks and workers, the same order again, resumed where it stopped."""

import hashlib
import multiprocessing
import os
import pickle
import re
import shutil
import subprocess
import sys
import uuid
from collections import Counter
from itertools import chain, islice
from pathlib import Path

import numpy as np
import published_sources
import pyarrow as pa
import pytest
import s3_server
import torch
from torch.utils.data import DataLoader, default_collate
from torchdata.stateful_dataloader import StatefulDataLoader

import winnow
from filters.core import Filter, Recipe
from filters.selections import SoftCap
from pipeline.errors import CompareError, QueryError, RecipeError, SourceError, StorageError, WinnowError
from pipeline.manifest import publish
from pipeline.manifest.manifest import Manifest
from pipeline.sources import loading
from pipeline.store import cache, tarfiles
from pipeline.store.places import place
from pipeline.store.references import Reference
from pipeline.store.storage import Storage
from training.data import copies
from winnow.torch import Pairs
from winnow.torch.draws import draws
from winnow.torch.order import Epoch, Share
from winnow.torch.selection import Selection


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Pictures 40 to 76 in shards of 10, those from 50 on kept; 52 has three captions, 55 failed: 28 pairs."""
    folder = tmp_path_factory.mktemp("torch")
    rows = [(f"picture number 52, {again}", "http://host/52.jpg") for again in ("again", "once more")]
    described = published_sources.listed(folder / "lists", range(40, 77), rows=rows)
    storage = Storage(folder / "store")
    published_sources.published(described, storage, failed=(55,))
    return Manifest.open(storage)


@pytest.fixture(scope="module")
def twenty(tmp_path_factory):
    """A folder with the list of pictures 50 to 69, and their store."""
    folder = tmp_path_factory.mktemp("twenty")
    published_sources.published(published_sources.listed(folder, range(50, 70)), Storage(folder / "tiny"))
    return folder


@pytest.fixture
def own_manifest(twenty, tmp_path):
    """One that a test may damage."""
    shutil.copytree(twenty / "tiny", tmp_path / "tiny")
    return Manifest.open(Storage(tmp_path / "tiny"))


def pixel(image):
    return torch.tensor(image.getpixel((5, 5)))


def pairs(manifest, **options):
    return Pairs(manifest, transform=pixel, **options)


def kept(manifest):
    return Counter(manifest.select()["uid"].to_pylist())


def uids(batches):
    return [uid for batch in batches for uid in batch["uid"]]


def read(stream, workers=0, batch_size=4, **options):
    return uids(DataLoader(stream, batch_size, num_workers=workers, **options))


def test_an_item_is_the_picture_its_caption_and_the_chosen_columns(manifest):
    found = Pairs(manifest, columns=("pixels_sharpness", "shard", "error", "uid"))
    assert len(found) == 28
    assert found.uids == [item["uid"] for item in found]
    assert Counter(found.uids) == kept(manifest)
    for item in found:
        number = int(item["pixels_sharpness"])
        assert item["image"].getpixel((5, 5)) == pytest.approx(
            (number * 37 % 256, number * 91 % 256, number * 53 % 256), abs=4
        )
        assert item["caption"].startswith(f"picture number {number}")
        assert item["error"] is None
        assert set(item) == {"image", "caption", "uid", "pixels_sharpness", "shard", "error"}
    assert Counter(item["pixels_sharpness"] for item in found)[52] == 3
    assert found[-1]["uid"] == found[27]["uid"]
    with pytest.raises(IndexError, match="item 28 of 28"):
        found[28]


def test_tokens_another_recipe_and_a_decoder_of_one_s_own(manifest):
    recipe = Recipe("few", (Filter("few", "pixels_sharpness < 44"),))
    found = Pairs(manifest, recipe, decoder=len, tokenize=lambda text: torch.tensor([[len(text), 0]]))
    assert [item["image"] for item in found] == [len(published_sources.jpeg(number)) for number in range(40, 44)]
    assert found[0]["tokens"].tolist() == [len("picture number 40"), 0]
    assert default_collate([found[0], found[1]])["tokens"].shape == (2, 2)


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"columns": ["captions_word"]}, QueryError, "no column 'captions_word'; did you mean 'captions_words'"),
        ({"columns": ["tokens"], "tokenize": len}, QueryError, "no column|beside a tokenizer"),
        ({"recipe": "strict"}, RecipeError, "which a winnow.Manifest finds"),
        ({"recipe": Recipe("none", (Filter("none", "width < 0"),))}, StorageError, "the recipe keeps no pair"),
        ({"copies": "caption"}, RecipeError, "no number of copies"),
        ({"decoder": "pillow_simd"}, SourceError, "no decoder is called 'pillow_simd'; did you mean 'pillow-simd'"),
        ({"copies": "error"}, RecipeError, "28 values that are no number of copies"),
    ],
)
def test_what_cannot_be_read_is_said_at_once(manifest, options, error, told):
    with pytest.raises(error, match=told):
        Pairs(manifest, **options)


def test_a_manifest_of_the_python_api(twenty):
    opened = winnow.Manifest.open(twenty / "tiny.toml", root=twenty)
    assert Pairs(opened).uids == Pairs(opened, "tiny").uids == Pairs(opened.published).uids
    with pytest.raises(RecipeError, match="no recipe is called 'tinny'; did you mean 'tiny'"):
        Pairs(opened, "tinny")


@pytest.mark.parametrize("options", [{"rank": 1}, {"rank": 2, "world": 2}, {"uneven": "pad"}, {"batch_size": 0}])
def test_a_split_that_is_none_is_refused(manifest, options):
    with pytest.raises(WinnowError):
        Pairs(manifest).stream(**options)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_every_pair_once_over_ranks_and_workers_that_do_not_divide(manifest, world, workers, batch_size):
    stream = pairs(manifest).stream(batch_size=batch_size)
    shares = [
        [Share(rank, world, worker, workers, batch_size=batch_size) for worker in range(workers)]
        for rank in range(world)
    ]
    read = [[[item["uid"] for item in stream.read(0, share, 0)] for share in each] for each in shares]
    assert Counter(uid for rank in read for worker in rank for uid in worker) == kept(manifest)
    sizes = [sum(map(len, rank)) for rank in read]
    assert max(sizes) - min(sizes) <= 1
    for rank in read:
        assert sum(len(worker) % batch_size > 0 for worker in rank) <= 1


@pytest.mark.parametrize(
    ("world", "workers"), [(2, 2), *(pytest.param(*each, marks=pytest.mark.slow) for each in [(1, 3), (2, 3), (3, 2)])]
)
def test_every_pair_once_by_loaders(manifest, world, workers):
    found = pairs(manifest)
    streams = [found.stream(rank=rank, world=world, batch_size=4) for rank in range(world)]
    loaders = [DataLoader(stream, 4, num_workers=workers) for stream in streams]
    lengths = [len(loader) for loader in loaders]
    batches = [list(loader) for loader in loaders]
    assert sum((Counter(uids(each)) for each in batches), Counter()) == kept(manifest)
    assert [len(uids(each)) for each in batches] == [len(stream) for stream in streams]
    assert [len(each) for each in batches] == lengths


@pytest.mark.parametrize(("uneven", "size", "lost", "repeated"), [("drop", 9, 1, 0), ("repeat", 10, 0, 2)])
def test_ranks_of_equal_length(manifest, uneven, size, lost, repeated):
    streams = [pairs(manifest).stream(rank=rank, world=3, uneven=uneven) for rank in range(3)]
    found = [read(stream) for stream in streams]
    assert [len(each) for each in found] == [len(stream) for stream in streams] == [size] * 3
    counted = Counter(uid for each in found for uid in each)
    assert len(kept(manifest) - counted) == lost
    assert sum((counted - kept(manifest)).values()) == repeated


def test_more_ranks_than_pairs(manifest):
    few = pairs(manifest, recipe=Recipe("one", (Filter("one", "pixels_sharpness = 60"),)))
    for uneven, sizes in (("keep", {0, 1}), ("drop", {0}), ("repeat", {1})):
        assert {len(read(few.stream(rank=rank, world=4, uneven=uneven))) for rank in range(4)} == sizes


def test_the_order_depends_on_seed_and_epoch_alone(manifest):
    stream = pairs(manifest).stream()
    first = read(stream)
    assert read(pairs(manifest).stream()) == first == read(stream)
    assert read(pairs(manifest, seed=1).stream()) != first
    assert read(pairs(manifest).stream(shuffle=False)) == pairs(manifest).uids
    stream.set_epoch(1)
    assert read(stream) != first
    stream.set_epoch(0)
    assert read(stream) == first


def test_workers_that_live_on_see_the_next_epoch(manifest):
    stream = pairs(manifest).stream()
    loader = DataLoader(stream, 4, num_workers=2, persistent_workers=True)
    first = uids(loader)
    stream.set_epoch(1)
    second = uids(loader)
    assert first != second
    assert Counter(first) == Counter(second) == kept(manifest)
    assert second == read(stream, workers=2)


@pytest.mark.parametrize(
    ("workers", "done"),
    [(0, 0), (0, 1), (0, 3), (0, 7), (2, 3), *(pytest.param(2, done, marks=pytest.mark.slow) for done in (0, 1, 6, 7))],
)
def test_a_stream_resumes(manifest, workers, done):
    def loader(epoch):
        stream = pairs(manifest).stream(batch_size=4, buffer=7)
        stream.set_epoch(epoch)
        return StatefulDataLoader(stream, 4, num_workers=workers)

    whole = list(loader(3))
    begun = loader(3)
    batches = iter(begun)
    assert uids(islice(batches, done)) == uids(whole[:done])
    state = pickle.loads(pickle.dumps(begun.state_dict()))
    resumed = loader(0)
    resumed.load_state_dict(state)
    assert uids(resumed) == uids(whole[done:])
    resumed.dataset.set_epoch(4)
    assert uids(resumed) == uids(loader(4))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_the_map_resumes(manifest, workers):
    def loader():
        return StatefulDataLoader(pairs(manifest), 4, shuffle=True, num_workers=workers)

    torch.manual_seed(0)
    whole = uids(loader())
    assert Counter(whole) == kept(manifest)
    torch.manual_seed(0)
    begun = loader()
    batches = iter(begun)
    assert uids(islice(batches, 3)) == whole[:12]
    resumed = loader()
    resumed.load_state_dict(begun.state_dict())
    assert uids(resumed) == whole[12:]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_sampler_resumes(manifest, workers):
    def loader(epoch):
        found = pairs(manifest)
        found.set_epoch(epoch)
        return StatefulDataLoader(found, 4, sampler=found.sampler(4), num_workers=workers)

    whole = uids(loader(3))
    assert Counter(whole) == kept(manifest)
    begun = loader(3)
    batches = iter(begun)
    assert uids(islice(batches, 3)) == whole[:12]
    resumed = loader(3)
    resumed.load_state_dict(pickle.loads(pickle.dumps(begun.state_dict())))
    assert uids(resumed) == whole[12:]


def test_the_order_of_a_sampler_depends_on_seed_and_epoch_alone(manifest):
    found = pairs(manifest)
    sampler = found.sampler(4)
    first = list(sampler)
    torch.manual_seed(1)
    assert list(sampler) == first == list(pairs(manifest).sampler(4))
    assert list(pairs(manifest, seed=1).sampler(4)) != first
    sampler.set_epoch(1)
    assert sorted(sampler) == sorted(first) == list(range(28))
    assert list(sampler) != first
    found.set_epoch(0)
    assert list(sampler) == first


@pytest.mark.parametrize("world", [1, 2, 3, 40])
@pytest.mark.parametrize("uneven", ["keep", "drop", "repeat"])
def test_a_sampler_gives_every_pair_once_over_ranks_that_do_not_divide(manifest, world, uneven):
    samplers = [pairs(manifest).sampler(4, rank, world, uneven) for rank in range(world)]
    found = [list(each) for each in samplers]
    assert [len(each) for each in found] == list(map(len, samplers))
    counted, every = Counter(chain(*found)), Counter(range(28))
    assert (every - counted).total() == (28 % world if uneven == "drop" else 0)
    assert (counted - every).total() == (-28 % world if uneven == "repeat" else 0)
    assert max(map(len, found)) - min(map(len, found)) <= (uneven == "keep")


@pytest.mark.parametrize("options", [{"rank": 1}, {"rank": 2, "world": 2}, {"uneven": "pad"}, {"batch_size": 0}])
def test_a_split_of_a_sampler_that_is_none_is_refused(manifest, options):
    with pytest.raises(WinnowError):
        Pairs(manifest).sampler(**{"batch_size": 4} | options)


@pytest.mark.parametrize("world", [1, 3])
def test_no_batch_of_a_sampler_has_a_copy_twice(manifest, world):
    """60 samples in batches of 6, of one rank or of three with 2 each. None occurs more than 10 times."""
    recipe = Recipe("repeats", selection=SOFT_CAP)
    wanted = Counter({each["uid"]: each["copies"] for each in manifest.select(recipe).to_pylist()})
    assert max(wanted.values()) <= 10
    found = pairs(manifest, recipe=recipe)
    for epoch in range(3):
        found.set_epoch(epoch)
        samplers = [found.sampler(6 // world, rank, world) for rank in range(world)]
        loaders = [DataLoader(found, 6 // world, sampler=each) for each in samplers]
        batches = [uids(each) for each in zip(*loaders, strict=True)]
        assert Counter(chain(*batches)) == wanted
        assert all(len(set(each)) == len(each) for each in batches)
        assert sorted(chain(*samplers)) == list(range(60))


def test_the_state_of_another_stream_is_refused(manifest):
    state = iter(pairs(manifest).stream()).state_dict()
    with pytest.raises(CompareError, match="seed 0, here 1"):
        iter(pairs(manifest, seed=1).stream()).load_state_dict(state)
    with pytest.raises(CompareError, match="world 1, here 2"):
        iter(pairs(manifest).stream(rank=0, world=2)).load_state_dict(state)
    few = Recipe("few", (Filter("few", "pixels_sharpness < 44"),))
    with pytest.raises(CompareError, match="pairs"):
        iter(pairs(manifest, recipe=few).stream()).load_state_dict(state)


def test_whole_copies(manifest):
    wanted = {
        item["uid"]: item["captions_words"] for item in Pairs(manifest, decoder=len, columns=["captions_words"])
    }  # 3, and 4 or 5 where a caption has more words
    found = pairs(manifest, copies="captions_words")
    assert len(found) == sum(wanted.values())
    assert Counter(item["uid"] for item in found) == wanted
    streams = [found.stream(rank=rank, world=3, batch_size=4) for rank in range(3)]
    assert Counter(uid for stream in streams for uid in read(stream)) == wanted
    assert len(pairs(manifest, copies=None)) == 28


def test_copies_of_the_list(tmp_path):
    """Text in a list of text: 0, 1, 2 and 2.5 copies, in turn."""
    published_sources.listed(tmp_path, range(50, 70))
    numbers = ["0", "1", "2", "2.5"] * 5
    lines = (tmp_path / "tiny.tsv").read_text().splitlines()
    (tmp_path / "tiny.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in zip(lines, numbers, strict=True)))
    toml = (tmp_path / "tiny.toml").read_text()
    toml = toml.replace('columns = ["caption", "url"]', 'columns = ["caption", "url", "times"]\nextra = ["times"]')
    (tmp_path / "tiny.toml").write_text(toml)
    published_sources.published(loading.load(tmp_path / "tiny.toml"), Storage(tmp_path / "store"))
    found = pairs(Manifest.open(Storage(tmp_path / "store")), columns=["times"], copies="times")
    counted = Counter((item["uid"], item["times"]) for item in found)
    assert Counter(number for _, number in counted) == {"1": 5, "2": 5, "2.5": 5}
    assert all(count in {"1": [1], "2": [2], "2.5": [2, 3]}[number] for (_, number), count in counted.items())
    assert Counter(read(found.stream())) == Counter(uid for uid, _ in counted.elements())
    lengths = []
    for epoch in range(20):
        found.set_epoch(epoch)
        lengths.append(len(found))
        sampler = found.sampler(4)
        assert len(sampler) == lengths[-1]
        assert sorted(sampler) == list(range(lengths[-1]))
    assert 25 <= min(lengths) < max(lengths) <= 30


SOFT_CAP = SoftCap(by="pixels_sharpness", penalty=3, budget=60, unit="samples", temperature=5, batch=10)


def test_copies_of_a_recipe(manifest):
    recipe = Recipe("repeats", selection=SOFT_CAP)
    wanted = Counter({each["uid"]: each["copies"] for each in manifest.select(recipe).to_pylist()})
    assert wanted.total() == 60
    assert max(wanted.values()) > 1
    assert Counter(read(pairs(manifest, recipe=recipe).stream())) == wanted
    assert len(pairs(manifest, recipe=recipe)) == 60
    assert len(pairs(manifest, recipe=recipe, copies=None)) == len(wanted)


def test_copies_of_the_published_recipe(manifest, tmp_path):
    storage = Storage(shutil.copytree(manifest.storage.root, tmp_path / "store"))
    publish.republish(storage, Recipe("repeats", (Filter("sharp", "pixels_sharpness > 45"),), selection=SOFT_CAP))
    repeated = Manifest.open(storage)
    chosen = repeated.select().to_pylist()
    assert Counter(read(pairs(repeated).stream())) == Counter({each["uid"]: each["copies"] for each in chosen})


@pytest.mark.parametrize(("rank", "worker"), [(0, 0), (1, 1), (2, 0)])
def test_no_batch_has_a_copy_twice_where_others_have_room(rank, worker):
    counts = np.random.default_rng(1).integers(0, 6, 400).astype(float)
    some = selection(np.arange(400) // 100, counts)
    order = Epoch(some, some.counts(0, 0), 0, 0, shuffle=True, buffer=50)
    share = Share(rank, 3, worker, 2, batch_size=16)
    start, stop = share.of_worker(order.total)
    rows = order.departures(order.arrivals(start, stop), start)

    def twice(rows):
        batches = (rows[at : at + 16].tolist() for at in range(0, len(rows), 16))
        return sum(len(batch) - len(set(batch)) for batch in batches)

    found = copies.apart(rows, 16)
    assert twice(rows) > 20
    assert twice(found) == 0
    assert np.array_equal(np.sort(found), np.sort(rows))
    assert np.count_nonzero(found != rows) < 2.5 * twice(rows)  # the others stay where they are


def test_copies_that_no_other_batch_has_room_for_stay():
    assert copies.apart(np.array([7, 7, 7, 7]), 2).tolist() == [7, 7, 7, 7]
    assert copies.apart(np.array([1, 1, 2, 3]), 2).tolist() in ([1, 3, 2, 1], [1, 2, 1, 3])
    assert copies.apart(np.array([], np.int64), 2).tolist() == []


def selection(shards, times=None):
    """Pairs of these shards, with a picture each, without tars."""
    count = len(shards)
    ids = np.random.default_rng(0).integers(0, 256, (count, 16), np.uint8)
    members = pa.array([f"{number:05d}.jpg" for number in range(count)])
    return Selection(ids, np.arange(count, dtype=np.int32), np.sort(np.array(shards, np.int32)), members, {}, times)


def test_fractions_of_copies_are_drawn_by_seed_epoch_and_uid():
    copies = np.full(20_000, 1.3)
    copies[:10_000] = 0
    many = selection(np.arange(20_000) // 100, copies)
    counts = many.counts(0, 0)
    assert set(counts[10_000:].tolist()) == {1, 2}
    assert not counts[:10_000].any()
    assert counts[10_000:].mean() == pytest.approx(1.3, abs=0.02)
    assert np.array_equal(counts, many.counts(0, 0))
    assert not np.array_equal(counts, many.counts(0, 1))
    assert not np.array_equal(counts, many.counts(1, 0))
    turned = Selection(many.uids[::-1], many.pictures, many.shards, many.members, {}, copies[::-1])
    assert np.array_equal(counts, turned.counts(0, 0)[::-1])


@pytest.mark.parametrize("copies", [False, True])
def test_the_split_loses_nothing_whatever_the_sizes(copies):
    rng = np.random.default_rng(1)
    for _ in range(60):
        count, world, workers = rng.integers(1, 200), int(rng.integers(1, 9)), int(rng.integers(1, 6))
        some = selection(rng.integers(0, rng.integers(1, 12), count), rng.random(count) * 3 if copies else None)
        order = Epoch(some, some.counts(0, 5), 0, 5, shuffle=True, buffer=int(rng.integers(0, 50)))
        size = int(rng.integers(1, 20))
        found = []
        for rank in range(world):
            for worker in range(workers):
                start, stop = Share(rank, world, worker, workers, batch_size=size).of_worker(order.total)
                found.append(order.departures(order.arrivals(start, stop), start))
        counts = np.bincount(np.concatenate(found), minlength=count)
        assert np.array_equal(counts, np.ones(count, int) if some.copies is None else some.counts(0, 5))


def test_a_worker_holds_fewer_pairs_than_the_buffer():
    order = Epoch(selection(np.arange(3000) // 100), None, 0, 0, shuffle=True, buffer=200)
    arrivals = order.arrivals(0, 3000)
    place = np.empty(3000, int)
    place[arrivals] = np.arange(3000)
    departed = place[order.departures(arrivals, 0)]
    held = np.maximum.accumulate(departed) - np.arange(3000)
    assert 80 < held.mean() < 200
    assert held.max() < 200
    assert np.abs(departed - np.arange(3000)).mean() > 50


def test_draws_are_even_and_always_the_same():
    numbers = draws(np.arange(100_000, dtype=np.uint64), 1, 2)
    assert np.allclose(np.histogram(numbers, 10, (0, 1))[0], 10_000, rtol=0.05)
    assert numbers[:2].tolist() == draws(np.arange(2, dtype=np.uint64), 1, 2).tolist()
    assert abs(np.corrcoef(numbers, draws(np.arange(100_000, dtype=np.uint64), 1, 3))[0, 1]) < 0.02


@pytest.mark.slow
def test_the_page_s_code_trains_and_resumes(tmp_path):
    """docs/torch.md, from top to bottom, on a tiny source instead of the demo."""
    described = published_sources.listed(tmp_path, range(50, 250), shard_size=50)
    published_sources.published(described, Storage(tmp_path / "data" / "tiny"))
    page = (Path(__file__).parent.parent / "docs" / "torch.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    named = f"open({str(tmp_path / 'tiny.toml')!r}, root={str(tmp_path / 'data')!r})"
    assert sum(block.count('open("demo")') for block in blocks) == 1
    found = {}
    torch.manual_seed(0)
    exec("\n".join(blocks).replace('open("demo")', named), found)
    assert len(found["losses"]) == 15  # of three whole batches in each of five epochs
    assert np.isfinite(found["losses"]).all()
    assert len(found["rest"]) == 200 - 3 * 64 == len(set(found["rest"]))


def tar(manifest, shard):
    return manifest.storage.fetch(f"shards-{manifest.stages.shards}/{shard:05d}.tar")


@pytest.mark.parametrize("cut", [0, 1024, None])
def test_a_missing_or_damaged_tar_is_one_error(own_manifest, capfd, cut):
    path = tar(own_manifest, 1)
    whole = path.read_bytes()
    path.unlink()
    if cut is not None:
        path.write_bytes(whole[:cut])
    told = "is missing from .*run `winnow curate`" if cut is None else "is damaged: delete it"
    found = pairs(own_manifest)
    assert found[0]["caption"] == "picture number 50"
    with pytest.raises(StorageError, match=told):
        found[15]
    with pytest.raises(StorageError, match=told):
        read(found.stream())
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow  # torch waits 5 s for a worker that failed
def test_a_worker_s_error_keeps_its_type(own_manifest, capfd):
    tar(own_manifest, 1).unlink()
    with pytest.raises(StorageError, match=r"is missing from .*run `winnow curate`"):
        read(pairs(own_manifest).stream(), workers=1)
    assert capfd.readouterr() == ("", "")


def test_a_missing_or_broken_picture_is_one_error(own_manifest):
    path = tar(own_manifest, 1)
    members = list(tarfiles.read(path))
    tarfiles.write(path, members[1:])
    with pytest.raises(StorageError, match=r"shard 00001 has no picture 00000.jpg: open the newest manifest"):
        read(pairs(own_manifest).stream())
    with pytest.raises(StorageError, match="shard 00001 has no picture"):
        pairs(own_manifest)[10]
    tarfiles.write(path, [(members[0][0], members[0][1][:300]), *members[1:]])
    with pytest.raises(StorageError, match=r"picture 00000.jpg of shard 00001 cannot be decoded .*winnow curate"):
        read(pairs(own_manifest).stream())


def test_references_are_read_where_they_are_and_checked(own_manifest, tmp_path):
    path, content = tmp_path / "photo.jpg", published_sources.jpeg(99)
    path.write_bytes(content)
    members = list(tarfiles.read(tar(own_manifest, 1)))
    reference = Reference(str(path), 0, len(content), hashlib.sha256(content).hexdigest())
    tarfiles.write(tar(own_manifest, 1), [(members[0][0], reference.encode()), *members[1:]])
    found = Pairs(own_manifest, decoder=bytes)
    assert found[10]["image"] == content
    assert content in [item["image"] for item in found.stream()]
    path.write_bytes(b"x" + content[1:])
    for reading in (lambda: found[10], lambda: list(found.stream())):
        with pytest.raises(StorageError, match=r"photo.jpg has changed since its pictures were taken: .*winnow retry"):
            reading()


def test_a_tar_that_a_takedown_wrote_again_is_indexed_again(own_manifest, tmp_path):
    """The old places would be those of other pictures."""
    found = pairs(own_manifest)
    before = found[5]["image"]
    members = list(tarfiles.read(tar(own_manifest, 0)))
    tarfiles.write(tmp_path / "again.tar", members[1:])
    own_manifest.storage.put_file(f"shards-{own_manifest.stages.shards}/00000.tar", tmp_path / "again.tar")
    again = pickle.loads(pickle.dumps(found))
    assert torch.equal(found[5]["image"], before)
    assert torch.equal(again[5]["image"], before)
    with pytest.raises(StorageError, match="has no picture"):
        again[0]


@pytest.mark.slow
def test_spawned_workers(manifest):
    found = pairs(manifest)
    assert read(found.stream(), 2, multiprocessing_context="spawn") == read(found.stream(), 2)
    assert read(found, 1, multiprocessing_context="spawn") == found.uids


RESUME = """
import pickle, sys
from torchdata.stateful_dataloader import StatefulDataLoader
import test_torch
from pipeline.manifest.manifest import Manifest
from pipeline.store.storage import Storage
if __name__ == "__main__":
    root, workers, state = pickle.loads(sys.stdin.buffer.read())
    stream = test_torch.pairs(Manifest.open(Storage(root))).stream(batch_size=4, buffer=7)
    loader = StatefulDataLoader(stream, 4, num_workers=workers)
    loader.load_state_dict(state)
    print(*test_torch.uids(loader))
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_another_process_resumes(manifest, workers):
    def loader():
        stream = pairs(manifest).stream(batch_size=4, buffer=7)
        stream.set_epoch(2)
        return StatefulDataLoader(stream, 4, num_workers=workers)

    whole, begun = uids(loader()), loader()
    assert uids(islice(iter(begun), 3)) == whole[:12]
    given = pickle.dumps((manifest.storage.root, workers, begun.state_dict()))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", RESUME], input=given, env=environment, capture_output=True, check=True)
    assert done.stdout.decode().split() == whole[12:]


def of_rank(rank, manifest, folder):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=3)
    stream = pairs(manifest).stream(batch_size=4)
    spawned = read(stream, 1, multiprocessing_context="forkserver") if rank == 1 else []
    (folder / f"{rank}").write_bytes(pickle.dumps((len(stream), read(stream), read(stream, 2), spawned)))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_ranks_of_torch_distributed(manifest, tmp_path):
    """No workers, forked ones, and one that begins without torch.distributed, of three processes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    ranks = [context.Process(target=of_rank, args=(rank, manifest, tmp_path)) for rank in range(3)]
    for each in ranks:
        each.start()
    for each in ranks:
        each.join(120)
        assert each.exitcode == 0
    told = [pickle.loads((tmp_path / f"{rank}").read_bytes()) for rank in range(3)]
    lengths, plain, forked, spawned = zip(*told, strict=True)
    assert lengths == tuple(map(len, plain))
    assert Counter(chain(*plain)) == Counter(chain(*forked)) == kept(manifest)
    assert spawned[1] == plain[1]


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_from_a_bucket(manifest, tmp_path, monkeypatch, context):
    with s3_server.running() as address:
        for name, value in s3_server.variables(address).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(cache.FOLDER, str(tmp_path / "cache"))
        cache.of_user.cache_clear()
        try:
            bucket = Storage(place(f"s3://{s3_server.BUCKET}/{uuid.uuid4().hex}/tiny"))
            for key in (key for pattern in ("*/*", "*/*/*") for key in manifest.storage.find(pattern)):
                if key[0] != ".":
                    (tmp_path / "copy").write_bytes(manifest.storage.fetch(key).read_bytes())
                    bucket.put_file(key, tmp_path / "copy")
            for path in cache.of_user().folder.rglob("*.tar"):
                path.unlink()
            found = pairs(Manifest.open(bucket))
            assert read(found.stream(), 2, multiprocessing_context=context) == read(pairs(manifest).stream(), 2)
            assert [item["uid"] for item in found] == pairs(manifest).uids
        finally:
            cache.of_user.cache_clear()
