"""Augmented versions of the pairs that a manifest keeps: of the caption alone, and of picture and caption together.

What a version is made of is settled once, and kept by shard: its captions, the steps that the rules leave, and how well
picture and caption fit before and after. Its pixels are made again from these for every encoder.

A version whose caption no longer gives the label of its pair is not trained on, nor is, where it is guarded, one that
the guard rejects: the plain pair is seen in its place, so that every trial sees as many samples.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import CompareError
from pipeline.manifest.arms import Choice
from pipeline.progress import Progress
from pipeline.scorers.clip import ClipSpec
from pipeline.settings.task import Budget, Task
from pipeline.store import tarfiles
from pipeline.store.digests import digest
from pipeline.store.stage import Stage
from pipeline.store.storage import Storage
from training.augment import caption_policies, joint, picture_policies
from training.augment.joint import Guard
from training.data import features, labels
from training.data.features import Extractor
from training.data.pool import Pool
from training.encoders import encoders

HOW = ("text", "both", "guarded")
"""Captions alone; pictures and captions together, by the rules; the same, and the guard looks at each version."""

WINDOW = 64
"""Pairs whose pictures are in memory at a time."""

SCHEMA = pa.schema(
    {
        "uid": pa.string(),
        "member": pa.string(),
        "seed": pa.int64(),
        "text": pa.string(),  # the caption, augmented alone
        "caption": pa.string(),  # augmented together with the picture
        "steps": pa.list_(pa.string()),  # that the rules leave of the picture's policy
        "taken": pa.list_(pa.string()),  # what chance left of them, and what was done to the caption
        "uncropped": pa.bool_(),  # whether a crop was refused because similarity fell by it alone
        "plain": pa.float32(),  # similarity of picture and caption as they are; NULL without a CLIP
        "similarity": pa.float32(),  # of both augmented
    }
)
"""A row a version; the versions of a pair together, pairs in ledger order."""


@dataclass(frozen=True)
class Versions:
    """Of the pairs of a pool that are kept and show no test picture.

    `rows`, [pool rows], is a pair's place among them, or -1. `views` are features of the pictures of both augmented,
    float16 [pairs, views, dim], an entry for each encoder. `captions`, of "text" and of "both", has those of a pair
    together; `refused`, by HOW, bool [pairs, views], are not trained on; `counts` tells why, for a person.
    """

    rows: npt.NDArray[np.int64]
    views: Sequence[npt.NDArray[np.float16]]
    captions: Mapping[str, Sequence[str]]
    refused: Mapping[str, npt.NDArray[np.bool_]]
    counts: Mapping[str, Any]

    def chosen(
        self,
        how: str,
        rows: npt.NDArray[np.int64],
        plain: npt.NDArray[np.float16],
        made: npt.NDArray[np.float16],
    ) -> npt.NDArray[np.float16]:
        """What is trained on of pool rows, [rows, 1 + views, dim]: the `plain` one, [rows, 1, dim], and of `made`,
        [pairs, views, dim], what is not refused."""
        at = self.rows[rows]
        return np.concatenate([plain, np.where(self.refused[how][at][:, :, None], plain, made[at])], axis=1)


class Maker:
    """Settles what the versions of a shard's pairs are made of. A CLIP is loaded when it is first needed."""

    def __init__(self, storage: Storage, budget: Budget, clip: ClipSpec | None) -> None:
        caption_policies.check(budget.caption_policy)
        self._storage, self._budget, self._clip = storage, budget, clip
        self._guard: Guard | None = None
        self._encoders: dict[str, encoders.Encodes] = {}
        self.margin = budget.margin
        self.made_by = {
            "versions": [picture_policies.VERSION, caption_policies.VERSION, joint.VERSION],
            **{name: version(name) for name in ("albumentations", "nlpaug")},
            "policy": budget.policy,
            "caption_policy": budget.caption_policy,
            "views": budget.augmented_views,
            "margin": budget.margin if clip else None,
            "clip": dict(clip.identity()) if clip else None,
        }

    def shard(self, shards_key: str, shard: int, pairs: pa.Table) -> pa.Table:
        """SCHEMA, of pairs with uid, caption and member."""
        stage = Stage("versions", {**self.made_by, "shards": shards_key})
        key = stage.item(shard, f"-{digest(pairs['uid'].to_pylist())[:16]}.parquet")
        if not self._storage.done(key):
            stage.describe(self._storage)
            found = Pictures(self._storage, shards_key, shard, pairs["member"].to_pylist())
            windows = (pairs.slice(at, WINDOW).to_pylist() for at in range(0, len(pairs), WINDOW))
            rows = [row for window in windows for row in self._settled(window, found)]
            with self._storage.scratch() as scratch:
                pq.write_table(pa.Table.from_pylist(rows, SCHEMA), scratch / "versions.parquet")
                self._storage.put_file(key, scratch / "versions.parquet")
        return pq.read_table(self._storage.fetch(key))

    def encoded(self, extractor: Extractor, shards_key: str, shard: int, made: pa.Table) -> npt.NDArray[np.float16]:
        """The features of what `shard` gave, [pairs, views, dim], kept by shard."""
        by = {"version": features.VERSION, "encoder": extractor.identity, "shards": shards_key, **self.made_by}
        stage = Stage(f"features/{extractor.encoder.kind}", by)
        key = stage.item(shard, f"-{digest(made['uid'].to_pylist())[:16]}.npz")
        if not self._storage.done(key):
            stage.describe(self._storage)
            found = Pictures(self._storage, shards_key, shard, made["member"].to_pylist())
            encoder = self._encoder(extractor)
            parts = []
            for at in range(0, len(made), WINDOW):
                rows = made.slice(at, WINDOW).to_pylist()
                pictures = [
                    picture_policies.taken(found.pixels(row["member"]), row["steps"], row["seed"])[0] for row in rows
                ]
                parts.append(encoder.encode([encoder.prepare(extractor.drawn(each)) for each in pictures]))
            views = (
                np.concatenate(parts).astype(np.float16).reshape(-1, self._budget.augmented_views, parts[0].shape[1])
            )
            with self._storage.scratch() as scratch:
                np.savez(scratch / "features.npz", views=views)
                self._storage.put_file(key, scratch / "features.npz")
        with np.load(self._storage.fetch(key), allow_pickle=False) as stored:
            kept: npt.NDArray[np.float16] = stored["views"]
        return kept

    def _settled(self, pairs: Sequence[Mapping[str, str]], pictures: "Pictures") -> list[dict[str, Any]]:
        """The rows of a window."""
        budget, views = self._budget, self._budget.augmented_views
        plain = [pictures.pixels(pair["member"]) for pair in pairs for _ in range(views)]
        rows: list[dict[str, Any]] = [
            {
                "uid": pair["uid"],
                "member": pair["member"],
                "seed": picture_policies.seed(pair["uid"], view),
                "plain_caption": pair["caption"],
                "steps": list(joint.allowed(picture_policies.POLICIES[budget.policy], pair["caption"])),
                "uncropped": False,
            }
            for pair in pairs
            for view in range(1, views + 1)
        ]
        guard = self._loaded()
        if guard:
            self._refuse_crops(guard, plain, rows)
        made = []
        for pixels, row in zip(plain, rows, strict=True):
            caption = row.pop("plain_caption")
            row["text"], _ = caption_policies.version(caption, budget.caption_policy, row["seed"])
            made.append(joint.version(pixels, caption, row["steps"], budget.caption_policy, row["seed"]))
            row["caption"], row["taken"] = made[-1].caption, list(made[-1].taken)
        if guard:
            fits = guard.similarity([each.pixels for each in made], [each.caption for each in made])
            for row, similarity in zip(rows, fits.tolist(), strict=True):
                row["similarity"] = similarity
        return rows

    def _refuse_crops(
        self, guard: Guard, plain: Sequence[picture_policies.Pixels], rows: Sequence[dict[str, Any]]
    ) -> None:
        captions = [row["plain_caption"] for row in rows]
        cropped = [
            picture_policies.taken(pixels, ("crop",), row["seed"])[0] if "crop" in row["steps"] else pixels
            for pixels, row in zip(plain, rows, strict=True)
        ]
        before, after = (guard.similarity(pictures, captions).tolist() for pictures in (plain, cropped))
        for row, whole, part in zip(rows, before, after, strict=True):
            row["plain"] = whole
            if whole - part > guard.margin:
                row["uncropped"], row["steps"] = True, [each for each in row["steps"] if each != "crop"]

    def _encoder(self, extractor: Extractor) -> encoders.Encodes:
        name = digest(extractor.identity)
        if name not in self._encoders:
            self._encoders[name] = encoders.load(extractor.encoder)
        return self._encoders[name]

    def _loaded(self) -> Guard | None:
        if self._clip and not self._guard:
            self._guard = Guard.load(self._clip, self._budget.margin)
        return self._guard


