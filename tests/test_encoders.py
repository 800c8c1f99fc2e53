import json
import os
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import training_sources
from PIL import Image
from pydantic import TypeAdapter

from pipeline.errors import ModelError, SourceError
from pipeline.settings import encoder
from pipeline.settings.encoder import Hog, Network, Pixels
from pipeline.sources import loading
from training.encoders import encoders, finite
from training.studies import candidates

DATA = Path(os.environ.get("WINNOW_DATA", ""))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """encoder.safetensors for timm's test_resnet, and clip/, a tiny open_clip model, both with random weights."""
    import open_clip
    from safetensors.torch import save_file

    made = tmp_path_factory.mktemp("models")
    training_sources.encoder(made)
    (made / "clip").mkdir()
    tower = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}
    text = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
    config = {"embed_dim": 24, "vision_cfg": tower, "text_cfg": text}
    (made / "clip/open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.manual_seed(1)
    model = open_clip.model.CLIP(**config)
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()},
        made / "clip/open_clip_model.safetensors",
    )
    return made


def timm_encoder(folder, **other):
    settings = {"kind": "timm", "model": "test_resnet", "weights": "encoder.safetensors"} | other
    return Network.model_validate(settings, context={"folder": folder})


def clip_encoder(folder):
    return Network.model_validate({"kind": "open_clip", "model": "local-dir:clip"}, context={"folder": folder})


def pictures(count):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)) for _ in range(count)]


def encoded(tower, images):
    return tower.encode([tower.prepare(image) for image in images])


def test_timm_features_are_the_model_s_own(folder):
    import timm
    from safetensors.torch import load_file

    tower = encoders.load(timm_encoder(folder))
    model = timm.create_model("test_resnet", pretrained=False)
    model.load_state_dict(load_file(folder / "encoder.safetensors"))
    model.eval()
    images = pictures(3)
    with torch.inference_mode():
        transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
        batch = torch.stack([transform(image) for image in images])
        assert torch.equal(tower.stack([tower.prepare(image) for image in images]), batch)
        expected = model.forward_head(model.forward_features(batch), pre_logits=True).numpy()
    assert expected.shape[1] == model.num_features
    np.testing.assert_allclose(encoded(tower, images), expected, atol=1e-4)


def test_open_clip_features_are_normalised(folder):
    tower = encoders.load(clip_encoder(folder))
    features = encoded(tower, pictures(3))
    assert features.shape == (3, 24)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    assert not np.allclose(features[0], features[1])


def test_features_do_not_depend_on_company(folder):
    tower, images = encoders.load(timm_encoder(folder)), pictures(5)
    np.testing.assert_allclose(encoded(tower, images)[2:3], encoded(tower, images[2:3]), atol=1e-5)


def test_preprocessing_can_be_told(folder):
    tower = encoders.load(
        timm_encoder(folder, preprocess={"input_size": [3, 48, 48], "mean": [0, 0, 0], "std": [1, 1, 1]})
    )
    (tensor,) = tower.stack([tower.prepare(Image.new("RGB", (100, 60), (255, 0, 51)))])
    assert tensor.shape == (3, 48, 48)
    np.testing.assert_allclose(tensor[:, 5, 5], [1, 0, 0.2], atol=1e-3)


def tower_of(network, batch):
    """Of prepared pictures as they are, 0 to 1."""
    return encoders.Tower(network, lambda image: image, [0.0] * 3, [1.0] * 3, batch)


def plain(*values):
    return [np.full((4, 4, 3), value, np.uint8) for value in values]


class Cramped(torch.nn.Module):
    """Has memory for `room` pictures."""

    def __init__(self, room, error=None):
        super().__init__()
        self.room, self.sizes = room, []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")

    def forward(self, window):
        self.sizes.append(len(window))
        if len(window) > self.room:
            raise self.error
        return window.mean(dim=(2, 3))


