"""Pairs per second of `Pairs.stream` against webdataset on the exported tars: the same decode, loader and workers.

python tests/benchmarks/torch_stream.py [PAIRS] [REPEATS] [WORKERS ...]

Every repeat reads the same pairs by winnow, then by webdataset (or the other way round); ratios are those inside a
repeat. In the second source half of the pairs are dropped, and only the export is free of them.
"""

import os
import resource
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
import webdataset
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from filters.core import Filter, Recipe
from pipeline.bench import synthetic
from pipeline.export import export
from pipeline.export.content import Content
from pipeline.images import decoders
from pipeline.ledger import ingest
from pipeline.manifest import publish
from pipeline.manifest.manifest import Manifest
from pipeline.scoring.plan import Plan
from winnow.torch import Pairs

BATCH, BUFFER = 64, 2000

TARS = 12
"""Of an export: workers get as many each, because webdataset splits by tar."""

CROP = v2.Compose([v2.Resize(224), v2.CenterCrop(224), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
"""What most trainings do at least."""


def item(sample, decode, transform):
    image = decode(sample["jpg"])
    return {"image": transform(image), "caption": sample["txt"].decode(), "uid": sample["__key__"]}


def ours(manifest, recipe, decode, transform, epoch):
    stream = Pairs(manifest, recipe, transform=transform, decoder=decode).stream(buffer=BUFFER, batch_size=BATCH)
    stream.set_epoch(epoch)
    return stream


def theirs(tars, decode, transform, epoch):
    dataset = webdataset.WebDataset(tars, shardshuffle=len(tars), seed=epoch, workersplitter=webdataset.split_by_worker)
    return dataset.shuffle(BUFFER).map(partial(item, decode=decode, transform=transform))


def rate(dataset, workers, pairs):
    """Pairs per second of an epoch, and per second of processor time, workers included. No pair may be missing."""
    start, before = time.perf_counter(), processor()
    found = {uid for batch in DataLoader(dataset, BATCH, num_workers=workers) for uid in batch["uid"]}
    assert len(found) == pairs, f"{len(found)} of {pairs}"
    return pairs / (time.perf_counter() - start), pairs / (processor() - before)


def processor():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def summary(found):
    """`found` has the two rates of each side, for each repeat."""
    texts = []
    for which, unit in enumerate(("s", "s of processor time")):
        ours, theirs = ([each[side][which] for each in found] for side in (0, 1))
        ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
        one, other, ratio = (statistics.median(each) for each in (ours, theirs, ratios))
        texts.append(
            f"{one:,.0f}; {other:,.0f} a {unit}, ratio {ratio:.3f} (of {', '.join(f'{r:.2f}' for r in ratios)})"
        )
    return " | ".join(texts)


def size(content):
    return len(content)


def main():
    pairs, repeats = (int(each) for each in (sys.argv[1:3] or (6000, 5)))
    workers = [int(each) for each in sys.argv[3:]] or [0, 2]
    with tempfile.TemporaryDirectory() as folder:
        described, storage, _ = synthetic.source(Path(folder), pairs, 256, 1000)
        publish.publish(Plan.of(described), storage, ingest.update(described, storage), {})
        manifest = Manifest.open(storage)
        for name, recipe in {
            "all pairs": Recipe("all"),
            "half of them": Recipe("half", (Filter("half", "uid < '8'"),)),
        }.items():
            kept = len(manifest.select(recipe))
            out = export.write(Content(manifest, "webdataset", recipe), Path(folder) / name, piece=-(-kept // TARS))
            tars = sorted(str(path) for path in out.path.glob("*.tar"))
            for what, decode, transform in (
                ("decoded, 224 px", decoders.decoder("pillow"), CROP),
                ("bytes alone", size, float),
            ):
                for count in workers:
                    found = []
                    for repeat in range(repeats):
                        sides = [
                            partial(ours, manifest, recipe, decode, transform),
                            partial(theirs, tars, decode, transform),
                        ]
                        order = (0, 1) if repeat % 2 else (1, 0)
                        rates = {side: rate(sides[side](repeat), count, out.pairs) for side in order}
                        found.append((rates[0], rates[1]))
                    print(
                        f"{name}, {what}, {count} workers, load {os.getloadavg()[0]:.1f}: {summary(found)}", flush=True
                    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
