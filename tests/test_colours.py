"""Pictures with colour profiles, and grey pictures of more than 8 bits: what their colours become."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipeline.failure import RowError
from pipeline.images.limits import Limits
from pipeline.images.sandbox import Decoders

SCENE = np.array(
    [(200, 60, 50), (60, 160, 70), (50, 70, 180), (128, 128, 128), (230, 200, 160), (20, 20, 25), (255, 255, 255)]
)
"""sRGB colours, none too vivid for any space below."""

SPACES = {
    "Display P3": ([[0.51512, 0.29198, 0.1571], [0.2412, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]], "sRGB"),
    "Adobe RGB": ([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]], 2.19921875),
    "ProPhoto": ([[0.79767, 0.13519, 0.03134], [0.28804, 0.71188, 0.00009], [0.0, 0.0, 0.8251]], 1.80078125),
    "sRGB": ([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]], "sRGB"),
}
"""Columns are the XYZ of red, green and blue under D50, and the tone curve."""

D50 = np.array([0.9642, 1.0, 0.8249])


def srgb_to_light(values):
    values = np.asarray(values) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def in_space(colours, name):
    """sRGB colours as the numbers that a picture in this space has for them."""
    matrix, curve = SPACES[name]
    light = np.linalg.solve(matrix, (np.array(SPACES["sRGB"][0]) @ srgb_to_light(colours).T)).T.clip(0, 1)
    if curve == "sRGB":
        return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * 255
    return light ** (1 / curve) * 255


def fixed(*numbers):
    return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)


def curve(kind):
    if kind == "sRGB":
        return b"para\0\0\0\0" + struct.pack(">HH", 3, 0) + fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    return b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(kind * 256), 0)


def icc(tags, space=b"RGB ", connection=b"XYZ ", device=b"mntr"):
    """A profile of these tags, version 4."""
    tags = {b"desc": b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", 2, 28) + b"\0t\0\0", **tags}
    place, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        data += b"\0" * (-len(data) % 4)
        table += name + struct.pack(">II", place + len(body), len(data))
        body += data
    size = place + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x04200000, device, space, connection)
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + fixed(*D50)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def matrix_profile(name, device=b"mntr"):
    matrix, tone = SPACES[name]
    return matrix_icc(np.array(matrix), tone, device)


def matrix_icc(matrix, tone, device=b"mntr"):
    tags = {b"wtpt": b"XYZ \0\0\0\0" + fixed(*D50)}
    for letter, column in zip(b"rgb", matrix.T, strict=True):
        tags[bytes([letter]) + b"XYZ"] = b"XYZ \0\0\0\0" + fixed(*column)
        tags[bytes([letter]) + b"TRC"] = curve(tone)
    return icc(tags, device=device)


def grey_profile(gamma):
    return icc({b"wtpt": b"XYZ \0\0\0\0" + fixed(*D50), b"kTRC": curve(gamma)}, b"GRAY")


def ink_profile():
    """Of a press whose cyan is dark: a table from the 16 full mixtures of inks to Lab."""
    table = b""
    for number in range(16):
        cyan, magenta, yellow, black = (number >> shift & 1 for shift in (3, 2, 1, 0))
        light = 100 * (1 - 0.7 * cyan) * (1 - 0.4 * magenta) * (1 - 0.1 * yellow) * (1 - 0.9 * black)
        table += bytes(
            [round(light * 2.55), round(128 - 30 * cyan + 60 * magenta), round(128 - 30 * cyan + 70 * yellow)]
        )
    ramp = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + ramp * 4 + table + ramp * 3
    return icc({b"wtpt": b"XYZ \0\0\0\0" + fixed(*D50), b"A2B0": lut}, b"CMYK", b"Lab ", b"prtr")


@pytest.fixture(scope="module")
def decoder():
    with Decoders(Limits(image_size=512, quality=100, max_pixels=50_000_000)) as decoder:
        yield decoder


def patches(colours, mode="RGB"):
    """A picture of squares of 32 px side by side."""
    pixels = np.repeat(np.round(np.array(colours))[None].astype(np.uint8), 32, 1)
    return Image.fromarray(np.repeat(pixels, 32, 0), mode)


def encoded(image, kind="PNG", **options):
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def stored(decoder, data):
    return np.asarray(Image.open(io.BytesIO(decoder.decode(data).jpeg)), int)


def seen(decoder, data):
    """The colours in the middle of the patches, as they are stored."""
    pixels = stored(decoder, data)
    return pixels[16, 16::32]


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_colours_of_every_space_are_those_of_srgb(decoder, name, kind):
    """Within 3 of 256 levels, which rounding takes in the wider space and in JPEG; AVIF takes 3 more."""
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    options |= {"quality": 100, "subsampling": "4:4:4"} if kind == "AVIF" else {}
    wide = patches(in_space(SCENE, name))
    profile = matrix_profile(name)
    assert abs(seen(decoder, encoded(wide, kind, icc_profile=profile, **options)) - SCENE).max() <= (
        6 if kind == "AVIF" else 3
    )
    if name != "sRGB":  # and without the profile they would be far off
        assert abs(seen(decoder, encoded(wide, kind, **options)) - SCENE).max() > 15


def test_a_profile_of_srgb_changes_no_byte(decoder):
    grain = Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8))
    plain = encoded(grain)
    own = encoded(grain, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    assert decoder.decode(own).jpeg == decoder.decode(plain).jpeg


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA"])
def test_modes_without_a_profile_of_their_own_are_converted_too(decoder, mode):
    wide = patches(in_space(SCENE, "Display P3"))
    expected = SCENE
    if mode in ("L", "LA"):
        expected = np.asarray(wide.convert("L").convert("RGB"))[16, 16::32]  # greys are the same in P3 and sRGB
    data = encoded(wide.quantize() if mode == "P" else wide.convert(mode), icc_profile=matrix_profile("Display P3"))
    assert abs(seen(decoder, data) - expected).max() <= 4


def test_transparent_pictures_are_converted_and_stand_on_white(decoder):
    wide = patches(in_space(SCENE, "ProPhoto"))
    wide.putalpha(Image.fromarray(np.repeat(np.uint8([255, 255, 0, 0, 0, 0, 0]), 32)[None].repeat(32, 0)))
    colours = seen(decoder, encoded(wide, icc_profile=matrix_profile("ProPhoto")))
    assert abs(colours[:2] - SCENE[:2]).max() <= 4
    assert colours[2:].min() >= 254


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_grey_pictures_with_a_profile_of_grey(decoder, kind):
    levels = np.array([0, 30, 80, 128, 200, 255])
    light = (levels / 255) ** 1.0  # a scanner without a tone curve
    expected = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * 255
    colours = seen(decoder, encoded(patches(levels, "L"), kind, icc_profile=grey_profile(1.0)))
    assert abs(colours - expected[:, None]).max() <= 2
    deep = Image.fromarray(np.repeat(np.repeat((levels * 257).astype(np.uint16), 32)[None], 32, 0))
    if kind != "JPEG":
        assert abs(seen(decoder, encoded(deep, kind, icc_profile=grey_profile(1.0))) - expected[:, None]).max() <= 2


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_inks_have_the_colours_of_their_press(decoder, kind):
    inks = [(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0), (0, 0, 0, 255), (128, 128, 0, 0)]
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    plain = seen(decoder, encoded(patches(inks, "CMYK"), kind, **options))
    assert abs(plain[1] - (0, 255, 255)).max() <= 4
    colours = seen(decoder, encoded(patches(inks, "CMYK"), kind, icc_profile=ink_profile(), **options))
    reference = ImageCms.profileToProfile(
        patches(inks, "CMYK"), io.BytesIO(ink_profile()), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert abs(colours - np.asarray(reference, int)[16, 16::32]).max() <= 4
    assert colours[0].min() >= 250  # paper
    assert abs(colours[1] - (0, 84, 117)).max() <= 4  # L 30, a -30, b -30, worked out by hand


def oversized():
    return matrix_profile("ProPhoto") + bytes(5 << 20)


BROKEN = {
    "zeros": bytes(400),
    "a few bytes": b"\1",
    "noise": bytes(np.random.default_rng(1).integers(0, 256, 3000, np.uint8)),
    "half of it": matrix_profile("ProPhoto")[:300],
    "absurd: all is black": matrix_icc(np.zeros((3, 3)), 2.2),
    "absurd: black is white": matrix_icc(-np.array(SPACES["sRGB"][0]), 2.2),
    "of inks": ink_profile(),
    "of grey": grey_profile(1.0),
    "a link of two devices": matrix_profile("ProPhoto", b"link"),
    "abstract": matrix_profile("ProPhoto", b"abst"),
    "more than 4 MB": oversized(),
    "tags that point outside": matrix_profile("ProPhoto").replace(struct.pack(">I", 20), struct.pack(">I", 1 << 31)),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_profile_of_no_use_spoils_no_picture(decoder, kind, name):
    image = patches(SCENE)
    begun = time.monotonic()
    made = decoder.decode(encoded(image, kind, icc_profile=BROKEN[name]))
    assert made.jpeg == decoder.decode(encoded(image, kind)).jpeg
    assert time.monotonic() - begun < 2


def chunk(name, data, checksum=None):
    right = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", right if checksum is None else checksum)


@pytest.mark.parametrize(
    "broken",
    [
        chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(32 << 20), 1)),
        chunk(b"iCCP", b"a\0\0" + zlib.compress(matrix_profile("ProPhoto"))[:-9]),
        chunk(b"iCCP", b""),
        chunk(b"iCCP", b"a\0\0" + zlib.compress(matrix_profile("ProPhoto")), checksum=1),
    ],
    ids=["unpacks to 32 MB", "cut", "empty", "wrong checksum"],
)
def test_a_profile_chunk_of_no_use_spoils_no_png(decoder, broken):
    plain = encoded(patches(SCENE))
    assert decoder.decode(plain[:33] + broken + plain[33:]).jpeg == decoder.decode(plain).jpeg


def test_another_chunk_with_a_wrong_checksum_is_a_broken_picture(decoder):
    plain = encoded(patches(SCENE))
    with pytest.raises(RowError, match="undecodable"):
        decoder.decode(plain[:33] + chunk(b"pHYs", bytes(9), checksum=1) + plain[33:])


RAMP = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)


def tiff(values, order, bits, sample=1, photometric=1):
    """An uncompressed grey TIFF of one strip."""
    entries = [(256, 4, values.shape[1]), (257, 4, values.shape[0]), (258, 3, bits), (259, 3, 1), (262, 3, photometric)]
    entries += [(273, 4, 8), (277, 3, 1), (278, 4, values.shape[0]), (279, 4, values.nbytes), (339, 3, sample)]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + values.nbytes)
    rows = b"".join(
        struct.pack(order + "HHI", tag, kind, 1)
        + struct.pack(order + ("I" if kind == 4 else "HH"), value, *[0] * (kind == 3))
        for tag, kind, value in entries
    )
    return head + values.tobytes() + struct.pack(order + "H", len(entries)) + rows + bytes(4)


def pgm(values, most):
    return b"P5\n%d %d\n%d\n" % (*values.shape[::-1], most) + values.astype(">u2").tobytes()


SIXTEEN = {
    "PNG": encoded(Image.fromarray(RAMP)),
    "TIFF, little-endian": tiff(RAMP.astype("<u2"), "<", 16),
    "TIFF, big-endian": tiff(RAMP.astype(">u2"), ">", 16),
    "TIFF, white is 0": tiff((65535 - RAMP).astype("<u2"), "<", 16, photometric=0),
    "TIFF, packed": encoded(Image.fromarray(RAMP), "TIFF", compression="tiff_lzw"),
    "PGM": pgm(RAMP, 65535),
    "PGM of 10 bits": pgm(RAMP >> 6, 1023),
    "plain PGM": b"P2\n64 64\n65535\n" + b" ".join(b"%d" % value for value in RAMP.ravel()),
    "TIFF with a sign": tiff((RAMP.astype(int) - 32768).astype("<i2"), "<", 16, sample=2),
    "TIFF with a sign, big-endian": tiff((RAMP.astype(int) - 32768).astype(">i2"), ">", 16, sample=2),
    "32 bits": tiff(RAMP.astype("<u4") * 65537, "<", 32),
    "32 bits with a sign": tiff((RAMP.astype(np.int64) * 65537 - 2**31).astype("<i4"), "<", 32, sample=2),
    "32 bits with a sign, big-endian": tiff((RAMP.astype(np.int64) * 65537 - 2**31).astype(">i4"), ">", 32, sample=2),
    "small numbers of 32 bits": tiff((RAMP >> 8).astype("<i4"), "<", 32, sample=2),
    "floating point": tiff((RAMP / 65535).astype("<f4"), "<", 32, sample=3),
    "floating point, big-endian": tiff((RAMP / 65535).astype(">f4"), ">", 32, sample=3),
    "large floating point": tiff((RAMP / 65535 * 2e38 - 1e38).astype("<f4"), "<", 32, sample=3),
    "tiny floating point": tiff((RAMP * 1e-42).astype("<f4"), "<", 32, sample=3),
    "floating point far from 0": tiff((1e6 + RAMP / 256).astype("<f4"), "<", 32, sample=3),
    "floating point, white is 0": tiff((1 - RAMP / 65535).astype("<f4"), "<", 32, sample=3, photometric=0),
    "PFM": b"Pf\n64 64\n-1.0\n" + (RAMP[::-1] / 65535).astype("<f4").tobytes(),
}
"""The same ramp from black to white."""


@pytest.mark.parametrize("name", SIXTEEN)
def test_deep_grey_keeps_its_range(decoder, name):
    made = stored(decoder, SIXTEEN[name])
    assert abs(made - (RAMP >> 8)[..., None].astype(int)).max() <= 2
    assert (made.min(), made.max()) == (0, 255)


def test_twelve_bits_keep_their_range(decoder):
    values = (RAMP >> 4).astype(int).reshape(-1, 2)
    packed = np.stack([values[:, 0] >> 4, (values[:, 0] & 15) << 4 | values[:, 1] >> 8, values[:, 1] & 255], 1)
    data = tiff(packed.astype(np.uint8).reshape(64, 96), "<", 12)
    data = data.replace(struct.pack("<HHII", 256, 4, 1, 96), struct.pack("<HHII", 256, 4, 1, 64))
    made = stored(decoder, data)
    assert abs(made - (RAMP >> 8)[..., None].astype(int)).max() <= 2


def test_one_value_is_black_and_16_bits_are_not_spread(decoder):
    assert stored(decoder, tiff(np.full((9, 9), 0.5, "<f4"), "<", 32, sample=3)).max() == 0
    assert abs(stored(decoder, tiff(np.full((9, 9), 32768, ">u2"), ">", 16)) - 128).max() <= 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("order", "<>")
def test_floating_point_without_an_end_is_undecodable(decoder, value, order):
    for place in ((0, 0), (30, 30), (63, 63)):
        values = (RAMP / 65535).astype(order + "f4")
        values[place] = value
        with pytest.raises(RowError, match="undecodable: ValueError: a value is NaN or infinite"):
            decoder.decode(tiff(values, order, 32, sample=3))


@pytest.mark.parametrize("clear", [0, 20000, 65535])
def test_transparent_deep_grey_is_on_white(decoder, clear):
    levels = np.repeat(np.repeat(np.uint16([0, 20000, 40000, 65535]), 32)[None], 32, 0)
    data = encoded(Image.fromarray(levels), transparency=clear)
    expected = [255 if level == clear else level >> 8 for level in (0, 20000, 40000, 65535)]
    assert abs(seen(decoder, data) - np.array(expected)[:, None]).max() <= 2


@pytest.mark.parametrize("size", [(65_533, 31), (31, 65_533), (65_535, 1), (1, 65_535), (200_000, 100)])
def test_a_long_side_is_scaled_down_to_what_a_jpeg_holds(decoder, size):
    image = Image.new("L", size, 90)
    made = decoder.decode(encoded(image, "PNG" if max(size) > 65_535 else "GIF"))
    assert (made.width, made.height) == size
    small = Image.open(io.BytesIO(made.jpeg))
    assert max(small.size) == 65_500
    assert abs(min(small.size) - max(1, min(size) * 65_500 / max(size))) <= 1
    assert small.getpixel((0, 0)) == (90, 90, 90)
