"""Pictures that are on this machine: where they are, and what a shard of them becomes."""

import hashlib
import io
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from webdataset_tars import picture, tar

from pipeline.download.job import Local, TakingJob
from pipeline.download.taking_process import take
from pipeline.failure import RowError
from pipeline.files.places import join, split
from pipeline.files.read import Reader
from pipeline.images.limits import Limits
from pipeline.images.plain_jpeg import is_plain
from pipeline.images.sandbox import Decoders
from pipeline.ledger.blocklist import Blocked
from pipeline.store import tarfiles
from pipeline.store.references import ChangedFileError

LIMITS = Limits(image_size=64, quality=95, max_pixels=1_000_000, keep_plain=True)


@pytest.fixture(scope="module")
def decoders():
    with Decoders(LIMITS, 2) as running:
        yield running


def taken(folder, rows, decoders, blocked=None, **settings):
    """The rows of (place, caption), each with a URL of its own, and the members of the tar, as they are stored."""
    folder.mkdir(exist_ok=True)
    table = {
        "uid": [f"{number:032x}" for number in range(len(rows))],
        "url": [place or "" for place, _ in rows],
        "caption": [caption for _, caption in rows],
        "url_number": list(range(len(rows))),
        "place": [place for place, _ in rows],
    }
    pq.write_table(pa.table(table), folder / "pairs.parquet")
    where = {"": Local(settings["base"], settings.get("symlinks", False), None)}
    most = settings.get("max_bytes", 1_000_000)
    take(TakingJob(folder / "pairs.parquet", folder, where, most, blocked or Blocked()), decoders)
    made = pq.read_table(folder / "shard.parquet").to_pylist()
    return made, dict(tarfiles.read_stored(folder / "shard.tar"))


@pytest.mark.parametrize(
    ("place", "parts"),
    [
        ("photos/a.jpg", ("photos/a.jpg", None)),
        ("wow!.jpg", ("wow!.jpg", None)),
        ("00012.tar!000120034", ("00012.tar", "000120034")),
        ("a/b.TAR!c!d.jpg", ("a/b.TAR", "c!d.jpg")),
        ("x.parquet!17", ("x.parquet", "17")),
    ],
)
def test_a_place_is_a_file_and_what_is_inside(place, parts):
    assert split(place) == parts


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/passwd", "a/../../b", "a\0b", "C:\\x", "a\\..\\..\\b"])
def test_no_place_leads_out_of_its_folder(tmp_path, name):
    with pytest.raises(RowError, match="outside_folder"):
        join(tmp_path, name, symlinks=True)


def test_a_link_out_of_the_folder_is_refused_unless_allowed(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "other.jpg").write_bytes(picture(1))
    (tmp_path / "photos" / "link.jpg").symlink_to(tmp_path / "other.jpg")
    (tmp_path / "photos" / "own.jpg").write_bytes(picture(2))
    (tmp_path / "photos" / "inside.jpg").symlink_to("own.jpg")
    reader = Reader(tmp_path / "photos", 1_000_000)
    with pytest.raises(RowError, match="symlinks = true"):
        reader.read("link.jpg")
    assert reader.read("inside.jpg") == (tmp_path / "photos" / "own.jpg").read_bytes()
    assert Reader(tmp_path / "photos", 1_000_000, symlinks=True).read("link.jpg")


def test_a_jpeg_is_plain_if_nothing_must_be_changed():
    with_exif = Image.Exif()
    with_exif[0x0112] = 6
    grey = io.BytesIO()
    Image.new("L", (8, 8)).save(grey, "JPEG")
    assert is_plain(picture(1))
    assert is_plain(picture(1, progressive=True))
    assert not is_plain(picture(1, exif=with_exif))
    assert not is_plain(picture(1, comment=b"taken at home"))
    assert not is_plain(picture(1) + b"hidden")
    assert not is_plain(picture(1)[:-2])
    assert not is_plain(picture(1, kind="PNG"))
    assert not is_plain(grey.getvalue())


def test_plain_pictures_are_referred_to_and_others_are_made_anew(tmp_path, decoders):
    photos = tmp_path / "photos"
    photos.mkdir()
    contents = {
        "plain.jpg": picture(1),
        "large.jpg": picture(2, (200, 100)),
        "drawn.png": picture(3, kind="PNG"),
        "no-end.jpg": picture(4)[:-2],
    }
    for name, content in contents.items():
        (photos / name).write_bytes(content)
    tar(photos / "00000.tar", [("s1.jpg", contents["plain.jpg"]), ("s1.txt", b"words")])
    places = [*contents, "00000.tar!s1", "00000.tar!s1.jpg"]
    rows, stored = taken(tmp_path / "made", [(place, "words") for place in places], decoders, base=photos)
    assert [row["status"] for row in rows] == ["ok"] * 6
    assert [row["sha256"] for row in rows[:4]] == [hashlib.sha256(each).hexdigest() for each in contents.values()]
    assert [(row["width"], row["height"]) for row in rows[:2]] == [(48, 40), (200, 100)]
    refers = {name: json.loads(each)["file"] for name, each in stored.items() if each.startswith(b"{")}
    assert refers == {
        "00000.jpg": str(photos / "plain.jpg"),
        "00004.jpg": str(photos / "00000.tar"),
        "00005.jpg": str(photos / "00000.tar"),
    }
    read = dict(tarfiles.read(tmp_path / "made" / "shard.tar"))
    assert read["00000.jpg"] == read["00004.jpg"] == read["00005.jpg"] == contents["plain.jpg"]
    assert Image.open(io.BytesIO(read["00001.jpg"])).size == (128, 64)


