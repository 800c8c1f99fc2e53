"""Lists of pictures that are on this machine: which file becomes which row, and what is refused in one line."""

import json
import os

import datasets
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from pipeline.errors import SourceError
from pipeline.failure import RowError
from pipeline.files.read import Reader
from pipeline.ledger import ingest, lists
from pipeline.sources import loading
from pipeline.store.storage import Storage

datasets.disable_progress_bars()


def listed(folder, toml):
    """The rows of a list without their URLs where these are the places, and the warnings."""
    (folder / "own.toml").write_text(f"[pairs]\n{toml}\n")
    source, warnings = loading.load(str(folder / "own.toml")), []
    scratch = folder.parent / f"scratch-{len(os.listdir(folder.parent))}"
    scratch.mkdir()
    rows = []
    for batch in lists.read(source.pairs, scratch, warnings.append):
        assert batch.schema.names == ["url", "caption", "place", *source.pairs.extra]
        assert (lists.extra_columns(source) or batch.schema).field("place") == pa.field("place", pa.string())
        for url, caption, place, *extra in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            rows.append((place, caption, *extra) if url == place else (url, place, caption, *extra))
    return rows, warnings


def refused(folder, toml, *parts):
    with pytest.raises(SourceError) as fault:
        listed(folder, toml)
    assert "\n" not in str(fault.value)
    assert all(part in str(fault.value) for part in parts), str(fault.value)


def reader(folder):
    pairs = loading.load(str(folder / "own.toml")).pairs
    return Reader(pairs.base, 1000, pairs.symlinks, pairs.image)


def cause(reader, place):
    with pytest.raises(RowError) as fault:
        reader.read(place)
    return fault.value.cause


@pytest.fixture
def folder(tmp_path):
    """A source's folder with some files, which need not be pictures to be listed."""
    home = tmp_path / "home"
    (home / "photos" / "sub").mkdir(parents=True)
    for name in ("b.png", "a.jpg", "sub/c.JPG", "sub/d!e.jpg", ".hidden.jpg", "Thumbs.db"):
        (home / "photos" / name).write_bytes(name.encode())
    return home


def test_captions_beside_pictures(folder):
    photos = folder / "photos"
    (photos / "a.txt").write_text(" a cat \n", "utf-16")
    (photos / "sub/c.json").write_text(json.dumps({"text": ["one", "two"], "n": 3, "url": "http://host/c"}))
    (photos / "lost.txt").write_text("a caption alone")
    (photos / "b.json").write_text("[1]")
    os.mkfifo(photos / "sub/d!e.txt")
    rows, warnings = listed(folder, 'folder = "photos"\nextra = ["n"]')
    assert rows == [
        ("a.jpg", "a cat", None),
        ("b.png", "", None),
        ("lost", "a caption alone", None),
        ("http://host/c", "sub/c.JPG", "one", "3"),
        ("http://host/c", "sub/c.JPG", "two", "3"),
        ("sub/d!e.jpg", "", None),
    ]
    assert [line.partition(": ")[2] for line in warnings] == [
        "captions that cannot be read: 2; the first is b.json: this is no JSON object"
    ]
    assert reader(folder).read("sub/d!e.jpg") == b"sub/d!e.jpg"
    assert cause(reader(folder), "lost") == "missing_file"
    (photos / "a.json").write_text("{}")
    refused(folder, 'folder = "photos"', "a.json and a.txt", "remove one")


def test_class_folders(folder):
    (folder / "photos/sub/golden_retriever").mkdir()
    (folder / "photos/sub/golden_retriever/x.jpg").write_bytes(b"x")
    rows, _ = listed(folder, 'folder = "photos"\ntemplate = "a photo of a {label}"')
    assert rows == [
        ("a.jpg", "", None),
        ("b.png", "", None),
        ("sub/c.JPG", "a photo of a sub", "sub"),
        ("sub/d!e.jpg", "a photo of a sub", "sub"),
        ("sub/golden_retriever/x.jpg", "a photo of a golden retriever", "golden_retriever"),
    ]
    (folder / "photos/a.txt").write_text("another")
    refused(folder, 'folder = "photos"\ntemplate = "a photo of a {label}"', "a.jpg", "template")
    refused(folder, 'folder = "photos"\ntemplate = "a photo"', "{label}")
    refused(folder, 'folder = "photos"\ntemplate = "a photo of a {breed}"', "{label}", "{breed}")


