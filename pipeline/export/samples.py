"""The samples of an export, and their order."""

import pyarrow as pa

from pipeline.export.format import COPIES, COPY, Format


def samples_query(columns: pa.Schema, layout: Format, chosen: pa.Table) -> str:
    """SQL over `rows` and the table `chosen` of a recipe: the samples with the columns that a format needs, in order.

    `columns` are those of the rows without verdicts, `chosen` is that of `Manifest.select`.
    """
    wanted = [f"rows.{name}" for name in layout.needs if name in columns.names] if layout.needs else ["rows.*"]
    if "copies" not in chosen.column_names:
        return f"SELECT {', '.join(wanted)} FROM rows SEMI JOIN chosen USING (uid) ORDER BY shard, member, uid"
    if layout.repeats == "once":
        wanted.append(f"chosen.copies AS {COPIES}")
        return f"SELECT {', '.join(wanted)} FROM rows JOIN chosen USING (uid) ORDER BY shard, member, uid"
    place = "row_number() OVER (ORDER BY shard, member, uid) - 1 AS __place"
    placed = f"SELECT {', '.join(wanted)}, chosen.copies AS __times, {place} FROM rows JOIN chosen USING (uid)"
    repeated = f"SELECT *, unnest(range(__times)) AS {COPY} FROM ({placed})"
    # With c copies of a pair at the share f of the order, they are at the shares f/c, (1 + f)/c, (2 + f)/c and so on.
    apart = f"({COPY} + __place / {max(len(chosen), 1)}) / __times, " if layout.repeats == "apart" else ""
    return f"SELECT * EXCLUDE (__times, __place) FROM ({repeated}) ORDER BY {apart}__place, {COPY}"
