"""What must not change a score: order, company, batch, shard, workers, decoder, and where a run was taken up again."""

import json
import os
from functools import cache, partial
from pathlib import Path

import downloaded_sources
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.bench import synthetic
from pipeline.demo import world
from pipeline.engine import local
from pipeline.errors import StorageError
from pipeline.ledger import ingest
from pipeline.manifest import publish
from pipeline.models.recent import Recent
from pipeline.scorers.captions import CaptionsSpec
from pipeline.scorers.clip import ClipSpec
from pipeline.scoring.plan import Plan
from pipeline.scoring.run import Scoring

CLIP = Path(world.__file__).parent / "clip"
PAIRS = 24
TOLERANCE = {"float32": 1e-5, "bfloat16": 0.02}
"""Of a cosine. A decoder that resizes otherwise may move it by 1e-3 besides."""

WORDS = ("a red cube", "a blue ball", "the small green cone behind a large grey cylinder, near a yellow torus")


def spec(precision="float32", folder=CLIP, **changed):
    settings = {"kind": "clip", "model": f"local-dir:{folder}", "precision": precision, **changed}
    return ClipSpec.model_validate(settings)


def rows(order):
    return [(f"http://host/{n}.jpg", f"{WORDS[n % 3]} {n}", downloaded_sources.picture(n, (90, 70 + n))) for n in order]


def scored(folder, order, clip, shard_size=1000, decoder="pillow"):
    """Similarity by URL, the source, its storage and its shards."""
    described, storage, shards = downloaded_sources.downloaded(folder, rows(order), {"clip": clip}, shard_size)
    described = described.model_copy(update={"decoder": decoder})
    list(local.run(lambda: Scoring(Plan.of(described), storage), shards))
    found = {}
    for shard in shards:
        uids = downloaded_sources.scores(described, storage, shard, "clip")
        found |= dict(zip(uids["uid"], uids["similarity"], strict=True))
    assert None not in found.values()
    return found, described, storage, shards


