"""Versions of pairs: what the rules, the crop's CLIP and the guard do to pairs of the demo's and of a tiny source."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import training_sources

from pipeline.demo import pool as demo
from pipeline.errors import SourceError
from pipeline.manifest.arms import Choice
from pipeline.scorers.clip import ClipSpec
from training.augment import picture_policies
from training.augment.joint import Guard
from training.data import pool, versions
from training.data.version_maker import VersionMaker
from training.studies import gain

CLIP = ClipSpec(kind="clip", model=f"local-dir:{Path(demo.__file__).parent / 'clip'}", precision="float32", batch=64)
MARGIN = 0.15


@pytest.fixture(scope="module")
def guard():
    return Guard.load(CLIP, MARGIN)


def scene(number):
    """A photograph of the demo's, and a caption of its."""
    return demo.photograph(7, demo.TEST, number), demo.captions(7, demo.TEST, number, 1)[0]


@pytest.mark.slow
def test_a_crop_that_loses_what_the_caption_names_is_refused(guard):
    """The toy stands in a corner of a larger picture; a mask that is cropped alike tells how much of it is left."""
    mask = np.zeros((224, 224, 3), np.uint8)
    mask[5:60, 5:60] = 255
    left = {seed: picture_policies.apply(mask, ("crop",), seed)[0].mean() / mask.mean() for seed in range(60)}
    crops = {
        "lost": [seed for seed, share in left.items() if share < 0.3][:4],
        "kept": [seed for seed, share in left.items() if share > 1][:4],
    }
    refused = {name: [] for name in crops}
    for toy, caption in map(scene, range(12)):
        pixels = np.full((224, 224, 3), toy[:4].mean(axis=(0, 1)), np.uint8)
        pixels[:84, :84] = toy[30:114, 30:114]
        for name, seeds in crops.items():
            cropped = [picture_policies.apply(pixels, ("crop",), seed)[0] for seed in seeds]
            fits = guard.similarity([pixels, *cropped], [caption] * (1 + len(seeds)))
            refused[name] += (fits[0] - fits[1:] > MARGIN).tolist()
    print({name: (np.mean(found), len(found)) for name, found in refused.items()})
    assert min(len(found) for found in refused.values()) >= 24
    assert np.mean(refused["lost"]) > np.mean(refused["kept"]) + 0.4


@pytest.mark.slow
def test_the_guard_rejects_the_wrong_colour_and_leaves_the_right_one(guard):
    named = [(pixels, caption) for pixels, caption in map(scene, range(60)) if " red " in caption]
    pictures, captions = zip(*named, strict=True)
    before = guard.similarity(pictures, captions)
    after = guard.similarity(pictures, [caption.replace(" red ", " green ") for caption in captions])
    brighter = guard.similarity([np.minimum(pixels, 235) + 20 for pixels in pictures], captions)
    assert len(named) >= 4
    assert np.mean(before - after > MARGIN) > 0.8
    assert np.mean(before - brighter > MARGIN) < 0.2


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    """A gain with every augmentation, of a source some of whose captions name a side or a colour."""
    captions = {number: f"a red {training_sources.truth(number)} on the left" for number in range(0, 60, 4)}
    asked = {"augmentations": json.dumps(list(versions.AUGMENTATIONS)), "margin": MARGIN}
    encoder = f'{{ kind = "open_clip", model = "{CLIP.model}" }}'
    asked["learners"] = {"linear": ("linear", training_sources.RESNET), "dual": ("dual", encoder)}
    described, storage = training_sources.task(
        tmp_path_factory.mktemp("tried"), count=60, captions=captions, steps=30, **asked
    )
    described = described.model_copy(update={"scorers": {"clip": CLIP}})
    return described, storage, gain.measure(described, storage)


@pytest.mark.slow
def test_every_augmentation_is_reported(tried):
    _, _, measured = tried
    linear, dual = (
        {(row["arm"], row["augmented"]): row["f1_macro_mean"] for row in learner["rows"]}
        for learner in measured["learners"]
    )
    for rows, learner in zip((linear, dual), measured["learners"], strict=True):
        assert rows.keys() >= {("filtered", how) for how in (False, True, *versions.AUGMENTATIONS)}
        names = {each["name"]: each["difference"] for each in learner["differences"]}
        assert names["both - plain"] == pytest.approx(rows["filtered", "both"] - rows["filtered", False])
        assert names["guarded - both"] == pytest.approx(rows["filtered", "guarded"] - rows["filtered", "both"])
    # A learner that sees no captions cannot tell theirs from plain pairs.
    assert linear["filtered", "text"] == linear["filtered", False]
    assert dual["filtered", "text"] != dual["filtered", False]
    assert measured["versions"]["says"].startswith(f"of {measured['versions']['versions']} versions of both")


