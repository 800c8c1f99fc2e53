"""Questions about real photographs: WINNOW_DATA=... python tests/benchmarks/vqa.py FOLDER [STUDY ...]

daquar and daquar_more together: 5,944 questions about 758 photographs train, and 3,439 about 409 others are the test.
Settings are chosen on the 279 questions of daquar's dev split ("choose"). FOLDER keeps features and results: what has
run is not run again.
"""

import hashlib
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.settings.vqa import VqaModel
from pipeline.store.digests import digest
from pipeline.store.storage import Storage
from training.data.features import Extractor
from training.data.heldout import HeldOut
from training.data.order import Order
from training.data.streams import Stored
from training.learners import vqa
from training.learners.checkpoint import Checkpoint
from training.learners.vqa import Data
from training.learners.vqa_inputs import VqaInputs
from training.measures.collapse import collapse
from training.measures.intervals import Bootstrap, difference
from training.measures.metrics import scores
from training.studies.vqa_training import Course, class_weights
from training.vqa import build, lora

DATA = Path(os.environ["WINNOW_DATA"])
IMAGES = {
    "lite0": {"kind": "timm", "model": "tf_efficientnet_lite0"}
    | {"weights": str(DATA / "weights/tf_efficientnet_lite0.safetensors")},
    "mobilenet": {"kind": "timm", "model": "mobilenetv2_100", "options": {"pad_type": "same"}}
    | {"weights": str(DATA / "weights/mobilenetv2_100.safetensors")}
    | {"preprocess": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear"}},
}
BASE = {
    "image": IMAGES["lite0"],
    "text": f"transformers:{DATA / 'weights/minilm_l6_v2'}",
    "pooling": "mean",
    "head": "advanced",
    "batch": 64,
    "steps": 465,
    "head_rate": 1e-3,
    "decay": 0.3,
    "dropout": 0.5,
}
QUICK = {"head": "concatenation"}
LAYER = {"head": "concatenation", "hidden": 0, "batch": 32, "decay": 1.0}
SMALL = LAYER | {"image_size": 96, "steps": 186}
LORA = {"rank": 16, "alpha": 16, "targets": ["key", "value"], "rate": 1e-3}
BOTH = LORA | {"targets": ["key", "value", "conv_pw", "conv_pwl"]}
STUDIES = {
    "choose": {
        f"{head}, rate {rate:g}": {"head": head, "head_rate": rate, "dev": True}
        for head in ("concatenation", "advanced")
        for rate in (3e-4, 1e-3, 3e-3)
    },
    "picture": {
        "picture and question": {},
        "question only": {"picture": False},
        "picture and question, concatenation": QUICK,
        "question only, concatenation": QUICK | {"picture": False},
    },
    "heads": {head: {"head": head} for head in ("co-attention", "concatenation", "advanced")},
    "towers": {"EfficientNet-Lite0": QUICK, "MobileNetV2": QUICK | {"image": IMAGES["mobilenet"]}},
    "weights": {"no weights": QUICK, "balanced": QUICK | {"class_weights": "balanced"}},
    "stages": {
        "classifier alone": LAYER,
        "LoRA at once": LAYER | {"lora": LORA},
        "classifier, then LoRA": LAYER | {"lora": LORA | {"after": 0.5}},
    },
    "random head": {
        "LoRA at once": LAYER | {"lora": LORA},
        "LoRA at once, the head random": LAYER | {"lora": LORA | {"head": False}},
    },
    "both towers": {
        "classifier alone": SMALL,
        "LoRA at once": SMALL | {"lora": BOTH},
        "classifier, then LoRA": SMALL | {"lora": BOTH | {"after": 0.5}},
    },
}
SEEDS = {"choose": 1, "heads": 3, "stages": 2, "random head": 2, "both towers": 2}


def questions(dev):
    """Question, answer, picture and whether it is tested, of both sets; the dev split is tested, or left out."""
    tables = []
    for name in ("daquar", "daquar_more"):
        table = pq.read_table(DATA / name / "qa.parquet", columns=["image", "question", "answer", "split"])
        paths = [str(DATA / name / "images" / image) for image in table["image"].to_pylist()]
        tables.append(table.set_column(0, "image", pa.array(paths)))
    table = pa.concat_tables(tables)
    wanted = ("train", "dev") if dev else ("train", "test")
    return table.filter(pa.array([split in wanted for split in table["split"].to_pylist()]))


class Exact:
    """Exact accuracy of answers to questions about pictures; resamples draw pictures."""

    def __init__(self, truth, picture):
        self.metrics = {"accuracy": "accuracy"}
        self.truth, (_, self.picture) = truth, np.unique(picture, return_inverse=True)
        self.pictures = self.picture.max() + 1

    def scores(self, predictions):
        return {"accuracy": float((predictions == self.truth).mean())}

    def resampled(self, predictions, times):
        right = np.bincount(self.picture, predictions == self.truth, minlength=self.pictures)
        return (times @ right) / (times @ np.bincount(self.picture, minlength=self.pictures))


class Ground:
    """The questions, the vocabulary of the answers that train, and the pictures as a model reads them."""

    def __init__(self, folder, dev):
        self.storage, table = Storage(folder / "store"), questions(dev)
        self.tested = np.array([split != "train" for split in table["split"].to_pylist()])
        self.paths, self.picture = np.unique(table["image"].to_pylist(), return_inverse=True)
        self.texts, self.place = np.unique(table["question"].to_pylist(), return_inverse=True)
        answers = table["answer"].to_pylist()
        counts = Counter(each for each, test in zip(answers, self.tested, strict=True) if not test)
        self.answers = sorted(counts, key=lambda each: (-counts[each], each))
        number = {each: place for place, each in enumerate(self.answers)}
        self.targets = np.array([number.get(each, -1) for each in answers])
        self.measure = Exact(self.targets[self.tested], self.picture[self.tested])

    def says(self):
        test, train = self.targets[self.tested], self.targets[~self.tested]
        return (
            f"{len(train):,} questions about {len(set(self.picture[~self.tested])):,} photographs train, {len(test):,} "
            f"about {self.measure.pictures} are the test; {len(self.answers)} answers, which cannot answer "
            f"{(test < 0).mean():.1%} of the test; always {self.answers[0]!r}: {(test == 0).mean():.2%}"
        )

    def features(self, inputs):
        """[pictures, tokens * width]."""
        sha256 = tuple(hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in self.paths)
        held = HeldOut(sha256, np.zeros(len(sha256), np.int16), 0, 0, tuple(map(Path, self.paths)))
        return Extractor(self.storage, inputs.image_features, "pillow", None).heldout(held).views[:, 0]

    def pixels(self, model):
        """uint8 [pictures, height, width, 3]."""
        return np.stack([model.pictures.prepare(Image.open(path).convert("RGB")) for path in self.paths])


def train(ground, table, seed):
    """Predictions for the test, the counts of parameters, and seconds. Features are computed before the clock runs."""
    import torch

    settings = VqaModel.model_validate(BASE | table)
    model = build.build(settings, len(ground.answers), seed)
    inputs = VqaInputs(model, build.identity(settings), ground.storage)
    rows, tested = np.flatnonzero(~ground.tested), np.flatnonzero(ground.tested)
    frozen = ground.features(inputs) if model.image is not None and settings.image_blocks == 0 else None
    texts, read = {True: inputs.texts(ground.texts.tolist(), True)}, {}

    def values():
        if model.image_frozen:
            return frozen
        if "pixels" not in read:
            read["pixels"] = ground.pixels(model)
        return read["pixels"]

    def asked():
        return texts.setdefault(model.text_frozen, vqa.Texts(texts[True].ids, None, texts[True].cut))

    def data(stage):
        images = Stored(values(), ground.picture[:, None]) if model.image is not None else None
        order = Order(rows, settings.batch, 2 * seed + (stage == "whole"))
        plain = np.zeros((len(ground.picture), 1), np.int64)
        return Data(images, asked(), plain, ground.place[:, None], ground.targets[:, None], str, order)

    shown, place = np.unique(ground.picture[tested], return_inverse=True)

    def chunks():
        for part in np.split(shown, range(32, len(shown), 32)):
            pixels = torch.from_numpy(values()[part])
            yield pixels if pixels.dtype == torch.uint8 else pixels.float()

    def evaluate():
        return vqa.predict(model, chunks, place, asked(), ground.place[tested])

    weights = class_weights(settings, ground.targets[rows], ground.answers)
    saved = {
        stage: Checkpoint(ground.storage, f"checkpoints/{digest([table, seed])[:16]}-{stage}")
        for stage in ("head", "whole")
    }
    course = Course(model, data, weights, saved, seed)
    looks = sorted({course.alone or settings.steps, settings.steps, round(settings.steps / 3)})
    began = time.perf_counter()
    found, histories = course.run(looks, evaluate)
    counts = dict(lora.counts(model)) | {"dead": len(lora.dead(model)) if settings.lora else 0}
    return {
        "predictions": {step: each.tolist() for step, each in found.items()},
        "losses": [epoch.train_loss for history in histories for epoch in history.epochs],
        "epoch_seconds": histories[-1].seconds / max(1, histories[-1].step) * (len(rows) // settings.batch),
        "seconds": time.perf_counter() - began,
        **counts,
    }


def result(folder, ground, table, seed):
    """What `train` gives, once."""
    file = folder / "results" / f"{digest([BASE | table, seed])[:16]}.json"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(train(ground, {k: v for k, v in table.items() if k != "dev"}, seed)))
    return json.loads(file.read_text())


def weighted(ground, predictions):
    """Precision, recall and F1, each the mean over true answers weighted by how often they come."""
    truth = ground.measure.truth
    known = scores(truth, predictions, range(len(ground.answers)))["per_class"].values()
    return [sum(each[name] * each["support"] for each in known) / len(truth) for name in ("precision", "recall", "f1")]


def study(folder, name):
    arms, seeds = STUDIES[name], range(SEEDS.get(name, 5))
    ground = Ground(folder, any(table.get("dev") for table in arms.values()))
    print(f"\n## {name}\n\n{ground.says()}\n")
    print(
        "| arm | accuracy | by seed | precision, recall, F1 | answers given | most frequent two | collapsed | trained "
        "| of | s/epoch | s |"
    )
    print("|" + "---|" * 11)
    bootstrap, means = Bootstrap(ground.measure, ground.measure.pictures, len(seeds)), {}
    for arm, table in arms.items():
        runs = [result(folder, ground, table, seed) for seed in seeds]
        last = [np.array(run["predictions"][max(run["predictions"], key=int)]) for run in runs]
        means[arm] = bootstrap.mean(np.stack(last))
        each = [f"{ground.measure.scores(one)['accuracy']:.3f}" for one in last]
        prf = np.mean([weighted(ground, one) for one in last], axis=0)
        given = np.mean([len(np.unique(one)) for one in last])
        two = np.mean([np.sort(np.bincount(one))[-2:].sum() / len(one) for one in last])
        fell = sum(collapse(one, ground.measure.truth) is not None for one in last)
        print(
            f"| {arm} | {means[arm].point:.3f} | {' '.join(each)} | {' '.join(f'{x:.3f}' for x in prf)} | {given:.0f} "
            f"| {two:.2f} | {fell} of {len(last)} | {runs[0]['trained']:,} | {runs[0]['parameters']:,} "
            f"| {np.mean([run['epoch_seconds'] for run in runs]):.1f} | {sum(run['seconds'] for run in runs):.0f} |",
            flush=True,
        )
    first, *others = means
    for other in others:
        found = difference(means[first], means[other])
        print(f"\n{first} - {other}: {found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]")


if __name__ == "__main__":
    for wanted in sys.argv[2:] or STUDIES:
        study(Path(sys.argv[1]), wanted)
