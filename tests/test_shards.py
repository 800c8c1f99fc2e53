"""Lists that are tars of webdataset: what each member becomes, and that nothing of them is copied or lost."""

import json
import subprocess
import sys

import killed_runs
import main_job
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from webdataset_tars import img2dataset_folder, img2dataset_shard, picture, row, tar

from pipeline.download import by_source
from pipeline.engine import local
from pipeline.errors import SourceError, StorageError
from pipeline.files.tar_members import TarMembers
from pipeline.ledger import ingest, lists
from pipeline.ledger.tar_samples import samples
from pipeline.manifest.manifest import Manifest
from pipeline.sources import loading
from pipeline.store.references import ChangedFileError
from pipeline.store.storage import Storage
from pipeline.store.tarfiles import Tars


def source(folder, shards, more="", tables=""):
    """A source of these shards."""
    (folder / "mine.toml").write_text(f"filters = []\n[pairs]\nshards = {json.dumps(shards)}\n{more}\n{tables}\n")
    return folder / "mine.toml"


def listed(folder, shards, more="", warn=lambda line: None):
    """The rows of the list, and its warnings."""
    pairs = loading.load(source(folder, shards, more)).pairs
    return [each for batch in lists.read(pairs, folder, warn) for each in batch.to_pylist()]


def published(toml, root):
    main_job.run(toml, root)
    return Manifest.open(Storage(root / "mine"))


def rows(manifest, columns):
    with manifest.connection() as con:
        return con.execute(f"SELECT {columns} FROM rows ORDER BY place").fetchall()


@pytest.mark.parametrize(
    ("shards", "count"),
    [
        ("in/{00000..00002}.tar", 3),
        ("in/*.tar", 3),
        ("in", 3),
        ("in/00001.tar", 1),
        (["in/{00000,00002}.tar", "in/00000.tar"], 2),
    ],
)
def test_shards_are_named_as_webdataset_names_them(tmp_path, shards, count):
    img2dataset_folder(tmp_path / "in", shards=3, size=1)
    assert len(loading.load(source(tmp_path, shards)).pairs.shards) == count
    assert {each["place"].split("!")[0] for each in listed(tmp_path, shards)} <= {f"{n:05d}.tar" for n in range(3)}


@pytest.mark.parametrize(
    ("shards", "error"),
    [
        ("in/{00000..00004}.tar", r"no file .*/00003.tar: 2 of 5 are missing"),
        ("in/{00000..00004.tar", "braces"),
        ("in/x*.tar", "no file matches"),
        ("empty", r"has no \.tar"),
        ("in/00000.tar.gz", "compressed"),
        ("s3://bucket/{00000..00004}.tar", "not read"),
        ("pipe:curl http://host/00000.tar", "not read"),
        ([], "at least one"),
    ],
)
def test_shards_that_are_not_there_are_one_line(tmp_path, shards, error):
    img2dataset_folder(tmp_path / "in", shards=3, size=1)
    (tmp_path / "in" / "00000.tar.gz").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=error):
        loading.load(source(tmp_path, shards))


def test_the_list_is_the_same_with_a_table_and_without(tmp_path):
    folder = img2dataset_folder(tmp_path / "in", failed={2})
    extra = 'extra = ["source_sha256"]'
    with_table = listed(tmp_path, "in/*.tar", extra)
    assert with_table[1] == {
        "url": "http://host/1.jpg",
        "caption": "picture number 1",
        "place": "00000.tar!000000001",
        "key": "000000001",
        "source_uid": f"{1:032x}",
        "source_sha256": f"{1:064x}",
    }
    for table in folder.glob("*.parquet"):
        table.unlink()
    without = listed(tmp_path, "in/*.tar", extra)
    assert len(with_table) == 8
    assert without == [each for each in with_table if each["key"] != "000000002"]


def test_webdataset_names_the_same_samples(tmp_path):
    names = ["a/b.c/s1.jpg", "a/b.c/s1.seg.png", "s2.jpg", "s2.txt", ".hidden.jpg", "README", "S3.JPG"]
    path = tar(tmp_path / "in" / "00000.tar", [(name, picture(1)) for name in names])
    theirs = [each["__key__"] for each in webdataset.WebDataset(str(path), shardshuffle=False)]
    assert [each["key"] for each in listed(tmp_path, "in")] == theirs


