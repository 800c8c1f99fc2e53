"""Features of a target set: the stored file, the columns, and targets that are refused."""

import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import published_sources
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import winnow
from pipeline.errors import CompareError, ModelError, SourceError
from pipeline.images import picture_sets
from pipeline.images.phash import phash
from pipeline.manifest import publish
from pipeline.manifest.arms import Choice
from pipeline.manifest.manifest import Manifest
from pipeline.scorers import target_features, target_leaks
from pipeline.scorers.clip import ClipSpec
from pipeline.scorers.clusters import ClustersSpec
from pipeline.scorers.mixed import MixedSpec
from pipeline.scorers.mixed_reference import Reference
from pipeline.scorers.norm_sim import NormSimSpec
from pipeline.scorers.target_features import TargetFeaturesSpec
from pipeline.scorers.target_file import FEATURES, Target
from pipeline.scorers.targets import encode
from pipeline.scoring import pool
from pipeline.scoring.plan import Plan
from pipeline.settings import task
from pipeline.store.storage import Storage
from training.data.features import Features
from training.data.heldout import HeldOut
from training.data.pool import Pool
from training.studies import fairness

DEMO = Path(__file__).parent.parent / "pipeline/demo/clip"
KINDS = ["target_features", "norm_sim", "clusters"]


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def photograph(seed, side=96):
    """A picture with large shapes, so that its perceptual hash survives resizing."""
    cells = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((side, side), Image.Resampling.BICUBIC)


def pictures(folder, seeds, side=96):
    folder.mkdir(parents=True)
    for seed in seeds:
        photograph(seed, side).save(folder / f"{seed:03d}.jpg", quality=90)
    return folder


def held_out(folder, seeds):
    pictures(folder, seeds)
    (folder.parent / "test.csv").write_text(
        "image,caption\n" + "".join(f"{seed:03d}.jpg,a picture\n" for seed in seeds), encoding="utf-8"
    )
    return task.TestSet(location=folder.parent / "test.csv", folder=folder)


def test_a_target_in_the_test_set_is_refused(tmp_path):
    test = held_out(tmp_path / "test", range(6))
    targets = pictures(tmp_path / "targets", range(6, 12))
    target_leaks.refuse(targets, test)
    target_leaks.refuse(targets, None)
    shutil.copy(test.folder / "003.jpg", targets / "copied.jpg")
    target_leaks.refuse(targets, test, [Path("007.jpg"), Path("011.jpg")])
    with pytest.raises(ModelError, match=r"1 of 7 pictures of .* are in the test set of the task, copied.jpg first"):
        target_leaks.refuse(targets, test)


def test_a_smaller_copy_is_refused_as_well(tmp_path):
    test = held_out(tmp_path / "test", range(6))
    targets = pictures(tmp_path / "targets", [*range(6, 12), 4], side=64)
    with pytest.raises(ModelError, match=r"004.jpg first \(as 004.jpg\)"):
        target_leaks.refuse(targets, test)


def test_two_sets_are_compared_once(tmp_path, monkeypatch):
    test, targets = held_out(tmp_path / "test", range(3)), pictures(tmp_path / "targets", range(6, 9))
    target_leaks.refuse(targets, test)
    with monkeypatch.context() as patched:
        patched.setattr(target_leaks, "nearest_targets", None)
        target_leaks.refuse(targets, test)
    shutil.copy(test.folder / "001.jpg", targets / "late.jpg")
    with pytest.raises(ModelError, match="late.jpg"):
        target_leaks.refuse(targets, test)


def test_an_embedding_of_a_test_picture_is_refused(tmp_path):
    known = unit(np.random.default_rng(0).normal(size=(4, 16)))
    others = unit(np.random.default_rng(1).normal(size=(5, 16)))
    names = [f"00{number}.jpg" for number in range(4)]
    target_leaks.refuse_vectors(tmp_path / "targets.npy", others, names, known)
    with pytest.raises(ModelError, match=r"1 of 6 pictures of .*targets.npy .* row 5 first \(as 002.jpg\)"):
        target_leaks.refuse_vectors(tmp_path / "targets.npy", np.concatenate([others, known[2:3]]), names, known)
    target_leaks.refuse_vectors(tmp_path / "targets.npy", others, [], known[:0])


