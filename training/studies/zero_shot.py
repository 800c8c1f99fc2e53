"""Zero-shot classification and retrieval of a source's test set, by any model with two towers: `winnow zero-shot`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.errors import CompareError
from pipeline.manifest.arms import Choice
from pipeline.pages.predictions import Group, Prediction
from pipeline.progress import Progress, silent
from pipeline.sources.source import Source
from pipeline.store.digests import digest
from pipeline.store.stage import Stage
from pipeline.store.storage import Storage
from training.data import pool, shown, templates
from training.data.features import Extractor
from training.data.heldout import HeldOut
from training.learners.divergence import check_scores
from training.measures import intervals, matching, medians, ranking
from training.measures.intervals import Bootstrap
from training.measures.matching import Retrieval
from training.measures.metrics import Units
from training.measures.zero_shot import ZeroShot
from training.studies import corpus
from training.studies.measurement import task_of
from training.studies.pair_encoders import PairEncoder

VERSION = 1

EACH = 12
"""Pictures of a page that are wrong, and that are right."""

TEXTS = 1024
"""Texts that are embedded between two steps of the progress bar."""


class Asked(NamedTuple):
    """Which candidates and which sets of templates: `training.data.templates` explains both."""

    names: str = "task"
    templates: Sequence[str] = templates.SETS


@dataclass(frozen=True)
class Pictures:
    """The test set, and the embeddings of its pictures, [pictures, dim]."""

    choice: Choice
    test: HeldOut
    units: Units


@dataclass(frozen=True)
class Found:
    """The figures, as JSON, and those of each set of templates; empty for a task of captions."""

    figures: dict[str, Any]
    sets: Mapping[str, ZeroShot]
    pictures: Pictures


def evaluate(
    source: Source, storage: Storage, encoder: PairEncoder, asked: Asked, progress: Progress = silent
) -> Found:
    """Classify the pictures of the task's test set by names, or rank its captions, if the task is one of these.

    Embeddings are stored under a digest of the model's weights, so those of another model, or of one that has trained
    on, are never used. Raises SourceError without a task, CompareError for a task of numbers or questions.
    """
    task = task_of(source)
    if task.kind in ("number", "vqa"):
        raise CompareError(
            f"{source.name}: a task of kind {task.kind} has neither classes nor captions to compare with"
        )
    choice = Choice.open(storage, None, None)
    test = HeldOut.read(task.test, task) if task.test else None
    if test is None:
        hashed = Extractor(storage, corpus.HASHED, source.decoder, None)
        test = pool.read(choice, task, [hashed], None, progress).test
    pictures = Pictures(choice, test, _pictures(source, storage, encoder, choice, test, progress))
    about = {
        "source": source.name,
        "model": encoder.name,
        "test": {"says": test.description, "pictures": len(test.labels), "digest": test.digest},
        "interval": f"{intervals.LEVEL:.0%}, a bootstrap over pictures; {intervals.RESAMPLES} resamples",
    }
    if test.pairs is not None:
        return Found({**about, "captions": _captions(storage, encoder, pictures, progress)}, {}, pictures)
    candidates = templates.candidates(asked.names, task.classes)
    truth = _truth(list(task.classes), list(candidates), test)
    sets = {
        name: ZeroShot(pictures.units @ _names(storage, encoder, candidates, name, progress).T, truth, list(candidates))
        for name in asked.templates
    }
    figures = [{"templates": name, **_summary(each)} for name, each in sets.items()]
    majority = next(iter(sets.values())).majority()
    return Found({**about, "names": len(candidates), "sets": figures, "majority": majority}, sets, pictures)


def page(storage: Storage, found: Found) -> list[Group]:
    """Pictures that the first set of templates gets wrong, and right, with their nearest names."""
    (name, result), test = next(iter(found.sets.items())), found.pictures.test
    chosen = {
        f"Wrong, templates {name}": shown.apart(EACH, np.flatnonzero(result.ranks > 1)),
        f"Right, templates {name}": shown.apart(EACH, np.flatnonzero(result.ranks == 1)),
    }
    pixels = shown.pixels(storage, found.pictures.choice, test, {each for rows in chosen.values() for each in rows})
    return [
        Group(heading, [Prediction(pixels[row], result.names[result.truth[row]], _lines(result, row)) for row in rows])
        for heading, rows in chosen.items()
    ]


def _lines(result: ZeroShot, row: int) -> list[tuple[str, str, bool | None]]:
    right = result.truth[row]
    return [(f"{cosine:+.3f}", result.names[name], name == right or None) for name, cosine in result.nearest(row)]


def _truth(classes: Sequence[str], names: Sequence[str], test: HeldOut) -> npt.NDArray[np.int64]:
    """The position of each picture's class among the candidates."""
    place = {name.casefold(): at for at, name in enumerate(names)}
    return np.array([place[name.casefold()] for name in classes], np.int64)[test.labels.astype(np.int64)]


