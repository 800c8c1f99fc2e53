"""Sweeps on real photographs: WINNOW_DATA=... python tests/benchmarks/sweeps.py FOLDER [SWEEP ...]

Pairs: flickr8k_more's training photographs, each with five captions. Gallery: its 1,000 test photographs with 5,000
captions. Towers are frozen: EfficientNet-Lite0 and MiniLM, and, in the sweep `towers`, MobileNetV2 as well. In the
sweep `presets` the image towers of the study's preset train, at 80 pixels; ResNet-50 and Inception-v3 start at random
weights. Every grid was settled before its first figure was seen. FOLDER keeps the source, its features and all
trainings.
"""

import os
import sys
import time
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent.parent))

import training_sources

from flows.console.sweep import table
from pipeline.download import download
from pipeline.ledger import ingest
from pipeline.manifest import publish
from pipeline.scoring.plan import Plan
from pipeline.sources import loading
from pipeline.store.storage import Storage
from training.studies import sweep
from training.studies.sweep_files import write

DATA = Path(os.environ["WINNOW_DATA"])
PACK, WEIGHTS = DATA / "flickr8k_more", DATA / "weights"
LITE0, MOBILENET = (
    f'{{ kind = "timm", model = "{name}", weights = "{WEIGHTS / name}.safetensors"{more} }}'
    for name, more in (("tf_efficientnet_lite0", ""), ("mobilenetv2_100", ', options = { pad_type = "same" }'))
)
TEXT = f'"transformers:{WEIGHTS / "minilm_l6_v2"}"'
HEAD = f"""
[pairs]
location = "list.tsv"
columns = ["caption", "url"]
[task]
kind = "retrieval"
[task.test]
location = "test.parquet"
folder = "{PACK / "images"}"
[task.learners.small]
model = "small"
"""
"""The tables of a source whose gallery is the test photographs."""

SOURCE = f"""{HEAD}
[models.small]
image = {LITE0}
text = {TEXT}
pooling = "mean"
batch = 256
steps = 200
[sweeps.batches]
model = "small"
[sweeps.batches.grid]
objective = ["softmax", "sigmoid"]
batch = [16, 64, 256, 1024]
[sweeps.batches.tune]
head_rate = [3e-4, 1e-3, 3e-3]
[sweeps.noise]
model = "small"
[sweeps.noise.grid]
objective = ["softmax", "sigmoid"]
noise = ["alignment", "texts", "images"]
noise_share = [0.0, 0.5]
[sweeps.pruning]
model = "small"
[sweeps.pruning.grid]
pruning = ["none", "random", "hard", "easy", "hard-matched"]
masking = [0.5, 0.9]
[sweeps.towers]
model = "small"
[sweeps.towers.grid]
image = [{LITE0}, {MOBILENET}]
[models.presets]
image = {LITE0}
image_size = 80
text = {TEXT}
text_blocks = 0
context = 32
[sweeps.presets]
model = "presets"
examples = 9_600
[sweeps.presets.grid]
image = [{LITE0}, {MOBILENET}]
preset = ["small-clip-study", "small-clip"]
[sweeps.resnet]
model = "presets"
examples = 9_600
[sweeps.resnet.grid]
image = ["timm:resnet50@random"]
preset = ["small-clip-study", "small-clip"]
[sweeps.inception]
model = "presets"
examples = 9_600
[sweeps.inception.grid]
image = ["timm:inception_v3@random"]
preset = ["small-clip-study"]
"""


def photographs(split):
    """The captions of a split, with the file of each."""
    splits = pq.read_table(PACK / "splits.parquet")
    chosen = splits.filter(pc.equal(splits["split"], split))["image"]
    pairs = pq.read_table(PACK / "captions.parquet")
    return pairs.filter(pc.is_in(pairs["image"], chosen)).select(["image", "caption"])


def published(folder):
    """The source and its storage. Nothing is fetched: the photographs are put where a download would put them."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = photographs("train").to_pylist()
    names = sorted({each["image"] for each in pairs})
    number = {name: at for at, name in enumerate(names)}
    lines = (
        "\t".join((" ".join(each["caption"].split()), f"http://host/{number[each['image']]}.jpg")) for each in pairs
    )
    (folder / "list.tsv").write_text("\n".join(lines) + "\n")
    pq.write_table(photographs("test"), folder / "test.parquet")
    (folder / "flickr.toml").write_text(SOURCE)
    described, storage = loading.load(folder / "flickr.toml"), Storage(folder / "store")
    ledger, stage = ingest.update(described, storage), download.stage(described)
    content = {at: (PACK / "images" / name).read_bytes() for name, at in number.items()}
    for shard in ledger.shards:
        if not storage.done(stage.item(shard.number, ".parquet")):
            training_sources._downloaded(storage, stage, shard, content)
    publish.publish(Plan.of(described), storage, ledger, {})
    return described, storage


def main(folder, names):
    described, storage = published(folder)
    for name in names or described.sweeps:
        started = time.perf_counter()
        found = sweep.run(described, storage, name)
        Console(width=130).print(table(found))
        print(f"{name}: {time.perf_counter() - started:,.0f} s", *write(found, storage), sep="\n", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:])