def test_captions_without_a_url(tmp_path):
    members = [
        ("s1.jpg", picture(1)), ("s1.txt", b"one\n"),
        ("s2.jpg", picture(2)), ("s2.txt", b"first"), ("s2.alt.txt", b"second"),
        ("s3.jpg", picture(3)), ("s3.json", b'{"caption": ["a", "b"], "label": 7}'), ("s3.txt", b"unused"),
        ("s4.jpg", picture(4)),
        ("s5.jpg", picture(5)), ("s5.json", b"no object"), ("s5.txt", b"caf\xe9"),
        ("s6.txt", b"no picture"),
    ]  # fmt: skip
    tar(tmp_path / "in" / "00000.tar", members)
    warnings = []
    found = listed(tmp_path, "in", 'extra = ["label"]', warnings.append)
    assert [(each["key"], each["caption"], each["label"]) for each in found] == [
        ("s1", "one", None),
        ("s2", "first", None),
        ("s2", "second", None),
        ("s3", "a", "7"),
        ("s3", "b", "7"),
        ("s4", "", None),
        ("s5", "caf\ufffd", None),
        ("s6", "no picture", None),
    ]
    assert {each["url"] for each in found} == {each["place"] for each in found}
    assert len(warnings) == 1
    assert "not UTF-8: 1" in warnings[0]


def test_what_cannot_be_joined_is_one_line(tmp_path):
    folder = img2dataset_folder(tmp_path / "in", shards=1)
    (folder / "00000.csv").touch()
    with pytest.raises(SourceError, match="two tables beside it"):
        listed(tmp_path, "in")
    (folder / "00000.csv").unlink()
    with pytest.raises(SourceError, match="no column 'captoin'; did you mean 'caption'"):
        listed(tmp_path, "in", 'caption = "captoin"')
    with pytest.raises(SourceError, match="no column 'licence'"):
        listed(tmp_path, "in", 'extra = ["licence"]')
    (folder / "00000.parquet").unlink()
    with pytest.raises(SourceError, match=r"\.json .* has no column 'licence'"):
        listed(tmp_path, "in", 'extra = ["licence"]')
    pq.write_table(pa.table({"caption": ["words"]}), folder / "00000.parquet")
    with pytest.raises(SourceError, match="no column 'key'"):
        listed(tmp_path, "in")


def test_a_table_that_cannot_be_read_is_replaced_by_the_tar(tmp_path):
    folder = img2dataset_folder(tmp_path / "in")
    whole = listed(tmp_path, "in")
    (folder / "00001.parquet").write_bytes(b"")
    warnings = []
    assert listed(tmp_path, "in", warn=warnings.append) == whole
    assert "00001.parquet" in warnings[0]


def test_img2dataset_shards_are_referred_to_and_nothing_is_written_twice(tmp_path):
    folder = img2dataset_folder(tmp_path / "in", shards=2, size=6, failed={3})
    toml = source(tmp_path, "in/{00000..00001}.tar")
    manifest = published(toml, tmp_path / "data")
    assert (manifest.counts.input, manifest.counts.failed, manifest.counts.kept) == (12, 1, 11)
    found = rows(manifest, "place, url, caption, key, source_uid, cause, shard, member")
    assert found[3][:6] == ("00000.tar!000000003", "http://host/3.jpg", "picture number 3", "000000003", f"{3:032x}",
                            "missing_member")  # fmt: skip
    tars = Tars(manifest.storage, manifest.stages.shards)
    assert tars.read(*found[7][6:]) == picture(7)
    assert manifest.storage.size(f"shards-{manifest.stages.shards}/00000.tar") < 11 * 2048
    again = main_job.run(toml, tmp_path / "data")
    assert (again.id, again.new) == (manifest.id, False)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"0000{number}{ending}" for number in (0, 1) for ending in (".tar", ".parquet", "_stats.json")
    )