def test_the_batch_is_halved_when_memory_is_short():
    model = Cramped(3)
    tower = tower_of(model, 8)
    np.testing.assert_allclose(tower.encode(plain(*range(10)))[:, 0], np.arange(10) / 255, rtol=1e-6)
    assert model.sizes == [8, 4, 2, 2, 2, 2, 2]
    tower.encode(plain(1, 2, 3))
    assert model.sizes[7:] == [2, 2]  # a larger one is not tried again; the last is filled up


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")],
)
def test_no_memory_for_one_picture_is_an_error(error):
    with pytest.raises(ModelError, match="even with one picture"):
        tower_of(Cramped(0, error), 2).encode(plain(1, 2))


def test_what_has_nothing_to_do_with_memory_stays_what_it_is():
    with pytest.raises(RuntimeError, match="shapes"):
        tower_of(Cramped(0, RuntimeError("shapes differ")), 2).encode(plain(1, 2))


def test_features_that_are_no_numbers_are_an_error():
    broken = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 4), torch.nn.Flatten())
    torch.nn.init.constant_(broken[0].weight, torch.nan)
    with pytest.raises(ModelError, match="are not finite"):
        finite.to_float16(tower_of(broken.requires_grad_(False), 2).encode(plain(1)), str)


def test_the_identity_tells_weights_and_settings(folder, tmp_path):
    known = encoders.identity(timm_encoder(folder))
    assert json.loads(json.dumps(known)) == known
    assert len(known["weights"]) == 64
    assert str(folder) not in json.dumps(known)
    training_sources.encoder(tmp_path)
    assert encoders.identity(timm_encoder(tmp_path)) == known  # the same weights elsewhere
    assert encoders.identity(timm_encoder(folder, preprocess={"crop_pct": 1.0})) != known
    clip = encoders.identity(clip_encoder(folder))
    assert len(clip["weights"]) == len(clip["config"]) == 64
    assert str(folder) not in json.dumps(clip)


def test_weights_that_do_not_fit_are_refused(folder):
    with pytest.raises(ModelError, match="encoder test_vit"):
        encoders.load(timm_encoder(folder, model="test_vit"))
    with pytest.raises(ModelError, match="encoder test_resnett"):
        encoders.load(timm_encoder(folder, model="test_resnett"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("timm:resnet50", {"kind": "timm", "model": "resnet50"}),
        ("timm:resnet50@a1_in1k", {"kind": "timm", "model": "resnet50", "weights": "a1_in1k"}),
        ("timm:hf-hub:timm/resnet50@main", {"kind": "timm", "model": "hf-hub:timm/resnet50@main"}),
        ("open_clip:ViT-B-32@openai", {"kind": "open_clip", "model": "ViT-B-32", "weights": "openai"}),
        ("hog", {"kind": "hog"}),
        (
            '{ kind = "timm", model = "x", options = { a = [1] } }',
            {"kind": "timm", "model": "x", "options": {"a": [1]}},
        ),
    ],
)
def test_an_encoder_has_a_name(text, told):
    found = encoder.parse_encoder(text)
    assert found.model_dump(exclude_defaults=True) == told
    (line,) = tomllib.loads(candidates.toml(found)).values()
    assert TypeAdapter(encoder.Encoder).validate_python(line) == found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("resnet50", "no encoder is called 'resnet50': use timm:MODEL"),
        ("timm:", "no encoder is called"),
        ("timm:resnet50@gone.safetensors", "there is no file"),
        ("local-dir:gone", "there is no file"),
        ('{ kind = "hog", side = 7 }', "side: "),
        ("{ kind", "this is no TOML"),
        ('{ kind = "timm", model = "hf-hub:a/b", weights = "random" }', "includes its weights"),
    ],
)
def test_a_wrong_name_is_one_line(text, says):
    with pytest.raises(SourceError, match=says) as error:
        encoder.parse_encoder(text)
    assert "\n" not in str(error.value)


