"""Towers with the real weights of WINNOW_DATA: they give the features that the weights are documented with."""

import json
import os
from pathlib import Path

import pytest
import torch
import training_sources
from PIL import Image

from pipeline.settings.model import Model
from training.dual import folder as folders
from training.dual.build import build
from training.dual.size import measure
from training.studies.fit import Request, fit

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("WINNOW_DATA" not in os.environ, reason="needs the weights of WINNOW_DATA"),
]
DATA = Path(os.environ.get("WINNOW_DATA", ""))
WEIGHTS = DATA / "weights"
HALF = [0.5, 0.5, 0.5]


@pytest.fixture(scope="module")
def model():
    image = {
        "kind": "timm",
        "model": "mobilenetv2_100",
        "weights": str(WEIGHTS / "mobilenetv2_100.safetensors"),
        "options": {"pad_type": "same"},
        "preprocess": {"mean": HALF, "std": HALF, "interpolation": "bilinear"},
    }
    return build(Model(image=image, text=f"transformers:{WEIGHTS / 'minilm_l6_v2'}", pooling="mean"), 0)


def open_picture(name):
    with Image.open(DATA / "flickr8k" / "images" / name) as picture:
        return picture.convert("RGB")


def test_mobilenet_gives_the_golden_features(model):
    cases = json.loads((WEIGHTS / "golden.json").read_text())["cases"]
    prepared = [model.pictures.prepare(open_picture(case["image"])) for case in cases]
    with torch.inference_mode():
        features = model.visual.trunk(model.pictures.stack(prepared))
    for case, found in zip(cases, features, strict=True):
        assert found[:8].tolist() == pytest.approx(case["feature_1280_first8"], abs=0.2)
        assert found.norm().item() == pytest.approx(case["feature_1280_l2norm"], rel=0.01)


def test_minilm_gives_the_documented_cosines(model):
    captions = ["A dog runs on the beach", "A puppy is playing in the sand", "Two men climb a rock wall"]
    with torch.inference_mode():
        vectors = torch.nn.functional.normalize(model.text.trunk(model.tokenizer(captions).ids), dim=-1)
    cosines = (vectors @ vectors.T)[0, 1:].tolist()
    assert cosines == pytest.approx([0.586, -0.108], abs=2e-3)


def test_a_folder_of_real_towers_is_one_of_open_clip(model, tmp_path, monkeypatch):
    import open_clip

    assert folders.save(model, tmp_path / "saved", {}) is None
    monkeypatch.chdir(tmp_path)
    other, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'saved'}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'saved'}")
    pictures = [open_picture(path.name) for path in sorted((DATA / "flickr8k" / "images").glob("*.jpg"))[:8]]
    captions = ["A dog runs on the beach", "Two men climb a rock wall", "a man on a horse"]
    with torch.inference_mode():
        seen = model.encode_image(model.pictures.stack([model.pictures.prepare(each) for each in pictures]), True)
        read = model.encode_text(model.tokenizer(captions).ids, True)
        theirs = other.eval().encode_image(torch.stack([preprocess(each) for each in pictures]), normalize=True)
        words = other.encode_text(tokenizer(captions), normalize=True)
    assert (seen - theirs).abs().max() <= 1e-5
    assert (read - words).abs().max() <= 1e-5


def test_the_published_sizes(model):
    size = measure(model)
    assert size.image == 2_223_872
    assert size.image_flops == pytest.approx(2 * 300e6, rel=0.02)  # 300 million multiply-adds (Sandler et al. 2018)


@pytest.mark.parametrize("preset", ["small-clip", "small-clip-study"])
def test_a_tiny_preset_trains_for_twenty_steps(preset, tmp_path):
    """With MiniLM in place of DistilBERT, whose weights are not in WINNOW_DATA."""
    image = WEIGHTS / "tf_efficientnet_lite0.safetensors"
    table = (
        f'[models.small]\npreset = "{preset}"\ntiny = true\nimage = "timm:tf_efficientnet_lite0@{image}"\n'
        f'text = "transformers:{WEIGHTS / "minilm_l6_v2"}"\n'
    )
    source = training_sources.task(tmp_path / "tiny", measured=training_sources.NAMED + table)
    record = fit(*source, Request("small")).record
    assert record["cost"]["steps"] == 20
    assert record["cost"]["trained"] > (20e6 if preset == "small-clip-study" else 4e5)
