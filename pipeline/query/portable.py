"""Types that Arrow cannot carry without loss leave the query's process as text."""

import re

import duckdb

LOSSY = ("BIGNUM", "BIT", "TIME WITH TIME ZONE", "UHUGEINT")
"""Arrow gets the last one modulo 2**128 with a sign, a time without its zone, and of the others DuckDB's own bytes."""

_TOKEN = re.compile(rf"""("(?:[^"]|"")*"|'(?:[^']|'')*')|\b(?:{"|".join(LOSSY)})\b""")
"""A quoted name or value (group 1), or a lossy type."""


def portable(answer: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """The same columns, with VARCHAR in place of the types of `LOSSY`, also inside lists, structs and maps."""
    texts = [_text_for(str(kind)) for kind in answer.types]
    if all(text == str(kind) for text, kind in zip(texts, answer.types, strict=True)):
        return answer
    names = [name.replace('"', '""') for name in answer.columns]
    columns = zip(names, texts, strict=True)
    return answer.project(", ".join(f'CAST(#{at} AS {text}) AS "{name}"' for at, (name, text) in enumerate(columns, 1)))


def _text_for(kind: str) -> str:
    return _TOKEN.sub(lambda match: match[1] or "VARCHAR", kind)
