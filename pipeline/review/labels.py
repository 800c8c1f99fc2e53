"""What somebody said of pairs, a word each: the sample that `winnow calibrate SOURCE --labels FILE` reads."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from pipeline.errors import StorageError
from pipeline.store.storage import Storage

KEY = "labels/labels.parquet"

WORDS = ("match", "no match", "good", "bad picture")
"""One a pair: the caption fits or does not, or else the picture is good or bad."""

GOOD = ("match", "good")
"""The words for a pair as it should be: `calibration.good` of the source file."""

SCHEMA = pa.schema({"url": pa.string(), "caption": pa.string(), "label": pa.string()})


@dataclass(frozen=True)
class Labels:
    """The labels of a source. Every one is written at once, whole or not at all, and several may write at a time."""

    storage: Storage

    @property
    def table(self) -> pa.Table:
        """url, caption, label: a row a pair, in the order in which they were first labelled.

        Raises StorageError for a file that is none.
        """
        if not self.storage.done(KEY):
            return SCHEMA.empty_table()
        path = self.storage.fetch(KEY)
        try:
            return pq.read_table(path, schema=SCHEMA)
        except (pa.ArrowException, OSError) as error:
            raise StorageError(f"{path} is no list of labels, so none is added: move it away ({error})") from None

    @property
    def counts(self) -> Mapping[str, int]:
        """Pairs by word, those with no pair as well."""
        return dict.fromkeys(WORDS, 0) | Counter(self.table["label"].to_pylist())

    def put(self, url: str, caption: str, label: str | None) -> None:
        """Say this of the pair, whatever was said of it before; None takes it back."""
        folder = self.storage.root / "labels"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            said = {(row["url"], row["caption"]): row["label"] for row in self.table.to_pylist()}
            if label is None:
                said.pop((url, caption), None)
            else:
                said[url, caption] = label
            rows = [{"url": each[0], "caption": each[1], "label": word} for each, word in said.items()]
            with self.storage.scratch() as scratch:
                pq.write_table(pa.Table.from_pylist(rows, SCHEMA), scratch / "labels")
                self.storage.put_file(KEY, scratch / "labels")