def _summary(result: ZeroShot) -> dict[str, Any]:
    """Scores with intervals, confusions, and retrieval of pictures by names."""
    return {
        "scores": {name: asdict(figure) for name, figure in result.scores().items()},
        "confusions": [asdict(each) for each in result.confusions()],
        "by_name": _by_name(result),
    }


def _by_name(result: ZeroShot) -> dict[str, Any]:
    """Recall of a picture of the class by its name, among all pictures, over the names that have one."""
    there = np.unique(result.truth)
    relevant = result.truth[None, :] == there[:, None]
    cosines = result.cosines.T[there]
    best = np.where(relevant, cosines, -np.inf).max(axis=1, keepdims=True)
    ranks = 1 + ((cosines >= best) & ~relevant).sum(axis=1)
    recalls = {f"r{k}": float((ranks <= k).mean()) for k in matching.AT}
    chance = {f"r{k}": matching.chance(relevant.sum(axis=1), len(result.truth), k) for k in matching.AT}
    return {"queries": len(there), **recalls, "median": medians.median(ranks), "chance": chance}


def _captions(storage: Storage, encoder: PairEncoder, pictures: Pictures, progress: Progress) -> dict[str, Any]:
    """Ranks of captions by pictures and of pictures by captions, both with intervals."""
    pairs = pictures.test.pairs
    assert pairs is not None
    measure = Retrieval(pairs, len(pictures.test.labels))
    ranks = measure.predict(pictures.units, _texts(storage, encoder, list(pairs.texts), progress))
    bootstrap = Bootstrap(measure, measure.pictures, 1)
    return {"directions": ranking.summarize(measure, ranks[None], bootstrap), "people": None}


def _names(
    storage: Storage, encoder: PairEncoder, candidates: Mapping[str, Sequence[str]], name: str, progress: Progress
) -> Units:
    """The embedding of each candidate: the mean of the embeddings of its wordings, normalised again."""
    wordings = templates.prompts(candidates, templates.named(name))
    units = _texts(storage, encoder, [each for own in wordings for each in own], progress)
    means = np.add.reduceat(units, np.cumsum([0, *map(len, wordings)])[:-1])
    unit: Units = means / np.linalg.norm(means, axis=1, keepdims=True)
    return unit


def _texts(storage: Storage, encoder: PairEncoder, texts: list[str], progress: Progress) -> Units:
    def encode() -> Units:
        parts = []
        for at in range(0, len(texts), TEXTS):
            progress("texts", at, len(texts))
            parts.append(encoder.encode_captions(texts[at : at + TEXTS]))
        progress("texts", len(texts), len(texts))
        return np.concatenate(parts)

    return _stored(storage, encoder, {"texts": digest(texts)}, encode)


def _pictures(
    source: Source, storage: Storage, encoder: PairEncoder, choice: Choice, test: HeldOut, progress: Progress
) -> Units:
    def encode() -> Units:
        parts, total = list[Units](), len(test.labels)
        for window in corpus.test_pixels(storage, encoder, choice, test, source.decoder)():
            progress("pictures", sum(len(part) for part in parts), total)
            parts.append(encoder.encode_pictures(list(window.numpy())))
        progress("pictures", total, total)
        return np.concatenate(parts)

    return _stored(storage, encoder, {"pictures": list(test.sha256), "decoder": source.decoder}, encode)


def _stored(storage: Storage, encoder: PairEncoder, of: Mapping[str, Any], encode: Callable[[], Units]) -> Units:
    """Embeddings, computed once for a model and what is embedded. Raises TrainingError for one that is not finite."""
    import torch

    stage = Stage("features/zero-shot", {"version": VERSION, **encoder.identity})
    key = f"{stage.folder}/{digest(dict(of))[:32]}.npy"
    if not storage.done(key):
        stage.describe(storage)
        units = check_scores(torch.from_numpy(encode())).numpy()
        with storage.scratch() as scratch:
            np.save(scratch / "units.npy", units)
            storage.put_file(key, scratch / "units.npy")
    found: Units = np.load(storage.fetch(key), allow_pickle=False)
    return found