def test_names_of_files_and_folders_are_relative_to_where_they_are_read(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert encoder.parse_encoder("local-dir:clip").model == f"local-dir:{folder / 'clip'}"
    found = encoder.parse_encoder("timm:test_resnet@encoder.safetensors")
    assert (found.weights, found.name) == (str(folder / "encoder.safetensors"), "timm:test_resnet@encoder.safetensors")


def test_a_folder_that_timm_left(folder, tmp_path):
    """timm's own format for a hub, read from a folder: the same features, told by the digests of both files."""
    import timm
    from timm.models import save_for_hf

    model = timm.create_model(
        "test_resnet", pretrained=True, pretrained_cfg_overlay={"file": str(folder / "encoder.safetensors")}
    )
    save_for_hf(model, tmp_path / "saved", safe_serialization=True)
    found = encoder.parse_encoder(f"timm:local-dir:{tmp_path}/saved")
    assert len(encoders.identity(found)["config"]) == 64
    assert str(tmp_path) not in json.dumps(encoders.identity(found))
    images = pictures(2)
    np.testing.assert_array_equal(
        encoded(encoders.load(found), images), encoded(encoders.load(timm_encoder(folder)), images)
    )


def test_random_weights_are_always_the_same_and_say_so():
    for name in ("timm:test_resnet@random", "open_clip:RN50@random"):
        found = encoder.parse_encoder(name)
        assert encoders.identity(found)["weights"] == "random"


def test_a_dead_hub_is_one_line_that_names_the_way_out(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # as HF_HUB_OFFLINE=1
    for name in ("timm:resnet50", "open_clip:ViT-B-16-SigLIP@webli", "timm:hf-hub:timm/resnet50"):
        with pytest.raises(ModelError, match=r"cannot be fetched.* name a local .safetensors file") as error:
            encoders.identity(encoder.parse_encoder(name))
        assert "\n" not in str(error.value)


class Hub(BaseHTTPRequestHandler):
    """Serves one file, as a hub of models does, under whatever name."""

    content = b""

    def do_GET(self):
        self.send_response(200)
        for name, value in (("ETag", '"1"'), ("X-Repo-Commit", "abc"), ("Content-Length", len(self.content))):
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(self.content)

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


def test_a_hub_s_weights_are_fetched_once_and_told_by_their_digest(folder, tmp_path, monkeypatch):
    content = (folder / "encoder.safetensors").read_bytes()
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Served", (Hub,), {"content": content})) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        for name, value in {
            "ENDPOINT": address,
            "HUGGINGFACE_CO_URL_TEMPLATE": address + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path),
        }.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        by_tag, by_file = (
            encoder.parse_encoder(f"timm:test_resnet{which}") for which in ("", f"@{folder}/encoder.safetensors")
        )
        known = encoders.identity(by_tag)
        server.shutdown()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert known["weights"] == encoders.identity(by_file)["weights"]
    assert known["model"] == "test_resnet.r160_in1k"
    images = pictures(2)
    np.testing.assert_array_equal(encoded(encoders.load(by_tag), images), encoded(encoders.load(by_file), images))
    with pytest.raises(ModelError, match="test_resnet has no weights gone: take one of r160_in1k, or a .safetensors"):
        encoders.identity(encoder.parse_encoder("timm:test_resnet@gone"))


def test_an_open_clip_model_needs_weights(folder):
    for use in (encoders.identity, encoders.load):
        with pytest.raises(ModelError, match="ViT-B-32 needs weights"):
            use(Network(kind="open_clip", model="ViT-B-32"))


@pytest.mark.parametrize("other", [{"options": {"pad_type": "same"}}, {"preprocess": {"crop_pct": 1}}])
def test_settings_belong_to_one_kind(other):
    with pytest.raises(ValueError, match="are for timm"):
        Network(kind="open_clip", model="ViT-B-32", **other)
    with pytest.raises(ValueError, match="is for open_clip"):
        Network(kind="timm", model="test_resnet", quick_gelu=True)


