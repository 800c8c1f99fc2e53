"""A trained dual encoder as a folder: open_clip gives equal embeddings, winnow loads it, and nothing is lost."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from tiny_towers import PADDED, tiny, write_clip, write_text

from pipeline.errors import ModelError, StorageError
from training.dual import folder as folders
from training.dual.build import build, identity

CAPTIONS = ["a dog runs on the beach", "two men", "", "a cat sits on the red sand with the blue horse and it rides it"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    home = tmp_path_factory.mktemp("texts")
    clips = {"clip": write_clip(home / "clip"), "resnet": write_clip(home / "resnet", [1, 1, 1, 1])}
    return {kind: write_text(home / kind, kind) for kind in ("bert", "distilbert", "roberta")} | clips


def pictures():
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (40, 60, 3), dtype=np.uint8)) for _ in range(3)]


def moved(model):
    """The model after its weights were moved from where they started, in evaluation mode."""
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.rand(value.shape, generator=draw) * 0.05)
    return model.eval()


def embedded(model):
    pixels = model.pictures.stack([model.pictures.prepare(each) for each in pictures()])
    with torch.inference_mode():
        ids = model.tokenizer(CAPTIONS).ids
        return model.encode_image(pixels, normalize=True), model.encode_text(ids, normalize=True)


def of_open_clip(folder):
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    with torch.inference_mode():
        return (
            model.encode_image(torch.stack([preprocess(each) for each in pictures()]), normalize=True),
            model.encode_text(tokenizer(CAPTIONS), normalize=True),
        )


def equal(one, other):
    return all(torch.allclose(a, b, atol=1e-5, rtol=0) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("bert", {}),
        ("bert", {"pooling": "first", "image": PADDED}),
        ("bert", {"dim": 32, "objective": "sigmoid"}),
        ("distilbert", {"pooling": "first"}),
        ("roberta", {"image": "timm:test_vit@random"}),
        ("bert", {"image": "clip", "image_size": None}),
        ("clip", {"dim": 12}),
        ("clip", {"image": "resnet", "image_size": None}),
        ("small", {"text": {"kind": "small", "width": 32, "layers": 2, "heads": 2}}),
    ],
)
def test_open_clip_and_winnow_load_equal_embeddings(tmp_path, monkeypatch, texts, text, keys):
    keys = keys | ({"image": texts[keys["image"]]} if keys.get("image") in ("clip", "resnet") else {})
    model = moved(build(tiny(**{"text": texts.get(text)} | keys), 0))
    assert folders.save(model, tmp_path / "saved", {"seed": 0}) is None
    monkeypatch.chdir(tmp_path)  # no file of the folder is found by the working directory
    before = embedded(model)
    assert equal(before, of_open_clip(tmp_path / "saved"))
    again = folders.load(tmp_path / "saved")
    assert all(torch.equal(a, b) for a, b in zip(before, embedded(again), strict=True))
    assert again.logit_scale.item() == model.logit_scale.item()
    assert (again.logit_bias is None) == (model.logit_bias is None)
    assert not any(each.requires_grad for each in again.parameters())
    assert again.settings.name == model.settings.name.replace(str(tmp_path), "")
    assert json.loads((tmp_path / "saved" / "training.json").read_text()) == {"seed": 0}


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"head": "residual"}, "it has no residual head"),
        ({"pooling": "end"}, "it has no pooling 'end'"),
        ({"image": PADDED | {"preprocess": {"crop_pct": 0.875}}}, "it has no crop_pct (0.875)"),
    ],
)
def test_what_open_clip_cannot_hold_is_saved_for_winnow_and_says_why(tmp_path, texts, keys, why):
    model = moved(build(tiny(texts["bert"], **keys), 0))
    told = folders.save(model, tmp_path / "saved", {})
    assert why in told
    assert not (tmp_path / "saved" / "open_clip_config.json").exists()
    again = folders.load(tmp_path / "saved")
    assert all(torch.equal(a, b) for a, b in zip(embedded(model), embedded(again), strict=True))


def test_a_crop_is_that_of_timm(texts):
    import timm

    model = build(tiny(texts["bert"], image=PADDED | {"preprocess": {"crop_pct": 0.875}}), 0)
    options = {"input_size": (3, 32, 32), "crop_pct": 0.875, "interpolation": "bicubic"}
    *geometry, _, _ = timm.data.create_transform(**options).transforms
    (picture, *_) = pictures()
    wanted = picture
    for step in geometry:
        wanted = step(wanted)
    assert np.array_equal(model.pictures.prepare(picture), np.asarray(wanted))


def test_a_new_model_replaces_the_old_one_and_nothing_else(tmp_path, texts):
    first, second = (build(tiny(texts["bert"]), seed) for seed in (0, 1))
    folders.save(first, tmp_path / "saved", {"seed": 0})
    folders.save(second, tmp_path / "saved", {"seed": 1})
    assert equal(embedded(second), embedded(folders.load(tmp_path / "saved")))
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(StorageError, match="is not the folder of a model: name another"):
        folders.save(first, tmp_path / "notes", {})
    assert (tmp_path / "notes" / "mine.txt").read_text() == "mine"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells the path of an open file")
def test_every_file_is_on_the_disk_before_the_folder_has_its_name(tmp_path, texts, monkeypatch):
    synced, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(Path(f"/dev/fd/{file}").resolve()) or sync(file))
    folders.save(build(tiny(texts["bert"]), 0), tmp_path / "saved", {})
    assert {path.name for path in (tmp_path / "saved").iterdir()} <= {path.name for path in synced}
    assert all(path.parent.name != "saved" for path in synced)
    assert synced[-1] == tmp_path.resolve()


def test_what_cannot_be_written_leaves_the_old_model(tmp_path, texts):
    model = build(tiny(texts["bert"]), 0)
    folders.save(model, tmp_path / "saved", {"seed": 0})
    with pytest.raises(TypeError):
        folders.save(model, tmp_path / "saved", {"seed": object()})
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        folders.save(model, tmp_path / "file" / "saved", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "saved"]
    assert equal(embedded(model), embedded(folders.load(tmp_path / "saved")))


def test_damaged_folders_are_one_line(tmp_path, texts):
    from safetensors.torch import load_file, save_file

    folders.save(build(tiny(texts["bert"]), 0), tmp_path / "saved", {})
    weights = tmp_path / "saved" / folders.WEIGHTS
    state = load_file(weights)
    del state["text.proj.weight"]
    save_file(state, weights)
    with pytest.raises(ModelError, match=r"does not fit model\.json: missing: text\.head\.proj\.weight"):
        folders.load(tmp_path / "saved")
    weights.write_bytes(b"short")
    with pytest.raises(ModelError, match="is not the folder of a model that winnow trained"):
        folders.load(tmp_path / "saved")
    with pytest.raises(ModelError, match="is not the folder of a model"):
        folders.load(tmp_path / "gone")


def test_a_trained_model_trains_on_as_a_tower(tmp_path, texts):
    first = moved(build(tiny(texts["distilbert"], image=PADDED, pooling="first"), 0))
    killed = tmp_path / ".winnow-killed"
    killed.mkdir()
    (killed / ".lock").touch()
    folders.save(first, tmp_path / "first", {})
    assert not killed.exists()
    name = f"open_clip:local-dir:{tmp_path / 'first'}"
    settings = tiny(name, image=name, image_size=None, image_blocks="all")
    second = build(settings, 1)
    assert equal(embedded(first), embedded(second))
    assert identity(settings)["image"]["weights"] == identity(settings)["text"]["weights"]
    folders.save(second, tmp_path / "second", {})
    shutil.rmtree(tmp_path / "first")
    assert equal(embedded(second), of_open_clip(tmp_path / "second"))
    wider = build(tiny(f"open_clip:local-dir:{tmp_path / 'second'}", image="timm:test_resnet@random", dim=20), 0)
    assert wider.text.head.proj.weight.shape == (20, 32)
    with pytest.raises(ModelError, match="reads at most 64 tokens"):
        build(tiny(f"open_clip:local-dir:{tmp_path / 'second'}", context=100), 0)


def test_a_timm_folder_keeps_its_options(tmp_path, texts):
    import timm

    trunk = timm.create_model("mobilenetv2_035", pad_type="same")
    timm.models.save_for_hf(trunk, tmp_path / "timm", safe_serialization=True)
    model = build(tiny(texts["bert"], image=f"timm:local-dir:{tmp_path / 'timm'}"), 0)
    folders.save(model, tmp_path / "saved", {})
    shutil.rmtree(tmp_path / "timm")
    before = embedded(model)
    assert equal(before, of_open_clip(tmp_path / "saved"))
    assert equal(before, embedded(folders.load(tmp_path / "saved")))