def test_few_targets_are_features_and_many_have_centroids():
    vectors = unit(np.random.default_rng(0).normal(size=(40, 8)))
    own = target_features.summarize("clip", vectors, 64, 0.05)
    assert sorted(map(tuple, own.centroids)) == sorted(map(tuple, vectors))
    crowded = unit(np.eye(8)[[0] * 30 + [1] * 10] + 0.05 * np.random.default_rng(1).normal(size=(40, 8)))
    found = target_features.summarize("clip", crowded, 2, 0.05)
    assert np.linalg.norm(found.centroids, axis=1) == pytest.approx([1, 1])
    assert sorted(found.shares) == pytest.approx([0.25, 0.75], abs=0.02)
    again = target_features.summarize("clip", crowded, 2, 0.05)
    assert (again.centroids == found.centroids).all()


def test_the_file_keeps_every_bit(tmp_path):
    made = target_features.summarize("clip", unit(np.random.default_rng(0).normal(size=(9, 8))), 4, 0.07)
    made.write(tmp_path / FEATURES)
    read = Target.read(tmp_path / FEATURES)
    assert (read.of, read.temperature) == ("clip", 0.07)
    assert (read.centroids == made.centroids).all()
    assert (read.shares == made.shares).all()


def described(folder, settings="", targets="targets.npy"):
    scorer = f'[scorers.target]\nkind = "target_features"\nof = "recorded"\ntargets = "{targets}"\n{settings}'
    return published_sources.listed(folder, range(40), filters=(), more=published_sources.recorded(folder) + scorer)


def crowds():
    """Forty pictures, [40, 2, 8] with their captions: 25 lie about one direction, the others about another."""
    random = np.random.default_rng(0)
    about = np.repeat(np.eye(8)[:2], (25, 15), axis=0)
    made = [unit(about + random.normal(0, 0.05, (40, 8))), unit(random.normal(size=(40, 8)))]
    return np.stack(made, axis=1).astype(np.float16)


def test_columns_and_file_of_a_pool(tmp_path):
    np.save(tmp_path / "targets.npy", unit(np.eye(8)[:2]))
    source, storage = described(tmp_path), Storage(tmp_path / "store")
    ledger = published_sources.embedded(source, storage, crowds())
    pool.run(Plan.of(source), storage, ledger, {})
    publish.publish(Plan.of(source), storage, ledger, {})
    manifest = Manifest.open(storage)
    with manifest.connection() as con:
        rows = con.execute("SELECT url, target_feature, target_nearest FROM rows").fetchall()
    target = Target.read(storage.fetch(f"scores/target-{manifest.stages.scores['target']}/{FEATURES}"))
    first = int(target.centroids[:, 0].argmax())
    assert len(rows) == 40
    for url, feature, nearest in rows:
        number = int(url.split("/")[-1].removesuffix(".jpg"))
        assert (feature == first) == (number < 25)
        assert 0.9 < nearest <= 1.001


def test_one_line_for_bad_targets(tmp_path):
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "targets.npy", unit(np.eye(8)[:2]))
    with pytest.raises(SourceError, match="'words' stores no embeddings; set of to"):
        Plan.of(
            published_sources.listed(
                tmp_path,
                range(3),
                filters=(),
                more='[scorers.words]\nkind = "captions"\n[scorers.target]\nkind = "target_features"\n'
                'of = "words"\ntargets = "targets.npy"\n',
            )
        )
    with pytest.raises(ModelError, match="encodes no pictures: give targets as .npy"):
        Plan.of(described(tmp_path, targets="empty"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "there is no picture in"),
        (lambda path: tarfile.open(path.with_suffix(".tar"), "w").close(), "there is no picture in"),
        (lambda path: path.with_suffix(".tar").write_bytes(b"no tar at all"), "is no tar, or a damaged one"),
        (lambda path: np.save(path.with_suffix(".npy"), np.zeros((0, 8), np.float32)), "a float array .* is needed"),
        (lambda path: path.with_suffix(".npy").write_bytes(b""), "is no .npy file"),
        (
            lambda path: pq.write_table(pa.table({"image": pa.array([], pa.binary())}), path.with_suffix(".parquet")),
            "there is no picture in",
        ),
    ],
)
def test_an_empty_or_a_broken_target_set_is_one_line_before_anything_runs(tmp_path, make, message):
    make(tmp_path / "targets")
    (path,) = (each for each in tmp_path.iterdir() if each.stem == "targets")
    spec = TargetFeaturesSpec(kind="target_features", targets=path)
    with pytest.raises(ModelError, match=message) as caught:
        spec.check({"clip": ClipSpec(kind="clip", model="ViT-B-32-quickgelu", weights="openai")})
    assert "\n" not in str(caught.value)


