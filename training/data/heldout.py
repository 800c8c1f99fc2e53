"""The held-out pictures: given or split off, labelled by agreement or with captions, and kept away from training."""

import difflib
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from pipeline.errors import SourceError
from pipeline.neighbours import groups, hamming
from pipeline.settings.task import Split, Task, TestSet
from pipeline.store.digests import digest
from training.data import labels
from training.data.pairs import Pairs

NEAR = 4
"""Bits, of the 64 of a perceptual hash, in which two pictures may differ and still be taken for the same."""

LEAK_RULE = (
    f"a pair is left out of every arm if its picture has the sha256 of a held-out one, "
    f"or a perceptual hash (pHash, 64 bits) within {NEAR} bits of a held-out one's"
)


YES_OR_NO: labels.Classes = {"no": ("false", "no", "0", "0.0"), "yes": ("true", "yes", "1", "1.0")}
"""The values of a column that says whether a pair belongs together."""

Targets = npt.NDArray[np.int16] | npt.NDArray[np.float64]
"""Class numbers, negative for none; or numbers, NaN for none."""


@dataclass(frozen=True)
class HeldOut:
    """Pictures with a label or a number: `labels` and `sha256` are aligned. Or with captions, in `pairs`; labels are 0.

    `ambiguous` pictures had several that were well founded, `unlabelled` ones had none: they are left out. `paths` is
    where the pictures lie, sorted; it is empty for pictures that were split off the pool.
    """

    sha256: tuple[str, ...]
    labels: Targets
    ambiguous: int
    unlabelled: int
    paths: tuple[Path, ...] = ()
    pairs: Pairs | None = None

    @classmethod
    def read(cls, test: TestSet, task: Task) -> "HeldOut":
        """Raises SourceError for a missing column or picture, or where no picture has a label."""
        rows = _rows(test, task)
        names = pc.dictionary_encode(rows["image"].cast(pa.string())).combine_chunks()
        pictures, picture = len(names.dictionary), names.indices.to_numpy()
        label, doubtful = agreed(rows, picture, pictures, task, test.agree)
        order = np.argsort(np.array(names.dictionary.to_pylist(), object))
        chosen = order[there(label)[order]]
        paths = tuple(test.folder / names.dictionary[int(i)].as_py() for i in chosen)
        if not paths:
            agree = f"has {test.agree} captions that name the same class"
            wanted = (
                "has a caption" if task.evaluates_pairs else "has a value" if "target" in rows.column_names else agree
            )
            raise SourceError(f"{test.location.name}: no picture {wanted}")
        if missing := next((path for path in paths if not path.is_file()), None):
            raise SourceError(f"{test.location.name}: there is no picture {missing}")
        sha256 = tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
        pairs = paired(rows, picture, chosen, task, test.seed)
        return cls(sha256, label[chosen], doubtful, pictures - doubtful - len(chosen), paths, pairs)

    @property
    def digest(self) -> str:
        """Of the pictures and their labels, or captions."""
        return digest([list(self.sha256), self.labels.tolist(), *([self.pairs.told] if self.pairs else [])])

    @property
    def says(self) -> str:
        """How many there are, for a person."""
        pictures = f"{len(self.labels):,} held-out pictures"
        if self.pairs is None:
            return pictures
        count, match = len(self.pairs.match), int(self.pairs.match.sum())
        return f"{pictures} with {count:,} captions" + (f", {match:,} of them their own" if match < count else "")

    def pictures(self) -> Iterator[tuple[str, bytes]]:
        """The files, in order, and what each is called."""
        return ((str(path), path.read_bytes()) for path in self.paths)


def agreed(
    rows: pa.Table, picture: npt.NDArray[np.integer[Any]], pictures: int, task: Task, agree: int
) -> tuple[Targets, int]:
    """The label or number of each of so many pictures, of which each row tells something, and how many are ambiguous.

    `rows` have a caption, or a `target`. Of captions at least `agree` must name the class; of a column's values all
    must say the same. Where captions are asked for, a picture that has one gets 0.
    """
    if task.evaluates_pairs:
        found = np.full(pictures, labels.NONE, np.int16)
        found[picture[_asked(rows)]] = 0
        return found, 0
    if task.kind == "number":
        values = labels.numbers(rows["target"])
        low, high = np.full(pictures, np.inf), np.full(pictures, -np.inf)
        np.fmin.at(low, picture, values)
        np.fmax.at(high, picture, values)
        return np.where(low == high, low, np.nan), int((low < high).sum())
    if "target" in rows.column_names:
        said, least = labels.valued(rows["target"], task.classes)[:, None] == np.arange(len(task.classes)), 1
    else:
        said, least = labels.named(rows["caption"].cast(pa.string()), task.classes), agree
    votes = np.zeros((pictures, len(task.classes)), np.int64)
    np.add.at(votes, picture, said)
    label = labels.only(votes >= least)
    return label, int((label == labels.SEVERAL).sum())


