"""Pictures and captions augmented together, for training: which versions a learner sees.

A version is defined once and stored by shard: its captions, the allowed steps, and the similarity of picture and
caption before and after. Its pixels are computed from these for every encoder.

A version whose caption no longer gives the label of its pair is not trained on. With a guard, neither is a version that
the guard rejects. The plain pair replaces it, so that every trial sees the same number of samples.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import CompareError
from pipeline.manifest.arms import Choice
from pipeline.progress import Progress
from pipeline.scorers import class_labels
from pipeline.settings.task import Task
from training.data.features import Extractor
from training.data.pool import Pool, captions
from training.data.version_maker import VersionMaker

AUGMENTATIONS = ("text", "both", "guarded")
"""Captions alone; pictures and captions together, by the rules; the same with a guard that may reject a version."""


@dataclass(frozen=True)
class Versions:
    """Augmented versions of the kept pairs of a pool that show no test picture.

    `rows`, [pool rows], is a pair's place among them, or -1. `views` are features of pictures that were augmented
    together with their captions, float16 [pairs, views, dim], an entry for each encoder. `captions`, by "text" and
    "both", lists the versions pair by pair. `refused`, by AUGMENTATIONS, bool [pairs, views], are not trained on.
    `counts` has the reasons, for the report.
    """

    rows: npt.NDArray[np.int64]
    views: Sequence[npt.NDArray[np.float16]]
    captions: Mapping[str, Sequence[str]]
    refused: Mapping[str, npt.NDArray[np.bool_]]
    counts: Mapping[str, Any]

    def select(
        self,
        how: str,
        rows: npt.NDArray[np.int64],
        plain: npt.NDArray[np.float16],
        made: npt.NDArray[np.float16],
    ) -> npt.NDArray[np.float16]:
        """The samples of pool rows, [rows, 1 + views, dim]: the `plain` one, [rows, 1, dim], and the versions.

        `made` has the versions, [pairs, views, dim]. The plain sample replaces refused versions.
        """
        at = self.rows[rows]
        return np.concatenate([plain, np.where(self.refused[how][at][:, :, None], plain, made[at])], axis=1)


def read(
    choice: Choice,
    pool: Pool,
    task: Task,
    extractors: Sequence[Extractor],
    maker: VersionMaker,
    progress: Progress,
) -> Versions:
    """The versions of the kept pairs of a pool that show no test picture. Raises CompareError if there is none."""
    uid = pool.table["uid"].combine_chunks()
    wanted = pool.usable.filter(pool.usable["kept"]).combine_chunks()
    if not len(wanted):
        raise CompareError(
            "there is nothing to augment: the manifest keeps no pair that can be trained on; loosen its filters"
        )
    pairs = captions(choice, wanted["uid"], task.budget.recaption)
    shards_key = choice.manifest.stages.shards
    tables: list[pa.Table] = []
    views: list[list[npt.NDArray[np.float16]]] = [[] for _ in extractors]
    numbers = pc.unique(pairs["shard"]).to_pylist()
    for done, number in enumerate(numbers):
        progress("versions", done, len(numbers))
        tables.append(maker.shard(shards_key, number, pairs.filter(pc.equal(pairs["shard"], number))))
        for extractor, parts in zip(extractors, views, strict=True):
            parts.append(maker.features(extractor, shards_key, number, tables[-1]))
    progress("versions", len(numbers), len(numbers))
    table = pa.concat_tables(tables)
    shape = (len(pairs), len(table) // len(pairs))
    own = np.repeat(wanted["label"].to_numpy(), shape[1])
    lost = {how: _lost(table[column], own, task) for how, column in (("text", "text"), ("both", "caption"))}
    fell = pc.greater(pc.subtract(table["plain"], table["similarity"]), maker.margin).fill_null(False).to_numpy()
    refused = {**lost, "guarded": lost["both"] | fell}
    place = pc.fill_null(pc.index_in(uid, value_set=pairs["uid"].combine_chunks()), -1)
    return Versions(
        place.to_numpy().astype(np.int64),
        [np.concatenate(parts) for parts in views],
        {"text": table["text"].to_pylist(), "both": table["caption"].to_pylist()},
        {how: found.reshape(shape) for how, found in refused.items()},
        _counts(table, lost, fell),
    )


def _lost(captions: pa.ChunkedArray, own: npt.NDArray[Any], task: Task) -> npt.NDArray[np.bool_]:
    """Which captions no longer give the label of their pair; none if labels come from a column."""
    if task.kind != "classes":
        return np.zeros(len(own), bool)
    found: npt.NDArray[np.bool_] = class_labels.single_class(class_labels.classes_named(captions, task.classes)) != own
    return found


def _counts(table: pa.Table, lost: Mapping[str, npt.NDArray[np.bool_]], fell: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """The numbers of versions: all, with a lost label, with a crop refused by the CLIP, and rejected by the guard.

    `looked` tells whether a CLIP checked them. Without one no crop is refused and no version is rejected. `by_step` has
    the number of versions with each step and how many of these the guard rejected. Most versions have several steps.
    """
    of: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    for taken, bad in zip(table["taken"].to_pylist(), fell.tolist(), strict=True):
        of.update(taken)
        rejected.update(taken if bad else ())
    return {
        "versions": len(table),
        "looked": table["similarity"].null_count < len(table),
        "label_lost": {how: int(found.sum()) for how, found in lost.items()},
        "uncropped": pc.sum(table["uncropped"]).as_py() or 0,
        "rejected": int(fell.sum()),
        "by_step": {step: {"of": of[step], "rejected": rejected[step]} for step in sorted(of)},
    }


def summarize(counts: Mapping[str, Any]) -> str:
    """The counts as a sentence."""
    lost = counts["label_lost"]
    says = f"of {counts['versions']} versions of both, {lost['both']} lost their label ({lost['text']} of text)"
    if not counts["looked"]:
        return f"{says}; there is no CLIP scorer that could check crops and guard"
    by_step = ", ".join(f"{step} {each['rejected']} of {each['of']}" for step, each in counts["by_step"].items())
    return f"{says}, {counts['uncropped']} were not cropped, and the guard rejected {counts['rejected']}: {by_step}"
