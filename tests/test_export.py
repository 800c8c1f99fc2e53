import csv
import io
import json
import shutil
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import published_sources
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

from filters import recipes
from flows.commands.exporting import Form
from pipeline.errors import BusyError, RecipeError, StorageError
from pipeline.export import export, json_values
from pipeline.export.content import Content
from pipeline.export.formats import FORMATS
from pipeline.export.lists import nonmissing
from pipeline.manifest.manifest import Manifest
from pipeline.store.storage import Storage
from pipeline.store.tarfiles import Tars

HARD = ["NA", "", 'a "quoted" pair', "a\u2028line", "null", "007", "'", "a\\b"]

VECTORS = {number: np.eye(8, dtype=np.float16)[[number % 8, number % 7]] for number in range(40, 70)}
"""Of pictures 40 to 69, and of their captions."""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Pictures 40 to 69, those from 50 on kept; 52 is at the end of a shard and has a second caption."""
    tmp_path = tmp_path_factory.mktemp("tiny")
    rows = [("picture number 52, again", "http://host/52.jpg"), *((each, "http://host/60.jpg") for each in HARD)]
    (tmp_path / "lists").mkdir()
    more = published_sources.recorded(tmp_path / "lists")
    described = published_sources.listed(tmp_path / "lists", range(40, 70), rows=rows, more=more)
    storage = Storage(tmp_path / "store")
    published_sources.embedded(described, storage, VECTORS, failed=(55,))
    published_sources.published(described, storage, failed=(55,))
    return Manifest.open(storage)


def kept(manifest):
    """By uid the caption and the stored picture."""
    tars = Tars(manifest.storage, manifest.stages.shards)
    with manifest.connection() as con:
        rows = con.execute("SELECT uid, coalesce(caption, ''), shard, member FROM rows WHERE kept").fetchall()
    return {uid: (caption, tars.read(shard, member)) for uid, caption, shard, member in rows}


def whole(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_webdataset_reads_every_pair(manifest, tmp_path):
    done = export.write(Content(manifest, "webdataset"), tmp_path / "out", piece=10)
    expected = kept(manifest)
    assert (done.pairs, done.pieces, done.new) == (len(expected), 3, True)
    tars = sorted(str(path) for path in done.path.glob("*.tar"))
    found = list(webdataset.WebDataset(tars, shardshuffle=False))
    assert {each["__key__"]: (each["txt"].decode(), each["jpg"]) for each in found} == expected
    told = json.loads(found[0]["json"])
    assert told["uid"] == found[0]["__key__"]
    assert told["pixels_sharpness"] >= 50
    assert not {"shard", "member", "dropped_by"} & set(told)
    sizes = json.loads((done.path / "sizes.json").read_text())
    assert sizes == {"00000.tar": 10, "00001.tar": 10, "00002.tar": len(expected) - 20}


def test_parquet_holds_pictures_as_datasets_does(manifest, tmp_path):
    done = export.write(Content(manifest, "datasets"), tmp_path / "out", piece=25)
    files = sorted((done.path / "data").iterdir())
    assert [path.name for path in files] == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    schema = pq.read_schema(files[0])
    assert json.loads(schema.metadata[b"huggingface"]) == {"info": {"features": {"image": {"_type": "Image"}}}}
    rows = [row for path in files for row in pq.read_table(path).to_pylist()]
    assert {row["uid"]: (row["caption"] or "", row["image"]["bytes"]) for row in rows} == kept(manifest)
    assert Image.open(io.BytesIO(rows[0]["image"]["bytes"])).format == "JPEG"


def test_the_csv_is_as_pandas_reads_it_for_open_clip(manifest, tmp_path):
    done = export.write(Content(manifest, "csv"), tmp_path / "out", piece=10)
    table = pd.read_csv(done.path / "train.csv", sep="\t")
    assert list(table) == ["filepath", "title", "uid", "url"]
    pictures = [Path(path).read_bytes() for path in table["filepath"]]
    found = sorted(zip([each.strip() for each in table["title"]], pictures, strict=True))
    assert found == sorted((caption.strip(), picture) for caption, picture in kept(manifest).values())


def front(card):
    """The settings of a dataset card."""
    _, yaml, _ = card.read_text(encoding="utf-8").split("---\n", 2)
    return {key: json.loads(text) for key, text in (line.split(": ", 1) for line in yaml.splitlines())}


def test_the_json_of_tars_has_the_types_of_the_card(manifest, tmp_path):
    done = export.write(Content(manifest, "webdataset"), tmp_path / "out", piece=10)
    found = front(done.path / "README.md")
    assert found["configs"][0]["data_files"] == [{"split": "train", "path": "[0-9]*.tar"}]
    *_, columns = found["dataset_info"]["features"]
    types = {each["name"]: each["dtype"] for each in columns["struct"]}
    assert types["pixels_phash"] == "string"  # 64 bits without a sign
    kinds = {"string": str, "int64": int, "float64": float, "bool": bool}
    for each in webdataset.WebDataset([str(done.path / "00000.tar")], shardshuffle=False):
        row = json.loads(each["json"], parse_constant=pytest.fail)
        assert list(row) == list(types)
        assert all(value is None or type(value) is kinds[types[name]] for name, value in row.items())
    assert (
        front(export.write(Content(manifest, "csv"), tmp_path / "csv").path / "README.md")["configs"][0]["sep"] == "\t"
    )


@pytest.mark.parametrize(
    ("kind", "value", "feature", "written"),
    [
        (pa.uint64(), 2**64 - 1, {"dtype": "string"}, "18446744073709551615"),
        (pa.uint32(), 7, {"dtype": "int64"}, 7),
        (pa.float32(), float("nan"), {"dtype": "float64"}, None),
        (pa.list_(pa.float64()), [1.0, float("inf"), None], {"list": "float64"}, [1.0, None, None]),
        (pa.list_(pa.list_(pa.uint64())), [[3]], {"list": {"list": "string"}}, [["3"]]),
        (pa.struct([("a", pa.uint64())]), {"a": 3}, {"struct": [{"name": "a", "dtype": "string"}]}, {"a": "3"}),
        (pa.list_(pa.struct([("a", pa.int8())])), [{"a": 3}], {"list": [{"name": "a", "dtype": "int64"}]}, [{"a": 3}]),
        (pa.map_(pa.string(), pa.int8()), [("a", 1)], {"dtype": "string"}, '[["a", 1]]'),
        (pa.list_(pa.map_(pa.string(), pa.int8())), [[("a", 1)]], {"dtype": "string"}, '[[["a", 1]]]'),
        (pa.decimal128(30, 2), Decimal("1.50"), {"dtype": "string"}, "1.50"),
        (pa.date32(), date(2024, 2, 29), {"dtype": "string"}, "2024-02-29"),
        (pa.binary(), b"\xff\x00", {"dtype": "string"}, "/wA="),
        (pa.null(), None, {"dtype": "string"}, None),
    ],
)
def test_every_type_has_one_in_json(kind, value, feature, written):
    assert json_values.feature(kind) == feature
    assert json_values.value(value, kind) == written


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "place", "reads", "caption"),
    [
        ("datasets", "data", "parquet", "caption"),
        ("webdataset", "", "parquet", "caption"),
        ("csv", "train.csv", "tsv", "title"),
    ],
)
def test_img2dataset_s_reader_reads_the_urls(manifest, tmp_path, form, place, reads, caption):
    from img2dataset.reader import Reader

    done = export.write(Content(manifest, form), tmp_path / "out", piece=25)
    (tmp_path / "tmp").mkdir()
    names = (reads, "url", caption, None, None, ["uid"])
    reader = Reader(str(done.path / place), *names, 100, set(), str(tmp_path / "tmp"))
    rows = [row for _, path in reader for row in pa.ipc.open_file(path).read_all().to_pylist()]
    assert {row["uid"]: row["caption"].strip() for row in rows} == {
        uid: caption.strip() for uid, (caption, _) in kept(manifest).items()
    }
    assert {row["url"].split("/")[2] for row in rows} == {"host"}


def test_the_tars_are_as_img2dataset_writes_them(manifest, tmp_path):
    done = export.write(Content(manifest, "webdataset"), tmp_path / "out", piece=25)
    for tar in sorted(done.path.glob("*.tar")):
        table = pq.read_table(tar.with_suffix(".parquet"))
        keys = [each["__key__"] for each in webdataset.WebDataset([str(tar)], shardshuffle=False)]
        assert table["key"].to_pylist() == keys
        assert set(table["status"].to_pylist()) == {"success"}


@pytest.mark.parametrize("form", [name for name, layout in FORMATS.items() if layout.data])
def test_datasets_loads_the_folder(manifest, tmp_path, form):
    datasets = pytest.importorskip("datasets", reason="it is not among winnow's dependencies")
    done = export.write(Content(manifest, form), tmp_path / "out", piece=10)
    whole = datasets.load_dataset(str(done.path), split="train", cache_dir=str(tmp_path / "cache"))
    streamed = datasets.load_dataset(str(done.path), split="train", streaming=True)
    for rows in (list(whole), list(streamed)):
        uids = [(row["json"] if form == "webdataset" else row)["uid"] for row in rows]
        assert sorted(uids) == sorted(kept(manifest))
    picture = {"webdataset": "jpg", "datasets": "image"}.get(form)
    assert not picture or rows[0][picture].size == (64, 48)


def test_what_pandas_takes_for_missing_stays_a_caption():
    from pandas._libs.parsers import STR_NA_VALUES

    text = io.StringIO()
    rows = csv.writer(text, delimiter="\t", lineterminator="\n")
    rows.writerows([["title", "x"], *([nonmissing(word), "x"] for word in sorted(STR_NA_VALUES))])
    table = pd.read_csv(io.StringIO(text.getvalue()), sep="\t")
    assert [each.strip() for each in table["title"]] == sorted(STR_NA_VALUES)


@pytest.mark.parametrize("form", [name for name, layout in FORMATS.items() if layout.piece])
def test_a_run_that_was_stopped_goes_on_and_ends_the_same(manifest, tmp_path, form):
    def stop(step, done, total):
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export.write(Content(manifest, form), tmp_path / "out", stop, piece=10)
    assert not (tmp_path / "out").exists()
    begun = [path for path in (tmp_path / ".out.part").rglob("*.*") if path.is_file() and path.name != ".lock"]
    before = {path.relative_to(tmp_path / ".out.part"): path.stat().st_mtime_ns for path in begun}
    made_whole = [path for path in before if path.name != export.RECORD]
    assert made_whole
    export.write(Content(manifest, form), tmp_path / "out", piece=10)
    assert not (tmp_path / ".out.part").exists()
    assert all((tmp_path / "out" / path).stat().st_mtime_ns == before[path] for path in made_whole)
    resumed = whole(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "first")
    export.write(Content(manifest, form), tmp_path / "out", piece=10)
    assert whole(tmp_path / "out") == resumed
    assert not [name for name in resumed if name.startswith(".")]


def test_half_a_piece_is_written_again(manifest, tmp_path):
    """A run was killed between the tar and its table."""
    export.write(Content(manifest, "webdataset"), tmp_path / "out", piece=10)
    before = whole(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / ".out.part")
    for name in ("00001.parquet", "sizes.json", "README.md", "croissant.json"):
        (tmp_path / ".out.part" / name).unlink()
    export.write(Content(manifest, "webdataset"), tmp_path / "out", piece=10)
    assert whole(tmp_path / "out") == before


def test_the_command_knows_every_format():
    assert {each.value for each in Form} == set(FORMATS)


def test_a_second_run_writes_nothing_and_nothing_is_overwritten(manifest, tmp_path):
    export.write(Content(manifest, "webdataset"), tmp_path / "out")
    before = whole(tmp_path / "out")
    assert not export.write(Content(manifest, "webdataset"), tmp_path / "out").new
    with pytest.raises(StorageError, match="already exists and is not overwritten"):
        export.write(Content(manifest, "csv"), tmp_path / "out")
    (tmp_path / "mine").mkdir()
    with pytest.raises(StorageError, match="already exists"):
        export.write(Content(manifest, "csv"), tmp_path / "mine")
    assert whole(tmp_path / "out") == before


def test_an_unfinished_export_of_something_else_is_left_alone(manifest, tmp_path):
    part = tmp_path / ".out.part"
    part.mkdir()
    (part / export.RECORD).write_text('{"format": "csv"}')
    with pytest.raises(StorageError, match="holds another export, unfinished"):
        export.write(Content(manifest, "webdataset"), tmp_path / "out")


def test_two_do_not_write_the_same_export(manifest, tmp_path):
    def again(step, done, total):
        if done < total:
            with pytest.raises(BusyError, match="another run is writing to"):
                export.write(Content(manifest, "csv"), tmp_path / "out")

    export.write(Content(manifest, "csv"), tmp_path / "out", again)


def test_another_recipe_of_the_same_scores(manifest, tmp_path):
    done = export.write(Content(manifest, "csv", recipes.everything), tmp_path / "all")
    assert done.pairs == manifest.counts.pool
    with pytest.raises(RecipeError, match="clip_similarity"):
        export.write(Content(manifest, "csv", recipes.clip_top30), tmp_path / "top")


def test_a_missing_picture_stops_it_with_the_way_out(manifest, tmp_path):
    shutil.copytree(manifest.storage.root, tmp_path / "store")
    manifest = Manifest.open(Storage(tmp_path / "store"))
    (manifest.storage.root / f"shards-{manifest.stages.shards}" / "00001.tar").unlink()
    with pytest.raises(StorageError, match=r"shard 00001 has no picture .*run `winnow curate`"):
        export.write(Content(manifest, "webdataset"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_open_clip_s_trainer_reads_both(manifest, tmp_path):
    """Its own reader of a CSV, its count of tars by their sizes, its reader for validation, its grouping of files.

    Its reader for training needs webdataset 0.2.86: docs/export.md.
    """
    import torch
    from open_clip_train.data import CsvDataset, get_dataset_size, get_wds_dataset, group_by_keys_nothrow
    from webdataset.tariterators import tar_file_expander, url_opener

    expected = kept(manifest)
    done = export.write(Content(manifest, "csv"), tmp_path / "csv", piece=10)
    read = CsvDataset(
        done.path / "train.csv", lambda image: image.size, "filepath", "title", tokenizer=lambda text: text
    )
    assert len(read) == len(expected)
    assert {read[row][0] for row in range(len(read))} == {(64, 48)}
    assert sorted(read[row][1].strip() for row in range(len(read))) == sorted(
        each.strip() for each, _ in expected.values()
    )
    done = export.write(Content(manifest, "webdataset"), tmp_path / "tars", piece=10)
    tars = f"{done.path}/{{00000..00002}}.tar"
    assert get_dataset_size(tars) == (len(expected), 3)
    asked = SimpleNamespace(val_data=tars, val_num_samples=len(expected), batch_size=8, workers=0, world_size=1)
    validation = get_wds_dataset(asked, lambda image: torch.tensor(image.size), False, tokenizer=lambda text: [text])
    batches = list(validation.dataloader)
    assert {tuple(each) for images, _ in batches for each in images.tolist()} == {(64, 48)}
    assert sorted(text for _, texts in batches for text in texts) == sorted(caption for caption, _ in expected.values())
    streams = url_opener({"url": str(path)} for path in sorted(done.path.glob("*.tar")))
    samples = list(group_by_keys_nothrow(tar_file_expander(streams, eof_value=None)))  # as webdataset 0.2.86 gives them
    assert {each["__key__"]: (each["txt"].decode(), each["jpg"]) for each in samples} == expected
