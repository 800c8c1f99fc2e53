"""A tiny source of questions about drawn pictures of three shapes, published, with a test set or a split."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import tiny_vqa
import training_sources
from training_sources import truth

from pipeline.download import download
from pipeline.ledger import ingest
from pipeline.manifest import publish
from pipeline.scoring.plan import Plan
from pipeline.sources import loading
from pipeline.store.storage import Storage

SHOWN = "what runs on the sand"
KINDS = (SHOWN, "is it a dog", "how many cat sits")
HELD = '[task.test]\nlocation = "test.parquet"\nfolder = "test"\n'
MODEL = """[vqa.small]
image = "timm:test_resnet@random"
image_size = 32
text = "transformers:bert"
head = "concatenation"
hidden = 0
"""


def answer(number, kind):
    """Of the question `kind` about picture `number`."""
    return (truth(number), "yes" if truth(number) == "disc" else "no", str(1 + number % 3 % 2))[kind]


def source(folder, count=60, test=24, answers=None, split="", model="", learners=("small",), more="", **budget):
    """The source and its storage, published: three questions about each of `count` pictures.

    `answers` replaces the answer of some (number, kind); every sixth question is called stock, which a filter drops.
    """
    folder.mkdir(exist_ok=True)
    tiny_vqa.write_text(folder / "bert")
    rows = []
    for number in range(count):
        for kind, question in enumerate(KINDS):
            said = (answers or {}).get((number, kind), answer(number, kind))
            stock = " with stock" if (3 * number + kind) % 6 == 5 else ""
            rows.append({"url": f"http://host/{number}.jpg", "question": question + stock, "answer": said})
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    training_sources.heldout(folder, test)
    held = [
        {"image": f"{number}.jpg", "question": question, "answer": answer(number, kind)}
        for number in range(test)
        for kind, question in enumerate(KINDS)
    ]
    pq.write_table(pa.Table.from_pylist(held), folder / "test.parquet")
    spent = {"steps": 6, "batch": 16, "seeds": 5, "augmented_views": 1} | budget
    (folder / "asked.toml").write_text(
        '[pairs]\nlocation = "list.jsonl"\nquestion = "question"\nanswer = "answer"\n[download]\nshard_size = 50\n'
        '[[filters]]\nname = "honest"\nsql = "caption NOT LIKE \'%stock%\'"\n'
        f'{MODEL}{model}[task]\nkind = "vqa"\n{more}{split or HELD}'
        + "".join(f'[task.learners.{name}]\nvqa = "{name}"\n' for name in learners)
        + "[task.budget]\n"
        + "".join(f"{name} = {value}\n" for name, value in spent.items())
    )
    described = loading.load(folder / "asked.toml")
    storage = Storage(folder / "store")
    ledger, stage = ingest.update(described, storage), download.stage(described)
    for shard in ledger.shards:
        training_sources._downloaded(storage, stage, shard, {})
    publish.publish(Plan.of(described), storage, ledger, {})
    return described, storage
