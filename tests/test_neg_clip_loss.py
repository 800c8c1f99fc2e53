"""negCLIPLoss over stored embeddings, and NormSim, against direct computations in float64."""

import hashlib
from pathlib import Path

import numpy as np
import published_sources
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.numpy import load_file
from scipy.special import logsumexp

from pipeline.errors import ModelError, SourceError
from pipeline.scorers.clip import ClipSpec
from pipeline.scorers.neg_clip_loss import NegClipLossSpec, batches, neg_clip_loss
from pipeline.scorers.norm_sim import NormSimSpec
from pipeline.scorers.recorded import RecordedSpec
from pipeline.scoring import pool
from pipeline.scoring.plan import Plan
from pipeline.store.storage import Storage

TAU = 0.05


def unit(seed, *shape):
    vectors = np.random.default_rng(seed).normal(size=shape) + 0.5  # a cone, as embeddings lie
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def direct(x, t, tau, batch):
    """As published, in float64, for a batch that stands for one of `batch` pairs."""
    x, t = x.astype(np.float64), t.astype(np.float64)
    logits = x @ t.T / tau
    more = np.log(batch / len(x))
    return np.diag(logits) * tau - tau / 2 * (logsumexp(logits, axis=1) + more + logsumexp(logits, axis=0) + more)


@pytest.mark.parametrize(("pairs", "tau"), [(1, TAU), (2, 0.01), (300, TAU), (1100, 0.01)])
def test_a_batch_is_as_published(pairs, tau):
    x, t = unit(0, pairs, 16), unit(1, pairs, 16)
    x[0] = -t[0]  # one pair fits as badly as can be
    np.testing.assert_allclose(neg_clip_loss(x, t, tau, pairs), direct(x, t, tau, pairs), rtol=0, atol=1e-6)
    assert neg_clip_loss(t, t, tau, pairs).max() <= 1e-6
    np.testing.assert_allclose(neg_clip_loss(x, t, tau, 4 * pairs), direct(x, t, tau, 4 * pairs), rtol=0, atol=1e-6)


def test_batches_are_few_equal_and_seeded_by_uid():
    uids = [f"{number:032x}" for number in range(100)]
    cut = batches(uids, 0, 30)
    assert [len(each) for each in cut] == [25] * 4
    assert sorted(np.concatenate(cut)) == list(range(100))
    backwards = batches(uids[::-1], 0, 30)
    assert [{uids[::-1][row] for row in each} for each in backwards] == [{uids[row] for row in each} for each in cut]
    assert {*batches(uids, 1, 30)[0]} != {*cut[0]}
    assert [len(each) for each in batches([], 0, 30)] == [0]


LOSS = f'[scorers.loss]\nkind = "neg_clip_loss"\nof = "recorded"\ntemperature = {TAU}\n'


@pytest.fixture
def recorded(tmp_path):
    return published_sources.recorded(tmp_path)


def scored(described, storage, ledger):
    """The score of each uid, and the number of its pair."""
    pool.run(Plan.of(described), storage, ledger, {})
    stage = Plan.of(described).pool(ledger, {})["loss"]
    found = {}
    for shard in ledger.shards:
        urls = pq.read_table(storage.fetch(shard.key))["url"].to_pylist()
        table = pq.read_table(storage.fetch(stage.item(shard.number, ".parquet")))
        for url, row in zip(urls, table.to_pylist(), strict=True):
            found[row["uid"]] = (int(url.split("/")[-1].removesuffix(".jpg")), row["loss_score"])
    return found


def test_the_whole_pool_is_as_published(tmp_path, recorded):
    more = recorded + LOSS + "batch = 16\nshuffles = 3\n"
    vectors = unit(2, 43, 2, 8).astype(np.float16)
    vectors[7, 1] = np.nan
    described = published_sources.listed(tmp_path, range(43), filters=(), more=more)
    storage = Storage(tmp_path / "store")
    found = scored(described, storage, published_sources.embedded(described, storage, vectors, failed={3}))
    uids = [uid for uid, (number, _) in found.items() if number not in (3, 7)]
    numbers = np.array([found[uid][0] for uid in uids])
    expected = np.zeros(len(uids))
    for shuffle in range(3):
        seeds = [hashlib.blake2b(f"{shuffle}\0{uid}".encode(), digest_size=8).digest() for uid in uids]
        for rows in np.array_split(sorted(range(41), key=seeds.__getitem__), 3):  # 41 pairs, 16 at most
            both = vectors[numbers[rows]]
            expected[rows] += direct(both[:, 0], both[:, 1], TAU, 16) / 3
    assert [found[uid][1] for uid in uids] == pytest.approx(expected, abs=1e-6)
    assert {number for number, value in found.values() if value is None} == {3, 7}
    more = more.replace("recorded.parquet", "../recorded.parquet")
    elsewhere = published_sources.listed(tmp_path / "b", range(42, -1, -1), filters=(), more=more)
    other = Storage(tmp_path / "other")
    again = scored(elsewhere, other, published_sources.embedded(elsewhere, other, vectors, failed={3}))
    assert again == found  # to the bit, in whatever order the list is


