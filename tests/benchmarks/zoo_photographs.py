"""Photographs of Flickr8k with planted faults for recipe_zoo.py, from WINNOW_DATA.

Pool: flickr8k_more's training photographs, one caption each; SHARES of them get a fault. The scorer `clip` is a small
dual encoder (EfficientNet-Lite0 and MiniLM, frozen, with linear heads), trained here on the captions of flickr8k's
training photographs, which are in no pool: it is no CLIP. Targets and references are dev photographs. Learners see
MobileNetV2.
"""

import json
import os
from contextlib import contextmanager
from io import BytesIO

import flickr_photographs
import main_job
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from flickr_photographs import CLASSES, DATA
from PIL import Image
from zoo_demo import CAPPED, MORE, Found, write_entries, write_reference

from pipeline.demo import faults
from pipeline.demo.spam import spam
from pipeline.manifest.manifest import Manifest
from pipeline.sources import loading
from pipeline.store.storage import Storage
from training.studies import candidates, fit, fit_folds

SHARES = {
    "swapped": 0.2,
    "spam": 0.06,
    "blurred": 0.05,
    "washed_out": 0.05,
    "watermarked": 0.05,
    "over_compressed": 0.05,
    "near_duplicate": 0.05,
}
CLEAN = "clean"


def there():
    return bool(os.environ.get("WINNOW_DATA"))


@contextmanager
def curated(folder):
    folder.mkdir(parents=True, exist_ok=True)
    model = trained(folder / "reference")
    toml = described(folder, model)
    source = loading.load(toml)
    storage = Storage(folder / "store" / source.name)
    main_job.bring_in(source, storage)
    learned = fit_folds.folder_of(fit_folds.fit_folds(source, storage, fit.Request("small"), 2))
    toml.write_text(toml.read_text() + f'[scorers.learned]\nkind = "cross_fitted"\nfolder = "{learned}"\n')
    source = loading.load(toml)
    print(main_job.bring_in(source, storage), flush=True)
    with Manifest.open(storage).connection() as con:
        labels = con.sql("SELECT uid, fault AS label FROM rows").to_arrow_table()
    yield Found("photographs", source, storage, CAPPED, labels, CLEAN)


def trained(folder):
    """The folder of the model, trained on flickr8k's training photographs."""
    folder.mkdir(exist_ok=True)
    pictures = DATA / "flickr8k/images"
    pq.write_table(captions("flickr8k", "train").rename_columns(["file_name", "caption"]), folder / "list.parquet")
    (folder / "reference.toml").write_text(f"""
[pairs]
folder = "{pictures}"
captions = "list.parquet"
{model_table(100)}[task]
kind = "retrieval"
[task.split]
share = 0.02
[task.learners.small]
model = "small"
""")
    source = loading.load(folder / "reference.toml")
    storage = Storage(folder / "store" / source.name)
    main_job.bring_in(source, storage)
    return fit.fit(source, storage, fit.Request("small")).folder


def model_table(steps):
    """A dual encoder with frozen towers. 50 steps on its own pool: longer trainings learn wrong pairs by heart."""
    weights = DATA / "weights/tf_efficientnet_lite0.safetensors"
    return f"""[models.small]
image = {{ kind = "timm", model = "tf_efficientnet_lite0", weights = "{weights}" }}
text = {{ kind = "transformers", model = "{DATA}/weights/minilm_l6_v2" }}
pooling = "mean"
context = 32
dim = 256
image_blocks = 0
text_blocks = 0
batch = 256
steps = {steps}
"""


def captions(folder, split):
    """image, caption of all captions of a split."""
    splits = pq.read_table(DATA / folder / "splits.parquet")
    chosen = splits.filter(pc.equal(splits["split"], split))["image"]
    table = pq.read_table(DATA / folder / "captions.parquet", columns=["image", "caption"])
    return table.filter(pc.is_in(table["image"], chosen))


def one_each(table, random):
    """One caption of each photograph."""
    order = random.permutation(len(table))
    names = np.array(table["image"].to_pylist())[order]
    return table.take(np.sort(order[np.unique(names, return_index=True)[1]]))


def described(folder, model):
    """The source file, its pictures and its list."""
    random = np.random.default_rng(22)
    table = one_each(captions("flickr8k_more", "train"), random)
    names, texts = table["image"].to_pylist(), table["caption"].to_pylist()
    kinds = [kind for kind, share in SHARES.items() for _ in range(round(share * len(names)))]
    fault = np.array(kinds + [CLEAN] * (len(names) - len(kinds)))[random.permutation(len(names))]
    swapped = np.flatnonzero(fault == "swapped")
    for row, other in zip(swapped, np.roll(swapped, 1), strict=True):
        texts[row] = table["caption"][int(other)].as_py()
    good = random.permutation(np.flatnonzero(fault == CLEAN))
    originals = dict(zip(np.flatnonzero(fault == "near_duplicate").tolist(), good.tolist(), strict=False))
    for row in np.flatnonzero(fault == "spam"):
        texts[row] = spam(random)
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    for row, name in enumerate(names):
        source = DATA / "flickr8k_more/images" / names[originals.get(row, row)]
        if row in originals:
            texts[row] = table["caption"][originals[row]].as_py()
        content = source.read_bytes()
        if fault[row] in faults.APPLIED:
            pixels = np.asarray(Image.open(BytesIO(content)).convert("RGB"))
            made = BytesIO()
            Image.fromarray(faults.APPLIED[fault[row]](pixels, random)).save(made, "JPEG", quality=90)
            content = made.getvalue()
        (pictures / name).write_bytes(content)
    listed = pa.table({"file_name": names, "caption": texts, "fault": fault.tolist()})
    pq.write_table(listed, folder / "list.parquet")
    targets = folder / "targets"
    targets.mkdir(exist_ok=True)
    dev = one_each(captions("flickr8k_more", "dev"), random)
    for name in dev["image"].to_pylist():
        (targets / name).write_bytes((DATA / "flickr8k_more/images" / name).read_bytes())
    write_reference(folder, dev["image"].to_pylist(), dev["caption"].to_pylist())
    write_entries(folder, texts)
    pq.write_table(flickr_photographs.captions("test"), folder / "test.parquet")
    toml = folder / "photographs.toml"
    toml.write_text(_described(model))
    return toml


def _described(model):
    classes = "".join(f"{name} = {json.dumps(words)}\n" for name, words in CLASSES.items())
    seen = candidates.toml(flickr_photographs.mobilenet())
    learners = "".join(f"[task.learners.{head}]\nhead = '{head}'\n{seen}\n" for head in ("linear", "mlp"))
    return f"""
filters = []
[pairs]
folder = "pictures"
captions = "list.parquet"
extra = ["fault"]
[download]
shard_size = 500
[scorers.clip]
kind = "clip"
model = "local-dir:{model}"
[scorers.pixels]
kind = "pixels"
[scorers.captions]
kind = "captions"
[scorers.duplicates]
kind = "duplicates"
of = "pixels"
radius = 6
{MORE}
{model_table(50)}
[task.test]
location = "test.parquet"
folder = "{DATA}/flickr8k/images"
agree = 2
[task.classes]
{classes}
{learners}
[task.budget]
steps = 300
batch = 64
"""