def targeted(folder, kind, targets):
    """A source with a scorer for targets, whose CLIP is the demo's, and a test set of pictures 0 to 3."""
    held_out(folder / "test", range(4))
    tables = (
        f'[scorers.clip]\nkind = "clip"\nmodel = "local-dir:{DEMO}"\nprecision = "float32"\n'
        f'[scorers.target]\nkind = "{kind}"\ntargets = "{targets}"\n'
        '[task]\nkind = "retrieval"\n[task.test]\nlocation = "test.csv"\nfolder = "test"\n'
        '[task.learners.dual]\nhead = "dual"\nencoder = "open_clip:ViT-B-32-quickgelu@openai"\n'
    )
    return published_sources.listed(folder, range(3), filters=(), more=tables)


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_with_a_leaking_target_does_not_load_its_plan(tmp_path, kind):
    """The test set of the task reaches the scorer without being named again."""
    pictures(tmp_path / "targets", range(20, 22))
    source = targeted(tmp_path, kind, "targets")
    Plan.of(source)
    shutil.copy(tmp_path / "test" / "002.jpg", tmp_path / "targets")
    with pytest.raises(ModelError, match="1 of 3 pictures of .* are in the test set of the task, 002.jpg first"):
        Plan.of(source)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["targets", "targets.tar", "targets.parquet", "targets.npy"])
