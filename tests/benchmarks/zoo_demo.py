"""The demo's pool for recipe_zoo.py: its source file with the scorers that other recipes need."""

import re
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace

import main_job
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from filters.core import Recipe
from filters.selections import SoftCap
from pipeline.demo import pool, truth, world
from pipeline.process.lifeline import HOME
from pipeline.sources import loading
from pipeline.sources.source import Source
from pipeline.store.storage import Storage
from pipeline.uids import uid

TARGETS = 200
"""Clean pictures of other scenes: the targets of `clusters` and `norm_sim`."""

MORE = """
[scorers.neg_clip_loss]
kind = "neg_clip_loss"
[scorers.norm_sim]
kind = "norm_sim"
targets = "targets"
[scorers.clusters]
kind = "clusters"
targets = "targets"
[scorers.target_features]
kind = "target_features"
targets = "targets"
[scorers.semantic]
kind = "semantic"
[scorers.entries]
kind = "entries"
file = "entries.txt"
[scorers.mixed]
kind = "mixed"
mixes = ["clip.similarity", "pixels.sharpness", "pixels.contrast", "pixels.blockiness", "captions.words"]
reference = { location = "reference.parquet", folder = "targets" }
"""

OFTEN = 5
"""Captions of the pool that a word is in before it is an entry."""

CAPPED = tuple(
    Recipe(f"soft-cap-{name}", selection=SoftCap(by=by, temperature=temperature, penalty=penalty, budget=0.3))
    for name, by, temperature, penalty in (
        ("cosine", "clip_similarity", 0.01, 0.05),
        ("mixed", "mixed_score", 0.1, 0.5),
    )
)
"""Soft cap sampling, by two scores."""


@dataclass(frozen=True)
class Found:
    """A curated pool: its source, with a test set, and what is wrong with each pair."""

    name: str
    source: Source
    storage: Storage
    recipes: tuple[Recipe, ...]
    labels: pa.Table
    good: str = "clean"

    def faults(self, uids):
        """The label of each of these pairs."""
        return self.labels["label"].take(pc.index_in(uids, value_set=self.labels["uid"].combine_chunks())).to_pylist()


@contextmanager
def curated(folder):
    folder.mkdir(parents=True, exist_ok=True)
    toml = described(folder)
    source = loading.load(toml)
    storage = Storage(folder / "store" / source.name)
    print(main_job.bring_in(source, storage), flush=True)
    known = pq.read_table(truth.labels(source, storage))
    rows = zip(*(known[name].to_pylist() for name in ("url", "caption")), strict=True)
    labels = pa.table({"uid": [uid(*row) for row in rows], "label": known["label"]})
    with world.served(source, storage) as served:
        yield Found("demo", served, storage, (replace(source.own_recipe, name="demo-own"), *CAPPED), labels)


def described(folder):
    """The source file, with absolute paths."""
    manifests = HOME / "data_manifests"
    text = (manifests / "demo.toml").read_text()
    text = re.sub(r'"(local-dir:)?\.\./', lambda found: f'"{found[1] or ""}{HOME}/', text)
    targets = folder / "targets"
    targets.mkdir(exist_ok=True)
    for name, content in pool.files(7, pool.clean(pool.STREAMS["calibration"], range(TARGETS))):
        (targets / name).write_bytes(content)
    words = [pool.captions(7, pool.STREAMS["calibration"], number, 1)[0] for number in range(TARGETS)]
    write_reference(folder, [pool.name(number) for number in range(TARGETS)], words)
    write_entries(folder, (pool.captions(7, pool.POOL, number, 1)[0] for number in range(2000)))
    toml = folder / "zoo.toml"
    toml.write_text(text.replace("[[filters]]", MORE.lstrip() + "\n[[filters]]", 1))
    return toml


def write_reference(folder, images, captions):
    """The clean pairs that a mix is learned for, with the pictures of the targets."""
    pq.write_table(pa.table({"image": images, "caption": captions}), folder / "reference.parquet")


def write_entries(folder, captions):
    """The words that several captions have, as the entries of `metaclip-like`."""
    counts = Counter(word for caption in captions for word in set(caption.split()))
    (folder / "entries.txt").write_text("\n".join(sorted(word for word, count in counts.items() if count >= OFTEN)))
