"""Bytes from strangers: what is made of them, and what they cost."""

import io
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from loopback_web import bomb, picture
from PIL import Image

from pipeline.failure import RowError
from pipeline.images.limits import Limits
from pipeline.images.sandbox import Decoders
from pipeline.settings.download import Download

CAUSES = {"undecodable", "too_many_pixels", "decode_timeout", "decode_crash"}
LIMITS = Limits(image_size=64, quality=95, max_pixels=50_000_000)


@pytest.fixture(scope="module")
def decoder():
    with Decoders(LIMITS) as decoder:
        yield decoder


def processes(decoder):
    """The process numbers of its decoders."""
    lines = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    each = [tuple(map(int, line.split())) for line in lines.splitlines()]
    return {child for child, parent in each if parent == decoder.pid}


def only(decoder):
    (process,) = processes(decoder)
    return process


def encoded(image, kind="PNG", **options):
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def decoded(decoder, data):
    return Image.open(io.BytesIO(decoder.decode(data).jpeg))


def cause_of(decoder, data):
    with pytest.raises(RowError) as caught:
        decoder.decode(data)
    return caught.value.cause


@pytest.fixture(scope="module")
def heavy():
    """A small file with 49 megapixels that takes about half a second."""
    return encoded(Image.new("RGB", (7000, 7000), "teal"), compress_level=1)


def quarters():
    """Red, green, blue and white quarters: 40 x 60, so that every turn shows."""
    image = Image.new("RGB", (40, 60))
    for colour, place in zip(("red", "green", "blue", "white"), ((0, 0), (20, 0), (0, 30), (20, 30)), strict=True):
        image.paste(colour, (*place, place[0] + 20, place[1] + 30))
    return image


def corners(image):
    near = lambda pixel: tuple(round(value / 128) * 128 for value in pixel)  # noqa: E731
    width, height = image.size
    return [near(image.getpixel((x, y))) for x, y in ((5, 5), (width - 6, 5), (5, height - 6), (width - 6, height - 6))]