def test_odd_tars_lose_nothing(tmp_path):
    """A break loses what is behind it; two pictures of a sample, and names that lead out, are refused; all are rows."""
    folder = img2dataset_folder(tmp_path / "in", shards=1, table=False)
    whole = (folder / "00000.tar").read_bytes()
    (folder / "00001.tar").write_bytes(whole[: whole.index(b"000000002.jpg")] + b"\1" * 2048)
    (folder / "00002.tar").write_bytes(whole[: whole.index(b"000000001.txt")])
    (folder / "00003.tar").touch()
    two = [("s1.input.jpg", picture(1)), ("s1.output.jpg", picture(2)), ("s1.txt", b"make it red")]
    out = [("../s2.jpg", picture(3)), ("../s2.txt", b"one"), ("/s3.jpg", picture(4)), ("/s3.txt", b"two")]
    tar(folder / "00004.tar", [*two, *out, ("s4.jpg", picture(5))])
    manifest = published(source(tmp_path, "in"), tmp_path / "data")
    assert rows(manifest, "place, cause") == [
        *[(f"00000.tar!{key:09d}", None) for key in range(4)],
        ("00001.tar!", "broken_tar"),
        ("00002.tar!", "broken_tar"),
        ("00002.tar!000000001", "no_caption"),  # its .txt is behind the break
        ("00003.tar!", "broken_tar"),
        ("00004.tar!../s2", "outside_folder"),
        ("00004.tar!/s3", "outside_folder"),
        ("00004.tar!s1", "several_pictures"),
        ("00004.tar!s4", "no_caption"),
    ]
    assert manifest.counts.repeated == 3  # the same URLs, before the breaks
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "in", "mine.toml"]
    assert listed(tmp_path, "in", 'image = "output.jpg"')[-4]["place"] == "00004.tar!s1.output.jpg"


def taken(described, storage):
    """The rows of each shard that was taken, and why the others failed."""
    ledger, stage = ingest.update(described, storage), by_source.stage(described)
    found, errors = [], []
    with by_source.fetching(described, storage) as taking:
        for shard, error in local.run_wide(taking, ledger.shards):
            if error:
                errors.append(str(error))
            else:
                found += pq.read_table(storage.fetch(stage.item(shard.number, ".parquet"))).to_pylist()
    return found, errors


@pytest.mark.slow
def test_a_folder_may_be_moved_and_a_union_reads_from_the_folders_of_its_members(tmp_path):
    img2dataset_folder(tmp_path / "one" / "in", shards=1)
    img2dataset_shard(tmp_path / "two" / "in", 0, [row(f"{key:09d}") for key in (2, 7)])
    for name in ("one", "two"):
        source(tmp_path / name, "in").rename(tmp_path / name / f"{name}.toml")
    (tmp_path / "both.toml").write_text('filters = []\n[union]\n"one/one.toml" = 1\n"two/two.toml" = 1\n')
    both, storage = loading.load(tmp_path / "both.toml"), Storage(tmp_path / "data" / "both")
    assert by_source.stage(both).key == by_source.stage(loading.load(tmp_path / "one" / "one.toml")).key
    found, _ = taken(both, storage)
    assert [each["status"] for each in found] == ["ok"] * 5
    key = by_source.stage(both).key
    assert Tars(storage, key).read(0, found[4]["member"]) == picture(7)

    (tmp_path / "two").rename(tmp_path / "elsewhere")
    (tmp_path / "both.toml").write_text('filters = []\n[union]\n"one/one.toml" = 1\n"elsewhere/two.toml" = 1\n')
    with pytest.raises(ChangedFileError, match="cannot be read"):
        Tars(storage, key).read(0, found[4]["member"])
    assert taken(loading.load(tmp_path / "both.toml"), storage)[0] == found
    assert Tars(storage, key).read(0, found[4]["member"]) == picture(7)

    (tmp_path / "list.csv").write_text("url,caption\nhttp://host/1.jpg,words\n")
    (tmp_path / "web.toml").write_text('[pairs]\nlocation = "list.csv"\n')
    (tmp_path / "mixed.toml").write_text('[union]\n"one/one.toml" = 1\n"web.toml" = 1\n')
    with pytest.raises(SourceError, match="the pictures of one are on this machine and those of web are fetched"):
        by_source.stage(loading.load(tmp_path / "mixed.toml"))


