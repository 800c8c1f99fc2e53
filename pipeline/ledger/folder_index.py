"""An index of the files of a folder, on disk: sorted by place, with what belongs to each, in bounded memory."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import SourceError
from pipeline.settings.locations import FORMATS
from pipeline.store import duck

_MEMORY = "256MB"
"""Of the database that sorts names. What is beyond is on disk."""

_ROWS = 8192
"""Names that are read from the index at once."""

TABLE_NAMES = ("captions", "metadata")
"""Names of tables of captions, without their endings."""

_TABLES = rf"(^|/)({'|'.join(TABLE_NAMES)})[.]({'|'.join(FORMATS)})([.]gz)?$"
"""A pattern of the places of tables of captions, in lower case."""

_ENDING = "lower(regexp_extract(place, '[.]([^./]*)$', 1))"

_STEM = "regexp_replace(place, '[.][^./]*$', '')"


@contextmanager
def indexed(base: Path, names: Iterable[list[str]], scratch: Path) -> Iterator["FolderIndex"]:
    """The index of a folder, with the names of its files in any order, in blocks of at most 65,536.

    Raises SourceError if it cannot be read, or has no file.
    """
    with duck.connect(scratch, threads=1) as con:
        con.execute(f"SET memory_limit = '{_MEMORY}'")
        con.execute("SET preserve_insertion_order = false")
        file = scratch / "folder.parquet"
        try:
            count = _write(file, names)
        except OSError as error:
            raise SourceError(f"{base} cannot be read: {error.strerror or error}") from error
        if not count:
            raise SourceError(f"the folder {base} has no file")
        yield FolderIndex(con, base, file)


class FolderIndex:
    """All files of a folder but hidden ones, as `pipeline.files.walk` names them."""

    def __init__(self, con: duckdb.DuckDBPyConnection, base: Path, file: Path) -> None:
        self._con, self._base, self._file = con, base, file
        con.execute(f"CREATE VIEW found AS SELECT place FROM {duck.parquet([file])}")
        con.execute(f"CREATE VIEW files AS FROM found WHERE NOT regexp_matches(lower(place), '{_TABLES}')")
        con.execute(f"CREATE VIEW named AS SELECT *, {_ENDING} AS ending, {_STEM} AS stem FROM files")
        con.execute("CREATE VIEW pictures AS FROM named WHERE ending NOT IN ('txt', 'json')")
        con.execute(
            "CREATE VIEW beside AS SELECT stem, min(place) AS first, max(place) AS last FROM named "
            "WHERE ending IN ('txt', 'json') GROUP BY stem"
        )

    def tables(self) -> list[str]:
        """The tables of captions. Raises SourceError if a folder has two."""
        found = f"FROM found WHERE regexp_matches(lower(place), '{_TABLES}') ORDER BY place"
        places = [place for (place,) in self._con.execute(f"SELECT place {found}").fetchall()]
        folders: dict[str, str] = {}
        for place in places:
            other = folders.setdefault(place.rpartition("/")[0], place)
            if other != place:
                raise SourceError(
                    f"{self._base} has two tables of captions, {other} and {place}: name one with captions, or move one"
                )
        return places

    def picture_beside_caption(self) -> str | None:
        """A picture with a .txt or .json of its name; None without one."""
        ((place,),) = self._con.execute("SELECT min(place) FROM pictures SEMI JOIN beside USING (stem)").fetchall()
        return None if place is None else str(place)

    def places(self) -> Iterator[list[str]]:
        """All files but tables, sorted."""
        return self._lists("SELECT place FROM files ORDER BY place")

    def places_without(self, named: Path) -> Iterator[list[str]]:
        """As `places`, without those in the column `place` of a Parquet file, and without their .txt and .json."""
        taken = duck.parquet([named])
        return self._lists(
            f"WITH taken AS (SELECT DISTINCT place, {_STEM} AS stem FROM {taken}), "
            "others AS (FROM named ANTI JOIN taken USING (place)) SELECT place FROM others "
            "WHERE NOT (ending IN ('txt', 'json') AND stem IN (SELECT stem FROM taken)) ORDER BY place"
        )

    def with_captions(self) -> Iterator[list[tuple[str, str | None]]]:
        """Each picture, sorted, with the .txt or .json of its name. One without a picture comes with its stem.

        Raises SourceError for two of one picture.
        """
        two = self._con.execute("SELECT first, last FROM beside WHERE first != last ORDER BY first LIMIT 1").fetchall()
        if two:
            raise SourceError(f"{self._base} has two captions of one picture, {two[0][0]} and {two[0][1]}: remove one")
        reader = self._con.sql(
            "SELECT coalesce(place, beside.stem) AS place, first FROM pictures FULL JOIN beside "
            "ON pictures.stem = beside.stem ORDER BY ALL"
        ).to_arrow_reader(_ROWS)
        for batch in reader:
            yield list(zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True))

    def _lists(self, sql: str) -> Iterator[list[str]]:
        for batch in self._con.sql(sql).to_arrow_reader(_ROWS):
            yield batch.column(0).to_pylist()


def _write(file: Path, blocks: Iterable[list[str]]) -> int:
    count = 0
    with pq.ParquetWriter(file, pa.schema({"place": pa.string()}), compression="zstd", use_dictionary=False) as writer:
        for block in blocks:
            writer.write_batch(pa.record_batch([pa.array(block, pa.string())], names=["place"]))
            count += len(block)
    return count