@cache
def expected(tmp, precision):
    return scored(tmp / precision, range(PAIRS), spec(precision, batch=PAIRS))[0]


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    return tmp_path_factory.mktemp("once")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@settings(max_examples=5, deadline=None, derandomize=True)
@given(
    order=st.permutations(range(PAIRS)),
    batch=st.integers(1, 2 * PAIRS),
    shard_size=st.integers(3, PAIRS),
    workers=st.integers(1, 4),
    decoder=st.sampled_from(["pillow", "torchvision"]),
)
def test_no_score_depends_on_how_it_was_computed(
    tmp_path_factory, once, precision, order, batch, shard_size, workers, decoder
):
    threads = torch.get_num_threads()
    torch.set_num_threads(min(workers, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda process: set(range(workers)), raising=False)
        found = scored(tmp_path_factory.mktemp("x"), order, spec(precision, batch=batch), shard_size, decoder)[0]
    torch.set_num_threads(threads)
    told = expected(once, precision)
    assert found.keys() == told.keys()
    allowed = TOLERANCE[precision] + (1e-3 if decoder != "pillow" else 0)
    assert max(abs(found[uid] - told[uid]) for uid in told) <= allowed


def made(described, storage):
    """The bytes of every result, by key."""
    stage = Plan.of(described).scores["clip"]
    folders = (stage.folder, Plan.of(described).embeddings["clip"].folder)
    return {key: storage.fetch(key).read_bytes() for folder in folders for key in storage.keys(folder)}


@pytest.mark.slow
def test_for_one_certificate_bytes_are_equal_wherever_a_run_was_stopped(tmp_path):
    _, described, storage, _ = scored(tmp_path / "whole", range(PAIRS), spec(), shard_size=8)
    again, other, shards = downloaded_sources.downloaded(tmp_path / "parts", rows(range(PAIRS)), {"clip": spec()}, 8)
    work = Scoring(Plan.of(again), other)
    work(shards[0])
    list(local.run(lambda: Scoring(Plan.of(again), other), shards))
    whole, parts = made(described, storage), made(again, other)
    assert whole == parts
    assert len(whole) == 8  # 3 shards, scores and embeddings, key.json and certificate.json


def test_two_models_or_preprocessings_cannot_mix(tmp_path):
    """Whatever is changed, results go elsewhere, and a manifest of the changed source takes nothing of them."""
    blurred = tmp_path / "other"
    blurred.mkdir()
    for path in CLIP.iterdir():
        (blurred / path.name).write_bytes(path.read_bytes())
    config = json.loads((blurred / "open_clip_config.json").read_text())
    config["preprocess_cfg"] = {**config["preprocess_cfg"], "interpolation": "bilinear"}
    (blurred / "open_clip_config.json").write_text(json.dumps(config))
    _, described, storage, _ = scored(tmp_path / "store", range(4), spec())
    ledger = ingest.update(described, storage)
    first = publish.publish(Plan.of(described), storage, ledger, {})
    keys = {Plan.of(described).scores["clip"].key}
    for changed, decoder in (
        (spec(folder=blurred), "pillow"),
        (spec("bfloat16"), "pillow"),
        (spec(batch=3), "pillow"),
        (spec(), "torchvision"),
    ):
        other = described.model_copy(update={"scorers": {"clip": changed}, "decoder": decoder})
        keys.add(Plan.of(other).scores["clip"].key)
        with pytest.raises(StorageError):
            publish.publish(Plan.of(other), storage, ledger, {})
    assert len(keys) == 5
    assert not publish.publish(Plan.of(described), storage, ledger, {}).new
    assert publish.publish(Plan.of(described), storage, ledger, {}).id == first.id


def test_captions_of_the_benchmark_have_the_lengths_of_the_web():
    words = np.array([len(caption.split()) - 1 for caption in synthetic.captions(2000)])
    assert 11 < words.mean() < 13
    assert np.quantile(words, [0.05, 0.5, 0.99]).tolist() == pytest.approx([4, 10, 40], abs=3)


@pytest.mark.slow
def test_two_workers_leave_what_one_leaves(tmp_path):
    """Each has one thread less, so that the last bit of a similarity may differ. Of captions no byte does."""
    scorers = {"clip": spec(), "captions": CaptionsSpec.model_validate({"kind": "captions"})}
    one, alone, shards = downloaded_sources.downloaded(tmp_path / "one", rows(range(24)), scorers, 6)
    two, beside, _ = downloaded_sources.downloaded(tmp_path / "two", rows(range(24)), scorers, 6)
    list(local.run(partial(Scoring, Plan.of(one), alone), shards))
    outcomes = local.run_on_devices(partial(Scoring, Plan.of(two), beside), shards, ["", ""])
    assert {error for _, error in outcomes} == {None}
    assert made(one, alone).keys() == made(two, beside).keys()
    stage = Plan.of(one).scores["captions"]
    for shard in shards:
        here, there = (
            downloaded_sources.scores(*each, shard, "clip")["similarity"] for each in ((one, alone), (two, beside))
        )
        assert here == pytest.approx(there, abs=1e-6)
        key = stage.item(shard.number, ".parquet")
        assert alone.fetch(key).read_bytes() == beside.fetch(key).read_bytes()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_caption_that_comes_again_in_another_shard_is_encoded_once_and_scores_the_same_bits(tmp_path, precision):
    made = [(f"http://host/{n // 2}.jpg", WORDS[n % 3], downloaded_sources.picture(n // 2)) for n in range(24)]
    made = [(url, f"{caption} {n // 16}", picture) for n, (url, caption, picture) in enumerate(made)]
    stored = []
    for name, shared in (("shared", True), ("alone", False)):
        described, storage, shards = downloaded_sources.downloaded(tmp_path / name, made, {"clip": spec(precision)}, 7)
        scoring = Scoring(Plan.of(described), storage)
        clip = scoring.load("clip")
        if not shared:
            clip.embed_captions = clip.encode_captions
        list(local.run(lambda scoring=scoring: scoring, shards))
        stored.append([downloaded_sources.embeddings(described, storage, shard, "clip").tobytes() for shard in shards])
        if shared:
            assert len(shards) > 2
            assert clip.embed_captions.encoded == len({caption for _, caption, _ in made}) == 6
    assert stored[0] == stored[1]


def test_only_the_last_captions_are_held():
    asked = []

    def encode(captions):
        asked.extend(captions)
        return np.array([[len(caption)] for caption in captions], np.float32)

    recent = Recent(encode, most=2)
    assert recent(["a", "bb", "a", "ccc"]).tolist() == [[1], [2], [1], [3]]
    assert recent(["bb"]).tolist() == [[2]]
    assert recent(["dddd", "bb"]).tolist() == [[4], [2]]
    assert recent(["ccc", "a"]).tolist() == [[3], [1]]
    assert (asked, recent.encoded) == (["a", "bb", "ccc", "dddd", "ccc", "a"], 6)