def test_paths_are_relative_to_the_source_file(tmp_path):
    training_sources.task(tmp_path / "task", count=3)
    known = loading.load(tmp_path / "task/taught.toml").task
    assert known.learners["linear"].encoder.weights == str(tmp_path / "task/encoder.safetensors")
    (tmp_path / "task/encoder.safetensors").unlink()
    with pytest.raises(SourceError, match="task.learners.linear.encoder.weights: there is no file"):
        loading.load(tmp_path / "task/taught.toml")


def test_gradients_are_as_many_as_documented():
    for side in (16, 64, 72):
        features = encoded(encoders.load(Hog(kind="hog", side=side)), pictures(2))
        assert features.shape == (2, 36 * (side // 8 - 1) ** 2)
        assert features.dtype == np.float32
        assert 0 <= features.min() < features.max() <= 1


def test_gradients_hardly_see_contrast_and_do_see_place_and_turn():
    """A step of brightness in the left half; the same with half the contrast; further right; turned by a quarter."""
    y, x = np.mgrid[:64, :64]

    def step(at, low=50, high=200, over=x):
        return Image.fromarray(np.repeat(np.where(over < at, low, high)[:, :, None], 3, axis=2).astype(np.uint8))

    tower = encoders.load(Hog(kind="hog", side=64))
    plain, paler, moved, turned = encoded(tower, [step(20), step(20, 110, 185), step(44), step(20, over=y)])
    assert np.linalg.norm(plain) > 3
    np.testing.assert_allclose(paler, plain, atol=0.02)
    assert np.linalg.norm(moved - plain) > 3
    assert np.linalg.norm(turned - plain) > 3


def test_pixels_are_the_picture():
    """Two colours, side by side, of a picture that is no square."""
    picture = np.zeros((20, 80, 3), np.uint8)
    picture[:, :40], picture[:, 40:] = (255, 0, 51), (0, 102, 0)
    features = encoded(encoders.load(Pixels(kind="pixels", side=16)), [Image.fromarray(picture)])
    assert features.shape == (1, 3 * 16 * 16)
    red, green, blue = features.reshape(3, 16, 16)
    np.testing.assert_allclose([red[0, 0], green[0, 0], blue[0, 0]], [1, 0, 0.2])
    np.testing.assert_allclose([red[15, 15], green[15, 15], blue[15, 15]], [0, 0.4, 0])


def test_the_side_is_part_of_an_encoder_s_identity():
    sides = [encoders.identity(Hog(kind="hog", side=side)) for side in (64, 32)]
    assert sides[0] != sides[1]
    assert encoders.identity(Pixels(kind="pixels", side=64)) != sides[0]
    with pytest.raises(ValueError, match="multiple of 8"):
        Hog(kind="hog", side=60)


@pytest.mark.skipif("WINNOW_DATA" not in os.environ, reason="WINNOW_DATA names no folder with the real data")
def test_real_mobilenet_features_equal_golden():
    """The golden values were made without resizing: these photographs are 224 x 224."""
    preprocess = {"crop_pct": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3}
    weights, options = str(DATA / "weights/mobilenetv2_100.safetensors"), {"pad_type": "same"}
    described = Network(kind="timm", model="mobilenetv2_100", weights=weights, options=options, preprocess=preprocess)
    cases = json.loads((DATA / "weights/golden.json").read_text())["cases"]
    features = encoded(
        encoders.load(described), [Image.open(DATA / "flickr8k/images" / case["image"]) for case in cases]
    )
    assert features.shape == (12, 1280)
    np.testing.assert_allclose(features[:, :8], [case["feature_1280_first8"] for case in cases], atol=0.005)
    np.testing.assert_allclose(
        np.linalg.norm(features, axis=1), [case["feature_1280_l2norm"] for case in cases], rtol=1e-3
    )
