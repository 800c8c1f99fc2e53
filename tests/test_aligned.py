"""Recorded embeddings in the layouts of DataComp and clip-retrieval, joined by key."""

import json
import os
from pathlib import Path

import downloaded_sources
import main_job
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from webdataset_tars import img2dataset_folder

from filters.core import Recipe
from pipeline.errors import ModelError, SourceError
from pipeline.ledger import ingest
from pipeline.manifest import publish, remarks
from pipeline.manifest.manifest import Manifest
from pipeline.scorers.aligned import ClipRetrievalSpec, DataCompSpec
from pipeline.scorers.key_index import KeyIndex
from pipeline.scorers.recorded import RecordedSpec
from pipeline.scorers.spec import Batch
from pipeline.scoring.plan import Plan
from pipeline.scoring.run import Scoring
from pipeline.sources import loading
from pipeline.store import kept_digests
from pipeline.store.storage import Storage
from pipeline.uids import uid

DATA = Path(os.environ.get("WINNOW_DATA", "/nowhere"))
MODEL = "ViT-L-14-quickgelu/openai"


def datacomp(folder, parts, save=np.savez):
    """DataComp's metadata: parts of {uid: (image, text)}."""
    folder.mkdir(parents=True)
    for number, rows in enumerate(parts):
        columns = {"uid": list(rows), "url": [f"http://x/{each}" for each in rows], "text": list(rows)}
        pq.write_table(pa.table(columns), folder / f"{number:08}.parquet")
        image, text = (np.array([each[side] for each in rows.values()], np.float16) for side in (0, 1))
        save(
            folder / f"{number:08}.npz", b32_img=image * 2, b32_txt=text, l14_img=image, l14_txt=text, dedup=image[:, 0]
        )
    return folder