def paired(
    rows: pa.Table, picture: npt.NDArray[np.integer[Any]], chosen: npt.NDArray[np.int64], task: Task, seed: int
) -> Pairs | None:
    """The captions of the `chosen` pictures, by their place among these; None if the task asks for no captions.

    Where it asks for matches and no `target` says which are, half of them get the caption of another picture.
    """
    if not task.evaluates_pairs:
        return None
    place = np.full(int(picture.max()) + 1, -1, np.int64)
    place[chosen] = np.arange(len(chosen))
    rows, own = rows.filter(pa.array(_asked(rows))), place[picture[_asked(rows)]]
    captions = rows["caption"].cast(pa.string()).to_pylist()
    if task.kind == "retrieval":
        return Pairs.of(captions, own)
    if "target" in rows.column_names:
        return Pairs.of(captions, own, labels.valued(rows["target"], YES_OR_NO) == 1)
    return Pairs.of(captions, own).halved(seed)


def _asked(rows: pa.Table) -> npt.NDArray[np.bool_]:
    """Which rows have a caption, and say whether it belongs to the picture if rows do say that."""
    captions = labels.captioned(rows["caption"].cast(pa.string()))
    told: npt.NDArray[np.bool_] = (
        labels.valued(rows["target"], YES_OR_NO) >= 0 if "target" in rows.column_names else captions
    )
    return captions & told


def there(label: Targets) -> npt.NDArray[np.bool_]:
    """Which of them are labels or numbers."""
    found: npt.NDArray[np.bool_] = ~np.isnan(label) if label.dtype.kind == "f" else label >= 0
    return found


def apart(hashes: npt.NDArray[np.uint64], split: Split) -> npt.NDArray[np.bool_]:
    """Which pictures, by their perceptual hashes, are split off: chains of near-duplicates go to the same side.

    A chain's side is decided by the seed and its lowest hash: pictures outside the chain have no say in it.
    """
    distinct, back = np.unique(hashes, return_inverse=True)
    edges = hamming.within(distinct, NEAR)
    ends = np.searchsorted(distinct, edges.low), np.searchsorted(distinct, edges.high)
    chain = groups.connected(len(distinct), *ends)
    lowest = np.full(len(np.unique(chain)), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(lowest, chain, distinct)
    drawn = [int.from_bytes(hashlib.sha256(f"{split.seed}:{each}".encode()).digest()[:8], "big") for each in lowest]
    held: npt.NDArray[np.bool_] = (np.array(drawn, np.float64) < split.share * 2**64)[chain][back]
    return held


def near(hashes: npt.NDArray[np.uint64], others: npt.NDArray[np.uint64], within: int = NEAR) -> npt.NDArray[np.bool_]:
    """Which of `hashes` differ in at most `within` bits from any of `others`."""
    distinct, back = np.unique(hashes, return_inverse=True)
    found = np.zeros(len(distinct), bool)
    for other in np.unique(others):
        found |= np.bitwise_count(distinct ^ other) <= within
    return found[back]


def _rows(test: TestSet, task: Task) -> pa.Table:
    """image; caption, target, or both, as the task asks. Raises SourceError for what cannot be read."""
    target = test.column or task.column
    wanted = {"image": test.image}
    wanted |= {"caption": test.caption} if task.evaluates_pairs or target is None else {}
    wanted |= {"target": target} if target is not None else {}
    table = _table(test, wanted.values())
    return pa.table({name: table[column] for name, column in wanted.items()})


def _table(test: TestSet, columns: Iterable[str]) -> pa.Table:
    try:
        if test.location.suffix == ".parquet":
            table = pq.read_table(test.location)
        else:
            table = pyarrow.csv.read_csv(test.location)
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"{test.location.name}: this is neither Parquet nor CSV: {error}") from None
    for column in columns:
        if column not in table.column_names:
            close = difflib.get_close_matches(column, table.column_names, n=1, cutoff=0.4) or table.column_names
            raise SourceError(f"{test.location.name}: there is no column {column!r}; did you mean {close[0]!r}?")
    return table
