"""Export of pictures that the store only refers to, and an export as the shards of another source."""

import json

import main_job
import numpy as np
import pytest
import webdataset
from webdataset_tars import img2dataset_folder, picture

from pipeline.errors import StorageError
from pipeline.export import export
from pipeline.export.content import Content
from pipeline.manifest.manifest import Manifest
from pipeline.store.storage import Storage

pytestmark = pytest.mark.slow


def published(folder, shards, name):
    toml = folder / f"{name}.toml"
    toml.write_text(f"filters = []\n[pairs]\nshards = {json.dumps(shards)}\n")
    main_job.run(toml, folder / "data")
    return Manifest.open(Storage(folder / "data" / name))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """DataComp's shards of twelve pictures, of which number 3 is missing."""
    tmp_path = tmp_path_factory.mktemp("datacomp")
    img2dataset_folder(tmp_path / "in", shards=2, size=6, failed={3})
    return published(tmp_path, "in/{00000..00001}.tar", "mine")


def test_pictures_leave_the_tars_that_the_store_refers_to_byte_for_byte(manifest, tmp_path):
    done = export.write(Content(manifest, "webdataset"), tmp_path / "out")
    samples = list(webdataset.WebDataset([str(done.path / "00000.tar")], shardshuffle=False))
    found = {json.loads(each["json"])["source_key"]: each["jpg"] for each in samples}
    assert found == {f"{number:09d}": picture(number) for number in range(12) if number != 3}
    uids = np.load(export.write(Content(manifest, "uids"), tmp_path / "uids").path / "uids.npy")
    assert uids.tolist() == [(0, number) for number in range(12) if number != 3]  # DataComp's own


def test_an_export_is_a_source_again(manifest, tmp_path):
    export.write(Content(manifest, "webdataset"), tmp_path / "out", piece=4)
    again = published(tmp_path, "out", "again")
    counts = again.counts
    assert (counts.input, counts.failed, counts.kept) == (11, 0, 11)
    with manifest.connection() as con, again.connection() as other:
        pairs = "SELECT uid, url, caption FROM rows WHERE kept ORDER BY uid"
        assert con.execute(pairs).fetchall() == other.execute(pairs).fetchall()


def test_a_tar_that_changed_meanwhile_is_named(manifest, tmp_path):
    shard = manifest.storage.root.parent.parent / "in" / "00001.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole.replace(picture(7)[100:120], bytes(20)))
    with pytest.raises(StorageError, match=r"00001.tar"):
        export.write(Content(manifest, "datasets"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    shard.write_bytes(whole)