def test_a_file_that_changed_later_is_named(tmp_path, decoders):
    (tmp_path / "a.jpg").write_bytes(content := picture(1))
    taken(tmp_path / "made", [("a.jpg", "words")], decoders, base=tmp_path)
    tar_of_shard = tmp_path / "made" / "shard.tar"
    for other in (content[:-3] + bytes([content[-3] ^ 1]) + content[-2:], content[:-10], b""):
        (tmp_path / "a.jpg").write_bytes(other)
        with pytest.raises(ChangedFileError, match=r"a\.jpg has changed .* `winnow retry SOURCE --cause changed_file`"):
            list(tarfiles.read(tar_of_shard))
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(ChangedFileError, match="cannot be read"):
        list(tarfiles.read(tar_of_shard))


def test_bad_files_are_rows_with_a_cause(tmp_path, decoders):
    base = tmp_path / "base"
    base.mkdir()
    (base / "words.jpg").write_bytes(b"these are words")
    (base / "empty.jpg").touch()
    (base / "big.jpg").write_bytes(bytes(1_000_001))
    (base / "folder.jpg").mkdir()
    (base / "no-tar.tar").write_bytes(b"these are words" * 100)
    os.mkfifo(base / "pipe.jpg")
    two = [("s1.jpg", picture(1)), ("s1.png", picture(2, kind="PNG")), ("twice.jpg", picture(3))]
    whole = tar(base / "two.tar", [*two, ("twice.jpg", picture(4)), ("s2.txt", b"words"), ("../out.jpg", picture(5))])
    (base / "cut.tar").write_bytes(whole.read_bytes()[: 1024 + len(picture(1))])
    rows = {
        "words.jpg": "undecodable",
        "empty.jpg": "empty",
        "big.jpg": "too_large",
        "folder.jpg": "missing_file",
        "pipe.jpg": "missing_file",
        "nowhere.jpg": "missing_file",
        "../base/words.jpg": "outside_folder",
        "no-tar.tar!s1": "broken_tar",
        "nowhere.tar!s1": "missing_file",
        "two.tar!s1": "several_pictures",
        "two.tar!s1.jpg": None,
        "two.tar!twice": "several_pictures",
        "two.tar!s2": "missing_member",
        "two.tar!../out": "outside_folder",
        "cut.tar!s2": "broken_tar",
        "cut.tar!s1.jpg": None,
        None: "missing_file",
    }
    made, _ = taken(tmp_path / "made", [(place, "words") for place in rows], decoders, base=base)
    assert {row["cause"] for row in made if row["status"] == "ok"} == {None}
    assert [row["cause"] for row in made] == list(rows.values())


def test_pairs_without_a_caption_fail_and_blocked_ones_are_not_read(tmp_path, decoders):
    for number in range(4):
        (tmp_path / f"{number}.jpg").write_bytes(picture(number * 90))
    digest = hashlib.sha256((tmp_path / "2.jpg").read_bytes()).hexdigest()
    blocked = Blocked(uids=frozenset({f"{1:032x}"}), pictures=frozenset({digest}))
    rows = [("0.jpg", " \n"), ("1.jpg", "words"), ("2.jpg", "words"), ("3.jpg", "words")]
    made, stored = taken(tmp_path / "made", rows, decoders, blocked, base=tmp_path)
    assert [row["cause"] for row in made] == ["no_caption", "forgotten", "forgotten", None]
    assert list(stored) == ["00003.jpg"]


def test_hostile_files_in_a_tar_have_the_outcome_that_a_careful_loader_gives(tmp_path):
    if "WINNOW_DATA" not in os.environ:
        pytest.skip("WINNOW_DATA does not name the folder of real test data")
    folder = Path(os.environ["WINNOW_DATA"]) / "hostile"
    files = [each for each in pq.read_table(folder / "index.parquet").to_pylist() if each["strict"]]
    path = tmp_path / "00000.tar"
    tar(path, [(f"{number:05d}.img", (folder / each["file"]).read_bytes()) for number, each in enumerate(files)])
    places = [(f"00000.tar!{number:05d}", "words") for number in range(len(files))]
    with Decoders(Limits(256, 95, 50_000_000, keep_plain=True), 2) as careful:
        made, _ = taken(tmp_path / "made", places, careful, base=tmp_path, max_bytes=100_000_000)
    outcomes = [("reject" if row["status"] == "failed" else "ok", row["width"], row["height"]) for row in made]
    assert outcomes == [(each["expected"], each["width"], each["height"]) for each in files]
    content = dict(tarfiles.read(tmp_path / "made" / "shard.tar"))
    for each in content.values():
        Image.open(io.BytesIO(each), formats=["JPEG"]).convert("RGB").load()
