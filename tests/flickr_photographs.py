"""The real photographs of WINNOW_DATA: their captions, the classes that these name, recorded CLIP embeddings, noise
planted in captions, and a source file of all that. For tests/test_flickr.py and the benchmarks.

Classes were taken by how often captions name them, before anything was trained on them.
"""

import json
import os
import threading
from contextlib import contextmanager
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from conftest import Quiet

from pipeline.scorers import class_labels
from pipeline.settings.encoder import Network
from training.studies import candidates

DATA = Path(os.environ.get("WINNOW_DATA", ""))

CLASSES = {
    "dog": ["dog", "dogs", "puppy", "puppies"],
    "man": ["man", "men"],
    "woman": ["woman", "women", "lady", "ladies"],
    "girl": ["girl", "girls"],
    "boy": ["boy", "boys"],
    "person": ["person", "persons", "people"],
}

DEAD = 0.05
"""Of the photographs, how many have a URL that answers 404."""


def mobilenet():
    """MobileNetV2 with its real ImageNet weights."""
    return Network(
        kind="timm",
        model="mobilenetv2_100",
        weights=str(DATA / "weights/mobilenetv2_100.safetensors"),
        options={"pad_type": "same"},
        preprocess={"interpolation": "bilinear", "crop_pct": 0.875, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    )


def captions(split):
    """image, caption: five a photograph; of the training and dev photographs those with a recorded embedding."""
    splits = pq.read_table(DATA / "flickr8k/splits.parquet")
    chosen = splits.filter(pc.equal(splits["split"], split))
    if split != "test":
        chosen = chosen.filter(chosen["has_clip_embedding"])
    table = pq.read_table(DATA / "flickr8k/captions.parquet", columns=["image", "caption"])
    return table.filter(pc.is_in(table["image"], chosen["image"]))


def label_of(texts):
    """The number of the class that each caption names, negative for none or several."""
    return class_labels.single_class(class_labels.classes_named(pa.array(texts), CLASSES))


def embeddings():
    """The recorded embeddings of photographs by name, and of the classes' names, [classes, 512]."""
    table, text = pq.read_table(DATA / "clip_b32/image_embeddings.parquet"), class_texts()
    photo, named = _by(table, "image"), _by(text, "class_name_plain")
    return photo, np.stack([named[name] for name in CLASSES])


def class_texts():
    """The recorded text embedding of each class's name. The vocabulary has other names twice."""
    names = pq.read_table(DATA / "clip_b32/classname_text.parquet")
    own = pc.is_in(names["class_name_plain"], pa.array(CLASSES))
    return names.filter(pc.and_(pc.equal(names["vocabulary"], "openimages_500"), own))


def calibrated(photo, text):
    """By class, the similarity that nine of ten dev captions reach with their own photograph."""
    table = captions("dev")
    label = label_of(table["caption"].to_pylist())
    fits = np.array([photo[name] @ text[at] for name, at in zip(table["image"].to_pylist(), label, strict=True)])
    return np.array([np.quantile(fits[label == at], 0.1) for at in range(len(CLASSES))])


def planted(table, rate, rng):
    """The captions, so many of them another photograph's, and which."""
    images, texts = (np.array(table[name].to_pylist()) for name in ("image", "caption"))
    swapped = np.zeros(len(texts), bool)
    chosen = rng.choice(len(texts), round(rate * len(texts)), replace=False)
    giver = rng.permutation(chosen)
    while len(chosen) and (same := images[chosen] == images[giver]).any():
        giver[same] = rng.choice(len(images), same.sum())
    texts[chosen], swapped[chosen] = texts[giver], True
    return texts, swapped


def wrong(table, label, swapped):
    """Which swapped captions give a label that no own caption of the photograph gives; others are no noise here."""
    images, own = table["image"].to_pylist(), label_of(table["caption"].to_pylist())
    shown = set(zip(images, own.tolist(), strict=True))
    return swapped & np.array([pair not in shown for pair in zip(images, label.tolist(), strict=True)])


@contextmanager
def served():
    """A loopback server of the photographs: its host and port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(DATA / "flickr8k/images"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def source(folder, host, rate, **budget):
    """A source file of the training photographs, a recorded CLIP and MobileNetV2; and what was planted.

    The latter has url, caption, image, label, and whether the label is wrong.
    """
    table, rng = captions("train"), np.random.default_rng(8)
    texts, swapped = planted(table, rate, rng)
    label = label_of(texts.tolist())
    images = table["image"].to_pylist()
    distinct = np.unique(images)
    dead = set(rng.choice(distinct, round(DEAD * len(distinct)), replace=False))
    listed = pa.table({
        "caption": pa.array(texts.tolist()),
        "url": [f"http://{host}/{'gone/' if image in dead else ''}{image}" for image in images],
        "image": images,
        "label": [list(CLASSES)[at] if at >= 0 else "" for at in label],
        "wrong": wrong(table, label, swapped),
    })  # fmt: skip
    rows = zip(*(listed[name].to_pylist() for name in ("caption", "url", "image", "label")), strict=True)
    (folder / "flickr.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    pq.write_table(captions("test"), folder / "test.parquet")
    pq.write_table(class_texts(), folder / "classes.parquet")
    toml = folder / "flickr.toml"
    toml.write_text(_described(host, budget))
    return toml, listed


def _described(host, budget):
    least = zip(CLASSES, calibrated(*embeddings()), strict=True)
    aligned = " ".join(f"WHEN '{name}' THEN {similarity:.4f}" for name, similarity in least)
    classes = "".join(f"{name} = {json.dumps(words)}\n" for name, words in CLASSES.items())
    seen = candidates.toml(mobilenet())
    learners = "".join(f"[task.learners.{head}]\nhead = '{head}'\n{seen}\n" for head in ("linear", "mlp"))
    spent = "".join(f"{name} = {json.dumps(value)}\n" for name, value in budget.items())
    return f"""
[pairs]
location = "flickr.tsv"
columns = ["caption", "url", "image", "label"]
extra = ["image", "label"]
[download]
allow_hosts = ["{host}"]
[scorers.clip]
kind = "recorded"
model = "ViT-B-32-quickgelu/openai"
[scorers.clip.image]
file = "{DATA / "clip_b32/image_embeddings.parquet"}"
key = "image"
by = "image"
[scorers.clip.text]
file = "classes.parquet"
key = "class_name_plain"
by = "label"
[scorers.aesthetic]
kind = "aesthetic"
of = "clip"
weights = "{DATA / "aesthetic/sa_0_4_vit_b_32_linear.safetensors"}"
[[filters]]
name = "aligned"
sql = "clip_similarity >= CASE label {aligned} END"
why = "nine of ten right pairs of the dev split pass"
[task.test]
location = "test.parquet"
folder = "{DATA / "flickr8k/images"}"
agree = 2
[task.classes]
{classes}
{learners}
[task.budget]
{spent}
"""


def _by(table, key):
    rows = np.stack(table["embedding"].to_numpy(zero_copy_only=False)).astype(np.float32)
    return dict(zip(table[key].to_pylist(), rows, strict=True))
