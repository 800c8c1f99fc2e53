"""Augmented versions of a shard's pairs: their definitions and their features by encoder, stored by shard."""

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.scorers.clip import ClipSpec
from pipeline.settings.task import Budget
from pipeline.store import tarfiles
from pipeline.store.digests import digest
from pipeline.store.stage import Stage
from pipeline.store.storage import Storage
from training.augment import caption_policies, joint, picture_policies
from training.augment.joint import Guard
from training.augment.picture_policies import Pixels
from training.data import decoding, features
from training.data.features import Extractor
from training.encoders import encoders
from training.encoders.finite import to_float16

WINDOW = 64
"""The number of pairs whose pictures are in memory at a time."""

SCHEMA = pa.schema(
    {
        "uid": pa.string(),
        "member": pa.string(),
        "seed": pa.int64(),
        "text": pa.string(),  # the caption, augmented alone, or its recaption
        "caption": pa.string(),  # augmented together with the picture
        "steps": pa.list_(pa.string()),  # steps of the picture policy that the rules allow
        "taken": pa.list_(pa.string()),  # steps applied to the picture, and steps applied to the caption
        "uncropped": pa.bool_(),  # whether a crop was refused because similarity fell by it alone
        "plain": pa.float32(),  # similarity of picture and caption as they are; NULL without a CLIP
        "similarity": pa.float32(),  # of both augmented
    }
)
"""The schema: a row for each version. The versions of a pair are together, pairs in ledger order."""


