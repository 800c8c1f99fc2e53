"""A saved dual encoder as the model of a clip scorer, unchanged: the scorer gives the similarities of the model."""

import io
import json
import shutil

import downloaded_sources
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_towers import PADDED, tiny, write_text

from pipeline.errors import ModelError
from pipeline.scorers.clip import ClipSpec
from training.dual import folder as folders
from training.dual.build import build

CAPTIONS = ["a dog runs on the beach", "two men", "a cat sits on the red sand with the blue horse and it rides it"]


def spec(folder, **keys):
    return ClipSpec.model_validate({"kind": "clip", "model": f"local-dir:{folder}", "precision": "float32", **keys})


def saved(tmp_path, **keys):
    """A model, and its folder after that was moved, with nothing left of where it was built and saved."""
    model = build(tiny(write_text(tmp_path / "text"), image=PADDED, objective="sigmoid", **keys), 0)
    with torch.no_grad():
        model.visual.head.proj.weight.mul_(50)
        model.logit_bias.fill_(-3.0)
    folders.save(model, tmp_path / "saved", {"seed": 0})
    shutil.rmtree(tmp_path / "text")
    (tmp_path / "saved").rename(tmp_path / "moved")
    return model, tmp_path / "moved"


def test_the_scorer_gives_the_similarities_of_the_model(tmp_path, monkeypatch):
    model, folder = saved(tmp_path)
    draw = np.random.default_rng(1)
    drawn = [Image.fromarray(draw.integers(0, 256, (40, 50 + place, 3), dtype=np.uint8)) for place in range(3)]
    rows = [(f"http://host/{place}.jpg", CAPTIONS[place], picture) for place, picture in enumerate(drawn)]
    monkeypatch.chdir("/")
    found = downloaded_sources.scored(tmp_path / "store", rows, {"clip": spec(folder, sigmoid=True)})["clip"]
    pictures = [Image.open(io.BytesIO(downloaded_sources.jpeg(picture))).convert("RGB") for picture in drawn]
    with torch.inference_mode():
        seen = model.encode_image(model.pictures.stack([model.pictures.prepare(each) for each in pictures]), True)
        read = model.encode_text(model.tokenizer(CAPTIONS).ids, True)
    expected = (seen * read).sum(dim=1)
    assert expected.std() > 0.01
    assert found["similarity"] == pytest.approx(expected.tolist(), abs=1e-5)
    assert found["logit"] == pytest.approx((10 * expected - 3).tolist(), abs=1e-4)


def test_the_key_of_the_scores_knows_the_tower_but_no_place(tmp_path):
    _, folder = saved(tmp_path)
    before = spec(folder).identity()
    shutil.copytree(folder, tmp_path / "copy")
    assert spec(tmp_path / "copy").identity() == before
    assert str(tmp_path) not in json.dumps(before)
    tower = tmp_path / "copy" / "image" / "config.json"
    tower.write_text(tower.read_text().replace("same", ""))
    assert spec(tmp_path / "copy").identity() != before


def test_a_model_that_open_clip_cannot_hold_is_no_scorer_and_says_why(tmp_path):
    folders.save(build(tiny(write_text(tmp_path / "text"), head="residual"), 0), tmp_path / "saved", {})
    with pytest.raises(ModelError, match="open_clip cannot hold this model, because it has no residual head"):
        spec(tmp_path / "saved").identity()
