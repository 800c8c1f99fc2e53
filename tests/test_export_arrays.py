"""Uids as DataComp's resharder takes them, and embeddings in clip-retrieval's layout."""

import numpy as np
import pandas as pd
import published_sources
import pyarrow as pa
import pytest

from filters import recipes
from pipeline.errors import ModelError, StorageError
from pipeline.export import export, subset
from pipeline.export.content import Content
from pipeline.manifest.manifest import Manifest
from pipeline.scorers.aligned import ClipRetrievalSpec
from pipeline.scorers.spec import Batch
from pipeline.store.storage import Storage

VECTORS = {number: np.eye(8, dtype=np.float16)[[number % 8, number % 7]] for number in range(40, 70)}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Pictures 40 to 69, those from 50 on kept; 53 has no embedding of its caption."""
    tmp_path = tmp_path_factory.mktemp("tiny")
    (tmp_path / "lists").mkdir()
    more = published_sources.recorded(tmp_path / "lists")
    described = published_sources.listed(tmp_path / "lists", range(40, 70), more=more)
    storage = Storage(tmp_path / "store")
    vectors = VECTORS | {53: np.stack([VECTORS[53][0], np.full(8, np.nan, np.float16)])}
    published_sources.embedded(described, storage, vectors)
    published_sources.published(described, storage)
    return Manifest.open(storage)


def as_resharder_looks(uid):
    """A number as DataComp's resharder makes it of the uid in a sample's JSON."""
    return np.array([divmod(int(uid, 16), 2**64)], np.dtype("u8,u8"))[0]


def test_the_resharder_finds_exactly_the_kept_uids(manifest, tmp_path):
    done = export.write(Content(manifest, "uids"), tmp_path / "out")
    found = np.load(done.path / "uids.npy", mmap_mode="r")
    assert (found.dtype, found.shape) == (np.dtype("u8,u8"), (20,))
    with manifest.connection() as con:
        rows = con.execute("SELECT uid, kept FROM rows").fetchall()
    counts = {
        uid: np.searchsorted(found, as_resharder_looks(uid), "right")
        - np.searchsorted(found, as_resharder_looks(uid), "left")
        for uid, _ in rows
    }
    assert counts == {uid: int(kept) for uid, kept in rows}


def test_uids_of_the_source_s_own_data_come_first():
    own = ["00000000000000010000000000000002", "FFFFFFFFFFFFFFFF0000000000000000", "3"]
    pairs = pa.table({"uid": ["a" * 32, "b" * 32, "c" * 32], "source_uid": own})
    assert subset.column(pairs) == "source_uid"
    assert subset.halves(pairs["source_uid"]).tolist() == [(0, 3), (1, 2), (2**64 - 1, 0)]
    assert subset.column(pairs.drop("source_uid")) == "uid"
    assert subset.column(pairs.set_column(1, "source_uid", pa.array(["x-1", None, "img 3"]))) == "uid"
    with pytest.raises(StorageError, match=r"1 of 3 kept pairs have no uid of 32 hex digits in the column source_uid"):
        subset.column(pairs.set_column(1, "source_uid", pa.array([*own[:2], None])))


def test_embeddings_are_aligned_with_their_table(manifest, tmp_path):
    done = export.write(Content(manifest, "embeddings"), tmp_path / "out", piece=8)
    assert (done.pairs, done.pieces) == (19, 3)  # one has no embedding of its caption
    assert "| written | 19 |" in (done.path / "README.md").read_text()
    seen = 0
    for number in range(3):
        pictures = np.load(done.path / f"img_emb/img_emb_{number}.npy")
        captions = np.load(done.path / f"text_emb/text_emb_{number}.npy")
        table = pd.read_parquet(done.path / f"metadata/metadata_{number}.parquet")
        assert (pictures.dtype, pictures.shape) == (np.float16, captions.shape) == (np.float16, (len(table), 8))
        assert list(table["image_path"]) == list(table["uid"])
        for row, caption in enumerate(table["caption"]):
            expected = VECTORS[int(caption.split()[-1])]
            assert (pictures[row] == expected[0]).all()
            assert (captions[row] == expected[1]).all()
        seen += len(table)
    assert seen == 19


def test_names_sort_as_numbers_do():
    from pipeline.export.vectors import names

    assert names(3, 9)[0] == "img_emb/img_emb_3.npy"
    assert names(3, 10)[2] == "metadata/metadata_03.parquet"  # as clip-retrieval names ten files


def test_which_scorer(manifest, tmp_path):
    with pytest.raises(ModelError, match="did you mean 'recorded'"):
        export.write(Content(manifest, "embeddings", scorer="record"), tmp_path / "out")
    with pytest.raises(StorageError, match="no other format has one"):
        export.write(Content(manifest, "csv", scorer="recorded"), tmp_path / "out")
    assert export.write(Content(manifest, "embeddings", recipes.everything, "recorded"), tmp_path / "out").pairs == 29


def test_without_stored_embeddings(tmp_path):
    storage = Storage(tmp_path / "store")
    published_sources.published(published_sources.listed(tmp_path / "lists", range(50, 53)), storage)
    with pytest.raises(ModelError, match="no scorer of this manifest stored embeddings; a scorer of kind clip"):
        export.write(Content(Manifest.open(storage), "embeddings"), tmp_path / "out")


def test_a_scorer_reads_exported_embeddings_again(manifest, tmp_path):
    """The scorer of clip-retrieval's layout finds the vector of each pair by winnow's uid."""
    folder = export.write(Content(manifest, "embeddings"), tmp_path / "out", piece=8).path
    keys = {"key": "uid", "by": "uid", "folder": str(folder), "model": "some/model", "kind": "clip_retrieval"}
    table = pd.concat(pd.read_parquet(path) for path in sorted(folder.glob("metadata/*.parquet")))
    uids, captions = list(table["uid"]), list(table["caption"])
    found = ClipRetrievalSpec.model_validate(keys).load().score(Batch(uids, (), captions, pa.table({"url": uids})))
    assert set(found["rows"].tolist()) == {1}
    expected = np.stack([VECTORS[int(caption.split()[-1])] for caption in captions])
    assert (found["embeddings"] == expected).all()