class VersionMaker:
    """Defines the versions of pairs. A CLIP is loaded when it is first needed."""

    def __init__(self, storage: Storage, budget: Budget, clip: ClipSpec | None) -> None:
        caption_policies.check(budget.caption_policy)
        self._storage, self._budget, self._clip = storage, budget, clip
        self._guard: Guard | None = None
        self._encoders: dict[str, encoders.LoadedEncoder] = {}
        self.margin = budget.margin
        self.made_by = {
            "versions": [picture_policies.VERSION, caption_policies.VERSION, joint.VERSION],
            **{name: version(name) for name in ("albumentations", "nlpaug")},
            "policy": budget.policy,
            "caption_policy": budget.caption_policy,
            "views": budget.augmented_views,
            "margin": budget.margin if clip else None,
            "clip": dict(clip.identity()) if clip else None,
            **({"recaption": budget.recaption} if budget.recaption else {}),
        }

    def shard(self, shards_key: str, shard: int, pairs: pa.Table) -> pa.Table:
        """The versions of pairs with uid, caption, member, and perhaps recaption, as `SCHEMA`."""
        stage = Stage("versions", {**self.made_by, "shards": shards_key})
        key = stage.item(shard, f"-{self._digest(pairs, 'recaption')}.parquet")
        if not self._storage.done(key):
            stage.describe(self._storage)
            pictures = ShardPictures(self._storage, shards_key, shard, pairs["member"].to_pylist())
            windows = (pairs.slice(at, WINDOW).to_pylist() for at in range(0, len(pairs), WINDOW))
            rows = [row for window in windows for row in self._rows(window, pictures)]
            with self._storage.scratch() as scratch:
                pq.write_table(pa.Table.from_pylist(rows, SCHEMA), scratch / "versions.parquet")
                self._storage.put_file(key, scratch / "versions.parquet")
        return pq.read_table(self._storage.fetch(key))

    def features(self, extractor: Extractor, shards_key: str, shard: int, made: pa.Table) -> npt.NDArray[np.float16]:
        """The features of the versions that `shard` returned, float16 [pairs, views, dim], stored by shard."""
        by = {"version": features.VERSION, "encoder": extractor.identity, "shards": shards_key, **self.made_by}
        stage = Stage(f"features/{extractor.encoder.kind}", by)
        key = stage.item(shard, f"-{self._digest(made, 'text')}.npz")
        if not self._storage.done(key):
            stage.describe(self._storage)
            stored = ShardPictures(self._storage, shards_key, shard, made["member"].to_pylist())
            encoder = self._encoder(extractor)
            parts = []
            for at in range(0, len(made), WINDOW):
                rows = made.slice(at, WINDOW).to_pylist()
                pictures = [
                    picture_policies.apply(stored.pixels(row["member"]), row["steps"], row["seed"])[0] for row in rows
                ]
                parts.append(encoder.encode([encoder.prepare(extractor.resize(each)) for each in pictures]))
            halves = to_float16(np.concatenate(parts), lambda row: f"the augmented pair {made['uid'][row]}")
            views = halves.reshape(-1, self._budget.augmented_views, parts[0].shape[1])
            with self._storage.scratch() as scratch:
                np.savez(scratch / "features.npz", views=views)
                self._storage.put_file(key, scratch / "features.npz")
        with np.load(self._storage.fetch(key), allow_pickle=False) as file:
            kept: npt.NDArray[np.float16] = file["views"]
        return kept

    def _digest(self, table: pa.Table, texts: str) -> str:
        """Sixteen hex digits for the pairs, and for the texts of recaptions, which may change for the same pairs."""
        uids = table["uid"].to_pylist()
        return digest([uids, table[texts].to_pylist()] if self._budget.recaption else uids)[:16]

    def _rows(self, pairs: Sequence[Mapping[str, str]], pictures: "ShardPictures") -> list[dict[str, Any]]:
        """Rows of `SCHEMA` of a window of pairs."""
        budget, views = self._budget, self._budget.augmented_views
        each = [(pair, view) for pair in pairs for view in range(1, views + 1)]
        plain = [pictures.pixels(pair["member"]) for pair in pairs for _ in range(views)]
        captions = [pair.get("recaption") or pair["caption"] if view == 1 else pair["caption"] for pair, view in each]
        rows: list[dict[str, Any]] = [
            {
                "uid": pair["uid"],
                "member": pair["member"],
                "seed": picture_policies.seed(pair["uid"], view),
                "plain_caption": caption,
                "steps": list(joint.allowed_steps(picture_policies.POLICIES[budget.policy], caption)),
                "uncropped": False,
            }
            for (pair, view), caption in zip(each, captions, strict=True)
        ]
        guard = self._loaded_guard()
        if guard:
            self._refuse_crops(guard, plain, rows)
        made = []
        for pixels, row, (pair, _) in zip(plain, rows, each, strict=True):
            caption = row.pop("plain_caption")
            row["text"] = caption
            if caption == pair["caption"]:
                row["text"], _ = caption_policies.augment(caption, budget.caption_policy, row["seed"])
            made.append(joint.augment(pixels, caption, row["steps"], budget.caption_policy, row["seed"]))
            row["caption"], row["taken"] = made[-1].caption, list(made[-1].applied)
        if guard:
            fits = guard.similarity([each.pixels for each in made], [each.caption for each in made])
            for row, similarity in zip(rows, fits.tolist(), strict=True):
                row["similarity"] = similarity
        return rows

    def _refuse_crops(self, guard: Guard, plain: Sequence[Pixels], rows: Sequence[dict[str, Any]]) -> None:
        captions = [row["plain_caption"] for row in rows]
        cropped = [
            picture_policies.apply(pixels, ("crop",), row["seed"])[0] if "crop" in row["steps"] else pixels
            for pixels, row in zip(plain, rows, strict=True)
        ]
        before, after = (guard.similarity(pictures, captions).tolist() for pictures in (plain, cropped))
        for row, whole, part in zip(rows, before, after, strict=True):
            row["plain"] = whole
            if whole - part > guard.margin:
                row["uncropped"], row["steps"] = True, [each for each in row["steps"] if each != "crop"]

    def _encoder(self, extractor: Extractor) -> encoders.LoadedEncoder:
        name = digest(extractor.identity)
        if name not in self._encoders:
            self._encoders[name] = extractor.load()
        return self._encoders[name]

    def _loaded_guard(self) -> Guard | None:
        if self._clip and not self._guard:
            self._guard = Guard.load(self._clip, self._budget.margin)
        return self._guard


class ShardPictures:
    """The stored pictures of some members of a shard."""

    def __init__(self, storage: Storage, shards_key: str, shard: int, members: Iterable[str]) -> None:
        wanted = set(members)
        tar = storage.fetch(f"shards-{shards_key}/{shard:05d}.tar")
        self._stored = {name: content for name, content in tarfiles.read(tar) if name in wanted}

    def pixels(self, member: str) -> Pixels:
        """Upright RGB."""
        (plain,) = decoding.decode_versions(self._stored[member], "", 0)
        return plain
