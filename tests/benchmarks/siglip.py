"""Templates, batches and classes: WINNOW_DATA=... python tests/benchmarks/siglip.py FOLDER scenes|flickr [SWEEP ...]

scenes: rendered toys of eight shapes, with the demo's CLIP from its checkpoint, and from random weights in the same
shape. flickr: 1,000 photographs with five captions each and six classes, with heads on EfficientNet-Lite0 and MiniLM.
Pairs and pictures whose caption names one class are used. Five seeds. FOLDER keeps the source and all trainings.
"""

import io
import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent.parent))

import training_sources

from flows.console.sweep import table
from pipeline.demo import captions
from pipeline.download import download
from pipeline.ledger import ingest
from pipeline.manifest import publish
from pipeline.scenes import rendering, scenes
from pipeline.scorers import class_labels
from pipeline.scoring.plan import Plan
from pipeline.sources import loading
from pipeline.store.storage import Storage
from training.studies import sweep
from training.studies.sweep_files import write

CLIP = Path(captions.__file__).parent / "clip"
TRAIN, TEST = 1500, 400
"""Rendered scenes that are drawn, before those whose caption names no class or several are left out."""

SWEEPS = """
[sweeps.{0}_texts]
model = "{0}"
seeds = 5
[sweeps.{0}_texts.grid]
train_classes = [{all}]
texts = ["captions", "template"]
[sweeps.{0}_batches]
model = "{0}"
seeds = 5
examples = {examples}
steps = {steps}
[sweeps.{0}_batches.grid]
batch = [{batches}]
[sweeps.{0}_classes]
model = "{0}"
seeds = 5
[sweeps.{0}_classes.grid]
train_classes = [{classes}]
same_text = ["negative", "match"]
"""

HEAD = """
[pairs]
location = "list.tsv"
columns = ["caption", "url"]
[task.test]
location = "test.parquet"
folder = "{folder}"
agree = {agree}
[task.learners.pixels]
head = "linear"
encoder = "pixels"
[task.classes]
"""

TUNED = """
[models.{name}]
preset = "{preset}"
image = "open_clip:local-dir:{folder}"
text = "open_clip:local-dir:{folder}"
context = 24
image_rate = {rate}
text_rate = {rate}
head_rate = {rate}
steps = {steps}
"""

HEADS = """
[models.heads]
image = {image}
text = {text}
context = 32
objective = "sigmoid"
texts = "template"
batch = 64
steps = 150
"""


def scene_pairs(count, seed):
    """JPEGs and captions of scenes whose caption names one shape."""
    random = np.random.default_rng([20261126, seed])
    drawn = [scenes.draw(random) for _ in range(count)]
    texts = [captions.caption(each, random) for each in drawn]
    label = class_labels.single_class(class_labels.classes_named(pa.array(texts), captions.SHAPE_WORDS))
    return [
        (_jpeg(rendering.render(each, random)), text)
        for each, text, at in zip(drawn, texts, label, strict=True)
        if at >= 0
    ]


def _jpeg(pixels):
    data = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).save(data, "JPEG", quality=92)
    return data.getvalue()


def scratch(folder):
    """The shape of the demo's CLIP, with random weights and no bias of logits."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    for each in ("open_clip_config.json", "vocabulary.txt.gz"):
        shutil.copyfile(CLIP / each, folder / each)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(**open_clip.get_model_config(f"local-dir:{folder}"))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")


def write_scenes(folder):
    """The source, and the content of its pictures by number."""
    (folder / "test").mkdir(exist_ok=True)
    scratch(folder / "scratch")
    pairs, test = scene_pairs(TRAIN, 1), scene_pairs(TEST, 2)
    for number, (jpeg, _) in enumerate(test):
        (folder / "test" / f"{number}.jpg").write_bytes(jpeg)
    rows = [{"image": f"{number}.jpg", "caption": text} for number, (_, text) in enumerate(test)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "test.parquet")
    models = [("siglip", "siglip", CLIP, 1e-4, 100), ("siglit", "siglit", CLIP, 1e-4, 100)]
    models.append(("scratch", "siglip", folder / "scratch", 1e-3, 200))
    text = HEAD.format(folder="test", agree=1) + named(captions.SHAPE_WORDS)
    for name, preset, where, rate, steps in models:
        text += TUNED.format(name=name, preset=preset, folder=where, rate=rate, steps=steps)
        text += SWEEPS.format(name, all=8, classes="8, 1", batches="4, 64", examples=64 * 50, steps=50)
    return text, [(text, jpeg) for jpeg, text in pairs], {at: jpeg for at, (jpeg, _) in enumerate(pairs)}


def write_flickr(folder):
    """As `write_scenes`. Pairs keep their photograph's URL."""
    import flickr_photographs
    import sweeps

    train, test = sweeps.photographs("train").to_pylist(), sweeps.photographs("test")
    names = sorted({each["image"] for each in train})[:1000]
    number = {name: at for at, name in enumerate(names)}
    pairs = [(" ".join(each["caption"].split()), number[each["image"]]) for each in train if each["image"] in number]
    pq.write_table(test, folder / "test.parquet")
    text = HEAD.format(folder=sweeps.PACK / "images", agree=2) + named(flickr_photographs.CLASSES)
    text += HEADS.format(image=sweeps.LITE0, text=sweeps.TEXT)
    grid = {"classes": "6, 5, 4, 3, 2, 1", "batches": "4, 8, 16, 32, 64, 128"}
    text += SWEEPS.format("heads", all=6, **grid, examples=64 * 75, steps=75)
    return text, pairs, {at: (sweeps.PACK / "images" / name).read_bytes() for name, at in number.items()}


def named(classes):
    return "".join(f"{name} = {json.dumps(sorted(set(words)))}\n" for name, words in classes.items())


def published(folder, kind):
    """The source and its storage. Nothing is fetched: pictures are put where a download would put them."""
    folder.mkdir(parents=True, exist_ok=True)
    text, pairs, content = (write_scenes if kind == "scenes" else write_flickr)(folder)
    places = range(len(pairs)) if kind == "scenes" else [at for _, at in pairs]
    lines = (f"{caption}\thttp://host/{at}.jpg\n" for (caption, _), at in zip(pairs, places, strict=True))
    (folder / "list.tsv").write_text("".join(lines))
    (folder / f"{kind}.toml").write_text(text)
    described, storage = loading.load(folder / f"{kind}.toml"), Storage(folder / "store")
    ledger, stage = ingest.update(described, storage), download.stage(described)
    for shard in ledger.shards:
        if not storage.done(stage.item(shard.number, ".parquet")):
            training_sources._downloaded(storage, stage, shard, content)
    publish.publish(Plan.of(described), storage, ledger, {})
    return described, storage


def main(folder, kind, names):
    described, storage = published(folder, kind)
    for name in names or described.sweeps:
        started = time.perf_counter()
        found = sweep.run(described, storage, name)
        Console(width=130).print(table(found))
        print(f"{name}: {time.perf_counter() - started:,.0f} s", *write(found, storage), sep="\n", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3:])