TABLE = [
    {"file_name": "./a.jpg", "caption": "A", "votes": 1},
    {"file_name": "sub\\c.JPG", "caption": "C", "votes": 2},
    {"file_name": "../x.jpg", "caption": "X", "votes": 3},
    {"file_name": "/etc/passwd", "caption": "Y", "votes": 4},
    {"file_name": "gone.jpg", "caption": "G", "votes": 5},
    {"file_name": "out.jpg", "caption": "O", "votes": 6},
]

PLACES = ["a.jpg", "sub/c.JPG", "../x.jpg", "/etc/passwd", "gone.jpg", "out.jpg"]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet", "feather"])
def test_a_table_with_names_of_files(folder, ending):
    (folder / "photos/out.jpg").symlink_to("/etc/passwd")
    write(folder / f"photos/captions.{ending}", TABLE)
    rows, _ = listed(folder, 'folder = "photos"\nextra = ["votes"]')
    votes = [int(vote) for _, _, vote in rows[:6]]
    assert [(place, caption) for place, caption, _ in rows[:6]] == list(zip(PLACES, "ACXYGO", strict=True))
    assert votes == [1, 2, 3, 4, 5, 6]
    assert rows[6:] == [("b.png", "", None), ("sub/d!e.jpg", "", None)]
    found = reader(folder)
    assert [cause(found, place) for place in PLACES[2:]] == ["outside_folder"] * 2 + ["missing_file", "outside_folder"]
    assert found.read("sub/c.JPG") == b"sub/c.JPG"
    assert lists.extra_columns(loading.load(folder / "own.toml")).field("votes").type == pa.array(votes_of(rows)).type
    # The name of the file may travel along.
    assert listed(folder, 'folder = "photos"\nextra = ["file_name"]')[0][1] == ("sub/c.JPG", "C", "sub\\c.JPG")
    # The same table as a list, whose names are relative to it.
    again, _ = listed(folder, f'location = "photos/captions.{ending}"\nimage = "file_name"\nextra = ["votes"]')
    assert again == rows[:6]


def votes_of(rows):
    return [vote for _, _, vote in rows[:6]]


