"""The training pool: pairs with a label or a caption, their features, and which of them leak the test set."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import CompareError
from pipeline.manifest import arms
from pipeline.manifest.arms import Choice
from pipeline.progress import Progress
from pipeline.settings.task import Split, Task
from training.data import heldout, labels, near_duplicates
from training.data.answers import Vocabulary
from training.data.features import Extractor, Features
from training.data.heldout import HeldOut
from training.data.questions import Questions


class Dropped(NamedTuple):
    """How many pairs a filter drops, and how many of them would be kept without it."""

    all: int
    alone: int


@dataclass(frozen=True)
class Pool:
    """`table` has a row a pair: uid, kept, dropped_by, `arms.without` of each filter, sha256, label, and
    picture, its row in the features; and `copies`, if the recipe keeps pairs more than once.

    `test` is the test set, given or split off. `features` and `heldout`, those of the test set, have an entry for each
    encoder. `leaked`, [rows], is true where the picture is in the test set: the only mask against training on it.
    `counts` has the downloaded pairs by outcome, `filters` how many usable pairs each filter drops.
    """

    table: pa.Table
    test: HeldOut
    features: Sequence[Features]
    heldout: Sequence[Features]
    leaked: npt.NDArray[np.bool_]
    counts: Mapping[str, int]
    filters: Mapping[str, Dropped]
    questions: Questions | None = None

    @property
    def usable(self) -> pa.Table:
        """The rows that may be trained on."""
        return self.table.filter(pa.array(~self.leaked))

    @property
    def repeats(self) -> bool:
        """Whether the recipe may keep a pair more than once."""
        return "copies" in self.table.column_names


def read(choice: Choice, task: Task, extractors: Sequence[Extractor], test: HeldOut | None, progress: Progress) -> Pool:
    """The pool of a manifest, in ledger order. Without a `test` set, task.split first splits one off.

    Raises CompareError if no pair can be trained on, no picture that was split off has a label, or a number does
    not vary.
    """
    table, counts = labels.label_pairs(_downloaded(choice, task), task)
    if not len(table):
        raise CompareError(f"none of {counts['downloaded']} downloaded {_NOTHING[task.kind]}")
    if task.kind == "number":
        labels.check_varies("the pairs", table["label"].to_numpy())
    table, features = _with_features(table, choice.manifest.stages.shards, extractors, progress)
    if test is None:
        assert task.split
        apart = near_duplicates.split_off(features[0].phash, task.split)[table["picture"].to_numpy()]
        test, rows = _split(choice, task, task.split, table.filter(pa.array(apart)))
        held = [Features(each.views[rows], each.phash[rows]) for each in features]
        table = table.filter(pa.array(~apart))
        if not len(table):
            raise CompareError("all pictures were split off for the test set: lower task.split.share")
        counts |= {"split_off": int(apart.sum())}
    else:
        held = [_heldout(each, test, own) for each, own in zip(extractors, features, strict=True)]
    near = near_duplicates.near_any(features[0].phash, held[0].phash)[table["picture"].to_numpy()]
    exact = pc.is_in(table["sha256"], value_set=pa.array(test.sha256, pa.string())).to_numpy()
    pool = Pool(table, test, features, held, exact | near, counts, {})
    if task.kind == "vqa":
        pool = _with_answers(pool, choice, task)
    usable = pool.usable
    if not len(usable):
        raise CompareError(
            f"all {len(table)} pairs that could be trained on show a picture of the test set "
            f"({int(exact.sum())} exactly): name a test set that is not in the pool, or use [task.split]"
        )
    more = {
        "leaked_exact": int(exact.sum()),
        "leaked_near": int((near & ~exact).sum()),
        "pool": len(usable),
        "pool_kept": pc.sum(usable["kept"]).as_py() or 0,
    }
    filters = {name: _dropped(usable, name) for name in choice.recipe.reasons}
    return replace(pool, counts={**pool.counts, **more}, filters=filters)


def _heldout(extractor: Extractor, test: HeldOut, own: Features) -> Features:
    return extractor.heldout(test) if test.sha256 else Features(own.views[:0, :1], own.phash[:0])


def _downloaded(choice: Choice, task: Task) -> Iterator[pa.RecordBatch]:
    """The pairs that have a picture, with the columns that the task reads."""
    if task.kind == "vqa":
        return choice.downloaded(task.vqa.answer, task.vqa.question)
    return choice.downloaded(task.column)


def _with_answers(pool: Pool, choice: Choice, task: Task) -> Pool:
    """The pool with its questions. Labels are numbers of the vocabulary, which has answers of usable rows only."""
    asked, usable = questions(choice, task, pool.table), np.flatnonzero(~pool.leaked)
    vocabulary = Vocabulary.of([asked.answers[row] for row in usable.tolist()], task.vqa.answers)
    number = vocabulary.encode(asked.answers)
    table = pool.table.set_column(pool.table.column_names.index("label"), "label", pa.array(number))
    assert pool.test.questions is not None
    unknown = vocabulary.encode(pool.test.questions.answers) < 0
    counts = {
        "answers": len(vocabulary.answers),
        "unanswerable": int((number[usable] < 0).sum()),
        "test_unanswerable": int(unknown.sum()),
    }
    test = replace(pool.test, vocabulary=vocabulary)
    return replace(pool, table=table, test=test, questions=asked, counts={**pool.counts, **counts})


def questions(choice: Choice, task: Task, table: pa.Table) -> Questions:
    """What is asked in the rows of a pool's table about its pictures, in their order."""
    wanted = table["uid"].combine_chunks()
    batches = [each.filter(pc.is_in(each["uid"], value_set=wanted)) for each in _downloaded(choice, task)]
    return Questions.of(pa.Table.from_batches(batches), table["picture"].to_numpy())