@pytest.mark.parametrize(
    ("size", "stored"), [((640, 480), (85, 64)), ((480, 640), (64, 85)), ((64, 900), (64, 900)), ((20, 10), (20, 10))]
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_shorter_side_shrinks_and_never_grows(decoder, size, stored, kind):
    made = decoder.decode(encoded(Image.linear_gradient("L").convert("RGB").resize(size), kind))
    assert (made.width, made.height) == size
    image = Image.open(io.BytesIO(made.jpeg))
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", stored)


def test_shrinking_is_smooth(decoder):
    """A fine chequerboard turns grey, whichever way the size is reduced."""
    fine = Image.fromarray(np.tile(np.array([[0, 255], [255, 0]], np.uint8), (512, 512))).convert("RGB")
    for kind, options in (("PNG", {}), ("JPEG", {"quality": 95, "subsampling": 0})):
        pixels = np.asarray(decoded(decoder, encoded(fine, kind, **options)).convert("L"), int)
        assert abs(pixels.mean() - 127.5) < 3
        assert pixels.std() < 3


def test_limits_are_those_of_the_source_file():
    settings = Download(image_size=100, quality=90, max_pixels=5000, resample="lanczos")
    assert Limits.of(settings) == Limits(100, 90, 5000, "lanczos")


def test_lanczos_is_sharper_than_hamming():
    """Stripes of four pixels, at a little more than half their size: which way keeps more of their contrast."""
    stripes = encoded(Image.fromarray(np.tile(np.repeat(np.uint8([40, 210]), 4), (120, 15))).convert("RGB"))
    contrast = {}
    for resample in ("hamming", "lanczos"):
        with Decoders(Limits(64, 95, 10**6, resample)) as pool:
            contrast[resample] = np.asarray(decoded(pool, stripes).convert("L"), float).std()
    assert contrast["lanczos"] > contrast["hamming"] + 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_pictures_stand_upright(decoder, orientation, kind):
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # how a camera held that way sees it
    upright = quarters()
    seen = upright.transpose(Image.Transpose(turns[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    made = decoder.decode(encoded(seen, kind, exif=exif, **options))
    assert (made.width, made.height) == upright.size
    assert corners(Image.open(io.BytesIO(made.jpeg))) == corners(upright)


def test_nothing_but_pixels_is_stored(decoder):
    exif = Image.Exif()
    exif[0x010E] = "a secret description"
    data = encoded(quarters(), "JPEG", exif=exif, comment=b"a secret comment", icc_profile=b"x" * 200)
    assert b"secret" in data
    image = decoded(decoder, data)
    assert b"secret" not in decoder.decode(data).jpeg
    assert not image.getexif()
    assert "icc_profile" not in image.info


def segments(jpeg):
    """The markers of a JPEG up to its pixels."""
    found, place = [], 2
    while jpeg[place + 1] != 0xDA:
        found.append(jpeg[place + 1])
        place += 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
    return found


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_where_a_picture_was_taken_is_not_stored(decoder, kind):
    """GPS in EXIF and in XMP, as a telephone writes them; only that it was held sideways is of use."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Secret Telephones"
    place = exif.get_ifd(0x8825)
    place[1], place[2], place[3], place[4] = "N", (52.0, 31.0, 12.0), "E", (13.0, 24.0, 18.0)
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><exif:GPSLatitude>52,31.2N secret</exif:GPSLatitude></x:xmpmeta>"
    about = {} if kind == "PNG" else {"xmp": xmp}
    data = encoded(quarters(), kind, exif=exif, **about)
    with Image.open(io.BytesIO(data)) as sent:
        assert sent.getexif().get_ifd(0x8825)[2] == (52.0, 31.0, 12.0)
        assert ("xmp" in sent.info) == bool(about)
    made = decoder.decode(data)
    assert (made.width, made.height) == (60, 40)
    stored = Image.open(io.BytesIO(made.jpeg))
    assert not stored.getexif()
    assert not {"exif", "xmp", "comment", "icc_profile"} & stored.info.keys()
    assert set(segments(made.jpeg)) <= {0xE0, 0xDB, 0xC0, 0xC4}  # JFIF, and what it takes to decode


def test_all_modes_become_rgb(decoder):
    grey = np.linspace(0, 65535, 40 * 40).astype(np.uint16).reshape(40, 40)
    deep = np.asarray(decoded(decoder, encoded(Image.fromarray(grey))), int)[..., 0]
    assert abs(deep - grey / 256).max() < 8  # all of its range, not the lowest 255 steps
    floating = Image.fromarray((grey / 65535).astype(np.float32))
    assert np.asarray(decoded(decoder, encoded(floating, "TIFF"))).std() > 60
    ink = decoded(decoder, encoded(Image.new("CMYK", (40, 40), (0, 255, 255, 0)), "JPEG", quality=95))
    assert ink.mode == "RGB"
    assert np.allclose(ink.getpixel((20, 20)), (255, 0, 0), atol=4)
    for mode in ("1", "L", "P", "LA", "RGBA"):
        assert decoded(decoder, encoded(quarters().convert(mode))).mode == "RGB"


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(decoder, mode):
    clear = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    clear.paste((0, 0, 0, 255), (0, 0, 20, 40))
    image = decoded(decoder, encoded(clear.convert(mode)))
    assert image.getpixel((5, 20)) < (8, 8, 8)
    assert image.getpixel((35, 20)) > (247, 247, 247)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_counts(decoder, kind):
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    image = decoded(decoder, encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert np.allclose(image.getpixel((20, 20)), (254, 0, 0), atol=4)


PACKED = zlib.compress(bytes(32 << 20), 1)


def with_chunk(png, name, data):
    """The PNG with one chunk more, after its header."""
    chunk = struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return png[:33] + chunk + png[33:]


def icon(png):
    """An ICO that says 16 x 16 of whatever this is."""
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(png), 22) + png


def test_frames_without_end_cost_no_more_than_the_first(decoder):
    one = encoded(Image.new("P", (40, 40), 1), "GIF")
    palette = 3 << (one[10] & 7) + 1
    frame = one[13 + palette : -1]
    many = one[:-1] + frame * (4_000_000 // len(frame)) + b";"
    begun = time.monotonic()
    assert decoder.decode(many) == decoder.decode(one)
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "undecodable"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "undecodable"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) print\n", "undecodable"),
        (picture(1)[:1000], "undecodable"),
        (bomb(), "too_many_pixels"),
        (icon(bomb()), "too_many_pixels"),
        (encoded(Image.new("1", (10_000, 6_000))), "too_many_pixels"),
        (with_chunk(encoded(Image.new("L", (9, 9))), b"zTXt", b"a\0\0" + PACKED), "undecodable"),
    ],
)
def test_what_is_refused(decoder, data, cause):
    assert cause_of(decoder, data) == cause


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}], ids=str)
def test_a_jpeg_that_lacks_its_end_marker_only_is_whole(decoder, options):
    grain = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    data = encoded(Image.fromarray(grain), "JPEG", **options)
    assert data.endswith(b"\xff\xd9")
    assert decoder.decode(data[:-2]) == decoder.decode(data)
    for missing in (1, 10, 100, 1000):
        assert cause_of(decoder, data[:-missing]) == "undecodable"


def test_a_picture_that_takes_too_long_costs_one_row(heavy):
    with Decoders(Limits(64, 95, 50_000_000, seconds=0.1)) as decoder:
        good = decoder.decode(picture(1))
        first = only(decoder)
        begun = time.monotonic()
        assert cause_of(decoder, heavy) == "decode_timeout"
        assert time.monotonic() - begun < 2
        assert decoder.decode(picture(1)) == good
        assert only(decoder) != first


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not limit a process's memory")
def test_a_picture_that_takes_too_much_memory_costs_one_row(heavy):
    with Decoders(Limits(64, 95, 50_000_000, memory=150 << 20)) as decoder:
        assert cause_of(decoder, heavy) == "undecodable"
        assert decoder.decode(picture(1)).jpeg


def test_a_picture_that_kills_the_decoder_costs_one_row(decoder, heavy):
    decoder.decode(picture(1))
    threading.Timer(0.1, os.kill, (only(decoder), signal.SIGSEGV)).start()
    assert cause_of(decoder, heavy) == "decode_crash"
    assert decoder.decode(picture(1)).jpeg


def test_a_decoder_that_died_between_two_pictures_costs_none(decoder):
    good = decoder.decode(picture(1))
    os.kill(only(decoder), signal.SIGKILL)
    time.sleep(0.1)
    assert decoder.decode(picture(1)) == good


def test_many_threads_get_their_own_pictures(decoder):
    alone = [decoder.decode(picture(number)) for number in range(16)]
    assert len({made.jpeg for made in alone}) == 16
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda n: decoder.decode(picture(n % 16)), range(160))) == alone * 10


def test_a_closed_decoder_leaves_no_process():
    decoder = Decoders(LIMITS, 3)
    decoder.decode(picture(1))
    started = {decoder.pid, *processes(decoder)}
    assert len(started) == 4
    decoder.close()
    until = time.monotonic() + 5
    while (left := [pid for pid in started if Path(f"/proc/{pid}").exists()]) and time.monotonic() < until:
        time.sleep(0.01)
    assert left == []


def test_a_pool_decodes_several_pictures_at_once_for_forks_too(heavy):
    """One picture takes half a second and holds one decoder; the others go to the other one, and none is mixed up."""
    with Decoders(LIMITS, 2) as pool, ThreadPoolExecutor(6) as threads:
        alone = [pool.decode(picture(number)) for number in range(16)]
        slow = threads.submit(pool.decode, heavy)
        child = os.fork()
        if child == 0:
            os._exit(0 if [pool.decode(picture(number)) for number in range(16)] == alone else 1)
        assert list(threads.map(lambda number: pool.decode(picture(number % 16)), range(96))) == alone * 6
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert not slow.exception()


def test_each_picture_that_kills_a_decoder_costs_its_own_row(heavy):
    """Five deaths among forty pictures: five rows, each with its cause, and all decoders are there again."""
    with Decoders(Limits(64, 95, 50_000_000, seconds=0.1), 2) as pool, ThreadPoolExecutor(8) as threads:
        good = pool.decode(picture(1))
        asked = [heavy if number % 8 == 3 else picture(1) for number in range(40)]
        outcomes = [threads.submit(pool.decode, data) for data in asked]
        for data, outcome in zip(asked, outcomes, strict=True):
            if data is heavy:
                assert outcome.exception().cause == "decode_timeout"
            else:
                assert outcome.result() == good
        assert len(processes(pool)) == 2


def test_hostile_files_have_the_outcome_that_a_careful_loader_gives():
    if "WINNOW_DATA" not in os.environ:
        pytest.skip("WINNOW_DATA does not name the folder of real test data")
    folder = Path(os.environ["WINNOW_DATA"]) / "hostile"
    rows = pq.read_table(folder / "index.parquet").to_pylist()
    assert len(rows) == 258
    wrong = []
    with Decoders(Limits(256, 95, 50_000_000)) as decoder:
        for row in rows:
            begun = time.monotonic()
            outcome = outcome_of(decoder, (folder / row["file"]).read_bytes())
            if time.monotonic() - begun > 3:
                wrong.append((row["file"], "slow"))
            if row["strict"] and outcome != (row["expected"], row["width"], row["height"]):
                wrong.append((row["file"], outcome))
    assert wrong == []


def outcome_of(decoder, data):
    try:
        made = decoder.decode(data)
    except RowError as failure:
        return ("reject", None, None) if failure.cause in CAUSES else failure.cause
    Image.open(io.BytesIO(made.jpeg)).load()
    return "ok", made.width, made.height