def test_a_source_with_an_empty_target_set_does_not_load_its_plan(tmp_path, kind, name):
    path = tmp_path / name
    if path.suffix == ".tar":
        tarfile.open(path, "w").close()
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({"image": pa.array([], pa.binary())}), path)
    elif path.suffix == ".npy":
        np.save(path, np.zeros((0, 8), np.float32))
    else:
        path.mkdir()
    with pytest.raises(ModelError, match=r"there is no picture in|a float array \[targets, dim\] is needed") as caught:
        Plan.of(targeted(tmp_path, kind, name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_the_test_set_is_part_of_the_stage_of_targets_that_are_embeddings(tmp_path, kind):
    """Another test set must be compared again, which a run without anything new would not do."""
    np.save(tmp_path / "targets.npy", unit(np.eye(8)[:2]))
    spec = targeted(tmp_path, kind, "targets.npy").scorers["target"]
    before = spec.identity()
    (tmp_path / "test.csv").write_text("image,caption\n000.jpg,a picture\n")
    assert spec.identity() != before


LEAK = r"scorers.target: 1 of 5 pictures of .*targets.npy are in the test set .* row 4 first \(as 002.jpg\)"


@pytest.mark.slow  # it loads a CLIP
@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_of_test_pictures_are_found_before_anything_is_fetched(tmp_path, kind, monkeypatch):
    np.save(tmp_path / "targets.npy", unit(np.eye(8)[:2]))
    source = targeted(tmp_path, kind, "targets.npy")
    clip = source.scorers["clip"].load()
    others = pictures(tmp_path / "others", range(20, 24))
    both = [encode(path, picture_sets.read(path), clip) for path in (others, tmp_path / "test")]
    np.save(tmp_path / "targets.npy", both[0])
    plan = Plan.of(source)
    plan.check_targets()
    with monkeypatch.context() as patched:
        patched.setattr(ClipSpec, "load", None)
        plan.check_targets()  # the same sets are not compared again
    np.save(tmp_path / "targets.npy", np.concatenate([both[0], both[1][2:3]]))
    with pytest.raises(ModelError, match=LEAK):
        Plan.of(source).check_targets()


@pytest.mark.slow  # it loads a CLIP and starts a Prefect server
def test_curate_refuses_embeddings_of_test_pictures(tmp_path):
    np.save(tmp_path / "targets.npy", unit(np.eye(8)[:2]))
    source = targeted(tmp_path, "norm_sim", "targets.npy")
    clip = source.scorers["clip"].load()
    np.save(tmp_path / "targets.npy", encode(tmp_path / "test", picture_sets.read(tmp_path / "test"), clip))
    command = [sys.executable, "-c", "from flows.cli import main; main()", "curate", str(tmp_path / "tiny.toml")]
    done = subprocess.run([*command, "--root", str(tmp_path / "root")], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "scorers.target: 4 of 4 pictures of" in done.stderr
    with pytest.raises(ModelError, match="scorers.target: 4 of 4 pictures of"):
        winnow.curate(tmp_path / "tiny.toml", root=tmp_path / "root")
    assert not list((tmp_path / "root").rglob("shards-*/*.tar"))


HELD = "0123456789abcdef" * 4


def split_off(**keys):
    """A pool whose split has one picture, number 3."""
    test = HeldOut((HELD,), np.zeros(1, np.int16), 0, 0)
    hashes = np.array([phash(photograph(3))], np.uint64)
    return Pool(**{"table": None, "test": test, "features": [], "heldout": [Features(None, hashes)]}, **keys)


def test_pictures_that_were_split_off_are_no_targets_and_no_reference(tmp_path):
    known = split_off(leaked=None, counts={}, filters={})
    targets = pictures(tmp_path / "targets", range(6, 9))
    (tmp_path / "list.csv").write_text("image,caption\n007.jpg,a\n008.jpg,b\n")
    reference = Reference(location=tmp_path / "list.csv", folder=targets)
    scorers = {
        "near": NormSimSpec(kind="norm_sim", targets=targets),
        "target": TargetFeaturesSpec(kind="target_features", targets=targets),
        "clusters": ClustersSpec(kind="clusters", targets=targets),
        "mixed": MixedSpec(kind="mixed", mixes=("a.b", "c.d"), reference=reference),
    }
    fairness.check_targets(scorers, None, known)
    photograph(3, side=64).save(targets / "late.jpg", quality=80)
    fairness.check_targets({"mixed": scorers["mixed"]}, None, known)  # its list does not name it
    (tmp_path / "list.csv").write_text("image,caption\nlate.jpg,a\n008.jpg,b\n")
    for name, spec in scorers.items():
        with pytest.raises(CompareError, match=rf"scorers.{name}: 1 of . pictures of .* late.jpg first .*picture 0123"):
            fairness.check_targets({name: spec}, None, known)


def test_embeddings_of_pictures_that_were_split_off_are_no_targets(tmp_path):
    np.save(tmp_path / "targets.npy", unit(np.eye(8)[:2]))
    source, storage = described(tmp_path), Storage(tmp_path / "store")
    vectors = unit(np.random.default_rng(3).normal(size=(40, 2, 8))).astype(np.float16)
    ledger = published_sources.embedded(source, storage, vectors)
    pool.run(Plan.of(source), storage, ledger, {})
    publish.publish(Plan.of(source), storage, ledger, {})
    choice = Choice.open(storage)
    with choice.manifest.connection() as con:
        ((held,),) = con.execute("SELECT sha256 FROM rows WHERE url LIKE '%/17.jpg'").fetchall()
    known = split_off(leaked=None, counts={}, filters={})
    known = replace(known, test=replace(known.test, sha256=(held,)))
    fairness.check_targets(source.scorers, choice.manifest, known)
    np.save(tmp_path / "targets.npy", unit(vectors[[4, 17], 0].astype(np.float32)))
    with pytest.raises(CompareError, match=rf"scorers.target: 1 of 2 .* row 1 first \(as the picture {held[:12]}\)"):
        fairness.check_targets(source.scorers, choice.manifest, known)
    unscored = source.scorers | {"target": source.scorers["target"].model_copy(update={"of": "other"})}
    fairness.check_targets(unscored, choice.manifest, known)
