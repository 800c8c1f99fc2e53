"""Embeddings as clip-retrieval writes them: `img_emb/`, `text_emb/` and `metadata/`, aligned by row.

https://github.com/rom1504/clip-retrieval, `clip_inference/writer.py`: autofaiss, clip-retrieval and DataComp's tools
read this layout.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.export.format import COPIES, public
from pipeline.export.stored import Stored
from pipeline.schema import EXPORTED

PIECE = 1_000_000
"""Pairs in a file, as in clip-retrieval."""

PATH = "image_path"
"""clip-retrieval's column for the name of a picture. Here it is the uid, which names the sample of an exported tar."""

TIMES = "copies"
"""The column of how often a pair is kept, of a recipe that keeps pairs more than once."""


def names(number: int, pieces: int) -> Sequence[str]:
    """Numbers have leading zeros, so that names sort as numbers do."""
    at = str(number).zfill(len(str(pieces)))
    return f"img_emb/img_emb_{at}.npy", f"text_emb/text_emb_{at}.npy", f"metadata/metadata_{at}.parquet"


def write(paths: Sequence[Path], pairs: pa.Table, stored: Stored) -> None:
    """float16 [pairs, dim], L2-normalised, of pictures and of captions; and the table."""
    for path, vectors in zip(paths, stored.vectors(pairs), strict=False):
        with path.open("wb") as file:
            np.save(file, vectors, allow_pickle=False)
    pq.write_table(_named(pairs), paths[2], compression="zstd")


def columns(rows: pa.Schema) -> pa.Schema:
    """The columns of the table."""
    return _named(rows.empty_table()).schema


def _named(pairs: pa.Table) -> pa.Table:
    """The public columns after `PATH`, and `TIMES`. A source's own column of the first name has another one."""
    rows = public(pairs)
    rows = rows.rename_columns([EXPORTED[PATH] if name.lower() == PATH else name for name in rows.column_names])
    rows = rows.add_column(0, PATH, rows["uid"])
    return rows.append_column(TIMES, pairs[COPIES]) if COPIES in pairs.column_names else rows
