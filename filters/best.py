"""The best share of a score as a filter, whatever the score: of the whole pool, or of what other filters leave.

The two are not the same. Of the pool's best 30 % a filter before this one may leave hardly any; of what it leaves, the
best 30 % are 30 %, however bad.
"""

from filters.core import REST, Filter


def of_pool(name: str, column: str, share: float, why: str) -> Filter:
    """The best `share` (0 to 1) of all pairs that have a value, the highest first: of whatever other filters drop, too.

    `column` is a column of `rows`, or SQL over them. Raises ValueError for a share that is none.
    """
    return Filter(name, f"{column} >= (SELECT quantile_cont({column}, {_without(share)}) FROM rows)", why)


def of_rest(name: str, column: str, share: float, why: str) -> Filter:
    """The best `share` (0 to 1), the highest first, of the pairs that pass the filters before this one in the recipe.

    As the last of a recipe it is a quantile of the survivors of all others. Raises ValueError for a share that is none.
    """
    return Filter(name, f"{column} >= (SELECT quantile_cont({column}, {_without(share)}) FROM rows WHERE {REST})", why)


def _without(share: float) -> str:
    if not 0 < share <= 1:
        raise ValueError(f"a share is more than 0 and at most 1, not {share}")
    return f"{1 - share:.6g}"