def write(path, rows):
    table = pa.Table.from_pylist(rows)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".feather":
        pyarrow.feather.write_feather(table, path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        delimiter = "," if path.suffix == ".csv" else "\t"
        lines = [delimiter.join(map(str, row)) for row in [rows[0], *(row.values() for row in rows)]]
        path.write_text("\n".join(lines))


def test_the_layout_of_an_imagefolder_works_by_itself(folder):
    photos = folder / "photos"
    (photos / "metadata.csv").write_text("file_name,text\na.jpg,an A\nb.png,a B\n")
    (photos / "sub/metadata.jsonl").write_text('{"file_name": "c.JPG", "text": "a C"}\n')
    rows, _ = listed(folder, 'folder = "photos"')
    assert rows == [("a.jpg", "an A"), ("b.png", "a B"), ("sub/c.JPG", "a C"), ("sub/d!e.jpg", "")]
    (photos / "captions.csv").write_text("file_name,text\na.jpg,other\n")
    refused(folder, 'folder = "photos"', "captions.csv and metadata.csv", "captions")
    rows, _ = listed(folder, 'folder = "photos"\ncaptions = "captions.csv"')
    assert rows[0] == ("a.jpg", "other")
    assert len(rows) == 4
    (photos / "captions.csv").unlink()
    (photos / "a.txt").write_text("beside")
    refused(folder, 'folder = "photos"', "beside a.jpg", 'captions = "metadata.csv"')
    (folder / "broken.parquet").write_text("no Parquet")
    refused(folder, 'folder = "photos"\ncaptions = "broken.parquet"', "broken.parquet", "Parquet")
    refused(folder, 'folder = "photos"\ncaptions = "none.csv"', "there is no file none.csv")


def test_folders_that_have_nothing(folder):
    (folder / "empty").mkdir()
    (folder / "empty/.DS_Store").touch()
    refused(folder, 'folder = "empty"', "has no file")
    refused(folder, 'folder = "photos"', "no picture", "template")
    refused(folder, 'folder = "own.toml"', "is no folder")
    refused(folder, 'folder = "photos"\nlocation = "own.toml"', "not location and folder")
    refused(folder, 'folder = "photos"\nsplit = "train"', "split goes with dataset")


def test_links_are_followed_only_if_they_may(folder):
    photos = folder / "photos"
    (folder / "other").mkdir()
    (folder / "other/f.jpg").write_bytes(b"f")
    (photos / "other").symlink_to(folder / "other")
    (photos / "loop").symlink_to(photos)
    (photos / "g.jpg").symlink_to(photos / "a.jpg")
    toml = 'folder = "photos"\ntemplate = "{label}"'
    assert [place for place, *_ in listed(folder, toml)[0]] == [
        "a.jpg", "b.png", "g.jpg", "loop", "other", "sub/c.JPG", "sub/d!e.jpg",
    ]  # fmt: skip
    found = reader(folder)
    assert found.read("g.jpg") == b"a.jpg"
    assert [cause(found, place) for place in ("other", "loop")] == ["outside_folder", "missing_file"]
    assert ("other/f.jpg", "other", "other") in listed(folder, toml + "\nsymlinks = true")[0]
    assert reader(folder).read("other/f.jpg") == b"f"


def test_a_name_that_is_no_text_is_a_row(folder):
    (folder / "photos" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    rows, _ = listed(folder, 'folder = "photos"\ntemplate = "{label}"')
    assert ("caf\ufffd.jpg", "", None) in rows
    assert cause(reader(folder), "caf\ufffd.jpg") == "missing_file"


PICTURES = pa.table(
    {
        "image": pa.array([{"bytes": bytes([n]) * 10, "path": None} for n in range(250)] + [None]),
        "text": [["one", "two"], []] + [["x"]] * 249,
        "n": range(251),
    }
)


@pytest.mark.parametrize("ending", ["parquet", "arrow", "feather"])
@pytest.mark.parametrize("column", ["struct", "bytes"])
def test_a_table_of_pictures(folder, ending, column):
    table = PICTURES
    if column == "bytes":
        table = table.set_column(0, "image", table["image"].combine_chunks().field("bytes"))
    path = folder / "data" / f"part.{ending}"
    path.parent.mkdir()
    if ending == "parquet":
        pq.write_table(table, path, row_group_size=100)
    elif ending == "feather":
        pyarrow.feather.write_feather(table, path, compression="lz4", chunksize=90)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table, max_chunksize=60)
    rows, _ = listed(folder, 'location = "data"\nimage = "image"\nextra = ["n"]')
    name = path.name
    assert rows[:3] == [(f"{name}!0", "one", 0), (f"{name}!0", "two", 0), (f"{name}!1", "", 1)]
    assert rows[-1] == (f"{name}!250", "x", 250)
    found = reader(folder)
    for order in (range(250), [249, 3, 130, 129, 0]):
        assert all(found.read(f"{name}!{row}") == bytes([row]) * 10 for row in order)
    assert [cause(found, f"{name}!{row}") for row in (250, 251, "x")] == ["empty", "missing_file", "missing_file"]
    refused(folder, 'location = "data"\nimage = "n"', "'n' is int64, no pictures")
    refused(folder, 'location = "data"\nimage = "image"\nextra = ["image"]', "'image' has the pictures")
    refused(folder, 'location = "data"\nimage = "image"\ncaption = "captoin"', "captoin")
    assert listed(folder, 'location = "data"\nimage = "image"\ntemplate = "number {n}"')[0][2][1] == "number 2"


def test_more_tables_leave_the_places_of_others(folder):
    """The folder that places are relative to is the part of a location before its glob, whatever it matches."""
    for place in ("data/x/part.parquet", "data/y/part.parquet"):
        (folder / place).parent.mkdir(parents=True)
        pq.write_table(PICTURES.slice(2, 1), folder / place)
        rows, _ = listed(folder, 'location = "data/*/part.parquet"\nimage = "image"')
        assert rows[0][0] == "x/part.parquet!0"
    assert rows[1][0] == "y/part.parquet!0"


FEATURES = Features(
    {"image": datasets.Image(), "text": Value("string"), "label": ClassLabel(names=["cat", "sheep_dog"])}
)


@pytest.fixture
def saved(folder):
    """Folders that the real `datasets` wrote: `one` split, `two` splits, and `hub` as push_to_hub lays it out."""
    photos = folder / "photos"
    pictures = [str(photos / name) for name in ("a.jpg", "b.png", "sub/c.JPG")]
    whole = Dataset.from_dict({"image": pictures, "text": list("abc"), "label": [0, 1, -1]}, features=FEATURES)
    whole.save_to_disk(folder / "one")
    DatasetDict(train=whole, test=whole.select([2, 0])).save_to_disk(folder / "two")
    (folder / "hub/data").mkdir(parents=True)
    embedded = Dataset.load_from_disk(str(folder / "one"))
    embedded.to_parquet(folder / "hub/data/train-00000-of-00001.parquet")
    whole.to_parquet(folder / "hub/data/by_path-00000-of-00001.parquet")
    return folder


def test_a_folder_of_datasets(saved):
    (saved / "struct").mkdir()
    rows, _ = listed(saved, 'dataset = "one"\nextra = ["label"]')
    name = "data-00000-of-00001.arrow"
    assert rows == [(f"{name}!0", "a", "cat"), (f"{name}!1", "b", "sheep_dog"), (f"{name}!2", "c", None)]
    assert [reader(saved).read(f"{name}!{row}") for row in range(3)] == [b"a.jpg", b"b.png", b"sub/c.JPG"]
    refused(saved, 'dataset = "two"', "train, test", "split")
    refused(saved, 'dataset = "two"\nsplit = "tset"', "did you mean 'test'?")
    assert listed(saved, 'dataset = "two"\nsplit = "test"')[0][0] == (f"test/{name}!0", "c")
    assert reader(saved).read(f"test/{name}!1") == b"a.jpg"
    rows, _ = listed(saved, 'dataset = "one"\ntemplate = "a photo of a {label}"')
    assert [caption for _, caption in rows] == ["a photo of a cat", "a photo of a sheep dog", ""]
    # A struct of bytes and path is a picture although its feature is not called so. Sounds have the same form.
    sound = {"_type": "Audio"}
    for known, found in ({}, True), ({"image": {"bytes": {"_type": "Value"}}}, True), ({"image": sound}, False):
        described = {"huggingface": json.dumps({"info": {"features": known}})}
        pq.write_table(PICTURES.replace_schema_metadata(described), saved / "struct/train.parquet")
        if found:
            assert listed(saved, 'dataset = "struct"')[0][0] == ("train.parquet!0", "one")
        else:
            refused(saved, 'dataset = "struct"', "no column of pictures", "image = ")
    refused(saved, 'dataset = "photos"', "folder in place of dataset")


def test_a_saved_dataset_reads_no_other_folder(saved):
    state = saved / "one/state.json"
    state.write_text(state.read_text().replace("data-00000", "../two/test/data-00000"))
    refused(saved, 'dataset = "one"', "state.json", "other folders")
    state.write_text("{}")
    refused(saved, 'dataset = "one"', "state.json", "_data_files")


def test_a_folder_that_push_to_hub_laid_out(saved):
    refused(saved, 'dataset = "hub"', "by_path, train")
    rows, _ = listed(saved, 'dataset = "hub"\nsplit = "train"')
    assert rows[2] == ("data/train-00000-of-00001.parquet!2", "c")
    assert reader(saved).read(rows[2][0]) == b"sub/c.JPG"
    card = {"configs": [{"config_name": "default", "data_files": [{"split": "valid", "path": "data/by_path-*"}]}]}
    (saved / "hub/README.md").write_text(f"---\n{json.dumps(card)}\n---\n# A dataset\n")
    rows, _ = listed(saved, 'dataset = "hub"')
    # The pictures of this split are absolute paths outside the folder.
    assert cause(reader(saved), rows[0][0]) == "outside_folder"
    listed(saved, 'dataset = "hub"\nsymlinks = true')
    assert reader(saved).read(rows[0][0]) == b"a.jpg"


def test_a_table_that_changes_while_it_is_read(folder):
    pq.write_table(PICTURES, folder / "t.parquet")
    listed(folder, 'location = "t.parquet"\nimage = "image"')
    found = reader(folder)
    found.read("t.parquet!0")
    pq.write_table(PICTURES.slice(1), folder / "t.parquet")
    assert cause(found, "t.parquet!200") == "changed_file"
    assert reader(folder).read("t.parquet!0") == bytes([1]) * 10


def test_rows_before_a_broken_page_are_read(folder):
    """A page that cannot be read fails its rows and those after it in its row group, and is tried once."""
    pictures = [os.urandom(1000) for _ in range(3000)]
    table = pa.table({"image": pictures, "caption": ["x"] * 3000})
    path = folder / "t.parquet"
    pq.write_table(table, path, row_group_size=2000, use_dictionary=False, compression="zstd")
    content = bytearray(path.read_bytes())
    content[1_500_000:1_500_100] = bytes(100)
    path.write_bytes(content)
    listed(folder, 'location = "t.parquet"\nimage = "image"')
    found = reader(folder)
    assert found.read("t.parquet!100") == pictures[100]
    assert [cause(found, f"t.parquet!{row}") for row in (1600, 1601, 1999)] == ["unreadable"] * 3
    assert found.read("t.parquet!2500") == pictures[2500]
    assert found.read("t.parquet!100") == pictures[100]


@pytest.mark.slow
def test_a_large_row_group_is_unpacked_once(folder):
    column = pa.chunked_array(
        [[bytes([n % 251]) * 100_000 for n in range(first, first + 500)] for first in range(0, 3000, 500)]
    )
    pq.write_table(pa.table({"image": column, "n": range(3000)}), folder / "t.parquet", use_dictionary=False)
    cache, inodes = folder / "cache", set()
    for _ in range(2):
        found = Reader(folder, 1_000_000, image="image", cache=cache)
        for row in (5, 6, 2000, 2999, 100):
            assert found.read(f"t.parquet!{row}") == bytes([row % 251]) * 100_000
        (stored,) = cache.glob("*.arrow")
        inodes.add(stored.stat().st_ino)
    assert len(inodes) == 1


def test_absolute_names_inside_the_folder(folder):
    """Also by another path to it, as on machines whose disks are behind links."""
    (folder / "link").symlink_to(folder / "photos")
    names = [folder / "photos/a.jpg", folder / "link/sub/c.JPG", folder / "photos/sub/../b.png", folder / "own.toml"]
    (folder / "list.csv").write_text("\n".join(["path,caption", *(f"{name},x" for name in names)]))
    rows, _ = listed(folder, 'folder = "link"\ncaptions = "list.csv"')
    assert [place for place, _ in rows[:4]] == ["a.jpg", "sub/c.JPG", "b.png", str(folder / "own.toml")]
    assert cause(reader(folder), rows[3][0]) == "outside_folder"


def test_a_url_of_several_pictures_is_a_warning(folder):
    (folder / "photos/captions.csv").write_text("file_name,caption,url\na.jpg,A,http://page\nb.png,B,http://page\n")
    warnings = []
    for toml, count in (('folder = "photos"', 1), ('folder = "photos"\nurl = ""', 0)):
        (folder / "own.toml").write_text(f"[pairs]\n{toml}\n")
        storage = Storage(folder / f"results-{count}")
        warnings.clear()
        ledger = ingest.update(loading.load(folder / "own.toml"), storage, warn=warnings.append)
        assert (ledger.new, len(warnings)) == (4, count), warnings
        assert all("several places: 1;" in line and 'url = ""' in line for line in warnings)
