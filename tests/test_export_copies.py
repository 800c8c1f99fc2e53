"""Exports of a recipe that keeps pairs more than once."""

import csv
import json
from collections import Counter

import numpy as np
import published_sources
import pyarrow.parquet as pq
import pytest
import webdataset

from filters.core import Filter, Recipe
from filters.selections import SoftCap
from pipeline.export import export
from pipeline.export.content import Content
from pipeline.export.subset import halves
from pipeline.manifest import publish
from pipeline.manifest.manifest import Manifest
from pipeline.store.storage import Storage

CAP = SoftCap(by="pixels_sharpness", penalty=2, budget=60, unit="samples", temperature=4, batch=10)
RECIPE = Recipe("repeats", (Filter("sharp", "pixels_sharpness >= 45"),), selection=CAP)
VECTORS = {number: np.eye(8, dtype=np.float16)[[number % 8, number % 7]] for number in range(40, 70)}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Pictures 40 to 69, of which the recipe keeps some more than once."""
    folder = tmp_path_factory.mktemp("copies")
    described = published_sources.listed(folder, range(40, 70), more=published_sources.recorded(folder))
    storage = Storage(folder / "store")
    published_sources.embedded(described, storage, VECTORS)
    published_sources.published(described, storage)
    publish.republish(storage, RECIPE)
    return Manifest.open(storage)


@pytest.fixture(scope="module")
def copies(manifest):
    chosen = Counter({each["uid"]: each["copies"] for each in manifest.select().to_pylist()})
    assert chosen.total() == 60
    assert max(chosen.values()) >= 4
    return chosen


def test_tars_repeat_pairs_under_keys_of_their_own(manifest, copies, tmp_path):
    done = export.write(Content(manifest, "webdataset"), tmp_path / "out", piece=15)
    assert (done.pairs, done.samples, done.pieces) == (len(copies), 60, 4)
    found = [
        list(webdataset.WebDataset(str(path), shardshuffle=False)) for path in sorted((tmp_path / "out").glob("*.tar"))
    ]
    keys = [each["__key__"] for tar in found for each in tar]
    assert len(set(keys)) == 60
    assert Counter(key.split("-")[0] for key in keys) == copies
    assert set(keys) >= set(copies)  # the first sample of a pair has its uid
    rows = [json.loads(each["json"]) for tar in found for each in tar]
    assert [row["key"] for row in rows] == keys
    assert not {"copies", "__copy"} & set(rows[0])
    table = pq.read_table(tmp_path / "out" / "00000.parquet")
    assert table["key"].to_pylist() == keys[:15]
    sizes = json.loads((tmp_path / "out" / "sizes.json").read_text())
    assert sum(sizes.values()) == 60


def test_samples_of_a_pair_are_far_apart(manifest, copies, tmp_path):
    export.write(Content(manifest, "datasets"), tmp_path / "out", piece=1000)
    uids = pq.read_table(next((tmp_path / "out" / "data").iterdir()))["uid"].to_pylist()
    assert Counter(uids) == copies
    for uid, times in copies.items():
        places = [place for place, each in enumerate(uids) if each == uid]
        assert all(gap > 60 / times / 2 for gap in np.diff(places))


def test_a_list_repeats_rows_and_not_files(manifest, copies, tmp_path):
    export.write(Content(manifest, "csv"), tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "train.csv").open(), delimiter="\t"))
    assert Counter(row["uid"] for row in rows) == copies
    assert len(list((tmp_path / "out" / "images").rglob("*.jpg"))) == len(copies)


def test_uids_are_repeated_and_sorted(manifest, copies, tmp_path):
    export.write(Content(manifest, "uids"), tmp_path / "out")
    found = np.load(tmp_path / "out" / "uids.npy")
    assert Counter(f"{high:016x}{low:016x}" for high, low in found.tolist()) == copies
    assert np.array_equal(found, np.sort(found))


def test_embeddings_are_written_once_with_the_number_of_copies(manifest, copies, tmp_path):
    done = export.write(Content(manifest, "embeddings"), tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "metadata" / "metadata_0.parquet")
    assert done.samples == done.pairs == len(table) == len(np.load(tmp_path / "out" / "img_emb" / "img_emb_0.npy"))
    assert dict(zip(table["uid"].to_pylist(), table["copies"].to_pylist(), strict=True)) == dict(copies)


def test_the_card_counts_copies(manifest, copies, tmp_path):
    export.write(Content(manifest, "datasets"), tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert f"60 samples of {len(copies)} pairs of a picture and a caption" in text
    by_copies = Counter(copies.values())
    assert f"| 0 | {30 - len(copies)} | 0 |" in text
    for times in (1, 2):
        assert f"| {times} | {by_copies[times]} | {by_copies[times] * times} |" in text
    croissant = json.loads((tmp_path / "out" / "croissant.json").read_text())
    assert croissant["description"].startswith("60 samples of")
    assert "key" not in croissant["recordSet"][0]
    assert json.loads((tmp_path / "out" / "export.json").read_text())["selection"]["kind"] == "soft_cap"


def test_another_recipe_is_exported_with_its_own_copies(manifest, tmp_path):
    done = export.write(Content(manifest, "uids", Recipe("once")), tmp_path / "out")
    assert done.samples == done.pairs == 30
    assert len(halves(manifest.select(Recipe("once"))["uid"])) == 30


def test_without_repetition_nothing_is_different(manifest, tmp_path):
    export.write(Content(manifest, "webdataset", Recipe("once")), tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "samples of" not in text
    assert "Copies" not in text
    assert "copies" not in pq.read_schema(tmp_path / "out" / "00000.parquet").names
