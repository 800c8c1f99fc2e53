"""The columns that the rows of a source have, and the check that no two of them share a name."""

from collections.abc import Iterable, Mapping

import pyarrow as pa

from pipeline.schema import EXPORTED, INTERNAL, MADE, RESERVED, score_column
from pipeline.scorers.spec import Spec


def score_columns(scorers: Mapping[str, Spec]) -> dict[str, tuple[str, str]]:
    """By name in `rows` the scorer of a score column, and the name that the column has there."""
    return {score_column(name, column): (name, column) for name, spec in scorers.items() for column in spec.columns()}


def row_columns(extra: pa.Schema, scorers: Mapping[str, Spec]) -> pa.Schema:
    """The columns of `rows` before any verdict: what winnow makes, the source's extra columns, and every score."""
    scores = [
        pa.field(name, scorers[scorer].columns()[column]) for name, (scorer, column) in score_columns(scorers).items()
    ]
    return pa.schema([*MADE, *extra, *scores])


def check_columns(extra: Iterable[str], scorers: Mapping[str, Spec]) -> None:
    """Raises ValueError, in one line, where two columns of `rows` or of an export would have one name.

    SQL ignores case, so that Label and label are one name.
    """
    extra = list(extra)
    owners: dict[str, str] = {}
    for name in extra:
        _check_extra(name)
        if extra.count(name) > 1:
            raise ValueError(f"pairs.extra names {name!r} twice")
        _claim(owners, name, f"the extra column {name!r}")
    for name, exported in EXPORTED.items():
        if name in owners:
            _claim(owners, exported, f"{owners[name]}, which is {exported!r} in an export,")
    for scorer, spec in scorers.items():
        for column in spec.columns():
            name = score_column(scorer, column)
            if name.lower() in RESERVED:
                raise ValueError(
                    f"scorers.{scorer}: its column {column!r} would be {name!r} in rows, which winnow makes itself; "
                    "rename the scorer"
                )
            _claim(owners, name, f"the column {column!r} of scorers.{scorer}")


def _check_extra(name: str) -> None:
    if name.lower() in RESERVED:
        raise ValueError(f"pairs.extra: winnow makes a column {name.lower()!r} itself; rename it in the source")
    if name.startswith(INTERNAL):
        raise ValueError(
            f"pairs.extra: {name!r} begins with {INTERNAL}, as winnow's internal columns do; rename it in the source"
        )


def _claim(owners: dict[str, str], name: str, owner: str) -> None:
    other = owners.setdefault(name.lower(), owner)
    if other != owner:
        raise ValueError(
            f"{other} and {owner} would both be {name.lower()!r} in rows, and SQL ignores case; rename one of them"
        )