@pytest.mark.slow
def test_versions_follow_the_rules_and_are_counted(tried):
    described, storage, measured = tried
    choice = Choice.open(storage)
    maker = VersionMaker(storage, described.task.budget, CLIP)
    with choice.manifest.connection() as con:
        pairs = pool.captions(choice, con.sql("SELECT uid FROM rows").to_arrow_table()["uid"])
    made = maker.shard(choice.manifest.stages.shards, 0, pairs.filter(pc.equal(pairs["shard"], 0))).to_pylist()
    caption = dict(zip(pairs["uid"].to_pylist(), pairs["caption"].to_pylist(), strict=True))
    for each in made:
        sided = "on the left" in caption[each["uid"]]
        assert ("jitter" in each["steps"], "shade" in each["steps"]) == (not sided, sided)
        assert not (sided and "crop" in each["steps"])
        assert not each["uncropped"] or "crop" not in each["steps"]
        if sided and "flip" in each["taken"] and not {"deletion", "spelling"} & set(each["taken"]):
            assert "right" in each["caption"]
    counts = measured["versions"]
    assert counts["versions"] >= len(made)
    assert 0 < counts["label_lost"]["both"] < counts["versions"]
    assert set(counts["by_step"]) <= {*picture_policies.STEPS, "deletion", "swap", "spelling"}
    assert all(each["rejected"] <= each["of"] for each in counts["by_step"].values())


def test_without_a_clip_nobody_claims_to_have_looked():
    counts = {"versions": 9, "label_lost": {"both": 2, "text": 1}, "uncropped": 0, "rejected": 0, "by_step": {}}
    assert versions.summarize({**counts, "looked": True}).endswith("0 were not cropped, and the guard rejected 0: ")
    assert versions.summarize({**counts, "looked": False}).endswith(
        "there is no CLIP scorer that could check crops and guard"
    )


def test_what_is_refused_is_seen_plainly():
    plain, made = np.zeros((2, 1, 3), np.float16), np.ones((1, 2, 3), np.float16)
    rows = np.array([-1, 0], np.int64)
    refused = {"guarded": np.array([[True, False]])}
    known = versions.Versions(rows, [], {}, refused, {})
    assert known.select("guarded", np.array([1, 1]), plain, made)[:, :, 0].tolist() == [[0, 0, 1]] * 2


@pytest.mark.slow
def test_a_second_run_makes_nothing(tried):
    described, storage, measured = tried
    before = {path: path.stat().st_mtime_ns for path in storage.root.rglob("*.*")}
    assert gain.measure(described, storage) == measured
    assert {path: path.stat().st_mtime_ns for path in storage.root.rglob("*.*")} == before


@pytest.mark.slow
def test_a_guard_needs_a_clip(tried):
    described, storage, _ = tried
    with pytest.raises(SourceError, match="a guard needs a scorer of kind clip"):
        gain.measure(described.model_copy(update={"scorers": {}}), storage)


@pytest.mark.slow
def test_a_recaption_is_the_first_version_of_its_caption_and_never_replaces_it(tried):
    described, storage, _ = tried
    choice = Choice.open(storage)
    budget = described.task.budget.model_copy(update={"recaption": "sha256"})  # a text that every pair has
    with choice.manifest.connection() as con:
        known = con.sql("SELECT uid, caption, sha256 FROM rows").to_arrow_table()
    pairs = pool.captions(choice, known["uid"], budget.recaption)
    own = pairs.filter(pc.equal(pairs["shard"], 0))
    none = pa.array([None, *own["recaption"].to_pylist()[1:]])
    own = own.set_column(own.column_names.index("recaption"), "recaption", none)
    made = VersionMaker(storage, budget, None).shard(choice.manifest.stages.shards, 0, own)
    plain = VersionMaker(storage, described.task.budget, None).shard(choice.manifest.stages.shards, 0, own)
    views = budget.augmented_views
    texts = [made["text"].to_pylist()[at::views] for at in range(views)]
    before = [plain["text"].to_pylist()[at::views] for at in range(views)]
    assert texts[0] == [before[0][0], *own["recaption"].to_pylist()[1:]]
    assert texts[1:] == before[1:]
    assert pairs["caption"].to_pylist() == known["caption"].to_pylist()
    with pytest.raises(SourceError, match=r"task\.budget\.recaption: the rows have no column 'judge_recaption'"):
        pool.captions(choice, known["uid"], "judge_recaption")