def test_a_pool_without_pairs_has_no_loss(tmp_path, recorded):
    described = published_sources.listed(tmp_path, range(3), filters=(), more=recorded + LOSS)
    vectors = unit(0, 3, 2, 8).astype(np.float16)
    storage = Storage(tmp_path / "store")
    found = scored(described, storage, published_sources.embedded(described, storage, vectors, failed={0, 1, 2}))
    assert {value for _, value in found.values()} == {None}


def test_the_temperature_is_the_models():
    clip = ClipSpec(kind="clip", model="local-dir:pipeline/demo/clip", precision="float32")
    (weights,) = (Path(__file__).parent.parent / "pipeline/demo/clip").glob("*.safetensors")
    scale = float(np.exp(load_file(weights)["logit_scale"].astype(np.float32)))
    x, t = unit(0, 9, 16), unit(1, 9, 16)
    loaded = NegClipLossSpec(kind="neg_clip_loss").load(clip.load)
    assert 1 / loaded.temperature == pytest.approx(scale, rel=1e-3)
    assert neg_clip_loss(x, t, loaded.temperature, 9) == pytest.approx(direct(x, t, 1 / scale, 9), abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ('of = "pixels"\n', "scorers.loss: 'pixels' stores no embeddings"),
        ('of = "recorded"\n', "scorers.loss: set temperature: 'recorded' holds embeddings without their model"),
    ],
)
def test_what_the_loss_cannot_read(tmp_path, recorded, settings, told):
    described = published_sources.listed(
        tmp_path, range(3), more=recorded + '[scorers.loss]\nkind = "neg_clip_loss"\n' + settings
    )
    with pytest.raises(SourceError, match=told):
        Plan.of(described)


def norm_sim(targets, of="recorded"):
    return NormSimSpec(kind="norm_sim", of=of, targets=targets)


def test_norm_sim_is_as_published(tmp_path):
    targets, pictures = unit(0, 70, 16), unit(1, 30, 16)
    np.save(tmp_path / "targets.npy", targets)
    found = norm_sim(tmp_path / "targets.npy").load(lambda: None).score(pictures)
    cosines = pictures.astype(np.float64) @ targets.astype(np.float64).T
    np.testing.assert_allclose(found["p2"], np.sqrt((cosines**2).sum(axis=1)), rtol=1e-5)
    np.testing.assert_allclose(found["inf"], cosines.max(axis=1), atol=1e-6)
    assert {str(values.dtype) for values in found.values()} == {"float32"}


def test_target_pictures_are_encoded_by_the_same_model(tmp_path):
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((80, 64)).save(tmp_path / f"{number}.png")
    clip = ClipSpec(kind="clip", model="local-dir:pipeline/demo/clip", precision="float32")
    spec = norm_sim(tmp_path, "clip")
    spec.check(clip)
    loaded = clip.load()
    own = loaded.encode_pictures([loaded.prepare(Image.open(tmp_path / "1.png"))])
    found = spec.load(lambda: loaded).score(own)
    assert found["inf"] == pytest.approx(1, abs=1e-5)
    assert 1 <= found["p2"][0] <= np.sqrt(3) + 1e-6


def npy(path, array):
    np.save(path / "targets.npy", array)
    return path / "targets.npy"


def broken(path):
    (path / "1.jpg").write_bytes(b"no picture")
    return path


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        (lambda path: npy(path, 3 * unit(0, 4, 8)), "norms 3 to 3, not 1"),
        (lambda path: npy(path, unit(0, 8)), r"float32 \(8,\)"),
        (lambda path: npy(path, unit(0, 0, 8)), r"\(0, 8\)"),
        (lambda path: npy(path, np.array([[np.nan] * 8], np.float32)), "norms nan to nan"),
        (lambda path: npy(path, unit(0, 4, 9)), "the targets have 9 numbers each, and the embeddings 8"),
        (broken, "1.jpg in .* is no picture"),
    ],
)
def test_targets_that_are_none(tmp_path, targets, told):
    with pytest.raises(ModelError, match=told):
        norm_sim(targets(tmp_path)).load(lambda: None).score(unit(1, 5, 8))


def test_targets_that_nobody_could_encode(tmp_path):
    recorded = RecordedSpec.model_construct(kind="recorded", model="some/model")
    with pytest.raises(ModelError, match="encodes no pictures: give targets as .npy, embeddings of some/model"):
        norm_sim(tmp_path).check(recorded)
    clip = ClipSpec(kind="clip", model="local-dir:pipeline/demo/clip")
    with pytest.raises(ModelError, match="there is no picture in"):
        norm_sim(tmp_path, "clip").check(clip)
