"""Labels that a person gave pairs on the page of `winnow explore`: a list that `winnow calibrate --labels` reads."""

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
"""The labels: the caption matches the picture or not, or the picture is good or bad."""

GOOD = ("match", "good")
"""The labels of good pairs, for `calibration.good` in the source file."""

SCHEMA = pa.schema({"url": pa.string(), "caption": pa.string(), "label": pa.string()})


@dataclass(frozen=True)
class Labels:
    """The labels of a source. Each is written at once and atomically. Several processes may write."""

    storage: Storage

    @property
    def table(self) -> pa.Table:
        """url, caption, label: a row a pair, in the order in which they were first labelled.

        Raises StorageError for a file that is no list of labels.
        """
        if not self.storage.done(KEY):
            return SCHEMA.empty_table()
        path = self.storage.fetch(KEY)
        try:
            return pq.read_table(path, schema=SCHEMA)
        except (pa.ArrowException, OSError) as error:
            raise StorageError(f"{path} is no list of labels, and is left as it is: move it away ({error})") from None

    @property
    def counts(self) -> Mapping[str, int]:
        """The number of pairs by label, 0 included."""
        return dict.fromkeys(WORDS, 0) | Counter(self.table["label"].to_pylist())

    def put(self, url: str, caption: str, label: str | None) -> None:
        """Set the label of a pair; None removes it."""
        folder = self.storage.root / "labels"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            labels = {(row["url"], row["caption"]): row["label"] for row in self.table.to_pylist()}
            if label is None:
                labels.pop((url, caption), None)
            else:
                labels[url, caption] = label
            rows = [{"url": each[0], "caption": each[1], "label": word} for each, word in labels.items()]
            with self.storage.scratch() as scratch:
                pq.write_table(pa.Table.from_pylist(rows, SCHEMA), scratch / "labels")
                self.storage.put_file(KEY, scratch / "labels")