class Pictures:
    """Those of a shard's pictures that are called for, as they were stored."""

    def __init__(self, storage: Storage, shards_key: str, shard: int, members: Iterable[str]) -> None:
        wanted = set(members)
        tar = storage.fetch(f"shards-{shards_key}/{shard:05d}.tar")
        self._stored = {name: content for name, content in tarfiles.read(tar) if name in wanted}

    def pixels(self, member: str) -> picture_policies.Pixels:
        """Upright RGB."""
        (plain,) = features.versions(self._stored[member], "", 0)
        return plain


def read(
    choice: Choice,
    pool: Pool,
    task: Task,
    extractors: Sequence[Extractor],
    maker: Maker,
    progress: Progress,
) -> Versions:
    """The versions of the pairs of a pool that are kept and show no test picture. Raises CompareError if none is."""
    uid = pool.table["uid"].combine_chunks()
    wanted = pool.usable.filter(pool.usable["kept"]).combine_chunks()
    if not len(wanted):
        raise CompareError(
            "nothing is there to augment: the manifest keeps no pair that can be trained on; loosen its filters"
        )
    pairs = captions(choice, wanted["uid"])
    shards_key = choice.manifest.document["stages"]["shards"]
    tables: list[pa.Table] = []
    views: list[list[npt.NDArray[np.float16]]] = [[] for _ in extractors]
    numbers = pc.unique(pairs["shard"]).to_pylist()
    for done, number in enumerate(numbers):
        progress("versions", done, len(numbers))
        tables.append(maker.shard(shards_key, number, pairs.filter(pc.equal(pairs["shard"], number))))
        for extractor, parts in zip(extractors, views, strict=True):
            parts.append(maker.encoded(extractor, shards_key, number, tables[-1]))
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