def clip_retrieval(folder, parts, kind=np.float16, **columns):
    """The output of clip-retrieval: parts of {url: (image, text)}."""
    for name in ("img_emb", "text_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    for number, rows in enumerate(parts):
        for name, side in (("img_emb", 0), ("text_emb", 1)):
            np.save(folder / name / f"{name}_{number:02}.npy", np.array([each[side] for each in rows.values()], kind))
        table = {"image_path": [str(n) for n, _ in enumerate(rows)], "caption": list(rows), "url": list(rows)}
        pq.write_table(pa.table(table | columns), folder / "metadata" / f"metadata_{number:02}.parquet")
    return folder


def spec(folder, **changed):
    return DataCompSpec.model_validate({"kind": "datacomp", "model": MODEL, "folder": str(folder)} | changed)


def retrieval(folder, **changed):
    kind = {"kind": "clip_retrieval", "model": MODEL, "folder": str(folder), "key": "url", "by": "url"}
    return ClipRetrievalSpec.model_validate(kind | changed)


def batch(urls, captions=None, **extra):
    captions = captions or ["" for _ in urls]
    return Batch(
        [uid(*each) for each in zip(urls, captions, strict=True)], (), captions, pa.table({"url": urls, **extra})
    )


def similarities(spec, given):
    return spec.load().score(given)["similarity"].to_pylist()


PARTS = [{"a" * 32: ([3, 4], [1, 0]), "b" * 32: ([0, 2], [0, 1])}, {"c" * 32: ([1, 0], [0, 1])}]
UIDS = [key for part in PARTS for key in part]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_datacomp_by_uid(tmp_path, save):
    found = (
        spec(datacomp(tmp_path / "metadata", PARTS, save))
        .load()
        .score(batch(["u", "v", "w", "x", "y"], source_uid=[UIDS[2], UIDS[0], "d" * 32, None, UIDS[1]]))
    )
    assert found["similarity"].to_pylist() == [0, pytest.approx(0.6), None, None, 1]
    assert found["rows"].tolist() == [1, 1, 0, 0, 1]
    assert found["image_norm"].to_pylist() == [1, 5, None, None, 2]
    assert found["embeddings"].shape == (5, 2, 2)
    assert found["embeddings"][1] == pytest.approx(np.array([[0.6, 0.8], [1, 0]]), abs=1e-6)
    assert np.isnan(found["embeddings"][2:4]).all()


def test_the_other_model_and_parts_in_folders(tmp_path):
    datacomp(tmp_path / "xlarge" / "one", PARTS[:1])
    datacomp(tmp_path / "xlarge" / "two", PARTS[1:])
    b32 = spec(tmp_path / "xlarge", images="b32_img", texts="b32_txt").load()
    assert b32.score(batch(["u", "v"], source_uid=UIDS[1:]))["image_norm"].to_pylist() == [4, 2]


def test_clip_retrieval_by_url_by_pair_and_by_winnows_uid(tmp_path):
    parts = [{"http://a": ([3, 4], [1, 0])}, {"http://b": ([0, 2], [0, 1]), "http://c": ([1, 0], [0, 1])}]
    folder = clip_retrieval(tmp_path / "embeddings", parts, np.float32)
    urls = ["http://c", "http://a", "http://d"]
    assert similarities(retrieval(folder), batch(urls)) == [0, pytest.approx(0.6), None]
    both = retrieval(folder, key=("url", "caption"), by=("url", "caption"))
    assert similarities(both, batch(urls, ["http://c", "another", "http://d"])) == [0, None, None]
    named = clip_retrieval(tmp_path / "named", parts[:1], uid=[uid("http://a", "a dog")])
    own = retrieval(named, key="uid", by="uid")
    assert own.reads == []
    assert similarities(own, batch(["http://a", "http://a"], ["a dog", "a cat"])) == [pytest.approx(0.6), None]


def test_keys_of_several_rows_vectors_of_zeros_and_without_a_number(tmp_path):
    nan, far = float("nan"), float("inf")
    parts = [
        {"same": ([3, 4], [1, 0]), "other": ([3, 4], [1, 0]), "nan": ([nan, 1], [1, 0]), "zero": ([0, 0], [1, 0])},
        {"same": ([3, 4], [1, 0]), "other": ([4, 3], [1, 0]), "far": ([far, 1], [1, 0]), "text": ([1, 0], [nan, 0])},
    ]
    found = (
        retrieval(clip_retrieval(tmp_path / "e", parts))
        .load()
        .score(batch(["same", "other", "nan", "zero", "far", "text"]))
    )
    assert found["similarity"].to_pylist() == [pytest.approx(0.6), None, None, None, None, None]
    assert found["rows"].tolist() == [2, 2, 1, 1, 1, 1]
    assert found["image_norm"].to_pylist() == [5, None, None, 0, None, 1]
    assert found["text_norm"].to_pylist() == [1, None, 1, 1, 1, None]
    assert np.isnan(found["embeddings"][:, 0]).all(axis=1).tolist() == [False, True, True, True, True, False]


def test_the_index_is_that_of_a_dictionary(tmp_path):
    rng = np.random.default_rng(3)
    keys = [f"é {number}" for number in rng.integers(0, 400, 1000)]
    parts = [keys[:300], [], [None, *keys[300:]]]
    paths = [tmp_path / f"{number}.parquet" for number in range(3)]
    for path, part in zip(paths, parts, strict=True):
        pq.write_table(pa.table({"key": pa.array(part, pa.string())}), path)
    index = KeyIndex(paths, ["key"])
    assert (index.counts, len(index)) == ([300, 0, 701], 1000)
    rows = {}
    for row, key in enumerate(key for part in parts for key in part):
        rows.setdefault(key, []).append(row)
    for key in {*keys, "é 400"}:
        assert index.find([key]).tolist() == rows.get(key, [])
    assert index.find([None]).tolist() == []


def test_whole_numbers_are_keys(tmp_path):
    pq.write_table(pa.table({"key": [7, 8]}), tmp_path / "k.parquet")
    index = KeyIndex([tmp_path / "k.parquet"], ["key"])
    assert index.find([8]).tolist() == index.find(["8"]).tolist() == [1]


def broken(folder, path, content):
    datacomp(folder, PARTS)
    (folder / path).write_bytes(content)


def shorter(folder):
    datacomp(folder, PARTS)
    np.savez(folder / "00000001.npz", l14_img=np.ones((2, 2), np.float16), l14_txt=np.ones((2, 2), np.float16))


def wider(folder):
    datacomp(folder, PARTS)
    np.savez(folder / "00000001.npz", l14_img=np.ones((1, 3), np.float16), l14_txt=np.ones((1, 3), np.float16))


def cut(folder):
    clip_retrieval(folder, PARTS)
    path = folder / "img_emb" / "img_emb_01.npy"
    path.write_bytes(path.read_bytes()[:-2])


FAULTS = {
    "empty": (lambda folder: folder.mkdir(), spec, "has no .parquet: name the folder of DataComp's metadata"),
    "no npz": (
        lambda folder: (datacomp(folder, PARTS) / "00000001.npz").unlink(),
        spec,
        "1 of 2 .parquet have no .npz of the same name beside them, 00000001.parquet first",
    ),
    "other rows": (shorter, spec, "00000001.npz, l14_img has 2 rows and 00000001.parquet 1: they belong together"),
    "other width": (wider, spec, "00000001.npz, l14_img has vectors of 3 numbers, and others of 2"),
    "no zip": (lambda folder: broken(folder, "00000000.npz", b"PK"), spec, "l14_img cannot be read as embeddings"),
    "no parquet": (lambda folder: broken(folder, "00000000.parquet", b"PAR1"), spec, "is no Parquet"),
    "no array": (
        lambda folder: datacomp(folder, PARTS),
        lambda folder: spec(folder, images="l14"),
        "has no array 'l14'; it has b32_img, b32_txt, dedup, l14_img, l14_txt",
    ),
    "one number": (
        lambda folder: datacomp(folder, PARTS),
        lambda folder: spec(folder, images="dedup"),
        "floats [rows, ",
    ),
    "no key": (
        lambda folder: datacomp(folder, PARTS),
        lambda folder: spec(folder, key="id"),
        "00000000.parquet has no column 'id'; it has uid, url, text",
    ),
    "no folders": (lambda folder: folder.mkdir(), retrieval, "name the output folder of clip-retrieval"),
    "no texts": (
        lambda folder: (clip_retrieval(folder, PARTS) / "text_emb" / "text_emb_01.npy").unlink(),
        retrieval,
        "text_emb/ lacks 1 of 2 files, number 01 first",
    ),
    "cut short": (cut, retrieval, "img_emb_01.npy cannot be read as embeddings"),
}


@pytest.mark.parametrize(("make", "described", "says"), FAULTS.values(), ids=FAULTS)
def test_files_that_do_not_fit_are_one_line(tmp_path, make, described, says):
    make(tmp_path / "f")
    found = described(tmp_path / "f")
    with pytest.raises(ModelError) as told:
        (found.identity(), found.load())
    assert says in str(told.value)
    assert "\n" not in str(told.value)


def test_objects_are_never_unpickled(tmp_path):
    datacomp(tmp_path / "f", PARTS)
    np.savez(tmp_path / "f" / "00000000.npz", l14_img=np.array([[Path("/")]], object), l14_txt=np.ones((1, 2)))
    with pytest.raises(ModelError, match="these are object"):
        spec(tmp_path / "f").load()


def test_key_and_by_go_together(tmp_path):
    with pytest.raises(ValueError, match="key and by name as many columns"):
        retrieval(clip_retrieval(tmp_path / "f", PARTS), key=("url", "caption"))


def test_the_identity_is_the_content_not_the_place(tmp_path):
    before = spec(datacomp(tmp_path / "f", PARTS)).identity()
    assert json.loads(json.dumps(before)) == before
    assert spec((tmp_path / "f").rename(tmp_path / "g")).identity() == before
    assert spec(tmp_path / "g", images="b32_img").identity() != before
    np.savez(tmp_path / "g" / "00000001.npz", l14_img=np.ones((1, 2)), l14_txt=np.ones((1, 2)))
    assert spec(tmp_path / "g").identity()["files"][0] == before["files"][0]
    assert spec(tmp_path / "g").identity() != before


def test_the_digest_of_a_large_file_is_read_once_and_again_after_a_change(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kept_digests, "SETTLED", 0.0)
    path = tmp_path / "large.npy"
    path.write_bytes(bytes(kept_digests.LARGE))
    first = kept_digests.digest_of(path)
    (kept,) = (tmp_path / "cache" / "winnow" / "digests").iterdir()
    kept.write_text(kept.read_text().replace(first, "kept"))
    assert kept_digests.digest_of(path) == "kept"
    stat = path.stat()
    with path.open("r+b") as file:
        file.write(b"1")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # the same size and time of change as before
    assert kept_digests.digest_of(path) not in ("kept", first)
    kept.write_text("broken")
    assert len(kept_digests.digest_of(path)) == 64


# In a source.


def rows(numbers):
    return [
        (f"http://host/{n}.jpg", f"caption {n}", downloaded_sources.picture(n), {"source_uid": f"{n:032x}"})
        for n in numbers
    ]


def test_a_manifest_counts_what_does_not_fit(tmp_path):
    near, far = ([1, 0], [1, 0]), ([2, 0], [0, 1])
    parts = [{f"{n:032x}": near for n in range(4)}, {f"{n:032x}": far for n in (4, 5, 90, 91, 92)}]
    parts[1][f"{6:032x}"] = ([float("nan"), 1], [1, 0])
    parts[1][f"{0:032x}"] = far
    scorers = {"clip": spec(datacomp(tmp_path / "metadata", parts))}
    described, storage, shards = downloaded_sources.downloaded(tmp_path / "s", rows(range(9)), scorers)
    for shard in shards:
        Scoring(Plan.of(described), storage)(shard)
    published = published_by(described, storage)
    assert published.card["aligned"]["clip"] == {
        "rows": 11,
        "used": 8,
        "absent": 2,
        "several": 1,
        "unusable": 1,
        "unnormalised": 2,
    }
    (line,) = [line for line in remarks.of(published) if line.startswith("clip")]
    assert line.startswith(
        "clip: embeddings of 8 of 11 rows are used; rows of no downloaded pair: 3; pairs without a row: 2"
    )


def published_by(described, storage):
    ledger = ingest.update(described, storage)
    publish.publish(Plan.of(described), storage, ledger, {}, Recipe("all", ()))
    return Manifest.open(storage)


def test_embeddings_of_which_no_key_is_found_are_not_published(tmp_path):
    scorers = {"clip": spec(datacomp(tmp_path / "metadata", PARTS))}
    described, storage, (shard,) = downloaded_sources.downloaded(tmp_path / "s", rows(range(3)), scorers)
    Scoring(Plan.of(described), storage)(shard)
    with pytest.raises(ModelError) as told:
        published_by(described, storage)
    assert "scorers.clip: no key was found, so none of 3 pairs has a similarity" in str(told.value)
    assert f"source_uid is '{0:032x}', uid in 00000000.parquet is '{'a' * 32}'" in str(told.value)


def test_a_source_file_names_the_folder_beside_it(tmp_path):
    datacomp(tmp_path / "metadata", PARTS)
    (tmp_path / "list.tsv").write_text("caption\turl\tsource_uid\na\thttp://host/1.jpg\tx\n")
    text = (
        '[pairs]\nlocation = "list.tsv"\nextra = ["source_uid"]\n[scorers.clip]\nkind = "datacomp"\n'
        f'model = "{MODEL}"\nfolder = "metadata"\n'
    )
    (tmp_path / "own.toml").write_text(text)
    assert list(Plan.of(loading.load(tmp_path / "own.toml")).scores) == ["clip"]
    (tmp_path / "own.toml").write_text(text.replace('extra = ["source_uid"]\n', ""))
    with pytest.raises(SourceError, match=r"no column 'source_uid'; add it to pairs.extra"):
        Plan.of(loading.load(tmp_path / "own.toml"))
    (tmp_path / "own.toml").write_text(text.replace('"metadata"', '"metadat"'))
    with pytest.raises(SourceError, match="there is no file"):
        loading.load(tmp_path / "own.toml")


def test_shards_of_datacomp_join_by_the_uid_of_their_maker(tmp_path):
    img2dataset_folder(tmp_path / "in")
    near = ([1, 0], [1, 0])
    datacomp(tmp_path / "metadata", [{f"{n:032x}": near for n in range(6)}])
    (tmp_path / "mine.toml").write_text(
        '[pairs]\nshards = "in"\n[scorers.l14]\nkind = "datacomp"\nfolder = "metadata"\n'
        f'model = "{MODEL}"\n[[filters]]\nname = "aligned"\nsql = "l14_similarity > 0.5"\n'
    )
    main_job.run(tmp_path / "mine.toml", tmp_path / "root")
    manifest = Manifest.open(Storage(tmp_path / "root" / "mine"))
    assert (manifest.counts.kept, manifest.card["aligned"]["l14"]["used"]) == (6, 6)


@pytest.mark.skipif(not DATA.is_dir(), reason="WINNOW_DATA names no folder of real data")
def test_real_embeddings_score_the_same_in_every_layout(tmp_path):
    table = pq.read_table(DATA / "clip_b32" / "pair_embeddings.parquet")
    names = [f"{number:032x}" for number in range(len(table))]
    images, texts = (np.array(table[side].to_pylist(), np.float16) for side in ("image_embedding", "text_embedding"))
    whole = dict(zip(names, zip(images, texts, strict=True), strict=True))
    parts = [dict(list(whole.items())[start : start + 200]) for start in range(0, len(names), 200)]
    for side in ("image_embedding", "text_embedding"):
        column = table.append_column("key", pa.array(names)).select(["key", side])
        pq.write_table(column.rename_columns(["key", "embedding"]), tmp_path / f"{side}.parquet")
    recorded = RecordedSpec.model_validate(
        {"kind": "recorded", "model": MODEL}
        | {
            side: {"file": str(tmp_path / f"{side}_embedding.parquet"), "key": "key", "by": "url"}
            for side in ("image", "text")
        }
    )
    given = batch(names)
    expected = recorded.load().score(given)
    assert 0.3 < np.mean(expected["similarity"]) < 0.35
    for each in (
        spec(datacomp(tmp_path / "a", parts), by="url"),
        spec(datacomp(tmp_path / "b", parts, np.savez_compressed), by="url"),
        retrieval(clip_retrieval(tmp_path / "c", parts)),
    ):
        found = each.load().score(given)
        assert found["similarity"].equals(expected["similarity"])
        assert np.array_equal(found["embeddings"], expected["embeddings"])
