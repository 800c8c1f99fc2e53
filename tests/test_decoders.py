"""Decoders: the same pixels, resized all but alike, scores within 1e-3; one that is missing says how to get it."""

import io
from importlib.util import find_spec
from pathlib import Path

import downloaded_sources
import numpy as np
import pytest
from PIL import Image

from pipeline.bench import synthetic
from pipeline.demo import world
from pipeline.download import download
from pipeline.errors import ShardError, SourceError
from pipeline.images import decoders
from pipeline.scorers.captions import CaptionsSpec
from pipeline.scorers.clip import ClipSpec
from pipeline.scorers.pixels import Pixels, PixelsSpec
from pipeline.scoring.plan import Plan
from pipeline.scoring.run import Scoring
from pipeline.settings import encoder
from pipeline.sources import loading
from pipeline.store.storage import Storage
from training.data import features
from training.encoders import encoders

HERE = ["torchvision", *(["pillow-simd"] if find_spec("pillow_simd") else [])]
PARITY = 24
CLIP = Path(world.__file__).parent / "clip"


@pytest.fixture(scope="module")
def jpegs():
    return [synthetic.jpeg(number, 256)[0] for number in range(PARITY)]


@pytest.mark.parametrize("name", HERE)
def test_pixels_are_the_same_and_resized_all_but_the_same(jpegs, name):
    pillow, other = decoders.decoder("pillow"), decoders.decoder(name)
    for content in jpegs:
        expected, found = pillow(content), other(content)
        assert isinstance(found, Image.Image)
        assert (np.asarray(found) == np.asarray(expected)).all()
        for size, how in (((224, 168), Image.Resampling.BICUBIC), ((48, 50), Image.Resampling.BILINEAR)):
            one, another = (np.asarray(each.resize(size, how), int) for each in (expected, found))
            assert np.abs(one - another).max() <= 2
            assert np.abs(one - another).mean() < 0.5
        lanczos = [np.asarray(each.resize((9, 8), Image.Resampling.LANCZOS)) for each in (expected, found)]
        assert (lanczos[0] == lanczos[1]).all()


@pytest.mark.parametrize("name", ["pillow", *HERE])
def test_a_network_is_trained_on_what_a_scorer_sees(tmp_path, jpegs, name):
    """Training draws pixels that it may have augmented; the same pixels come out as they do of a stored picture."""
    network = encoder.parse_encoder("timm:test_resnet@random")
    loaded, decode, drawn = encoders.load(network), decoders.decoder(name), decoders.from_pixels(name)
    for content in jpegs[:8]:
        seen = loaded.prepare(decode(content))
        assert (features.prepare(loaded, drawn, "", 0, ("a picture", content)).versions[0] == seen).all()
    own, pillow = (features.Extractor(Storage(tmp_path), network, each, None).identity for each in (name, "pillow"))
    assert (own == pillow) == (name == "pillow")


@pytest.mark.parametrize("name", HERE)
def test_another_scorer_sees_an_ordinary_picture(jpegs, name):
    expected, found = (Pixels().prepare(decoders.decoder(each)(jpegs[0])) for each in ("pillow", name))
    assert (found.brightness, found.sharpness, found.phash) == (expected.brightness, expected.sharpness, expected.phash)


@pytest.mark.slow
@pytest.mark.parametrize("name", HERE)
def test_the_decoder_moves_no_score_by_a_thousandth(tmp_path, jpegs, name):
    spec = ClipSpec.model_validate({"kind": "clip", "model": f"local-dir:{CLIP}", "precision": "float32"})
    said = ("a red cube", "a blue ball behind a green cone")
    rows = [(f"http://host/{n}.jpg", said[n % 2], Image.open(io.BytesIO(each))) for n, each in enumerate(jpegs)]
    found = {}
    for each in ("pillow", name):
        described, storage, (shard,) = downloaded_sources.downloaded(tmp_path / each, rows, {"clip": spec})
        described = described.model_copy(update={"decoder": each})
        Scoring(Plan.of(described), storage)(shard)
        found[each] = np.array(downloaded_sources.scores(described, storage, shard, "clip")["similarity"])
    assert np.ptp(found["pillow"]) > 0.05
    assert np.abs(found["pillow"] - found[name]).max() < 1e-3


@pytest.mark.parametrize("name", ["pillow", *HERE])
def test_a_broken_picture_is_an_error_of_the_shard(tmp_path, name):
    row = ("http://host/0.jpg", "broken", downloaded_sources.picture(0))
    described, storage, (shard,) = downloaded_sources.downloaded(tmp_path, [row], {"pixels": PixelsSpec(kind="pixels")})
    tar = storage.fetch(download.stage(described).item(0, ".tar"))
    content = tar.read_bytes()
    start = content.index(b"\xff\xd8")
    tar.write_bytes(content[:start] + bytes(64) + content[start + 64 :])
    with pytest.raises(ShardError, match=r"00000.jpg in .* cannot be decoded"):
        Scoring(Plan.of(described.model_copy(update={"decoder": name})), storage)(shard)


def test_the_decoder_is_in_the_key_of_what_looks_at_pictures(tmp_path):
    scorers = {"pixels": PixelsSpec(kind="pixels"), "captions": CaptionsSpec(kind="captions")}
    described, _, _ = downloaded_sources.downloaded(
        tmp_path, [("http://host/0.jpg", "a", downloaded_sources.picture(0))], scorers
    )
    one, another = (
        Plan.of(described.model_copy(update={"decoder": each})).scores for each in ("pillow", "torchvision")
    )
    assert one["pixels"].key != another["pixels"].key
    assert one["captions"].key == another["captions"].key


def test_a_name_that_is_no_decoder_and_one_that_is_missing(tmp_path):
    (tmp_path / "a.toml").write_text('decoder = "simd"\n[pairs]\nlocation = "https://host/list.tsv"\n')
    with pytest.raises(SourceError, match=r"a.toml: decoder: .*'pillow', 'pillow-simd' or 'torchvision'"):
        loading.load(tmp_path / "a.toml")
    if "pillow-simd" not in HERE:
        with pytest.raises(SourceError, match="run `make simd`"):
            decoders.decoder("pillow-simd")