def captions(choice: Choice, uids: pa.ChunkedArray) -> pa.Table:
    """uid, caption, shard and member of these pairs, in ledger order."""
    wanted = uids.combine_chunks()
    found = [each.filter(pc.is_in(each["uid"], value_set=wanted)) for each in choice.downloaded()]
    return pa.Table.from_batches(found).select(["uid", "caption", "shard", "member"])


def _lost(captions: pa.ChunkedArray, own: npt.NDArray[Any], task: Task) -> npt.NDArray[np.bool_]:
    """Which captions no longer give the label of their pair; none where a column tells it."""
    if task.kind != "classes":
        return np.zeros(len(own), bool)
    found: npt.NDArray[np.bool_] = labels.only(labels.named(captions, task.classes)) != own
    return found


def _counts(table: pa.Table, lost: Mapping[str, npt.NDArray[np.bool_]], fell: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """How many versions there are, lost their label, lost their crop to the CLIP, and were rejected by the guard.

    `looked` tells whether a CLIP looked at them: without one no crop is refused and no version rejected. `by_step` has,
    of the versions in which each step was taken, how many there are and how many the guard rejected; most take several.
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


def told(counts: Mapping[str, Any]) -> str:
    """The counts as a sentence."""
    lost = counts["label_lost"]
    says = f"of {counts['versions']} versions of both, {lost['both']} lost their label ({lost['text']} of text)"
    if not counts["looked"]:
        return f"{says}; no CLIP is at hand that could look at crops and guard"
    by_step = ", ".join(f"{step} {each['rejected']} of {each['of']}" for step, each in counts["by_step"].items())
    return f"{says}, {counts['uncropped']} were not cropped, and the guard rejected {counts['rejected']}: {by_step}"