def captions(choice: Choice, uids: pa.ChunkedArray, recaption: str | None = None) -> pa.Table:
    """uid, caption, shard and member of these pairs, in ledger order; and `recaption`, if that names a column."""
    wanted = uids.combine_chunks()
    batches = [each.filter(pc.is_in(each["uid"], value_set=wanted)) for each in choice.downloaded(recaption=recaption)]
    names = ["uid", "caption", "shard", "member", *(["recaption"] if recaption else [])]
    return pa.Table.from_batches(batches).select(names)


_NOTHING = {
    "classes": "captions names exactly one class; see the words in task.classes",
    "label": "pairs has a label of task.classes; see the values there, and task.column",
    "number": "pairs has a number; see task.column",
    "vqa": "pairs has a question and an answer; see task.vqa",
    **dict.fromkeys(("zero-shot", "retrieval", "match"), "pairs has a caption"),
}


def _split(choice: Choice, task: Task, split: Split, apart: pa.Table) -> tuple[HeldOut, npt.NDArray[np.int64]]:
    """The pictures that were split off and have a label, and the row of each in the features.

    All pairs of such a picture count, also those without a label of their own. Raises CompareError if none has one.
    """
    sha256, first = np.unique(np.array(apart["sha256"].to_pylist(), str), return_index=True)
    known = pa.array(sha256.tolist(), pa.string())
    batches = _downloaded(choice, task)
    pairs = pa.Table.from_batches([each.filter(pc.is_in(each["sha256"], value_set=known)) for each in batches])
    picture = pc.index_in(pairs["sha256"], value_set=known).to_numpy()
    label, ambiguous = heldout.agreed_labels(pairs, picture, len(known), task, split.agree)
    chosen = labels.known(label)
    if not chosen.any():
        raise CompareError(
            f"none of {len(known)} pictures that were split off has a label: raise share, or lower agree"
        )
    unlabelled = len(known) - ambiguous - int(chosen.sum())
    rows = apart["picture"].to_numpy()[first[chosen]]
    captions, asked = heldout.texts_of(pairs, picture, np.flatnonzero(chosen), task, split.seed)
    held = HeldOut(tuple(sha256[chosen].tolist()), label[chosen], ambiguous, unlabelled, (), captions, asked)
    return held, rows


def _dropped(usable: pa.Table, name: str) -> Dropped:
    named = pc.list_flatten(usable["dropped_by"])
    back = pc.and_not(usable[arms.without(name)].cast(pa.bool_()), usable["kept"])
    return Dropped(pc.sum(pc.equal(named, name)).as_py() or 0, pc.sum(back).as_py() or 0)


def _with_features(
    table: pa.Table, shards_key: str, extractors: Sequence[Extractor], progress: Progress
) -> tuple[pa.Table, list[Features]]:
    """Pairs of one URL share a picture, and so its features."""
    pictures = np.zeros(len(table), np.int64)
    wanted: dict[int, list[str]] = {}
    start = 0
    for number in pc.unique(table["shard"]).to_pylist():
        rows = np.flatnonzero(pc.equal(table["shard"], number).to_numpy())
        members, positions = np.unique(table["member"].take(rows).to_pylist(), return_inverse=True)
        wanted[number] = members.tolist()
        pictures[rows] = start + positions
        start += len(members)
    total = len(wanted) * len(extractors)
    progress("features", 0, total)
    parts: list[list[Features]] = []
    for extractor in extractors:
        parts.append([])
        for features in extractor.training(shards_key, wanted):
            parts[-1].append(features)
            progress("features", sum(map(len, parts)), total)
    return table.append_column("picture", pa.array(pictures)), [Features.joined(each) for each in parts]