def test_settings_of_the_web_do_not_change_the_key(tmp_path):
    img2dataset_folder(tmp_path / "in", shards=1)
    described = loading.load(source(tmp_path, "in"))

    def key(described=described, **changed):
        settings = described.download.model_copy(update=changed)
        return by_source.stage(described.model_copy(update={"download": settings})).key

    assert key(timeout=1, retries=0, threads=3, robots=("none",), per_host=1, shard_seconds=5) == key()
    (tmp_path / "moved").mkdir()
    img2dataset_folder(tmp_path / "moved" / "other", shards=1)
    assert key(loading.load(source(tmp_path / "moved", "other/*.tar"))) == key()
    keys = [key(image_size=64), key(quality=80), key(resample="lanczos"), key(max_bytes=5000), key(max_pixels=5000)]
    keys += [key(described.model_copy(update={"decoder": "pillow-simd"}))]
    keys += [key(loading.load(source(tmp_path, "in", more))) for more in ("symlinks = true", 'image = "jpg"')]
    assert len({key(), *keys}) == 9


def test_a_machine_without_the_folder_says_so(tmp_path):
    folder = img2dataset_folder(tmp_path / "in", shards=1)
    described, storage = loading.load(source(tmp_path, "in")), Storage(tmp_path / "data" / "mine")
    (shard,) = ingest.update(described, storage).shards
    folder.rename(tmp_path / "away")
    with (
        pytest.raises(SourceError, match=f"this machine has no folder {folder}"),
        by_source.fetching(described, storage) as taking,
    ):
        taking(shard)


def test_a_tar_that_changes_while_it_is_read_is_no_result(tmp_path):
    path = img2dataset_shard(tmp_path, 0, [row(f"{key:09d}") for key in range(3)])
    tar_of_shard = TarMembers(path)
    assert tar_of_shard.read("000000001", 100_000)[0] == picture(1)
    listing = samples(path)
    next(listing)
    with path.open("ab") as file:
        file.write(bytes(512))
    for read in (lambda: tar_of_shard.read("000000002", 100_000), lambda: list(listing)):
        with pytest.raises(StorageError, match=r"00000\.tar changed while it was read: run the same command again"):
            read()


@pytest.mark.slow
def test_killed_anywhere_it_ends_with_the_same_manifest(tmp_path):
    img2dataset_folder(tmp_path / "in", shards=6, size=20, failed={3, 50})
    toml = source(tmp_path, "in", tables='[download]\nshard_size = 20\n[scorers.pixels]\nkind = "pixels"')
    whole = main_job.run(toml, tmp_path / "whole")
    for number in (1, 3, 5):
        process = killed_runs.started(toml, tmp_path / "killed")
        killed_runs.killed_after(process, f"download {number}.", 0.1)
    assert main_job.run(toml, tmp_path / "killed").id == whole.id


@pytest.mark.slow
def test_a_changed_tar_is_named_and_taken_again(tmp_path):
    folder = img2dataset_folder(tmp_path / "in", shards=2, size=4)
    toml = source(tmp_path, "in")
    first = published(toml, tmp_path / "data")
    changed = [row(f"{key:09d}") for key in range(4)]
    img2dataset_shard(folder, 0, changed)
    content = bytearray((folder / "00000.tar").read_bytes())
    start = content.index(picture(2))
    content[start + 600] ^= 1
    (folder / "00000.tar").write_bytes(content)
    *_, told = winnow(
        "export", toml, "--format", "webdataset", "--to", tmp_path / "out", root=tmp_path / "data", code=1
    )
    assert told.startswith(f"winnow: {folder / '00000.tar'} has changed since its pictures were taken")
    winnow("retry", toml, "--cause", "changed_file", root=tmp_path / "data")
    second = Manifest.open(Storage(tmp_path / "data" / "mine"))
    assert second.id != first.id
    assert second.counts == first.counts
    before, after = (dict(rows(each, "place, sha256")) for each in (first, second))
    assert {place for place in before if before[place] != after[place]} == {"00000.tar!000000002"}
    winnow("export", toml, "--format", "webdataset", "--to", tmp_path / "again", root=tmp_path / "data")


def winnow(command, toml, *options, root, code=0):
    """The lines on standard error of a command that ends with this status."""
    words = [command, toml, *options, "--root", root]
    told = subprocess.run([sys.executable, "-m", "flows", *map(str, words)], capture_output=True, text=True)
    assert told.returncode == code, told.stderr
    return told.stderr.strip().splitlines()
