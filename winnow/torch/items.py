"""From a stored picture and the row of its pair to an item of a dataset."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.errors import StorageError
from pipeline.schema import EXPORTED
from winnow.torch.selection import Selection

Item = dict[str, Any]
"""image, caption, uid, the chosen columns, and tokens if there is a tokenizer."""


@dataclass(frozen=True)
class Items:
    """Makes items. `decode` takes the bytes of a JPEG."""

    selection: Selection
    decode: Callable[[bytes], Any]
    transform: Callable[[Any], Any] | None
    tokenize: Callable[[str], Any] | None

    def make(self, row: int, jpeg: bytes) -> Item:
        """The item of a pair. Raises StorageError for a picture that cannot be decoded."""
        picture = self._decoded(row, jpeg)
        values = {EXPORTED.get(name, name): column[row].as_py() for name, column in self.selection.columns.items()}
        caption = values["caption"] = values["caption"] or ""
        item = {
            "image": self.transform(picture) if self.transform else picture,
            "caption": caption,
            "uid": self.selection.uid(row),
        }
        if self.tokenize:
            item["tokens"] = _without_batch(self.tokenize(caption))
        return item | values

    def _decoded(self, row: int, jpeg: bytes) -> Any:
        try:
            return self.decode(jpeg)
        except Exception as error:  # Pillow raises nearly anything on a broken file
            number = self.selection.pictures[row]
            shard, member = self.selection.shards[number], self.selection.members[int(number)]
            raise StorageError(
                f"picture {member} of shard {shard:05d} cannot be decoded ({error}): remove the shard's .tar and "
                ".parquet, and run `winnow curate`"
            ) from error


def _without_batch(tokens: Any) -> Any:
    """open_clip's tokenizers return [1, context] for one text."""
    return tokens[0] if isinstance(tokens, torch.Tensor) and tokens.ndim == 2 and len(tokens) == 1 else tokens
